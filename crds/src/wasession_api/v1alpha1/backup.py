"""``WhatsAppSessionBackup``: a copy of a session's login outside its volume."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from wasession_api.base import Model, Observed, Pattern, Time, clip, fallback
from wasession_api.v1alpha1.enums import BackupMethod
from wasession_api.v1alpha1.patterns import LABEL_NAME
from wasession_api.v1alpha1.spec import Name

# The Secret in the sessions' namespace that can decrypt their backups; only a restoring init
# container mounts it.
IDENTITY_SECRET_NAME = "wasession-backup-identity"  # noqa: S105 - a name
IDENTITY_KEY = "identity"
MAXIMUM_RECIPIENTS = 8
MAXIMUM_EXPORTS = 16
Namespace = Annotated[str, StringConstraints(max_length=63), LABEL_NAME]
Recipient = Annotated[
    str,
    StringConstraints(max_length=128),
    Pattern(r"^age1[02-9ac-hj-np-z]{58}$", "must be a recipient of age, such as age1…"),
]
BackupKey = Annotated[
    str,
    StringConstraints(max_length=1024),
    Pattern(
        r"^[A-Za-z0-9._/=+-]+\.age$",
        "must be the key of an archive in the store, such as team-a/sales/20260105T030000Z.tar.age",
    ),
]


class DeletionPolicy(StrEnum):
    """What happens to the copy when its WhatsAppSessionBackup is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class BackupPhase(StrEnum):
    """The phases of a backup. Completed and Failed are final."""

    PENDING = "Pending"
    RUNNING = "Running"
    COMPLETED = "Completed"
    FAILED = "Failed"


class BackupReason(StrEnum):
    """Why a backup is in its phase. Stable: scripts and alerts may compare with them."""

    SESSION_NOT_FOUND = "SessionNotFound"
    SESSION_NOT_RUNNING = "SessionNotRunning"
    NO_LOGIN = "NoLogin"
    QUEUED = "Queued"
    UPLOADING = "Uploading"
    COMPLETED = "Completed"
    STORE_NOT_CONFIGURED = "StoreNotConfigured"
    STORE_UNAVAILABLE = "StoreUnavailable"
    RECIPIENTS_MISSING = "RecipientsMissing"
    IMAGE_TOO_OLD = "ImageTooOld"
    UPLOAD_FAILED = "UploadFailed"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    ARCHIVE_MISSING = "ArchiveMissing"
    ARCHIVE_INVALID = "ArchiveInvalid"
    CLASS_NOT_FOUND = "ClassNotFound"
    VOLUME_NOT_BOUND = "VolumeNotBound"
    TAKING_SNAPSHOT = "TakingSnapshot"
    SNAPSHOTS_NOT_SUPPORTED = "SnapshotsNotSupported"
    SNAPSHOTS_FORBIDDEN = "SnapshotsForbidden"
    SNAPSHOT_FAILED = "SnapshotFailed"
    SNAPSHOT_MISSING = "SnapshotMissing"
    IMPORTING = "Importing"
    NOT_EXPORTED = "NotExported"
    SOURCE_NOT_COMPLETED = "SourceNotCompleted"
    SOURCE_NOT_SERVED = "SourceNotServed"


class ImportSource(Model):
    """A backup of another namespace, which exports it to this one."""

    namespace: Namespace = Field(description="Namespace of the WhatsAppSessionBackup.")
    name: Name = Field(description="Name of the WhatsAppSessionBackup.")


class BackupSpec(Model):
    """Which login to copy. Immutable, except exportTo."""

    session_name: Name | None = Field(
        None, description="WhatsAppSession of the same namespace. Required without importFrom."
    )
    method: BackupMethod = Field(
        BackupMethod.ARCHIVE,
        description="How the login is copied: into an encrypted Archive in the operator's store, "
        "or by a VolumeSnapshot of the volume in this namespace.",
    )
    deletion_policy: DeletionPolicy = Field(
        DeletionPolicy.RETAIN,
        description="What happens to the archive or VolumeSnapshot when this object is deleted.",
    )
    key: BackupKey | None = Field(
        None,
        description="Key of an archive that is in the store already: nothing is uploaded. It must "
        "begin with the prefix of this namespace.",
    )
    import_from: ImportSource | None = Field(
        None,
        description="Archive of another namespace to copy inside the store, in place of a session: "
        "its exportTo must name this namespace.",
    )
    export_to: list[Namespace] | None = Field(
        None,
        max_length=MAXIMUM_EXPORTS,
        description="Namespaces that may import the archive. It can be changed; what was imported "
        "stays.",
    )

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if (self.session_name is None) == (self.import_from is None):
            raise ValueError("must have either sessionName or importFrom")
        return self


class BackupSource(Observed):
    """Whose login the copy holds."""

    cluster: str = Field(
        "", max_length=64, description="UID of the namespace kube-system; empty if not known."
    )
    namespace: str = Field(max_length=253, description="Namespace of the session.")
    session_name: str = Field(max_length=253, description="Name of the session.")
    session_uid: str = Field(alias="sessionUID", max_length=64, description="UID of the session.")
    login_id: str = Field(
        alias="loginID",
        max_length=64,
        description="Identifies the login: all copies of it have the same.",
    )
    client_id: str = Field(max_length=64, description="clientId of the session.")
    owner: str | None = Field(None, max_length=253, description="Owner of the session.")


class BackupStatus(Observed):
    """How far the backup is. Written by the operator alone."""

    phase: Annotated[BackupPhase | None, fallback(None)] = Field(None, description="Phase.")
    reason: Annotated[BackupReason | None, fallback(None)] = Field(
        None, description="Reason of the phase in CamelCase."
    )
    message: Annotated[str, clip(1024)] = Field(
        "", max_length=1024, description="What it waits for, or what went wrong."
    )
    key: str | None = Field(None, max_length=1024, description="Key of the archive in the store.")
    volume_snapshot_name: str | None = Field(
        None, max_length=253, description="VolumeSnapshot with the copy, in this namespace."
    )
    attempts: int = Field(0, ge=0, description="How often a copy was begun.")
    started_at: Time | None = Field(None, description="When the first copy was begun.")
    taken_at: Time | None = Field(None, description="Of which moment the copy is.")
    completed_at: Time | None = Field(None, description="When the phase became final.")
    size: int | None = Field(
        None,
        ge=0,
        description="Size in bytes: of the archive, or at least of a volume from the VolumeSnapshot.",
    )
    sha256: str | None = Field(None, max_length=64, description="Checksum of the archive.")
    source: Annotated[BackupSource | None, fallback(None)] = Field(
        None, description="Whose login the copy holds."
    )
