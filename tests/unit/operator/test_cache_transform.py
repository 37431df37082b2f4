"""The cache holds little of each object, and the plan misses none of the rest."""

from __future__ import annotations

from typing import Any

import pytest
from unit.operator.situations import (
    NOW,
    SETTINGS,
    VALID,
    facts,
    plan,
    pod,
    pvc,
    report,
    session,
    terminating,
)
from wasession_operator import cache_transform
from wasession_operator.cache_transform import PackedStore

Manifest = dict[str, Any]


def crowded(obj: Manifest) -> Manifest:
    """Return an object with metadata that others have added."""
    metadata = obj["metadata"]
    more = {
        "managedFields": [{"manager": "kubelet"}],
        "labels": {**metadata.get("labels", {}), "team": "sales"},
        "annotations": {
            **metadata.get("annotations", {}),
            "kubectl.kubernetes.io/last-applied-configuration": "{}" * 1000,
        },
    }
    return {**obj, "metadata": {**metadata, "namespace": "ns", "resourceVersion": "7", **more}}


WAITING = {
    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
    "lastState": {"terminated": {"reason": "OOMKilled"}},
}
SIDECAR = {"name": "proxy", "restartCount": 9, "state": {"running": {}}}


@pytest.mark.parametrize(
    "found",
    [
        pod(),
        pod(
            ready=False,
            containerStatuses=[SIDECAR, {"name": "session", "restartCount": 2, **WAITING}],
        ),
        pod(ready=False, phase="Failed", reason="Evicted", message="The node was low on memory."),
        pod(
            ready=False,
            phase="Pending",
            conditions=[{"type": "PodScheduled", "status": "False", "message": "no node"}],
        ),
        terminating(
            pod(conditions=[{"type": "DisruptionTarget", "status": "True", "message": "drained"}])
        ),
    ],
    ids=["well", "crash loop", "evicted", "unschedulable", "disrupted"],
)
@pytest.mark.parametrize(
    "claim", [pvc(), pvc("Lost"), pvc("Pending"), pvc(spec={"storage": {"size": "500Mi"}})]
)
@pytest.mark.parametrize("deleting", [False, True])
def test_the_plan_is_the_same_with_what_is_cached(
    found: Manifest, claim: Manifest, deleting: bool
) -> None:
    asked = session(VALID, deleting=deleting, annotations={"rotate-token": "1"})
    whole = {"pod": crowded(found), "pvc": crowded(claim)}
    reduced = {
        "pod": cache_transform.pod(whole["pod"]),
        "pvc": cache_transform.pvc(whole["pvc"]),
    }
    with_kinds = {name: {**part, "kind": whole[name]["kind"]} for name, part in reduced.items()}
    reported = report(session_valid=True, last_connected=NOW)
    assert plan(asked, facts(report=reported, **with_kinds), SETTINGS) == plan(
        asked, facts(report=reported, **whole), SETTINGS
    )


def test_what_the_plan_does_not_read_is_not_cached() -> None:
    for found in (
        cache_transform.pod(crowded(pod())),
        cache_transform.pvc(crowded(pvc())),
    ):
        assert found["metadata"]["resourceVersion"] == "7"
        assert "managedFields" not in found["metadata"]
        assert "team" not in found["metadata"]["labels"]
        assert all(key.startswith("wasession.dev/") for key in found["metadata"]["annotations"])
    assert cache_transform.pod(crowded(pod()))["spec"] == {"nodeName": "node-1"}
    images = {
        "metadata": {"name": "node-1"},
        "spec": {"podCIDR": "10.0.0.0/24"},
        "status": {"images": [{"names": ["x"]}]},
    }
    assert cache_transform.node(images) == {
        "metadata": {"name": "node-1"},
        "spec": {},
        "status": {"conditions": []},
    }


def test_what_start_budgets_depend_on_is_cached() -> None:
    zone = {"topology.kubernetes.io/zone": "eu-1a"}
    obj = {
        "metadata": {"name": "node-1", "labels": {**zone, "kubernetes.io/os": "linux"}},
        "spec": {"unschedulable": True, "podCIDR": "10.0.0.0/24"},
    }
    cached = cache_transform.node(obj)
    assert cached["metadata"]["labels"] == zone
    assert cached["spec"] == {"unschedulable": True}
    selected = {"volume.kubernetes.io/selected-node": "node-1"}
    bound = {"pv.kubernetes.io/bind-completed": "yes"}
    claim = cache_transform.pvc(pvc(annotations={**selected, **bound}))
    assert claim["metadata"]["annotations"] == selected


def test_a_sessions_annotations_are_bounded() -> None:
    """They are whatever a user writes; requests are still compared with earlier ones."""
    stored = {"metadata": {"namespace": "ns", "name": "sales"}, "spec": {}}

    def annotations(**values: str) -> Manifest:
        written = {f"wasession.dev/{name.replace('_', '-')}": v for name, v in values.items()}
        obj = crowded({**stored, "metadata": {**stored["metadata"], "annotations": written}})
        cached: Manifest = cache_transform.session(obj)["metadata"].get("annotations", {})
        return cached

    assert annotations(unknown="x" * 100_000, template_hash="x" * 100_000) == {}
    asked = {"restart": "1", "logout": "2", "rotate_token": "3", "expects_login": "true"}
    asked |= {"accept_update": "4", "accept_data_loss": "5"}
    assert list(annotations(**asked).values()) == list(asked.values())
    one, other = annotations(restart="x" * 100_000), annotations(restart="x" * 100_001)
    assert one == annotations(restart="x" * 100_000) != other
    assert all(len(value) <= 128 for value in [*one.values(), *other.values()])


def test_the_store_returns_what_was_stored() -> None:
    store = PackedStore()
    store["ns", "sales"] = cache_transform.pod(crowded(pod()))
    found = store["ns", "sales"]
    assert found == cache_transform.pod(crowded(pod()))
    found["metadata"]["uid"] = "another"
    assert store["ns", "sales"] == cache_transform.pod(crowded(pod())), "it is a copy"
    assert dict(store) == {("ns", "sales"): cache_transform.pod(crowded(pod()))}
    del store["ns", "sales"]
    assert ("ns", "sales") not in store
    assert len(store) == 0
