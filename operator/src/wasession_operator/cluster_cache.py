"""The cache of everything watched: sessions, and the objects they consist of."""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from wasession_api import names
from wasession_api.kube.client import NODES, PODS, PVCS, SESSIONS, KubeClient
from wasession_api.kube.informer import Informer, is_newer
from wasession_api.kube.manifests import Key, Manifest, condition, key_of
from wasession_api.v1alpha1 import BootstrapState

from wasession_operator import cache_transform, metrics
from wasession_operator.backups.cache import BackupCache
from wasession_operator.cache_transform import PackedStore
from wasession_operator.network_policies import NetworkPolicies
from wasession_operator.plan import Node
from wasession_operator.plan.bootstrap import HAS_LOGIN
from wasession_operator.plan.manifests import is_terminating
from wasession_operator.rollout_index import RolloutIndex
from wasession_operator.session_classes import Rank, SessionClasses, rank_of
from wasession_operator.sharding.lease import shard_of
from wasession_operator.update_index import UpdateIndex

ClientId = tuple[str, str | None, str]  # namespace, owner and clientId
METADATA_PAGE = 500  # objects of a list of metadata, which are small
NODE_QUARANTINE = 40.0  # seconds, as in kube-controller-manager's pod garbage collector
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
CONDITION_TAINTS = "node.kubernetes.io/"  # set by Kubernetes for what is wrong with a node


class EventHandler(Protocol):
    """What the cache calls on changes (cf. client-go's ResourceEventHandler)."""

    def enqueue(self, key: Key) -> None:
        """An object, node or duplicate that the session depends on has changed."""

    def on_upsert(self, before: Manifest | None, after: Manifest) -> None:
        """A watch event has added or updated a session."""

    def on_delete(self, key: Key, uid: str) -> None:
        """The session with this UID does not exist any more."""

    def on_sync(self, namespace: str | None) -> None:
        """A namespace is served from now on, or no longer; None stands for all of them."""

    def on_start_node(self, name: str, zone: str | None) -> None:
        """A node takes sessions' pods from now on, in this zone; None: it does not, or is gone."""


