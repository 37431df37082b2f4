"""``WhatsAppSessionClass``: what a platform team decides for the sessions of a class."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, GetJsonSchemaHandler, StringConstraints
from pydantic_core import core_schema

from wasession_api.base import Model, Observed, Pattern, Time
from wasession_api.v1alpha1.backup import MAXIMUM_RECIPIENTS, Recipient
from wasession_api.v1alpha1.delivery import DeliveryPolicy
from wasession_api.v1alpha1.rollout import Rollout, RolloutPhase, RolloutStatus
from wasession_api.v1alpha1.spec import (
    IMAGE,
    NO_CONTROL,
    LabelValue,
    Name,
    Origin,
    Quantity,
    SecretReference,
    SessionTemplate,
)

OPERATOR_CONFLICT: Literal["OperatorConflict"] = "OperatorConflict"
ROLLED_OUT: Literal["RolledOut"] = "RolledOut"
# Chromium flags that neither run programs, write files, nor change what the session pod relies on.
# --js-flags, which can make V8 write logs and turn its checks off, is not one of them. See
# https://peter.sh/experiments/chromium-command-line-switches/
ALLOWED_FLAGS = (
    "--blink-settings",
    "--disable-gpu",
    "--disable-remote-fonts",
    "--disable-smooth-scrolling",
    "--dns-prefetch-disable",
    "--force-color-profile",
    "--force-device-scale-factor",
    "--host-resolver-rules",
    "--mute-audio",
    "--no-pings",
    "--proxy-bypass-list",
    "--renderer-process-limit",
    "--unsafely-treat-insecure-origin-as-secure",
    "--window-size",
)
Flag = Annotated[
    str,
    StringConstraints(max_length=1024),
    Pattern(
        rf"^({'|'.join(ALLOWED_FLAGS)})(={NO_CONTROL}*)?$",
        f"must be one of the Chromium flags {', '.join(ALLOWED_FLAGS)}",
    ),
]
NamespacePattern = Annotated[
    str,
    StringConstraints(max_length=64),
    Pattern(
        r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?|[a-z0-9][-a-z0-9]*\*|\*)$",
        "must be the name of a namespace, or the beginning of one followed by *",
    ),
]


class Override(StrEnum):
    """The fields that a class can let its sessions set."""

    STORAGE_SIZE = "storage.size"
    STORAGE_CLASS_NAME = "storage.storageClassName"
    STORAGE_ACCESS_MODE = "storage.accessMode"
    STORAGE_RETENTION = "storage.retention"
    RESOURCES = "browser.resources"
    SHM_SIZE = "browser.shmSize"
    USER_AGENT = "browser.userAgent"
    LOCALE = "browser.locale"
    TIMEZONE = "browser.timezone"
    SANDBOX = "browser.sandbox"
    PROXY = "browser.proxySecretRef"
    LIVE_VIEW = "browser.liveView"
    DEVICE_NAME = "whatsapp.deviceName"
    PRESENCE = "whatsapp.presence"
    TAKEOVER = "whatsapp.takeover"
    TIMEOUTS = "timeouts"
    RECONNECT = "reconnect"
    EVENTS = "events"
    WEBHOOKS = "webhooks"
    SINKS = "sinks"
    BACKUP = "backup"
    HIBERNATION = "hibernation"
    UPDATE_STRATEGY = "updateStrategy"


class Limits(Model):
    """Upper bounds of a session."""

    storage: Quantity | None = Field(
        None, description="Largest size of a session's volume; no limit if unset."
    )
    cpu: Quantity | None = Field(
        None,
        description="Largest request and limit of CPU, and the limit of sessions that have none; "
        "no limit if unset.",
    )
    memory: Quantity | None = Field(
        None,
        description="Largest request and limit of memory, and size of /dev/shm; no limit if unset.",
    )
    sessions_per_owner: int | None = Field(
        None,
        ge=0,
        description="How many sessions an owner can have in a namespace; no limit if unset. For "
        "namespaces, use a ResourceQuota for count/whatsappsessions.wasession.dev.",
    )


ConfigMapKey = Annotated[
    str,
    StringConstraints(max_length=253),
    Pattern(r"^[-._a-zA-Z0-9]+$", "must be a key of a ConfigMap"),
]
SHA256 = Annotated[
    str,
    StringConstraints(max_length=64),
    Pattern(r"^[0-9a-f]{64}$", "must be a SHA-256: 64 digits and letters from a to f"),
]


class CABundle(Model):
    """Certificates of authorities that the browser trusts, besides those that it comes with."""

    config_map_name: Name = Field(
        description="ConfigMap in each namespace of sessions, such as trust-manager distributes."
    )
    key: ConfigMapKey = Field(
        "ca.crt", description="Key of the ConfigMap with the certificates in PEM."
    )


class WaJSSource(Model):
    """The wa-js that session pods use in place of that of their image."""

    config_map_name: Name = Field(description="ConfigMap in each namespace of sessions.")
    key: ConfigMapKey = Field(
        "wa-js",
        description="Key of the ConfigMap with the script; in binaryData it may be packed with "
        "gzip.",
    )
    sha256: SHA256 = Field(
        description="SHA-256 of the script, unpacked, in hexadecimal. No browser starts with "
        "another one."
    )


class DocumentSource(Model):
    """The document that session pods use in place of the one that WhatsApp Web serves."""

    config_map_name: Name = Field(description="ConfigMap in each namespace of sessions.")
    key: ConfigMapKey = Field(
        "document",
        description="Key of the ConfigMap with the HTML; in binaryData it may be packed with gzip.",
    )
    sha256: SHA256 = Field(
        description="SHA-256 of the HTML, unpacked, in hexadecimal. No browser starts with "
        "another one."
    )


class PodMetadata(Model):
    """Additional labels and annotations of the pod; the operator's own cannot be overridden."""

    labels: dict[str, LabelValue] = Field({}, description="Labels of the pod.", max_length=32)
    annotations: dict[str, Annotated[str, StringConstraints(max_length=4096)]] = Field(
        {}, description="Annotations of the pod.", max_length=32
    )


