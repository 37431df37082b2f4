"""Sessions and their objects, in whatever order their events come."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import pytest
from wasession_api.kube.client import KubeClient, Resource
from wasession_api.kube.manifests import Key, Manifest
from wasession_operator import cache_transform, cluster_cache, metrics
from wasession_operator.cluster_cache import ClusterCache
from wasession_operator.sharding.lease import shard_of

KEY = ("ns", "sales")


class Api:
    """An API server that has only nodes, or what else is given."""

    def __init__(self, *nodes: Manifest) -> None:
        self.nodes = {node["metadata"]["name"]: node for node in nodes}

    async def get(self, _resource: Resource, _namespace: str | None, name: str) -> Manifest | None:
        return self.nodes.get(name)


class Handler:
    """Records what the cache calls."""

    def __init__(self) -> None:
        self.enqueued: list[Key] = []
        self.upserted: list[tuple[Manifest | None, Manifest]] = []
        self.deleted: list[tuple[Key, str]] = []
        self.synced: list[str | None] = []
        self.start_nodes: list[tuple[str, str | None]] = []

    def enqueue(self, key: Key) -> None:
        self.enqueued.append(key)

    def on_upsert(self, before: Manifest | None, after: Manifest) -> None:
        self.upserted.append((before, after))

    def on_delete(self, key: Key, uid: str) -> None:
        self.deleted.append((key, uid))

    def on_sync(self, namespace: str | None) -> None:
        self.synced.append(namespace)

    def on_start_node(self, name: str, zone: str | None) -> None:
        self.start_nodes.append((name, zone))


def make_cache(*nodes: Manifest) -> tuple[ClusterCache, Handler]:
    handler = Handler()
    kube = cast(KubeClient, Api(*nodes))
    return ClusterCache(kube, [], handler, watch_nodes=True), handler


def session(
    version: int,
    uid: str = "uid-1",
    name: str = "sales",
    created: str = "2026-01-02T03:04:05Z",
    **spec: Any,
) -> Manifest:
    metadata = {
        "name": name,
        "namespace": "ns",
        "uid": uid,
        "resourceVersion": str(version),
        "creationTimestamp": created,
    }
    return {"metadata": metadata, "spec": spec}


def pod(version: int, node: str | None, name: str = "sales", **metadata: Any) -> Manifest:
    fixed = {
        "name": f"wasession-{name}",
        "namespace": "ns",
        "uid": f"pod-of-{name}",
        "resourceVersion": str(version),
    }
    return {
        "kind": "Pod",
        "metadata": fixed | metadata,
        "spec": {"nodeName": node} if node else {},
        "status": {},
    }


def node(ready: str = "True", taints: tuple[str, ...] = ()) -> Manifest:
    condition = {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-02T03:04:05Z"}
    spec = {"taints": [{"key": taint, "effect": "NoExecute"} for taint in taints]}
    return {"metadata": {"name": "node-1"}, "spec": spec, "status": {"conditions": [condition]}}


def test_the_latest_version_counts() -> None:
    cache, _ = make_cache()
    cache.upsert_session(session(5))
    cache.upsert_session(session(7, suspend=True))
    assert cache.sessions[KEY]["spec"] == {"suspend": True}
    cache.delete_session(KEY, "uid-1")
    assert cache.sessions == {}


def test_late_events_of_an_earlier_session_of_the_same_name_are_ignored() -> None:
    """kopf delivers them in order for each UID only."""
    cache, _ = make_cache()
    cache.upsert_session(session(5, uid="old"))
    cache.upsert_session(session(9, uid="new"))
    cache.upsert_session(session(8, uid="old"))
    cache.delete_session(KEY, "old")
    assert cache.sessions[KEY]["metadata"]["uid"] == "new"


async def test_a_session_that_is_read_again_may_be_another_one_or_gone() -> None:
    api, handler = Api(session(9, uid="uid-2")), Handler()
    cache = ClusterCache(cast(KubeClient, api), [], handler, watch_nodes=True)
    cache.session_event("ADDED", session(5))
    await cache.refresh_session(KEY)
    assert handler.upserted[-1][1]["metadata"]["uid"] == "uid-2"
    api.nodes.clear()
    await cache.refresh_session(KEY)
    assert handler.deleted == [(KEY, "uid-2")]
    assert KEY not in cache.sessions


def test_only_watch_events_call_the_handler() -> None:
    cache, handler = make_cache()
    cache.session_event(None, session(5))
    cache.upsert_session(session(6))
    cache.session_event("MODIFIED", session(5))
    cache.session_event("MODIFIED", session(6))
    versions = [
        (before and before["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"])
        for before, after in handler.upserted
    ]
    assert versions == [(None, "5"), ("6", "6")], "and no outdated ones"
    cache.session_event("DELETED", session(7))
    assert handler.deleted == [(KEY, "uid-1")]
    assert KEY not in cache.sessions


def test_the_older_session_has_the_client_id() -> None:
    cache, handler = make_cache()
    other = ("ns", "other")
    cache.upsert_session(session(6, "uid-2", "other", created="2026-01-02T03:04:06Z", clientId="x"))
    cache.upsert_session(session(5, clientId="x", created="2026-01-02T03:04:05Z"))
    assert cache.conflicting_session(KEY) is None
    assert cache.conflicting_session(other) == "sales"
    assert handler.enqueued.count(other) > 1, (
        "the younger one is reconciled again, though it came first"
    )
    handler.enqueued.clear()
    cache.delete_session(KEY, "uid-1")
    assert cache.conflicting_session(other) is None
    assert other in handler.enqueued, "it has no duplicate any more"


def test_a_younger_duplicate_is_no_reason_to_reconcile_the_others() -> None:
    """A tenant who creates thousands of them would have all of them reconciled each time."""
    cache, handler = make_cache()
    names = [f"copy-{number}" for number in range(3)]
    for second, name in enumerate(names):
        created = f"2026-01-02T03:04:0{second}Z"
        cache.upsert_session(session(second + 1, name, name, created, clientId="x"))
    handler.enqueued.clear()
    cache.upsert_session(session(8, "last", "last", "2026-01-02T03:04:09Z", clientId="x"))
    cache.delete_session(("ns", "last"), "last")
    assert handler.enqueued == []
    cache.delete_session(("ns", names[0]), names[0])
    assert set(handler.enqueued) == {("ns", name) for name in names[1:]}


def test_a_session_that_is_gone_shares_nothing() -> None:
    """It may be deleted while its facts are gathered."""
    cache, _ = make_cache()
    cache.upsert_session(linked(1, "sales", "1@c.us"))
    cache.delete_session(KEY, "uid-of-sales")
    assert cache.conflicting_session(KEY) is None
    assert cache.sharing_account(KEY) is None


def test_a_successor_of_the_same_name_has_its_own_age() -> None:
    cache, _ = make_cache()
    other = ("ns", "other")
    cache.upsert_session(session(5, clientId="x", created="2026-01-02T03:04:05Z"))
    cache.upsert_session(session(6, "uid-2", "other", created="2026-01-02T03:04:06Z", clientId="x"))
    cache.upsert_session(session(9, "uid-3", clientId="x", created="2026-01-02T03:04:07Z"))
    assert cache.conflicting_session(KEY) == "other"
    assert cache.conflicting_session(other) is None


def linked(version: int, name: str, account: str, *, valid: bool = True) -> Manifest:
    status = {"account": {"id": account}, "sessionValid": valid}
    return {**session(version, f"uid-of-{name}", name), "status": status}


def test_sessions_with_a_login_of_one_account_are_known_to_each_other() -> None:
    cache, handler = make_cache()
    original, copy = ("ns", "original"), ("ns", "copy")
    cache.upsert_session(linked(1, "original", "1@c.us"))
    assert cache.sharing_account(original) is None
    handler.enqueued.clear()
    cache.upsert_session(linked(2, "copy", "1@c.us"))
    assert original in handler.enqueued
    assert cache.sharing_account(original) == copy
    assert cache.sharing_account(copy) == original
    handler.enqueued.clear()
    cache.upsert_session(linked(3, "copy", "1@c.us", valid=False))
    assert original in handler.enqueued
    assert cache.sharing_account(original) is None
    cache.upsert_session(linked(4, "copy", "2@c.us"))
    assert cache.sharing_account(copy) is None
    cache.upsert_session(linked(5, "copy", "1@c.us"))
    cache.delete_session(original, "uid-of-original")
    assert cache.sharing_account(copy) is None


def test_two_owners_may_use_one_client_id() -> None:
    cache, handler = make_cache()
    other = ("ns", "other")
    cache.upsert_session(session(5, clientId="x", owner="a", created="2026-01-02T03:04:05Z"))
    cache.upsert_session(
        session(6, "uid-2", "other", created="2026-01-02T03:04:06Z", clientId="x", owner="b")
    )
    assert cache.conflicting_session(other) is None
    cache.upsert_session(
        session(7, "uid-2", "other", created="2026-01-02T03:04:06Z", clientId="x", owner="a")
    )
    assert cache.conflicting_session(other) == "sales"
    handler.enqueued.clear()
    cache.upsert_session(session(8, clientId="x", owner="b", created="2026-01-02T03:04:05Z"))
    assert cache.conflicting_session(other) is None
    assert other in handler.enqueued


@pytest.mark.parametrize(
    ("obj", "silent", "out_of_service"),
    [
        (node(), False, False),
        (node("Unknown"), True, False),
        (node("False", ("node.kubernetes.io/out-of-service",)), True, True),
    ],
)
async def test_a_node_is_read_from_the_api_server_if_the_informer_does_not_have_it(
    obj: Manifest, silent: bool, out_of_service: bool
) -> None:
    cache, _ = make_cache(obj)
    result = await cache.node_of({"spec": {"nodeName": "node-1"}})
    assert result is not None
    assert not result.gone
    assert (result.not_ready_since is not None, result.out_of_service) == (silent, out_of_service)
    assert await cache.node_of({"spec": {}}) is None


async def test_a_missing_node_is_gone_only_after_a_quarantine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache, handler = make_cache()
    api = cast(Api, cache._kube)
    present = pod(7, "node-1")
    cache.upsert_session(session(5))
    cache.pods._watches[None].version = "1"
    cache.pods.upsert(present)
    assert await cache.node_of(present) is None
    assert await cache.node_of(present) is None, "it has just been deleted"
    api.nodes["node-1"] = node()
    assert await cache.node_of(present) is not None, "and is there again"
    api.nodes.clear()
    monkeypatch.setattr(cluster_cache, "NODE_QUARANTINE", 0.0)
    checked = asyncio.Event()
    monkeypatch.setattr(handler, "enqueue", lambda key: checked.set() if key == KEY else None)
    assert await cache.node_of(present) is None
    async with asyncio.timeout(60):
        await checked.wait()
    result = await cache.node_of(present)
    assert result is not None
    assert result.gone


def test_a_change_of_a_node_enqueues_its_sessions() -> None:
    cache, handler = make_cache()
    cache.upsert_session(session(5))
    cache.upsert_session(session(6, "uid-2", "other"))
    cache.pods._watches[None].version = "1"
    cache.pods.upsert(pod(7, None))
    cache.pods.upsert(pod(8, "node-1"))
    cache.pods.upsert(pod(9, "node-2", "other"))
    handler.enqueued.clear()
    cache._node_changed(node(), node("Unknown"))
    assert handler.enqueued == [KEY]
    cache.pods._remove(("ns", "wasession-sales"), pod(10, "node-1"))
    handler.enqueued.clear()
    cache._node_changed(node("Unknown"), None)
    assert handler.enqueued == []


@pytest.mark.parametrize(
    ("changes", "zone"),
    [
        ({}, ""),
        ({"labels": {"topology.kubernetes.io/zone": "eu-1a"}}, "eu-1a"),
        ({"unschedulable": True}, None),
        ({"ready": "False"}, None),
        ({"ready": "Unknown"}, None),
        ({"taints": [("node.kubernetes.io/disk-pressure", "NoSchedule")]}, None),
        ({"taints": [("node-role.kubernetes.io/control-plane", "NoSchedule")]}, None),
        ({"taints": [("dedicated", "NoExecute")]}, None),
        ({"taints": [("dedicated", "PreferNoSchedule")]}, ""),
    ],
)
def test_nodes_that_take_pods_have_a_start_budget(
    changes: dict[str, Any], zone: str | None
) -> None:
    cache, handler = make_cache()
    assert cache.nodes is not None
    cache.nodes._upsert(("", "node-1"), start_node(1, **changes))
    assert cache.start_nodes == ({} if zone is None else {"node-1": zone})
    cache.nodes._upsert(("", "node-1"), start_node(2, labels={"topology.kubernetes.io/zone": "b"}))
    called = len(handler.start_nodes)
    cache.nodes._upsert(("", "node-1"), start_node(3, labels={"topology.kubernetes.io/zone": "b"}))
    assert len(handler.start_nodes) == called, "heartbeats change nothing"
    cache.nodes._remove(("", "node-1"), start_node(3))
    assert handler.start_nodes[-2:] == [("node-1", "b"), ("node-1", None)]
    assert cache.start_nodes == {}


def test_a_tainted_node_takes_pods_while_sessions_are_there() -> None:
    """They tolerate its taint; no session tolerates what Kubernetes marks a node's state with."""
    cache, handler = make_cache()
    assert cache.nodes is not None
    cache.pods._watches[None].version = "1"
    dedicated = ("dedicated", "NoSchedule")
    cache.nodes._upsert(("", "node-1"), start_node(1, taints=[dedicated]))
    cache.pods.upsert(pod(7, "node-1"))
    assert cache.start_nodes == {"node-1": ""}
    pressure = ("node.kubernetes.io/memory-pressure", "NoSchedule")
    cache.nodes._upsert(("", "node-1"), start_node(2, taints=[dedicated, pressure]))
    assert cache.start_nodes == {}
    cache.nodes._upsert(("", "node-1"), start_node(3, taints=[dedicated]))
    assert cache.start_nodes == {"node-1": ""}
    cache.pods._remove(("ns", "wasession-sales"), pod(8, "node-1"))
    assert handler.start_nodes[-1] == ("node-1", None)


