"""A new volume that begins with a backup, and logins that several sessions have copies of.

Two browsers with the keys of one login end it for both. So of all sessions with the same login only
the one that was restored last may run, and it starts only when the others are proven to be stopped.
It writes to its status that it restores before it looks at them for the last time: one that is
resumed after that look sees it. Of several that restore at the same moment each sees the others,
and all but the latest write that they yield.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from wasession_api.kube.manifests import Manifest, amount
from wasession_api.v1alpha1 import (
    BackupMethod,
    BackupPhase,
    BackupStatus,
    BootstrapState,
    BootstrapStatus,
    ConditionType,
    Reason,
    Status,
)

from wasession_operator import objects
from wasession_operator.objects import Restore, SnapshotRestore
from wasession_operator.plan.facts import Facts, LoginHolder, Session
from wasession_operator.plan.results import BootstrapResult, Finding, Step, report_problem

RECHECK = timedelta(seconds=3)  # of other sessions, whose events are not this one's
# The same for those of namespaces that are not served: a list of all, after half of the time that
# it has taken so far. The right to list them may be granted at any time.
UNSERVED_FIRST, UNSERVED_LAST = timedelta(seconds=10), timedelta(minutes=5)
SNAPSHOT_RECHECK = timedelta(seconds=30)  # of a VolumeSnapshot, which is not watched
HAS_LOGIN = {BootstrapState.RESTORING, BootstrapState.RESTORED}
SETTLED = {BootstrapState.RESTORED, BootstrapState.ENDED}
# What is wrong with the backup itself, or is not known of it.
UNUSABLE = {
    Reason.BACKUP_NOT_FOUND, Reason.BACKUP_NOT_COMPLETED, Reason.BACKUP_SOURCE_NOT_FENCED,
}  # fmt: skip
NOT_FOUND = "WhatsAppSessionBackup {name} does not exist; the volume is created when it does."
SNAPSHOT_GONE = (
    "VolumeSnapshot {snapshot} of WhatsAppSessionBackup {name} does not exist any more; the volume "
    "is created when it does."
)
OTHER_IDENTITY = (
    "The VolumeSnapshot of WhatsAppSessionBackup {name} is of a session with clientId {client_id} "
    "and owner {owner}; a copy of its volume is for one with the same."
)
TOO_LARGE = (
    "The VolumeSnapshot of WhatsAppSessionBackup {name} needs a volume of {size} bytes: the class "
    "of this session allows {limit} of storage at most."
)
NOT_COMPLETED = (
    "WhatsAppSessionBackup {name} is {phase}; the volume is created when it is Completed."
)
NOT_FENCED = (
    "The login of WhatsAppSessionBackup {name} was in session {source}, which this operator does "
    "not serve. Make sure that it runs nowhere any more, then set spec.bootstrap.fenced to true."
)
RUNNING = (
    "Session {other} has the same login, and two that run end each other's. Suspend or delete it; "
    "this one starts when its pod is gone."
)
RUNNING_UNSERVED = (
    "Session {other} has the same login, in a namespace that this operator does not serve, and "
    "two that run end each other's. Make sure that it runs nowhere any more, then delete it{fence}."
)
UNSEEN = (
    "A session of a namespace that this operator does not serve may have the same login: it cannot "
    "list them ({gap}). Make sure that none runs, then set spec.bootstrap.fenced to true."
)
MOVED = (
    "The login has moved: session {other} was restored from a backup of it. To use it here again, "
    "delete that session and its volume."
)
MOVED_UNSEEN = (
    "The login has moved, and whether it is free again is not known: sessions of namespaces that "
    "this operator does not serve cannot be listed ({gap}). Make sure that none of them runs, then "
    "suspend this session and resume it."
)
COPY_UNSEEN = (
    "This session has no status, and there is a backup of it. A session of a namespace that this "
    "operator does not serve may have been restored from that: it cannot list them ({gap}). Make "
    "sure that none runs, then suspend this session and resume it."
)
SKIPPED = (
    "The volume was not empty, or was there before, so the backup was not restored. To restore it, "
    "use a session without a volume."
)
RESTORING = "The volume is being restored from a backup."


def is_restoring(session: Session) -> bool:
    """Return whether the session's volume is still to be filled from a backup."""
    status = session.status
    begun = status.bootstrap is None or status.bootstrap.state is BootstrapState.RESTORING
    used = status.last_connected is not None or bool(status.session_valid)
    return session.spec.bootstrap is not None and begun and not used


