"""Everything that the watches have told: sessions, and the objects that they are made of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

from wasession_api import names
from wasession_api.kube.client import NODES, PODS, PVCS, SECRETS, KubeClient
from wasession_api.kube.informer import Informer, is_newer
from wasession_api.kube.manifests import Key, Manifest

from wasession_operator import cache_transform as kept
from wasession_operator.plan import Node
from wasession_operator.plan.manifests import is_terminating

Client = tuple[str, str | None, str]  # namespace, owner and client id
Age = tuple[str, str]  # since when a session has been there, and its uid; the oldest comes first
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"


class Cluster:
    """``changed`` is called with the key of a session that something else was told about: its objects, node or twins."""

    def __init__(
        self,
        kube: KubeClient,
        namespaces: Sequence[str],
        changed: Callable[[Key], None],
        *,
        watch_nodes: bool,
    ) -> None:
        self.sessions = kept.Packed()
        self.pods = Informer(
            kube, PODS, namespaces, names.SELECTOR, self._pod_changed, kept.pod, kept.Packed()
        )
        self.pvcs = Informer(
            kube, PVCS, namespaces, names.SELECTOR, self._object_changed, kept.pvc, kept.Packed()
        )
        self.secrets = Informer(
            kube,
            SECRETS,
            namespaces,
            names.SELECTOR,
            self._object_changed,
            kept.secret,
            kept.Packed(),
        )
        self.nodes = (
            Informer(kube, NODES, namespaces, "", self._node_changed, kept.node)
            if watch_nodes
            else None
        )
        self.watches = [
            watch for watch in (self.pods, self.pvcs, self.secrets, self.nodes) if watch is not None
        ]
        self._kube = kube
        self._changed = changed
        self._session_of: dict[Key, Key] = {}  # the session that an object's name stands for
        self._pods_on: dict[str, set[Key]] = {}  # by the name of their node
        self._clients: dict[
            Client, dict[Key, Age]
        ] = {}  # the sessions of a namespace that have one owner and client id

    async def run(self) -> None:
        """Never returns."""
        await asyncio.gather(*(watch.run() for watch in self.watches))

    async def synced(self) -> None:
        """Returns when all objects have been listed once; before that nobody knows what is missing."""
        await asyncio.gather(*(watch.wait_for_sync() for watch in self.watches))

    @property
    def is_synced(self) -> bool:
        return all(watch.is_synced for watch in self.watches)

    # --- sessions ---------------------------------------------------------------------------------

    def session_seen(self, body: Manifest) -> None:
        """kopf tells of each session in order, but not of two that have had the same name: the later version counts."""
        key = key_of(body)
        known = self.sessions.get(key)
        if known is not None and is_newer(
            known["metadata"]["resourceVersion"], body["metadata"]["resourceVersion"]
        ):
            return
        self.sessions[key] = kept.session(body)
        self._session_of[object_key(key)] = key
        client = _client(body)
        self._clients.setdefault(client, {})[key] = _age(body)
        if known is None or _client(known) != client:
            self._leave_client(key, known)
            self._call_all(client)  # who is the oldest of them may be another one now

    def session_gone(self, key: Key, uid: str) -> None:
        body = self.sessions.get(key)
        if body is None or body["metadata"]["uid"] != uid:
            return
        del self.sessions[key]
        self._session_of.pop(object_key(key), None)
        self._leave_client(key, body)

    def client_id_of(self, key: Key) -> str | None:
        """The name of the oldest session of the namespace with the same owner and client id, when it is another one."""
        twins = self._clients[_client(self.sessions[key])]
        oldest = min(twins, key=twins.__getitem__)
        return None if oldest == key else oldest[1]

    def _leave_client(self, key: Key, body: Manifest | None) -> None:
        if body is not None:
            self._clients[_client(body)].pop(key, None)
            self._call_all(_client(body))
            if not self._clients[_client(body)]:
                del self._clients[_client(body)]

    def _call_all(self, client: Client) -> None:
        for key in list(self._clients[client]):
            self._changed(key)

    # --- what a session is made of ----------------------------------------------------------------

    async def node_of(self, pod: Manifest) -> Node | None:
        """The node of a pod; a node that no watch has told of is asked for, since it may be a new one."""
        name = _node_name(pod)
        if name is None or self.nodes is None:
            return None
        node = self.nodes.objects.get(("", name)) or await self._kube.get(NODES, None, name)
        if node is None:
            return Node(name, gone=True)
        taints = [taint["key"] for taint in node["spec"].get("taints") or []]
        return Node(name, silent_since=_silent_since(node), out_of_service=OUT_OF_SERVICE in taints)

    def _pod_changed(self, before: Manifest | None, after: Manifest | None) -> None:
        was, now = _node_name(before), _node_name(after)
        if was != now:
            if before is not None and was is not None:
                self._pods_on[was].discard(key_of(before))
                if not self._pods_on[was]:
                    del self._pods_on[was]
            if after is not None and now is not None:
                self._pods_on.setdefault(now, set()).add(key_of(after))
        self._object_changed(before, after)

    def _object_changed(self, before: Manifest | None, after: Manifest | None) -> None:
        found = after or before
        assert found is not None
        if before is not None and after is not None and _says(before) == _says(after):
            return
        session = self._session_of.get(key_of(found))
        if session is not None:
            self._changed(session)

    def _node_changed(self, before: Manifest | None, after: Manifest | None) -> None:
        """Sessions hear of their node when it comes, goes, falls silent or is given up, not of its heartbeats."""
        found = after or before
        assert found is not None
        if before is not None and after is not None and _told(before) == _told(after):
            return
        for key in self._pods_on.get(found["metadata"]["name"], ()):
            if key in self._session_of:
                self._changed(self._session_of[key])


def key_of(body: Manifest) -> Key:
    return body["metadata"].get("namespace", ""), body["metadata"]["name"]


def wishes(body: Manifest) -> tuple[object, ...]:
    """What people want of a session: everything but the status."""
    fields = ("uid", "generation", "annotations", "deletionTimestamp", "finalizers")
    return tuple(body["metadata"].get(field) for field in fields)


def is_over(session: Manifest) -> bool:
    """Whether a session is being deleted, and it is somebody else who holds it back."""
    return is_terminating(session) and names.FINALIZER not in session["metadata"].get(
        "finalizers", ()
    )


def object_key(session: Key) -> Key:
    """Of the pod, volume claim and Secret of a session."""
    return session[0], names.object_name(session[1])


def _client(body: Manifest) -> Client:
    """What programs know a session by."""
    spec = body.get("spec") or {}
    return (
        body["metadata"]["namespace"],
        spec.get("owner"),
        spec.get("clientId") or body["metadata"]["name"],
    )


def _age(body: Manifest) -> Age:
    return body["metadata"].get("creationTimestamp", ""), body["metadata"]["uid"]


def _says(found: Manifest) -> Manifest:
    """All that is kept of an object, but for the number of its version."""
    return {**found, "metadata": {**found["metadata"], "resourceVersion": None}}


def _node_name(pod: Manifest | None) -> str | None:
    return None if pod is None else pod["spec"].get("nodeName")


def _told(node: Manifest) -> tuple[object, ...]:
    return _silent_since(node), str(node["spec"].get("taints"))


def _silent_since(node: Manifest) -> datetime | None:
    """Since when a node has not answered; None for one that does."""
    for condition in node.get("status", {}).get("conditions") or []:
        if condition["type"] == "Ready" and condition["status"] != "True":
            return datetime.fromisoformat(condition["lastTransitionTime"])
    return None
