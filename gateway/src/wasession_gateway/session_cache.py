"""All WhatsAppSessions of one namespace, kept up to date by one watch: reads never ask the API server."""

from __future__ import annotations

import asyncio
import bisect
import hashlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import ValidationError
from wasession_api.kube.client import SESSIONS, KubeClient
from wasession_api.kube.informer import Informer
from wasession_api.kube.manifests import Manifest
from wasession_api.v1alpha1 import API_VERSION, KIND, Phase, Spec, Status

from wasession_gateway import views

log = logging.getLogger(__name__)
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

    # As lists have them: encoded once for each version, as reads come far more often than changes.

    @cached_property
    def json(self) -> bytes:
        return self.view.encoded()

    @cached_property
    def account_json(self) -> bytes:
        return views.account_view(self).encoded()


def read(body: Manifest) -> Session:
    """A session from the API server's object. A status that a newer operator wrote and that can't be read counts as none."""
    metadata, spec = body["metadata"], body.get("spec", {})
    try:
        status = Status.model_validate(body.get("status", {}))
    except ValidationError as error:
        log.warning(
            "status not read", extra={"session": metadata["name"], "errors": error.error_count()}
        )
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


def manifest(
    namespace: str, owner: str, client_id: str, template: Spec, pairing: dict[str, Any] | None
) -> Manifest:
    """A new WhatsAppSession: what the platform has set for all, and what the user may choose."""
    spec = template.model_dump(mode="json", by_alias=True, exclude_unset=True) | {
        "owner": owner,
        "clientId": client_id,
    }
    if pairing is not None:
        spec["pairing"] = {**spec.get("pairing", {}), **pairing}
    metadata = {"name": resource_name(owner, client_id), "namespace": namespace}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


class Sessions:
    """The cache, and the few writes, whose results are in the cache at once."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self._kube, self._namespace, self._closed = kube, namespace, False
        self.watch = Informer(kube, SESSIONS, [namespace], "", self._changed)
        self._sessions: dict[str, Session] = {}
        self._names: list[str] = []  # sorted
        self._of_owner: dict[str | None, list[str]] = {}  # sorted
        self._of_client: dict[str, set[str]] = {}
        self._listeners: list[Callable[[str], None]] = []

    # --- reading ----------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, name: str) -> Session | None:
        return self._sessions.get(name)

    def find(self, client_id: str, owner: str | None) -> Session | None:
        """The session with this clientId of this owner, or of any owner when that is None; may raise ``Ambiguous``.

        An owner with two such sessions, which only kubectl can make, gets the gateway's own, else
        the older one.
        """
        found = [self._sessions[name] for name in self._of_client.get(client_id, ())]
        found = [session for session in found if owner is None or session.owner == owner]
        if len({session.owner for session in found}) > 1:
            raise Ambiguous(client_id)
        own = resource_name(found[0].owner or "", client_id) if found else ""
        return min(
            found,
            key=lambda session: (session.name != own, session.created_at, session.name),
            default=None,
        )

    def of(self, owner: str | None, after: str = "") -> Iterator[Session]:
        """The sessions of an owner, or of all when that is None, by name, from behind ``after``."""
        names = self._names if owner is None else self._of_owner.get(owner, [])
        return (self._sessions[name] for name in names[bisect.bisect_right(names, after) :])

    def count(self, owner: str) -> int:
        return len(self._of_owner.get(owner, []))

    def listen(self, changed: Callable[[str], None]) -> Callable[[], None]:
        """Has ``changed`` called with the name of each session that changes, until the returned function is called."""
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

    # --- writing: raises what the API client raises -----------------------------------------------

    async def create(self, body: Manifest) -> Session:
        return self._remember(await self._kube.create(SESSIONS, body))

    async def patch(
        self, session: Session, patch: Manifest, version: str | None = None
    ) -> Session | None:
        """A merge patch of this very session; None when it is gone. With a version, only while the session is at it."""
        metadata = {**patch.get("metadata", {}), "uid": session.uid}
        if version is not None:
            metadata["resourceVersion"] = version
        body = await self._kube.patch(
            SESSIONS, self._namespace, session.name, {**patch, "metadata": metadata}
        )
        return self._remember(body) if body is not None else None

    async def delete(self, session: Session, version: str | None = None) -> None:
        """Deletes this very session. With a version, only while the session is at it."""
        body = await self._kube.delete(
            SESSIONS, self._namespace, session.name, session.uid, version=version
        )
        if body is not None:
            self.watch.upsert(body)

    def _remember(self, body: Manifest) -> Session:
        self.watch.upsert(body)
        known = self.get(body["metadata"]["name"])
        return known if known is not None and known.uid == body["metadata"]["uid"] else read(body)

    # --- what the watch tells ---------------------------------------------------------------------

    def _changed(self, known: Manifest | None, body: Manifest | None) -> None:
        present = body or known
        assert present is not None
        name = present["metadata"]["name"]
        before, now = self._sessions.get(name), read(body) if body is not None else None
        same_place = (
            before is not None
            and now is not None
            and (before.owner, before.client_id) == (now.owner, now.client_id)
        )
        if before is not None and not same_place:
            self._remove(before)
        if now is not None:
            self._sessions[name] = now
            if not same_place:
                self._index(now)
        self._tell(name)

    def _index(self, session: Session) -> None:
        bisect.insort(self._names, session.name)
        bisect.insort(self._of_owner.setdefault(session.owner, []), session.name)
        self._of_client.setdefault(session.client_id, set()).add(session.name)

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
