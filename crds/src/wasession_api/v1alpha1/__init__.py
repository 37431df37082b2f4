"""``wasession.dev/v1alpha1``: the WhatsAppSession resource.

These models are the single source of the API: the CRD is generated from them
(``wasession_api.crd``), and the operator reads specs and writes statuses with them.
"""

from __future__ import annotations

from pydantic import Field

from wasession_api.base import Model
from wasession_api.v1alpha1.enums import (
    AccessMode,
    AccountStatus,
    AuthState,
    ConditionType,
    DisconnectKind,
    PairingMethod,
    Phase,
    Presence,
    Reason,
    Sandbox,
    Takeover,
    UpdateStrategy,
    WhenDeleted,
    account_status,
)
from wasession_api.v1alpha1.spec import ClientId, Origin, Pairing, PhoneNumber, Spec
from wasession_api.v1alpha1.status import (
    Account,
    Condition,
    LastDisconnect,
    LastShutdown,
    LogoutStatus,
    PairingStatus,
    RequestStatus,
    Restarts,
    Status,
    UpdateStatus,
    VolumeLoss,
)

GROUP = "wasession.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "WhatsAppSession"
PLURAL = "whatsappsessions"
SINGULAR = "whatsappsession"
SHORT_NAMES = ("wasession", "wasessions", "was")


class WhatsAppSession(Model):
    """A WhatsApp Web session: one login in one browser, one pod and one volume."""

    spec: Spec = Field(default_factory=Spec, description="The desired state of the session.")
    status: Status | None = Field(
        None,
        description="The observed state of the session. Written by the operator alone.",
    )


__all__ = [
    "API_VERSION",
    "GROUP",
    "KIND",
    "PLURAL",
    "SHORT_NAMES",
    "SINGULAR",
    "VERSION",
    "AccessMode",
    "Account",
    "AccountStatus",
    "AuthState",
    "ClientId",
    "Condition",
    "ConditionType",
    "DisconnectKind",
    "LastDisconnect",
    "LastShutdown",
    "LogoutStatus",
    "Origin",
    "Pairing",
    "PairingMethod",
    "PairingStatus",
    "Phase",
    "PhoneNumber",
    "Presence",
    "Reason",
    "RequestStatus",
    "Restarts",
    "Sandbox",
    "Spec",
    "Status",
    "Takeover",
    "UpdateStatus",
    "UpdateStrategy",
    "VolumeLoss",
    "WhatsAppSession",
    "WhenDeleted",
    "account_status",
]
