"""Sessions and what belongs to them, whatever order the news come in."""

from __future__ import annotations

from typing import Any, cast

import pytest
from wasession_api.kube.client import KubeClient, Resource
from wasession_operator.cluster_cache import Cluster

Manifest = dict[str, Any]
KEY = ("ns", "sales")


class NoApi:
    """Knows the nodes that it was given."""

    def __init__(self, *nodes: Manifest) -> None:
        self.nodes = {node["metadata"]["name"]: node for node in nodes}

    async def get(self, _resource: Resource, _namespace: str | None, name: str) -> Manifest | None:
        return self.nodes.get(name)


def cluster(*nodes: Manifest) -> tuple[Cluster, list[tuple[str, str]]]:
    changed: list[tuple[str, str]] = []
    return Cluster(cast(KubeClient, NoApi(*nodes)), [], changed.append, watch_nodes=True), changed


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


def test_a_session_is_as_it_was_seen_last() -> None:
    known, _ = cluster()
    known.session_seen(session(5))
    known.session_seen(session(7, suspend=True))
    assert known.sessions[KEY]["spec"] == {"suspend": True}
    known.session_gone(KEY, "uid-1")
    assert known.sessions == {}


def test_late_news_of_an_earlier_session_of_the_name_change_nothing() -> None:
    """kopf tells of each session by itself: the end of the one may come after the beginning of the other."""
    known, _ = cluster()
    known.session_seen(session(5, uid="old"))
    known.session_seen(session(9, uid="new"))
    known.session_seen(session(8, uid="old"))
    known.session_gone(KEY, "old")
    assert known.sessions[KEY]["metadata"]["uid"] == "new"


def test_the_older_one_has_the_client_id() -> None:
    known, changed = cluster()
    other = ("ns", "other")
    known.session_seen(session(6, "uid-2", "other", created="2026-01-02T03:04:06Z", clientId="x"))
    known.session_seen(session(5, clientId="x", created="2026-01-02T03:04:05Z"))
    assert known.client_id_of(KEY) is None
    assert known.client_id_of(other) == "sales"
    assert changed.count(other) > 1, "the younger one is told, though it was seen first"
    changed.clear()
    known.session_gone(KEY, "uid-1")
    assert known.client_id_of(other) is None
    assert other in changed, "it is told that it is alone now"


def test_a_session_that_takes_the_place_of_an_older_one_is_as_young_as_it_is() -> None:
    known, _ = cluster()
    other = ("ns", "other")
    known.session_seen(session(5, clientId="x", created="2026-01-02T03:04:05Z"))
    known.session_seen(session(6, "uid-2", "other", created="2026-01-02T03:04:06Z", clientId="x"))
    known.session_seen(session(9, "uid-3", clientId="x", created="2026-01-02T03:04:07Z"))
    assert known.client_id_of(KEY) == "other"
    assert known.client_id_of(other) is None


def test_two_owners_may_use_one_client_id() -> None:
    known, changed = cluster()
    other = ("ns", "other")
    known.session_seen(session(5, clientId="x", owner="a", created="2026-01-02T03:04:05Z"))
    known.session_seen(
        session(6, "uid-2", "other", created="2026-01-02T03:04:06Z", clientId="x", owner="b")
    )
    assert known.client_id_of(other) is None
    known.session_seen(
        session(7, "uid-2", "other", created="2026-01-02T03:04:06Z", clientId="x", owner="a")
    )
    assert known.client_id_of(other) == "sales"
    changed.clear()
    known.session_seen(session(8, clientId="x", owner="b", created="2026-01-02T03:04:05Z"))
    assert known.client_id_of(other) is None
    assert other in changed


@pytest.mark.parametrize(
    ("found", "gone", "silent", "out_of_service"),
    [
        (node(), False, False, False),
        (node("Unknown"), False, True, False),
        (node("False", ("node.kubernetes.io/out-of-service",)), False, True, True),
        (None, True, False, False),
    ],
)
async def test_a_node_is_gone_only_when_the_api_server_says_so(
    found: Manifest | None, gone: bool, silent: bool, out_of_service: bool
) -> None:
    """The watch may not have told of a new one yet."""
    known, _ = cluster(*([found] if found else []))
    seen = await known.node_of({"spec": {"nodeName": "node-1"}})
    assert seen is not None
    assert (seen.gone, seen.silent_since is not None, seen.out_of_service) == (
        gone,
        silent,
        out_of_service,
    )
    assert await known.node_of({"spec": {}}) is None


def test_the_sessions_on_a_node_hear_of_it() -> None:
    known, changed = cluster()
    known.session_seen(session(5))
    known.session_seen(session(6, "uid-2", "other"))
    known.pods._versions[None] = "1"
    known.pods.upsert(pod(7, None))
    known.pods.upsert(pod(8, "node-1"))
    known.pods.upsert(pod(9, "node-2", "other"))
    changed.clear()
    known._node_changed(node(), node("Unknown"))
    assert changed == [KEY]
    known.pods._remove(("ns", "wasession-sales"), pod(10, "node-1"))
    changed.clear()
    known._node_changed(node("Unknown"), None)
    assert changed == []


def test_the_heartbeats_of_a_node_are_no_news() -> None:
    known, changed = cluster()
    known.session_seen(session(5))
    known.pods._versions[None] = "1"
    known.pods.upsert(pod(7, "node-1"))
    changed.clear()
    beaten = node()
    beaten["status"]["conditions"][0]["lastHeartbeatTime"] = "2026-01-02T03:05:05Z"
    known._node_changed(node(), beaten)
    assert changed == []
