"""A session's objects are known by UID; labels and annotations that people take off come back."""

from __future__ import annotations

from typing import Any

import pytest
from unit.operator.situations import (
    SETTINGS,
    VALID,
    condition,
    facts,
    message,
    of,
    plan,
    pod,
    pvc,
    report,
    session,
    terminating,
)
from wasession_api.v1alpha1 import ConditionType, Phase, Reason, Status
from wasession_operator.plan.actions import ApplySecret, RepairPod, RepairPvc

OWNED: dict[str, Any] = {"storage": {"retention": {"whenDeleted": "Delete"}}}


def bare(obj: dict[str, Any]) -> dict[str, Any]:
    """Return the object without its labels, and without the annotations that identify it."""
    metadata = {**obj["metadata"], "labels": {}, "annotations": {}}
    return {**obj, "metadata": metadata}


@pytest.mark.parametrize(
    ("kind", "name", "obj"),
    [(RepairPvc, "pvc", pvc()), (RepairPod, "pod", pod())],
)
def test_labels_and_annotations_that_were_taken_off_come_back(
    kind: type, name: str, obj: dict[str, Any]
) -> None:
    expected = obj["metadata"]
    connected = report(session_valid=True)
    result = plan(session(VALID), facts(report=connected, **{name: bare(obj)}), SETTINGS)
    [repair] = of(kind, result)
    assert repair.uid == expected["uid"]
    assert repair.labels == expected["labels"]
    assert repair.annotations.items() <= expected["annotations"].items()
    assert repair.annotations.keys() >= {"wasession.dev/client-id", "wasession.dev/owner"}
    assert result.status.phase is Phase.READY
    assert condition(result, ConditionType.DEGRADED) == ("False", Reason.AS_EXPECTED)


def test_a_claim_owned_by_the_session_needs_no_labels() -> None:
    result = plan(session(**OWNED), facts(pvc=bare(pvc(spec=OWNED)), report=report()), SETTINGS)
    assert [type(action) for action in result.actions] == [RepairPvc]


def test_labels_follow_the_owner() -> None:
    result = plan(session(VALID, owner="bob"), facts(report=report(session_valid=True)), SETTINGS)
    assert of(ApplySecret, result) == [ApplySecret(0)], "its labels follow too"
    for kind in (RepairPvc, RepairPod):
        [repair] = of(kind, result)
        assert repair.labels == {"wasession.dev/owner": "bob"}
        noted = {"wasession.dev/previous-owners": '[""]'} if kind is RepairPvc else {}
        assert repair.annotations == {"wasession.dev/owner": "bob", **noted}
    former = session(VALID)
    [repair] = of(RepairPvc, plan(former, facts(pvc=pvc(spec={"owner": "bob"})), SETTINGS))
    assert repair.labels == {"wasession.dev/owner": None}


def test_a_terminating_claim_gets_its_labels_back() -> None:
    """Without them its end would be no event."""
    result = plan(session(VALID), facts(pod=None, pvc=terminating(bare(pvc()))), SETTINGS)
    assert [type(action) for action in result.actions] == [RepairPvc]
    assert condition(result, ConditionType.STORAGE_READY)[1] == Reason.VOLUME_TERMINATING


def test_a_claim_without_identity_and_with_another_uid_is_left_alone() -> None:
    known = VALID.model_copy(update={"pvc_uid": "earlier"})
    for status in (Status(), known):
        result = plan(session(status), facts(pod=None, pvc=bare(pvc())), SETTINGS)
        assert result.actions == []
        assert condition(result, ConditionType.STORAGE_READY) == ("False", Reason.NAME_CONFLICT)
        assert "was not created by this operator" in message(result, ConditionType.STORAGE_READY)


def test_a_foreign_pod_without_a_controller_stays_foreign() -> None:
    """A status that noted its UID at the first pass would make it the session's at the second."""
    foreign = pod()
    foreign["metadata"] = {"name": "wasession-sales", "namespace": "ns", "uid": "foreign-uid"}
    status = Status()
    for _ in range(3):
        result = plan(session(status), facts(pod=foreign), SETTINGS)
        assert result.actions == []
        assert condition(result, ConditionType.READY) == ("False", Reason.NAME_CONFLICT)
        assert result.status.pod_uid is None
        status = result.status
