"""``wasession.dev/v1alpha1``: the WhatsAppSession resource.

These models are the only source of the API: the CRD is generated from them (``wasession_api.crd``),
the operator reads specs with them and writes statuses with them.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema

from wasession_api.base import Duration, Model, Observed, Time, clip, pattern_message

GROUP = "wasession.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "WhatsAppSession"
PLURAL = "whatsappsessions"
SINGULAR = "whatsappsession"
SHORT_NAMES = ("wasession", "wasessions", "was")

# Flags of Chromium that the session pod sets itself, or that would take the login's protection
# away.
OWNED_FLAGS = (
    "--user-data-dir", "--profile-directory", "--remote-debugging-port", "--remote-debugging-pipe",
    "--remote-debugging-address", "--remote-allow-origins", "--headless", "--no-sandbox", "--disable-web-security",
    "--ignore-certificate-errors", "--load-extension", "--proxy-server", "--user-agent", "--lang", "--disable-features",
)  # fmt: skip
QUANTITY = r"^([0-9]+(\.[0-9]+)?)(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"
QUANTITY_SENTENCE = "an amount is a number with a unit, such as 512Mi or 1Gi"
LABEL_KEY = (
    r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)
Quantity = Annotated[
    str, StringConstraints(pattern=QUANTITY, max_length=32), pattern_message(QUANTITY_SENTENCE)
]
# Users write `cpu: 1` as well as `cpu: "1"`.
ResourceQuantity = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, int) else value),
    StringConstraints(pattern=QUANTITY, max_length=32),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 32}),
]
Name = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253),
    pattern_message(
        "a name has small letters, digits, - and . only, and begins and ends with a letter or digit"
    ),
]
LabelValue = Annotated[
    str,
    StringConstraints(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", max_length=63),
    pattern_message(
        "a label's value has letters, digits, -, _ and . only, and begins and ends with a letter or digit"
    ),
]
PhoneNumber = Annotated[
    str,
    StringConstraints(pattern=r"^[1-9][0-9]{6,14}$", max_length=32),
    pattern_message(
        "phoneNumber is country code and number in digits only, such as 15551234567, without + or spaces"
    ),
]
ClientId = Annotated[
    str,
    StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$", max_length=64),
    pattern_message("clientId has letters, digits, _ and - only, from 1 to 64 of them"),
]


class Phase(StrEnum):
    """Where a session is in its life."""

    PENDING = "Pending"
    STARTING = "Starting"
    AUTHENTICATING = "Authenticating"
    SYNCING = "Syncing"
    READY = "Ready"
    RECONNECTING = "Reconnecting"
    RESTORING = "Restoring"
    SUSPENDED = "Suspended"
    LOGGED_OUT = "LoggedOut"
    PASSKEY_REQUIRED = "PasskeyRequired"
    CONFLICT = "Conflict"
    FAILED = "Failed"
    TERMINATING = "Terminating"


class AccountStatus(StrEnum):
    """The session in one of four words, for applications."""

    ACTIVE = "active"
    DISCONNECTED = "disconnected"
    AUTHENTICATING = "authenticating"
    READY = "ready"


def account_status(phase: Phase) -> AccountStatus:
    """The account's status that goes with a phase."""
    match phase:
        case Phase.READY:
            return AccountStatus.READY
        case Phase.AUTHENTICATING:
            return AccountStatus.AUTHENTICATING
        case Phase.STARTING | Phase.RESTORING | Phase.SYNCING:
            return AccountStatus.ACTIVE
        case _:
            return AccountStatus.DISCONNECTED


class AuthState(StrEnum):
    """The socket's state in WhatsApp Web's own words (``WAWebSocketModel``)."""

    UNLAUNCHED = "UNLAUNCHED"
    OPENING = "OPENING"
    PAIRING = "PAIRING"
    UNPAIRED = "UNPAIRED"
    UNPAIRED_IDLE = "UNPAIRED_IDLE"
    CONNECTED = "CONNECTED"
    TIMEOUT = "TIMEOUT"
    CONFLICT = "CONFLICT"
    PROXYBLOCK = "PROXYBLOCK"
    TOS_BLOCK = "TOS_BLOCK"
    SMB_TOS_BLOCK = "SMB_TOS_BLOCK"
    DEPRECATED_VERSION = "DEPRECATED_VERSION"