def test_nodes_that_are_not_watched_any_more_have_no_start_budget() -> None:
    cache, handler = make_cache()
    assert cache.nodes is not None
    cache.nodes._accept(None)
    cache.nodes._upsert(("", "node-1"), start_node(1))
    cache.nodes._reject(None, "nodes is forbidden")
    assert (cache.start_nodes, handler.start_nodes[-1]) == ({}, ("node-1", None))
    cache.nodes._accept(None)
    assert (cache.start_nodes, handler.start_nodes[-1]) == ({"node-1": ""}, ("node-1", ""))


def start_node(
    version: int,
    *,
    ready: str = "True",
    unschedulable: bool = False,
    labels: dict[str, str] | None = None,
    taints: Sequence[tuple[str, str]] = (),
) -> Manifest:
    """Return a node as the API server has it; taints are keys and effects."""
    obj = node(ready)
    obj["metadata"] |= {
        "uid": "uid-of-node",
        "resourceVersion": str(version),
        "labels": {"kubernetes.io/hostname": "node-1", **(labels or {})},
    }
    obj["spec"]["taints"] = [{"key": key, "effect": effect} for key, effect in taints]
    obj["spec"]["unschedulable"] = unschedulable
    return cache_transform.node(obj)


def test_a_namespace_is_served_once_all_informers_have_it() -> None:
    handler = Handler()
    cache = ClusterCache(cast(KubeClient, Api()), ["a", "b"], handler, watch_nodes=True)
    assert cache.nodes is not None
    cache.nodes._accept(None)
    cache.classes.informer._accept(None)
    for namespace in ("a", "b"):
        cache.backups.informer._accept(namespace)
    cache.pods._accept("a")
    assert not cache.is_served("a")
    cache.pvcs._accept("a")
    assert not cache.is_served("a"), "not all of its sessions are known"
    cache.sessions_listed("a", known=True)
    assert cache.is_served("a")
    assert handler.synced[-1] == "a"
    assert not cache.is_synced, "nothing is known of the other one"
    cache.pods._reject("b", "pods is forbidden")
    assert cache.is_synced
    assert (cache.is_served("b"), cache.rejection("b")) == (False, "pods is forbidden")
    assert cache.rejection("a") is None
    for informer in (cache.pods, cache.pvcs):
        informer._accept("b")
    assert not cache.is_served("b")
    cache.sessions_listed("b", known=True)
    assert cache.is_served("b")
    assert handler.synced[-1] == "b"


