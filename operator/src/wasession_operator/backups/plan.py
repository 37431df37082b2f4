"""What to do next with a backup: pure.

A backup is begun by writing its key and its attempt to the status. Only then is the session's pod
asked to upload, so that another replica finds whatever there may be in the store. It is completed
once the store has as many bytes as the pod reports, and the manifest beside them.

An import copies the archive of another namespace's backup inside the store. It is begun and
completed in the same way, and asks nobody but the two namespaces: the source exports it to this
one, and somebody here has created the import. Once it is completed it has no more to do with its
source.

A VolumeSnapshot needs neither store nor pod: it is named in the status, created and polled until it
is ready. Clusters without snapshots have no such kind, so it is not watched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from pydantic import ValidationError
from wasession_api import names
from wasession_api.session_pod.backup import ArchiveManifest, BackupReport, BackupState
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import (
    BackupMethod,
    BackupPhase,
    BackupReason,
    BackupSource,
    BackupStatus,
    DeletionPolicy,
    ImportSource,
)

from wasession_operator.backups.backup import FINAL, Archive, Backup, archive_key, is_below
from wasession_operator.backups.snapshot import Snapshot
from wasession_operator.plan.conditions import MESSAGE_MAX
from wasession_operator.plan.facts import Backoff

ATTEMPTS = 5
DEADLINE = timedelta(hours=1)  # from the first attempt
ANSWER_TIMEOUT = timedelta(seconds=30)  # until a pod that was asked reports the backup
RECHECK = timedelta(seconds=10)  # of a namespace whose backups cannot be read
# How often to look at a VolumeSnapshot: after a quarter of the time that it has taken so far.
POLL_FIRST, POLL_LAST = timedelta(seconds=1), timedelta(seconds=30)
ERROR_PATIENCE = timedelta(minutes=2)  # for errors that the snapshot controller may get over
# In its errors for volumes that no CSI driver has provided, and for drivers without a class.
# https://github.com/kubernetes-csi/external-snapshotter/blob/v8.7.0/pkg/common-controller/snapshot_controller.go
NOT_SUPPORTED = ("cannot find CSI PersistentVolumeSource", "cannot find default snapshot class")
# URLs are signed, and so are secret; a pod may tell any amount of them in an error.
_URL = re.compile(r"\S*(://|[Ss]ignature=)\S*")


class Problem(NamedTuple):
    """Why something is tried again."""

    reason: BackupReason
    message: str


class Position(NamedTuple):
    """A report of a pod: those with a later ``seq`` of the same start are newer."""

    started_at: datetime
    seq: int


@dataclass(frozen=True)
class Ordered:
    """When which run of the session's pod was asked for the backup."""

    at: datetime
    started_at: datetime  # of the pod's process


@dataclass(frozen=True)
class Observed:
    """What there was of a VolumeSnapshot at a time; None: nothing."""

    at: datetime
    snapshot: Snapshot | None


@dataclass(frozen=True)
class Progress:
    """What this replica knows of a backup beyond its status; another one finds it out again."""

    ordered: Ordered | None = None  # in the present attempt
    outdated: Position | None = None  # up to here, reports are of an earlier attempt
    archive: Archive | None = None  # as it was found in the store; None: not looked at
    copied: tuple[str, int] | None = None  # an archive to import, and its bytes; 0: there is none
    deleted: bool = False  # the archive
    observed: Observed | None = None  # None: not looked at
    was_created: bool = False  # the VolumeSnapshot was there once
    problem: Problem | None = None
    retry: Backoff = field(default_factory=Backoff)


@dataclass(frozen=True)
class SourceSession:
    """The session whose login it is."""

    source: BackupSource
    recipients: tuple[str, ...] | None  # of its class; None while that is not known
    is_stopped: bool  # suspended, or being deleted
    report: Report | None  # of its pod, while the operator is connected to it
    is_terminating: bool = False
    has_login: bool = False  # as its status says; its pod may know more
    claim: str | None = None  # name of its PVC, while that is bound
    snapshot_class: str | None = None  # VolumeSnapshotClass of its class


@dataclass(frozen=True)
class Origin:
    """What is known of the backup that an import copies."""

    is_served: bool  # whether the operator is to serve its namespace
    is_readable: bool = True  # and knows its backups at the moment
    backup: Backup | None = None  # None: there is none