def plan_bootstrap(session: Session, facts: Facts) -> BootstrapResult:
    """Decide what the volume begins with, and whether the session may use its login."""
    status = _reported(session, facts)
    if status is not session.status.bootstrap:
        return BootstrapResult(status)
    if is_restoring(session):
        return _restore(session, facts, status)
    is_called_off = status is not None and status.state is BootstrapState.RESTORING
    if is_called_off and facts.pod is None and facts.pvc is None:
        status = None  # else the volume may have the login by now: its pod reports it
    return _use(session, facts, status)


def _use(session: Session, facts: Facts, status: BootstrapStatus | None) -> BootstrapResult:
    """Decide whether the session may use the login that its volume has, if it has one."""
    skipped = status is not None and status.state is BootstrapState.SKIPPED
    step = report_problem(Reason.BOOTSTRAP_SKIPPED, SKIPPED) if skipped else Step()
    if (blocked := _blocked_by_copy(session, facts)) is not None:
        moved = blocked.reason == Reason.LOGIN_MOVED and facts.pod is not None
        stop = Reason.LOGIN_MOVED if moved else None
        return BootstrapResult(status, blocked, step + _report(blocked, session, facts), stop=stop)
    return BootstrapResult(status, step=step)


def _reported(session: Session, facts: Facts) -> BootstrapStatus | None:
    """Return what the pod has reported of its volume; the present status if nothing new."""
    known, report = session.status.bootstrap, facts.report
    if report is None or report.session_valid is None:
        return known
    record, state = report.restoration, None if known is None else known.state
    if record is not None and record.restored and record.login_id and state not in SETTLED:
        # Of whatever backup: another session may have had the volume, or another backup be named.
        return BootstrapStatus(
            backup_uid=record.backup,
            login_id=record.login_id,
            state=BootstrapState.RESTORED,
            at=record.at if known is None else known.at,
        )
    if known is None:
        return None
    if state is BootstrapState.RESTORING:
        is_wanted = session.spec.bootstrap is not None
        return known.model_copy(update={"state": BootstrapState.SKIPPED}) if is_wanted else None
    if state is BootstrapState.RESTORED and report.proven_validity is False:
        return known.model_copy(update={"state": BootstrapState.ENDED})
    return known


def has_yielded(status: Status) -> bool:
    """Return whether a session has written that its login has moved."""
    return _waits_for(status, Reason.LOGIN_MOVED)


def is_unsure(status: Status) -> bool:
    """Return whether a session has written that others with its login may run unseen."""
    return _waits_for(status, Reason.BACKUP_SOURCE_NOT_FENCED)


def _waits_for(status: Status, reason: Reason) -> bool:
    ready = status.condition(ConditionType.READY)
    return ready is not None and ready.reason == reason


def _restore(session: Session, facts: Facts, status: BootstrapStatus | None) -> BootstrapResult:
    if facts.pod is not None and status is None:
        return BootstrapResult(None)  # it had its pod before it was to begin with a backup
    newer = None if status is None or session.spec.suspend else _blocked_by_newer(session, facts)
    if newer is not None:
        stop = None if facts.pod is None else Reason.LOGIN_MOVED
        return BootstrapResult(status, newer, _report(newer, session, facts), stop=stop)
    restore = _blocked_by_running(session, facts) or _copy(session, facts)
    if isinstance(restore, Finding):
        if restore.reason in UNUSABLE and facts.pvc is not None and status is None:
            return _use(session, facts, None)  # no new volume: its session's status was lost
        step = Step() if facts.pod is not None else _report(restore, session, facts)
        if facts.backup is not None and facts.backup.snapshot_missing:
            step += Step(requeue_after=SNAPSHOT_RECHECK)
        return BootstrapResult(status, restore, step)
    # The others are looked at once more when this is written.
    waiting = Finding(False, Reason.VOLUME_RESTORING, RESTORING)
    again = Step(requeue_after=timedelta(0))
    if status is not None and status.backup_uid == restore.backup_uid:
        if facts.pod is None and has_yielded(session.status):
            return BootstrapResult(status, waiting, again)
        return BootstrapResult(status, restore=restore if _is_for(restore, facts.pvc) else None)
    if facts.pod is not None:
        return BootstrapResult(status, stop=Reason.VOLUME_RESTORING)  # another backup is named
    begun = BootstrapStatus(
        backup_uid=restore.backup_uid,
        login_id=restore.login_id,
        state=BootstrapState.RESTORING,
        at=_after_others(facts),
    )
    return BootstrapResult(begun, waiting, again)