class ClusterCache:
    """Every watch event goes through here: informers and kopf feed it, it calls ``handler``."""

    def __init__(
        self,
        kube: KubeClient,
        namespaces: Sequence[str],
        handler: EventHandler,
        *,
        shards: int = 1,
        watch_nodes: bool,
        operator: str = "",
        network_policy_peers: Sequence[Manifest] | None = None,
    ) -> None:
        """Without ``network_policy_peers`` there are no NetworkPolicies."""
        self.sessions = PackedStore()
        self.counts = [metrics.SessionCounts() for _ in range(shards)]  # by shard
        self.pods = Informer(
            kube, PODS, namespaces, names.SELECTOR,
            self._pod_changed, cache_transform.pod, PackedStore(), self._on_sync,
        )  # fmt: skip
        self.pvcs = Informer(
            kube, PVCS, namespaces, names.SELECTOR,
            self._claim_changed, cache_transform.pvc, PackedStore(), self._on_sync,
        )  # fmt: skip
        self.nodes = (
            Informer(
                kube, NODES, namespaces, "",
                self._node_changed, cache_transform.node, on_sync=self._on_nodes_sync,
            )
            if watch_nodes
            else None
        )  # fmt: skip
        self.classes = SessionClasses(kube, handler.enqueue, self._on_sync, operator)
        self.backups = BackupCache(kube, namespaces, handler.enqueue, self._on_sync)
        self.network_policies = (
            NetworkPolicies(
                kube, namespaces, network_policy_peers,
                self.classes, handler.enqueue, self._on_sync,
            )
            if network_policy_peers is not None
            else None
        )  # fmt: skip
        self.informers = [self.pods, self.pvcs, self.classes.informer, self.backups.informer]
        if self.network_policies is not None:
            self.informers.append(self.network_policies.informer)
        if self.nodes is not None:
            self.informers.append(self.nodes)
        self.namespaces: Sequence[str | None] = namespaces or (None,)  # None: the whole cluster
        self.start_nodes: dict[str, str] = {}  # nodes that take sessions' pods, with their zones
        self._kube = kube
        self._handler = handler
        self._synced = asyncio.Event()
        self._listed: dict[str | None, bool] = {}  # see ``sessions_listed``
        self._session_of: dict[Key, Key] = {}  # by the key of its pod and claim
        self._pods_on: dict[str, set[Key]] = {}  # by the name of their node
        self._missing_since: dict[str, float] = {}  # nodes that do not exist; the loop's time
        self.updates = UpdateIndex()
        self.rollouts = RolloutIndex()
        self._accounts: dict[str, set[Key]] = {}  # sessions with a valid login, by account
        self._logins: dict[str, set[Key]] = {}  # sessions by the ID of their login
        self._login_of: dict[Key, str] = {}  # the same, by session
        self._duplicates: dict[ClientId, list[Rank]] = {}  # sessions that share a clientId, sorted

    async def run(self) -> None:
        """Run the informers until cancelled."""
        await asyncio.gather(*(informer.run() for informer in self.informers))

    async def wait_for_sync(self) -> None:
        """Return once each namespace is served, or known not to be.

        Until a namespace is served, an object that is missing from the cache means nothing.
        """
        await self._synced.wait()

    @property
    def is_synced(self) -> bool:
        return self._synced.is_set()

    def is_watched(self, namespace: str | None) -> bool:
        """Return whether a namespace is among those that are to be served."""
        return namespace in self.namespaces or None in self.namespaces

    def is_served(self, namespace: str | None) -> bool:
        """Return whether the sessions of a namespace can be reconciled.

        All of them, their pods and their claims have to be cached and watched. The API server may
        reject the rest (classes, NetworkPolicies, nodes): sessions do not start then, or stay on a
        lost node, and are reconciled otherwise.
        """
        if not self.is_watched(namespace):
            return False
        listed = self._listed.get(namespace) or self._listed.get(None)
        objects = all(informer.has_synced(namespace) for informer in (self.pods, self.pvcs))
        return (
            bool(listed)
            and objects
            and all(
                informer.has_synced(namespace) or informer.rejection(namespace) is not None
                for informer in self.informers
            )
        )

    def is_settled(self, namespace: str | None) -> bool:
        """Return whether a namespace is served, or known not to be."""
        objects = (self.pods, self.pvcs)
        rejected = any(informer.rejection(namespace) is not None for informer in objects)
        unlisted = self._listed.get(namespace) is False
        return rejected or unlisted or self.is_served(namespace)

    def rejection(self, namespace: str | None) -> str | None:
        """Return why the API server does not let a namespace be served in full, if so."""
        errors = (informer.rejection(namespace) for informer in self.informers)
        return next(filter(None, errors), None)

    def sessions_listed(self, namespace: str | None, *, known: bool) -> None:
        """Note that all sessions of a namespace are known; or not, as they cannot be listed."""
        if self._listed.get(namespace) is not known:
            self._listed[namespace] = known
            self._on_sync(namespace)

    def _on_sync(self, namespace: str | None) -> None:
        if all(map(self.is_settled, self.namespaces)):
            self._synced.set()
        self._handler.on_sync(namespace)

    # --- sessions ---------------------------------------------------------------------------------

    def session_event(self, event_type: str | None, obj: Manifest) -> None:
        """Take in an event of the sessions' watch.

        kopf delivers the events of each session in order, but not those of two sessions that have
        had the same name: the later version counts.
        """
        if event_type == "DELETED":
            self.delete_session(key_of(obj), obj["metadata"]["uid"])
            return
        before = self.sessions.get(key_of(obj))
        if self.upsert_session(obj):
            self._handler.on_upsert(before, self.sessions[key_of(obj)])

    def upsert_session(self, obj: Manifest) -> bool:
        """Store a session, be it the API server's response to a write; False if it is outdated."""
        key = key_of(obj)
        before = self.sessions.get(key)
        if before is not None and is_newer(
            before["metadata"]["resourceVersion"], obj["metadata"]["resourceVersion"]
        ):
            return False
        self.counts[shard_of(key, len(self.counts))].replace(key, before, obj)
        self.sessions[key] = cache_transform.session(obj)
        self._session_of[object_key(key)] = key
        self.classes.upsert_session(key, before, obj)
        self.backups.upsert_session(key, obj)
        self.updates.observe(key, before, obj)
        self.rollouts.observe(key, obj)
        self._update_account(key, _account(before), _account(obj))
        self._update_login(key)
        place = _client_id(obj), rank_of(key, obj)
        if before is None:
            self._add_duplicate(*place)
        elif (former := (_client_id(before), rank_of(key, before))) != place:
            self._remove_duplicate(*former)
            self._add_duplicate(*place)
        return True

    async def refresh_session(self, key: Key) -> None:
        """Read a session that is not as it is cached: its watch is behind.

        It may be gone, or another one may have its name.
        """
        obj, cached = await self._kube.get(SESSIONS, *key), self.sessions.get(key)
        if cached is None:
            return
        uid = cached["metadata"]["uid"]
        if obj is None:
            self.delete_session(key, uid)
        elif obj["metadata"]["uid"] != uid:
            self.session_event("ADDED", obj)
        else:
            self.upsert_session(obj)

    def delete_session(self, key: Key, uid: str) -> None:
        """Remove a session; another one that has the same name by now stays."""
        session = self.sessions.get(key)
        if session is not None and session["metadata"]["uid"] == uid:
            del self.sessions[key]
            self.counts[shard_of(key, len(self.counts))].replace(key, session, None)
            self._session_of.pop(object_key(key), None)
            self.classes.delete_session(key, session)
            self.backups.delete_session(key)
            self._remove_duplicate(_client_id(session), rank_of(key, session))
            self.updates.observe(key, session, None)
            self.rollouts.observe(key, None)
            self._update_account(key, _account(session), None)
            self._update_login(key)
        self._handler.on_delete(key, uid)

    async def list_sessions(self, namespace: str | None) -> dict[Key, Manifest]:
        """Return the sessions that the API server has now, with their metadata only."""
        sessions: dict[Key, Manifest] = {}
        async for page in self._kube.pages(
            SESSIONS, namespace, metadata=True, page_size=METADATA_PAGE
        ):
            sessions |= {key_of(item): cache_transform.session(item) for item in page["items"]}
        return sessions

    def conflicting_session(self, key: Key) -> str | None:
        """Return the oldest session with the same owner and clientId, if it is another one.

        None for a session that was deleted meanwhile; the same goes for ``sharing_account``.
        """
        session = self.sessions.get(key)
        oldest = self._oldest(_client_id(session)) if session is not None else None
        return None if oldest in (None, key) else oldest[1]

    def sharing_account(self, key: Key) -> Key | None:
        """Return another session whose valid login is of the same account, the first by name.

        Logins whose IDs are known are told apart by these: two of one account may be in use.
        """
        session = self.sessions.get(key)
        account, login = _account(session), login_of(session)
        others = self._accounts[account] - {key} if account is not None else set()
        unknown = {
            other for other in others if login is None or login_of(self.sessions[other]) is None
        }
        return min(unknown, default=None)

    def with_login(self, login: str | None, key: Key) -> list[Key]:
        """Return the sessions other than ``key`` that have a login, or are about to get it."""
        return sorted(self._logins.get(login or "", set()) - {key})

    def is_stopped(self, key: Key) -> bool:
        """Return whether a session is suspended, and has no pod."""
        session = self.sessions.get(key)
        suspended = session is None or bool((session.get("spec") or {}).get("suspend"))
        return suspended and object_key(key) not in self.pods.objects

    def login_of(self, key: Key) -> str | None:
        """Return the ID of a session's login: its claim has one before its status does."""
        session = self.sessions.get(key)
        if session is None:
            return None
        return login_of(session) or noted_login(self.pvcs.objects.get(object_key(key)))

    def _update_login(self, key: Key) -> None:
        """Note whose login a session has, and enqueue those that have or had the same."""
        before, after = self._login_of.get(key), self.login_of(key)
        if before == after:
            return
        if before is not None:
            del self._login_of[key]
            self._logins[before].discard(key)
            if not self._logins[before]:
                del self._logins[before]
        if after is not None:
            self._login_of[key] = after
            self._logins.setdefault(after, set()).add(key)
        for login in filter(None, (before, after)):
            for other in self.with_login(login, key):
                self._handler.enqueue(other)

    def _update_account(self, key: Key, before: str | None, after: str | None) -> None:
        if before == after:
            return
        if before is not None:
            self._accounts[before].discard(key)
        if after is not None:
            self._accounts.setdefault(after, set()).add(key)
        for account in filter(None, (before, after)):
            for other in self._accounts[account] - {key}:
                self._handler.enqueue(other)
        if before is not None and not self._accounts[before]:
            del self._accounts[before]

    def _add_duplicate(self, client_id: ClientId, rank: Rank) -> None:
        before = self._oldest(client_id)
        bisect.insort(self._duplicates.setdefault(client_id, []), rank)
        self._enqueue_duplicates(client_id, before)

    def _remove_duplicate(self, client_id: ClientId, rank: Rank) -> None:
        before, ranks = self._oldest(client_id), self._duplicates[client_id]
        del ranks[bisect.bisect_left(ranks, rank)]
        self._enqueue_duplicates(client_id, before)
        if not self._duplicates[client_id]:
            del self._duplicates[client_id]

    def _oldest(self, client_id: ClientId) -> Key | None:
        duplicates = self._duplicates.get(client_id)
        return duplicates[0][-1] if duplicates else None

    def _enqueue_duplicates(self, client_id: ClientId, before: Key | None) -> None:
        """Enqueue the sessions with a clientId if ``before`` is not the oldest of them any more.

        A new one that is younger concerns no other: there may be thousands.
        """
        if self._oldest(client_id) != before:
            for *_, key in list(self._duplicates[client_id]):
                self._handler.enqueue(key)

    # --- the objects of sessions ------------------------------------------------------------------

    async def node_of(self, pod: Manifest) -> Node | None:
        """Return the pod's node, or None while it is not known: also if nodes cannot be watched.

        One that the informer does not have is read, as it may be new. It is gone when it has been
        missing for as long as the pod garbage collector waits too: whoever re-creates the Node
        object of a running machine, such as a kubelet that registers again, does it at once.
        """
        name = _node_name(pod)
        if name is None or self.nodes is None or self.nodes.rejection(None) is not None:
            return None
        node = self.nodes.objects.get(("", name)) or await self._kube.get(NODES, None, name)
        if node is None:
            return Node(name, gone=True) if self._is_gone(name) else None
        self._missing_since.pop(name, None)
        taints = [taint["key"] for taint in node["spec"].get("taints") or []]
        return Node(
            name, not_ready_since=_not_ready_since(node), out_of_service=OUT_OF_SERVICE in taints
        )

    def _is_gone(self, node: str) -> bool:
        """Return whether a missing node has been missing for long enough; else check again then."""
        loop = asyncio.get_running_loop()
        if node not in self._missing_since:
            self._missing_since[node] = loop.time()
            loop.call_later(NODE_QUARANTINE + 0.1, self._enqueue_pods_on, node)
            return False
        return loop.time() - self._missing_since[node] >= NODE_QUARANTINE

    def _pod_changed(self, before: Manifest | None, after: Manifest | None) -> None:
        old_node, new_node = _node_name(before), _node_name(after)
        if old_node != new_node:
            if before is not None and old_node is not None:
                self._pods_on[old_node].discard(key_of(before))
                if not self._pods_on[old_node]:
                    del self._pods_on[old_node]
                    self._missing_since.pop(old_node, None)
                    self._update_start_node(old_node)
            if after is not None and new_node is not None:
                self._pods_on.setdefault(new_node, set()).add(key_of(after))
                if len(self._pods_on[new_node]) == 1:
                    self._update_start_node(new_node)
        if self.network_policies is not None:
            self.network_policies.pod_changed(before, after)
        self._object_changed(before, after)

    def _claim_changed(self, before: Manifest | None, after: Manifest | None) -> None:
        obj = after or before
        assert obj is not None
        if (session := self._session_of.get(key_of(obj))) is not None:
            self._update_login(session)
        self._object_changed(before, after)

    def _object_changed(self, before: Manifest | None, after: Manifest | None) -> None:
        obj = after or before
        assert obj is not None
        if before is not None and after is not None and _content(before) == _content(after):
            return
        session = self._session_of.get(key_of(obj))
        if session is not None:
            self._handler.enqueue(session)

    def _node_changed(self, before: Manifest | None, after: Manifest | None) -> None:
        """Enqueue the node's sessions when its readiness or taints change, not for heartbeats."""
        node = after or before
        assert node is not None
        self._update_start_node(node["metadata"]["name"])
        if before is not None and after is not None and _health(before) == _health(after):
            return
        self._enqueue_pods_on(node["metadata"]["name"])

    def _on_nodes_sync(self, namespace: str | None) -> None:
        assert self.nodes is not None
        for _, name in self.nodes.objects:
            self._update_start_node(name)
        self._on_sync(namespace)

    def _update_start_node(self, name: str) -> None:
        """Note whether a node takes sessions' pods; no node is known to while none is watched."""
        node = None
        if self.nodes is not None and self.nodes.rejection(None) is None:
            node = self.nodes.objects.get(("", name))
        zone = None if node is None else _start_zone(node, has_sessions=name in self._pods_on)
        if zone == self.start_nodes.get(name):
            return
        if zone is None:
            del self.start_nodes[name]
        else:
            self.start_nodes[name] = zone
        self._handler.on_start_node(name, zone)

    def _enqueue_pods_on(self, node: str) -> None:
        for key in self._pods_on.get(node, ()):
            if key in self._session_of:
                self._handler.enqueue(self._session_of[key])


