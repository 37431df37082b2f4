"""All WhatsAppSessions of one namespace, kept up to date by one watch: reads never ask the API server."""

from __future__ import annotations

import asyncio
import bisect
import hashlib
import json
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import aiohttp
from kubernetes.aio.client.exceptions import ApiException
from pydantic import ValidationError
from wasession_api.kube import Gone, Kube, Manifest
from wasession_api.v1alpha1 import API_VERSION, KIND, PLURAL, Phase, Spec, Status

from wasession_gateway import views

log = logging.getLogger(__name__)
RETRY_FIRST, RETRY_LAST = 0.2, 10.0  # seconds
ENDED_KEPT = 1000
LONGEST_READABLE = 40  # characters of the clientId in a resource's name


class Ambiguous(Exception):
    """Several owners have a session with this clientId."""


@dataclass(frozen=True)
class Session:
    """A WhatsAppSession as the API server had it last."""

    name: str
    uid: str
    version: str
    owner: str | None
    client_id: str
    created_at: str
    suspended: bool = False
    deleting: bool = False
    status: Status = field(default_factory=Status)

    @property
    def phase(self) -> Phase:
        return Phase.TERMINATING if self.deleting else self.status.phase or Phase.PENDING

    @property
    def ready(self) -> bool:
        return self.phase is Phase.READY

    @cached_property
    def view(self) -> views.SessionView:
        return views.session_view(self)

    @cached_property
    def json(self) -> str:
        return json.dumps(self.view.dump(), separators=(",", ":"))


def read(body: Manifest) -> Session:
    """A session from the API server's object. A status that a newer operator wrote and that can't be read counts as none."""
    metadata, spec = body["metadata"], body.get("spec", {})
    try:
        status = Status.model_validate(body.get("status", {}))
    except ValidationError as error:
        log.warning("status not read", extra={"session": metadata["name"], "errors": error.error_count()})
        status = Status()
    return Session(
        name=metadata["name"],
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        owner=spec.get("owner"),
        client_id=spec.get("clientId") or metadata["name"],
        created_at=metadata["creationTimestamp"],
        suspended=spec.get("suspend", False),
        deleting="deletionTimestamp" in metadata,
        status=status,
    )


def resource_name(owner: str, client_id: str) -> str:
    """The name of the WhatsAppSession that the gateway makes for an owner's clientId: the same each time, and nobody else's."""
    digest = hashlib.sha256(f"{owner}\0{client_id}".encode()).hexdigest()[:16]
    readable = client_id.lower().replace("_", "-")[:LONGEST_READABLE].strip("-")
    return f"{readable}-{digest}" if readable else f"session-{digest}"


def manifest(namespace: str, owner: str, client_id: str, template: Spec, pairing: dict[str, Any] | None) -> Manifest:
    """A new WhatsAppSession: what the platform has set for all, and what the user may choose."""
    spec = template.model_dump(mode="json", by_alias=True, exclude_unset=True) | {"owner": owner, "clientId": client_id}
    if pairing is not None:
        spec["pairing"] = {**spec.get("pairing", {}), **pairing}
    metadata = {"name": resource_name(owner, client_id), "namespace": namespace}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