@dataclass(frozen=True)
class CoreSchema:
    """Says that a dict is a Kubernetes object of this kind: the CRD has Kubernetes' own schema."""

    kind: str

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "x-core-schema": self.kind}


Toleration = Annotated[dict[str, Any], CoreSchema("io.k8s.api.core.v1.Toleration")]
Affinity = Annotated[dict[str, Any], CoreSchema("io.k8s.api.core.v1.Affinity")]
TopologySpreadConstraint = Annotated[
    dict[str, Any], CoreSchema("io.k8s.api.core.v1.TopologySpreadConstraint")
]
PodSecurityContext = Annotated[dict[str, Any], CoreSchema("io.k8s.api.core.v1.PodSecurityContext")]
NetworkPolicyEgressRule = Annotated[
    dict[str, Any], CoreSchema("io.k8s.api.networking.v1.NetworkPolicyEgressRule")
]


class PodSpec(Model):
    """Scheduling and security of the pod. The fields are those of a core/v1 PodSpec."""

    node_selector: dict[str, LabelValue] = Field(
        {}, description="Labels that a node must have to run the pod.", max_length=32
    )
    tolerations: list[Toleration] = Field([], description="Tolerations of the pod.", max_length=32)
    affinity: Affinity | None = Field(None, description="Affinity of the pod.")
    topology_spread_constraints: list[TopologySpreadConstraint] = Field(
        [], description="Topology spread constraints of the pod.", max_length=16
    )
    priority_class_name: Name | None = Field(None, description="PriorityClass of the pod.")
    runtime_class_name: Name | None = Field(None, description="RuntimeClass of the pod.")
    service_account_name: Name | None = Field(
        None, description="ServiceAccount of the pod; its token is never mounted."
    )
    image_pull_secrets: list[SecretReference] = Field(
        [], description="Secrets to pull the image with.", max_length=16
    )
    security_context: PodSecurityContext | None = Field(
        None,
        description="Fields to merge into the pod's security context, such as a seccompProfile. "
        "What Pod Security restricted forbids is ignored.",
    )


class PodTemplate(Model):
    """Additions to the pod that the operator creates."""

    metadata: PodMetadata = Field(
        default_factory=PodMetadata,
        description="Additional labels and annotations of the pod.",
    )
    spec: PodSpec = Field(
        default_factory=PodSpec, description="Scheduling and security of the pod."
    )


class BackupPolicy(Model):
    """How backups of the class's sessions are made."""

    recipients: list[Recipient] = Field(
        [],
        max_length=MAXIMUM_RECIPIENTS,
        description="Public keys of age that can decrypt archives. Without one there are none.",
    )
    volume_snapshot_class_name: Name | None = Field(
        None,
        description="VolumeSnapshotClass of backups with the method VolumeSnapshot; the default "
        "one of the volume's CSI driver if unset.",
    )


