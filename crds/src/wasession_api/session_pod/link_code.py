"""The code that links a phone: the content of a QR code, or a pairing code to type."""

from __future__ import annotations

from pydantic import Field

from wasession_api.base import Observed, Time
from wasession_api.v1alpha1 import PairingMethod


class LinkCode(Observed):
    """A code that links a phone now. Whoever reads it can take over the account: never log it."""

    code: str = Field(
        max_length=4096,
        repr=False,
        description="Content of the QR code, or the eight characters to type on the phone.",
    )
    method: PairingMethod = Field(description="QRCode or PairingCode.")
    attempt: int = Field(ge=0, description="Number of the round of codes, from 1.")
    expires_at: Time | None = Field(None, description="When the code expires.")
