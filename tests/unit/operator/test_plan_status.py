"""The status and its Events: counted once, emitted once, and true."""

from __future__ import annotations

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
    plan,
    pod,
    pvc,
    report,
    session,
    terminating,
)
from wasession_api.restoration import failure, new_failure
from wasession_api.v1alpha1 import (
    Account,
    AccountStatus,
    ConditionType,
    DisconnectKind,
    LastDisconnect,
    LogoutStatus,
    Phase,
    PinnedDocument,
    Reason,
    RequestStatus,
    Restarts,
    Status,
)
from wasession_operator.plan import invalid_spec_status, make_events
from wasession_operator.plan.pod import STOPPED, TERMINATION_REASONS


def test_a_restoration_is_counted_once() -> None:
    before = Status(
        session_valid=True,
        restorations=4,
        last_connected=NOW - timedelta(hours=1),
        pod_uid="pod-uid",
    )
    seen = facts(
        report=report(restored=True, session_valid=True, last_connected=NOW + timedelta(seconds=4))
    )
    first = plan(session(before), seen, SETTINGS)
    assert first.status.restorations == 5
    assert first.status.restored
    assert condition(first, ConditionType.RESTORED) == ("True", Reason.RESTORED)
    assert event_reasons(first) == [Reason.RESTORED]
    again = plan(session(first.status), seen, SETTINGS)
    assert again.status == first.status


def test_a_reconnection_is_no_restoration() -> None:
    before = Status(
        session_valid=True,
        restorations=4,
        last_connected=NOW + timedelta(minutes=1),
        pod_uid="pod-uid",
    )
    seen = facts(
        report=report(restored=True, session_valid=True, last_connected=NOW + timedelta(minutes=5))
    )
    result = plan(session(before), seen, SETTINGS)
    assert result.status.restorations == 4
    assert event_reasons(result) == [Reason.CONNECTED]


def test_a_proven_logout_ends_the_login() -> None:
    result = plan(
        session(VALID),
        facts(report=report(Phase.AUTHENTICATING, reason="WaitingForScan")),
        SETTINGS,
    )
    assert result.status.session_valid is False
    assert condition(result, ConditionType.RESTORED) == ("False", Reason.NO_LOGIN)


def test_the_account_of_an_ended_login_is_the_last_one() -> None:
    linked: dict[str, Any] = {
        "session_valid": True,
        "account": {"id": "1@c.us", "pushName": "Sales"},
    }
    before = plan(session(), facts(report=report(**linked)), SETTINGS).status
    assert before.account is not None
    assert before.last_account is None
    logged_out = report(Phase.LOGGED_OUT, reason="LoggedOutByPhone", account={"id": "1@c.us"})
    after = plan(session(before), facts(report=logged_out), SETTINGS).status
    assert after.account is None
    assert after.last_account is not None
    assert after.last_account.id == "1@c.us"
    waits = report(Phase.AUTHENTICATING, reason="WaitingForScan")
    later = plan(session(after), facts(report=waits), SETTINGS).status
    assert (later.account, later.last_account) == (None, after.last_account)


@pytest.mark.parametrize(
    "unknown",
    [
        {"session_valid": None, "phase": Phase.STARTING, "reason": "BrowserStarting"},
        {"session_valid": None, "phase": Phase.FAILED, "reason": "VolumeInUse"},
        *(
            {"session_valid": False, "phase": Phase.FAILED, "reason": reason}
            for reason in Reason
            if reason.startswith("Volume")
        ),
    ],
)
@pytest.mark.parametrize("deleting", [False, True])
def test_a_pod_that_has_not_read_the_volume_proves_no_logout(
    unknown: dict[str, Any], deleting: bool
) -> None:
    known = VALID.model_copy(update={"account": Account(id="1@c.us")})
    requested = session(known, deleting=deleting, annotations={"logout": "1"})
    result = plan(requested, facts(report=report(**unknown)), SETTINGS)
    assert result.status.session_valid is True
    assert result.status.account == Account(id="1@c.us")
    assert result.status.logout is None or not result.status.logout.done


