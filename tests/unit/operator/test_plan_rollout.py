"""A rolling update goes on to the next session only when this one is as well as it was before."""

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
    of,
    plan,
    pod,
    report,
    session,
    terminating,
    waiting,
)
from wasession_api.session_pod.report import Notice
from wasession_api.v1alpha1 import ConditionType, Phase, Reason, Status
from wasession_operator.plan import Plan, is_updating
from wasession_operator.plan.actions import DeletePod
from wasession_operator.plan.rollout import RECOVERY_TIMEOUT

CHANGED: dict[str, Any] = {"browser": {"locale": "de-DE"}, "updateStrategy": "RollingUpdate"}
WELL = report(session_valid=True)


def new_pod(**changes: Any) -> dict[str, Any]:
    obj = pod(spec=CHANGED, **changes)
    obj["metadata"]["uid"] = "pod-uid-2"
    return obj


def at(seconds: float) -> Any:
    return NOW + timedelta(seconds=seconds)


def updated(before: Any = WELL) -> Status:
    """Return the status when the old pod is gone."""
    status = plan(session(VALID), facts(report=before), SETTINGS).status
    for seen in (facts(report=before), facts(pod=terminating()), facts(pod=None)):
        status = plan(session(status, **CHANGED), seen, SETTINGS).status
        assert is_updating(status)
    return status


def then(status: Status, seconds: float, reported: Any, obj: Any = None, **changes: Any) -> Plan:
    seen = facts(pod=obj or new_pod(), report=reported, now=at(seconds), **changes)
    return plan(session(status, **CHANGED), seen, SETTINGS)


def test_an_update_is_over_when_the_session_has_been_ready_again_for_some_time() -> None:
    back = then(updated(), 10, WELL)
    assert is_updating(back.status)
    assert back.requeue_after == SETTINGS.update_min_ready
    still = then(back.status, 39, WELL)
    assert is_updating(still.status)
    assert still.requeue_after == timedelta(seconds=1)
    done = then(still.status, 40, WELL)
    assert not is_updating(done.status)
    assert condition(done, ConditionType.DEGRADED)[0] == "False"


@pytest.mark.parametrize(
    ("phase", "reason", "valid"),
    [
        (Phase.LOGGED_OUT, Reason.LOGGED_OUT_BY_PHONE, False),
        (Phase.AUTHENTICATING, Reason.WAITING_FOR_SCAN, False),
        (Phase.CONFLICT, Reason.OPENED_ELSEWHERE, True),
        (Phase.PASSKEY_REQUIRED, Reason.PASSKEY_REQUIRED, False),
        (Phase.FAILED, Reason.PAGE_INCOMPATIBLE, True),
    ],
)
@pytest.mark.parametrize("ready_before", [False, True])
def test_a_session_that_is_not_well_after_its_update_halts_the_rollout(
    phase: Phase, reason: Reason, valid: bool, ready_before: bool
) -> None:
    """Also if it was Ready for a moment in between."""
    status = updated()
    if ready_before:
        status = then(status, 5, WELL).status
    hurt = then(status, 10, report(phase, reason=reason, session_valid=valid, message="Why."))
    assert is_updating(hurt.status)
    assert hurt.status.update is not None
    assert hurt.status.update.failed
    assert condition(hurt, ConditionType.DEGRADED)[0] == "True"
    assert Reason.ROLLOUT_HALTED in event_reasons(hurt)
    well = then(hurt.status, 60, WELL)
    assert well.status.update is not None
    assert not well.status.update.failed
    assert is_updating(well.status)
    assert not is_updating(then(well.status, 90, WELL).status)


def test_a_halt_says_how_to_continue() -> None:
    out = report(Phase.LOGGED_OUT, reason="LoggedOutByPhone", session_valid=False)
    hurt = then(updated(), 10, out)
    assert condition(hurt, ConditionType.DEGRADED) == ("True", Reason.ROLLOUT_HALTED)
    advice = "kubectl annotate wasession sales wasession.dev/accept-update=pod-uid-2"
    assert advice in message(hurt, ConditionType.DEGRADED)
    seen = facts(pod=new_pod(), report=out, now=at(20))
    for uid, over in (("pod-uid", False), ("pod-uid-2", True)):
        accepting = session(hurt.status, annotations={"accept-update": uid}, **CHANGED)
        assert is_updating(plan(accepting, seen, SETTINGS).status) is not over
    suspended = plan(session(hurt.status, suspend=True, **CHANGED), seen, SETTINGS)
    assert not is_updating(suspended.status)


