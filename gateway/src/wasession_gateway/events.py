"""What Socket.IO clients are told when a session changes: pure.

``events(before, now)`` compares two states of one session. A client that joins is told
``events(None, now)``. States in between may have been skipped: what they were is told as far as the
present state shows it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field
from wasession_api.base import Model, Time
from wasession_api.session_pod import messages
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

from wasession_gateway.session_cache import Session
from wasession_gateway.views import SessionView, condition

# What a condition Restored=False says when nothing was there to restore.
NOT_FAILED = {Reason.NEW_LOGIN, Reason.NO_LOGIN}
# Where a restoration can end, other than well.
DEAD_ENDS = {
    Phase.LOGGED_OUT,
    Phase.FAILED,
    Phase.CONFLICT,
    Phase.AUTHENTICATING,
    Phase.PASSKEY_REQUIRED,
}
# Phases in which a session is not connected and not on its first way there.
DISCONNECTED = {
    Phase.RECONNECTING, Phase.SUSPENDED, Phase.LOGGED_OUT, Phase.CONFLICT, Phase.FAILED, Phase.TERMINATING,
}  # fmt: skip


class Ended(StrEnum):
    """Why a session is disconnected when it is not WhatsApp that says so."""

    SUSPENDED = "Suspended"
    DELETED = "Deleted"


Kind = DisconnectKind | Ended
Word = Annotated[str, Field(description="In one CamelCase word.")]


class Event(Model):
    """The content of an event; the class says which."""

    client_id: str = Field(description="Which session.")
    owner: str | None = Field(
        None, description="Whose session it is: two owners may have sessions with one clientId."
    )
    name: str = Field(description="Name of its WhatsAppSession, which no two have.")


class State(SessionView):
    """The session as it is now, whenever anything about it has changed."""


class Authenticating(Event):
    """A phone can be linked now; `qr` or `pairing_code` follows."""

    method: PairingMethod = PairingMethod.QR_CODE


class Ready(Event):
    """The session is connected: messages can be sent."""

    is_restored: bool = Field(
        description="Whether it came back from its stored login, without a new QR or code."
    )
    account: Account | None = None
    last_connected: Time | None = None


class RestoredSessionReady(Event):
    """The session came back from its stored login; follows `ready`."""

    account: Account | None = None
    restorations: int = Field(description="How often this has happened.")


class SessionRestorationFailed(Event):
    """The session has a login, or had one, and did not come back."""

    reason: Word
    message: str = ""


class LoggedOut(Event):
    """The login has been ended, on the phone or on request. Only a new QR or code helps; follows `disconnected`."""

    reason: str
    at: Time | None = None


class Disconnected(Event):
    """The session is not connected any more. It comes back by itself unless `permanent`."""

    kind: Kind
    permanent: bool = Field(
        description="true after a logout and when the session was deleted: nothing comes back by itself."
    )
    reason: str = Field(
        description="WhatsApp's or the browser's word for it, or where there is none the session's reason."
    )
    message: str = ""
    at: Time | None = None


class SessionRemoved(Event):
    """The session is gone, or no longer the client's. Nothing more is told of it."""


class Qr(Event):
    """A QR to scan. Another `qr` replaces it; after `expiresAt` it can't be used."""

    qr: str = Field(description="The QR's content.")
    image: str = Field(description="The QR as a picture: a data: URL of a PNG.")
    attempt: int
    expires_at: Time | None = None


class PairingCode(Event):
    """A code to type on the phone, in WhatsApp's «Link with phone number instead»."""

    code: str
    attempt: int
    expires_at: Time | None = None


class Message(Event, IncomingMessage):
    """Somebody has written, or the account has with another of its devices."""


class MessageAck(Event, messages.MessageAck):
    """A sent message has got further."""


class MessagesMissed(Event):
    """Messages may have come that were not told."""


class Closing(Model):
    """The gateway ends the connection and says why; the last event of a connection."""

    reason: Literal["TokenExpired", "NotAuthenticated", "ShuttingDown", "TooSlow"]
    message: str
    reconnect: bool = Field(
        description="Whether socket.io-client connects again by itself; else a new token is needed first."
    )


Told = tuple[str, dict[str, Any]]


def name(model: type[Model]) -> str:
    """An event's name on the wire: ``RestoredSessionReady`` is ``restored_session_ready``."""
    return "".join(
        f"_{letter.lower()}" if letter.isupper() else letter for letter in model.__name__
    ).lstrip("_")


def told(event: Model) -> Told:
    return name(type(event)), event.dump()


def which(session: Session) -> dict[str, Any]:
    """What every event of a session begins with."""
    return {"client_id": session.client_id, "owner": session.owner, "name": session.name}


