"""Deletion of a session, and requested logouts."""

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
    of,
    owned_by,
    plan,
    pod,
    pvc,
    report,
    session,
    terminating,
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
from wasession_operator.plan import Backoff, Refusal, Session
from wasession_operator.plan.actions import (
    AddFinalizer,
    DeletePod,
    DeletePvc,
    Logout,
    NoteLogout,
    RemoveFinalizer,
    SetPvcOwner,
)
from wasession_operator.plan.facts import Violation

HELD = ("example.com/other", FINALIZER)
RELEASE = RemoveFinalizer(HELD)
ENDS = [DeletePod("pod-uid", Reason.TERMINATING)]
DELETE = {"retention": {"whenDeleted": "Delete"}}
LATER = timedelta(seconds=4)


def test_deletion_deletes_the_pod_first_and_retains_the_claim() -> None:
    first = plan(session(VALID, deleting=True), facts(), SETTINGS)
    assert first.actions == ENDS
    assert not first.done
    assert first.status.phase is Phase.TERMINATING
    assert plan(session(VALID, deleting=True), facts(pod=terminating()), SETTINGS).actions == []
    last = plan(replace(session(VALID, deleting=True), finalizers=HELD), facts(pod=None), SETTINGS)
    assert last.actions == [RELEASE]
    assert last.done
    assert last.status.restarts.count == 0


def test_deletion_deletes_the_claim_if_the_retention_says_so() -> None:
    going = session(VALID, deleting=True, storage=DELETE)
    assert plan(going, facts(), SETTINGS).actions == ENDS
    last = plan(replace(going, finalizers=HELD), facts(pod=None), SETTINGS)
    assert last.actions == [DeletePvc("pvc-uid"), RELEASE]
    assert last.done


@pytest.mark.parametrize("reason", [Reason.CLASS_NOT_FOUND, Reason.OVERRIDE_NOT_ALLOWED])
def test_a_session_against_its_class_cannot_delete_its_volume(reason: Reason) -> None:
    """Whoever may change a session could name no class, and delete the login of its owner."""
    going = replace(session(VALID, deleting=True, storage=DELETE), finalizers=HELD)
    owned = owned_by(pvc(), "WhatsAppSession", "sales", "uid-1")
    violating = facts(pod=None, pvc=owned, class_violation=Violation(reason, "Why."))
    first = plan(going, violating, SETTINGS)
    assert first.actions == [SetPvcOwner(None)], "garbage collection would delete the claim"
    assert not first.done
    assert Reason.DEVICE_STILL_LINKED not in event_reasons(first)
    last = plan(going, replace(violating, pvc=pvc()), SETTINGS)
    assert last.actions == [RELEASE]
    assert last.done


def test_deletion_leaves_objects_of_others_alone() -> None:
    going = session(VALID, deleting=True, storage=DELETE)
    foreign = facts(
        pod=owned_by(pod(), "ReplicaSet", "web"),
        pvc=owned_by(facts().pvc or {}, "StatefulSet", "db"),
    )
    result = plan(replace(going, finalizers=HELD), foreign, SETTINGS)
    assert result.actions == [RELEASE]
    assert result.done


def test_a_session_is_held_back_while_it_has_a_pod_or_a_login() -> None:
    """Before that, garbage collection alone removes whatever there is."""
    held_by_others, new = AddFinalizer(HELD[:1]), replace(session(), finalizers=HELD[:1])
    assert held_by_others not in plan(new, facts(pod=None, pvc=None), SETTINGS).actions
    assert plan(new, facts(), SETTINGS).actions == [held_by_others]
    assert held_by_others in plan(replace(new, status=VALID), facts(pod=None), SETTINGS).actions
    over = plan(replace(session(deleting=True), finalizers=HELD[:1]), facts(pod=None), SETTINGS)
    assert over.actions == [], "finalizers cannot be added once an object is being deleted"
    assert over.done


# --- logout on deletion ---------------------------------------------------------------------------

BY_SPEC = session(VALID, deleting=True, logoutOnDelete=True)
BY_ANNOTATION = session(VALID, deleting=True, annotations={"logout": "true"})


def test_a_device_is_not_logged_out_unless_requested() -> None:
    assert (
        plan(
            session(VALID, deleting=True), facts(report=report(session_valid=True)), SETTINGS
        ).actions
        == ENDS
    )