def requested(session: Manifest) -> tuple[object, ...]:
    """Return what users request of a cached session: all but its finalizers and status."""
    fields = ("uid", "generation", "annotations", "deletionTimestamp")
    return tuple(session["metadata"].get(field) for field in fields)


def is_released(session: Manifest) -> bool:
    """Return whether a session is being deleted and no longer has the operator's finalizer."""
    finalizers = session["metadata"].get("finalizers", ())
    return is_terminating(session) and names.FINALIZER not in finalizers


def object_key(session: Key) -> Key:
    """Return the key of a session's pod and volume claim."""
    return session[0], names.object_name(session[1])


def _client_id(session: Manifest) -> ClientId:
    """Return what identifies a session to applications."""
    metadata, spec = session["metadata"], session.get("spec") or {}
    return metadata["namespace"], spec.get("owner"), spec.get("clientId") or metadata["name"]


def _account(session: Manifest | None) -> str | None:
    """Return the account of a session's valid login, if it has one."""
    status = (session or {}).get("status") or {}
    account: str | None = (status.get("account") or {}).get("id")
    return account if status.get("sessionValid") else None


def login_of(session: Manifest | None) -> str | None:
    """Return the ID of the login that a session has, or is being restored with."""
    status = (session or {}).get("status") or {}
    bootstrap = status.get("bootstrap") or {}
    login: str | None = status.get("loginID") if status.get("sessionValid") else None
    if bootstrap.get("state") == BootstrapState.RESTORING or login is None:
        login = bootstrap.get("loginID") if bootstrap.get("state") in HAS_LOGIN else None
    return login


