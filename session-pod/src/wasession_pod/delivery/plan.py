"""What to deliver to a webhook or sink next, and what follows from the outcome: pure.

The events of a chat are delivered one after the other, those of different chats side by side. An
event that fails holds up its own chat alone, until it is delivered or dead; a receiver that is away
altogether is tried with one event at a time. Times are in seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import NamedTuple

FIRST_DELAY, LONGEST_DELAY = 1.0, 300.0  # seconds between two attempts of an event
LONGEST_WISH = 3600.0  # seconds of Retry-After that are heeded
REJECTIONS = 5  # of an event by the receiver, until it is dead
AWAY_AFTER = 3  # failures in a row, of whatever events, until the receiver counts as away


class Outcome(Enum):
    """How an attempt has ended."""

    DELIVERED = auto()  # 2xx, or stored by the broker
    REJECTED = auto()  # the receiver does not accept this event, as it says: 400, 413, 415 or 422
    FAILED = auto()  # anything else: no connection, no answer in time, 3xx, other 4xx, 5xx
    THROTTLED = auto()  # 429, or 503 with Retry-After
    GONE = auto()  # 410: the receiver wants no more


class Queued(NamedTuple):
    """An event of the outbox that the webhook or sink wants."""

    number: int
    chat: str  # "" for events without one, which are in order among themselves


@dataclass(frozen=True)
class Trouble:
    """The first event of a chat that is not delivered yet has failed."""

    number: int
    attempts: int
    rejections: int
    since: float
    retry_at: float
    error: str


@dataclass(frozen=True)
class Progress:
    """How far a delivery has come.

    All events up to ``reached`` but those in ``open`` are settled: delivered, dead, or not wanted.
    """

    reached: int
    open: frozenset[int] = frozenset()
    troubles: Mapping[str, Trouble] = field(default_factory=dict)  # by chat
    in_flight: Mapping[str, int] = field(default_factory=dict)  # by chat: the event's number
    failures: int = 0  # in a row, of whatever events
    quiet_until: float = 0.0  # nothing is tried before
    gone: bool = False  # until its configuration changes

    @property
    def settled_to(self) -> int:
        """The number up to which all events are settled."""
        return min(self.open, default=self.reached + 1) - 1

    def is_settled(self, number: int) -> bool:
        return number <= self.reached and number not in self.open

    @property
    def is_away(self) -> bool:
        """Whether the receiver seems to be away, so that one event at a time is enough."""
        return self.failures >= AWAY_AFTER


class Next(NamedTuple):
    """What to deliver now, and when to look again if nothing happens before."""

    events: list[Queued]
    wake_at: float | None


def choose(progress: Progress, queue: Iterable[Queued], now: float, most: int) -> Next:
    """Return the events to deliver now, at most ``most`` at the same time; ``queue`` is by number.

    Nothing overtakes an earlier event of its chat.
    """
    if progress.gone:
        return Next([], None)
    if _waits(progress.quiet_until, now, LONGEST_WISH):
        return Next([], progress.quiet_until)
    free = (1 if progress.is_away else most) - len(progress.in_flight)
    chosen, wake_at, passed = list[Queued](), float("inf"), set(progress.in_flight)
    for event in queue:
        if len(chosen) >= free:
            return Next(chosen, None)  # until one of them has ended
        if event.chat in passed or progress.is_settled(event.number):
            continue
        passed.add(event.chat)
        trouble = progress.troubles.get(event.chat)
        troubled = trouble is not None and trouble.number == event.number
        if trouble and troubled and _waits(trouble.retry_at, now, LONGEST_DELAY):
            wake_at = min(wake_at, trouble.retry_at)
        else:
            chosen.append(event)
    return Next(chosen, None if wake_at == float("inf") else wake_at)


def _waits(until: float, now: float, longest: float) -> bool:
    """Return whether a time is still to come; one beyond the longest wait is of another clock."""
    return now < until <= now + 2 * longest


def begin(progress: Progress, events: Iterable[Queued]) -> Progress:
    """Note that events are on their way."""
    sent = {event.chat: event.number for event in events}
    return replace(progress, in_flight={**progress.in_flight, **sent})


class Ended(NamedTuple):
    """What an attempt has changed; ``is_dead`` if the event is given up."""

    progress: Progress
    is_dead: bool


def end(
    progress: Progress,
    event: Queued,
    outcome: Outcome,
    now: float,
    *,
    longest_try: float,
    jitter: float = 1.0,
    wish: float = 0.0,
    error: str = "",
) -> Ended:
    """Note how an attempt has ended.

    ``longest_try``: seconds from the first failure of an event until it is given up. ``wish``: the
    receiver's Retry-After in seconds. ``jitter`` is a factor of each delay.
    """
    flying = {chat: number for chat, number in progress.in_flight.items() if chat != event.chat}
    progress = replace(progress, in_flight=flying)
    if outcome is Outcome.DELIVERED:
        return Ended(_back(_settle(progress, event), now), False)
    if outcome is Outcome.GONE:
        return Ended(replace(progress, gone=True), False)
    earlier = progress.troubles.get(event.chat)
    if earlier is None or earlier.number != event.number:
        earlier = Trouble(event.number, 0, 0, now, now, "")
    trouble = replace(
        earlier,
        attempts=earlier.attempts + 1,
        rejections=earlier.rejections + (outcome is Outcome.REJECTED),
        retry_at=now + delay(earlier.attempts) * jitter,
        error=error,
    )
    if outcome is Outcome.REJECTED:  # by a receiver that is there
        progress = replace(progress, failures=0)
    else:
        progress = _hold(progress, outcome, now, min(wish, LONGEST_WISH), jitter)
    if trouble.rejections >= REJECTIONS or now - trouble.since >= longest_try:
        return Ended(_settle(progress, event), True)
    return Ended(replace(progress, troubles={**progress.troubles, event.chat: trouble}), False)


def delay(attempts: int) -> float:
    """Return the seconds until the next attempt, after so many before this one."""
    return min(FIRST_DELAY * 2.0 ** min(attempts, 16), LONGEST_DELAY)


def skip(progress: Progress, numbers: Iterable[int]) -> Progress:
    """Settle events that are not wanted, or that the outbox no longer has."""
    settled = frozenset(numbers)
    reached = max([progress.reached, *settled])
    unsettled = progress.open.union(range(progress.reached + 1, reached + 1)) - settled
    return replace(progress, reached=reached, open=unsettled)


def reopen(progress: Progress, numbers: Iterable[int]) -> Progress:
    """Deliver events again that were settled."""
    again = (number for number in numbers if progress.is_settled(number))
    return replace(progress, open=progress.open.union(again))


def rewind(progress: Progress, number: int) -> Progress:
    """Deliver everything after a number again; what waits before it still does."""
    waiting = {one for one in progress.open if one <= number}
    waiting.update(range(progress.reached + 1, number + 1))
    return replace(progress, reached=number, open=frozenset(waiting))


def _hold(progress: Progress, outcome: Outcome, now: float, wish: float, jitter: float) -> Progress:
    """Leave the receiver alone for a while if it says so or seems to be away.

    Attempts that were under way when that began say nothing new: many can fail at the same moment.
    """
    is_new = not _waits(progress.quiet_until, now, LONGEST_WISH)
    failures = progress.failures + is_new
    pause = wish if outcome is Outcome.THROTTLED else 0.0
    if is_new and failures >= AWAY_AFTER:
        pause = max(pause, delay(failures - AWAY_AFTER) * jitter)
    until = max(progress.quiet_until, now + pause) if pause else progress.quiet_until
    return replace(progress, failures=failures, quiet_until=until)


def _back(progress: Progress, now: float) -> Progress:
    """Note that the receiver answers. If it was away, nothing waits any longer."""
    troubles = progress.troubles
    if progress.is_away:
        troubles = {chat: replace(one, retry_at=now) for chat, one in troubles.items()}
    return replace(progress, troubles=troubles, failures=0, quiet_until=0.0)


def _settle(progress: Progress, event: Queued) -> Progress:
    troubles = {chat: one for chat, one in progress.troubles.items() if chat != event.chat}
    return skip(replace(progress, troubles=troubles), [event.number])
