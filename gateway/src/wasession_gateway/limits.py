"""Rate limits in the memory of one replica: with N replicas a caller gets up to N times as much."""

from __future__ import annotations

MAXIMUM_KEYS = 100_000


class Limiter:
    """GCRA, the leaky bucket as a clock: one number for each key.

    ``rate`` is per second; ``burst`` requests may come at once.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._interval = 1 / rate
        self._tolerance = self._interval * (burst - 1)
        self._due: dict[str, float] = {}  # when the key's bucket is empty again

    def take(self, key: str, now: float) -> float:
        """Count a request and return 0, or return the seconds to wait without counting it."""
        due = max(self._due.get(key, now), now)
        wait = due - self._tolerance - now
        if wait > 0:
            return wait
        if key not in self._due and len(self._due) >= MAXIMUM_KEYS:
            self._evict(now)
        self._due[key] = due + self._interval
        return 0

    def _evict(self, now: float) -> None:
        """Drop the empty buckets, and the emptiest of the others when more than half remain."""
        self._due = {key: due for key, due in self._due.items() if due > now}
        excess = len(self._due) - MAXIMUM_KEYS // 2
        for key in sorted(self._due, key=self._due.__getitem__)[: max(excess, 0)]:
            del self._due[key]
