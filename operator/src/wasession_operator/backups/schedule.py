"""Which backups are due by schedule, and which of them are not needed any more: pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from datetime import datetime, timedelta

from cronsim import CronSim, CronSimError
from wasession_api.kube.manifests import Key, Manifest
from wasession_api.names import LABEL_SCHEDULED
from wasession_api.v1alpha1 import (
    API_VERSION,
    BACKUP_KIND,
    BackupMethod,
    BackupPhase,
    BackupSpec,
    DeletionPolicy,
)

from wasession_operator.backups.backup import SCHEDULED_AT, Backup

NAME_MAXIMUM = 253  # characters of the name of an object
OVERDUE_AFTER = timedelta(hours=2)


class InvalidSchedule(ValueError):
    """Not a schedule as for cron; the message says what is wrong with it."""


def latest(schedule: str, now: datetime) -> datetime | None:
    """Return the latest time of a schedule up to now, in UTC; None if it has never come.

    Raise ``InvalidSchedule``.
    """
    try:
        after = now.replace(second=0, microsecond=0) + timedelta(minutes=1)
        return next(CronSim(schedule, after, reverse=True), None)
    except CronSimError as error:
        raise InvalidSchedule(str(error)) from None


def following(schedule: str, now: datetime) -> datetime | None:
    """Return the next time of a schedule after now, in UTC. Raise ``InvalidSchedule``."""
    try:
        return next(CronSim(schedule, now), None)
    except CronSimError as error:
        raise InvalidSchedule(str(error)) from None


def due(
    schedule: str, now: datetime, created_at: datetime, backups: Collection[Backup]
) -> datetime | None:
    """Return the time of the schedule for which a session needs a backup now.

    Of times that were missed, only the latest counts, and none before the session's creation.
    While a scheduled backup waits, no other is made. Raise ``InvalidSchedule``.
    """
    scheduled = [backup for backup in backups if backup.is_scheduled]
    if any(backup.is_open and not backup.is_terminating for backup in scheduled):
        return None
    at = latest(schedule, now)
    if at is None or at < created_at:
        return None
    times = [time for backup in scheduled if (time := backup.scheduled_at) is not None]
    made = max((time for time in times if time <= now), default=None)
    return at if made is None or made < at else None


def make_backup(
    session: Key, at: datetime, method: BackupMethod = BackupMethod.ARCHIVE
) -> Manifest:
    """Return the backup of a session for a time of its schedule: the name says which.

    So it is created once, whatever else happens.
    """
    namespace, name = session
    spec = BackupSpec(session_name=name, method=method, deletion_policy=DeletionPolicy.DELETE)
    return {
        "apiVersion": API_VERSION,
        "kind": BACKUP_KIND,
        "metadata": {
            "namespace": namespace,
            "name": scheduled_name(name, at),
            "labels": {LABEL_SCHEDULED: "true"},
        },
        "spec": spec.dump(),
    }


def scheduled_name(session: str, at: datetime) -> str:
    """Return the name of the backup of a session for a time of its schedule."""
    suffix = at.strftime(f"-{SCHEDULED_AT}")
    if len(session) + len(suffix) <= NAME_MAXIMUM:
        return session + suffix
    digest = hashlib.sha256(session.encode()).hexdigest()[:10]
    readable = session[: NAME_MAXIMUM - len(suffix) - 12].rstrip("-.")
    return f"{readable}--{digest}{suffix}"


def superfluous(backups: Collection[Backup], keep: int) -> list[Backup]:
    """Return the scheduled backups of a session beyond the ``keep`` latest, of either outcome.

    At least one is kept, so the latest completed one always is; one that somebody else has made is
    none of the schedule's.
    """
    extra: list[Backup] = []
    for phase in (BackupPhase.COMPLETED, BackupPhase.FAILED):
        ended = [
            backup
            for backup in backups
            if backup.is_scheduled and not backup.is_terminating and backup.status.phase is phase
        ]
        extra += sorted(ended, key=_age, reverse=True)[max(keep, 1) :]
    return extra


def is_overdue(
    schedule: str, now: datetime, created_at: datetime, last_completed: datetime | None
) -> bool:
    """Return whether the backup of the last time of the schedule should be there, and is not."""
    at = latest(schedule, now - OVERDUE_AFTER)
    if at is None or at < created_at:
        return False
    return last_completed is None or last_completed < at


def _age(backup: Backup) -> tuple[datetime, datetime]:
    """Order backups by this cluster's clock: the session pods' are their own."""
    return backup.scheduled_at or backup.created_at, backup.created_at
