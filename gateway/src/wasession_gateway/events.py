"""The Socket.IO events of a session: pure.

``changes(before, now)`` compares two states of one session. A client that joins gets
``changes(None, now)``. States in between may have been skipped: their events are sent as far as
the present state shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from wasession_api import restoration
from wasession_api.base import Model, Time
from wasession_api.session_pod import messages
from wasession_api.session_pod.events import PAYLOADS, EventId, EventKind, Gap, GapReason
from wasession_api.session_pod.messages import IncomingMessage
from wasession_api.v1alpha1 import (
    Account,
    ConditionType,
    DisconnectKind,
    LastDisconnect,
    PairingMethod,
    Phase,
    Reason,
)

from wasession_gateway.scopes import Scope
from wasession_gateway.session import Session, SessionView

# Phases in which a session is not connected, other than those before its first connection.
DISCONNECTED = {
    Phase.RECONNECTING,
    Phase.SUSPENDED,
    Phase.LOGGED_OUT,
    Phase.CONFLICT,
    Phase.FAILED,
    Phase.TERMINATING,
}


class Ended(StrEnum):
    """Why a session is disconnected when WhatsApp is not the cause."""

    SUSPENDED = "Suspended"
    DELETED = "Deleted"


Kind = DisconnectKind | Ended
# Phases whose reason says what is going on, not why the connection was lost before.
IN_PROGRESS = {
    Phase.PENDING,
    Phase.STARTING,
    Phase.RESTORING,
    Phase.AUTHENTICATING,
    Phase.SYNCING,
}
# The status's reasons, for a disconnect that the present status does not show.
REASONS: dict[Kind, str] = {
    DisconnectKind.LOGOUT: Reason.LOGGED_OUT_BY_PHONE,
    DisconnectKind.CONNECTION: Reason.CONNECTION_LOST,
    DisconnectKind.CONFLICT: Reason.OPENED_ELSEWHERE,
    DisconnectKind.CRASH: Reason.BROWSER_CRASHED,
    DisconnectKind.PHONE_OFFLINE: Reason.PHONE_OFFLINE,
    Ended.SUSPENDED: Reason.SUSPENDED,
    Ended.DELETED: "Deleted",
}
ReasonCode = Annotated[str, Field(description="A reason of the session's status, in CamelCase.")]


# --- what clients receive -------------------------------------------------------------------------


class Event(Model):
    """Payload of an event; the class determines the event's name."""

    client_id: str = Field(description="The session's clientId.")
    owner: str | None = Field(
        None, description="The session's owner: two owners may use the same clientId."
    )
    name: str = Field(description="Name of the WhatsAppSession, which is unique.")


class State(SessionView):
    """The session's present state, sent whenever anything about it has changed."""


class Authenticating(Event):
    """A phone can be linked now; `qr` or `pairing_code` follows."""

    method: PairingMethod = PairingMethod.QR_CODE


class Ready(Event):
    """The session is connected: messages can be sent."""

    is_restored: bool = Field(
        description="Whether it was restored from its stored login, without a new QR or code."
    )
    account: Account | None = None
    last_connected: Time | None = None


class RestoredSessionReady(Event):
    """The session was restored from its stored login; follows `ready`."""

    account: Account | None = None
    restorations: int = Field(description="How often the session has been restored so far.")


class SessionRestorationFailed(Event):
    """The session has a login, or had one, and could not be restored from it."""

    reason: ReasonCode
    message: str = ""


class LoggedOut(Event):
    """The login was ended, on the phone or on request; follows `disconnected`.

    Only linking a phone again helps.
    """

    reason: ReasonCode
    at: Time | None = None


class Disconnected(Event):
    """The session is no longer connected. It reconnects by itself unless `permanent`."""

    kind: Kind
    permanent: bool = Field(
        description="Whether it was logged out or deleted, so that it does not reconnect by itself."
    )
    reason: ReasonCode
    message: str = ""
    cause: str | None = Field(
        None, description="What WhatsApp or the browser calls the cause, such as `TIMEOUT`."
    )
    at: Time | None = None


class Hibernated(Event):
    """Nobody has used the session, so it sleeps. Sending a message wakes it; `ready` follows."""

    since: Time
    wake_at: Time = Field(description="When it wakes if nobody uses it before.")


class SessionRemoved(Event):
    """The session was deleted, or is no longer the client's. No more events of it follow."""


class Qr(Event):
    """A QR to scan. The next `qr` replaces it; it cannot be used after `expiresAt`."""

    qr: str = Field(description="Content of the QR.", repr=False)
    image: str = Field(description="The QR as a `data:` URL of a PNG.", repr=False)
    attempt: int
    expires_at: Time | None = None


class PairingCode(Event):
    """A code to type on the phone, under «Link with phone number instead»."""

    code: str = Field(repr=False)
    attempt: int
    expires_at: Time | None = None


class Numbered(Model):
    """A payload with the ID that the session pod has given the event."""

    event_id: str | None = Field(
        None,
        max_length=64,
        description="ID of the event, which never changes. As `since` of a later `init`, it "
        "selects the events that follow.",
        examples=["5c1f0e7a9b3d4c62-1042"],
    )