def _after_others(facts: Facts) -> datetime:
    """Return the present second, or a later one: whoever restores last has the login."""
    now = facts.now.replace(microsecond=0)
    earlier = [other.restored_at for other in facts.login_holders if other.restored_at is not None]
    return max([now, *(at + timedelta(seconds=1) for at in earlier)])


def _report(blocked: Finding, session: Session, facts: Facts) -> Step:
    step = report_problem(blocked.reason, blocked.message)
    unseen = any(not other.is_served for other in facts.login_holders)
    if unseen or facts.login_survey_gap is not None:
        return step + Step(requeue_after=_unserved_recheck(session, facts, blocked.reason))
    if blocked.reason == Reason.BACKUP_SOURCE_RUNNING:
        step += Step(requeue_after=RECHECK)
    return step


def _unserved_recheck(session: Session, facts: Facts, reason: str) -> timedelta:
    """Return when to list all sessions again."""
    ready = session.status.condition(ConditionType.READY)
    waits = ready is not None and ready.reason == reason
    took = facts.now - ready.last_transition_time if ready and waits else timedelta(0)
    return min(max(took / 2, UNSERVED_FIRST), UNSERVED_LAST)


def _copy(session: Session, facts: Facts) -> Restore | SnapshotRestore | Finding:
    """Return what to restore, or why it cannot be restored."""
    assert session.spec.bootstrap is not None
    backup, fenced = facts.backup, session.spec.bootstrap.fenced
    name = session.spec.bootstrap.from_backup.name
    if backup is None:
        return Finding(False, Reason.BACKUP_NOT_FOUND, NOT_FOUND.format(name=name))
    status, source = backup.status, backup.status.source
    of_snapshot = backup.method is BackupMethod.VOLUME_SNAPSHOT
    copy = (_snapshot if of_snapshot else _archive)(backup.uid, status)
    if copy is None or source is None:
        message = NOT_COMPLETED.format(name=name, phase=status.phase or BackupPhase.PENDING)
        return Finding(False, Reason.BACKUP_NOT_COMPLETED, message)
    if not (backup.is_served or fenced):
        message = NOT_FENCED.format(name=name, source=f"{source.namespace}/{source.session_name}")
        return Finding(False, Reason.BACKUP_SOURCE_NOT_FENCED, message)
    if (gap := facts.login_survey_gap) is not None and not fenced:
        return Finding(False, Reason.BACKUP_SOURCE_NOT_FENCED, UNSEEN.format(gap=gap))
    if isinstance(copy, SnapshotRestore):
        identity = objects.client_id(session.name, session.spec), session.spec.owner or ""
        if identity != (source.client_id, source.owner or ""):
            owner = source.owner or "(none)"
            message = OTHER_IDENTITY.format(name=name, client_id=source.client_id, owner=owner)
            return Finding(False, Reason.BOOTSTRAP_FAILED, message)
        if backup.snapshot_missing:
            message = SNAPSHOT_GONE.format(name=name, snapshot=copy.snapshot)
            return Finding(False, Reason.BACKUP_NOT_FOUND, message)
        limit = backup.size_limit
        if facts.pvc is None and copy.size and limit and copy.size > amount(limit):
            message = TOO_LARGE.format(name=name, size=copy.size, limit=limit)
            return Finding(False, Reason.LIMIT_EXCEEDED, message)
    return copy