@pytest.mark.parametrize("requested", [BY_SPEC, BY_ANNOTATION], ids=["spec", "annotation"])
def test_a_device_is_logged_out_before_its_pod_is_deleted(requested: Session) -> None:
    live = facts(report=report(session_valid=True))
    [logout] = plan(requested, live, SETTINGS).actions
    assert logout == Logout("true" if requested is BY_ANNOTATION else None)
    over = plan(
        requested, facts(report=report(Phase.LOGGED_OUT, reason="LoggedOutByPhone")), SETTINGS
    )
    assert over.actions == ENDS
    assert over.status.session_valid is False
    for left in (terminating(), None):
        over = plan(replace(requested, status=over.status), facts(pod=left), SETTINGS)
        assert Reason.LOGOUT_FAILED not in event_reasons(over)
    assert over.done


@pytest.mark.parametrize("requested", [BY_SPEC, BY_ANNOTATION], ids=["spec", "annotation"])
def test_a_logout_takes_no_longer_than_its_timeout(requested: Session) -> None:
    late = facts(report=report(session_valid=True), now=NOW + timedelta(seconds=32))
    result = plan(requested, late, SETTINGS)
    assert result.actions == ENDS
    assert Reason.LOGOUT_FAILED in event_reasons(result), "the device is still on the phone's list"


@pytest.mark.parametrize("requested", [BY_SPEC, BY_ANNOTATION], ids=["spec", "annotation"])
@pytest.mark.parametrize("left", [None, terminating()], ids=["suspended", "ending"])
def test_a_device_that_cannot_be_logged_out_any_more_is_reported_once(
    requested: Session, left: dict[str, Any] | None
) -> None:
    result = plan(requested, facts(pod=left), SETTINGS)
    assert [event.reason for event in result.events] == [Reason.LOGOUT_FAILED]
    assert "Unlink it on the phone" in result.events[0].message
    assert result.done == (left is None)
    last = plan(replace(requested, status=result.status), facts(pod=None), SETTINGS)
    assert last.events == []
    assert last.done
    unlinked = replace(requested, status=VALID.model_copy(update={"session_valid": False}))
    assert plan(unlinked, facts(pod=left), SETTINGS).events == []


def test_a_pod_that_is_terminating_still_logs_its_device_out() -> None:
    """With a namespace, session and pod are deleted at once."""
    ending = facts(pod=terminating(), report=report(session_valid=True))
    for requested in (BY_SPEC, BY_ANNOTATION):
        result = plan(requested, ending, SETTINGS)
        assert len(of(Logout, result)) == len(result.actions) == 1
        assert result.events == []


def test_a_login_that_is_deleted_but_stays_linked_is_reported_once() -> None:
    delete: dict[str, Any] = {"storage": {"retention": {"whenDeleted": "Delete"}}}
    deleted = session(VALID, deleting=True, **delete)
    result = plan(deleted, facts(report=report(session_valid=True)), SETTINGS)
    assert [event.reason for event in result.events] == [Reason.DEVICE_STILL_LINKED]
    assert "unlink it on the phone" in result.events[0].message
    last = plan(replace(deleted, status=result.status), facts(pod=None), SETTINGS)
    assert last.events == []
    for quiet in (
        session(VALID, deleting=True),
        session(VALID, deleting=True, logoutOnDelete=True, **delete),
        session(Status(session_valid=False), deleting=True, **delete),
    ):
        assert plan(quiet, facts(), SETTINGS).events == []


def test_a_new_operator_gives_the_pod_time_to_answer() -> None:
    assert plan(BY_SPEC, facts(silent_since=NOW - timedelta(seconds=9)), SETTINGS).actions == []
    assert plan(BY_SPEC, facts(silent_since=NOW - timedelta(seconds=10)), SETTINGS).actions == ENDS
    assert plan(session(VALID, deleting=True), facts(silent_since=NOW), SETTINGS).actions == ENDS


def test_a_completed_logout_is_not_repeated_on_deletion() -> None:
    """A login that was linked since then may stay on its volume."""
    since = VALID.model_copy(update={"logout": LogoutStatus(request="true", at=NOW, done=True)})
    going = session(since, deleting=True, annotations={"logout": "true"})
    assert plan(going, facts(report=report(session_valid=True)), SETTINGS).actions == ENDS


# --- logout without deletion ----------------------------------------------------------------------


def requesting(before: Status = VALID, value: str = "1") -> Session:
    return session(before, annotations={"logout": value})


def valid(**fields: Any) -> Report:
    return report(session_valid=True, is_authenticated=True, **fields)


def test_a_logout_is_recorded_before_it_is_done() -> None:
    result = plan(requesting(), facts(report=valid()), SETTINGS)
    assert result.actions == [Logout("1")]
    assert result.status.logout == LogoutStatus(request="1", at=NOW, done=False)