class Message(Event, Numbered, IncomingMessage):
    """An incoming message, or one that the account sent with another device."""


class MessageEdit(Event, Numbered, messages.MessageEdit):
    """The text of a message was changed by its sender."""


class MessageDeletion(Event, Numbered, messages.MessageDeletion):
    """A message was deleted for everyone, by its sender or an admin of the group."""


class MessageReaction(Event, Numbered, messages.Reaction):
    """Somebody reacted to a message, or took a reaction back."""


class PollVote(Event, Numbered, messages.PollVote):
    """Somebody voted in a poll; the vote replaces their earlier one."""


class MessageAck(Event, Numbered, messages.MessageAck):
    """Progress of a sent message."""


class Call(Event, Numbered, messages.Call):
    """Somebody calls the account. The session does not answer calls."""


class GroupChange(Event, Numbered, messages.GroupChange):
    """Members of a group have changed."""


class MessagesMissed(Event, Numbered, Gap):
    """There may have been messages and other changes that were not delivered as events."""


class CaughtUp(Event, Numbered):
    """The client has had the events up to `eventId`; from here on it gets them as they happen."""


class Closing(Model):
    """The last event of a connection: the gateway is about to close it."""

    reason: Literal["TokenExpired", "NotAuthenticated", "ShuttingDown", "TooSlow"]
    message: str
    reconnect: bool = Field(
        description="Whether socket.io-client reconnects by itself; else it needs a new token."
    )


# The scope without which a client does not receive the event. `Closing` is about its connection.
SCOPES: Mapping[type[Model], Scope] = {
    State: Scope.SESSIONS_READ,
    Authenticating: Scope.SESSIONS_READ,
    Ready: Scope.SESSIONS_READ,
    RestoredSessionReady: Scope.SESSIONS_READ,
    SessionRestorationFailed: Scope.SESSIONS_READ,
    LoggedOut: Scope.SESSIONS_READ,
    Disconnected: Scope.SESSIONS_READ,
    Hibernated: Scope.SESSIONS_READ,
    SessionRemoved: Scope.SESSIONS_READ,
    Qr: Scope.PAIR,
    PairingCode: Scope.PAIR,
    Message: Scope.MESSAGES_READ,
    MessageEdit: Scope.MESSAGES_READ,
    MessageDeletion: Scope.MESSAGES_READ,
    MessageReaction: Scope.MESSAGES_READ,
    PollVote: Scope.MESSAGES_READ,
    MessageAck: Scope.MESSAGES_READ,
    Call: Scope.MESSAGES_READ,
    GroupChange: Scope.MESSAGES_READ,
    MessagesMissed: Scope.MESSAGES_READ,
    CaughtUp: Scope.MESSAGES_READ,
}
# What clients receive for each kind of event of a session pod's outbox.
_OF_KIND: Mapping[str, type[Event]] = {
    EventKind.MESSAGE: Message,
    EventKind.EDIT: MessageEdit,
    EventKind.DELETION: MessageDeletion,
    EventKind.REACTION: MessageReaction,
    EventKind.VOTE: PollVote,
    EventKind.ACK: MessageAck,
    EventKind.CALL: Call,
    EventKind.GROUP: GroupChange,
    EventKind.GAP: MessagesMissed,
}
NamedPayload = tuple[str, dict[str, Any]]


def name(model: type[Model]) -> str:
    """Return the name on the wire: ``RestoredSessionReady`` is ``restored_session_ready``."""
    return "".join(
        f"_{letter.lower()}" if letter.isupper() else letter for letter in model.__name__
    ).lstrip("_")


def encode(event: Model) -> NamedPayload:
    return name(type(event)), event.dump()


def subject(session: Session) -> dict[str, Any]:
    """Return the fields that every event of a session has."""
    return {"client_id": session.client_id, "owner": session.owner, "name": session.name}


def of_pod(
    session: Session, kind: str, data: str | Mapping[str, Any], event_id: EventId | None
) -> Event | None:
    """Return what clients receive for an event of the session's pod; None if it is of a new kind.

    In place of an event that cannot be read, they are told that they have missed something.
    """
    model = _OF_KIND.get(kind)
    if model is None:
        return None
    numbered = {**subject(session), "event_id": str(event_id) if event_id else None}
    payload = PAYLOADS[EventKind(kind)]
    try:
        content = (
            payload.model_validate_json(data)
            if isinstance(data, str)
            else payload.model_validate(data)
        )
    except ValidationError:
        return MessagesMissed(**numbered, reason=GapReason.UNREADABLE)
    return model.model_construct(**numbered, **dict(content))


# --- which events a change causes -----------------------------------------------------------------


def changes(before: Session | None, now: Session | None) -> list[Model]:
    """Return the events between two states of a session, in the order to send them in."""
    if now is None:
        if before is None:
            return []
        return [*_losses(before, None), SessionRemoved(**subject(before))]
    events: list[Model] = []
    if before is None or before.view != now.view:
        events.append(State.model_construct(**dict(now.view)))
    events += _losses(before, now)
    if failure := _restoration_failure(before, now):
        events.append(failure)
    if now.phase is Phase.AUTHENTICATING and (
        before is None or before.phase is not Phase.AUTHENTICATING
    ):
        method = now.status.pairing.method if now.status.pairing else PairingMethod.QR_CODE
        events.append(Authenticating(**subject(now), method=method))
    return events + _gains(before, now) + _falls_asleep(before, now)


