"""Sessions sleep while nobody uses them, and wake when somebody does, or in time anyway."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.operator.situations import (
    NOW,
    SETTINGS,
    VALID,
    condition,
    event_reasons,
    facts,
    of,
    plan,
    report,
    session,
    terminating,
)
from wasession_api.v1alpha1 import (
    ConditionType,
    HibernationStatus,
    Phase,
    Reason,
    RequestStatus,
    Status,
    UpdateStatus,
)
from wasession_operator.plan import Plan
from wasession_operator.plan.actions import CreatePod, DeletePod
from wasession_operator.plan.facts import Violation

HOUR = timedelta(hours=1)
SPEC: dict[str, Any] = {"hibernation": {"afterIdle": "1h"}}
# NOW is 03:04:05.
NIGHT: dict[str, Any] = {"hibernation": {"schedule": {"sleep": "0 22 * * *", "wake": "0 6 * * *"}}}
DAY: dict[str, Any] = {"hibernation": {"schedule": {"sleep": "0 5 * * *", "wake": "0 2 * * *"}}}
ASLEEP = VALID.model_copy(
    update={
        "pod_uid": None,
        "phase": Phase.HIBERNATED,
        "hibernation": HibernationStatus(since=NOW - HOUR, wake_at=NOW + 71 * HOUR),
    }
)


def idle(since: timedelta | None = 2 * HOUR, **fields: Any) -> Any:
    return report(
        session_valid=True,
        is_authenticated=True,
        idle_since=None if since is None else NOW - since,
        **fields,
    )


def running(spec: dict[str, Any] = SPEC, status: Status = VALID, **changes: Any) -> Plan:
    return plan(session(status, **spec), facts(**{"report": idle(), **changes}), SETTINGS)


def sleeping(spec: dict[str, Any] = SPEC, status: Status = ASLEEP, **changes: Any) -> Plan:
    return plan(session(status, **spec), facts(**{"pod": None, **changes}), SETTINGS)


# --- falling asleep -------------------------------------------------------------------------------


def test_an_idle_session_loses_its_pod_and_keeps_its_login() -> None:
    result = running()
    [deletion] = of(DeletePod, result)
    assert deletion.reason is Reason.HIBERNATED
    assert result.status.hibernation == HibernationStatus(since=NOW, wake_at=NOW + 72 * HOUR)
    assert result.status.session_valid
    ends = plan(session(result.status, **SPEC), facts(pod=terminating()), SETTINGS)
    gone = plan(session(ends.status, **SPEC), facts(pod=None), SETTINGS)
    assert gone.actions == []
    assert gone.status.phase is Phase.HIBERNATED
    assert gone.status.account_status == "active", "it can be used: that wakes it"
    assert condition(gone, ConditionType.READY) == ("False", Reason.HIBERNATED)
    assert condition(gone, ConditionType.DEGRADED) == ("False", Reason.AS_EXPECTED)
    assert gone.status.restarts.count == 0
    assert event_reasons(gone) == [Reason.HIBERNATED]


def test_it_is_looked_at_again_when_it_has_been_idle_for_long_enough() -> None:
    result = running(report=idle(timedelta(minutes=50)))
    assert of(DeletePod, result) == []
    assert result.requeue_after == timedelta(minutes=10)


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": {}},
        {"report": idle(None)},
        {"report": None},
        {"report": idle(phase=Phase.RECONNECTING)},
        {"backup_running": True},
        {"pod": terminating()},
        {"report": report(Phase.AUTHENTICATING, session_valid=False, idle_since=NOW - 2 * HOUR)},
        {"class_violation": Violation(Reason.LIMIT_EXCEEDED, "too many")},
        {"spec": {**SPEC, "annotations": {"logout": "1"}}},
        {
            "status": VALID.model_copy(
                update={"wake": RequestStatus(request="1", at=NOW, done=False)}
            ),
            "spec": {**SPEC, "annotations": {"wake": "2"}},
            "report": idle(phase=Phase.SYNCING),
        },
        {
            "status": VALID.model_copy(
                update={"update": UpdateStatus(at=NOW, was_ready=True, done=False)}
            )
        },
    ],
)
def test_nothing_else_falls_asleep(changes: dict[str, Any]) -> None:
    result = running(**changes)
    assert result.status.hibernation is None
    assert Reason.HIBERNATED not in {deletion.reason for deletion in of(DeletePod, result)}


def test_a_session_whose_volume_is_being_deleted_stays_awake() -> None:
    """Its pod is all that holds the volume."""
    claim = terminating(facts().pvc)
    result = running(pvc=claim)
    assert of(DeletePod, result) == []
    assert result.status.hibernation is None


def test_it_sleeps_at_night_as_soon_as_it_is_idle() -> None:
    assert running(NIGHT, report=idle(timedelta(minutes=6))).status.hibernation is not None
    awake = running(NIGHT, report=idle(timedelta(minutes=2)))
    assert awake.status.hibernation is None
    assert awake.requeue_after == timedelta(minutes=3)
    assert running(NIGHT, report=idle(None)).status.hibernation is None


def test_by_day_it_is_awake_however_idle_it_is() -> None:
    result = running(DAY)
    assert result.status.hibernation is None
    assert result.requeue_after == NOW.replace(hour=5, minute=0, second=0) - NOW


@pytest.mark.parametrize("field", ["sleep", "wake"])
def test_an_invalid_schedule_is_reported_and_costs_nobody_sleep(field: str) -> None:
    schedule = {**NIGHT["hibernation"]["schedule"], field: "99 * * * *"}
    result = running({"hibernation": {"schedule": schedule}})
    assert result.status.hibernation is None
    assert condition(result, ConditionType.DEGRADED) == ("True", Reason.INVALID_SPEC)
    assert result.status.phase is Phase.READY


# --- waking ---------------------------------------------------------------------------------------


def test_it_sleeps_on_until_its_time_comes() -> None:
    result = sleeping()
    assert result.actions == []
    assert result.requeue_after == 71 * HOUR


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        ({**SPEC, "annotations": {"wake": "1"}}, ASLEEP),
        (
            SPEC,
            ASLEEP.model_copy(
                update={"hibernation": HibernationStatus(since=NOW - 72 * HOUR, wake_at=NOW)}
            ),
        ),
        ({**SPEC, "annotations": {"logout": "1"}}, ASLEEP),
        ({}, ASLEEP),
        (
            DAY,
            ASLEEP.model_copy(
                update={
                    "hibernation": HibernationStatus(since=NOW - 4 * HOUR, wake_at=NOW + 9 * HOUR)
                }
            ),
        ),
    ],
    ids=["asked", "in time", "to log out", "no longer wanted", "by schedule"],
)
def test_it_wakes(spec: dict[str, Any], status: Status) -> None:
    result = sleeping(spec, status)
    [create] = of(CreatePod, result)
    assert create.restoring
    assert result.status.hibernation is None
    assert result.status.phase is Phase.RESTORING


def test_a_wake_up_is_done_when_the_session_is_ready_and_not_repeated() -> None:
    asked = {**SPEC, "annotations": {"wake": "1"}}
    woken = sleeping(asked).status
    assert woken.wake == RequestStatus(request="1", at=NOW, done=False)
    syncing = running(asked, woken, report=idle(None, phase=Phase.SYNCING)).status
    assert syncing.wake is not None
    assert not syncing.wake.done
    ready = running(asked, syncing, report=idle(timedelta(minutes=2))).status
    assert ready.wake == RequestStatus(request="1", at=NOW, done=True)
    again = running(asked, ready)
    assert again.status.hibernation is not None, "the same request keeps it awake once"
    asleep = sleeping(asked, ASLEEP.model_copy(update={"wake": ready.wake}))
    assert of(CreatePod, asleep) == []


def test_a_pod_may_be_ready_before_the_status_says_that_the_session_is_awake() -> None:
    """Nothing else would tell of it: the pod has no more to report."""
    asked = {**SPEC, "annotations": {"wake": "1"}}
    early = running(asked, ASLEEP, report=idle(timedelta(0)))
    assert early.status.wake == RequestStatus(request="1", at=NOW, done=False)
    assert early.requeue_after == timedelta(seconds=1)
    later = running(asked, early.status, report=idle(timedelta(0)))
    assert later.status.wake == RequestStatus(request="1", at=NOW, done=True)


def test_a_wake_up_of_a_session_that_is_awake_is_done_at_once() -> None:
    result = running({**SPEC, "annotations": {"wake": "1"}}, report=idle(timedelta(minutes=2)))
    assert result.status.wake == RequestStatus(request="1", at=NOW, done=True)


def test_a_suspended_session_does_not_wake() -> None:
    result = sleeping({**SPEC, "suspend": True, "annotations": {"wake": "1"}})
    assert result.actions == []
    assert result.status.phase is Phase.SUSPENDED
    assert result.status.hibernation is None


@given(
    st.sampled_from([{}, SPEC, NIGHT, DAY]),
    st.sampled_from([VALID, ASLEEP]),
    st.sampled_from([None, "1"]),
    st.sampled_from([None, idle(), idle(None), idle(phase=Phase.SYNCING)]),
    st.booleans(),
)
def test_a_session_never_sleeps_with_something_left_to_do(
    spec: dict[str, Any], status: Status, wake: str | None, seen: Any, has_pod: bool
) -> None:
    annotations: dict[str, Any] = {} if wake is None else {"annotations": {"wake": wake}}
    changes = {"report": seen} if has_pod else {"pod": None, "report": None}
    given_session = session(status, **spec, **annotations)
    result = plan(given_session, facts(**changes), SETTINGS)
    fell = result.status.hibernation is not None and status.hibernation is None
    if fell:
        assert spec
        assert has_pod
        assert seen is not None
        assert seen.idle_since is not None
    if result.status.hibernation is not None:
        assert result.status.wake is None or result.status.wake.done
        assert of(CreatePod, result) == []
    again = plan(session(result.status, **spec, **annotations), facts(**changes), SETTINGS)
    if result.status.hibernation == status.hibernation:
        assert again.status == result.status