def test_a_pod_that_does_not_start_or_a_session_that_does_not_come_back_halts_it_too() -> None:
    crashing = new_pod(ready=False, containerStatuses=waiting("CrashLoopBackOff"))
    restoring = report(Phase.RESTORING, reason="LoginRestoring", session_valid=True)
    for hurt in (
        then(updated(), 10, None, crashing),
        then(updated(), RECOVERY_TIMEOUT.total_seconds(), restoring),
    ):
        assert hurt.status.update is not None
        assert hurt.status.update.failed
    slow = then(updated(), 10, restoring).status.update
    assert slow is not None
    assert not slow.failed


def test_a_session_that_was_not_ready_halts_nothing() -> None:
    out = report(Phase.LOGGED_OUT, reason="LoggedOutByPhone", session_valid=False)
    assert not is_updating(then(updated(out), 10, out).status)


def test_a_mended_template_is_applied_to_the_session_that_halts_the_rollout() -> None:
    """It needs no turn, and has to be Ready again as before the first of the changes."""
    hurt = then(updated(), 10, report(Phase.LOGGED_OUT, reason="LoggedOutByPhone"))
    mended = CHANGED | {"browser": {"locale": "en-US"}}
    seen = facts(pod=new_pod(), report=WELL, now=at(20), may_update=False, rollout_halted=True)
    result = plan(session(hurt.status, **mended), seen, SETTINGS)
    assert of(DeletePod, result) == [DeletePod("pod-uid-2", Reason.TEMPLATE_CHANGED)]
    assert result.status.update is not None
    assert result.status.update.was_ready
    assert not result.status.update.failed
    assert result.status.update.at == at(20)


def test_the_others_wait_while_the_rollout_is_halted() -> None:
    ready = plan(session(VALID), facts(report=WELL), SETTINGS).status
    seen = facts(report=WELL, rollout_halted=True)
    result = plan(session(ready, **CHANGED), seen, SETTINGS)
    assert of(DeletePod, result) == []
    assert condition(result, ConditionType.PROGRESSING) == ("False", Reason.UPDATE_PENDING)
    assert "another session" in message(result, ConditionType.PROGRESSING)


# --- with a rollout of the class ------------------------------------------------------------------

DEAF = report(
    session_valid=True,
    warnings=[Notice(reason=Reason.MESSAGES_NOT_HEARD, message="No message is heard.")],
)


def later(reported: Any, revision: str | None) -> Status:
    """Return the status of a session whose update was over, when its pod reports again."""
    done = then(then(updated(), 10, WELL).status, 40, WELL).status
    assert not is_updating(done)
    seen = facts(pod=new_pod(), report=reported, now=at(60))
    return plan(replace(session(done, **CHANGED), revision=revision), seen, SETTINGS).status


@pytest.mark.parametrize(
    "reported",
    [DEAF, report(Phase.LOGGED_OUT, reason=Reason.LOGGED_OUT_BY_PHONE)],
)
def test_a_session_that_is_hurt_later_fails_its_update_for_the_rollout(reported: Any) -> None:
    status = later(reported, "b")
    assert status.update is not None
    assert (status.update.done, status.update.failed) == (True, True)
    well = later(WELL, "b")
    assert well.update is not None
    assert not well.update.failed


@pytest.mark.parametrize("reported", [DEAF, WELL])
def test_without_a_rollout_an_update_that_is_over_is_never_looked_at_again(reported: Any) -> None:
    status = later(reported, None)
    assert status.revision is None
    assert status.update is not None
    assert (status.update.done, status.update.failed) == (True, False)


def test_a_session_that_crashes_later_fails_its_update_for_the_rollout() -> None:
    done = then(then(updated(), 10, WELL).status, 40, WELL).status
    crashing = new_pod(ready=False, containerStatuses=waiting("CrashLoopBackOff"))
    seen = facts(pod=crashing, now=at(60))
    status = plan(replace(session(done, **CHANGED), revision="b"), seen, SETTINGS).status
    assert status.update is not None
    assert status.update.failed
