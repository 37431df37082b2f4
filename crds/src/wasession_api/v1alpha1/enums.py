"""The values of a session's fields. Stable: scripts and alerts may compare with them."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """The phases of a session's life cycle."""

    PENDING = "Pending"
    STARTING = "Starting"
    AUTHENTICATING = "Authenticating"
    SYNCING = "Syncing"
    READY = "Ready"
    RECONNECTING = "Reconnecting"
    RESTORING = "Restoring"
    SUSPENDED = "Suspended"
    HIBERNATED = "Hibernated"
    LOGGED_OUT = "LoggedOut"
    PASSKEY_REQUIRED = "PasskeyRequired"
    CONFLICT = "Conflict"
    FAILED = "Failed"
    TERMINATING = "Terminating"


class AccountStatus(StrEnum):
    """The summary of a phase for applications."""

    ACTIVE = "active"
    DISCONNECTED = "disconnected"
    AUTHENTICATING = "authenticating"
    READY = "ready"


def account_status(phase: Phase) -> AccountStatus:
    """Return the summary of a phase."""
    match phase:
        case Phase.READY:
            return AccountStatus.READY
        case Phase.AUTHENTICATING:
            return AccountStatus.AUTHENTICATING
        case Phase.STARTING | Phase.RESTORING | Phase.SYNCING | Phase.HIBERNATED:
            return AccountStatus.ACTIVE
        case _:
            return AccountStatus.DISCONNECTED


class AuthState(StrEnum):
    """The states of WhatsApp Web's socket (``WAWebSocketModel``)."""

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
    """The causes of a disconnect; only ``Logout`` is permanent."""

    LOGOUT = "Logout"
    CONNECTION = "Connection"
    CONFLICT = "Conflict"
    CRASH = "Crash"
    PHONE_OFFLINE = "PhoneOffline"


class ConditionType(StrEnum):
    """The types of conditions in the status.

    The last two follow kstatus, by which GitOps tools judge objects: they are there only while they
    are True (https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus).
    """

    READY = "Ready"
    POD_READY = "PodReady"
    STORAGE_READY = "StorageReady"
    AUTHENTICATED = "Authenticated"
    RESTORED = "Restored"
    PROGRESSING = "Progressing"
    DEGRADED = "Degraded"
    SANDBOXED = "Sandboxed"
    DELIVERING = "Delivering"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


class BootstrapState(StrEnum):
    """What has become of the backup that a volume was to begin with."""

    RESTORING = "Restoring"
    RESTORED = "Restored"
    SKIPPED = "Skipped"  # the volume was not empty
    ENDED = "Ended"  # WhatsApp has ended the restored login


class BackupMethod(StrEnum):
    """How a login is copied."""

    ARCHIVE = "Archive"  # encrypted, into the operator's store
    VOLUME_SNAPSHOT = "VolumeSnapshot"  # by the storage system, which the volume is on


class DeliveryState(StrEnum):
    """How the delivery to a webhook or sink is doing."""

    DELIVERING = "Delivering"
    FAILING = "Failing"
    PAUSED = "Paused"
    GONE = "Gone"