@dataclass(frozen=True)
class Facts:
    """The circumstances of a backup at one moment."""

    now: datetime
    has_store: bool = True
    session: SourceSession | None = None  # None: it does not exist
    origin: Origin | None = None  # of an import
    may_begin: bool = True  # fewer than the maximum are running
    is_archive_shared: bool = False  # another backup is of the same archive
    is_namespace_terminating: bool = False
    progress: Progress = Progress()


@dataclass(frozen=True)
class AddFinalizer:
    """Hold a deleted backup back until its archive is deleted."""


@dataclass(frozen=True)
class RemoveFinalizer:
    """Let a deleted backup go."""


@dataclass(frozen=True)
class Look:
    """Find out what the store has of an archive."""

    key: str


@dataclass(frozen=True)
class Order:
    """Ask the session's pod to upload its login, as ``session`` has it."""

    key: str
    recipients: tuple[str, ...]


@dataclass(frozen=True)
class Complete:
    """Verify the size of an upload, then write its manifest."""

    key: str
    manifest: ArchiveManifest


@dataclass(frozen=True)
class CopyArchive:
    """Copy an archive inside the store; if the copy has the size, write its manifest."""

    source: str
    key: str
    manifest: ArchiveManifest


@dataclass(frozen=True)
class DeleteArchive:
    """Delete an archive and its manifest."""

    key: str


@dataclass(frozen=True)
class CreateSnapshot:
    """Create a VolumeSnapshot of a PVC; ``class_name`` is that of a VolumeSnapshotClass."""

    name: str
    claim: str
    class_name: str | None


@dataclass(frozen=True)
class LookAtSnapshot:
    """Find out what there is of a VolumeSnapshot."""

    name: str


Action = (
    AddFinalizer | RemoveFinalizer | Look | Order | Complete | CopyArchive | DeleteArchive
    | CreateSnapshot | LookAtSnapshot
)  # fmt: skip


@dataclass(frozen=True)
class Decision:
    """The status to write first, then the action to take.

    ``failure``: the present attempt has failed. ``requeue_after``: plan again then, if no event
    comes first.
    """

    status: BackupStatus
    action: Action | None = None
    failure: Problem | None = None
    requeue_after: timedelta | None = None


def plan(backup: Backup, facts: Facts) -> Decision:
    """Return what to do next; the same facts give the same decision."""
    status = backup.status
    if backup.is_terminating:
        return _plan_deletion(backup, facts)
    if status.phase in FINAL:
        return Decision(status)
    if backup.spec.method is BackupMethod.VOLUME_SNAPSHOT:
        if status.phase is BackupPhase.RUNNING and status.volume_snapshot_name is not None:
            return _plan_waiting(backup, status.volume_snapshot_name, facts)
        return _plan_snapshot(backup, facts)
    if not facts.has_store:
        message = "The operator has no store of backups: WASESSION_BACKUP_STORE is not set."
        return _fail(backup, facts, BackupReason.STORE_NOT_CONFIGURED, message)
    if (wanted := backup.spec.import_from) is not None:
        return _plan_import(backup, wanted, facts)
    if backup.spec.key is not None:
        return _plan_present(backup, backup.spec.key, facts)
    if status.phase is BackupPhase.RUNNING and status.key is not None:
        return _plan_running(backup, status.key, facts)
    return _plan_start(backup, facts)


def backoff(status: BackupStatus) -> timedelta:
    """Return how long to wait after a failed attempt."""
    return timedelta(seconds=10) * 2.0 ** (max(status.attempts, 1) - 1)


# --- an upload ------------------------------------------------------------------------------------


