"""Backups as the API server has them: pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError
from wasession_api import names
from wasession_api.kube.manifests import Key, Manifest
from wasession_api.session_pod.backup import ArchiveManifest
from wasession_api.v1alpha1 import BackupMethod, BackupPhase, BackupSpec, BackupStatus

from wasession_operator.plan.manifests import is_terminating

FINAL = frozenset({BackupPhase.COMPLETED, BackupPhase.FAILED})
_SCHEDULED_AT = re.compile(r".*-([0-9]{12})")
SCHEDULED_AT = "%Y%m%d%H%M"


@dataclass(frozen=True)
class Backup:
    """A WhatsAppSessionBackup as the API server has it."""

    namespace: str
    name: str
    uid: str
    version: str
    created_at: datetime
    spec: BackupSpec
    status: BackupStatus
    is_terminating: bool = False
    finalizers: tuple[str, ...] = ()
    is_abandoned: bool = False  # by annotation: the archive may stay when this is deleted
    is_scheduled: bool = False  # created by the operator for the session's schedule

    @property
    def key(self) -> Key:
        return self.namespace, self.name

    @property
    def session_name(self) -> str:
        """The name of the session whose login it is.

        An import is of no session of its namespace: it has the name of the backup that it copies.
        """
        source = self.spec.import_from
        return self.spec.session_name or (source.name if source is not None else "")

    @property
    def session(self) -> Key:
        """The key of the session whose login it is, by which replicas share out the work."""
        return self.namespace, self.session_name

    @property
    def is_foreign(self) -> bool:
        """Whether it is known to have the login of another namespace's session."""
        source = self.status.source
        return source is not None and source.namespace != self.namespace

    @property
    def archive(self) -> str | None:
        """The key of the archive in the store, if there may be one."""
        return self.status.key or self.spec.key

    @property
    def is_made_here(self) -> bool:
        """Whether this very object has copied the session, which so is in this cluster.

        An import has copied an archive, whose session may be in another cluster.
        """
        if self.spec.import_from is not None:
            return False
        if self.spec.method is BackupMethod.VOLUME_SNAPSHOT:
            return self.status.volume_snapshot_name == names.snapshot_name(self.uid)
        return self.archive is not None and self.archive.endswith(_suffix(self.uid))

    def is_exported_to(self, namespace: str) -> bool:
        """Return whether a namespace may import the archive."""
        exports = self.spec.export_to or ()
        return namespace in exports and self.spec.method is BackupMethod.ARCHIVE

    @property
    def is_open(self) -> bool:
        """Whether anything is left to do."""
        if self.is_terminating:
            return names.BACKUP_FINALIZER in self.finalizers
        return self.status.phase not in FINAL

    @property
    def scheduled_at(self) -> datetime | None:
        """The time of the schedule that it was created for, which its name says."""
        match = _SCHEDULED_AT.fullmatch(self.name)
        if not self.is_scheduled or match is None:
            return None
        try:
            return datetime.strptime(match[1], SCHEDULED_AT).replace(tzinfo=UTC)
        except ValueError:
            return None


@dataclass(frozen=True)
class Archive:
    """What the store has of an archive; by default nothing."""

    size: int | None = None  # bytes
    manifest: ArchiveManifest | None = None
    has_manifest: bool = False  # be it an invalid one


def parse_backup(obj: Manifest) -> Backup:
    """Return the backup; raise ``ValidationError`` for a spec that the CRD would not accept."""
    metadata = obj["metadata"]
    annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    return Backup(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        created_at=datetime.fromisoformat(metadata["creationTimestamp"]),
        spec=BackupSpec.model_validate(obj.get("spec")),
        status=_parse_status(obj.get("status") or {}),
        is_terminating=is_terminating(obj),
        finalizers=tuple(metadata.get("finalizers") or ()),
        is_abandoned=annotations.get(names.ANNOTATION_ABANDON_ARCHIVE) == "true",
        is_scheduled=labels.get(names.LABEL_SCHEDULED) == "true",
    )


def transform(obj: Manifest) -> Manifest:
    """Return what the cache holds of a backup: there are many for each session."""
    metadata = obj["metadata"]
    annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    kept = {
        field: metadata[field]
        for field in (
            "namespace", "name", "uid", "resourceVersion", "creationTimestamp",
            "deletionTimestamp", "finalizers",
        )
        if field in metadata
    }  # fmt: skip
    if (asked := annotations.get(names.ANNOTATION_ABANDON_ARCHIVE)) is not None:
        kept["annotations"] = {names.ANNOTATION_ABANDON_ARCHIVE: asked}
    if (scheduled := labels.get(names.LABEL_SCHEDULED)) is not None:
        kept["labels"] = {names.LABEL_SCHEDULED: scheduled}
    return {"metadata": kept, "spec": obj.get("spec") or {}, "status": obj.get("status") or {}}


def archive_key(backup: Backup, session_name: str, at: datetime) -> str:
    """Return the key of a new archive of a session; no two backups have the same."""
    time = at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{backup.namespace}/{session_name}/{time}{_suffix(backup.uid)}"


def _suffix(uid: str) -> str:
    return f"-{uid[:8]}.tar.age"


def is_below(key: str, namespace: str) -> bool:
    """Return whether a key is one of the namespace: no tenant reaches another's archives."""
    parts = key.split("/")
    return len(parts) > 1 and parts[0] == namespace and not {"", ".", ".."} & set(parts)


def _parse_status(stored: Manifest) -> BackupStatus:
    """Return as much of a status as is valid: another version, or a person, may have written it."""
    try:
        return BackupStatus.model_validate(stored)
    except ValidationError as error:
        invalid = {str(problem["loc"][0]) for problem in error.errors()}
        return BackupStatus.model_validate(
            {field: value for field, value in stored.items() if field not in invalid}
        )
