"""The end of a session, and logouts that somebody asked for."""

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
    terminating,
    facts,
    of,
    owned_by,
    pod,
    report,
    session,
    event_reasons,
)
from wasession_api.names import FINALIZER
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import (
    ConditionType,
    DisconnectKind,
    LastDisconnect,
    LogoutStatus,
    Phase,
    Reason,
    Status,
)
from wasession_operator.plan import Backoff, Refusal, Session, plan
from wasession_operator.plan.actions import (
    AddFinalizer,
    DeletePod,
    DeletePvc,
    Logout,
    RemoveFinalizer,
)

HELD = ("example.com/other", FINALIZER)
RELEASE = RemoveFinalizer(HELD)
ENDS = [DeletePod("pod-uid", Reason.TERMINATING)]
DELETE = {"retention": {"whenDeleted": "Delete"}}


def test_deletion_takes_the_pod_first_and_keeps_the_claim() -> None:
    first = plan(session(VALID, deleting=True), facts(), SETTINGS)
    assert first.actions == ENDS
    assert not first.done
    assert first.status.phase is Phase.TERMINATING
    assert plan(session(VALID, deleting=True), facts(pod=terminating()), SETTINGS).actions == []
    last = plan(replace(session(VALID, deleting=True), finalizers=HELD), facts(pod=None), SETTINGS)
    assert last.actions == [RELEASE]
    assert last.done
    assert last.status.restarts.count == 0


def test_deletion_takes_the_claim_where_the_retention_says_so() -> None:
    going = session(VALID, deleting=True, storage=DELETE)
    assert plan(going, facts(), SETTINGS).actions == ENDS
    last = plan(replace(going, finalizers=HELD), facts(pod=None), SETTINGS)
    assert last.actions == [DeletePvc("pvc-uid"), RELEASE]
    assert last.done


def test_deletion_leaves_what_belongs_to_others() -> None:
    going = session(VALID, deleting=True, storage=DELETE)
    foreign = facts(
        pod=owned_by(pod(), "ReplicaSet", "web"),
        pvc=owned_by(facts().pvc or {}, "StatefulSet", "db"),
    )
    result = plan(replace(going, finalizers=HELD), foreign, SETTINGS)
    assert result.actions == [RELEASE]
    assert result.done


def test_a_session_is_held_while_it_has_a_pod_to_be_ended_or_a_login() -> None:
    """Before that Kubernetes can take away by itself whatever there is."""
    held_by_others, new = AddFinalizer(HELD[:1]), replace(session(), finalizers=HELD[:1])
    assert held_by_others not in plan(new, facts(pod=None, pvc=None, secret=None), SETTINGS).actions
    assert plan(new, facts(), SETTINGS).actions == [held_by_others]
    assert held_by_others in plan(replace(new, status=VALID), facts(pod=None), SETTINGS).actions
    over = plan(replace(session(deleting=True), finalizers=HELD[:1]), facts(pod=None), SETTINGS)
    assert over.actions == [], "one that is being deleted can't be held any more"
    assert over.done


# --- logout at the end ----------------------------------------------------------------------------

BY_SPEC = session(VALID, deleting=True, logoutOnDelete=True)
BY_ANNOTATION = session(VALID, deleting=True, annotations={"logout": "true"})


def test_a_login_is_not_ended_unless_that_is_asked_for() -> None:
    assert (
        plan(
            session(VALID, deleting=True), facts(report=report(session_valid=True)), SETTINGS
        ).actions
        == ENDS
    )


@pytest.mark.parametrize("asked", [BY_SPEC, BY_ANNOTATION], ids=["spec", "annotation"])
def test_a_login_is_ended_before_its_pod(asked: Session) -> None:
    live = facts(report=report(session_valid=True))
    assert plan(asked, live, SETTINGS).actions == [Logout()]
    over = plan(asked, facts(report=report(Phase.LOGGED_OUT, reason="LoggedOutByPhone")), SETTINGS)
    assert over.actions == ENDS
    assert over.status.session_valid is False
    for left in (terminating(), None):
        over = plan(replace(asked, status=over.status), facts(pod=left), SETTINGS)
        assert Reason.LOGOUT_FAILED not in event_reasons(over)
    assert over.done


@pytest.mark.parametrize("asked", [BY_SPEC, BY_ANNOTATION], ids=["spec", "annotation"])
def test_a_logout_takes_no_longer_than_its_time(asked: Session) -> None:
    late = facts(report=report(session_valid=True), now=NOW + timedelta(seconds=32))
    result = plan(asked, late, SETTINGS)
    assert result.actions == ENDS
    assert Reason.LOGOUT_FAILED in event_reasons(result), "the device is still on the phone's list"