def _plan_start(backup: Backup, facts: Facts) -> Decision:
    session, name = facts.session, backup.session_name
    if session is None:
        return _wait(
            backup, BackupReason.SESSION_NOT_FOUND, f"WhatsAppSession {name} does not exist."
        )
    if session.recipients is None:
        message = f"The class of WhatsAppSession {name} is not known."
        return _wait(backup, BackupReason.RECIPIENTS_MISSING, message)
    if not session.recipients:
        message = (
            f"The class of WhatsAppSession {name} has no recipients of backups: nobody could "
            "decrypt this one. Set backupPolicy.recipients."
        )
        return _fail(backup, facts, BackupReason.RECIPIENTS_MISSING, message)
    if (problem := _unfit(session, name)) is not None:
        return _wait(backup, *problem)
    if not facts.may_begin:
        return _wait(backup, BackupReason.QUEUED, "Others are being uploaded.")
    if _needs_finalizer(backup):
        return Decision(backup.status, AddFinalizer())
    key = archive_key(backup, name, facts.now)
    begun = _begun(backup, facts, BackupReason.UPLOADING, session.source, key=key)
    return Decision(begun, Order(key, session.recipients))


def _begun(
    backup: Backup, facts: Facts, reason: BackupReason, source: BackupSource, **copy: str
) -> BackupStatus:
    """Return the status with which the first attempt begins; ``copy`` says where the copy goes."""
    begun = {
        "phase": BackupPhase.RUNNING,
        "reason": reason,
        "message": "",
        "attempts": 1,
        "started_at": facts.now.replace(microsecond=0),
        "source": source,
        **copy,
    }
    return backup.status.model_copy(update=begun)


def _unfit(session: SourceSession, name: str) -> Problem | None:
    """Return why a session cannot be backed up now."""
    report = session.report
    if session.is_stopped or report is None:
        state = "is suspended or being deleted" if session.is_stopped else "does not run"
        message = f"WhatsAppSession {name} {state}; only a running session can be backed up."
        return Problem(BackupReason.SESSION_NOT_RUNNING, message)
    if report.proven_validity is not True or report.login_id is None:
        message = f"WhatsAppSession {name} has no valid login."
        return Problem(BackupReason.NO_LOGIN, message)
    if not report.can_back_up:
        message = f"The session image of WhatsAppSession {name} is too old to make backups."
        return Problem(BackupReason.IMAGE_TOO_OLD, message)
    if report.backup is not None and report.backup.state is BackupState.RUNNING:
        return Problem(BackupReason.QUEUED, f"Another backup of WhatsAppSession {name} is made.")
    return None


def _plan_running(backup: Backup, key: str, facts: Facts) -> Decision:
    progress, status = facts.progress, backup.status
    if (ended := _plan_written(backup, key, facts)) is not None:
        return ended
    problem = progress.problem
    left = (status.started_at or facts.now) + DEADLINE - facts.now
    if left <= timedelta(0):
        last = f" {problem.message}" if problem is not None else ""
        message = f"The backup has not been completed within an hour.{last}"
        return _fail(backup, facts, BackupReason.DEADLINE_EXCEEDED, message)
    failed = problem is not None and problem.reason is BackupReason.UPLOAD_FAILED
    if problem is not None and failed and status.attempts >= ATTEMPTS:
        message = f"{problem.message} It was the last of {ATTEMPTS} attempts."
        return _fail(backup, facts, BackupReason.UPLOAD_FAILED, message)
    if (waiting := _retry_later(backup, facts)) is not None:
        return waiting
    if progress.archive is None:
        return Decision(status, Look(key))
    session = facts.session
    if session is None or session.source.session_uid != _source(backup, session).session_uid:
        message = f"WhatsAppSession {backup.session_name} was deleted during its backup."
        return _fail(backup, facts, BackupReason.SESSION_NOT_FOUND, message)
    if session.report is None:
        return Decision(status, requeue_after=left)
    if failed:
        return _begin_again(backup, key, session)
    decision = _follow(backup, key, facts, session, session.report)
    return replace(decision, requeue_after=min(decision.requeue_after or left, left))


def _plan_written(backup: Backup, key: str, facts: Facts) -> Decision | None:
    """Return the end of a backup whose archive is complete, be it by another replica."""
    if not is_below(key, backup.namespace):
        message = f"status.key is not below {backup.namespace}/: somebody has edited it."
        return _fail(backup, facts, BackupReason.ARCHIVE_INVALID, message)
    archive = facts.progress.archive
    if archive is None or (manifest := archive.manifest) is None:
        return None
    if manifest.backup_uid != backup.uid or archive.size != manifest.size:
        return None
    return _complete(backup, facts, key, manifest)


