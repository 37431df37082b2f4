"""Backups, sessions and reports to build the facts of their plan from."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from unit.operator.situations import NOW, report
from wasession_api import names
from wasession_api.kube.manifests import Manifest
from wasession_api.session_pod.backup import ArchiveManifest, BackupReport, BackupState
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import (
    BackupPhase,
    BackupReason,
    BackupSource,
    BackupSpec,
    BackupStatus,
    Phase,
)
from wasession_operator.backups.backup import Archive, Backup
from wasession_operator.backups.plan import Facts, Progress, SourceSession

UID = "0b5f2a10-0000-4000-8000-000000000001"
KEY = f"ns/sales/20260102T030405Z-{UID[:8]}.tar.age"
SHA256 = "a" * 64
RECIPIENT = f"age1{'q' * 58}"
SOURCE = BackupSource(
    cluster="cluster-uid",
    namespace="ns",
    session_name="sales",
    session_uid="uid-1",
    login_id="uid-1",
    client_id="sales",
)
MANIFEST = ArchiveManifest(
    backup_name="nightly", backup_uid=UID, source=SOURCE, taken_at=NOW, size=100, sha256=SHA256
)
COMPLETE = Archive(100, MANIFEST, has_manifest=True)
RUNNING = BackupStatus(
    phase=BackupPhase.RUNNING,
    reason=BackupReason.UPLOADING,
    key=KEY,
    attempts=1,
    started_at=NOW,
    source=SOURCE,
)


IMPORT = {"import_from": {"namespace": "sales", "name": "nightly"}}
ORIGIN_KEY = "sales/eu/20260102T030405Z-9c1d7e55.tar.age"
ORIGIN_SOURCE = SOURCE.model_copy(update={"namespace": "sales", "session_name": "eu"})
EXPORTED = BackupStatus(
    phase=BackupPhase.COMPLETED,
    reason=BackupReason.COMPLETED,
    key=ORIGIN_KEY,
    attempts=1,
    taken_at=NOW - timedelta(days=1),
    size=100,
    sha256=SHA256,
    source=ORIGIN_SOURCE,
)


def backup(status: BackupStatus | None = None, *, name: str = "nightly", **more: Any) -> Backup:
    """Return a backup; ``spec`` holds what its spec sets beyond the session's name."""
    spec = {"session_name": "sales", **more.pop("spec", {})}
    if "import_from" in spec:
        del spec["session_name"]
    made = Backup(
        namespace="ns",
        name=name,
        uid=UID,
        version="7",
        created_at=NOW,
        spec=BackupSpec.model_validate(spec),
        status=status or BackupStatus(),
    )
    return replace(made, **more)


def exported(status: BackupStatus | None = None, *to: str, **more: Any) -> Backup:
    """Return the backup sales/nightly, by default Completed and exported to the namespace ns."""
    return backup(
        status or EXPORTED,
        spec={"export_to": list(to or ("ns",))},
        **{"namespace": "sales", **more},
    )


def running_report(made: BackupReport | None = None, **changes: Any) -> Report:
    """Return the report of a pod with a valid login that can make backups."""
    fields = {
        "session_valid": True, "login_id": "l1", "can_back_up": True, "backup": made, **changes,
    }  # fmt: skip
    return report(Phase.READY, **fields)


def made(state: BackupState, **changes: Any) -> BackupReport:
    """Return what a pod reports of a backup."""
    if state is BackupState.UPLOADED:
        changes = {"taken_at": NOW, "size": 100, "sha256": SHA256, **changes}
    return BackupReport.model_validate({"id": UID, "state": state, **changes})


def source_session(**changes: Any) -> SourceSession:
    return replace(SourceSession(SOURCE, (RECIPIENT,), False, running_report()), **changes)


def facts(made: BackupReport | None = None, **changes: Any) -> Facts:
    """Return the facts of a backup whose session runs; its pod has reported ``made``."""
    fresh = {"session": source_session(report=running_report(made)), "now": NOW}
    return replace(Facts(NOW, progress=Progress(archive=Archive())), **{**fresh, **changes})


def manifest_of(
    name: str = "nightly", *, version: int = 5, status: Manifest | None = None, **metadata: Any
) -> Manifest:
    """Return a WhatsAppSessionBackup as the API server has it."""
    fixed = {
        "namespace": "ns",
        "name": name,
        "uid": f"uid-of-{name}",
        "resourceVersion": str(version),
        "creationTimestamp": "2026-01-02T03:00:00Z",
    }
    spec = metadata.pop("spec", {"sessionName": "sales"})
    return {"metadata": {**fixed, **metadata}, "spec": spec, "status": status or {}}


def completed(taken_at: str, **more: Any) -> Manifest:
    """Return the status of a completed backup."""
    return {"phase": "Completed", "reason": "Completed", "takenAt": taken_at, "key": KEY, **more}


FINALIZER = (names.BACKUP_FINALIZER,)
HOUR = timedelta(hours=1)
