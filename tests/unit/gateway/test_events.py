"""From two states of a session to its events."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from wasession_api.base import Model
from wasession_api.session_pod.events import EventId, EventKind
from wasession_api.v1alpha1 import (
    Account,
    Condition,
    ConditionType,
    DisconnectKind,
    HibernationStatus,
    LastDisconnect,
    LogoutStatus,
    PairingMethod,
    PairingStatus,
    Phase,
    Status,
)
from wasession_gateway import events
from wasession_gateway.events import (
    Disconnected,
    LoggedOut,
    Ready,
    RestoredSessionReady,
    SessionRestorationFailed,
    name,
)
from wasession_gateway.session import Session

START = datetime(2026, 10, 1, 10, tzinfo=UTC)
VERSIONS = iter(range(1, 10_000))


def session(
    phase: Phase = Phase.READY, *, suspended: bool = False, deleting: bool = False, **status: Any
) -> Session:
    return Session(
        name="sales-1",
        uid="u",
        version=str(next(VERSIONS)),
        owner="alice",
        client_id="sales",
        created_at="2026-10-01T10:00:00Z",
        suspended=suspended,
        deleting=deleting,
        status=Status(phase=phase, **{"last_connected": START, **status}),
    )


def condition(kind: ConditionType, status: str, reason: str, message: str = "") -> Condition:
    return Condition.model_validate(
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "last_transition_time": START,
        }
    )


def lost(kind: DisconnectKind, minutes: int = 1, reason: str = "TIMEOUT") -> LastDisconnect:
    return LastDisconnect(at=START + timedelta(minutes=minutes), kind=kind, reason=reason)


def names(before: Session | None, now: Session | None) -> list[str]:
    return [
        name(type(event))
        for event in events.changes(before, now)
        if not isinstance(event, events.State)
    ]


def one(model: type[Model], before: Session | None, now: Session | None) -> Any:
    [event] = [candidate for candidate in events.changes(before, now) if type(candidate) is model]
    return event


READY, RECONNECTING, RESTORING = session(), session(Phase.RECONNECTING), session(Phase.RESTORING)
LOGGED_OUT = session(Phase.LOGGED_OUT, last_disconnect=lost(DisconnectKind.LOGOUT))
RESTORED = session(restored=True, restorations=1)
AUTHENTICATING = session(Phase.AUTHENTICATING, last_connected=None)
SLEEP = HibernationStatus(since=START, wake_at=START + timedelta(hours=72))
LATER = HibernationStatus(since=START + timedelta(hours=1), wake_at=START + timedelta(hours=73))
ASLEEP = session(Phase.HIBERNATED, hibernation=SLEEP)
NOT_RESTORED = session(
    Phase.RESTORING,
    session_valid=True,
    conditions=[condition(ConditionType.RESTORED, "False", "ProfileDamaged", "torn")],
)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (READY, ["ready"]),
        (RESTORED, ["ready", "restored_session_ready"]),
        (AUTHENTICATING, ["authenticating"]),
        (LOGGED_OUT, ["disconnected", "logged_out"]),
        (RECONNECTING, ["disconnected"]),
        (session(Phase.CONFLICT), ["disconnected"]),
        (session(Phase.FAILED), ["disconnected"]),
        (session(Phase.SUSPENDED, suspended=True), ["disconnected"]),
        (session(deleting=True), ["disconnected"]),
        (NOT_RESTORED, ["session_restoration_failed"]),
        (session(Phase.PENDING), []),
        (session(Phase.STARTING), []),
        (RESTORING, []),
        (session(Phase.SYNCING), []),
        (session(Phase.PASSKEY_REQUIRED), []),
        (ASLEEP, ["hibernated"]),
    ],
)
def test_a_client_that_joins_gets_the_present_state(now: Session, expected: list[str]) -> None:
    assert names(None, now) == expected
    assert isinstance(events.changes(None, now)[0], events.State)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        # Nothing that matters has changed.
        (READY, session(), []),
        (RECONNECTING, session(Phase.RECONNECTING), []),
        (LOGGED_OUT, session(Phase.LOGGED_OUT, last_disconnect=lost(DisconnectKind.LOGOUT)), []),
        (
            NOT_RESTORED,
            session(Phase.RESTORING, session_valid=True, conditions=NOT_RESTORED.status.conditions),
            [],
        ),
        (
            RECONNECTING,
            session(Phase.RECONNECTING, last_disconnect=lost(DisconnectKind.CONNECTION)),
            [],
        ),
        # Asleep, and awake again.
        (READY, ASLEEP, ["hibernated"]),
        (RECONNECTING, ASLEEP, ["hibernated"]),
        (ASLEEP, session(Phase.HIBERNATED, hibernation=SLEEP), []),
        (ASLEEP, session(Phase.HIBERNATED, hibernation=LATER), ["hibernated"]),
        (ASLEEP, RESTORING, []),
        (ASLEEP, RESTORED, ["ready", "restored_session_ready"]),
        (ASLEEP, session(Phase.SUSPENDED, suspended=True), []),
        (ASLEEP, None, ["session_removed"]),
        # From the first pairing to the end.
        (session(Phase.PENDING), session(Phase.STARTING), []),
        (session(Phase.STARTING), AUTHENTICATING, ["authenticating"]),
        (AUTHENTICATING, session(Phase.SYNCING), []),
        (session(Phase.SYNCING), READY, ["ready"]),
        (AUTHENTICATING, READY, ["ready"]),
        (
            READY,
            session(Phase.RECONNECTING, last_disconnect=lost(DisconnectKind.CONNECTION)),
            ["disconnected"],
        ),
        (RECONNECTING, READY, ["ready"]),
        (READY, LOGGED_OUT, ["disconnected", "logged_out"]),
        (RECONNECTING, LOGGED_OUT, ["disconnected", "logged_out"]),
        (
            RECONNECTING,
            session(Phase.AUTHENTICATING, last_disconnect=lost(DisconnectKind.LOGOUT)),
            ["disconnected", "logged_out", "authenticating"],
        ),
        (READY, session(Phase.SUSPENDED, suspended=True), ["disconnected"]),
        (READY, session(deleting=True), ["disconnected"]),
        (session(deleting=True), None, ["session_removed"]),
        (READY, None, ["disconnected", "session_removed"]),
        # Restorations.
        (READY, RESTORING, ["disconnected"]),
        (RESTORING, RESTORED, ["ready", "restored_session_ready"]),
        (RESTORED, session(Phase.RECONNECTING, restorations=1, restored=True), ["disconnected"]),
        (session(Phase.RECONNECTING, restorations=1, restored=True), RESTORED, ["ready"]),
        (RESTORING, NOT_RESTORED, ["session_restoration_failed"]),
        (RESTORING, LOGGED_OUT, ["disconnected", "logged_out", "session_restoration_failed"]),
        (RESTORING, session(Phase.FAILED), ["session_restoration_failed"]),
        (RESTORING, AUTHENTICATING, ["session_restoration_failed", "authenticating"]),
        (NOT_RESTORED, RESTORED, ["ready", "restored_session_ready"]),
        # States in between were not seen.
        (READY, session(last_connected=START + timedelta(minutes=2)), ["ready"]),
        (
            READY,
            session(
                last_connected=START + timedelta(minutes=2),
                last_disconnect=lost(DisconnectKind.CRASH),
            ),
            ["disconnected", "ready"],
        ),
        (
            RESTORED,
            session(restored=True, restorations=2, last_connected=START + timedelta(minutes=2)),
            ["ready", "restored_session_ready"],
        ),
    ],
)
def test_events_of_a_change(before: Session, now: Session | None, expected: list[str]) -> None:
    assert names(before, now) == expected


def not_ready(phase: Phase, reason: str, message: str = "", **fields: Any) -> Session:
    ready = condition(ConditionType.READY, "False", reason, message)
    return session(phase, conditions=[ready], **fields)


ON_REQUEST = LogoutStatus(request="1", at=START, done=True)
LOGOUT = lost(DisconnectKind.LOGOUT, reason="unknown_companion")


@pytest.mark.parametrize(
    ("now", "kind", "permanent", "reason"),
    [
        (session(Phase.RECONNECTING), "Connection", False, "ConnectionLost"),
        (session(Phase.CONFLICT), "Conflict", False, "OpenedElsewhere"),
        (session(Phase.LOGGED_OUT), "Logout", True, "LoggedOutByPhone"),
        (session(Phase.SUSPENDED, suspended=True), "Suspended", False, "Suspended"),
        (session(Phase.PENDING, suspended=True), "Suspended", False, "Suspended"),
        (session(deleting=True), "Deleted", True, "Deleted"),
        # The reason is the status's, also when WhatsApp has a name of its own for the cause.
        (
            not_ready(Phase.LOGGED_OUT, "LoggedOutOnRequest", last_disconnect=LOGOUT),
            "Logout",
            True,
            "LoggedOutOnRequest",
        ),
        (not_ready(Phase.FAILED, "AccountBlocked"), "Connection", False, "AccountBlocked"),
        (not_ready(Phase.RESTORING, "NodeLost"), "Connection", False, "NodeLost"),
        (
            not_ready(
                Phase.RECONNECTING, "PageCrashed", last_disconnect=lost(DisconnectKind.CRASH)
            ),
            "Crash",
            False,
            "PageCrashed",
        ),
        # A status that says what goes on now does not say why the connection was lost.
        (
            not_ready(
                Phase.RESTORING, "LoginRestoring", last_disconnect=lost(DisconnectKind.CRASH)
            ),
            "Crash",
            False,
            "BrowserCrashed",
        ),
        (
            not_ready(Phase.AUTHENTICATING, "WaitingForScan", last_disconnect=LOGOUT),
            "Logout",
            True,
            "LoggedOutByPhone",
        ),
        (
            not_ready(
                Phase.AUTHENTICATING, "WaitingForScan", last_disconnect=LOGOUT, logout=ON_REQUEST
            ),
            "Logout",
            True,
            "LoggedOutOnRequest",
        ),
        (
            session(last_connected=LOGOUT.at, last_disconnect=lost(DisconnectKind.PHONE_OFFLINE)),
            "PhoneOffline",
            False,
            "PhoneOffline",
        ),
    ],
)
def test_why_it_is_disconnected(now: Session, kind: str, permanent: bool, reason: str) -> None:
    event: Disconnected = one(Disconnected, READY, now)
    assert (event.kind, event.permanent, event.reason) == (kind, permanent, reason)
    if kind == "Logout":
        assert one(LoggedOut, READY, now).reason == reason


def test_whatsapps_own_word_for_the_cause() -> None:
    now = not_ready(Phase.LOGGED_OUT, "LoggedOutByPhone", "Ended.", last_disconnect=LOGOUT)
    event: Disconnected = one(Disconnected, READY, now)
    assert (event.cause, event.message, event.at) == ("unknown_companion", "Ended.", LOGOUT.at)
    assert one(Disconnected, READY, session(Phase.RECONNECTING)).cause is None


def test_a_ready_session_that_is_blocked_has_not_failed_to_be_restored() -> None:
    """The operator leaves the condition as it was when the session became ready."""
    for restored, reason in (("True", "Restored"), ("False", "NewLogin")):
        conditions = [condition(ConditionType.RESTORED, restored, reason)]
        before = session(conditions=conditions, session_valid=True)
        blocked = session(
            Phase.FAILED,
            session_valid=True,
            conditions=[condition(ConditionType.READY, "False", "AccountBlocked"), *conditions],
        )
        assert names(before, blocked) == ["disconnected"]
        assert names(None, blocked) == ["disconnected"]


def test_a_known_disconnect_is_not_taken_for_a_new_one() -> None:
    old = lost(DisconnectKind.LOGOUT, minutes=-60, reason="user_initiated")
    before, now = session(last_disconnect=old), session(Phase.RECONNECTING, last_disconnect=old)
    assert one(Disconnected, before, now).kind == "Connection"
    assert names(before, now) == ["disconnected"]


def test_contents() -> None:
    account = Account(id="15551234567@c.us", push_name="Sales")
    ready: Ready = one(Ready, RESTORING, session(restored=True, restorations=4, account=account))
    assert ready.dump() == {
        "clientId": "sales",
        "owner": "alice",
        "name": "sales-1",
        "isRestored": True,
        "lastConnected": "2026-10-01T10:00:00Z",
        "account": {"id": "15551234567@c.us", "pushName": "Sales"},
    }
    assert (
        one(RestoredSessionReady, RESTORING, session(restored=True, restorations=4)).restorations
        == 4
    )
    failed: SessionRestorationFailed = one(SessionRestorationFailed, RESTORING, NOT_RESTORED)
    assert (failed.reason, failed.message) == ("ProfileDamaged", "torn")
    pairing = PairingStatus(available=True, method=PairingMethod.PAIRING_CODE, attempt=1)
    assert (
        one(events.Authenticating, RESTORING, session(Phase.AUTHENTICATING, pairing=pairing)).method
        == "PairingCode"
    )
    state = one(events.State, None, RESTORED)
    assert state.dump() == RESTORED.view.dump()


def test_nothing_restored_is_no_failure() -> None:
    for reason in ("NewLogin", "NoLogin"):
        now = session(
            Phase.STARTING, conditions=[condition(ConditionType.RESTORED, "False", reason)]
        )
        assert names(RESTORING, now) == []
    suspended = session(
        Phase.SUSPENDED,
        suspended=True,
        conditions=[condition(ConditionType.RESTORED, "False", "ProfileDamaged")],
    )
    assert names(RESTORING, suspended) == []


# --- events of session pods -----------------------------------------------------------------------

EVENT_ID = EventId("0123456789abcdef", 7)
AT = "2026-10-01T10:00:00Z"
CHANGE = {"id": "false_15550001111@c.us_3EB0", "chatId": "15550001111@c.us", "at": AT}
PAYLOADS: dict[EventKind, dict[str, Any]] = {
    EventKind.MESSAGE: {
        "id": "false_15550001111@c.us_3EB0",
        "chatId": "15550001111@c.us",
        "from": "15550001111@c.us",
        "fromMe": False,
        "forwarded": False,
        "viewOnce": False,
        "type": "chat",
        "text": "Hello",
        "sentAt": AT,
    },
    EventKind.EDIT: {**CHANGE, "fromMe": False, "text": "Hello!"},
    EventKind.DELETION: {**CHANGE, "fromMe": True},
    EventKind.REACTION: {**CHANGE, "fromMe": False, "emoji": "👍"},
    EventKind.VOTE: {**CHANGE, "fromMe": False, "options": ["yes"]},
    EventKind.ACK: {**CHANGE, "ack": 3},
    EventKind.CALL: {"id": "C", "from": "1@lid", "video": False, "group": False, "at": AT},
    EventKind.GROUP: {"chatId": "1@g.us", "action": "add", "participants": ["1@lid"], "at": AT},
    EventKind.GAP: {"reason": "Expired"},
}


@pytest.mark.parametrize("kind", [kind for kind in EventKind if kind is not EventKind.STATE])
def test_clients_receive_all_that_a_pod_tells(kind: EventKind) -> None:
    data = PAYLOADS[kind]
    subject = {"clientId": "sales", "owner": "alice", "name": "sales-1"}
    for given in (data, json.dumps(data)):
        event = events.of_pod(READY, kind, given, EVENT_ID)
        assert event is not None
        assert type(event) in events.SCOPES
        assert event.dump() == {**subject, "eventId": str(EVENT_ID), **data}


@pytest.mark.parametrize("data", ["{}", "nonsense", '{"id": 7}', {"id": 7}, {}])
@pytest.mark.parametrize("kind", ["message", "vote", "gap"])
def test_what_cannot_be_read_was_missed(kind: str, data: str | dict[str, Any]) -> None:
    event = events.of_pod(READY, kind, data, EVENT_ID)
    assert isinstance(event, events.MessagesMissed)
    assert (event.reason, event.event_id) == ("Unreadable", str(EVENT_ID))


def test_kinds_of_a_newer_pod_are_left_out() -> None:
    assert events.of_pod(READY, "state", "{}", EVENT_ID) is None
    assert events.of_pod(READY, "something-new", "{}", EVENT_ID) is None


def test_an_event_may_have_no_id_to_come_back_with() -> None:
    event = events.of_pod(READY, "gap", '{"reason": "Expired"}', None)
    assert event is not None
    assert "eventId" not in event.dump()
