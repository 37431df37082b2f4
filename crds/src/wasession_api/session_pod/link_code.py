"""The code that links a phone: a QR's content, or a pairing code to type."""

from __future__ import annotations

from pydantic import Field

from wasession_api.base import Observed, Time
from wasession_api.v1alpha1 import PairingMethod


class LinkCode(Observed):
    """A code that a phone can use now. Whoever reads it can take the account: never log it."""

    code: str = Field(
        max_length=4096,
        repr=False,
        description="The QR's content, or the eight characters to type on the phone.",
    )
    method: PairingMethod = Field(description="Which kind of code.")
    attempt: int = Field(ge=0, description="Which round of codes, from 1.")
    expires_at: Time | None = Field(None, description="Until when the code can be used.")