class DisconnectKind(StrEnum):
    """Why a session was disconnected: only ``Logout`` is for good."""

    LOGOUT = "Logout"
    CONNECTION = "Connection"
    CONFLICT = "Conflict"
    CRASH = "Crash"
    PHONE_OFFLINE = "PhoneOffline"


class ConditionType(StrEnum):
    """The types of the status's conditions."""

    READY = "Ready"
    POD_READY = "PodReady"
    STORAGE_READY = "StorageReady"
    AUTHENTICATED = "Authenticated"
    RESTORED = "Restored"
    PROGRESSING = "Progressing"
    DEGRADED = "Degraded"


class Reason(StrEnum):
    """Why a session, or one of its conditions, is as it is. Stable: alerts and scripts may compare with them."""

    # Said by the session pod, roughly in the order of its life.
    BROWSER_STARTING = "BrowserStarting"
    PAGE_LOADING = "PageLoading"
    LOGIN_RESTORING = "LoginRestoring"
    WAITING_FOR_SCAN = "WaitingForScan"
    WAITING_FOR_PAIRING_CODE = "WaitingForPairingCode"
    RESTORATION_FAILED = "RestorationFailed"
    MESSAGES_SYNCING = "MessagesSyncing"
    CONNECTED = "Connected"
    WHATSAPP_UNREACHABLE = "WhatsAppUnreachable"
    LOGIN_WRITING = "LoginWriting"
    CONNECTION_LOST = "ConnectionLost"
    PHONE_OFFLINE = "PhoneOffline"
    PAGE_CRASHED = "PageCrashed"
    PAGE_HUNG = "PageHung"
    BROWSER_CRASHED = "BrowserCrashed"
    BROWSER_HUNG = "BrowserHung"
    MEMORY_LOW = "MemoryLow"
    VOLUME_LOW = "VolumeLow"
    LOGGED_OUT_BY_PHONE = "LoggedOutByPhone"
    LOGGED_OUT_ON_REQUEST = "LoggedOutOnRequest"
    PASSKEY_REQUIRED = "PasskeyRequired"
    OPENED_ELSEWHERE = "OpenedElsewhere"
    PAIRING_EXPIRED = "PairingExpired"
    INITIALIZATION_TIMEOUT = "InitializationTimeout"
    BROWSER_FAILED = "BrowserFailed"
    PAGE_INCOMPATIBLE = "PageIncompatible"
    VERSION_REFUSED = "VersionRefused"
    ACCOUNT_BLOCKED = "AccountBlocked"
    ACCOUNT_BANNED = "AccountBanned"
    ACCOUNT_LOCKED = "AccountLocked"
    PROXY_FAILED = "ProxyFailed"
    PROXY_BLOCKED = "ProxyBlocked"
    LOGIN_MISSING = "LoginMissing"
    PROFILE_DAMAGED = "ProfileDamaged"
    VOLUME_OF_ANOTHER_SESSION = "VolumeOfAnotherSession"
    VOLUME_IN_USE = "VolumeInUse"
    VOLUME_FULL = "VolumeFull"
    VOLUME_READ_ONLY = "VolumeReadOnly"

    # Said by the operator.
    START_QUEUED = "StartQueued"
    BACK_OFF = "BackOff"
    POD_CREATED = "PodCreated"
    POD_PENDING = "PodPending"
    POD_RUNNING = "PodRunning"
    POD_NOT_READY = "PodNotReady"
    POD_UNREACHABLE = "PodUnreachable"
    POD_TERMINATING = "PodTerminating"
    POD_MISSING = "PodMissing"
    POD_DELETED = "PodDeleted"
    POD_FAILED = "PodFailed"
    POD_SUCCEEDED = "PodSucceeded"
    POD_ORPHANED = "PodOrphaned"
    POD_REFUSED = "PodRefused"
    CONTAINER_RESTARTED = "ContainerRestarted"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_BACK_OFF = "ImagePullBackOff"
    OOM_KILLED = "OOMKilled"
    CRASH_LOOP_BACK_OFF = "CrashLoopBackOff"
    EVICTED = "Evicted"
    NODE_LOST = "NodeLost"
    NODE_GONE = "NodeGone"
    VOLUME_BOUND = "VolumeBound"
    VOLUME_PENDING = "VolumePending"
    VOLUME_REFUSED = "VolumeRefused"
    VOLUME_RESIZING = "VolumeResizing"
    VOLUME_RESIZE_REFUSED = "VolumeResizeRefused"
    VOLUME_LOST = "VolumeLost"
    VOLUME_TERMINATING = "VolumeTerminating"
    DATA_LOSS_ACCEPTED = "DataLossAccepted"
    SECRET_REFUSED = "SecretRefused"  # noqa: S105 - a word
    NAME_CONFLICT = "NameConflict"
    PREDECESSOR_TERMINATING = "PredecessorTerminating"
    CLIENT_ID_SHARED = "ClientIdShared"
    INVALID_SPEC = "InvalidSpec"
    TEMPLATE_CHANGED = "TemplateChanged"
    UPDATE_PENDING = "UpdatePending"
    RESTART_REQUESTED = "RestartRequested"
    LOGOUT_FAILED = "LogoutFailed"
    RESTORED = "Restored"
    NEW_LOGIN = "NewLogin"
    NO_LOGIN = "NoLogin"
    SUSPENDED = "Suspended"
    TERMINATING = "Terminating"
    AS_EXPECTED = "AsExpected"


