"""The rollout of a class: which of its sessions may be updated now, and how far it is. Pure.

One replica decides for all sessions of a class. What counts is in the statuses of the class and of
the sessions, so that another one decides the same.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from wasession_api.base import rfc3339
from wasession_api.kube.manifests import Key
from wasession_api.v1alpha1 import (
    MAXIMUM_ACCEPTED,
    MaintenanceWindow,
    Revision,
    Rollout,
    RolloutHalt,
    RolloutPhase,
    RolloutStatus,
    UpdateStatus,
)

from wasession_operator.plan.rollout import RECOVERY_TIMEOUT

CANARY_PATIENCE = timedelta(minutes=10)  # to find one that is Ready, while others may become so
# By which the clocks of two replicas may differ. The canary's step compares no times.
CLOCK_SKEW = timedelta(minutes=1)
RESUME = "kubectl wasession rollout resume, or undo"


class Member(NamedTuple):
    """A session of the class, by its status."""

    key: Key
    revision: str | None = None  # that its pod is of; None: the stable one, as far as is known
    node: str | None = None
    takes_part: bool = True  # has a pod, which may be replaced
    valid: bool = False  # has a valid login
    well: bool = False  # and is Ready with it
    may_recover: bool = False  # is not Ready, but on its way
    since: datetime | None = None  # it has been Ready, or not
    update: UpdateStatus | None = None
    reason: str = ""  # what is wrong with it
    message: str = ""
    is_canary: bool = False  # the class prefers it as such

    @property
    def name(self) -> str:
        return "/".join(self.key)

    @property
    def is_updating(self) -> bool:
        return self.update is not None and not self.update.done and not self.update.own


class Decision(NamedTuple):
    """What the status of the rollout should be, and which sessions may be updated then."""

    status: RolloutStatus
    admitted: frozenset[Key] = frozenset()


class InvalidWindow(ValueError):
    """Not a schedule as for cron; the message says what is wrong with it."""


def decide(
    before: RolloutStatus | None,
    rollout: Rollout,
    target: Revision,
    members: Sequence[Member],
    admitted: Collection[Key],
    now: datetime,
    *,
    operator: str = "",
    limit: int = 1,
    resume: str | None = None,
) -> Decision:
    """Return the next step of a rollout.

    ``target`` is what the class says now, and ``admitted`` the sessions that were allowed to be
    updated to it so far. ``limit`` is that of sessions at a time, where the class has none.
    ``resume`` is the ID of the halt that a person has accepted.
    """
    now = now.astimezone(UTC).replace(microsecond=0)
    if before is None:
        return Decision(_first(target, members, operator, now))
    status = before
    if before.revision != target.name:
        status, admitted = _begin(before, target, members, now), ()
    elif before.phase is RolloutPhase.COMPLETE:
        return Decision(before)
    return _Step(status, rollout, target, members, admitted, now, limit, resume).decide()


def assign(
    rollout: RolloutStatus | None,
    target: str,
    current: str | None,
    *,
    keeps_pod: bool = False,
    is_admitted: bool = False,
    on_delete: bool = False,
    is_paused: bool = False,
) -> Revision:
    """Return the revision that a session's pod should be of; without a template, it is the target.

    ``current`` is the one that its pod is of, or was. A session that the rollout has not reached
    has the stable one, also if its pod has to be created again; a pod of a third one stays as it
    is. ``on_delete``: its pod is never replaced, so no rollout has to reach it; but it does not get
    ahead of one that is under way, or paused.
    """
    if current == target or is_admitted:
        return Revision(name=target)
    if rollout is None:  # the leader has not decided yet
        return Revision(name=current if keeps_pod and current is not None else target)
    if rollout.phase is RolloutPhase.COMPLETE and rollout.revision == target:
        return Revision(name=target)
    if on_delete and rollout.revision != target and not is_paused:
        return Revision(name=target)
    is_third = current != rollout.stable.name or rollout.stable.template is None
    if keeps_pod and current is not None and is_third:
        return Revision(name=current)
    if rollout.stable.name == target or rollout.stable.template is None:
        return Revision(name=target)
    return rollout.stable


def is_rollback(status: RolloutStatus) -> bool:
    """Return whether sessions go back to a revision that they have run before."""
    previous = None if status.previous is None else status.previous.name
    return status.revision in (status.stable.name, previous)


def _first(
    target: Revision, members: Sequence[Member], operator: str, now: datetime
) -> RolloutStatus:
    """Return the status of a class of which nothing is known: what it says now is stable.

    Unless its sessions know what they run, and some run something else: the class was created
    again, or another operator has served it. What most of these run is stable then.
    """
    status = RolloutStatus(
        operator=operator, revision=target.name, stable=target, phase=RolloutPhase.COMPLETE,
        since=now, started=now, step_started=now,
    )  # fmt: skip
    known = [m.revision for m in members if m.revision is not None]
    others = Counter(name for name in known if name != target.name)
    if not others or any(m.takes_part and m.revision is None for m in members):
        return status
    most = Revision(name=max(sorted(others), key=others.__getitem__))
    return _begin(status.model_copy(update={"stable": most}), target, (), now)


def _begin(
    before: RolloutStatus, target: Revision, members: Iterable[Member], now: datetime
) -> RolloutStatus:
    status = before.model_copy(
        update={
            "revision": target.name,
            "phase": RolloutPhase.CANARY,
            "step": 0,
            "since": now,
            "started": now,
            "step_started": now,
            "halted": None,
            "accepted": [],
        }
    )
    if is_rollback(status):  # what has gone wrong already must not keep the others from going back
        hurt = [m.name for m in members if m.update is not None and m.update.failed]
        return status.model_copy(update={"accepted": sorted(hurt)[:MAXIMUM_ACCEPTED]})
    return status


class _Step:
    """One decision. ``counted`` are the sessions that steps are of: those with a login."""

    def __init__(
        self,
        status: RolloutStatus,
        rollout: Rollout,
        target: Revision,
        members: Sequence[Member],
        admitted: Collection[Key],
        now: datetime,
        limit: int,
        resume: str | None,
    ) -> None:
        self.status = status
        self.rollout = rollout
        self.target = target
        self.now = now
        self.limit = rollout.max_concurrent or limit
        self.resume = resume
        self.is_rollback = is_rollback(status)
        self.updating = [m for m in members if m.is_updating and not _has_failed(m)]
        parts = [m for m in members if m.takes_part or (m.is_updating and self._is_new(m))]
        self.total = len(parts)
        self.updated = [m for m in parts if self._is_new(m)]
        self.outdated = [m for m in parts if not self._is_new(m)]
        self.counted = [m for m in parts if m.valid or m.well or (self._is_new(m) and _had(m))]
        self.pending = [m for m in self.outdated if m.key in admitted]
        # A session that an earlier revision has hurt can only be mended: it needs no turn.
        self.mended = [
            m for m in self.outdated if m.is_updating and _has_failed(m) and m.key not in admitted
        ]

    def decide(self) -> Decision:
        self._note_halt()
        if self.status.halted is not None:
            halt = self.status.halted
            message = f"{halt.session} is not well after its update: {halt.reason}. {RESUME}."
            return self._end(RolloutPhase.HALTED, message)
        if self.rollout.paused:
            return self._end(RolloutPhase.PAUSED, "spec.rollout.paused is true.")
        while not self._is_last and self._has_reached_goal():
            fresh = [m for m in self.updated if _had(m) and self._is_of_step(m)]
            if fresh and (soaking := self._soak(fresh)) is not None:
                return soaking
            self._advance()
        if not self.outdated and not self._in_flight:
            return self._complete()
        return self._admit()

    # --- halts ------------------------------------------------------------------------------------

    def _note_halt(self) -> None:
        hurt = [m for m in self.updated if self._is_hurt(m)]
        halted, accepted = self.status.halted, list(self.status.accepted)
        if halted is not None and self.resume == halted.id:
            accepted += sorted({halted.session, *(m.name for m in hurt)})
            self._set(halted=None, accepted=accepted[-MAXIMUM_ACCEPTED:])
        elif halted is None and hurt:
            first = min(hurt, key=lambda m: (m.since or self.now, m.key))
            self._set(halted=self._halt(first))

    def _is_hurt(self, member: Member) -> bool:
        """Return whether a session of the present step is not as well as it was."""
        update = member.update
        if update is None or self._is_accepted(member) or not self._is_of_step(member):
            return False
        since = member.since or self.now
        is_late = member.takes_part and not member.well and self.now - since >= RECOVERY_TIMEOUT
        return update.failed or (update.was_ready and is_late)

    def _halt(self, member: Member) -> RolloutHalt:
        at = "" if member.update is None else rfc3339(member.update.at)
        return RolloutHalt(
            id=_digest(self.target.name, member.name, at),
            session=member.name,
            reason=member.reason or "NotReady",
            message=member.message,
        )

    # --- steps ------------------------------------------------------------------------------------

    @property
    def _is_last(self) -> bool:
        """Return whether all sessions may be updated now."""
        return self.is_rollback or not self.counted or self.status.step >= len(self._steps)

    @property
    def _steps(self) -> list[int]:
        """Return how many sessions are to be updated after each step but the last."""
        base, canaries = len(self.counted), self.rollout.canary.sessions
        if canaries is None:
            canaries = max(1, sum(member.is_canary for member in self.counted))
        goals = [_sessions_of(step, base) for step in self.rollout.steps]
        return [min(canaries, base), *(goal for goal in goals if goal < base)]

    @property
    def _missing(self) -> int:
        """Return how many sessions the present step still lacks.

        A canary is one that was updated: what a pod says of its revision does not suffice, and what
        an owner has changed at the same time shows nothing.
        """
        counted, is_first = {m.key for m in self.counted}, self.status.step == 0
        updated = [m for m in self.updated if self._was_updated(m) or not is_first]
        done = sum(m.key in counted for m in (*updated, *self.pending))
        return self._steps[self.status.step] - done

    @property
    def _in_flight(self) -> list[Member]:
        return [*(m for m in self.updating if self._is_new(m)), *self.pending]

    def _has_reached_goal(self) -> bool:
        return self._missing <= 0 and not self._in_flight and not self.mended

    def _soak(self, fresh: Sequence[Member]) -> Decision | None:
        """Wait until the sessions of a step have been well for long enough; None if they have.

        The canary must not have been away in between; of many sessions, some always are for a
        moment.
        """
        since = self.now
        if self.status.phase is RolloutPhase.SOAKING:
            since = self.status.since
        if self.status.step == 0:
            since = max((m.since or self.now for m in fresh if m.well), default=since)
        away = [m for m in fresh if _was_ready(m) and not m.well and not self._is_accepted(m)]
        ends = min(since, self.now) + self.rollout.soak  # clocks differ, and people edit times
        if away:
            message = f"{away[0].name} is not Ready at the moment."
            return self._end(RolloutPhase.SOAKING, message)
        if ends > self.now:
            message = f"The updated sessions have to stay well until {rfc3339(ends)}."
            return self._end(RolloutPhase.SOAKING, message)
        return None

    def _advance(self) -> None:
        self._set(step=self.status.step + 1, step_started=self.now)
        self._enter(RolloutPhase.PROGRESSING, renewed=True)

    def _complete(self) -> Decision:
        stable = self.status.stable
        if stable.name != self.target.name:  # what has been undone is nothing to go back to
            self._set(stable=self.target, previous=None if self.is_rollback else stable)
        self._set(halted=None, accepted=[])
        return self._end(RolloutPhase.COMPLETE, "")

    # --- admission --------------------------------------------------------------------------------

    def _admit(self) -> Decision:
        if self.is_rollback:
            phase = RolloutPhase.ROLLING_BACK
        elif self.status.step == 0 and not self._is_last:
            phase = RolloutPhase.CANARY
        else:
            phase = RolloutPhase.PROGRESSING
        if (closed := self._is_closed()) is not None:
            self.pending = []  # they wait for the next window, like those that were not chosen
            if not self._in_flight:
                return self._end(RolloutPhase.WAITING_FOR_WINDOW, closed, self.mended)
        new = [] if closed is not None else self._choose()
        allowed = [*self.pending, *self.mended, *new]
        return self._end(phase, self._describe(new, closed), allowed)

    def _is_closed(self) -> str | None:
        """Return why no session may be updated at this time; going back is always possible."""
        window = self.rollout.maintenance_window
        if window is None or self.is_rollback:
            return None
        try:
            opens = next_opening(window, self.now)
        except InvalidWindow as error:
            return f"spec.rollout.maintenanceWindow.schedule: {error}."
        if opens is None:
            return None
        return f"The maintenance window opens at {rfc3339(opens)}."

    def _choose(self) -> list[Member]:
        """Return the sessions that may be updated from now on."""
        waiting = {m.key for m in (*self.pending, *self.mended)}
        candidates = [m for m in self.outdated if m.key not in waiting]
        busy = {m.key: m for m in (*self.updating, *self.pending)}
        room = self.limit - len(busy)
        if not self._is_last:
            counted = {m.key for m in self.counted}
            candidates = [m for m in candidates if m.key in counted]
            room = min(room, self._missing)
        if self.status.step == 0 and not self._is_last:
            candidates = self._fit_as_canary(candidates)
        most = self.rollout.max_concurrent_per_node
        on_node = Counter(m.node for m in busy.values())
        chosen: list[Member] = []
        for member in sorted(candidates, key=self._order):
            if len(chosen) >= room:
                break
            if most is None or member.node is None or on_node[member.node] < most:
                on_node[member.node] += 1
                chosen.append(member)
        return chosen

    def _fit_as_canary(self, candidates: list[Member]) -> list[Member]:
        """Prefer sessions that are well: others do not show what the revision does."""
        if well := [m for m in candidates if m.well]:
            return well
        may_recover = any(m.may_recover for m in self.counted)
        if may_recover and self.now - self.status.started < CANARY_PATIENCE:
            return []
        return candidates

    def _order(self, member: Member) -> tuple[bool, bool, bool, str]:
        """Sort the sessions that tell most first; equal ones are taken from everywhere."""
        preferred = self.status.step == 0 and member.is_canary
        return (
            not preferred,
            not member.well,
            not member.valid,
            _digest(self.target.name, member.name),
        )

    def _describe(self, new: Sequence[Member], closed: str | None) -> str:
        waiting = [*self._in_flight, *new]
        if not waiting:
            return closed or "No session is Ready that could be the canary."
        first = waiting[0]
        about = f" ({first.reason}: {first.message})" if first.reason else ""
        more = f" and {len(waiting) - 1} more" if len(waiting) > 1 else ""
        return f"The update of {first.name}{about}{more} is under way."

    # --- status -----------------------------------------------------------------------------------

    def _is_new(self, member: Member) -> bool:
        return (member.revision or self.status.stable.name) == self.target.name

    def _is_of_step(self, member: Member) -> bool:
        if member.update is None or not self._was_updated(member):
            return False
        if self.status.step == 0 and not self.is_rollback:
            return True  # also if the class has said the same before
        return self.status.step_started - member.update.at <= CLOCK_SKEW

    def _was_updated(self, member: Member) -> bool:
        """Return whether a session was updated to the revision, and not for its owner's sake."""
        update = member.update
        return update is not None and not update.own and update.revision == self.target.name

    def _is_accepted(self, member: Member) -> bool:
        return member.name in self.status.accepted

    def _set(self, **changes: object) -> None:
        self.status = self.status.model_copy(update=changes)

    def _enter(self, phase: RolloutPhase, *, renewed: bool = False) -> None:
        if renewed or phase is not self.status.phase:
            self._set(phase=phase, since=self.now)

    def _end(self, phase: RolloutPhase, message: str, admitted: Iterable[Member] = ()) -> Decision:
        self._enter(phase)
        ready = sum(m.well for m in self.updated)
        self._set(message=message[:1024], total=self.total, updated=len(self.updated), ready=ready)
        return Decision(self.status, frozenset(m.key for m in admitted))


def _sessions_of(step: int | str, base: int) -> int:
    """Return how many of ``base`` sessions a step is for: a number, or a percentage."""
    if isinstance(step, int):
        return step
    return math.ceil(base * int(step.removesuffix("%")) / 100)


def _has_failed(member: Member) -> bool:
    return member.update is not None and member.update.failed


def _was_ready(member: Member) -> bool:
    return member.update is not None and member.update.was_ready


def _had(member: Member) -> bool:
    """Return whether a session had a login before its update."""
    update = member.update
    return update is not None and (update.was_ready or update.was_valid)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def next_opening(window: MaintenanceWindow, now: datetime) -> datetime | None:
    """Return when a window opens; None while it is open. Raise ``InvalidWindow``."""
    try:
        since = (now - window.duration).astimezone(ZoneInfo(window.time_zone))
        for local in CronSim(window.schedule, since):
            opens = local.astimezone(UTC)
            if now < opens + window.duration:  # in autumn, an hour of local time comes twice
                return None if opens <= now else opens
    except (CronSimError, ZoneInfoNotFoundError) as error:
        raise InvalidWindow(str(error)) from None
    raise InvalidWindow("there is no such time")
