"""What a session pod says of itself over HTTP, and the operator reads."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from wasession_api.base import Model, Time
from wasession_api.v1alpha1 import Account, AuthState, LastDisconnect, LastShutdown, PairingStatus, Phase

Reason = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=64)]


class Report(Model):
    """The whole state of a session pod. A later report replaces an earlier one; ``seq`` grows by one with each change."""

    client_id: str = Field(max_length=64)
    session_uid: str | None = Field(None, max_length=64)
    started_at: Time
    seq: int = Field(ge=0)
    phase: Phase
    reason: Reason
    message: str = Field("", max_length=1024)
    auth_state: AuthState | None = None
    is_authenticated: bool = False
    session_valid: bool = False
    last_connected: Time | None = None
    last_disconnect: LastDisconnect | None = None
    restored: bool = False
    account: Account | None = None
    whatsapp_web_version: str | None = Field(None, max_length=64)
    pairing: PairingStatus | None = None
    last_shutdown: LastShutdown | None = None
    sandboxed: bool | None = None