class ClassOnly(Model):
    """What a class decides alone: a session has no such fields."""

    image: Annotated[str, StringConstraints(max_length=512), IMAGE] | None = Field(
        None, description="Image of the session pods; the operator's default if unset."
    )
    extra_args: list[Flag] = Field(
        [],
        description=f"Further command-line flags for Chromium, of {', '.join(ALLOWED_FLAGS)}.",
        max_length=32,
    )
    whatsapp_url: Origin = Field(
        "https://web.whatsapp.com",
        alias="whatsappURL",
        description="Origin of WhatsApp Web: scheme, host and port, without a path.",
    )
    ca_bundle: CABundle | None = Field(
        None,
        alias="caBundle",
        description="Certificate authorities that the browser trusts besides its own.",
    )
    wa_js: WaJSSource | None = Field(
        None,
        alias="waJS",
        description="The wa-js that session pods use; that of their image if unset.",
    )
    whatsapp_document: DocumentSource | None = Field(
        None,
        description="A document of WhatsApp Web that is served in place of the present one. For "
        "emergencies: WhatsApp refuses it some weeks after its release.",
    )
    delivery_policy: DeliveryPolicy = Field(
        default_factory=DeliveryPolicy, description="Where webhooks and sinks of sessions may go."
    )
    backup_policy: BackupPolicy = Field(
        default_factory=BackupPolicy,
        description="How backups of the class's sessions are protected.",
    )
    pod_template: PodTemplate = Field(
        default_factory=PodTemplate, description="Additions to the pods that the operator creates."
    )


class ClassSpec(ClassOnly):
    """What the platform team decides for the sessions of the class."""

    allowed_namespaces: list[NamespacePattern] | None = Field(
        None,
        min_length=1,
        max_length=256,
        description="Namespaces whose sessions can use the class, such as team-a or team-*; all "
        "of them if unset.",
    )
    overrides: list[Override] = Field(
        [],
        max_length=len(Override),
        description="Fields that a session can set itself. All others come from the template.",
    )
    limits: Limits = Field(default_factory=Limits, description="Upper bounds of a session.")
    template: SessionTemplate = Field(
        default_factory=SessionTemplate,
        description="Values of the fields that a session does not set.",
    )
    egress: list[NetworkPolicyEgressRule] = Field(
        [],
        max_length=32,
        description="What session pods can connect to besides DNS and port 443 of public "
        "addresses: rules of a networking.k8s.io/v1 NetworkPolicy.",
    )
    rollout: Rollout | None = Field(
        None,
        description="How a change of what session pods run reaches the sessions with RollingUpdate: "
        "a canary first, then step by step. If unset, one session after another is updated.",
    )


# What of a class decides what session pods run; some of it also decides other things.
REVISION_FIELDS = frozenset(
    {"template", "limits", *(field.alias or name for name, field in ClassOnly.model_fields.items())}
)


class ClassUse(Observed):
    """The sessions of the class that one operator serves."""

    operator: str = Field(description="Namespace and name of the operator.", max_length=256)
    sessions: int = Field(ge=0, description="Number of its sessions of the class.")
    namespaces: int = Field(ge=0, description="Number of namespaces that they are in.")


class ClassCondition(Observed):
    """A condition of a class, as in metav1.Condition."""

    type: Literal["OperatorConflict", "RolledOut"] = Field(
        description="OperatorConflict: several operators serve the same sessions, and one of them "
        "acts. RolledOut: no rollout is under way."
    )
    status: Literal["True", "False"] = Field(description="Status of the condition.")
    reason: Literal["SeveralOperators", "OneOperator"] | RolloutPhase = Field(
        description="Reason for the status in CamelCase; of RolledOut, the phase of the rollout."
    )
    message: str = Field(description="Explanation of the status.", max_length=1024)
    last_transition_time: Time = Field(description="When the status changed last.")


class ClassStatus(Observed):
    """Who uses the class."""

    used_by: list[ClassUse] = Field(
        [], description="The sessions of the class, by operator.", max_length=64
    )
    rollouts: list[RolloutStatus] = Field(
        [],
        description="How far the latest change of what session pods run is, by operator.",
        max_length=64,
    )
    conditions: list[ClassCondition] = Field(
        [], description="Whether the class is served as it should be.", max_length=8
    )
