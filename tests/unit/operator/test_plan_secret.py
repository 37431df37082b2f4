"""The session's Secret: applied where a pod may lack it, and its token rotated on request."""

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
    facts,
    of,
    owned_by,
    plan,
    pod,
    report,
    session,
    terminating,
    waiting,
)
from wasession_api.v1alpha1 import ConditionType, Phase, Reason, RequestStatus
from wasession_operator.plan import Backoff, Refusal
from wasession_operator.plan.actions import ApplySecret, CreatePod, RefreshToken, RepairPod
from wasession_operator.plan.facts import AppliedSecret

READY = facts(report=report(session_valid=True), secret_applied=None)
BEFORE = AppliedSecret("t1", NOW - timedelta(hours=1))
JUST_NOW = AppliedSecret("t1", NOW - timedelta(seconds=20))
ROTATED: dict[str, Any] = {"annotations": {"rotate-token": "1"}}


def with_token(token_id: str | None, obj: dict[str, Any]) -> dict[str, Any]:
    annotations = {**obj["metadata"]["annotations"], "wasession.dev/token-id": token_id}
    return {**obj, "metadata": {**obj["metadata"], "annotations": annotations}}


def starting(*, scheduled: timedelta = timedelta(hours=1), **status: Any) -> dict[str, Any]:
    at = (NOW - scheduled).isoformat()
    condition = {"type": "PodScheduled", "status": "True", "lastTransitionTime": at}
    return pod(ready=False, conditions=[condition], **status)


@pytest.mark.parametrize("applied", [None, BEFORE, JUST_NOW])
def test_a_pod_that_works_costs_no_request(applied: AppliedSecret | None) -> None:
    assert plan(session(VALID), replace(READY, secret_applied=applied), SETTINGS).actions == []


@pytest.mark.parametrize(
    "trouble",
    [
        {"unauthorized": True, "report": None},
        {"pod": starting()},
        {"pod": starting(phase="Pending")},
        {"pod": starting(containerStatuses=waiting("CreateContainerConfigError"))},
        {"pod": starting(containerStatuses=waiting("CrashLoopBackOff"))},
    ],
)
def test_a_pod_that_may_lack_its_secret_gets_it_once_a_minute(trouble: dict[str, Any]) -> None:
    """Somebody may have deleted or edited it: the operator does not read it."""
    for applied in (None, BEFORE):
        due = replace(READY, **trouble, secret_applied=applied)
        assert of(ApplySecret, plan(session(VALID), due, SETTINGS)) == [ApplySecret(0)]
    recent = plan(session(VALID), replace(READY, **trouble, secret_applied=JUST_NOW), SETTINGS)
    assert of(ApplySecret, recent) == []
    assert recent.requeue_after is not None
    assert recent.requeue_after <= timedelta(seconds=40)


def test_a_pod_that_has_waited_for_a_node_has_a_minute_to_mount_its_secret() -> None:
    bound = replace(
        READY, pod=starting(scheduled=timedelta(seconds=20)), report=None, secret_applied=BEFORE
    )
    result = plan(session(VALID), bound, SETTINGS)
    assert result.actions == []
    assert result.requeue_after is not None
    assert result.requeue_after <= timedelta(seconds=40)
    rejected = replace(bound, unauthorized=True)
    assert of(ApplySecret, plan(session(VALID), rejected, SETTINGS)) == [ApplySecret(0)]


def test_a_pod_without_a_node_has_no_use_for_a_secret() -> None:
    unbound = starting(phase="Pending")
    del unbound["spec"]["nodeName"]
    assert plan(session(VALID), facts(pod=unbound), SETTINGS).actions == []


def test_a_pod_with_an_earlier_token_gets_the_present_one() -> None:
    """Its epoch is lost with the status, or the master key is another one."""
    for earlier in ("t0", None):
        outdated = replace(READY, pod=with_token(earlier, pod()))
        planned = plan(session(VALID), outdated, SETTINGS).actions
        assert planned == [ApplySecret(0), RefreshToken("t1")]
    applied = replace(READY, pod=with_token("t0", pod()), secret_applied=BEFORE)
    assert plan(session(VALID), applied, SETTINGS).actions == [RefreshToken("t1")]


def test_the_mount_is_not_refreshed_before_the_secret_is_applied() -> None:
    refusal = Refusal(Reason.SECRET_UPDATE_FAILED, "no", Backoff(1, NOW + timedelta(seconds=2)))
    outdated = replace(READY, pod=with_token("t0", pod()), refusals={ApplySecret: refusal})
    result = plan(session(VALID), outdated, SETTINGS)
    assert result.actions == []
    assert condition(result, ConditionType.DEGRADED) == ("True", Reason.SECRET_UPDATE_FAILED)
    assert result.status.phase is Phase.READY, "the pod works with its present token"