@pytest.mark.parametrize(
    ("restored", "expected"),
    [(True, ("True", Reason.RESTORED)), (False, ("False", Reason.NEW_LOGIN))],
)
@pytest.mark.parametrize(
    ("phase", "reason"),
    [
        (Phase.FAILED, "AccountBlocked"),
        (Phase.RECONNECTING, "WhatsAppUnreachable"),
        (Phase.CONFLICT, "OpenedElsewhere"),
        (Phase.CONFLICT, "LoginInUseElsewhere"),
    ],
)
def test_what_happens_to_a_connected_session_is_no_failed_restoration(
    restored: bool, expected: tuple[str, Reason], phase: Phase, reason: str
) -> None:
    connected: dict[str, Any] = {
        "session_valid": True,
        "restored": restored,
        "started_at": NOW - timedelta(minutes=5),
        "last_connected": NOW - timedelta(minutes=4),
    }
    before = plan(session(VALID), facts(report=report(**connected)), SETTINGS).status
    lost = report(phase, reason=reason, **connected)
    after = plan(session(before), facts(report=lost), SETTINGS)
    assert condition(after, ConditionType.RESTORED) == expected
    assert failure(after.status) is None
    assert new_failure(before, after.status) is None


def test_a_stalled_restoration_is_reported() -> None:
    failing = report(
        Phase.RESTORING, reason="WhatsAppUnreachable", message="No route.", session_valid=True
    )
    result = plan(session(VALID), facts(report=failing), SETTINGS)
    assert condition(result, ConditionType.RESTORED) == ("False", Reason.WHATSAPP_UNREACHABLE)
    assert message(result, ConditionType.RESTORED) == "No route."
    assert event_reasons(result) == [Reason.WHATSAPP_UNREACHABLE]
    assert result.status.account_status is AccountStatus.DISCONNECTED
    assert result.status.session_valid, "only a proven logout ends a login"


def test_a_login_that_another_browser_has_needs_a_person_and_stays_valid() -> None:
    displaced = report(
        Phase.CONFLICT, reason="LoginInUseElsewhere", message="Restart.", session_valid=True
    )
    known = VALID.model_copy(update={"account": Account(id="1@c.us")})
    result = plan(session(known), facts(report=displaced), SETTINGS)
    assert (result.status.phase, result.status.session_valid) == (Phase.CONFLICT, True)
    for kind, truth in ((ConditionType.READY, "False"), (ConditionType.DEGRADED, "True")):
        assert condition(result, kind) == (truth, Reason.LOGIN_IN_USE_ELSEWHERE)
        assert message(result, kind) == "Restart."
    assert event_reasons(result) == [Reason.LOGIN_IN_USE_ELSEWHERE]
    assert result.status.account == Account(id="1@c.us")
    assert result.actions == [], "another pod would not start its browser either"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (DisconnectKind.LOGOUT, Reason.LOGGED_OUT_BY_PHONE),
        (DisconnectKind.CONNECTION, Reason.CONNECTION_LOST),
        (DisconnectKind.CONFLICT, Reason.OPENED_ELSEWHERE),
        (DisconnectKind.CRASH, Reason.BROWSER_CRASHED),
        (DisconnectKind.PHONE_OFFLINE, Reason.PHONE_OFFLINE),
    ],
)
def test_a_disconnection_is_emitted_once_with_its_kind(
    kind: DisconnectKind, reason: Reason
) -> None:
    gone = LastDisconnect(at=NOW, kind=kind, reason="TIMEOUT")
    seen = facts(
        report=report(
            Phase.RECONNECTING, reason="ConnectionLost", session_valid=True, last_disconnect=gone
        )
    )
    first = plan(session(VALID), seen, SETTINGS)
    assert event_reasons(first) == [reason]
    assert first.status.last_disconnect == gone
    assert event_reasons(plan(session(first.status), seen, SETTINGS)) == []


def test_a_logout_on_request_is_no_warning() -> None:
    """Its Event says what the status says, also if the session shows a code again by then."""
    gone = LastDisconnect(at=NOW, kind=DisconnectKind.LOGOUT, reason="user_initiated")
    reported: dict[str, Any] = {"session_valid": False, "last_disconnect": gone}
    out = report(Phase.LOGGED_OUT, reason="LoggedOutOnRequest", **reported)
    [event] = plan(session(VALID), facts(report=out), SETTINGS).events
    assert (event.type, event.reason) == ("Normal", Reason.LOGGED_OUT_ON_REQUEST)
    assert "user_initiated" not in event.message
    requested = LogoutStatus(request="1", at=NOW)
    asked = session(VALID.model_copy(update={"logout": requested}), annotations={"logout": "1"})
    again = report(Phase.AUTHENTICATING, reason="WaitingForScan", message="Scan.", **reported)
    events = plan(asked, facts(report=again), SETTINGS).events
    assert [(event.type, event.reason) for event in events] == [
        ("Normal", Reason.LOGGED_OUT_ON_REQUEST),
        ("Normal", Reason.WAITING_FOR_SCAN),
    ]
    by_phone = report(Phase.LOGGED_OUT, reason="LoggedOutByPhone", **reported)
    [event] = plan(session(VALID), facts(report=by_phone), SETTINGS).events
    assert (event.type, event.reason) == ("Warning", Reason.LOGGED_OUT_BY_PHONE)


