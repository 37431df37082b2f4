"""A session as the gateway holds it, and its representations for callers: pure."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

from pydantic import Field, ValidationError
from wasession_api import names, restoration
from wasession_api.base import Model, Time, parse_duration
from wasession_api.kube.manifests import Manifest
from wasession_api.v1alpha1 import (
    Account,
    AccountStatus,
    AuthState,
    Condition,
    ConditionType,
    DeliveryStatus,
    HibernationStatus,
    LastDisconnect,
    PairingStatus,
    Phase,
    Status,
    account_status,
)

log = logging.getLogger(__name__)
# How long a logout may take by a session's class, which the gateway does not read: only a pod that
# has disappeared takes all of it.
CLASS_LOGOUT_TIMEOUT = timedelta(minutes=5)


# --- what callers see -----------------------------------------------------------------------------


class SessionView(Model):
    """A session."""

    client_id: str = Field(description="The session's name, chosen by its owner.")
    owner: str | None = Field(
        None, description="The owner: the subject (`sub`) of the owner's tokens."
    )
    name: str = Field(description="Name of the WhatsAppSession in Kubernetes.")
    status: AccountStatus = Field(description="Summary of the phase.")
    phase: Phase = Field(description="Where the session is in its life cycle.")
    reason: str | None = Field(None, description="Reason for the phase, in CamelCase.")
    message: str | None = Field(None, description="Reason for the phase, as a sentence.")
    session_valid: bool = Field(
        description="Whether the session has a login that WhatsApp has not ended."
    )
    is_authenticated: bool = Field(description="Whether WhatsApp Web reports that it is logged in.")
    auth_state: AuthState | None = Field(
        None, description="State of the connection, as WhatsApp Web names it."
    )
    is_restored: bool = Field(
        description="Whether the session is ready from its stored login, without a new QR or code."
    )
    restorations: int = Field(
        description="How often the session has been restored from its stored login."
    )
    last_connected: Time | None = Field(None, description="When the session last became ready.")
    last_disconnect: LastDisconnect | None = Field(
        None, description="The last time the session lost its connection to WhatsApp."
    )
    account: Account | None = Field(None, description="The linked WhatsApp account.")
    pairing: PairingStatus | None = Field(
        None, description="Whether a phone can be linked at the moment."
    )
    suspended: bool = Field(description="Whether the session is suspended; its login is retained.")
    hibernation: HibernationStatus | None = Field(
        None, description="Since when the session sleeps, and when it wakes if nobody uses it."
    )
    created_at: Time = Field(description="When the session was created.")
    delivery: list[DeliveryStatus] = Field(
        [], description="How the deliveries to the session's webhooks and sinks are doing."
    )
    conditions: list[Condition] = Field(description="The conditions of the WhatsAppSession.")
    version: str = Field(
        description="Changes whenever the session changes; in quotation marks it is the ETag."
    )


class SessionData(Model):
    """State of an account's login."""

    is_authenticated: bool
    session_valid: bool
    auth_state: AuthState | None = None
    last_connected: Time | None = None


class AccountView(Model):
    """An account and the state of its login."""

    client_id: str
    owner: str | None = None
    status: AccountStatus
    account: Account | None = Field(
        None, description="The WhatsApp account, once a phone has been linked."
    )
    session_data: SessionData


class RestorationMetrics(Model):
    """Restorations of the caller's sessions."""

    valid: int = Field(description="Sessions with a valid login.")
    restored: int = Field(description="Sessions that are ready from their stored login.")
    restoring: int = Field(description="Sessions that are being restored.")
    failed: int = Field(description="Sessions with a valid login whose restoration failed.")
    restorations: int = Field(description="Total restorations of these sessions so far.")


class Health(Model):
    """State of the gateway and of the caller's sessions."""

    status: str = Field(
        description="`ok`, or `stale` while the API server is silent and data may be out of date."
    )
    sessions: int = Field(description="Number of sessions.")
    by_status: dict[AccountStatus, int] = Field(description="Number of sessions by status.")
    restoration: RestorationMetrics


# --- what the gateway holds -----------------------------------------------------------------------


@dataclass(frozen=True)
class Session:
    """The latest known version of a WhatsAppSession."""

    name: str
    uid: str
    version: str
    owner: str | None
    client_id: str
    created_at: str
    suspended: bool = False
    deleting: bool = False
    wake_request: str | None = None  # the latest one, as the status names it
    logout_timeout: timedelta = CLASS_LOGOUT_TIMEOUT
    status: Status = field(default_factory=Status)

    @property
    def phase(self) -> Phase:
        return Phase.TERMINATING if self.deleting else self.status.phase or Phase.PENDING

    @property
    def ready(self) -> bool:
        return self.phase is Phase.READY

    @cached_property
    def view(self) -> SessionView:
        return _session_view(self)

    # Encoded once per version: lists are read far more often than sessions change.

    @cached_property
    def json(self) -> bytes:
        return self.view.encoded()

    @cached_property
    def account_json(self) -> bytes:
        return _account_view(self).encoded()


def read_session(obj: Manifest) -> Session:
    """Return the session of a WhatsAppSession object.

    A status that cannot be parsed, such as one of a newer operator, counts as empty.
    """
    metadata, spec = obj["metadata"], obj.get("spec", {})
    wake = metadata.get("annotations", {}).get(names.ANNOTATION_WAKE)
    try:
        status = Status.model_validate(obj.get("status", {}))
    except ValidationError as error:
        log.warning(
            "cannot parse the status of a session; treating it as empty",
            extra={"session": metadata["name"], "errors": error.error_count()},
        )
        status = Status()
    return Session(
        name=metadata["name"],
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        owner=spec.get("owner"),
        client_id=spec.get("clientId") or metadata["name"],
        created_at=metadata["creationTimestamp"],
        suspended=spec.get("suspend", False),
        deleting="deletionTimestamp" in metadata,
        wake_request=names.request_id(wake) if wake is not None else None,
        logout_timeout=_logout_timeout(spec),
        status=status,
    )


def _logout_timeout(spec: Manifest) -> timedelta:
    try:
        return parse_duration(spec["timeouts"]["logout"])
    except (KeyError, TypeError, ValueError):
        return CLASS_LOGOUT_TIMEOUT


def health(sessions: Iterable[Session], stale: bool) -> Health:
    """Return the summary of these sessions."""
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
            failed=sum(restoration.failure(session.status) is not None for session in valid),
            restorations=sum(session.status.restorations for session in sessions),
        ),
    )


def _session_view(session: Session) -> SessionView:
    status, ready = session.status, session.status.condition(ConditionType.READY)
    return SessionView(
        client_id=session.client_id,
        owner=session.owner,
        name=session.name,
        status=account_status(session.phase),
        phase=session.phase,
        reason=ready.reason if ready else None,
        message=ready.message or None if ready else None,
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
        hibernation=status.hibernation,
        created_at=datetime.fromisoformat(session.created_at),
        delivery=status.delivery,
        conditions=status.conditions,
        version=session.version,
    )


def _account_view(session: Session) -> AccountView:
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
