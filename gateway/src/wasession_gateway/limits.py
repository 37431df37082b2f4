"""Rate limits in the memory of one replica: with N replicas a caller gets up to N times as much."""

from __future__ import annotations

MAXIMUM_KEYS = 100_000


class Limiter:
    """GCRA, the leaky bucket as a clock: one number per key. ``rate`` is per second, ``burst`` may come at once."""

    def __init__(self, rate: float, burst: int) -> None:
        self._interval = 1 / rate
        self._tolerance = self._interval * (burst - 1)
        self._due: dict[str, float] = {}  # when the key's bucket is empty again

    def take(self, key: str, now: float) -> float:
        """Counts a request; 0 when it may pass, else the seconds to wait, and then it is not counted."""
        due = max(self._due.get(key, now), now)
        wait = due - self._tolerance - now
        if wait > 0:
            return wait
        if key not in self._due and len(self._due) >= MAXIMUM_KEYS:
            self._forget(now)
        self._due[key] = due + self._interval
        return 0

    def _forget(self, now: float) -> None:
        """Keeps memory bounded: full buckets say nothing, and after them those go that are nearest to it."""
        self._due = {key: due for key, due in self._due.items() if due > now}
        for key in sorted(self._due, key=self._due.__getitem__)[
            : len(self._due) - MAXIMUM_KEYS // 2
        ]:
            del self._due[key]
