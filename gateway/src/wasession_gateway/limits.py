"""Rate limits in the memory of one replica: with N replicas a caller gets up to N times as much."""

from __future__ import annotations

import math
import time

from wasession_api.http.problem import HTTPProblem

from wasession_gateway import metrics

MAXIMUM_KEYS = 100_000


class Limiter:
    """GCRA, the leaky bucket as a clock: one number for each key.

    ``rate`` is per second; ``burst`` requests may come at once. ``by`` is the metric's label.
    """

    def __init__(self, by: str, rate: float, burst: int) -> None:
        self._by = by
        self._interval = 1 / rate
        self._tolerance = self._interval * (burst - 1)
        self._due: dict[str, float] = {}  # when the key's bucket is empty again

    def check(self, key: str) -> None:
        """Count a request; raise ``HTTPProblem`` instead when it is over the limit."""
        wait = self.take(key, time.monotonic())
        if wait:
            metrics.RATE_LIMITED.labels(self._by).inc()
            raise too_many("Too many requests", "you have sent too many requests", wait)

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


def too_many(title: str, detail: str, wait: float) -> HTTPProblem:
    """Return a 429 that says after how many seconds to try again."""
    seconds = math.ceil(wait)
    return HTTPProblem(
        429, title, f"{detail}: try again in {seconds} s", {"Retry-After": str(seconds)}
    )
