"""Lets a few sessions at a time do something that is hard on the cluster, the most urgent ones first."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

Key = tuple[str, str]


class Turns:
    """``limit`` turns. Nobody gets one before ``open``; who should look again whether it has one is told by ``call``."""

    def __init__(self, limit: int, call: Callable[[Key], None]) -> None:
        self._limit = limit
        self._call = call
        self._open = False
        self._holders: set[Key] = set()
        self._waiting: dict[Key, Any] = {}
        self._queue: list[tuple[Any, Key]] = []

    def open(self) -> None:
        self._open = True
        self._grant()
        for key in [*self._holders, *self._waiting]:
            self._call(key)

    @property
    def is_open(self) -> bool:
        return self._open

    def has(self, key: Key) -> bool:
        return key in self._holders

    def waits(self, key: Key) -> bool:
        return key in self._waiting

    def keeps_waiting(self, key: Key) -> bool:
        """Whether others wait for its turn to end."""
        return key in self._holders and bool(self._waiting)

    def ask(self, key: Key, urgency: Any = ()) -> bool:
        """Whether it is this one's turn. If not it waits; the smallest urgency comes first."""
        if key not in self._holders and self._waiting.get(key) != urgency:
            self._waiting[key] = urgency
            heapq.heappush(self._queue, (urgency, key))
            self._grant(asking=key)
        return key in self._holders

    def take(self, key: Key) -> None:
        """A turn for one that is at it already, whether there is room or not."""
        self._waiting.pop(key, None)
        self._holders.add(key)

    def leave(self, key: Key) -> None:
        """Gives the turn back, or waits for none any more."""
        self._waiting.pop(key, None)
        if key in self._holders:
            self._holders.discard(key)
            self._grant()

    def _grant(self, asking: Key | None = None) -> None:
        """Who is asking hears of its turn as the answer: called as well, it would ask again and again."""
        while self._open and self._queue and len(self._holders) < self._limit:
            urgency, key = heapq.heappop(self._queue)
            if self._waiting.get(key) == urgency:
                del self._waiting[key]
                self._holders.add(key)
                if key != asking:
                    self._call(key)