def test_a_logout_is_done_once_for_each_value() -> None:
    recorded = plan(requesting(), facts(report=valid()), SETTINGS).status
    over = report(Phase.LOGGED_OUT, reason="LoggedOutOnRequest")
    done = plan(requesting(recorded), facts(report=over), SETTINGS)
    assert done.actions == [NoteLogout("1")], "the volume may outlive the status"
    assert done.status.logout == LogoutStatus(request="1", at=NOW, done=True)
    noted = valid(fulfilled_logout="1")
    paired_again = plan(requesting(done.status), facts(report=noted), SETTINGS)
    assert paired_again.actions == []
    another = plan(requesting(done.status, "2"), facts(report=valid()), SETTINGS)
    assert another.actions == [Logout("2")]


def test_a_login_that_was_linked_since_is_not_logged_out() -> None:
    """The operator was down from the logout to the new link; the pod reports when it was."""
    recorded = plan(requesting(), facts(report=valid()), SETTINGS).status
    gone = LastDisconnect(at=NOW + timedelta(seconds=5), kind=DisconnectKind.LOGOUT, reason="user")
    later = plan(requesting(recorded), facts(report=valid(last_disconnect=gone)), SETTINGS)
    assert later.actions == [NoteLogout("1")]
    assert later.status.logout is not None
    assert later.status.logout.done


def test_a_session_without_login_has_nothing_to_log_out() -> None:
    result = plan(
        requesting(Status()),
        facts(report=report(Phase.AUTHENTICATING, reason="WaitingForScan")),
        SETTINGS,
    )
    assert result.actions == [NoteLogout("1")]
    assert result.status.logout is not None
    assert result.status.logout.done


def test_a_restored_session_is_not_logged_out_again() -> None:
    """A backup has the annotation and the volume, but not the status."""
    done = valid(fulfilled_logout="1")
    result = plan(requesting(Status()), facts(report=done), SETTINGS)
    assert result.actions == []
    assert result.status.logout == LogoutStatus(request="1", at=NOW, done=True)
    deleted = session(Status(session_valid=True), deleting=True, annotations={"logout": "1"})
    assert plan(deleted, facts(report=done), SETTINGS).actions == ENDS
    another = plan(requesting(Status(), "2"), facts(report=done), SETTINGS)
    assert another.actions == [Logout("2")]


def test_a_volume_that_cannot_record_a_logout_is_no_problem() -> None:
    refusal = Refusal(Reason.LOGOUT_FAILED, "405", Backoff(1, NOW + timedelta(seconds=2)))
    before = VALID.model_copy(update={"logout": LogoutStatus(request="1", at=NOW, done=True)})
    circumstances = facts(report=valid(), refusals={NoteLogout: refusal})
    result = plan(requesting(before), circumstances, SETTINGS)
    assert result.actions == []
    assert condition(result, ConditionType.DEGRADED) == ("False", Reason.AS_EXPECTED)


def test_a_logout_waits_until_the_session_is_ready() -> None:
    result = plan(
        requesting(),
        facts(report=valid(phase=Phase.RECONNECTING, reason="ConnectionLost")),
        SETTINGS,
    )
    assert result.actions == []
    assert result.status.logout == LogoutStatus(request="1", at=NOW, done=False)
    assert of(Logout, plan(requesting(), facts(pod=None), SETTINGS)) == []


def test_a_logout_that_fails_is_reported_and_retried() -> None:
    refusal = Refusal(
        Reason.LOGOUT_FAILED,
        "the pod did not answer in time",
        Backoff(1, NOW + timedelta(seconds=2)),
    )
    failed = facts(report=valid(), refusals={Logout: refusal})
    result = plan(requesting(), failed, SETTINGS)
    assert result.actions == []
    assert condition(result, ConditionType.DEGRADED) == ("True", Reason.LOGOUT_FAILED)
    assert plan(
        requesting(), replace(failed, now=NOW + timedelta(seconds=2)), SETTINGS
    ).actions == [Logout("1")]


def test_a_claim_to_retain_is_released_before_its_session() -> None:
    """The retention was changed while the operator was down, or during the deletion."""
    owned = owned_by(pvc(), "WhatsAppSession", "sales", "uid-1")
    deleted = replace(session(VALID, deleting=True), finalizers=HELD)
    first = plan(deleted, facts(pod=None, pvc=owned), SETTINGS)
    assert first.actions == [SetPvcOwner(None)], "garbage collection would delete the claim"
    assert not first.done
    refused = {SetPvcOwner: Refusal(Reason.PVC_UPDATE_FAILED, "no", Backoff(1, NOW + LATER))}
    waiting = plan(deleted, facts(pod=None, pvc=owned, refusals=refused), SETTINGS)
    assert waiting.actions == []
    assert not waiting.done
    assert waiting.requeue_after == LATER
    assert condition(waiting, ConditionType.DEGRADED) == ("True", "PVCUpdateFailed")
    last = plan(deleted, facts(pod=None), SETTINGS)
    assert last.actions == [RELEASE]
    assert last.done
