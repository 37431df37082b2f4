"""Little is kept of each object, and the plan misses none of the rest."""

from __future__ import annotations

from typing import Any

import pytest
from unit.operator.situations import (
    NOW,
    SETTINGS,
    VALID,
    ending,
    facts,
    pod,
    pvc,
    report,
    secret,
    session,
)
from wasession_operator import cache_transform as kept
from wasession_operator.cache_transform import Packed
from wasession_operator.plan import plan

Manifest = dict[str, Any]


def crowded(found: Manifest) -> Manifest:
    """An object with what others have hung on it."""
    metadata = found["metadata"]
    more = {
        "managedFields": [{"manager": "kubelet"}],
        "labels": {**metadata.get("labels", {}), "team": "sales"},
        "annotations": {
            **metadata.get("annotations", {}),
            "kubectl.kubernetes.io/last-applied-configuration": "{}" * 1000,
        },
    }
    return {**found, "metadata": {**metadata, "namespace": "ns", "resourceVersion": "7", **more}}


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
        ending(
            pod(conditions=[{"type": "DisruptionTarget", "status": "True", "message": "drained"}])
        ),
    ],
    ids=["well", "crash loop", "evicted", "unschedulable", "disrupted"],
)
@pytest.mark.parametrize(
    "claim", [pvc(), pvc("Lost"), pvc("Pending"), pvc(spec={"storage": {"size": "500Mi"}})]
)
@pytest.mark.parametrize("deleting", [False, True])
def test_the_plan_is_the_same_with_what_is_kept(
    found: Manifest, claim: Manifest, deleting: bool
) -> None:
    asked = session(VALID, deleting=deleting, annotations={"rotate-token": "1"})
    whole = {"pod": crowded(found), "pvc": crowded(claim), "secret": crowded(secret())}
    little = {
        "pod": kept.pod(whole["pod"]),
        "pvc": kept.pvc(whole["pvc"]),
        "secret": kept.secret(whole["secret"]),
    }
    with_kinds = {name: {**part, "kind": whole[name]["kind"]} for name, part in little.items()}
    said = report(session_valid=True, last_connected=NOW)
    assert plan(asked, facts(report=said, **with_kinds), SETTINGS) == plan(
        asked, facts(report=said, **whole), SETTINGS
    )


def test_what_nobody_looks_at_is_not_kept() -> None:
    for found in (
        kept.pod(crowded(pod())),
        kept.pvc(crowded(pvc())),
        kept.secret(crowded(secret())),
    ):
        assert found["metadata"]["resourceVersion"] == "7"
        assert "managedFields" not in found["metadata"]
        assert list(found["metadata"]["labels"]) == ["app.kubernetes.io/managed-by"]
        assert all(key.startswith("wasession.dev/") for key in found["metadata"]["annotations"])
    assert kept.pod(crowded(pod()))["spec"] == {"nodeName": "node-1"}
    images = {
        "metadata": {"name": "node-1"},
        "spec": {"podCIDR": "10.0.0.0/24"},
        "status": {"images": [{"names": ["x"]}]},
    }
    assert kept.node(images) == {
        "metadata": {"name": "node-1"},
        "spec": {},
        "status": {"conditions": []},
    }


def test_what_is_packed_comes_out_as_it_went_in() -> None:
    packed = Packed()
    packed["ns", "sales"] = kept.pod(crowded(pod()))
    found = packed["ns", "sales"]
    assert found == kept.pod(crowded(pod()))
    found["metadata"]["uid"] = "another"
    assert packed["ns", "sales"] == kept.pod(crowded(pod())), "it is a copy"
    assert dict(packed) == {("ns", "sales"): kept.pod(crowded(pod()))}
    del packed["ns", "sales"]
    assert ("ns", "sales") not in packed
    assert len(packed) == 0
