"""Permits to replace pods for changed templates, for each scope of a rollout."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from wasession_api.kube.manifests import Key

from wasession_operator.plan.rollout import Scope
from wasession_operator.priority_semaphore import PrioritySemaphore
from wasession_operator.update_index import UpdateIndex


class Board(Protocol):
    """What Leases say of updates: each shard requests them, and the leader of a scope grants."""

    def is_granted(self, scope: Scope, request: str) -> bool:
        """Return whether the shard that leads the scope has granted a request."""

    def requests_changed(self) -> None:
        """Take in that ``UpdatePermits.requests`` has changed."""


class UpdatePermits:
    """One semaphore for each scope: nothing that happens in one scope halts another.

    With several shards there is a ``board``: whoever holds a permit of this shard requests a grant
    of the whole scope, and a session is updated when it has both.
    """

    def __init__(
        self,
        limit: int,
        enqueue: Callable[[Key], None],
        index: UpdateIndex,
        board: Board | None = None,
    ) -> None:
        """``index`` knows of updates in other shards too."""
        self._limit = limit
        self._enqueue = enqueue
        self._index = index
        self._board = board
        self._is_open = False
        self._semaphores: dict[Scope, PrioritySemaphore] = {}
        self._scopes: dict[Key, Scope] = {}  # of the sessions that hold or await a permit
        self._members: Counter[Scope] = Counter()
        # With a board: the IDs of the requests of those that hold one, and which have their grant.
        self.requests: dict[Scope, dict[Key, str]] = {}
        self._granted: set[str] = set()
        self._halted: set[Scope] = set()  # by other shards

    def open(self) -> None:
        """Begin to grant permits."""
        self._is_open = True
        for scope, semaphore in self._semaphores.items():
            semaphore.open()
            self._note_requests(scope)

    @property
    def blockers(self) -> int:
        """Return how many sessions halt the rollout of their scope."""
        return sum(semaphore.blockers for semaphore in self._semaphores.values())

    def is_held(self, key: Key, scope: Scope) -> bool:
        """Return whether a session holds all that it needs to be updated in this scope."""
        if self._scopes.get(key) != scope or not self._semaphores[scope].is_held(key):
            return False
        if self._board is None:
            return True
        request = self.requests.get(scope, {}).get(key)
        return request is not None and self._board.is_granted(scope, request)

    def is_halted(self, scope: Scope) -> bool:
        """Return whether a session of the scope has not recovered from its update."""
        halted = scope in self._semaphores and self._semaphores[scope].blockers > 0
        return halted or self._index.failed(scope, self._scopes)

    def scope_changed(self, scope: Scope) -> None:
        """Enqueue the sessions of a scope that another shard has halted, or goes on with."""
        failed = self._index.failed(scope, self._scopes)
        if failed is (scope in self._halted):
            return
        if failed:
            self._halted.add(scope)
        else:
            self._halted.discard(scope)
        if scope in self._semaphores:
            self._semaphores[scope].enqueue_all()

    def grants_changed(self) -> None:
        """Enqueue the sessions that have received a grant."""
        before, self._granted = self._granted, set()
        for scope, requests in self.requests.items():
            for key, request in requests.items():
                if self.is_held(key, scope):
                    self._granted.add(request)
                    if request not in before:
                        self._enqueue(key)

    def request(self, key: Key, scope: Scope) -> bool:
        """Return whether a session may be updated. If not, it waits; it halts nothing any more."""
        semaphore = self._enter(key, scope)
        semaphore.unblock(key)
        semaphore.request(key)
        self._note_requests(scope)
        return self.is_held(key, scope)

    def adopt(self, key: Key, scope: Scope, *, failed: bool) -> bool:
        """Give a permit to a session that is being updated.

        While its update has ``failed``, its scope is halted; return whether that is new.
        """
        semaphore = self._enter(key, scope)
        semaphore.adopt(key)
        if not failed:
            semaphore.unblock(key)
        self._note_requests(scope)
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
        self._note_requests(scope)

    def _enter(self, key: Key, scope: Scope) -> PrioritySemaphore:
        if self._scopes.get(key) != scope:
            self.release(key)
            self._scopes[key] = scope
            self._members[scope] += 1
        if scope not in self._semaphores:
            semaphore = self._semaphores[scope] = PrioritySemaphore(self._limit, self._enqueue)
            if self._is_open:
                semaphore.open()
        return self._semaphores[scope]

    def _note_requests(self, scope: Scope) -> None:
        """Keep the requests of a scope equal to the permits that are held."""
        if self._board is None:
            return
        present = self.requests.get(scope, {})
        held = self._semaphores[scope].holders if scope in self._semaphores else frozenset()
        if held == present.keys():
            return
        self.requests[scope] = {key: present.get(key) or secrets.token_hex(4) for key in held}
        if not held:
            del self.requests[scope]
        self._board.requests_changed()