def test_sessions_that_cannot_be_listed_hold_up_no_other_namespace() -> None:
    handler = Handler()
    cache = ClusterCache(cast(KubeClient, Api()), ["a", "b"], handler, watch_nodes=False)
    for informer in cache.informers:
        for scope in ("a", "b") if informer.resource.namespaced else (None,):
            informer._accept(scope)
    cache.sessions_listed("a", known=True)
    assert (cache.is_settled("b"), cache.is_synced) == (False, False)
    cache.sessions_listed("b", known=False)
    assert (cache.is_settled("b"), cache.is_served("b")) == (True, False)
    assert (cache.is_served("a"), cache.is_synced) == (True, True)
    called = len(handler.synced)
    cache.sessions_listed("b", known=False)
    assert len(handler.synced) == called, "nothing has changed"
    cache.sessions_listed("b", known=True)
    assert cache.is_served("b")
    assert handler.synced[called:] == ["b"]


@pytest.mark.parametrize("listed", [True, False], ids=["later", "from the beginning"])
async def test_only_pods_and_claims_are_needed_to_serve_a_namespace(listed: bool) -> None:
    """Without the CRD of classes, or the right to list nodes, sessions can still be deleted."""
    handler = Handler()
    kube = cast(KubeClient, Api(node()))
    cache = ClusterCache(kube, ["a"], handler, watch_nodes=True, network_policy_peers=[])
    assert cache.nodes is not None
    assert cache.network_policies is not None
    cache.sessions_listed("a", known=True)
    cache.pods._accept("a")
    cache.pvcs._accept("a")
    others = cache.classes.informer, cache.nodes, cache.network_policies.informer
    for informer in (*others, cache.backups.informer):
        scope = "a" if informer.resource.namespaced else None
        if listed:
            informer._accept(scope)
        else:
            assert not cache.is_settled("a")
        informer._reject(scope, f"{informer.resource.plural} is forbidden")
    assert cache.is_served("a")
    assert cache.is_settled("a")
    assert cache.is_synced
    assert cache.rejection("a") == "whatsappsessionclasses is forbidden"
    assert cache.classes.rejection == (None if listed else "whatsappsessionclasses is forbidden")
    assert await cache.node_of(pod(7, "node-1")) is None, "what is cached may be outdated"
    cache.pods._reject("a", "pods is forbidden")
    assert (cache.is_served("a"), cache.is_settled("a")) == (False, True)


