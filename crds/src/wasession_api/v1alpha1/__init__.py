"""``wasession.dev/v1alpha1``: the resources WhatsAppSession and WhatsAppSessionClass.

These models are the single source of the API: the CRDs are generated from them
(``wasession_api.crd``), and the operator reads specs and writes statuses with them.
"""

from __future__ import annotations

from pydantic import Field

from wasession_api.base import Model
from wasession_api.v1alpha1.backup import (
    BackupKey,
    BackupPhase,
    BackupReason,
    BackupSource,
    BackupSpec,
    BackupStatus,
    DeletionPolicy,
    ImportSource,
)
from wasession_api.v1alpha1.delivery import (
    ChatKind,
    DeliveryEvent,
    DeliveryPolicy,
    Webhook,
)
from wasession_api.v1alpha1.enums import (
    AccessMode,
    AccountStatus,
    AuthState,
    BackupMethod,
    BootstrapState,
    ConditionType,
    DeliveryState,
    DisconnectKind,
    PairingMethod,
    Phase,
    Presence,
    Reason,
    Sandbox,
    Takeover,
    UpdateStrategy,
    WhenDeleted,
    account_status,
)
from wasession_api.v1alpha1.rollout import (
    MAXIMUM_ACCEPTED,
    Canary,
    MaintenanceWindow,
    Revision,
    Rollout,
    RolloutHalt,
    RolloutPhase,
    RolloutStatus,
)
from wasession_api.v1alpha1.session_class import (
    OPERATOR_CONFLICT,
    REVISION_FIELDS,
    ROLLED_OUT,
    CABundle,
    ClassCondition,
    ClassOnly,
    ClassSpec,
    ClassStatus,
    ClassUse,
    DocumentSource,
    Limits,
    Override,
    PodTemplate,
    WaJSSource,
)
from wasession_api.v1alpha1.spec import (
    Bootstrap,
    ClientId,
    Origin,
    Pairing,
    PhoneNumber,
    SessionTemplate,
    Spec,
)
from wasession_api.v1alpha1.status import (
    Account,
    BootstrapStatus,
    ClassReference,
    Condition,
    DeliveryStatus,
    HibernationStatus,
    LastDisconnect,
    LastShutdown,
    LogoutStatus,
    PairingStatus,
    PinnedDocument,
    RequestStatus,
    Restarts,
    Status,
    UpdateStatus,
    VolumeLoss,
    WaJS,
)

GROUP = "wasession.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "WhatsAppSession"
PLURAL = "whatsappsessions"
SINGULAR = "whatsappsession"
SHORT_NAMES = ("wasession", "wasessions", "was")
CATEGORY = "whatsapp"  # of all kinds: kubectl get whatsapp
CLASS_KIND = "WhatsAppSessionClass"
CLASS_PLURAL = "whatsappsessionclasses"
CLASS_SINGULAR = "whatsappsessionclass"
CLASS_SHORT_NAMES = ("wasc",)
BACKUP_KIND = "WhatsAppSessionBackup"
BACKUP_PLURAL = "whatsappsessionbackups"
BACKUP_SINGULAR = "whatsappsessionbackup"
BACKUP_SHORT_NAMES = ("wasb",)


class WhatsAppSession(Model):
    """A WhatsApp Web session: one login in one browser, one pod and one volume."""

    spec: Spec = Field(default_factory=Spec, description="The desired state of the session.")
    status: Status | None = Field(
        None,
        description="The observed state of the session. Written by the operator alone.",
    )


class WhatsAppSessionClass(Model):
    """What a platform team decides for sessions, as a StorageClass does for volume claims."""

    spec: ClassSpec = Field(
        default_factory=ClassSpec, description="What session pods run, and what sessions may set."
    )
    status: ClassStatus | None = Field(
        None, description="Who uses the class. Written by operators alone."
    )


class WhatsAppSessionBackup(Model):
    """A copy of a session's login: encrypted in the operator's store, or a VolumeSnapshot."""

    spec: BackupSpec = Field(description="Which login to copy. Immutable, except exportTo.")
    status: BackupStatus | None = Field(
        None, description="How far the backup is. Written by the operator alone."
    )


__all__ = [
    "API_VERSION",
    "BACKUP_KIND",
    "BACKUP_PLURAL",
    "BACKUP_SHORT_NAMES",
    "BACKUP_SINGULAR",
    "CATEGORY",
    "CLASS_KIND",
    "CLASS_PLURAL",
    "CLASS_SHORT_NAMES",
    "CLASS_SINGULAR",
    "GROUP",
    "KIND",
    "MAXIMUM_ACCEPTED",
    "OPERATOR_CONFLICT",
    "PLURAL",
    "REVISION_FIELDS",
    "ROLLED_OUT",
    "SHORT_NAMES",
    "SINGULAR",
    "VERSION",
    "AccessMode",
    "Account",
    "AccountStatus",
    "AuthState",
    "BackupKey",
    "BackupMethod",
    "BackupPhase",
    "BackupReason",
    "BackupSource",
    "BackupSpec",
    "BackupStatus",
    "Bootstrap",
    "BootstrapState",
    "BootstrapStatus",
    "CABundle",
    "Canary",
    "ChatKind",
    "ClassCondition",
    "ClassOnly",
    "ClassReference",
    "ClassSpec",
    "ClassStatus",
    "ClassUse",
    "ClientId",
    "Condition",
    "ConditionType",
    "DeletionPolicy",
    "DeliveryEvent",
    "DeliveryPolicy",
    "DeliveryState",
    "DeliveryStatus",
    "DisconnectKind",
    "DocumentSource",
    "HibernationStatus",
    "ImportSource",
    "LastDisconnect",
    "LastShutdown",
    "Limits",
    "LogoutStatus",
    "MaintenanceWindow",
    "Origin",
    "Override",
    "Pairing",
    "PairingMethod",
    "PairingStatus",
    "Phase",
    "PhoneNumber",
    "PinnedDocument",
    "PodTemplate",
    "Presence",
    "Reason",
    "RequestStatus",
    "Restarts",
    "Revision",
    "Rollout",
    "RolloutHalt",
    "RolloutPhase",
    "RolloutStatus",
    "Sandbox",
    "SessionTemplate",
    "Spec",
    "Status",
    "Takeover",
    "UpdateStatus",
    "UpdateStrategy",
    "VolumeLoss",
    "WaJS",
    "WaJSSource",
    "Webhook",
    "WhatsAppSession",
    "WhatsAppSessionBackup",
    "WhatsAppSessionClass",
    "WhenDeleted",
    "account_status",
]