@pytest.mark.parametrize("asked", [BY_SPEC, BY_ANNOTATION], ids=["spec", "annotation"])
@pytest.mark.parametrize("left", [None, terminating()], ids=["suspended", "ending"])
def test_a_device_that_nobody_can_log_out_any_more_is_told_of_once(
    asked: Session, left: dict[str, Any] | None
) -> None:
    result = plan(asked, facts(pod=left), SETTINGS)
    assert [event.reason for event in result.events] == [Reason.LOGOUT_FAILED]
    assert "Unlink it on the phone" in result.events[0].message
    assert result.done == (left is None)
    last = plan(replace(asked, status=result.status), facts(pod=None), SETTINGS)
    assert last.events == []
    assert last.done
    unlinked = replace(asked, status=VALID.model_copy(update={"session_valid": False}))
    assert plan(unlinked, facts(pod=left), SETTINGS).events == []


def test_a_new_operator_waits_until_the_pod_may_have_answered() -> None:
    assert plan(BY_SPEC, facts(silent_since=NOW - timedelta(seconds=9)), SETTINGS).actions == []
    assert plan(BY_SPEC, facts(silent_since=NOW - timedelta(seconds=10)), SETTINGS).actions == ENDS
    assert plan(session(VALID, deleting=True), facts(silent_since=NOW), SETTINGS).actions == ENDS


def test_a_logout_that_was_done_is_not_done_again_at_the_end() -> None:
    """The login that was linked since, in the same session, may be kept on its volume."""
    since = VALID.model_copy(update={"logout": LogoutStatus(request="true", at=NOW, done=True)})
    going = session(since, deleting=True, annotations={"logout": "true"})
    assert plan(going, facts(report=report(session_valid=True)), SETTINGS).actions == ENDS


# --- logout of a session that stays ---------------------------------------------------------------


def asked(before: Status = VALID, value: str = "1") -> Session:
    return session(before, annotations={"logout": value})


def valid(**fields: Any) -> Report:
    return report(session_valid=True, is_authenticated=True, **fields)


def test_a_logout_is_noted_before_it_is_done() -> None:
    result = plan(asked(), facts(report=valid()), SETTINGS)
    assert result.actions == [Logout()]
    assert result.status.logout == LogoutStatus(request="1", at=NOW, done=False)


def test_a_logout_is_done_once_for_each_value() -> None:
    noted = plan(asked(), facts(report=valid()), SETTINGS).status
    over = report(Phase.LOGGED_OUT, reason="LoggedOutOnRequest")
    done = plan(asked(noted), facts(report=over), SETTINGS)
    assert done.actions == []
    assert done.status.logout == LogoutStatus(request="1", at=NOW, done=True)
    paired_again = plan(asked(done.status), facts(report=valid()), SETTINGS)
    assert paired_again.actions == []
    another = plan(asked(done.status, "2"), facts(report=valid()), SETTINGS)
    assert another.actions == [Logout()]


def test_a_login_that_was_linked_since_is_not_logged_out() -> None:
    """The operator was not there between the logout and the new link; the pod tells when the logout was."""
    noted = plan(asked(), facts(report=valid()), SETTINGS).status
    gone = LastDisconnect(at=NOW + timedelta(seconds=5), kind=DisconnectKind.LOGOUT, reason="user")
    later = plan(asked(noted), facts(report=valid(last_disconnect=gone)), SETTINGS)
    assert later.actions == []
    assert later.status.logout is not None
    assert later.status.logout.done


def test_a_session_without_login_has_nothing_to_log_out() -> None:
    result = plan(
        asked(Status()),
        facts(report=report(Phase.AUTHENTICATING, reason="WaitingForScan")),
        SETTINGS,
    )
    assert result.actions == []
    assert result.status.logout is not None
    assert result.status.logout.done


def test_a_logout_waits_until_the_session_is_ready() -> None:
    result = plan(
        asked(), facts(report=valid(phase=Phase.RECONNECTING, reason="ConnectionLost")), SETTINGS
    )
    assert result.actions == []
    assert result.status.logout == LogoutStatus(request="1", at=NOW, done=False)
    assert of(Logout, plan(asked(), facts(pod=None), SETTINGS)) == []


def test_a_logout_that_fails_is_told_and_tried_again() -> None:
    refusal = Refusal(
        Reason.LOGOUT_FAILED,
        "the pod did not answer in time",
        Backoff(1, NOW + timedelta(seconds=2)),
    )
    failed = facts(report=valid(), refusals={Logout: refusal})
    result = plan(asked(), failed, SETTINGS)
    assert result.actions == []
    assert condition(result, ConditionType.DEGRADED) == ("True", Reason.LOGOUT_FAILED)
    assert plan(asked(), replace(failed, now=NOW + timedelta(seconds=2)), SETTINGS).actions == [
        Logout()
    ]


def test_a_long_request_is_known_again() -> None:
    noted = plan(asked(value="x" * 5000), facts(report=valid()), SETTINGS).status
    done = plan(
        asked(noted, "x" * 5000),
        facts(report=report(Phase.LOGGED_OUT, reason="LoggedOutOnRequest")),
        SETTINGS,
    )
    assert plan(asked(done.status, "x" * 5000), facts(report=valid()), SETTINGS).actions == []
    assert plan(asked(done.status, "x" * 5001), facts(report=valid()), SETTINGS).actions == [
        Logout()
    ]