def _falls_asleep(before: Session | None, now: Session) -> list[Model]:
    sleep = now.status.hibernation
    known = before is not None and before.phase is now.phase and before.status.hibernation == sleep
    if sleep is None or now.phase is not Phase.HIBERNATED or known:
        return []
    return [Hibernated(**subject(now), since=sleep.since, wake_at=sleep.wake_at)]


def _gains(before: Session | None, now: Session) -> list[Model]:
    """The session became ready, possibly after a loss between the two states."""
    status = now.status
    if not now.ready or (
        before is not None
        and before.ready
        and before.status.last_connected == status.last_connected
    ):
        return []
    restored = bool(status.restored)
    ready = Ready(
        **subject(now),
        is_restored=restored,
        account=status.account,
        last_connected=status.last_connected,
    )
    newly_restored = restored and (
        before is None
        or before.status.restorations != status.restorations
        or not before.status.restored
    )
    if not newly_restored:
        return [ready]
    return [
        ready,
        RestoredSessionReady(
            **subject(now), account=status.account, restorations=status.restorations
        ),
    ]


def _losses(before: Session | None, now: Session | None) -> list[Model]:
    """The session is disconnected.

    It was ready and is not, it lost the connection between the two states, or it is disconnected
    when a client joins. A session that sleeps is not: it can be used.
    """
    last_before = before.status.last_disconnect if before is not None else None
    last_now = now.status.last_disconnect if now is not None else None
    disconnect = last_now if last_now != last_before else None
    if before is None:
        assert now is not None
        lost = now.phase in DISCONNECTED
    elif before.ready and (now is None or now.phase is not Phase.HIBERNATED):
        lost = now is None or not now.ready or disconnect is not None
    else:
        logged_out = (
            now is not None
            and now.phase is Phase.LOGGED_OUT
            and before.phase is not Phase.LOGGED_OUT
        )
        lost = logged_out or (disconnect is not None and disconnect.kind is DisconnectKind.LOGOUT)
    if not lost:
        return []
    disconnected = _disconnected(before, now, disconnect)
    if disconnected.kind is not DisconnectKind.LOGOUT:
        return [disconnected]
    session = now or before
    assert session is not None
    return [
        disconnected,
        LoggedOut(**subject(session), reason=disconnected.reason, at=disconnected.at),
    ]


def _disconnected(
    before: Session | None, now: Session | None, disconnect: LastDisconnect | None
) -> Disconnected:
    session = now or before
    assert session is not None
    kind = _kind(now, disconnect)
    ready = session.status.condition(ConditionType.READY)
    if now is None or ready is None or not _says_why(now, kind, disconnect):
        reason, message = _reason(before, now, kind), ""
    else:
        reason, message = ready.reason, ready.message
    same = disconnect is not None and disconnect.kind == kind
    return Disconnected(
        **subject(session),
        kind=kind,
        permanent=kind in (DisconnectKind.LOGOUT, Ended.DELETED),
        reason=reason,
        message=message,
        cause=disconnect.reason if disconnect is not None and same else None,
        at=disconnect.at if disconnect is not None and same else None,
    )


def _kind(now: Session | None, disconnect: LastDisconnect | None) -> Kind:
    if now is None or now.deleting:
        return Ended.DELETED
    if now.phase is Phase.LOGGED_OUT:
        return DisconnectKind.LOGOUT
    if now.suspended:
        return Ended.SUSPENDED
    if disconnect is not None:
        return disconnect.kind
    return DisconnectKind.CONFLICT if now.phase is Phase.CONFLICT else DisconnectKind.CONNECTION


def _says_why(now: Session, kind: Kind, disconnect: LastDisconnect | None) -> bool:
    """Whether the condition Ready explains the disconnect, not what has happened since."""
    if now.ready or (kind is DisconnectKind.LOGOUT and now.phase is not Phase.LOGGED_OUT):
        return False
    return disconnect is None or now.phase not in IN_PROGRESS


def _reason(before: Session | None, now: Session | None, kind: Kind) -> str:
    """Return the reason that the status had, or would have had, for a disconnect."""
    if kind is not DisconnectKind.LOGOUT or now is None:
        return REASONS[kind]
    logout, logout_before = now.status.logout, before.status.logout if before is not None else None
    if logout is not None and logout.done and logout != logout_before:
        return Reason.LOGGED_OUT_ON_REQUEST
    return REASONS[kind]


def _restoration_failure(before: Session | None, now: Session) -> SessionRestorationFailed | None:
    """A stored login could not be restored; sent once for each reason."""
    if now.ready or now.suspended or now.deleting:
        return None
    failure = restoration.new_failure(before.status if before is not None else None, now.status)
    if failure is None:
        return None
    return SessionRestorationFailed(**subject(now), reason=failure.reason, message=failure.message)
