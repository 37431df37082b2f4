"""Build a session's Secret, volume claim and pod, and the patches of them: pure."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from wasession_api import names
from wasession_api.kube.manifests import Manifest, amount
from wasession_api.session_pod import PORT
from wasession_api.session_pod.token_derivation import token_id
from wasession_api.session_pod.tokens import KEYS
from wasession_api.v1alpha1 import API_VERSION, GROUP, KIND, WhenDeleted
from wasession_api.v1alpha1.backup import IDENTITY_SECRET_NAME
from wasession_api.v1alpha1.delivery import SECRET_NAME as DELIVERY_SECRET

from wasession_operator.effective_spec import EffectiveSpec
from wasession_operator.settings import Settings

CONTAINER = "session"
RESTORE_CONTAINER = "restore"  # an init container
SNAPSHOT_GROUP = "snapshot.storage.k8s.io"  # of VolumeSnapshots
DATA = "/var/lib/wasession"
TOKEN_DIRECTORY = "/etc/wasession"  # noqa: S105
PROXY_DIRECTORY = "/etc/wasession-proxy"
DELIVERY_DIRECTORY = "/etc/wasession-delivery"
CA_DIRECTORY = "/etc/wasession-ca"
WA_JS_DIRECTORY = "/etc/wasession-wa-js"
DOCUMENT_DIRECTORY = "/etc/wasession-document"
IDENTITY_DIRECTORY = "/etc/wasession-backup-identity"
RESTORE_URL = "restore-url"  # key of the session's Secret
# A type is immutable: the API server rejects what is applied to somebody else's Secret.
SECRET_TYPE = f"{GROUP}/session-token"
# What Pod Security ``restricted`` allows in a pod's security context, besides users and groups. See
# https://kubernetes.io/docs/concepts/security/pod-security-standards/
CONFINED_PROFILES = ("RuntimeDefault", "Localhost")  # of seccomp and AppArmor
SELINUX_TYPES = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
SAFE_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
}
# cluster-autoscaler keeps each node with a pod whose controller it does not know, unless the pod
# says that it may be evicted; a PodDisruptionBudget limits that all the same. While a phone is
# being linked, neither it nor Karpenter may evict the pod: somebody would have to begin again.
SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict"
DO_NOT_DISRUPT = "karpenter.sh/do-not-disrupt"
GRACE_SECONDS = 15  # for the process, beyond the browser's own shutdown timeout
# Part of the template's hash: raise it when all pods should be replaced for a change in this file.
TEMPLATE_VERSION = 1


@dataclass(frozen=True)
class Restore:
    """What a pod restores into its empty volume before the session starts."""

    backup_uid: str
    login_id: str
    key: str  # of the archive in the store
    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class SnapshotRestore:
    """The VolumeSnapshot that a new PVC is made from; its first pod makes the copy its own."""

    backup_uid: str
    login_id: str
    snapshot: str  # name of the VolumeSnapshot
    size: int | None  # bytes that the PVC has to have; None if the driver does not say


def owner_reference(name: str, uid: str) -> Manifest:
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def labels(name: str, spec: EffectiveSpec) -> dict[str, str]:
    result = {
        names.LABEL_NAME: names.APP_NAME,
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        names.LABEL_SESSION: names.label_value(name),
    }
    if spec.owner is not None:
        result[names.LABEL_OWNER] = names.label_value(spec.owner)
    return result


def pod_labels(name: str, spec: EffectiveSpec) -> dict[str, str]:
    """Return the labels of the pod: its NetworkPolicy selects it by its class."""
    of_class = {} if spec.class_name is None else {names.LABEL_CLASS: spec.class_name}
    return labels(name, spec) | of_class


def client_id(name: str, spec: EffectiveSpec) -> str:
    return spec.client_id or name


def identity(name: str, spec: EffectiveSpec) -> dict[str, str]:
    """Return the annotations that say whose login a volume claim holds, also without its session.

    A session without an owner is noted as such: it is not one whose owner is unknown.
    """
    return {
        names.ANNOTATION_CLIENT_ID: client_id(name, spec),
        names.ANNOTATION_OWNER: spec.owner or "",
    }


def _metadata(namespace: str, name: str, spec: EffectiveSpec) -> Manifest:
    return {
        "name": names.object_name(name),
        "namespace": namespace,
        "labels": labels(name, spec),
        "annotations": identity(name, spec),
    }


def make_secret(
    namespace: str, name: str, uid: str, spec: EffectiveSpec, tokens: Sequence[str],
    restore_url: str | None = None,
) -> Manifest:  # fmt: skip
    """Return the session's Secret with its tokens, the present one first.

    With ``restore_url``, the pod's init container can fetch the archive that it restores.

    The previous one stays readable: pods read their token for each request, but kubelet updates a
    mounted Secret only within about a minute.
    """
    metadata = _metadata(namespace, name, spec) | {"ownerReferences": [owner_reference(name, uid)]}
    metadata["name"] = names.token_secret_name(name)
    metadata["annotations"][names.ANNOTATION_TOKEN_ID] = token_id(tokens[0])
    values = dict(zip(KEYS, tokens, strict=False))
    if restore_url is not None:
        values[RESTORE_URL] = restore_url
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": SECRET_TYPE,
        "data": {key: _encoded(value) for key, value in values.items()},
    }


def unchanged_since(uid: str, version: str) -> list[Manifest]:
    """Return JSON patch operations that have the API server refuse the patch of anything else.

    Another session may have the name by now, or somebody may have changed the session.
    """
    return [
        {"op": "test", "path": "/metadata/uid", "value": uid},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
    ]


def finalizer_patch(
    uid: str, version: str, present: tuple[str, ...], *, add: bool
) -> list[Manifest]:
    """Return a JSON patch that adds or removes the operator's finalizer, and no other."""
    path = "/metadata/finalizers"
    tests = unchanged_since(uid, version)
    if not add:
        index = present.index(names.FINALIZER)
        tests.append({"op": "test", "path": f"{path}/{index}", "value": names.FINALIZER})
        return [*tests, {"op": "remove", "path": f"{path}/{index}"}]
    if present:
        return [*tests, {"op": "add", "path": f"{path}/-", "value": names.FINALIZER}]
    tests.append({"op": "test", "path": path, "value": None})  # there are still none
    return [*tests, {"op": "add", "path": path, "value": [names.FINALIZER]}]


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def make_pvc(
    namespace: str, name: str, uid: str, spec: EffectiveSpec,
    restore: Restore | SnapshotRestore | None = None,
) -> Manifest:  # fmt: skip
    """Return the volume claim; it outlives the session unless the retention is ``Delete``.

    ``restore`` is what its volume begins with. It is made from a VolumeSnapshot, and no smaller
    than that, or it is empty, and an archive is restored on it.
    """
    metadata = _metadata(namespace, name, spec)
    if restore is not None:
        metadata["annotations"][names.ANNOTATION_LOGIN_ID] = restore.login_id
    if spec.storage.retention.when_deleted is WhenDeleted.DELETE:
        metadata["ownerReferences"] = [owner_reference(name, uid)]
    claim_spec: Manifest = {
        "accessModes": [spec.storage.access_mode.value],
        "resources": {"requests": {"storage": spec.storage.size}},
    }
    if spec.storage.storage_class_name is not None:
        claim_spec["storageClassName"] = spec.storage.storage_class_name
    if isinstance(restore, SnapshotRestore):
        claim_spec["dataSource"] = _data_source(restore.snapshot)
        if restore.size is not None and restore.size > amount(spec.storage.size):
            claim_spec["resources"]["requests"]["storage"] = str(restore.size)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": claim_spec,
    }