class PairingMethod(StrEnum):
    QR_CODE = "QRCode"
    PAIRING_CODE = "PairingCode"


class AccessMode(StrEnum):
    READ_WRITE_ONCE = "ReadWriteOnce"
    READ_WRITE_ONCE_POD = "ReadWriteOncePod"


class WhenDeleted(StrEnum):
    RETAIN = "Retain"
    DELETE = "Delete"


class Takeover(StrEnum):
    NEVER = "Never"
    ONCE = "Once"
    ALWAYS = "Always"


class UpdateStrategy(StrEnum):
    ON_DELETE = "OnDelete"
    ROLLING_UPDATE = "RollingUpdate"


# --- spec -----------------------------------------------------------------------------------------


class Pairing(Model):
    """How a phone is linked when there is no login yet."""

    method: PairingMethod = Field(
        PairingMethod.QR_CODE,
        description="QRCode shows a QR to scan; PairingCode shows eight letters to type on the phone named by phoneNumber.",
    )
    phone_number: PhoneNumber | None = Field(
        None,
        description="The account's phone number for a pairing code: country code and number, digits only, such as 15551234567.",
    )
    max_rounds: int = Field(
        5,
        ge=1,
        le=100,
        description="How many times a used-up QR or an expired pairing code is renewed before the session waits for a restart.",
    )


class Retention(Model):
    """What becomes of the volume."""

    when_deleted: WhenDeleted = Field(
        WhenDeleted.RETAIN,
        description="Retain keeps the volume, and with it the login, when the session is deleted; a session of the same name and clientId takes it up again. Delete deletes both.",
    )


class Storage(Model):
    """The volume that holds the login."""

    size: Quantity = Field(
        "1Gi", description="Requested size of the volume; it may grow, not shrink."
    )
    storage_class_name: Name | None = Field(
        None,
        description="StorageClass of the volume; the cluster's default when left out. Cannot be changed.",
    )
    access_mode: AccessMode = Field(
        AccessMode.READ_WRITE_ONCE,
        description="ReadWriteOncePod lets the storage itself refuse a second pod and needs a CSI driver; ReadWriteOnce works everywhere. Cannot be changed.",
    )
    retention: Retention = Field(
        default_factory=Retention, description="What becomes of the volume."
    )


class Resources(Model):
    """Requests and limits of the session's container."""

    requests: dict[str, ResourceQuantity] = Field(
        {"cpu": "100m", "memory": "512Mi"},
        description="Requested amounts, by resource name.",
        max_length=8,
    )
    limits: dict[str, ResourceQuantity] = Field(
        {"memory": "1Gi"}, description="Upper limits, by resource name.", max_length=8
    )


class SecretReference(Model):
    """A Secret of the session's namespace."""

    name: Name = Field(description="Name of the Secret.")


