"""The cache of WhatsAppSessionClasses, and of which sessions use them."""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Callable, Iterator

from pydantic import ValidationError
from wasession_api.kube.client import CLASSES, KubeClient
from wasession_api.kube.informer import Informer
from wasession_api.kube.manifests import Key, Manifest
from wasession_api.v1alpha1 import RolloutPhase, RolloutStatus

from wasession_operator.plan.session_class import SessionClass, default_class, parse_class

Owner = tuple[str, str | None]  # namespace and owner
Rank = tuple[str, str, Key]  # creation time, UID and key of a session; the oldest sorts first


class SessionClasses:
    """``enqueue`` is called with each session that a change of a class concerns.

    ``changed`` is set when the use of a class, or a class itself, may have changed.
    """

    def __init__(
        self,
        kube: KubeClient,
        enqueue: Callable[[Key], None],
        on_sync: Callable[[str | None], None],
        operator: str = "",
    ) -> None:
        """``operator`` is the one whose rollouts count."""
        self.informer = Informer(kube, CLASSES, (), "", self._changed, on_sync=on_sync)
        self.changed = asyncio.Event()
        self._operator = operator
        self._rollouts: dict[str, RolloutStatus] = {}
        self._enqueue = enqueue
        self._classes: dict[str, SessionClass] = {}
        self._default: SessionClass | None = None
        # By spec.className, None for the default class, and by namespace.
        self._sessions: dict[str | None, dict[str, set[Key]]] = {}
        self._owners: dict[Owner, list[Rank]] = {}

    # --- classes ----------------------------------------------------------------------------------

    @property
    def rejection(self) -> str | None:
        """Return why no class is known: the API server has not let them be listed so far."""
        return None if self.informer.is_synced else self.informer.rejection(None)

    def get(self, name: str) -> SessionClass | None:
        return self._classes.get(name)

    @property
    def names(self) -> list[str]:
        return list(self._classes)

    def rollout(self, name: str) -> RolloutStatus | None:
        """Return how far this operator's rollout of a class is; None before there is any."""
        return self._rollouts.get(name)

    def of(self, session: Manifest) -> SessionClass | None:
        """Return the class of a session: the one that it names, else the default class."""
        name = _class_name(session)
        return self._default if name is None else self._classes.get(name)

    def is_used(self, name: str, namespace: str) -> bool:
        """Return whether a namespace has a session of the class."""
        return next(self.sessions(name, namespace), None) is not None

    def sessions(self, name: str, namespace: str) -> Iterator[Key]:
        """Yield the sessions of the class in a namespace."""
        for by_namespace in self._users(name):
            yield from by_namespace.get(namespace, ())

    def all_sessions(self, name: str) -> Iterator[Key]:
        """Yield the sessions of the class in all namespaces."""
        for by_namespace in self._users(name):
            for keys in by_namespace.values():
                yield from keys

    def usage(self, name: str) -> tuple[int, int]:
        """Return the number of sessions of the class, and of their namespaces."""
        users = self._users(name)
        sessions = sum(len(keys) for by_namespace in users for keys in by_namespace.values())
        return sessions, len(set().union(*users))

    def _users(self, name: str) -> list[dict[str, set[Key]]]:
        direct = self._sessions.get(name, {})
        if self._default is None or self._default.name != name:
            return [direct]
        return [direct, self._sessions.get(None, {})]

    def _changed(self, before: Manifest | None, after: Manifest | None) -> None:
        obj = after or before
        assert obj is not None
        self.changed.set()
        self._note_rollout(obj["metadata"]["name"], after)
        name, default = obj["metadata"]["name"], self._default
        known, current = self._classes.get(name), parse_class(obj) if after is not None else None
        if known == current:
            return  # only its status or foreign metadata has changed
        if current is None:
            del self._classes[name]
        else:
            self._classes[name] = current
        self._default = default_class(list(self._classes.values()))
        concerned = [name, None] if self._default != default else [name]
        for class_name in concerned:
            for keys in self._sessions.get(class_name, {}).values():
                for key in keys:
                    self._enqueue(key)

    def _note_rollout(self, name: str, obj: Manifest | None) -> None:
        """Take in how far a rollout is, and enqueue the sessions that may follow from it."""
        before, rollout = self._rollouts.get(name), own_rollout(obj, self._operator)
        if rollout is None:
            self._rollouts.pop(name, None)
        else:
            self._rollouts[name] = rollout
        if _place_of(before) != _place_of(rollout):
            for key in self.all_sessions(name):
                self._enqueue(key)

    # --- sessions ---------------------------------------------------------------------------------

    def upsert_session(self, key: Key, before: Manifest | None, after: Manifest) -> None:
        """Note the class and the owner of a session."""
        if before is not None and _place(before) == _place(after):
            return
        if before is not None:
            self.delete_session(key, before)
        by_namespace = self._sessions.setdefault(_class_name(after), {})
        by_namespace.setdefault(key[0], set()).add(key)
        self._add_to_owner(_owner(key, after), rank_of(key, after))
        self.changed.set()

    def delete_session(self, key: Key, session: Manifest) -> None:
        """Forget a session; the oldest one of its owner that had to wait for it is enqueued."""
        name = _class_name(session)
        by_namespace = self._sessions[name]
        by_namespace[key[0]].discard(key)
        if not by_namespace[key[0]]:
            del by_namespace[key[0]]
        if not by_namespace:
            del self._sessions[name]
        self._remove_from_owner(_owner(key, session), rank_of(key, session))
        self.changed.set()

    def sessions_ahead(self, key: Key, session: Manifest) -> int:
        """Return how many sessions of the same namespace and owner are older."""
        ranks = self._owners.get(_owner(key, session), [])
        return bisect.bisect_left(ranks, rank_of(key, session))

    def _add_to_owner(self, owner: Owner, rank: Rank) -> None:
        ranks = self._owners.setdefault(owner, [])
        place = bisect.bisect_left(ranks, rank)
        ranks.insert(place, rank)
        for limit in self._limits():
            if place < limit < len(ranks):  # one that is younger has to make room
                self._enqueue(ranks[limit][-1])

    def _remove_from_owner(self, owner: Owner, rank: Rank) -> None:
        ranks = self._owners[owner]
        place = bisect.bisect_left(ranks, rank)
        del ranks[place]
        for limit in self._limits():
            if place < limit <= len(ranks):
                self._enqueue(ranks[limit - 1][-1])
        if not ranks:
            del self._owners[owner]

    def _limits(self) -> set[int]:
        limits = (known.spec.limits.sessions_per_owner for known in self._classes.values())
        return {limit for limit in limits if limit is not None}