def _data_source(snapshot: str) -> Manifest:
    return {"apiGroup": SNAPSHOT_GROUP, "kind": "VolumeSnapshot", "name": snapshot}


def is_from_snapshot(pvc: Manifest, snapshot: str) -> bool:
    """Return whether a claim's volume is made from a VolumeSnapshot."""
    return bool(pvc["spec"].get("dataSource") == _data_source(snapshot))


def make_pod(
    namespace: str, name: str, uid: str, spec: EffectiveSpec, settings: Settings, *,
    restoring: bool, restart: str | None = None, token_id: str | None = None,
    previous_owners: Sequence[str] = (), own_spec: str | None = None, revision: str | None = None,
    restore: Restore | SnapshotRestore | None = None, traceparent: str | None = None,
) -> Manifest:  # fmt: skip
    """Return the session's pod.

    ``restoring``: the volume should hold a valid login. ``restart``: the restart request that the
    pod fulfils. ``token_id``: the token that it starts with. ``previous_owners``: those whose
    volume it may use too, as its session had them. ``own_spec``: hash of what the session itself
    sets of its pod. ``revision``: of what its class decides of it. ``restore``: the backup that its
    new volume begins with. ``traceparent``: the trace that its start is a part of, if session pods
    are traced. None of them is part of the template's hash.
    """
    linking = not restoring
    pod = _pod(namespace, name, uid, spec, settings, linking=linking)
    annotations = {
        names.ANNOTATION_TEMPLATE_HASH: template_hash(pod),
        names.ANNOTATION_TEMPLATE_METADATA: template_metadata(spec, linking=linking).record(),
        names.ANNOTATION_CLASS: spec.class_name,
        names.ANNOTATION_OWN_SPEC: own_spec,
        names.ANNOTATION_REVISION: revision,
        names.ANNOTATION_RESTART: restart,
        names.ANNOTATION_TOKEN_ID: token_id,
    }
    pod["metadata"]["annotations"] |= {
        key: value for key, value in annotations.items() if value is not None
    }
    pod["spec"]["containers"][0]["env"].append(
        {"name": "WASESSION_RESTORING", "value": str(restoring).lower()}
    )
    if restart is not None:
        pod["spec"]["containers"][0]["env"].append({"name": "WASESSION_RESTART", "value": restart})
    if previous_owners:
        pod["spec"]["containers"][0]["env"].append(
            {"name": "WASESSION_PREVIOUS_OWNERS", "value": json.dumps(list(previous_owners))}
        )
    if restore is not None:
        _add_restoration(pod["spec"], names.token_secret_name(name), restore)
    if traceparent is not None and settings.session_tracing:
        pod["spec"]["containers"][0]["env"].append(
            {"name": "WASESSION_TRACEPARENT", "value": traceparent}
        )
    return pod