def _archive(uid: str, status: BackupStatus) -> Restore | None:
    """Return the archive of a backup; None if it is not completed."""
    source, key, size, sha256 = status.source, status.key, status.size, status.sha256
    is_completed = status.phase is BackupPhase.COMPLETED
    if not is_completed or source is None or key is None or size is None or sha256 is None:
        return None
    return Restore(uid, source.login_id, key, size, sha256)


def _snapshot(uid: str, status: BackupStatus) -> SnapshotRestore | None:
    """Return the VolumeSnapshot of a backup; None if it is not completed."""
    source, name = status.source, status.volume_snapshot_name
    if status.phase is not BackupPhase.COMPLETED or source is None or name is None:
        return None
    return SnapshotRestore(uid, source.login_id, name, status.size)


def _is_for(restore: Restore | SnapshotRestore, pvc: Manifest | None) -> bool:
    """Return whether a backup may be restored on a volume; None: on one that is to be created.

    An archive's pod sees whether the volume is empty. A VolumeSnapshot makes a volume of its own:
    any other one has existed before, and is left alone.
    """
    if pvc is None or isinstance(restore, Restore):
        return True
    return objects.is_from_snapshot(pvc, restore.snapshot)


def _blocked_by_running(session: Session, facts: Facts) -> Finding | None:
    """Return why another session may run; of one that nobody here serves a person's word counts."""
    bootstrap = session.spec.bootstrap
    for other in facts.login_holders:
        if other.is_stopped:
            continue
        message = RUNNING.format(other=other.name)
        if not other.is_served:
            if bootstrap is not None and bootstrap.fenced:
                continue
            fence = "" if bootstrap is None else ", or set spec.bootstrap.fenced to true"
            message = RUNNING_UNSERVED.format(other=other.name, fence=fence)
        return Finding(False, Reason.BACKUP_SOURCE_RUNNING, message)
    return None


def _blocked_by_copy(session: Session, facts: Facts) -> Finding | None:
    """Return why another session keeps this one from using its login, if so."""
    if session.spec.suspend:
        return None  # it does not want to
    if (newer := _blocked_by_newer(session, facts)) is not None:
        return newer
    gap = facts.login_survey_gap
    if gap is not None and facts.pod is None and has_yielded(session.status):
        # It has seen the other one before: that it cannot now proves nothing.
        return Finding(False, Reason.LOGIN_MOVED, MOVED_UNSEEN.format(gap=gap))
    if gap is not None and facts.pod is None and _may_be_copied(session, facts):
        return Finding(False, Reason.BACKUP_SOURCE_NOT_FENCED, COPY_UNSEEN.format(gap=gap))
    own = session.status.bootstrap
    if own is None or own.state not in HAS_LOGIN:
        # What a volume that it has taken over holds is known before its pod has read it.
        is_taken_over = facts.pod is None and not session.status.session_valid
        return _blocked_by_running(session, facts) if is_taken_over else None
    if own.state is BootstrapState.RESTORED and not any(o.has_pod for o in facts.login_holders):
        return None  # the others are older: they get no pod any more
    return _blocked_by_running(session, facts)


def _may_be_copied(session: Session, facts: Facts) -> bool:
    """Return whether a session knows nothing of its login, and there is a backup to restore it of.

    To resume a session is a person's word that no copy of its login runs.
    """
    knows_nothing = session.status.phase is None or is_unsure(session.status)
    return knows_nothing and facts.last_backup is not None


def _blocked_by_newer(session: Session, facts: Facts) -> Finding | None:
    for other in facts.login_holders:
        if _is_newer(other, session):
            return Finding(False, Reason.LOGIN_MOVED, MOVED.format(other=other.name))
    return None


def _is_newer(other: LoginHolder, session: Session) -> bool:
    """Return whether a session was restored after this one, or this one never was."""
    if other.restored_at is None:
        return False
    own = session.status.bootstrap
    if own is None or own.state not in HAS_LOGIN:
        return True
    return (other.restored_at, other.uid) > (own.at, session.uid)
