"""The queue of sessions to reconcile."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable

from prometheus_client import Histogram
from wasession_api.kube.manifests import Key

from wasession_operator import metrics


class WorkQueue:
    """Holds each key at most once and never gives one key to two workers (cf. client-go).

    Keys come up in the order of the time at which they were added plus their patience: the seconds
    in which keys with less patience may overtake them. ``patience`` computes it for a key,
    ``duration`` observes how long each has waited.
    """

    def __init__(
        self,
        patience: Callable[[Key], float],
        duration: Histogram | None = metrics.WORKQUEUE_QUEUE_DURATION,
    ) -> None:
        self._patience = patience
        self._duration = duration
        self._heap: asyncio.PriorityQueue[tuple[float, int, Key]] = asyncio.PriorityQueue()
        self._sequence = itertools.count()  # first come, first served among equals
        self._added: dict[Key, float] = {}  # monotonic; since when a key has been waiting
        self._due: dict[Key, float] = {}  # monotonic; the present place of a key in the heap
        self._processing: dict[Key, float] = {}  # monotonic; since when

    def __contains__(self, key: Key) -> bool:
        """Return whether a key waits, be it for its own processing to end."""
        return key in self._added

    @property
    def longest(self) -> float:
        """Seconds for which a key has been waiting or has been processed; the longest of all."""
        since = [*self._added.values(), *self._processing.values()]
        return time.monotonic() - min(since) if since else 0.0

    def add(self, key: Key, patience: float | None = None) -> None:
        """Add a key or move it ahead; one that is being processed comes up again after that."""
        added = self._added.setdefault(key, time.monotonic())
        if key in self._processing:
            return
        due = added + (self._patience(key) if patience is None else patience)
        if due < self._due.get(key, math.inf):
            self._due[key] = due
            self._heap.put_nowait((due, next(self._sequence), key))

    async def get(self) -> Key:
        """Wait for the next key. Call ``done`` after processing it."""
        while True:
            due, _, key = await self._heap.get()
            if self._due.get(key) == due:
                break
            self._heap.task_done()  # moved ahead or discarded since
        now = time.monotonic()
        added = self._added.pop(key)
        if self._duration is not None:
            self._duration.observe(now - added)
        del self._due[key]
        self._processing[key] = now
        return key

    def done(self, key: Key) -> None:
        """End the processing of a key; it is queued again if it was added meanwhile."""
        del self._processing[key]
        if key in self._added:
            self.add(key)
        self._heap.task_done()

    def discard(self, key: Key) -> None:
        """Remove a key; processing that is under way goes on."""
        self._added.pop(key, None)
        self._due.pop(key, None)

    async def join(self) -> None:
        """Wait until nothing is queued or being processed."""
        await self._heap.join()
