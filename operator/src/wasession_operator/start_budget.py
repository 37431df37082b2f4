"""Limits how many sessions start at a time on each node and in each zone, most urgent first.

A start costs its node CPU, disk and the pull of an image, and its zone what nodes share, such as
volume attachments. A session that waits for its node holds up none that starts on another.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from wasession_api.kube.manifests import Key

NO_NODE = ""  # of a start whose node is not known yet


class StartLimits(NamedTuple):
    """How many sessions may start at a time."""

    per_node: int
    per_zone: int


def share(limits: StartLimits, shard: int, shards: int) -> StartLimits:
    """Return a shard's part of the limits: all parts add up to them, but none is less than 1."""
    return StartLimits(*(max(1, (limit + shards - 1 - shard) // shards) for limit in limits))


class _Start(NamedTuple):
    """A start that waits; the smallest is first. Numbers are unique and in order of arrival."""

    urgency: Any
    number: int
    key: Key
    node: str


class _Zone:
    """A zone with at least one node. ``free`` is what its nodes have left of their own budgets."""

    __slots__ = ("free", "nodes", "queue", "used")

    def __init__(self) -> None:
        self.nodes = self.used = self.free = 0
        self.queue: list[_Start] = []


class StartBudget:
    """Grants permits to start, and none before ``open()``.

    Calls ``enqueue`` with each key that receives a permit other than by its own request. A permit
    counts towards its node and that node's zone. One whose node is not known, or takes no pods now,
    counts towards the cluster: its pod may come to any node, so there are never more of these than
    the nodes have left. Without nodes, the cluster has the budget of one zone.

    Waiting starts are in one queue per expected node. The first of each is also in the queue of its
    zone, or of the cluster while the node takes no pods. An entry that does not count any more, or
    whose node has nothing left, is dropped when it comes up; when that changes, the node's first is
    added again.
    """

    def __init__(self, limits: StartLimits, enqueue: Callable[[Key], None]) -> None:
        self._limits = limits
        self._enqueue = enqueue
        self._open = False
        self._numbers = itertools.count()
        self._nodes: dict[str, str] = {}  # the zone of each node that takes pods
        self._zones: dict[str, _Zone] = {}
        self._held: dict[Key, str] = {}  # the node of each
        self._used: Counter[str] = Counter()  # permits by node
        self._unplaced = 0  # permits of no node that takes pods
        self._waiting: dict[Key, _Start] = {}
        self._node_queues: dict[str, list[_Start]] = {}
        self._cluster_queue: list[_Start] = []

    def open(self) -> None:
        """Begin to grant permits, and enqueue every key that holds or awaits one."""
        self._open = True
        self._grant()
        for key in [*self._held, *self._waiting]:
            self._enqueue(key)

    @property
    def is_open(self) -> bool:
        return self._open

    @property
    def under_way(self) -> int:
        """Return how many permits are held."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """Return how many keys await a permit."""
        return len(self._waiting)

    def is_held(self, key: Key) -> bool:
        """Return whether a key holds a permit."""
        return key in self._held

    def is_waiting(self, key: Key) -> bool:
        """Return whether a key awaits a permit."""
        return key in self._waiting

    def is_contended(self, key: Key) -> bool:
        """Return whether a key holds a permit while others await one."""
        return key in self._held and bool(self._waiting)

    def bottleneck(self, key: Key) -> str:
        """Return whose budget a waiting key awaits: ``node x``, ``zone y`` or ``the cluster``.

        The zone of nodes without one is called the cluster, as is any answer for other keys.
        """
        queued = self._waiting.get(key)
        node = NO_NODE if queued is None else queued.node
        zone = self._nodes.get(node)
        if zone is not None and self._used[node] >= self._limits.per_node:
            return f"node {node}"
        if zone and self._zones[zone].used >= self._limits.per_zone:
            return f"zone {zone}"
        return "the cluster"

    def set_node(self, name: str, zone: str | None) -> None:
        """Note the zone of a node that takes pods; None for one that does not, or is gone."""
        before, used = self._nodes.get(name), self._used[name]
        if zone == before:
            return
        self._count(name, -used)
        if before is not None:
            del self._nodes[name]
            self._zones[before].nodes -= 1
            self._zones[before].free -= self._limits.per_node
            if not self._zones[before].nodes:
                del self._zones[before]
        if zone is not None:
            self._nodes[name] = zone
            entered = self._zones.setdefault(zone, _Zone())
            entered.nodes += 1
            entered.free += self._limits.per_node
        self._count(name, used)
        self._offer(name)
        self._grant()

    def request(self, key: Key, urgency: Any = (), node: str | None = None) -> bool:
        """Return whether a key holds a permit. If not, it waits for one.

        The smallest urgency is first, and among equals whoever has waited longest. ``node`` is
        where the pod is expected to run.
        """
        if key in self._held:
            return True
        queued = self._waiting.get(key)
        number = next(self._numbers) if queued is None else queued.number
        start = _Start(urgency, number, key, node or NO_NODE)
        if start != queued:
            self._waiting[key] = start
            heapq.heappush(self._node_queues.setdefault(start.node, []), start)
            self._offer(start.node)
            if queued is not None and queued.node != start.node:
                self._offer(queued.node)
            self._grant(requesting=key)
        return key in self._held

    def adopt(self, key: Key, node: str | None = None) -> None:
        """Give a permit to a key that has begun already, even beyond the limits; or move it.

        ``node`` is where its pod runs, or is expected to.
        """
        place = node or NO_NODE
        if self._held.get(key) == place:
            return
        self._withdraw(key)
        self._hold(key, place)
        self._grant()

    def release(self, key: Key) -> None:
        """Take back a key's permit or its request for one."""
        self._withdraw(key)
        self._grant()

    # --- accounting -------------------------------------------------------------------------------

    def _withdraw(self, key: Key) -> None:
        queued, node = self._waiting.pop(key, None), self._held.pop(key, None)
        if queued is not None:
            self._offer(queued.node)
        if node is not None:
            self._count(node, -1)
            self._offer(node)

    def _hold(self, key: Key, node: str) -> None:
        self._held[key] = node
        self._count(node, 1)

    def _count(self, node: str, number: int) -> None:
        """Count this many more permits of a node."""
        before = self._used[node]
        after = self._used[node] = before + number
        if not after:
            del self._used[node]
        if node not in self._nodes:
            self._unplaced += number
            return
        zone, limit = self._zones[self._nodes[node]], self._limits.per_node
        zone.used += number
        zone.free += max(limit - after, 0) - max(limit - before, 0)

    # --- queues -----------------------------------------------------------------------------------

    def _queue_of(self, node: str) -> list[_Start]:
        """Return the queue that the node's first is in."""
        return self._zones[self._nodes[node]].queue if node in self._nodes else self._cluster_queue

    def _offer(self, node: str) -> None:
        """Add the node's first to the queue of its zone, or of the cluster."""
        queue = self._node_queues.get(node, [])
        while queue and self._waiting.get(queue[0].key) != queue[0]:
            heapq.heappop(queue)
        if queue:
            heapq.heappush(self._queue_of(node), queue[0])
        else:
            self._node_queues.pop(node, None)

    def _first(self, queue: list[_Start]) -> _Start | None:
        """Return the first of a zone's or the cluster's queue that its node has room for."""
        while queue:
            start = queue[0]
            if (
                self._waiting.get(start.key) == start
                and self._queue_of(start.node) is queue
                and (start.node not in self._nodes or self._has_room(start.node))
            ):
                return start
            heapq.heappop(queue)
        return None

    def _has_room(self, node: str) -> bool:
        return self._used[node] < self._limits.per_node

    def _next(self) -> _Start | None:
        """Return the most urgent start that the budgets allow, if any."""
        per_node, per_zone = self._limits
        zones = self._zones.values()
        room = sum(max(0, min(zone.free, per_zone - zone.used)) for zone in zones)
        total = sum(min(zone.nodes * per_node, per_zone) for zone in zones)
        if self._unplaced >= (room if zones else per_zone):
            return None
        firsts = [self._first(zone.queue) for zone in zones if zone.used < per_zone]
        # Pods that suit only few nodes come to these, beyond their budgets, and the room of the
        # other nodes stays. So what has begun in all is limited as well.
        if len(self._held) < (total if zones else per_zone):
            firsts.append(self._first(self._cluster_queue))
        return min((start for start in firsts if start is not None), default=None)

    def _grant(self, requesting: Key | None = None) -> None:
        """Grant what is free. The requesting caller learns the result from the return value.

        Enqueueing that key as well would have it request again and again.
        """
        while self._open and self._waiting and (start := self._next()) is not None:
            del self._waiting[start.key]
            self._hold(start.key, start.node if start.node in self._nodes else NO_NODE)
            self._offer(start.node)
            if start.key != requesting:
                self._enqueue(start.key)