def test_heartbeats_of_a_node_enqueue_nothing() -> None:
    cache, handler = make_cache()
    cache.upsert_session(session(5))
    cache.pods._watches[None].version = "1"
    cache.pods.upsert(pod(7, "node-1"))
    handler.enqueued.clear()
    later = node()
    later["status"]["conditions"][0]["lastHeartbeatTime"] = "2026-01-02T03:05:05Z"
    cache._node_changed(node(), later)
    assert handler.enqueued == []


def test_sessions_are_counted_as_they_change() -> None:
    cache, _ = make_cache()

    def with_status(version: int, name: str, phase: str, *, valid: bool) -> Manifest:
        status = {"phase": phase, "sessionValid": valid}
        return {**session(version, f"uid-of-{name}", name), "status": status}

    cache.upsert_session(session(1, "uid-of-a", "a"))
    for name in ("a", "b"):
        cache.upsert_session(with_status(5, name, "Ready", valid=True))
    [counts] = cache.counts
    assert (counts.phases["Ready"], counts.valid) == (2, 2)
    cache.upsert_session(with_status(4, "b", "Pending", valid=False))
    cache.upsert_session(with_status(6, "a", "LoggedOut", valid=False))
    assert (counts.phases["Ready"], counts.valid) == (1, 1)
    cache.delete_session(("ns", "b"), "uid-of-b")
    cache.delete_session(("ns", "b"), "uid-of-b")
    assert +counts.phases == {"LoggedOut": 1}
    assert counts.valid == 0


