"""Creates the backups that are due by schedule, and deletes those that are not needed any more."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from wasession_api.kube.client import BACKUPS, Conflict, KubeClient, Rejected, Unavailable
from wasession_api.kube.manifests import Key, Manifest
from wasession_api.v1alpha1 import BackupMethod

from wasession_operator.backups import schedule as schedules
from wasession_operator.backups.schedule import InvalidSchedule
from wasession_operator.controller import Controller
from wasession_operator.event_recorder import EventRecorder
from wasession_operator.plan import Event
from wasession_operator.plan.manifests import is_terminating
from wasession_operator.plan.parse import parse_session
from wasession_operator.sharding.shards import Shards

log = logging.getLogger(__name__)
KEEP = 7  # as in the models
NEVER = datetime.max.replace(tzinfo=UTC)
INVALID_SCHEDULE = "InvalidBackupSchedule"


class Scheduler:
    """Looks once a minute, as schedules have whole minutes, for the sessions of this replica."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._cache = shards.cache
        self._backups = shards.cache.backups
        # The schedule of each session that needs no look before a time.
        self._next: dict[Key, tuple[str, datetime]] = {}
        self._with_schedule: set[Key] = set()  # at the last look
        self._made: dict[Key, datetime] = {}  # the time of the latest one; it may be deleted by now

    async def run(self) -> None:
        """Create and delete scheduled backups until cancelled."""
        while True:
            await self.tick(datetime.now(UTC))
            await asyncio.sleep(60 - datetime.now(UTC).timestamp() % 60)

    async def tick(self, now: datetime) -> None:
        """Create the backups that are due, and delete superfluous ones."""
        scheduled = list(self._scheduled())
        self._with_schedule = {key for key, _ in scheduled}
        for key, schedule in scheduled:
            known = self._next.get(key)
            if known is None or known[0] != schedule or known[1] <= now:
                await self._look(key, schedule, now)
                await asyncio.sleep(0)  # there may be thousands
        for noted in (self._next, self._made):
            for key in noted.keys() - self._with_schedule:
                del noted[key]

    def overdue(self, now: datetime) -> int:
        """Return how many sessions with a valid login lack the backup of their schedule."""
        return sum(self._is_overdue(key, schedule, now) for key, schedule in self._scheduled())

    def _is_overdue(self, key: Key, schedule: str, now: datetime) -> bool:
        last = self._backups.last_completed(key)
        try:
            if not schedules.is_overdue(schedule, now, datetime.min.replace(tzinfo=UTC), last):
                return False
            session = self._fit(key)
            if session is None:
                return False
            return schedules.is_overdue(schedule, now, _created_at(session), last)
        except InvalidSchedule:
            return True

    def _scheduled(self) -> Iterator[tuple[Key, str]]:
        """Yield the sessions of this replica that have a schedule, with it."""
        own, classes = self._backups.own_schedules, self._cache.classes
        for key, backup in list(own.items()):
            if backup.get("schedule") and self._shards.holds(key):
                yield key, backup["schedule"]
        for session_class in list(classes.informer.objects.values()):
            schedule = _of_class(session_class).get("schedule")
            if schedule:
                for key in list(classes.all_sessions(session_class["metadata"]["name"])):
                    if not own.get(key, {}).get("schedule") and self._shards.holds(key):
                        yield key, schedule

    def _fit(self, key: Key) -> Manifest | None:
        """Return a session if it can be backed up: it has a valid login and is to run."""
        session = self._cache.sessions.get(key)
        if session is None or is_terminating(session):
            return None
        suspended = (session.get("spec") or {}).get("suspend")
        valid = (session.get("status") or {}).get("sessionValid")
        return session if valid and not suspended else None

    async def _look(self, key: Key, schedule: str, now: datetime) -> None:
        session, controller = self._fit(key), self._shards.controller_of(key)
        if session is None or controller is None or not self._cache.is_served(key[0]):
            return
        if self._backups.informer.rejection(key[0]) is not None or self._is_under_way(key):
            return
        backups = list(self._backups.of(key))
        try:
            at = schedules.due(schedule, now, _created_at(session), backups)
            following = schedules.following(schedule, now)
        except InvalidSchedule as error:
            self._report_invalid(controller.kube, session, schedule, error)
            self._next[key] = schedule, NEVER
            return
        try:
            await self._prune(controller, key, session)
            if at is not None and at != self._made.get(key):
                with contextlib.suppress(Conflict):  # it was created before
                    with controller.writing():
                        manifest = schedules.make_backup(key, at, self._method(key, session))
                        created = await controller.kube.create(BACKUPS, manifest)
                    self._backups.informer.upsert(created)
                self._made[key] = at
        except (Unavailable, Rejected, Conflict) as error:
            log.warning(
                "a scheduled backup was not created, or one too many not deleted; trying again",
                extra={"namespace": key[0], "session": key[1], "error": str(error)},
            )
            return
        if at is None:
            self._next[key] = schedule, following or NEVER

    def _is_under_way(self, key: Key) -> bool:
        """Return whether the latest backup that was created here is not finished yet."""
        at = self._made.get(key)
        if at is None:
            return False
        name = schedules.scheduled_name(key[1], at)
        if (key[0], name) not in self._backups.open:
            return False
        backup = self._backups.get(key[0], name)
        return backup is not None and not backup.is_terminating

    async def prune(self, controller: Controller, key: Key) -> None:
        """Delete the superfluous backups of a session. Raise what API requests raise."""
        session = self._cache.sessions.get(key)
        if session is not None and key in self._with_schedule:
            await self._prune(controller, key, session)

    async def _prune(self, controller: Controller, key: Key, session: Manifest) -> None:
        keep = self._keep(key, session)
        for backup in schedules.superfluous(list(self._backups.of(key)), keep):
            with controller.writing():
                await controller.kube.delete(
                    BACKUPS, *backup.key, backup.uid, version=backup.version
                )

    def _keep(self, key: Key, session: Manifest) -> int:
        return int(self._setting(key, session, "keep") or KEEP)

    def _method(self, key: Key, session: Manifest) -> BackupMethod:
        return BackupMethod(self._setting(key, session, "method") or BackupMethod.ARCHIVE)

    def _setting(self, key: Key, session: Manifest, field: str) -> Any:
        """Return a field of ``spec.backup``, or of the template of the session's class."""
        session_class = self._cache.classes.of(session)
        of_class = {} if session_class is None else _of_class({"spec": session_class.stored})
        return self._backups.own_schedules.get(key, {}).get(field) or of_class.get(field)

    def _report_invalid(
        self, kube: KubeClient, session: Manifest, schedule: str, error: InvalidSchedule
    ) -> None:
        """Report a schedule that the API server has accepted; once, until it is changed."""
        parsed, _ = parse_session(session)
        message = f"spec.backup.schedule: {schedule!r} is no schedule as for cron: {error}."
        extra = {"namespace": parsed.namespace, "session": parsed.name, "uid": parsed.uid}
        log.warning("session %s has an invalid schedule of backups", parsed.name, extra=extra)
        event = Event("Warning", INVALID_SCHEDULE, message)
        EventRecorder(kube).emit(parsed, [event], extra)


def _of_class(session_class: Manifest) -> Manifest:
    template = (session_class.get("spec") or {}).get("template") or {}
    backup: Manifest = template.get("backup") or {}
    return backup


def _created_at(session: Manifest) -> datetime:
    return datetime.fromisoformat(session["metadata"]["creationTimestamp"])
