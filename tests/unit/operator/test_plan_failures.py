"""Failed requests: each is reported under its own reason, and retried after its backoff."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from unit.operator.situations import (
    NOW,
    SETTINGS,
    VALID,
    condition,
    event_reasons,
    facts,
    message,
    pod,
    pvc,
    report,
    secret,
    session,
    terminating,
)
from wasession_api.v1alpha1 import ConditionType, Reason
from wasession_operator.plan import Action, Backoff, Facts, Node, Refusal, Session, plan
from wasession_operator.plan.actions import (
    CreatePod,
    CreatePvc,
    CreateSecret,
    DeletePod,
    DeletePvc,
    ExpandPvc,
    RefreshToken,
    RotateToken,
    SetPvcOwner,
)

RUNNING = facts(report=report(session_valid=True))
GONE = Node("node-1", gone=True)
DELETE: dict[str, Any] = {"retention": {"whenDeleted": "Delete"}}


def rotated() -> dict[str, Any]:
    obj = secret()
    obj["metadata"]["annotations"]["wasession.dev/token-id"] = "t2"
    return obj


@pytest.mark.parametrize(
    ("given", "circumstances", "action", "reason"),
    [
        (session(), facts(pod=None), CreatePod, Reason.POD_CREATE_FAILED),
        (
            session(VALID),
            replace(RUNNING, secret=rotated()),
            RefreshToken,
            Reason.POD_UPDATE_FAILED,
        ),
        (session(VALID, suspend=True), RUNNING, DeletePod, Reason.POD_DELETE_FAILED),
        (session(VALID, deleting=True), RUNNING, DeletePod, Reason.POD_DELETE_FAILED),
        (session(VALID), facts(pod=pod(phase="Failed")), DeletePod, Reason.POD_DELETE_FAILED),
        (
            session(VALID),
            facts(pod=terminating(), node=GONE),
            DeletePod,
            Reason.POD_DELETE_FAILED,
        ),
        (session(), facts(pod=None, pvc=None), CreatePvc, Reason.PVC_CREATE_FAILED),
        (session(VALID, storage=DELETE), RUNNING, SetPvcOwner, Reason.PVC_UPDATE_FAILED),
        (session(VALID, storage={"size": "2Gi"}), RUNNING, ExpandPvc, Reason.PVC_EXPAND_FAILED),
        (
            session(VALID, annotations={"accept-data-loss": "pvc-uid"}),
            facts(pod=None, pvc=pvc("Lost")),
            DeletePvc,
            Reason.PVC_DELETE_FAILED,
        ),
        (session(), facts(pod=None, secret=None), CreateSecret, Reason.SECRET_CREATE_FAILED),
        (
            session(VALID, annotations={"rotate-token": "1"}),
            RUNNING,
            RotateToken,
            Reason.SECRET_UPDATE_FAILED,
        ),
    ],
)
def test_a_failed_request_is_reported_and_retried(
    given: Session, circumstances: Facts, action: type[Action], reason: Reason
) -> None:
    assert any(
        isinstance(planned, action) for planned in plan(given, circumstances, SETTINGS).actions
    )
    refusal = Refusal(reason, "denied by policy", Backoff(1, NOW + timedelta(seconds=2)))
    failed = replace(circumstances, refusals={action: refusal})
    waiting = plan(given, failed, SETTINGS)
    assert not any(isinstance(planned, action) for planned in waiting.actions)
    assert waiting.requeue_after is not None
    assert waiting.requeue_after <= timedelta(seconds=2)
    assert condition(waiting, ConditionType.DEGRADED)[0] == "True"
    due = plan(given, replace(failed, now=NOW + timedelta(seconds=2)), SETTINGS)
    assert any(isinstance(planned, action) for planned in due.actions)


def test_a_pod_that_cannot_be_deleted_says_why() -> None:
    refusal = Refusal(Reason.POD_DELETE_FAILED, "denied by policy", Backoff(1, NOW))
    failed = replace(RUNNING, refusals={DeletePod: refusal})
    result = plan(session(VALID, deleting=True), failed, SETTINGS)
    assert condition(result, ConditionType.DEGRADED) == ("True", Reason.POD_DELETE_FAILED)
    assert message(result, ConditionType.DEGRADED) == "denied by policy"
    assert event_reasons(result) == [Reason.POD_DELETE_FAILED]
    assert not result.done