def test_what_needs_attention_is_counted_until_it_is_over() -> None:
    cache, _ = make_cache()
    [counts] = cache.counts

    def receive(version: int, phase: str, **conditions: tuple[str, str]) -> None:
        listed = [
            {"type": kind, "status": status, "reason": reason}
            for kind, (status, reason) in conditions.items()
        ]
        status = {"phase": phase, "conditions": listed}
        cache.upsert_session({**session(version), "status": status})

    receive(5, "Failed", Ready=("False", "OOMKilled"), Degraded=("True", "OOMKilled"))
    assert counts.problems == {KEY: (("Ready", "OOMKilled"), ("Degraded", "OOMKilled"))}
    receive(6, "Ready", Ready=("True", "Connected"), Delivering=("False", "DeliveryFailing"))
    assert counts.problems == {KEY: (("Delivering", "DeliveryFailing"),)}
    receive(7, "Suspended", Ready=("False", "Suspended"), Degraded=("False", "AsExpected"))
    assert counts.problems == {}
    receive(8, "Pending", Ready=("False", "Unschedulable"))
    cache.delete_session(KEY, "uid-1")
    assert counts.problems == {}


def test_the_series_of_sessions_are_limited_to_those_longest_in_trouble() -> None:
    def failed(number: int) -> Manifest:
        ready = {"type": "Ready", "status": "False", "reason": "OOMKilled"}
        return {"status": {"phase": "Failed", "conditions": [ready]}}

    def shown() -> set[str]:
        [metric] = metrics.SESSION_CONDITION.collect()
        return {sample.labels["name"] for sample in metric.samples}

    counts = [metrics.SessionCounts(), metrics.SessionCounts()]
    for number in range(3):
        for index, count in enumerate(counts):
            count.replace(("ns", f"{index}-{number}"), None, failed(number))
    counts[0].replace(("ns", "0-0"), failed(0), failed(0))  # changed, and still the first
    metrics.observe_sessions(counts, limit=4)
    assert shown() == {"0-0", "0-1", "0-2", "1-0"}
    [left_out] = metrics.SESSIONS_WITHOUT_SERIES.collect()
    assert left_out.samples[0].value == 2
    counts[0].replace(("ns", "0-1"), failed(1), None)
    metrics.observe_sessions(counts, limit=4)
    assert shown() == {"0-0", "0-2", "1-0", "1-1"}
    metrics.observe_sessions([], limit=4)
    assert shown() == set()