def events(before: Session | None, now: Session | None) -> list[Model]:
    """What has happened between two states of a session, in the order in which it should be told."""
    if now is None:
        return (
            [*_losses(before, None), SessionRemoved(**which(before))] if before is not None else []
        )
    found: list[Model] = []
    if before is None or before.view != now.view:
        found.append(State.model_construct(**dict(now.view)))
    found += _losses(before, now)
    if failure := _restoration_failure(before, now):
        found.append(failure)
    if now.phase is Phase.AUTHENTICATING and (
        before is None or before.phase is not Phase.AUTHENTICATING
    ):
        method = now.status.pairing.method if now.status.pairing else PairingMethod.QR_CODE
        found.append(Authenticating(**which(now), method=method))
    return found + _gains(before, now)


def _gains(before: Session | None, now: Session) -> list[Model]:
    """The session has become ready, also when it was lost and came back between the two states."""
    status = now.status
    if not now.ready or (
        before is not None
        and before.ready
        and before.status.last_connected == status.last_connected
    ):
        return []
    restored = bool(status.restored)
    found: list[Model] = [
        Ready(
            **which(now),
            is_restored=restored,
            account=status.account,
            last_connected=status.last_connected,
        )
    ]
    if restored and (
        before is None
        or before.status.restorations != status.restorations
        or not before.status.restored
    ):
        found.append(
            RestoredSessionReady(
                **which(now), account=status.account, restorations=status.restorations
            )
        )
    return found


def _losses(before: Session | None, now: Session | None) -> list[Model]:
    """The session is disconnected: it was ready and is not, was lost in between, or has been for a client that joins."""
    known = before.status.last_disconnect if before is not None else None
    gone = now.status.last_disconnect if now is not None else None
    news = gone if gone != known else None
    if before is None:
        assert now is not None
        lost = now.phase in DISCONNECTED
    elif before.ready:
        lost = now is None or not now.ready or news is not None
    else:
        logged_out = (
            now is not None
            and now.phase is Phase.LOGGED_OUT
            and before.phase is not Phase.LOGGED_OUT
        )
        lost = logged_out or (news is not None and news.kind is DisconnectKind.LOGOUT)
    if not lost:
        return []
    session = now or before
    assert session is not None
    disconnected = _disconnected(session, now, news)
    if disconnected.kind is not DisconnectKind.LOGOUT:
        return [disconnected]
    return [
        disconnected,
        LoggedOut(**which(session), reason=disconnected.reason, at=disconnected.at),
    ]


def _disconnected(
    session: Session, now: Session | None, news: LastDisconnect | None
) -> Disconnected:
    why = (
        condition(session.status, ConditionType.READY)
        if now is not None and not now.ready
        else None
    )
    kind: Kind
    if now is None or now.deleting:
        kind = Ended.DELETED
    elif now.phase is Phase.LOGGED_OUT:
        kind = DisconnectKind.LOGOUT
    elif now.phase is Phase.SUSPENDED:
        kind = Ended.SUSPENDED
    elif news is not None:
        kind = news.kind
    else:
        kind = DisconnectKind.CONFLICT if now.phase is Phase.CONFLICT else DisconnectKind.CONNECTION
    told_by_whatsapp = news is not None and news.kind == kind
    return Disconnected(
        **which(session),
        kind=kind,
        permanent=kind in (DisconnectKind.LOGOUT, Ended.DELETED),
        reason=news.reason
        if news is not None and told_by_whatsapp
        else why.reason
        if why
        else str(kind),
        message=why.message if why else "",
        at=news.at if news is not None and told_by_whatsapp else None,
    )


def _restoration_failure(before: Session | None, now: Session) -> SessionRestorationFailed | None:
    """A stored login that did not come back, told once for each reason."""
    if now.ready or now.suspended or now.deleting:
        return None
    ready = condition(now.status, ConditionType.READY)
    if before is not None and before.phase is Phase.RESTORING and now.phase in DEAD_ENDS:
        reason, message = (ready.reason, ready.message) if ready else (str(now.phase), "")
        return SessionRestorationFailed(**which(now), reason=reason, message=message)
    failed = _failed(now)
    if failed is None or (before is not None and _failed(before) == failed):
        return None
    return SessionRestorationFailed(**which(now), reason=failed[0], message=failed[1])


def _failed(session: Session) -> tuple[str, str] | None:
    restored = condition(session.status, ConditionType.RESTORED)
    if restored is None or restored.status != "False" or restored.reason in NOT_FAILED:
        return None
    return restored.reason, restored.message
