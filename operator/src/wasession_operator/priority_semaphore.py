"""Limits how many sessions at a time do something expensive, the most urgent ones first."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from wasession_api.kube.manifests import Key


class PrioritySemaphore:
    """Holds ``limit`` permits and grants none before ``open()``.

    Calls ``enqueue`` with each key that receives a permit other than by its own request.
    """

    def __init__(self, limit: int, enqueue: Callable[[Key], None]) -> None:
        self._limit = limit
        self._enqueue = enqueue
        self._open = False
        self._holders: set[Key] = set()
        self._blockers: set[Key] = set()
        self._waiting: dict[Key, Any] = {}  # the urgency of each
        self._heap: list[tuple[Any, Key]] = []

    def open(self) -> None:
        """Begin to grant permits, and enqueue every key that holds or awaits one."""
        self._open = True
        self._grant()
        self.enqueue_all()

    @property
    def holders(self) -> frozenset[Key]:
        """Return the keys that hold a permit."""
        return frozenset(self._holders)

    def enqueue_all(self) -> None:
        """Enqueue the keys that hold or await a permit."""
        for key in [*self._holders, *self._waiting]:
            self._enqueue(key)

    def is_held(self, key: Key) -> bool:
        """Return whether a key holds a permit."""
        return key in self._holders

    @property
    def blockers(self) -> int:
        """Return how many keys have every grant wait."""
        return len(self._blockers)

    def block(self, key: Key) -> bool:
        """Grant nothing until the key is unblocked or released; return whether that is new."""
        if key in self._blockers:
            return False
        self._blockers.add(key)
        self._enqueue_others(key)
        return True

    def unblock(self, key: Key) -> None:
        """Grant again, unless other keys block that."""
        if key in self._blockers:
            self._blockers.discard(key)
            self._enqueue_others(key)
            self._grant()

    def _enqueue_others(self, key: Key) -> None:
        """Enqueue the keys that wait, and those that hold a permit but may not have used it yet."""
        for other in [*self._waiting, *self._holders]:
            if other != key:
                self._enqueue(other)

    def request(self, key: Key, urgency: Any = ()) -> bool:
        """Return whether a key holds a permit. If not, it waits; the smallest urgency is first."""
        if key not in self._holders and self._waiting.get(key) != urgency:
            self._waiting[key] = urgency
            heapq.heappush(self._heap, (urgency, key))
            self._grant(requesting=key)
        return key in self._holders

    def adopt(self, key: Key) -> None:
        """Give a permit to a key that has begun already, even beyond the limit."""
        self._waiting.pop(key, None)
        self._holders.add(key)

    def release(self, key: Key) -> None:
        """Take back a key's permit or its request for one."""
        self._waiting.pop(key, None)
        self.unblock(key)
        if key in self._holders:
            self._holders.discard(key)
            self._grant()

    @property
    def _has_room(self) -> bool:
        return len(self._holders) < self._limit

    def _grant(self, requesting: Key | None = None) -> None:
        """Grant what is free. The requesting caller learns the result from the return value.

        Enqueueing that key as well would have it request again and again.
        """
        while not self._blockers and self._open and self._heap and self._has_room:
            urgency, key = heapq.heappop(self._heap)
            if self._waiting.get(key) == urgency:
                del self._waiting[key]
                self._holders.add(key)
                if key != requesting:
                    self._enqueue(key)