def test_sessions_are_counted_by_shard() -> None:
    cache = ClusterCache(cast(KubeClient, Api()), [], Handler(), shards=3, watch_nodes=False)
    keys = [("ns", f"s-{number}") for number in range(30)]
    for version, (_, name) in enumerate(keys, 1):
        status = {"phase": "Ready", "sessionValid": True}
        cache.upsert_session({**session(version, f"uid-of-{name}", name), "status": status})
    expected = Counter(shard_of(key, 3) for key in keys)
    assert [counts.phases["Ready"] for counts in cache.counts] == [expected[n] for n in range(3)]
    for _, name in keys:
        cache.delete_session(("ns", name), f"uid-of-{name}")
    assert [(counts.phases["Ready"], counts.valid) for counts in cache.counts] == [(0, 0)] * 3


# --- copies of logins -----------------------------------------------------------------------------


def with_login_id(version: int, name: str = "sales", login: str = "l1", **spec: Any) -> Manifest:
    """Return a session with a login that a phone has linked."""
    status = {"sessionValid": True, "loginID": login}
    return {**session(version, uid=f"uid-of-{name}", name=name, **spec), "status": status}


def copy(version: int, name: str, state: str = "Restored", login: str = "l1") -> Manifest:
    """Return a session that was restored with a login."""
    bootstrap = {"loginID": login, "state": state, "at": "2026-01-02T03:04:05Z"}
    made = session(version, uid=f"uid-of-{name}", name=name)
    return {**made, "status": {"bootstrap": bootstrap}}


