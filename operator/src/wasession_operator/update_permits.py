"""Permits to replace pods for changed templates, for each scope of a rollout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from wasession_api.kube.manifests import Key

from wasession_operator.plan.rollout import Scope
from wasession_operator.priority_semaphore import PrioritySemaphore
from wasession_operator.update_index import UpdateIndex


class UpdatePermits:
    """One semaphore for each scope: nothing that happens in one scope halts another.

    ``index`` knows of updates in other shards too. They count towards the limit, and halt the
    scope. Two shards that begin at the same moment do not know of each other yet: there can be as
    many updates more than the limit as there are other shards.
    """

    def __init__(self, limit: int, enqueue: Callable[[Key], None], index: UpdateIndex) -> None:
        self._limit = limit
        self._enqueue = enqueue
        self._index = index
        self._is_open = False
        self._semaphores: dict[Scope, PrioritySemaphore] = {}
        self._scopes: dict[Key, Scope] = {}  # of the sessions that hold or await a permit
        self._members: Counter[Scope] = Counter()

    def open(self) -> None:
        """Begin to grant permits."""
        self._is_open = True
        for semaphore in self._semaphores.values():
            semaphore.open()

    @property
    def blockers(self) -> int:
        """Return how many sessions halt the rollout of their scope."""
        return sum(semaphore.blockers for semaphore in self._semaphores.values())

    def is_held(self, key: Key, scope: Scope) -> bool:
        """Return whether a session holds a permit of this scope."""
        return self._scopes.get(key) == scope and self._semaphores[scope].is_held(key)

    def is_halted(self, scope: Scope) -> bool:
        """Return whether a session of the scope has not recovered from its update."""
        halted = scope in self._semaphores and self._semaphores[scope].blockers > 0
        return halted or self._index.failed(scope, self._scopes)

    def scope_changed(self, scope: Scope) -> None:
        """Take in that another shard has begun or ended an update, or that one has failed."""
        if scope in self._semaphores:
            self._count_others(scope)

    def request(self, key: Key, scope: Scope) -> bool:
        """Return whether a session holds a permit, or let it wait; it halts nothing any more."""
        semaphore = self._enter(key, scope)
        semaphore.unblock(key)
        return semaphore.request(key)

    def adopt(self, key: Key, scope: Scope, *, failed: bool) -> bool:
        """Give a permit to a session that is being updated.

        While its update has ``failed``, its scope is halted; return whether that is new.
        """
        semaphore = self._enter(key, scope)
        semaphore.adopt(key)
        if not failed:
            semaphore.unblock(key)
        return failed and semaphore.block(key)

    def release(self, key: Key) -> None:
        """Take back a session's permit or its request for one."""
        scope = self._scopes.pop(key, None)
        if scope is None:
            return
        self._semaphores[scope].release(key)
        self._members[scope] -= 1
        if not self._members[scope]:
            del self._members[scope], self._semaphores[scope]

    def _enter(self, key: Key, scope: Scope) -> PrioritySemaphore:
        if self._scopes.get(key) != scope:
            self.release(key)
            self._scopes[key] = scope
            self._members[scope] += 1
        if scope not in self._semaphores:
            semaphore = self._semaphores[scope] = PrioritySemaphore(self._limit, self._enqueue)
            if self._is_open:
                semaphore.open()
        self._count_others(scope)
        return self._semaphores[scope]

    def _count_others(self, scope: Scope) -> None:
        """Take from the limit what sessions of other shards use of it; all of it if one failed."""
        others = self._index.updating(scope, self._scopes)
        if self._index.failed(scope, self._scopes):
            others = self._limit
        self._semaphores[scope].set_limit(max(self._limit - others, 0))