def own_rollout(obj: Manifest | None, operator: str) -> RolloutStatus | None:
    """Return how far an operator's rollout of a class is, as the class's status has it."""
    for entry in ((obj or {}).get("status") or {}).get("rollouts") or []:
        if entry.get("operator") == operator:
            return parse_rollout(entry)
    return None


def parse_rollout(entry: Manifest) -> RolloutStatus | None:
    """Return how far a rollout is; None for what a person has edited to nonsense."""
    try:
        return RolloutStatus.model_validate(entry)
    except ValidationError:
        return None


def _place_of(rollout: RolloutStatus | None) -> tuple[object, ...]:
    """Return what decides which revision a session should have."""
    if rollout is None:
        return ()
    return rollout.revision, rollout.stable, rollout.phase is RolloutPhase.COMPLETE


def _class_name(session: Manifest) -> str | None:
    return (session.get("spec") or {}).get("className") or None


def _owner(key: Key, session: Manifest) -> Owner:
    return key[0], (session.get("spec") or {}).get("owner")


def rank_of(key: Key, session: Manifest) -> Rank:
    metadata = session["metadata"]
    return metadata.get("creationTimestamp", ""), metadata["uid"], key


def _place(session: Manifest) -> tuple[object, ...]:
    spec, metadata = session.get("spec") or {}, session["metadata"]
    created = metadata.get("creationTimestamp")
    return spec.get("className"), spec.get("owner"), created, metadata["uid"]