def noted_login(pvc: Manifest | None) -> str | None:
    """Return the ID of the login on a claim's volume, as the claim notes it."""
    annotations = {} if pvc is None else pvc["metadata"].get("annotations") or {}
    login: str | None = annotations.get(names.ANNOTATION_LOGIN_ID)
    return login or None


def _content(obj: Manifest) -> Manifest:
    """Return everything cached of an object except its version."""
    return {**obj, "metadata": {**obj["metadata"], "resourceVersion": None}}


def _node_name(pod: Manifest | None) -> str | None:
    return None if pod is None else pod["spec"].get("nodeName")


def _start_zone(node: Manifest, *, has_sessions: bool) -> str | None:
    """Return the zone of a node that takes sessions' pods, "" if it has none; else None.

    Sessions tolerate the taints of a node, except those for its conditions, if some are there.
    """
    spec = node["spec"]
    taints = [t["key"] for t in spec.get("taints") or [] if t["effect"] != "PreferNoSchedule"]
    tolerated = has_sessions and not any(taint.startswith(CONDITION_TAINTS) for taint in taints)
    if spec.get("unschedulable") or _not_ready_since(node) is not None:
        return None
    if taints and not tolerated:
        return None
    zone: str = node["metadata"].get("labels", {}).get(cache_transform.LABEL_ZONE, "")
    return zone


def _health(node: Manifest) -> tuple[object, ...]:
    return _not_ready_since(node), str(node["spec"].get("taints"))


def _not_ready_since(node: Manifest) -> datetime | None:
    """Return since when a node has not been Ready; None for one that is."""
    ready = condition(node, "Ready")
    if not ready or ready["status"] == "True":
        return None
    return datetime.fromisoformat(ready["lastTransitionTime"])