def _begin_again(backup: Backup, key: str, session: SourceSession) -> Decision:
    """Begin another attempt: the wait after the last one is over."""
    begun = {
        "reason": BackupReason.UPLOADING,
        "message": "",
        "attempts": backup.status.attempts + 1,
    }
    return Decision(backup.status.model_copy(update=begun), Order(key, session.recipients or ()))


def _follow(
    backup: Backup, key: str, facts: Facts, session: SourceSession, report: Report
) -> Decision:
    """Go on with what the session's pod reports of the present attempt."""
    progress, made = facts.progress, report.backup
    status = _changed(backup, BackupPhase.RUNNING, BackupReason.UPLOADING, "")
    if made is not None and made.id == backup.uid:
        if made.state is BackupState.UPLOADED:
            return _verify(backup, key, made, _source(backup, session))
        if made.state is BackupState.RUNNING:
            return Decision(status)
        if not _is_outdated(report, progress.outdated):
            error = _URL.sub("…", made.error or "the pod does not say why")
            return _attempt_failed(backup, f"The upload has failed: {error.rstrip('.')}.")
    elif made is not None and made.state is BackupState.RUNNING:
        return Decision(status)  # of another backup: the pod makes one at a time
    ordered = progress.ordered
    if ordered is None:
        return Decision(status, Order(key, session.recipients or ()))
    if ordered.started_at != report.started_at:
        return _attempt_failed(backup, "The session's pod has restarted during the upload.")
    left = ordered.at + ANSWER_TIMEOUT - facts.now
    if left <= timedelta(0):
        return _attempt_failed(backup, "The session's pod does not report the backup.")
    return Decision(status, requeue_after=left)


def _is_outdated(report: Report, outdated: Position | None) -> bool:
    if outdated is None or report.started_at != outdated.started_at:
        return False
    return report.seq <= outdated.seq


def _verify(backup: Backup, key: str, made: BackupReport, source: BackupSource) -> Decision:
    manifest = _make_manifest(
        backup, source, taken_at=made.taken_at, size=made.size, sha256=made.sha256
    )
    if manifest is None:
        return _attempt_failed(backup, "The session's pod has not reported what it has uploaded.")
    return Decision(backup.status, Complete(key, manifest))


def _make_manifest(
    backup: Backup, source: BackupSource | None, **archive: object
) -> ArchiveManifest | None:
    """Return the manifest of a backup's archive; None if too little is known of it."""
    of_backup = {"backup_name": backup.name, "backup_uid": backup.uid, "source": source}
    try:
        return ArchiveManifest.model_validate({**of_backup, **archive})
    except ValidationError:
        return None


def _attempt_failed(backup: Backup, message: str) -> Decision:
    return Decision(backup.status, failure=Problem(BackupReason.UPLOAD_FAILED, message))


def _source(backup: Backup, session: SourceSession | None) -> BackupSource:
    """Return whose login it is: as it was when the backup was begun."""
    source = backup.status.source or (session.source if session is not None else None)
    assert source is not None
    return source


# --- a VolumeSnapshot -----------------------------------------------------------------------------


def _plan_snapshot(backup: Backup, facts: Facts) -> Decision:
    session, name = facts.session, backup.session_name
    if session is None:
        return _wait(
            backup, BackupReason.SESSION_NOT_FOUND, f"WhatsAppSession {name} does not exist."
        )
    if session.recipients is None:
        message = f"The class of WhatsAppSession {name} is not known."
        return _wait(backup, BackupReason.CLASS_NOT_FOUND, message)
    if session.is_terminating:
        message = f"WhatsAppSession {name} is being deleted."
        return _wait(backup, BackupReason.SESSION_NOT_RUNNING, message)
    if not _has_login(session):
        message = f"WhatsAppSession {name} has no valid login."
        return _wait(backup, BackupReason.NO_LOGIN, message)
    if session.claim is None:
        message = f"The PVC of WhatsAppSession {name} is not bound."
        return _wait(backup, BackupReason.VOLUME_NOT_BOUND, message)
    snapshot = names.snapshot_name(backup.uid)
    create = CreateSnapshot(snapshot, session.claim, session.snapshot_class)
    if (problem := facts.progress.problem) is not None:
        if problem.reason is not BackupReason.SNAPSHOTS_FORBIDDEN:
            return _fail(backup, facts, *problem)
        # Its name was written down before the first attempt.
        return _retry_later(backup, facts) or Decision(backup.status, create)
    reason = BackupReason.TAKING_SNAPSHOT
    begun = _begun(backup, facts, reason, session.source, volume_snapshot_name=snapshot)
    return Decision(begun, create)