def test_sessions_with_one_login_know_of_each_other() -> None:
    cache, handler = make_cache()
    cache.upsert_session(with_login_id(1))
    cache.upsert_session(with_login_id(2, "stranger", "l2"))
    for name in ("copy", "second"):
        cache.upsert_session(session(3, uid=f"uid-of-{name}", name=name))
    handler.enqueued.clear()
    cache.upsert_session(copy(4, "copy", "Restoring"))
    assert handler.enqueued == [KEY], "the one whose login it is"
    assert cache.with_login("l1", ("ns", "copy")) == [KEY]
    cache.upsert_session(copy(5, "second"))
    assert cache.with_login("l1", KEY) == [("ns", "copy"), ("ns", "second")]
    assert handler.enqueued[1:] == [("ns", "copy"), KEY]
    cache.upsert_session(copy(6, "copy", "Ended"))
    assert cache.with_login("l1", KEY) == [("ns", "second")], "its login has ended"
    cache.delete_session(("ns", "second"), "uid-of-second")
    assert cache.with_login("l1", KEY) == []
    assert handler.enqueued[-1] == KEY, "it may run again"
    assert cache.with_login(None, KEY) == []


def test_a_login_that_is_valid_no_more_is_nobodys() -> None:
    cache, _ = make_cache()
    ended = with_login_id(1)
    ended["status"]["sessionValid"] = False
    cache.upsert_session(ended)
    assert cache.with_login("l1", ("ns", "copy")) == []


def test_what_is_being_restored_counts_before_what_was_there() -> None:
    cache, _ = make_cache()
    both = with_login_id(1)
    both["status"]["bootstrap"] = copy(1, "sales", "Restoring", "l2")["status"]["bootstrap"]
    cache.upsert_session(both)
    assert cache.with_login("l2", ("ns", "copy")) == [KEY]


def test_a_session_is_stopped_when_it_is_suspended_and_its_pod_is_gone() -> None:
    cache, _ = make_cache()
    cache.upsert_session(session(1, suspend=True))
    assert cache.is_stopped(KEY)
    cache.pods.upsert(pod(2, "node-1"))
    assert not cache.is_stopped(KEY)
    cache.upsert_session(session(3, uid="uid-2", name="other"))
    assert not cache.is_stopped(("ns", "other"))
