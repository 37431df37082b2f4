"""Everything that the watches have told: sessions, and the objects that they are made of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from wasession_api import names
from wasession_api.kube import NODES, PODS, PVCS, SECRETS, Kube
from wasession_api.watch import Key, Watch, is_newer

from wasession_operator.plan import Node

Manifest = dict[str, Any]
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"


class Cluster:
    """``changed`` is called with the key of a session that something was told about."""

    def __init__(self, kube: Kube, namespaces: Sequence[str], changed: Callable[[Key], None], *, watch_nodes: bool) -> None:
        self.sessions: dict[Key, Manifest] = {}
        self.pods = Watch(kube, PODS, namespaces, names.SELECTOR, self._object_changed)
        self.pvcs = Watch(kube, PVCS, namespaces, names.SELECTOR, self._object_changed)
        self.secrets = Watch(kube, SECRETS, namespaces, names.SELECTOR, self._object_changed)
        self.nodes = Watch(kube, NODES, namespaces, "", self._node_changed) if watch_nodes else None
        self.watches = [watch for watch in (self.pods, self.pvcs, self.secrets, self.nodes) if watch is not None]
        self._kube = kube
        self._changed = changed
        self._session_of: dict[Key, Key] = {}  # the session that an object's name stands for
        self._client_ids: dict[Key, set[Key]] = {}  # the sessions of a namespace with a client id

    async def run(self) -> None:
        """Never returns."""
        await asyncio.gather(*(watch.run() for watch in self.watches))

    async def synced(self) -> None:
        """Returns when all objects have been listed once; before that nobody knows what is missing."""
        await asyncio.gather(*(watch.synced() for watch in self.watches))

    @property
    def is_synced(self) -> bool:
        return all(watch.is_synced for watch in self.watches)

    # --- sessions -------------------------------------------------------------------------------------------------------

    def session_seen(self, body: Manifest) -> None:
        """kopf tells of each session in order, but not of two that have had the same name: the later version counts."""
        key = key_of(body)
        known = self.sessions.get(key)
        if known is not None and is_newer(known["metadata"]["resourceVersion"], body["metadata"]["resourceVersion"]):
            return
        metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
        self.sessions[key] = {**body, "metadata": metadata}
        self._session_of[object_key(key)] = key
        twins = self._client_ids.setdefault(_client_key(body), set())
        # Who is the oldest of them may be another one now: each is to look.
        woken = [key] if key in twins else [key, *twins]
        twins.add(key)
        for session in woken:
            self._changed(session)

    def session_gone(self, key: Key, uid: str) -> None:
        body = self.sessions.get(key)
        if body is None or body["metadata"]["uid"] != uid:
            return
        del self.sessions[key]
        self._session_of.pop(object_key(key), None)
        twins = self._client_ids[_client_key(body)]
        twins.discard(key)
        for twin in twins:
            self._changed(twin)
        if not twins:
            del self._client_ids[_client_key(body)]
        self._changed(key)

    def client_id_of(self, key: Key) -> str | None:
        """The name of the oldest session of the namespace with the same client id, when it is another one."""
        twins = self._client_ids.get(_client_key(self.sessions[key]), set())
        if len(twins) < 2:
            return None
        oldest = min(twins, key=lambda twin: _age(self.sessions[twin]))
        return None if oldest == key else oldest[1]

    # --- what a session is made of ----------------------------------------------------------------------------------------

    async def node_of(self, pod: Manifest) -> Node | None:
        """The node of a pod; a node that no watch has told of is asked for, since it may be a new one."""
        name = pod["spec"].get("nodeName")
        if name is None or self.nodes is None:
            return None
        node = self.nodes.objects.get(("", name)) or await self._kube.get(NODES, None, name)
        if node is None:
            return Node(name, gone=True)
        taints = [taint["key"] for taint in node["spec"].get("taints") or []]
        return Node(name, silent_since=_silent_since(node), out_of_service=OUT_OF_SERVICE in taints)

    def _object_changed(self, before: Manifest | None, after: Manifest | None) -> None:
        found = after or before
        assert found is not None
        session = self._session_of.get(key_of(found))
        if session is not None:
            self._changed(session)

    def _node_changed(self, before: Manifest | None, after: Manifest | None) -> None:
        """Sessions hear of their node when it comes, goes, falls silent or is given up, not of its heartbeats."""
        found = after or before
        assert found is not None
        if before is not None and after is not None and _told(before) == _told(after):
            return
        for key, pod in self.pods.objects.items():
            if pod["spec"].get("nodeName") == found["metadata"]["name"] and key in self._session_of:
                self._changed(self._session_of[key])


def key_of(body: Manifest) -> Key:
    return body["metadata"].get("namespace", ""), body["metadata"]["name"]


def object_key(session: Key) -> Key:
    """Of the pod, volume claim and Secret of a session."""
    return session[0], names.object_name(session[1])


def _client_key(body: Manifest) -> Key:
    client_id = (body.get("spec") or {}).get("clientId") or body["metadata"]["name"]
    return body["metadata"]["namespace"], str(client_id)


def _age(body: Manifest) -> tuple[str, str]:
    return body["metadata"].get("creationTimestamp", ""), body["metadata"]["uid"]


def _told(node: Manifest) -> tuple[object, ...]:
    return _silent_since(node), str(node["spec"].get("taints"))


def _silent_since(node: Manifest) -> datetime | None:
    """Since when a node has not answered; None for one that does."""
    for condition in node.get("status", {}).get("conditions") or []:
        if condition["type"] == "Ready" and condition["status"] != "True":
            return datetime.fromisoformat(condition["lastTransitionTime"])
    return None