def _has_login(session: SourceSession) -> bool:
    """Return whether a volume has a valid login: as its pod reports, or as was known last."""
    proven = None if session.report is None else session.report.proven_validity
    return bool(session.source.login_id) and (session.has_login if proven is None else proven)


def _plan_waiting(backup: Backup, name: str, facts: Facts) -> Decision:
    """Wait until the VolumeSnapshot is ready."""
    progress, status, session = facts.progress, backup.status, facts.session
    if progress.problem is not None:
        if progress.problem.reason is not BackupReason.SNAPSHOTS_FORBIDDEN:
            return _fail(backup, facts, *progress.problem)
        wait = max(progress.retry.wait(facts.now), timedelta(0))
        return replace(_wait(backup, *progress.problem), requeue_after=wait)
    if progress.observed is None:
        return Decision(status, LookAtSnapshot(name))
    source, snapshot = _source(backup, session), progress.observed.snapshot
    same = session is not None and session.source.session_uid == source.session_uid
    if session is not None and same and session.source.login_id != source.login_id:
        message = "The login has ended while its volume was copied."
        return _fail(backup, facts, BackupReason.NO_LOGIN, message)
    if snapshot is None and not progress.was_created:  # the operator has died in between
        if session is None or not same or session.claim is None:
            message = f"WhatsAppSession {backup.session_name} was deleted during its backup."
            return _fail(backup, facts, BackupReason.SESSION_NOT_FOUND, message)
        return Decision(status, CreateSnapshot(name, session.claim, session.snapshot_class))
    if snapshot is None or snapshot.is_terminating:
        message = f"VolumeSnapshot {name} was deleted before it was ready."
        return _fail(backup, facts, BackupReason.SNAPSHOT_MISSING, message)
    if snapshot.claim != names.object_name(backup.session_name):
        message = f"VolumeSnapshot {name} is not one of the session's PVC: others have made it."
        return _fail(backup, facts, BackupReason.SNAPSHOT_FAILED, message)
    if snapshot.is_ready:
        return _complete_snapshot(backup, facts, snapshot)
    return _await_snapshot(backup, name, facts, progress.observed.at, snapshot)


def _await_snapshot(
    backup: Backup, name: str, facts: Facts, looked_at: datetime, snapshot: Snapshot
) -> Decision:
    took = max(facts.now - (backup.status.started_at or facts.now), timedelta(0))
    error = "" if snapshot.error is None else f"VolumeSnapshot {name}: {snapshot.error}"
    if any(text in error for text in NOT_SUPPORTED):
        return _fail(backup, facts, BackupReason.SNAPSHOTS_NOT_SUPPORTED, error)
    if error and took >= ERROR_PATIENCE:
        return _fail(backup, facts, BackupReason.SNAPSHOT_FAILED, error)
    if took >= DEADLINE:
        message = (
            f"VolumeSnapshot {name} was not ready within an hour, and has no error: the cluster's "
            "snapshot controller, or that of the CSI driver, may not run."
        )
        return _fail(backup, facts, BackupReason.DEADLINE_EXCEEDED, message)
    status = _changed(backup, BackupPhase.RUNNING, BackupReason.TAKING_SNAPSHOT, error)
    left = looked_at + min(max(took / 4, POLL_FIRST), POLL_LAST) - facts.now
    if left <= timedelta(0):
        return Decision(status, LookAtSnapshot(name))
    return Decision(status, requeue_after=left)


def _complete_snapshot(backup: Backup, facts: Facts, snapshot: Snapshot) -> Decision:
    completed = {
        "phase": BackupPhase.COMPLETED,
        "reason": BackupReason.COMPLETED,
        "message": "",
        "taken_at": snapshot.taken_at or backup.status.started_at,
        "completed_at": facts.now.replace(microsecond=0),
        "size": snapshot.size,
    }
    return Decision(backup.status.model_copy(update=completed))