# --- rotation -------------------------------------------------------------------------------------


def test_each_request_raises_the_epoch_once() -> None:
    result = plan(session(VALID, **ROTATED), READY, SETTINGS)
    assert result.status.token_epoch == 1
    assert result.status.token_rotation == RequestStatus(request="1", at=NOW, done=False)
    assert result.actions == [ApplySecret(1), RefreshToken("t2")]
    accepted = replace(READY, token_ids=("t2", "t3"))
    going = plan(session(result.status, **ROTATED), accepted, SETTINGS)
    assert going.actions == [ApplySecret(1), RefreshToken("t2")], "after a crash in between"
    assert going.status.token_rotation == result.status.token_rotation
    refreshed = replace(accepted, pod=with_token("t2", pod()))
    done = plan(session(going.status, **ROTATED), refreshed, SETTINGS)
    assert done.actions == []
    assert (done.status.token_epoch, done.status.token_rotation) == (
        1,
        RequestStatus(request="1", at=NOW, done=True),
    )
    again = session(done.status, annotations={"rotate-token": "2"})
    assert plan(again, refreshed, SETTINGS).status.token_epoch == 2


def test_a_rotation_is_done_with_the_next_pod_of_a_suspended_session() -> None:
    suspended = session(VALID, suspend=True, **ROTATED)
    result = plan(suspended, facts(pod=None), SETTINGS)
    assert of(ApplySecret, result) == []
    assert result.status.token_epoch == 1
    assert result.status.token_rotation is not None
    assert not result.status.token_rotation.done
    resumed = session(result.status, **ROTATED)
    created = plan(resumed, facts(pod=None, token_ids=("t2", "t3")), SETTINGS)
    [create] = of(CreatePod, created)
    assert (of(ApplySecret, created), create.token_id) == ([ApplySecret(1)], "t2")


def test_a_new_session_starts_with_the_requested_token() -> None:
    result = plan(session(**ROTATED), facts(pod=None, pvc=None), SETTINGS)
    assert result.status.token_epoch == 1
    [create] = of(CreatePod, result)
    assert (of(ApplySecret, result), create.token_id) == ([ApplySecret(1)], "t2")


def test_a_terminating_pod_gets_no_new_token() -> None:
    result = plan(session(VALID, **ROTATED), facts(pod=terminating()), SETTINGS)
    assert result.actions == []
    assert result.status.token_epoch == 1


# --- creation -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "phase"),
    [(Reason.SECRET_UPDATE_FAILED, Phase.PENDING), (Reason.NAME_CONFLICT, Phase.FAILED)],
)
def test_no_pod_is_created_without_its_secret(reason: Reason, phase: Phase) -> None:
    refusal = Refusal(reason, "exceeded quota", Backoff(1, NOW + timedelta(seconds=2)))
    result = plan(session(), facts(pod=None, refusals={ApplySecret: refusal}), SETTINGS)
    assert result.actions == []
    assert result.status.phase is phase
    assert condition(result, ConditionType.READY) == ("False", reason)
    assert condition(result, ConditionType.DEGRADED) == ("True", reason)
    due = replace(refusal, retry=Backoff(1, NOW))
    again = plan(session(), facts(pod=None, refusals={ApplySecret: due}), SETTINGS)
    assert [type(action) for action in again.actions] == [ApplySecret, CreatePod]
    unanswered = replace(refusal, transient=True)
    quiet = plan(session(), facts(pod=None, refusals={ApplySecret: unanswered}), SETTINGS)
    assert quiet.actions == []


def test_nothing_is_applied_for_a_pod_that_is_not_created_yet() -> None:
    refusal = Refusal(Reason.POD_CREATE_FAILED, "no", Backoff(1, NOW + timedelta(seconds=2)))
    for circumstances in (
        facts(pod=None, refusals={CreatePod: refusal}),
        facts(pod=None, may_start=False),
        facts(pod=owned_by(pod(), "ReplicaSet", "web")),
    ):
        assert plan(session(), circumstances, SETTINGS).actions == []


def test_the_secret_gets_the_labels_of_a_changed_owner() -> None:
    result = plan(session(VALID, owner="bob"), READY, SETTINGS)
    kinds = [type(action) for action in result.actions]
    assert kinds.index(ApplySecret) < kinds.index(RepairPod)
