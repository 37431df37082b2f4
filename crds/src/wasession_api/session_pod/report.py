"""The state that a session pod reports, and the operator reads."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from wasession_api.base import Observed, Time, clip, fallback
from wasession_api.session_pod.backup import BackupReport, Restoration
from wasession_api.v1alpha1 import (
    Account,
    AuthState,
    DeliveryStatus,
    LastDisconnect,
    LastShutdown,
    PairingStatus,
    Phase,
    WaJS,
)

ReasonWord = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=64)]


class Notice(Observed):
    """A problem that needs attention while the session still works."""

    reason: ReasonWord = Field(
        description="One of ``v1alpha1.Reason``, such as PhoneOffline, MemoryLow or VolumeLow."
    )
    message: Annotated[str, clip(1024)] = Field("", max_length=1024)


class Report(Observed):
    """The whole state of a session pod; ``seq`` grows by one with each change.

    The pod may be newer than the reader. A phase that the reader does not know counts as
    Reconnecting: the session is not Ready, and nothing follows from it.
    """

    client_id: str = Field(max_length=64)
    session_uid: str | None = Field(None, max_length=64)
    started_at: Time
    seq: int = Field(ge=0)
    phase: Annotated[Phase, fallback(Phase.RECONNECTING)]
    reason: ReasonWord = Field(
        description="One of ``v1alpha1.Reason``; a newer pod may report others."
    )
    message: Annotated[str, clip(1024)] = Field("", max_length=1024)
    auth_state: Annotated[AuthState | None, fallback(None)] = None
    is_authenticated: bool = False
    session_valid: bool | None = Field(
        None,
        description="Whether the volume holds a login that WhatsApp has not ended; null while the "
        "pod has not read the volume.",
    )
    login_id: str | None = Field(
        None,
        alias="loginID",
        max_length=64,
        description="Identifies the login on the volume: copies of it have the same.",
    )
    last_connected: Time | None = None
    last_disconnect: LastDisconnect | None = None
    restored: bool = False
    account: Account | None = None
    whatsapp_web_version: Annotated[str, clip(64)] | None = Field(None, max_length=64)
    wa_js: Annotated[WaJS | None, fallback(None)] = Field(
        None, alias="waJS", description="The wa-js that the page gets; null before the first start."
    )
    document_sha256: str | None = Field(
        None,
        alias="documentSHA256",
        max_length=64,
        description="SHA-256 of the pinned document, without which no browser starts; null without "
        "one.",
    )
    pairing: Annotated[PairingStatus | None, fallback(None)] = None
    last_shutdown: LastShutdown | None = None
    sandboxed: bool | None = None
    phone_last_seen: Time | None = Field(
        None, description="When the account's phone was online last, to the hour."
    )
    fulfilled_logout: str | None = Field(
        None,
        description="ID of the latest logout request that the volume records as fulfilled.",
        max_length=256,
    )
    warnings: list[Notice] = Field([], max_length=16)
    delivery_revision: str | None = Field(
        None,
        max_length=64,
        description="Revision of the configuration of webhooks and sinks that the pod has; null "
        "while it has not read its volume, or knows none of them.",
    )
    deliveries: list[DeliveryStatus] = Field([], max_length=16)
    idle_since: Time | None = Field(
        None,
        description="Since when nothing was sent or received, if nothing waits to be delivered "
        "either; null until that has lasted a minute.",
    )
    can_back_up: bool = Field(False, description="Whether the pod knows ``PUT /v1/backup``.")
    backup: Annotated[BackupReport | None, fallback(None)] = None
    restoration: Annotated[Restoration | None, fallback(None)] = None

    @property
    def proven_validity(self) -> bool | None:
        """Whether the volume holds a valid login; None when the report proves neither.

        A problem of the volume proves nothing: an earlier version has not read the login then.
        """
        if not self.session_valid and self.reason.startswith("Volume"):
            return None
        return self.session_valid