# --- an archive of another namespace --------------------------------------------------------------


def _plan_import(backup: Backup, wanted: ImportSource, facts: Facts) -> Decision:
    key, progress = backup.status.key, facts.progress
    if key is not None and (ended := _plan_written(backup, key, facts)) is not None:
        return ended
    if (waiting := _retry_later(backup, facts)) is not None:
        return waiting
    if key is not None and progress.archive is None:
        return Decision(backup.status, Look(key))
    exported = _find_exported(backup, wanted, facts)
    if isinstance(exported, Decision):
        return exported
    name, archive, manifest = f"{wanted.namespace}/{wanted.name}", *exported
    # Another one of the same name may have taken the place of the backup that was copied.
    copied, size = progress.copied or ("", None)
    if copied == archive and size != manifest.size:
        has = f"has {size} bytes" if size else "is not in the store any more"
        message = f"The archive of {name} {has}; it had {manifest.size} bytes."
        reason = BackupReason.ARCHIVE_INVALID if size else BackupReason.ARCHIVE_MISSING
        return _fail(backup, facts, reason, message)
    if _needs_finalizer(backup):
        return Decision(backup.status, AddFinalizer())
    if key is not None:
        importing = _changed(backup, BackupPhase.RUNNING, BackupReason.IMPORTING, "")
        return Decision(importing, CopyArchive(archive, key, manifest))
    key = archive_key(backup, manifest.source.session_name, manifest.taken_at)
    begun = _begun(backup, facts, BackupReason.IMPORTING, manifest.source, key=key)
    return Decision(begun, CopyArchive(archive, key, manifest))


def _find_exported(
    backup: Backup, wanted: ImportSource, facts: Facts
) -> tuple[str, ArchiveManifest] | Decision:
    """Return the key of the archive to copy, and the manifest of the copy; or why there is none.

    Whether a backup that is not exported exists is none of this namespace's business.
    """
    name, origin = f"{wanted.namespace}/{wanted.name}", facts.origin
    if origin is None or not origin.is_served:
        message = f"The operator does not serve the namespace {wanted.namespace}."
        return _fail(backup, facts, BackupReason.SOURCE_NOT_SERVED, message)
    if not origin.is_readable:
        message = f"The operator cannot read the backups of namespace {wanted.namespace} now."
        waiting = _wait(backup, BackupReason.SOURCE_NOT_SERVED, message)
        return replace(waiting, requeue_after=RECHECK)
    source = origin.backup
    if source is None or source.is_terminating or not source.is_exported_to(backup.namespace):
        message = (
            f"WhatsAppSessionBackup {name} does not exist, or is not exported to "
            f"{backup.namespace}: kubectl wasession -n {wanted.namespace} export {wanted.name} "
            f"--to {backup.namespace}"
        )
        return _wait(backup, BackupReason.NOT_EXPORTED, message)
    status, reason = source.status, BackupReason.SOURCE_NOT_COMPLETED
    if status.phase is BackupPhase.FAILED:
        return _fail(backup, facts, reason, f"WhatsAppSessionBackup {name} has failed.")
    if status.phase is not BackupPhase.COMPLETED:
        return _wait(backup, reason, f"WhatsAppSessionBackup {name} is not Completed yet.")
    manifest = _make_manifest(
        backup, status.source, taken_at=status.taken_at, size=status.size, sha256=status.sha256
    )
    if manifest is None or status.key is None or not is_below(status.key, source.namespace):
        message = f"The status of WhatsAppSessionBackup {name} does not say which archive it has."
        return _fail(backup, facts, BackupReason.ARCHIVE_INVALID, message)
    return status.key, manifest


# --- an archive that is there already -------------------------------------------------------------