class Reason(StrEnum):
    """The reasons of a session's phase and conditions."""

    # Reported by the session pod, roughly in the order of its life cycle.
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
    LOGIN_NOT_WRITTEN = "LoginNotWritten"
    CONNECTION_LOST = "ConnectionLost"
    PHONE_OFFLINE = "PhoneOffline"
    MESSAGES_NOT_HEARD = "MessagesNotHeard"
    EVENTS_NOT_STORED = "EventsNotStored"
    OUTBOX_FULL = "OutboxFull"
    PAGE_RELOADING = "PageReloading"
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
    LOGIN_IN_USE_ELSEWHERE = "LoginInUseElsewhere"
    PAIRING_EXPIRED = "PairingExpired"
    INITIALIZATION_TIMEOUT = "InitializationTimeout"
    BROWSER_FAILED = "BrowserFailed"
    SANDBOX_UNAVAILABLE = "SandboxUnavailable"
    PAGE_INCOMPATIBLE = "PageIncompatible"
    VERSION_REFUSED = "VersionRefused"
    ACCOUNT_BLOCKED = "AccountBlocked"
    ACCOUNT_BANNED = "AccountBanned"
    ACCOUNT_LOCKED = "AccountLocked"
    PROXY_FAILED = "ProxyFailed"
    PROXY_BLOCKED = "ProxyBlocked"
    PROXY_INVALID = "ProxyInvalid"
    PROXY_CHANGED = "ProxyChanged"
    CERTIFICATE_UNTRUSTED = "CertificateUntrusted"
    CA_BUNDLE_INVALID = "CABundleInvalid"
    CA_BUNDLE_CHANGED = "CABundleChanged"
    WA_JS_INVALID = "WaJSInvalid"
    DOCUMENT_INVALID = "DocumentInvalid"
    DOCUMENT_OUTDATED = "DocumentOutdated"
    LOGIN_MISSING = "LoginMissing"
    PROFILE_DAMAGED = "ProfileDamaged"
    VOLUME_OF_ANOTHER_SESSION = "VolumeOfAnotherSession"
    VOLUME_IN_USE = "VolumeInUse"
    VOLUME_FULL = "VolumeFull"
    VOLUME_READ_ONLY = "VolumeReadOnly"
    VOLUME_NOT_ACCESSIBLE = "VolumeNotAccessible"

    # Set by the operator.
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
    POD_CREATE_FAILED = "PodCreateFailed"
    POD_UPDATE_FAILED = "PodUpdateFailed"
    POD_DELETE_FAILED = "PodDeleteFailed"
    CONTAINER_RESTARTED = "ContainerRestarted"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_BACK_OFF = "ImagePullBackOff"
    CREATE_CONTAINER_CONFIG_ERROR = "CreateContainerConfigError"
    CREATE_CONTAINER_ERROR = "CreateContainerError"
    RUN_CONTAINER_ERROR = "RunContainerError"
    OOM_KILLED = "OOMKilled"
    CRASH_LOOP_BACK_OFF = "CrashLoopBackOff"
    EVICTED = "Evicted"
    NODE_LOST = "NodeLost"
    NODE_GONE = "NodeGone"
    VOLUME_BOUND = "VolumeBound"
    VOLUME_PENDING = "VolumePending"
    VOLUME_RESIZING = "VolumeResizing"
    VOLUME_LOST = "VolumeLost"
    VOLUME_MISSING = "VolumeMissing"
    VOLUME_TERMINATING = "VolumeTerminating"
    DATA_LOSS_ACCEPTED = "DataLossAccepted"
    PVC_CREATE_FAILED = "PVCCreateFailed"
    PVC_UPDATE_FAILED = "PVCUpdateFailed"
    PVC_EXPAND_FAILED = "PVCExpandFailed"
    PVC_DELETE_FAILED = "PVCDeleteFailed"
    SECRET_UPDATE_FAILED = "SecretUpdateFailed"  # noqa: S105 - not a secret
    SESSION_UPDATE_FAILED = "SessionUpdateFailed"
    NAME_CONFLICT = "NameConflict"
    PREDECESSOR_TERMINATING = "PredecessorTerminating"
    CLIENT_ID_SHARED = "ClientIdShared"
    ACCOUNT_SHARED = "AccountShared"
    INVALID_SPEC = "InvalidSpec"
    CLASS_NOT_FOUND = "ClassNotFound"
    INVALID_CLASS = "InvalidClass"
    CLASS_NOT_ALLOWED = "ClassNotAllowed"
    OVERRIDE_NOT_ALLOWED = "OverrideNotAllowed"
    LIMIT_EXCEEDED = "LimitExceeded"
    NETWORK_POLICY_FAILED = "NetworkPolicyFailed"
    TEMPLATE_CHANGED = "TemplateChanged"
    UPDATE_PENDING = "UpdatePending"
    UPDATE_REFUSED = "UpdateRefused"
    ROLLOUT_HALTED = "RolloutHalted"
    RESTART_REQUESTED = "RestartRequested"
    LOGOUT_FAILED = "LogoutFailed"
    DELIVERY_NOT_ACCEPTED = "DeliveryNotAccepted"
    DELIVERY_FAILING = "DeliveryFailing"
    DELIVERY_PAUSED = "DeliveryPaused"
    DELIVERY_GONE = "DeliveryGone"
    DEVICE_STILL_LINKED = "DeviceStillLinked"
    BACKUP_NOT_FOUND = "BackupNotFound"
    BACKUP_NOT_COMPLETED = "BackupNotCompleted"
    BACKUP_SOURCE_RUNNING = "BackupSourceRunning"
    BACKUP_SOURCE_NOT_FENCED = "BackupSourceNotFenced"
    LOGIN_MOVED = "LoginMoved"
    BOOTSTRAP_FAILED = "BootstrapFailed"
    BOOTSTRAP_SKIPPED = "BootstrapSkipped"
    VOLUME_RESTORING = "VolumeRestoring"
    RESTORED = "Restored"
    NEW_LOGIN = "NewLogin"
    NO_LOGIN = "NoLogin"
    SUSPENDED = "Suspended"
    HIBERNATED = "Hibernated"
    TERMINATING = "Terminating"
    AS_EXPECTED = "AsExpected"


class PairingMethod(StrEnum):
    """The ways to link a phone."""

    QR_CODE = "QRCode"
    PAIRING_CODE = "PairingCode"


class AccessMode(StrEnum):
    """The access modes of the volume, as in a core/v1 PersistentVolumeClaim."""

    READ_WRITE_ONCE = "ReadWriteOnce"
    READ_WRITE_ONCE_POD = "ReadWriteOncePod"


class WhenDeleted(StrEnum):
    """What happens to the volume when the session is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class Presence(StrEnum):
    """Whether the session shows the account as online."""

    UNAVAILABLE = "Unavailable"
    AVAILABLE = "Available"


class Sandbox(StrEnum):
    """What to do where Chromium's sandbox is not available."""

    AUTO = "Auto"  # run without it
    REQUIRED = "Required"  # do not run


class Takeover(StrEnum):
    """When to take back a login that was opened elsewhere."""

    NEVER = "Never"
    ONCE = "Once"
    ALWAYS = "Always"


class UpdateStrategy(StrEnum):
    """When a changed pod template takes effect, as in an apps/v1 StatefulSet."""

    ON_DELETE = "OnDelete"
    ROLLING_UPDATE = "RollingUpdate"