class Sessions:
    """The cache, and the few writes. ``changed`` is called with the name of each session that has changed, or gone."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self.synced = asyncio.Event()
        self._heard = time.monotonic()
        self._kube, self._namespace, self._closed = kube, namespace, False
        self._sessions: dict[str, Session] = {}
        self._names: list[str] = []  # sorted
        self._of_owner: dict[str | None, list[str]] = {}  # sorted
        self._of_client: dict[str, set[str]] = {}
        self._ended: dict[str, None] = {}  # uids; an answer to a write may come after the watch's word of the end
        self._listeners: list[Callable[[str], None]] = []

    @property
    def age(self) -> float:
        """Seconds since the API server was heard last."""
        return time.monotonic() - self._heard

    # --- reading ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, name: str) -> Session | None:
        return self._sessions.get(name)

    def find(self, client_id: str, owner: str | None) -> Session | None:
        """The session with this clientId of this owner, or of any owner when that is None; may raise ``Ambiguous``.

        An owner with two such sessions, which only kubectl can make, gets the gateway's own, else the older one.
        """
        found = [self._sessions[name] for name in self._of_client.get(client_id, ())]
        found = [session for session in found if owner is None or session.owner == owner]
        if len({session.owner for session in found}) > 1:
            raise Ambiguous(client_id)
        own = resource_name(found[0].owner or "", client_id) if found else ""
        return min(found, key=lambda session: (session.name != own, session.created_at, session.name), default=None)

    def of(self, owner: str | None, after: str = "") -> Iterator[Session]:
        """The sessions of an owner, or of all when that is None, by name, from behind ``after``."""
        names = self._names if owner is None else self._of_owner.get(owner, [])
        return (self._sessions[name] for name in names[bisect.bisect_right(names, after) :])

    def count(self, owner: str) -> int:
        return len(self._of_owner.get(owner, []))

    def listen(self, changed: Callable[[str], None]) -> Callable[[], None]:
        """Has ``changed`` called until the function that is returned is called."""
        self._listeners.append(changed)
        return lambda: self._listeners.remove(changed)

    async def states(self, name: str) -> AsyncGenerator[Session | None]:
        """The session as it is now and after each change; None when it is gone. Ends when the gateway does."""
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
        """Keeps nobody waiting any longer."""
        self._closed = True
        for name in self._names:
            self._tell(name)

    # --- writing ------------------------------------------------------------------------------------------------------

    async def create(self, body: Manifest) -> Session:
        """Raises ``Conflict`` and ``Refused`` of the API client."""
        return self._seen(await self._kube.create(PLURAL, body))

    async def patch(self, session: Session, patch: Manifest, version: str | None = None) -> Session | None:
        """A merge patch of this very session; None when it is gone. Raises ``Conflict`` when it is no longer at ``version``."""
        metadata = {**patch.get("metadata", {}), "uid": session.uid}
        if version is not None:
            metadata["resourceVersion"] = version
        body = await self._kube.patch(PLURAL, self._namespace, session.name, {**patch, "metadata": metadata})
        return self._seen(body) if body is not None else None

    async def delete(self, session: Session, version: str | None = None) -> None:
        """Deletes this very session. Raises ``Conflict`` when it is no longer at ``version``."""
        await self._kube.delete(PLURAL, self._namespace, session.name, session.uid, version=version)

    # --- watching -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keeps the cache until cancelled. While the API server is away the cache is what it was."""
        delay, version = RETRY_FIRST, None
        while True:
            try:
                if version is None:
                    bodies, version = await self._kube.snapshot(PLURAL, self._namespace)
                    self._replace(bodies, version)
                    self.synced.set()
                async for kind, body in self._kube.watch(PLURAL, self._namespace, version):
                    version = body["metadata"]["resourceVersion"]
                    self._heard, delay = time.monotonic(), RETRY_FIRST
                    if kind == "DELETED":
                        self._gone(body["metadata"]["name"], body["metadata"]["uid"])
                    elif kind != "BOOKMARK":
                        self._seen(body)
            except Gone:
                version = None
            except (aiohttp.ClientError, ApiException, TimeoutError, OSError, ValueError) as error:
                log.warning("watch broken", extra={"error": type(error).__name__})
                await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - only spreads the replicas
                delay = min(delay * 2, RETRY_LAST)

    def _replace(self, bodies: list[Manifest], version: str) -> None:
        self._heard = time.monotonic()
        present = {body["metadata"]["uid"] for body in bodies}
        for session in list(self._sessions.values()):
            if session.uid not in present and int(session.version) <= int(version):
                self._gone(session.name, session.uid)
        for body in bodies:
            self._seen(body)

    def _seen(self, body: Manifest) -> Session:
        """Takes a session in, unless a newer version of it is known, or its end."""
        session = read(body)
        before = self._sessions.get(session.name)
        if before is not None and before.uid == session.uid and int(before.version) >= int(session.version):
            return before
        if session.uid in self._ended:
            return session
        if before is not None and (before.owner, before.client_id) != (session.owner, session.client_id):
            self._remove(before)
            before = None
        self._sessions[session.name] = session
        if before is None:
            self._index(session)
        self._tell(session.name)
        return session

    def _index(self, session: Session) -> None:
        bisect.insort(self._names, session.name)
        bisect.insort(self._of_owner.setdefault(session.owner, []), session.name)
        self._of_client.setdefault(session.client_id, set()).add(session.name)

    def _gone(self, name: str, uid: str) -> None:
        self._ended[uid] = None
        if len(self._ended) > ENDED_KEPT:
            del self._ended[next(iter(self._ended))]
        session = self._sessions.get(name)
        if session is not None and session.uid == uid:
            self._remove(session)
            self._tell(name)

    def _remove(self, session: Session) -> None:
        del self._sessions[session.name]
        self._names.remove(session.name)
        self._of_owner[session.owner].remove(session.name)
        if not self._of_owner[session.owner]:
            del self._of_owner[session.owner]
        self._of_client[session.client_id].discard(session.name)
        if not self._of_client[session.client_id]:
            del self._of_client[session.client_id]

    def _tell(self, name: str) -> None:
        for changed in list(self._listeners):
            changed(name)