def _plan_present(backup: Backup, key: str, facts: Facts) -> Decision:
    if not is_below(key, backup.namespace):
        message = f"spec.key must begin with {backup.namespace}/, and have no empty part, . or .."
        return _fail(backup, facts, BackupReason.ARCHIVE_INVALID, message)
    if (waiting := _retry_later(backup, facts)) is not None:
        return waiting
    archive = facts.progress.archive
    if archive is None:
        return Decision(backup.status, Look(key))
    if archive.size is None:
        message = f"The store has no archive {key}."
        return _fail(backup, facts, BackupReason.ARCHIVE_MISSING, message)
    manifest = archive.manifest
    if manifest is None:
        what = "an invalid" if archive.has_manifest else "no"
        message = f"The archive {key} has {what} manifest: it may not be complete."
        return _fail(backup, facts, BackupReason.ARCHIVE_INVALID, message)
    if manifest.size != archive.size:
        message = f"The archive {key} has {archive.size} bytes; its manifest says {manifest.size}."
        return _fail(backup, facts, BackupReason.ARCHIVE_INVALID, message)
    if _needs_finalizer(backup):
        return Decision(backup.status, AddFinalizer())
    return _complete(backup, facts, key, manifest)


# --- the end --------------------------------------------------------------------------------------


def _plan_deletion(backup: Backup, facts: Facts) -> Decision:
    """Delete the archive, then let the backup go.

    With a namespace that is deleted, its archives stay: it may be deleted by mistake, and is found
    again in the store when there is another one of its name.
    """
    status, key = backup.status, backup.archive
    if names.BACKUP_FINALIZER not in backup.finalizers:
        return Decision(status)
    stays = backup.is_abandoned or facts.is_archive_shared or facts.is_namespace_terminating
    gone = key is None or not is_below(key, backup.namespace) or facts.progress.deleted
    if stays or gone:
        return Decision(status, RemoveFinalizer())
    assert key is not None
    if not facts.has_store:
        reason, message = (
            BackupReason.STORE_NOT_CONFIGURED,
            "The operator has no store to delete the archive from.",
        )
        return Decision(_waits_for_deletion(status, reason, message))
    problem = facts.progress.problem
    if problem is not None:
        status = _waits_for_deletion(status, *problem)
    wait = facts.progress.retry.wait(facts.now)
    if problem is not None and wait > timedelta(0):
        return Decision(status, requeue_after=wait)
    return Decision(status, DeleteArchive(key))


def _waits_for_deletion(status: BackupStatus, reason: BackupReason, message: str) -> BackupStatus:
    way_out = (
        f"The archive is not deleted yet: {message} To leave it where it is, set the annotation "
        f"{names.ANNOTATION_ABANDON_ARCHIVE}=true."
    )
    return status.model_copy(update={"reason": reason, "message": way_out})


def _needs_finalizer(backup: Backup) -> bool:
    """Return whether a backup's archive has to be deleted first; it has none otherwise."""
    deletes = backup.spec.deletion_policy is DeletionPolicy.DELETE
    return deletes and names.BACKUP_FINALIZER not in backup.finalizers


def _retry_later(backup: Backup, facts: Facts) -> Decision | None:
    """Return to wait, and why, until the backoff of a failure is over."""
    problem, wait = facts.progress.problem, facts.progress.retry.wait(facts.now)
    if problem is None or wait <= timedelta(0):
        return None
    phase = backup.status.phase or BackupPhase.PENDING
    status = _changed(backup, phase, *problem)
    return Decision(status, requeue_after=wait)


def _wait(backup: Backup, reason: BackupReason, message: str) -> Decision:
    return Decision(_changed(backup, BackupPhase.PENDING, reason, message))


def _fail(backup: Backup, facts: Facts, reason: BackupReason, message: str) -> Decision:
    failed = _changed(backup, BackupPhase.FAILED, reason, message)
    ended = {"completed_at": facts.now.replace(microsecond=0)}
    return Decision(failed.model_copy(update=ended))


def _changed(
    backup: Backup, phase: BackupPhase, reason: BackupReason, message: str
) -> BackupStatus:
    told = {"phase": phase, "reason": reason, "message": message[:MESSAGE_MAX]}
    return backup.status.model_copy(update=told)


def _complete(backup: Backup, facts: Facts, key: str, manifest: ArchiveManifest) -> Decision:
    completed = {
        "phase": BackupPhase.COMPLETED,
        "reason": BackupReason.COMPLETED,
        "message": "",
        "key": key,
        "taken_at": manifest.taken_at,
        "completed_at": facts.now.replace(microsecond=0),
        "size": manifest.size,
        "sha256": manifest.sha256,
        "source": manifest.source,
    }
    return Decision(backup.status.model_copy(update=completed))