def test_a_restart_is_acknowledged_and_done_when_the_new_pod_is_ready() -> None:
    asked = session(VALID, annotations={"restart": "1"})
    accepted = plan(asked, facts(report=report(session_valid=True)), SETTINGS).status
    assert accepted.restart == RequestStatus(request="1", at=NOW, done=False)
    later = NOW + timedelta(minutes=1)
    new = pod(ready=False)
    new["metadata"] |= {"uid": "pod-uid-2"}
    new["metadata"]["annotations"]["wasession.dev/restart"] = "1"
    going: dict[str, Any] = {"annotations": {"restart": "1"}}
    for obj in (None, terminating(), new):
        status = plan(session(accepted, **going), facts(pod=obj, now=later), SETTINGS).status
        assert status.restart == accepted.restart
    new["status"]["conditions"][0]["status"] = "True"
    running = facts(pod=new, now=later)
    done = plan(session(accepted, **going), running, SETTINGS).status
    assert done.restart == RequestStatus(request="1", at=NOW, done=True)
    for noted in ({"restart": "1"}, {}):
        again = session(done, annotations=noted)
        assert plan(again, facts(pod=None), SETTINGS).status.restart == done.restart
    second = plan(session(done, annotations={"restart": "2"}), running, SETTINGS).status
    assert second.restart == RequestStatus(request="2", at=later, done=False)


def test_a_new_login_is_emitted() -> None:
    seen = facts(report=report(session_valid=True, is_authenticated=True, last_connected=NOW))
    result = plan(session(Status(session_valid=False, pod_uid="pod-uid")), seen, SETTINGS)
    assert event_reasons(result) == [Reason.NEW_LOGIN]
    assert condition(result, ConditionType.AUTHENTICATED) == ("True", Reason.CONNECTED)


def test_a_code_to_scan_is_emitted() -> None:
    waiting = report(
        Phase.AUTHENTICATING, reason="WaitingForScan", message="Waiting for a phone to be linked."
    )
    assert event_reasons(plan(session(), facts(report=waiting), SETTINGS)) == [
        Reason.WAITING_FOR_SCAN
    ]


def test_the_status_shows_the_whole_report() -> None:
    full = report(
        session_valid=True, is_authenticated=True, last_connected=NOW, auth_state="CONNECTED",
        account={"id": "15551234567@c.us", "pushName": "Sales"}, whatsapp_web_version="2.3000.1",
        last_shutdown={"at": NOW, "graceful": True}, phone_last_seen=NOW,
        wa_js={"version": "4.6.0", "sha256": "a" * 64},
        pairing={"available": True, "method": "QRCode", "attempt": 2},
    )  # fmt: skip
    status = plan(session(), facts(report=full), SETTINGS).status
    assert status.observed_generation == 3
    assert (status.pod_name, status.pod_uid, status.node_name) == (
        "wasession-sales",
        "pod-uid",
        "node-1",
    )
    assert (status.pvc_name, status.pvc_uid) == ("wasession-sales", "pvc-uid")
    shown = set(type(full).model_fields) & set(Status.model_fields)
    assert {name: getattr(status, name) for name in shown} == {
        name: getattr(full, name) for name in shown
    }


def test_since_when_a_document_is_pinned() -> None:
    def after(before: Status, sha256: str | None, minutes: int) -> Status:
        at = NOW + timedelta(minutes=minutes)
        seen = facts(report=report(document_sha256=sha256), now=at)
        return plan(session(before), seen, SETTINGS).status

    first = after(Status(), "a" * 64, 0)
    assert first.whatsapp_document == PinnedDocument(sha256="a" * 64, since=NOW)
    later = after(first, "a" * 64, 5)
    assert later.whatsapp_document == first.whatsapp_document
    unreachable = plan(session(later), facts(report=None), SETTINGS).status
    assert unreachable.whatsapp_document == first.whatsapp_document
    another = after(later, "b" * 64, 10)
    assert another.whatsapp_document == PinnedDocument(
        sha256="b" * 64, since=NOW + timedelta(minutes=10)
    )
    assert after(another, None, 15).whatsapp_document is None


