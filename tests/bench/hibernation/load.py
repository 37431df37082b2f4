"""How many texts to how many sessions: pure."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

from wasession_api.v1alpha1.spec import SHORTEST_IDLE

AFTER_IDLE = SHORTEST_IDLE.total_seconds()  # as in values.yaml
# From a text to its session's sleep, without a pod: waking and stopping take some seconds as well.
TIME_AWAKE = AFTER_IDLE + timedelta(seconds=15).total_seconds()
SHARE_AWAKE = 0.1
SHARE_CHECKED = 0.1
LEAST_AWAKE_WHILE_LINKING = 10


@dataclass(frozen=True)
class Load:
    """``awake`` of the ``sessions`` are kept awake by texts for ``minutes``, after a ramp."""

    sessions: int
    awake: int
    minutes: float

    @property
    def interval(self) -> float:
        """Seconds between two texts: each keeps one session awake for ``TIME_AWAKE``."""
        return TIME_AWAKE / self.awake

    @property
    def ramp(self) -> float:
        """Seconds until the session of the first text is asleep again, and the number is steady."""
        return TIME_AWAKE

    @property
    def seconds(self) -> float:
        return self.ramp + 60 * self.minutes

    @property
    def most_while_linking(self) -> int:
        """How many may be awake while sessions are linked: each waits until it may sleep."""
        return max(3 * self.awake, LEAST_AWAKE_WHILE_LINKING)

    @property
    def checked(self) -> int:
        """How many sessions are woken once more at the end."""
        return max(1, round(self.sessions * SHARE_CHECKED))


def default_awake(sessions: int) -> int:
    return max(1, round(sessions * SHARE_AWAKE))


def choose(asleep: Sequence[str], busy: Collection[str], chance: random.Random) -> str | None:
    """Return a session that sleeps and gets no text already; None if there is none."""
    free = [name for name in asleep if name not in busy]
    return chance.choice(free) if free else None


def choose_checked(
    asleep: Sequence[str], woken: Collection[str], count: int, chance: random.Random
) -> list[str]:
    """Return sessions that sleep, of which those that have slept all the time come first."""
    slept_on = [name for name in asleep if name not in woken]
    others = [name for name in asleep if name in woken]
    found = chance.sample(slept_on, min(count, len(slept_on)))
    return found + chance.sample(others, min(count - len(found), len(others)))


def names(sessions: int) -> list[str]:
    return [f"s-{number:04}" for number in range(1, sessions + 1)]


def account(name: str) -> str:
    """Return the phone number of a session's account."""
    return f"1555{int(name.removeprefix('s-')):07}"


def logged_out(linked: dict[str, str], devices: Collection[str]) -> list[str]:
    """Return the sessions whose device, as it was linked, is not among the phones' any more."""
    return sorted(name for name, device in linked.items() if device not in devices)