def _add_restoration(spec: Manifest, secret: str, restore: Restore | SnapshotRestore) -> None:
    """Let an init container restore a backup. It alone has the key that decrypts an archive."""
    session = spec["containers"][0]
    container: Manifest = {
        "name": RESTORE_CONTAINER,
        "image": session["image"],
        "imagePullPolicy": session["imagePullPolicy"],
        "args": ["python", "-m", "wasession_pod.restore"],
        "env": [
            *session["env"],
            {"name": "WASESSION_RESTORE_BACKUP", "value": restore.backup_uid},
            {"name": "WASESSION_RESTORE_LOGIN_ID", "value": restore.login_id},
        ],
        "resources": session["resources"],
        "securityContext": session["securityContext"],
        "volumeMounts": [*session["volumeMounts"]],
    }
    spec["initContainers"] = [container]
    if isinstance(restore, SnapshotRestore):
        container["args"] = ["python", "-m", "wasession_pod.restore_snapshot"]
        return
    url = {"secretKeyRef": {"name": secret, "key": RESTORE_URL}}
    container["env"] += [
        {"name": "WASESSION_RESTORE_URL", "valueFrom": url},
        {"name": "WASESSION_RESTORE_SIZE", "value": str(restore.size)},
        {"name": "WASESSION_RESTORE_SHA256", "value": restore.sha256},
    ]
    container["volumeMounts"].append(
        {"name": "identity", "mountPath": IDENTITY_DIRECTORY, "readOnly": True}
    )
    identity = {"secretName": IDENTITY_SECRET_NAME, "optional": True, "defaultMode": 0o440}
    spec["volumes"].append({"name": "identity", "secret": identity})