class Browser(Model):
    """The Chromium of the session."""

    image: (
        Annotated[
            str,
            StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$", max_length=512),
            pattern_message(
                "image is the name of a container image, such as registry.example/wasession/session-pod:1.0"
            ),
        ]
        | None
    ) = Field(None, description="Image of the session pod; the operator's default when left out.")
    resources: Resources = Field(
        default_factory=Resources, description="Requests and limits of the session's container."
    )
    shm_size: Quantity = Field(
        "256Mi", description="Size of /dev/shm; it counts against the memory limit."
    )
    user_agent: Annotated[str, StringConstraints(min_length=1, max_length=512)] | None = Field(
        None,
        description="User agent sent to WhatsApp Web; made from the installed Chromium's version when left out.",
    )
    locale: (
        Annotated[
            str,
            StringConstraints(
                pattern=r"^[a-z]{2,3}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?$", max_length=16
            ),
            pattern_message(
                "locale is a language and where needed a script and region, such as de, en-US or zh-Hans-CN"
            ),
        ]
        | None
    ) = Field(None, description="Browser's locale, such as en-US.")
    timezone: (
        Annotated[
            str,
            StringConstraints(
                pattern=r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$", max_length=64
            ),
            pattern_message(
                "timezone is a name of the IANA time zone database, such as Europe/Berlin"
            ),
        ]
        | None
    ) = Field(None, description="Browser's time zone, such as Europe/Berlin.")
    proxy_secret_ref: SecretReference | None = Field(
        None,
        description="Secret with the keys server and, where needed, username and password of the proxy to WhatsApp.",
    )
    extra_args: list[
        Annotated[
            str,
            StringConstraints(pattern=r"^--[a-z0-9][a-z0-9-]*(=.*)?$", max_length=1024),
            pattern_message(
                "each of extraArgs is one Chromium flag that starts with --, such as --mute-audio"
            ),
        ]
    ] = Field(
        [],
        description="More command-line flags for Chromium, each starting with --.",
        max_length=32,
    )


class WhatsApp(Model):
    """The WhatsApp Web that the session opens."""

    url: Annotated[
        str,
        StringConstraints(pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?$", max_length=253),
        pattern_message(
            "url is an origin: http or https, host and where needed port, such as https://web.whatsapp.com, no path"
        ),
    ] = Field(
        "https://web.whatsapp.com",
        description="Origin of WhatsApp Web: scheme, host and port, no path.",
    )
    device_name: Annotated[str, StringConstraints(min_length=1, max_length=50)] | None = Field(
        None, description="Name of this device in the phone's list of linked devices."
    )
    takeover: Takeover = Field(
        Takeover.NEVER,
        description="What to do when WhatsApp Web is opened elsewhere with the same login: Never leaves it there, Once takes it back once an hour at most, Always takes it back each time.",
    )


class Timeouts(Model):
    """How long to wait."""

    initialization: Duration = Field(
        timedelta(minutes=2), description="From the browser's start to a QR or to Ready."
    )
    shutdown: Duration = Field(
        timedelta(seconds=30), description="For the browser to close and write its profile."
    )
    logout: Duration = Field(
        timedelta(seconds=30), description="For WhatsApp to confirm a logout that was asked for."
    )


class Reconnect(Model):
    """How a lost connection is tried again: the delay doubles from the first to the last, with jitter."""

    initial_delay: Duration = Field(timedelta(seconds=2), description="Before the first try.")
    max_delay: Duration = Field(timedelta(minutes=5), description="Between later tries.")


class PodMetadata(Model):
    """More labels and annotations for the pod; the operator's own cannot be replaced."""

    labels: dict[str, LabelValue] = Field({}, description="Labels for the pod.", max_length=32)
    annotations: dict[str, Annotated[str, StringConstraints(max_length=4096)]] = Field(
        {}, description="Annotations for the pod.", max_length=32
    )


# Kept as the core API has it: the API server validates it when the pod is created.
CoreObject = Annotated[
    dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})
]