def test_what_the_next_report_omits_stays() -> None:
    known: dict[str, Any] = {
        "account": {"id": "1@c.us"},
        "last_connected": NOW,
        "phone_last_seen": NOW,
        "whatsapp_web_version": "2.3",
        "wa_js": {"version": "4.6.0", "sha256": "a" * 64},
    }
    first = plan(session(), facts(report=report(**known)), SETTINGS).status
    later = plan(
        session(first),
        facts(report=report(Phase.RESTORING, reason="LoginRestoring", seq=2, session_valid=True)),
        SETTINGS,
    ).status
    for name in known:
        assert getattr(later, name) == getattr(first, name)
    assert later.is_authenticated is False


def test_the_last_sight_of_the_phone_is_not_written_every_hour() -> None:
    first = plan(session(), facts(report=report(phone_last_seen=NOW)), SETTINGS).status
    soon = report(phone_last_seen=NOW + timedelta(hours=11), seq=2)
    assert plan(session(first), facts(report=soon), SETTINGS).status == first
    late = report(phone_last_seen=NOW + timedelta(hours=12), seq=3)
    assert plan(
        session(first), facts(report=late), SETTINGS
    ).status.phone_last_seen == NOW + timedelta(hours=12)


def test_a_transition_time_changes_only_with_its_condition() -> None:
    first = plan(session(), facts(report=report()), SETTINGS).status
    later = plan(
        session(first), facts(report=report(), now=NOW + timedelta(hours=1)), SETTINGS
    ).status
    assert later == first
    lost = report(Phase.RECONNECTING, reason="ConnectionLost")
    changed = plan(
        session(first), facts(report=lost, now=NOW + timedelta(hours=1)), SETTINGS
    ).status
    times = {c.type: c.last_transition_time for c in changed.conditions}
    assert times[ConditionType.READY] == NOW + timedelta(hours=1)
    assert times[ConditionType.POD_READY] == NOW


def test_an_invalid_spec_is_reported_and_loses_nothing() -> None:
    known = plan(session(VALID), facts(report=report(session_valid=True)), SETTINGS).status
    status = invalid_spec_status(session(known), NOW, "browser.locale: wrong")
    assert status.phase is Phase.FAILED
    assert status.account_status is AccountStatus.DISCONNECTED
    assert status.session_valid
    assert status.pod_uid == known.pod_uid
    assert [event.reason for event in make_events(known, status)] == [Reason.INVALID_SPEC]
    assert (
        invalid_spec_status(session(status), NOW + timedelta(hours=1), "browser.locale: wrong")
        == status
    )


def test_the_status_has_what_the_scale_subresource_and_the_size_of_the_volume_need() -> None:
    claim = pvc()
    claim["status"]["capacity"] = {"storage": "1Gi"}
    status = plan(session(VALID), facts(pvc=claim, report=report()), SETTINGS).status
    selector = "app.kubernetes.io/managed-by=wasession-operator,wasession.dev/session=sales"
    assert (status.replicas, status.selector) == (1, selector)
    assert status.pvc_capacity == "1Gi"
    without = plan(session(status), facts(pvc=claim, pod=None), SETTINGS).status
    assert (without.replicas, without.selector) == (0, selector)


def test_each_cause_of_a_restart_has_a_sentence_of_its_own() -> None:
    causes = (TERMINATION_REASONS - STOPPED) | {
        Reason.POD_DELETED,
        Reason.CONTAINER_RESTARTED,
    }
    before = Status()
    sentences = set()
    for cause in causes:
        after = before.model_copy(update={"restarts": Restarts(count=1, reason=cause)})
        [event] = make_events(before, after)
        assert event.reason == cause
        sentences.add(event.message)
        deliberate = cause in {
            Reason.RESTART_REQUESTED,
            Reason.TEMPLATE_CHANGED,
            Reason.POD_DELETED,
            Reason.POD_ORPHANED,
        }
        assert event.type == ("Normal" if deliberate else "Warning")
    assert len(sentences) == len(causes)


@pytest.mark.parametrize(
    ("sandboxed", "expected"),
    [(True, ("True", "AsExpected")), (False, ("False", "SandboxUnavailable")), (None, None)],
)
def test_a_missing_sandbox_is_a_condition_but_no_problem(
    sandboxed: bool | None, expected: tuple[str, str] | None
) -> None:
    after = plan(session(VALID), facts(report=report(sandboxed=sandboxed)), SETTINGS).status
    found = after.condition(ConditionType.SANDBOXED)
    assert (None if found is None else (found.status, found.reason)) == expected
    degraded = after.condition(ConditionType.DEGRADED)
    assert degraded is not None
    assert degraded.status == "False"