def desired_hash(
    namespace: str, name: str, uid: str, spec: EffectiveSpec, settings: Settings
) -> str:
    """Return the template hash that the session's pod should have."""
    return template_hash(_pod(namespace, name, uid, spec, settings))


def template_hash(pod: Manifest) -> str:
    """Return a hash of the pod's spec as built here, without the API server's defaults."""
    return digest([TEMPLATE_VERSION, pod["spec"]])


def digest(content: Any) -> str:
    """Return a short hash of JSON values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class TemplateMetadata(NamedTuple):
    """The labels and annotations that the pod has from its template."""

    labels: dict[str, str]
    annotations: dict[str, str]

    def record(self) -> str:
        """Return what a pod notes of them: their names, and a hash of their values."""
        return json.dumps(
            {
                "hash": digest(self),
                "labels": sorted(self.labels),
                "annotations": sorted(self.annotations),
            }
        )

    def changes(self, record: str | None) -> tuple[dict[str, str | None], dict[str, str | None]]:
        """Return labels and annotations to patch onto a pod with a record; None removes one."""
        if record == self.record():
            return {}, {}
        try:
            noted = json.loads(record or "{}")
            labels = dict.fromkeys(map(str, noted.get("labels", [])))
            annotations = dict.fromkeys(map(str, noted.get("annotations", [])))
        except (ValueError, AttributeError, TypeError):  # edited by a person
            labels, annotations = {}, {}
        return {**labels, **self.labels}, {
            **annotations,
            **self.annotations,
            names.ANNOTATION_TEMPLATE_METADATA: self.record(),
        }


def template_metadata(spec: EffectiveSpec, *, linking: bool) -> TemplateMetadata:
    """Return the template's labels and annotations, without the operator's own names.

    ``linking``: a phone is being linked, so that the pod should not be evicted. What the template
    says of that is the last word.
    """
    evictable = {SAFE_TO_EVICT: "true"}
    protected = {SAFE_TO_EVICT: "false", DO_NOT_DISRUPT: "true"}
    template = spec.pod_template.metadata
    return TemplateMetadata(
        {name: value for name, value in template.labels.items() if name not in names.LABELS},
        (protected if linking else evictable)
        | {
            name: value
            for name, value in template.annotations.items()
            if not name.startswith(f"{GROUP}/")
        },
    )


def _pod(
    namespace: str, name: str, uid: str, spec: EffectiveSpec, settings: Settings, *,
    linking: bool = False,
) -> Manifest:  # fmt: skip
    template = spec.pod_template
    metadata = _metadata(namespace, name, spec)
    from_template = template_metadata(spec, linking=linking)
    metadata["labels"] = {**from_template.labels, **pod_labels(name, spec)}
    metadata["annotations"] = {**from_template.annotations, **metadata["annotations"]}
    metadata["ownerReferences"] = [owner_reference(name, uid)]
    pod: Manifest = {
        "restartPolicy": "Always",
        "hostname": "wasession",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": int(spec.timeouts.shutdown.total_seconds())
        + GRACE_SECONDS,
        "securityContext": _security_context(spec, settings),
        "containers": [_container(namespace, name, uid, spec, settings)],
        "volumes": _volumes(name, spec),
    }
    overrides = template.spec.dump()
    overrides.pop("securityContext", None)  # is merged above
    pod |= {field: value for field, value in overrides.items() if value}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}


def _security_context(spec: EffectiveSpec, settings: Settings) -> Manifest:
    """Return the pod's security context: its class can change it within ``restricted``."""
    user = settings.run_as_user
    users = {} if user is None else {"runAsUser": user, "runAsGroup": user, "fsGroup": user}
    context: Manifest = {
        **users,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for field, value in (spec.pod_template.spec.security_context or {}).items():
        if value is not None and _is_restricted(field, value):
            context[field] = value
    return context | {"runAsNonRoot": True}


def _is_restricted(field: str, value: Any) -> bool:
    """Return whether Pod Security ``restricted`` allows a field of the security context."""
    match field:
        case "runAsUser":
            return bool(value != 0)
        case "seccompProfile" | "appArmorProfile":
            return value.get("type") in CONFINED_PROFILES
        case "seLinuxOptions":
            confined = value.get("type", "") in SELINUX_TYPES
            return confined and not value.get("user") and not value.get("role")
        case "sysctls":
            return all(sysctl.get("name") in SAFE_SYSCTLS for sysctl in value)
        case _:
            return field != "windowsOptions"


def _volumes(name: str, spec: EffectiveSpec) -> list[Manifest]:
    """Return the pod's volumes. It starts without the optional ones, and says what is missing."""
    token = {"secretName": names.token_secret_name(name), "defaultMode": 0o440}
    volumes: list[Manifest] = [
        {"name": "data", "persistentVolumeClaim": {"claimName": names.object_name(name)}},
        {"name": "token", "secret": token},
        {"name": "tmp", "emptyDir": {"sizeLimit": "512Mi"}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": spec.browser.shm_size}},
    ]
    if (proxy := spec.browser.proxy_secret_ref) is not None:
        secret = {"secretName": proxy.name, "optional": True, "defaultMode": 0o440}
        volumes.append({"name": "proxy", "secret": secret})
    if spec.ca_bundle is not None:
        volumes.append(_optional_config_map("ca", spec.ca_bundle.config_map_name))
    if spec.wa_js is not None:
        volumes.append(_optional_config_map("wa-js", spec.wa_js.config_map_name))
    if spec.whatsapp_document is not None:
        volumes.append(_optional_config_map("document", spec.whatsapp_document.config_map_name))
    # Always, so that a session's first webhook or sink does not restart its pod.
    keys = {"secretName": DELIVERY_SECRET, "optional": True, "defaultMode": 0o440}
    volumes.append({"name": "delivery", "secret": keys})
    return volumes


def _optional_config_map(volume: str, name: str) -> Manifest:
    return {"name": volume, "configMap": {"name": name, "optional": True}}


def _volume_mounts(spec: EffectiveSpec) -> list[Manifest]:
    mounts: list[Manifest] = [
        {"name": "data", "mountPath": DATA},
        {"name": "token", "mountPath": TOKEN_DIRECTORY, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
    ]
    if spec.browser.proxy_secret_ref is not None:
        mounts.append({"name": "proxy", "mountPath": PROXY_DIRECTORY, "readOnly": True})
    if spec.ca_bundle is not None:
        mounts.append({"name": "ca", "mountPath": CA_DIRECTORY, "readOnly": True})
    if spec.wa_js is not None:
        mounts.append({"name": "wa-js", "mountPath": WA_JS_DIRECTORY, "readOnly": True})
    if spec.whatsapp_document is not None:
        mounts.append({"name": "document", "mountPath": DOCUMENT_DIRECTORY, "readOnly": True})
    mounts.append({"name": "delivery", "mountPath": DELIVERY_DIRECTORY, "readOnly": True})
    return mounts


def _container(
    namespace: str, name: str, uid: str, spec: EffectiveSpec, settings: Settings
) -> Manifest:
    return {
        "name": CONTAINER,
        "image": spec.image or settings.session_image,
        "imagePullPolicy": settings.image_pull_policy,
        "env": _environment(namespace, name, uid, spec, settings),
        "ports": [{"name": "http", "containerPort": PORT}],
        "resources": {
            "requests": spec.browser.resources.requests,
            "limits": spec.browser.resources.limits,
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "startupProbe": {
            "httpGet": {"path": "/readyz", "port": "http"},
            # The pod listens at once, and answers when its API has been imported. A probe that
            # waits for that is no failure, and leaves no Event.
            "initialDelaySeconds": 2,
            "periodSeconds": 1,
            "timeoutSeconds": 30,
            "failureThreshold": 10,
        },
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "http"},
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "livenessProbe": {
            "httpGet": {"path": "/livez", "port": "http"},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "volumeMounts": _volume_mounts(spec),
    }


def _environment(
    namespace: str, name: str, uid: str, spec: EffectiveSpec, settings: Settings
) -> list[Manifest]:
    values: dict[str, str | None] = {
        "CLIENT_ID": client_id(name, spec),
        "NAMESPACE": namespace,
        "SESSION": name,
        "SESSION_UID": uid,
        "OWNER": spec.owner or "",
        "TOKEN_FILE": f"{TOKEN_DIRECTORY}/token",
        "DATA_DIR": DATA,
        "WHATSAPP_URL": spec.whatsapp_url,
        "DEVICE_NAME": spec.whatsapp.device_name,
        "TAKEOVER": spec.whatsapp.takeover.value,
        "PRESENCE": spec.whatsapp.presence.value,
        "PAIRING_METHOD": spec.pairing.method.value,
        "PHONE_NUMBER": spec.pairing.phone_number,
        "MAX_ROUNDS": str(spec.pairing.max_rounds),
        "INITIALIZATION_TIMEOUT": str(spec.timeouts.initialization.total_seconds()),
        "SHUTDOWN_TIMEOUT": str(spec.timeouts.shutdown.total_seconds()),
        "LOGOUT_TIMEOUT": str(spec.timeouts.logout.total_seconds()),
        "RECONNECT_INITIAL_DELAY": str(spec.reconnect.initial_delay.total_seconds()),
        "RECONNECT_MAX_DELAY": str(spec.reconnect.max_delay.total_seconds()),
        "EVENT_RETENTION": str(spec.events.retention.total_seconds()),
        "EVENT_MAXIMUM_BYTES": str(round(amount(spec.events.maximum_size))),
        "USER_AGENT": spec.browser.user_agent,
        "LOCALE": spec.browser.locale,
        "TIMEZONE": spec.browser.timezone,
        "SANDBOX": spec.browser.sandbox.value,
        "LIVE_VIEW": "true" if spec.browser.live_view else None,  # a new field restarts no pod
        "EXTRA_ARGS": json.dumps(spec.extra_args),
        "QUARANTINE_RETENTION": str(settings.quarantine_retention.total_seconds()),
        "DELIVERY_SECRET": DELIVERY_DIRECTORY,
        "PROXY_DIRECTORY": None if spec.browser.proxy_secret_ref is None else PROXY_DIRECTORY,
        "CA_BUNDLE": None if spec.ca_bundle is None else f"{CA_DIRECTORY}/{spec.ca_bundle.key}",
    }
    if (wa_js := spec.wa_js) is not None:
        values["WA_JS"] = f"{WA_JS_DIRECTORY}/{wa_js.key}"
        values["WA_JS_SHA256"] = wa_js.sha256
    if (document := spec.whatsapp_document) is not None:
        values["DOCUMENT"] = f"{DOCUMENT_DIRECTORY}/{document.key}"
        values["DOCUMENT_SHA256"] = document.sha256
    return [
        {"name": f"WASESSION_{key}", "value": value}
        for key, value in values.items()
        if value is not None
    ] + [{"name": name, "value": value} for name, value in sorted(settings.session_tracing.items())]
