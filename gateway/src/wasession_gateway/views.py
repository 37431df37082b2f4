"""What applications see of a session: pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from pydantic import Field
from wasession_api.base import Model, Time
from wasession_api.v1alpha1 import (
    Account,
    AccountStatus,
    AuthState,
    Condition,
    ConditionType,
    LastDisconnect,
    PairingStatus,
    Phase,
    Status,
    account_status,
)

if TYPE_CHECKING:
    from wasession_gateway.session_cache import Session


class SessionView(Model):
    """A session."""

    client_id: str = Field(description="The session's name, as its owner has chosen it.")
    owner: str | None = Field(
        None, description="Whose session it is: the subject of the owner's tokens."
    )
    name: str = Field(description="Name of the WhatsAppSession in Kubernetes.")
    status: AccountStatus = Field(description="The session in one of four words.")
    phase: Phase = Field(description="Where the session is in its life.")
    reason: str | None = Field(None, description="Why it is there, in one CamelCase word.")
    message: str | None = Field(None, description="Why it is there, in a sentence.")
    session_valid: bool = Field(description="Whether there is a login that WhatsApp has not ended.")
    is_authenticated: bool = Field(description="Whether WhatsApp Web says that it is logged in.")
    auth_state: AuthState | None = Field(
        None, description="The connection's state in WhatsApp Web's own words."
    )
    is_restored: bool = Field(
        description="Whether the session is ready from a stored login, without a new QR or code."
    )
    restorations: int = Field(
        description="How often the session came back from its stored login after a restart."
    )
    last_connected: Time | None = Field(
        None, description="When the session became ready the last time."
    )
    last_disconnect: LastDisconnect | None = Field(
        None, description="The last time the session lost WhatsApp."
    )
    account: Account | None = Field(None, description="The WhatsApp account that is linked.")
    pairing: PairingStatus | None = Field(None, description="Whether a phone can be linked now.")
    suspended: bool = Field(
        description="Whether the session was told to stop and to keep its login."
    )
    created_at: Time = Field(description="When the session was made.")
    conditions: list[Condition] = Field(description="Details, as Kubernetes has them.")
    version: str = Field(
        description="Changes with each change of the session; the ETag is the same in quotation marks."
    )


class SessionData(Model):
    """What is kept of an account's session."""

    is_authenticated: bool
    session_valid: bool
    auth_state: AuthState | None = None
    last_connected: Time | None = None


class AccountView(Model):
    """An account with its session's data."""

    client_id: str
    owner: str | None = None
    status: AccountStatus
    account: Account | None = Field(
        None, description="The WhatsApp account, once a phone was linked."
    )
    session_data: SessionData


class RestorationMetrics(Model):
    """How the caller's sessions came back."""

    valid: int = Field(description="Sessions with a valid login.")
    restored: int = Field(description="Sessions that are ready from their stored login.")
    restoring: int = Field(description="Sessions on the way there.")
    failed: int = Field(description="Sessions with a valid login whose restoration has failed.")
    restorations: int = Field(description="Restorations so far, over all sessions' lives.")


class Health(Model):
    """The gateway, and the caller's sessions."""

    status: str = Field(
        description="`ok`, or `stale` while the cluster cannot be heard and the answers may be old."
    )
    sessions: int = Field(description="How many sessions there are.")
    by_status: dict[AccountStatus, int] = Field(description="How many of them have each status.")
    restoration: RestorationMetrics


def condition(status: Status, kind: ConditionType) -> Condition | None:
    return next((found for found in status.conditions if found.type is kind), None)


def session_view(session: Session) -> SessionView:
    status, why = session.status, condition(session.status, ConditionType.READY)
    return SessionView(
        client_id=session.client_id,
        owner=session.owner,
        name=session.name,
        status=account_status(session.phase),
        phase=session.phase,
        reason=why.reason if why else None,
        message=why.message or None if why else None,
        session_valid=bool(status.session_valid),
        is_authenticated=bool(status.is_authenticated),
        auth_state=status.auth_state,
        is_restored=bool(status.restored),
        restorations=status.restorations,
        last_connected=status.last_connected,
        last_disconnect=status.last_disconnect,
        account=status.account,
        pairing=status.pairing,
        suspended=session.suspended,
        created_at=datetime.fromisoformat(session.created_at),
        conditions=status.conditions,
        version=session.version,
    )


def account_view(session: Session) -> AccountView:
    view = session.view
    return AccountView(
        client_id=view.client_id,
        owner=view.owner,
        status=view.status,
        account=view.account,
        session_data=SessionData(
            is_authenticated=view.is_authenticated,
            session_valid=view.session_valid,
            auth_state=view.auth_state,
            last_connected=view.last_connected,
        ),
    )


def health(sessions: Iterable[Session], stale: bool) -> Health:
    sessions = list(sessions)
    statuses = Counter(account_status(session.phase) for session in sessions)
    valid = [session for session in sessions if session.status.session_valid]
    return Health(
        status="stale" if stale else "ok",
        sessions=len(sessions),
        by_status={status: statuses[status] for status in AccountStatus},
        restoration=RestorationMetrics(
            valid=len(valid),
            restored=sum(bool(session.status.restored) for session in sessions),
            restoring=sum(
                session.phase in (Phase.RESTORING, Phase.RECONNECTING) for session in valid
            ),
            failed=sum(_restoration_failed(session) for session in valid),
            restorations=sum(session.status.restorations for session in sessions),
        ),
    )


def _restoration_failed(session: Session) -> bool:
    restored = condition(session.status, ConditionType.RESTORED)
    return not session.ready and restored is not None and restored.status == "False"
