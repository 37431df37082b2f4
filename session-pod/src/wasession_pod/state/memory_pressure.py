"""Decide what to do before the session runs out of memory.

The kernel's OOM killer sends SIGKILL, which may hit while Chromium writes the login. A fresh page
releases most of what a page accumulates over weeks; a browser restart releases the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

HIGH, CRITICAL = 0.8, 0.9  # fractions of the limit
RECYCLE_INTERVAL = timedelta(minutes=10)
RESTART_INTERVAL = timedelta(hours=1)
SETTLE_TIME = timedelta(minutes=1)  # until a fresh page's memory use is representative


@dataclass(frozen=True)
class Memory:
    """Working set and limit in bytes. Like kubelet, the working set omits inactive file pages."""

    used: int
    limit: int

    @property
    def usage(self) -> float:
        """The working set as a fraction of the limit."""
        return self.used / self.limit


class Relief(Enum):
    """How to release memory."""

    RECYCLE_PAGE = auto()
    RESTART_BROWSER = auto()


def needed_relief(
    memory: Memory, recycled_at: datetime | None, restarted_at: datetime | None, now: datetime
) -> Relief | None:
    """Return what to do now; ``recycled_at`` and ``restarted_at`` are the last such actions."""
    if memory.usage < HIGH:
        return None
    if recycled_at is None or now - recycled_at >= RECYCLE_INTERVAL:
        return Relief.RECYCLE_PAGE
    may_restart = restarted_at is None or now - restarted_at >= RESTART_INTERVAL
    return Relief.RESTART_BROWSER if now - recycled_at >= SETTLE_TIME and may_restart else None


def limit_too_low(memory: Memory, recycled_at: datetime | None, now: datetime) -> bool:
    """Return whether usage is critical, or still high although the page was recycled."""
    if memory.usage >= CRITICAL:
        return True
    recycling_failed = (
        recycled_at is not None and SETTLE_TIME <= now - recycled_at < RECYCLE_INTERVAL
    )
    return memory.usage >= HIGH and recycling_failed