class PodSpec(Model):
    """Where and how the pod runs. The fields are those of a core/v1 PodSpec."""

    node_selector: dict[str, LabelValue] = Field(
        {}, description="Labels that the pod's node must have.", max_length=32
    )
    tolerations: list[CoreObject] = Field(
        [], description="Tolerations of the pod, as in a core/v1 PodSpec.", max_length=32
    )
    affinity: CoreObject | None = Field(
        None, description="Affinity of the pod, as in a core/v1 PodSpec."
    )
    topology_spread_constraints: list[CoreObject] = Field(
        [],
        description="Topology spread constraints of the pod, as in a core/v1 PodSpec.",
        max_length=16,
    )
    priority_class_name: Name | None = Field(None, description="PriorityClass of the pod.")
    runtime_class_name: Name | None = Field(None, description="RuntimeClass of the pod.")
    service_account_name: Name | None = Field(
        None, description="ServiceAccount of the pod; its token is never mounted."
    )
    image_pull_secrets: list[SecretReference] = Field(
        [], description="Secrets to pull the image with.", max_length=16
    )
    security_context: CoreObject | None = Field(
        None,
        description="Fields to lay over the pod's security context, for example a Localhost seccomp profile that allows Chromium's sandbox.",
    )


class PodTemplate(Model):
    """What the session's pod has beyond what the operator gives it."""

    metadata: PodMetadata = Field(
        default_factory=PodMetadata, description="More labels and annotations for the pod."
    )
    spec: PodSpec = Field(default_factory=PodSpec, description="Where and how the pod runs.")


class Spec(Model):
    """What the session should be."""

    client_id: ClientId | None = Field(
        None,
        description="Name of the login on the volume: letters, digits, _ and -; metadata.name when left out. Cannot be changed.",
    )
    owner: Annotated[str, StringConstraints(min_length=1, max_length=253)] | None = Field(
        None, description="Whose session it is: the subject of the user's token."
    )
    suspend: bool = Field(False, description="true stops the pod gracefully and keeps the volume.")
    logout_on_delete: bool = Field(
        False, description="true logs the device out of WhatsApp when the session is deleted."
    )
    pairing: Pairing = Field(
        default_factory=Pairing, description="How a phone is linked when there is no login yet."
    )
    storage: Storage = Field(
        default_factory=Storage, description="The volume that holds the login."
    )
    browser: Browser = Field(default_factory=Browser, description="The Chromium of the session.")
    whatsapp: WhatsApp = Field(
        default_factory=WhatsApp, description="The WhatsApp Web that the session opens."
    )
    timeouts: Timeouts = Field(default_factory=Timeouts, description="How long to wait.")
    reconnect: Reconnect = Field(
        default_factory=Reconnect, description="How a lost connection is tried again."
    )
    update_strategy: UpdateStrategy = Field(
        UpdateStrategy.ON_DELETE,
        description="When a change of the pod's template takes effect: OnDelete at the pod's next start, RollingUpdate by replacing the pod.",
    )
    pod_template: PodTemplate = Field(
        default_factory=PodTemplate,
        description="What the session's pod has beyond what the operator gives it.",
    )


# --- status ---------------------------------------------------------------------------------------


class Condition(Observed):
    """A condition as all of Kubernetes has it."""

    type: ConditionType = Field(description="What the condition is about.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=64)] = (
        Field(description="Why, in one CamelCase word.")
    )
    message: Annotated[str, clip(1024)] = Field(
        "", description="Why, in a sentence.", max_length=1024
    )
    last_transition_time: Time = Field(description="Since when the status is what it is.")
    observed_generation: int | None = Field(
        None, description="Generation of the session that the condition speaks of."
    )


class LastDisconnect(Observed):
    """The last time the session lost WhatsApp."""

    at: Time = Field(description="When.")
    kind: DisconnectKind = Field(description="Logout is for good; the others are tried again.")
    reason: Annotated[str, clip(256)] = Field(
        description="WhatsApp's or the browser's own word for it.", max_length=256
    )


class Account(Observed):
    """The WhatsApp account that is linked."""

    id: str = Field(description="WhatsApp id, such as 15551234567@c.us.", max_length=128)
    push_name: Annotated[str, clip(256)] | None = Field(
        None, description="Name that the account shows.", max_length=256
    )
    platform: Annotated[str, clip(64)] | None = Field(
        None, description="Platform of the phone, such as android.", max_length=64
    )


