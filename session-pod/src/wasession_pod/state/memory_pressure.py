"""The memory that the session may use, and what is done before it runs out: read here, decided here, done by the session loop.

A kill for lack of memory is a SIGKILL, which may come while the login is being written. A fresh
page gives back most of what a page has gathered in weeks, another browser the rest.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")  # a container sees its own group there
HIGH, VERY_HIGH = 0.8, 0.9  # of the limit
RECYCLE_EVERY = timedelta(minutes=10)
RESTART_EVERY = timedelta(hours=1)
SETTLED = timedelta(minutes=1)  # after which a fresh page shows what it needs
UNLIMITED = 2**60  # cgroup v1 says "no limit" with a number near 2**63


@dataclass(frozen=True)
class Memory:
    """Bytes. ``used`` is what counts against the limit and can't be given back at once, as kubelet reckons."""

    used: int
    limit: int

    @property
    def share(self) -> float:
        return self.used / self.limit


class Relief(Enum):
    RECYCLE = auto()
    RESTART = auto()


def relief(
    memory: Memory, recycled_at: datetime | None, restarted_at: datetime | None, now: datetime
) -> Relief | None:
    """What should be done now; ``recycled_at`` and ``restarted_at`` say when it was done the last time for this."""
    if memory.share < HIGH:
        return None
    if recycled_at is None or now - recycled_at >= RECYCLE_EVERY:
        return Relief.RECYCLE
    may_restart = restarted_at is None or now - restarted_at >= RESTART_EVERY
    return Relief.RESTART if now - recycled_at >= SETTLED and may_restart else None


def low(memory: Memory, recycled_at: datetime | None, now: datetime) -> bool:
    """Whether the limit is too small: nearly reached, or still near after a fresh page."""
    helpless = recycled_at is not None and SETTLED <= now - recycled_at < RECYCLE_EVERY
    return memory.share >= VERY_HIGH or (memory.share >= HIGH and helpless)


def of_container(cgroup: Path = CGROUP) -> Memory | None:
    """What the container uses and may use; None when it has no limit."""
    version_2 = (
        cgroup / "memory.max",
        cgroup / "memory.current",
        cgroup / "memory.stat",
        "inactive_file",
    )
    old = cgroup / "memory"
    version_1 = (
        old / "memory.limit_in_bytes",
        old / "memory.usage_in_bytes",
        old / "memory.stat",
        "total_inactive_file",
    )
    for limit_file, usage_file, stat_file, inactive in (version_2, version_1):
        with contextlib.suppress(OSError, ValueError):
            limit = int(limit_file.read_text())  # "max" is no number: no limit
            if limit < UNLIMITED:
                given_back = _counter(stat_file, inactive)
                return Memory(max(int(usage_file.read_text()) - given_back, 0), limit)
    return None


def kills(cgroup: Path = CGROUP) -> int:
    """How many of the container's processes the kernel has killed for lack of memory."""
    return max(
        _counter(cgroup / path, "oom_kill")
        for path in ("memory.events", "memory/memory.oom_control")
    )


def _counter(file: Path, name: str) -> int:
    """A number of a file with a name and a number in each line; 0 when there is none."""
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0
