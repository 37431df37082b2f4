"""All WhatsAppSessions of one namespace, cached by an informer: reads never ask the API server."""

from __future__ import annotations

import asyncio
import bisect
import hashlib
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

from wasession_api.kube.client import SESSIONS, KubeClient
from wasession_api.kube.informer import Informer
from wasession_api.kube.manifests import Manifest
from wasession_api.v1alpha1 import API_VERSION, KIND, Spec

from wasession_gateway.session import Session, read_session

READABLE_LENGTH = 40  # characters of the clientId in a resource's name


class Ambiguous(Exception):
    """Several owners have a session with this clientId."""


def resource_name(owner: str, client_id: str) -> str:
    """Return the name of the WhatsAppSession that the gateway creates for an owner's clientId.

    Deterministic and distinct: the same owner and clientId always get the same name, and no
    others do.
    """
    digest = hashlib.sha256(f"{owner}\0{client_id}".encode()).hexdigest()[:16]
    readable = client_id.lower().replace("_", "-")[:READABLE_LENGTH].strip("-")
    return f"{readable}-{digest}" if readable else f"session-{digest}"


def manifest(
    namespace: str, owner: str, client_id: str, template: Spec, pairing: dict[str, Any] | None
) -> Manifest:
    """Return a new WhatsAppSession: the platform's template with the user's choices on top."""
    spec = template.model_dump(mode="json", by_alias=True, exclude_unset=True) | {
        "owner": owner,
        "clientId": client_id,
    }
    if pairing is not None:
        spec["pairing"] = {**spec.get("pairing", {}), **pairing}
    metadata = {"name": resource_name(owner, client_id), "namespace": namespace}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


class SessionCache:
    """The sessions, and writes to them whose results are in the cache at once."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self._kube, self._namespace, self._closed = kube, namespace, False
        self.informer = Informer(kube, SESSIONS, [namespace], "", self._on_change)
        self._sessions: dict[str, Session] = {}  # by the name of the WhatsAppSession
        self._names: list[str] = []  # sorted
        self._names_by_owner: dict[str | None, list[str]] = {}  # sorted
        self._names_by_client_id: dict[str, set[str]] = {}
        self._listeners: list[Callable[[str], None]] = []

    # --- reading ----------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, name: str) -> Session | None:
        return self._sessions.get(name)

    def find(self, client_id: str, owner: str | None) -> Session | None:
        """Return the session with this clientId of this owner, or of any owner when it is None.

        Raises ``Ambiguous`` when several owners have one. An owner can have two only through
        kubectl; then the one that the gateway created counts, else the older one.
        """
        candidates = [self._sessions[name] for name in self._names_by_client_id.get(client_id, ())]
        if owner is not None:
            candidates = [session for session in candidates if session.owner == owner]
        if len({session.owner for session in candidates}) > 1:
            raise Ambiguous(client_id)
        own = resource_name(candidates[0].owner or "", client_id) if candidates else ""
        return min(
            candidates,
            key=lambda session: (session.name != own, session.created_at, session.name),
            default=None,
        )

    def find_name(self, client_id: str) -> str | None:
        """Return the name of the only session with this clientId, whoever owns it."""
        names = self._names_by_client_id.get(client_id, ())
        return next(iter(names)) if len(names) == 1 else None

    def of(self, owner: str | None, after: str = "") -> Iterator[Session]:
        """Yield the sessions of an owner, or all when it is None, by name, following ``after``."""
        names = self._names if owner is None else self._names_by_owner.get(owner, [])
        return (self._sessions[name] for name in names[bisect.bisect_right(names, after) :])

    def count(self, owner: str) -> int:
        return len(self._names_by_owner.get(owner, []))

    def listen(self, on_change: Callable[[str], None]) -> Callable[[], None]:
        """Call ``on_change`` with the name of each changed session; return a function to stop."""
        self._listeners.append(on_change)
        return lambda: self._listeners.remove(on_change)

    async def states(self, name: str) -> AsyncGenerator[Session | None]:
        """Yield the session now and after each change, None once it is gone; end on ``close``."""
        changed = asyncio.Event()
        stop = self.listen(lambda which: changed.set() if which == name else None)
        try:
            while not self._closed:
                changed.clear()
                yield self.get(name)
                await changed.wait()
        finally:
            stop()

    def close(self) -> None:
        """End all ``states``."""
        self._closed = True
        for name in self._names:
            self._notify(name)

    # --- writing: raises what the API client raises -----------------------------------------------

    async def create(self, body: Manifest) -> Session:
        return self._upsert(await self._kube.create(SESSIONS, body))

    async def patch(
        self, session: Session, patch: Manifest, version: str | None = None
    ) -> Session | None:
        """Merge a patch into this very session (same UID); return None when it is gone.

        With ``version``, raises ``Conflict`` when the session is at another one.
        """
        metadata = {**patch.get("metadata", {}), "uid": session.uid}
        if version is not None:
            metadata["resourceVersion"] = version
        obj = await self._kube.patch(
            SESSIONS, self._namespace, session.name, {**patch, "metadata": metadata}
        )
        return self._upsert(obj) if obj is not None else None

    async def delete(self, session: Session, version: str | None = None) -> None:
        """Delete this very session; with ``version``, only while the session is at it."""
        obj = await self._kube.delete(
            SESSIONS, self._namespace, session.name, session.uid, version=version
        )
        if obj is not None:
            self.informer.upsert(obj)

    def _upsert(self, obj: Manifest) -> Session:
        self.informer.upsert(obj)
        cached = self.get(obj["metadata"]["name"])
        if cached is not None and cached.uid == obj["metadata"]["uid"]:
            return cached
        return read_session(obj)

    # --- changes from the informer ----------------------------------------------------------------

    def _on_change(self, old: Manifest | None, new: Manifest | None) -> None:
        obj = new or old
        assert obj is not None
        name = obj["metadata"]["name"]
        before, after = self._sessions.get(name), read_session(new) if new is not None else None
        same_keys = (
            before is not None
            and after is not None
            and (before.owner, before.client_id) == (after.owner, after.client_id)
        )
        if before is not None and not same_keys:
            self._remove(before)
        if after is not None:
            self._sessions[name] = after
            if not same_keys:
                self._index(after)
        self._notify(name)

    def _index(self, session: Session) -> None:
        bisect.insort(self._names, session.name)
        bisect.insort(self._names_by_owner.setdefault(session.owner, []), session.name)
        self._names_by_client_id.setdefault(session.client_id, set()).add(session.name)

    def _remove(self, session: Session) -> None:
        del self._sessions[session.name]
        self._names.remove(session.name)
        self._names_by_owner[session.owner].remove(session.name)
        if not self._names_by_owner[session.owner]:
            del self._names_by_owner[session.owner]
        self._names_by_client_id[session.client_id].discard(session.name)
        if not self._names_by_client_id[session.client_id]:
            del self._names_by_client_id[session.client_id]

    def _notify(self, name: str) -> None:
        for on_change in list(self._listeners):
            on_change(name)