class PairingStatus(Observed):
    """Whether a phone can be linked now. The code itself is never here: whoever reads it could take the account."""

    available: bool = Field(description="Whether the session pod has a code to show.")
    method: PairingMethod = Field(description="Which kind of code.")
    attempt: int = Field(ge=0, description="Which round of codes, from 1.")
    expires_at: Time | None = Field(None, description="Until when the present code can be used.")


class LastShutdown(Observed):
    """How the session pod ended last."""

    at: Time = Field(description="When.")
    graceful: bool = Field(description="Whether the browser was closed and its profile written.")


class Restarts(Observed):
    """How often the pod or its container was started again."""

    count: int = Field(0, ge=0, description="How often, over the session's life.")
    last: Time | None = Field(None, description="When it was the last time.")
    reason: str | None = Field(None, description="Why it was the last time.", max_length=64)
    container: int = Field(
        0,
        ge=0,
        description="How often the present pod's container was started again; part of count.",
    )


class LogoutStatus(Observed):
    """The last logout that the annotation wasession.dev/logout asked for."""

    request: str = Field(
        description="The annotation's value, or a hash of a long one.", max_length=256
    )
    at: Time = Field(description="When the operator took it up.")
    done: bool = Field(False, description="Whether the login is over, or there was none.")


class Status(Observed):
    """What the session is. Written by the operator alone."""

    observed_generation: int | None = Field(
        None, description="Generation of the session that this status speaks of."
    )
    phase: Phase | None = Field(None, description="Where the session is in its life.")
    account_status: AccountStatus | None = Field(
        None,
        description="The session in one of four words: active, disconnected, authenticating, ready.",
    )
    conditions: list[Condition] = Field([], description="Details, one per type.", max_length=16)
    session_valid: bool | None = Field(
        None, description="Whether the volume holds a login that WhatsApp has not ended."
    )
    is_authenticated: bool | None = Field(
        None, description="Whether WhatsApp Web says that it is logged in."
    )
    auth_state: AuthState | None = Field(
        None, description="The connection's state in WhatsApp Web's own words."
    )
    last_connected: Time | None = Field(
        None, description="When the session became Ready the last time."
    )
    last_disconnect: LastDisconnect | None = Field(
        None, description="The last time the session lost WhatsApp."
    )
    restored: bool | None = Field(
        None,
        description="Whether the session is Ready from a stored login, without a new QR or code.",
    )
    restorations: int = Field(
        0,
        ge=0,
        description="How often the session came back from its stored login after a restart.",
    )
    account: Account | None = Field(None, description="The WhatsApp account that is linked.")
    whatsapp_web_version: Annotated[str, clip(64)] | None = Field(
        None, description="Version of WhatsApp Web that the session runs.", max_length=64
    )
    pod_name: str | None = Field(None, description="Name of the session's pod.")
    pod_uid: str | None = Field(None, alias="podUID", description="UID of the session's pod.")
    node_name: str | None = Field(None, description="Node that the pod runs on.")
    pvc_name: str | None = Field(None, description="Name of the session's PersistentVolumeClaim.")
    pvc_uid: str | None = Field(
        None, alias="pvcUID", description="UID of the session's PersistentVolumeClaim."
    )
    pairing: PairingStatus | None = Field(None, description="Whether a phone can be linked now.")
    last_shutdown: LastShutdown | None = Field(None, description="How the session pod ended last.")
    phone_last_seen: Time | None = Field(
        None,
        description="The last sign of life of the account's phone, to the hour; WhatsApp logs its devices out when it isn't used for 14 days.",
    )
    logout: LogoutStatus | None = Field(
        None, description="The last logout that the annotation wasession.dev/logout asked for."
    )
    restarts: Restarts = Field(
        default_factory=Restarts,
        description="How often the pod or its container was started again.",
    )

    def condition(self, kind: ConditionType) -> Condition | None:
        """Return the condition of type ``kind``, if the status has it."""
        return next((candidate for candidate in self.conditions if candidate.type is kind), None)


class WhatsAppSession(Model):
    """One WhatsApp Web login, kept in one pod and one volume."""

    spec: Spec = Field(default_factory=Spec, description="What the session should be.")
    status: Status | None = Field(
        None, description="What the session is. Written by the operator alone."
    )
