"""What the page says of itself. The page is untrusted: everything is checked and cut to size here."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel


def _short(value: Any) -> Any:
    return value[:256] if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_short)]


class PageModel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class Snapshot(PageModel):
    """One look at the page; None where the page could not say."""

    injected: bool = False
    registered: bool | None = None
    authenticated: bool | None = None
    socket_state: Text | None = None
    mode: Text | None = None
    info: Text | None = None
    needs_update: bool = False
    passkey_required: bool = False
    me: Text | None = None
    push_name: Text | None = None
    platform: Text | None = None
    wa_version: Text | None = None

    @property
    def good(self) -> bool:
        """Logged in, synced and connected: any one of these alone is true too early (research of wa-js 4.6.0)."""
        return (
            self.registered is True
            and self.mode == "MAIN"
            and self.info == "NORMAL"
            and self.socket_state == "CONNECTED"
            and self.me is not None
        )


class PageEvent(PageModel):
    """Something happened on the page. Events only say "look again"; what is true is in the snapshot."""

    type: Annotated[str, BeforeValidator(_short)]
    reason: Text | None = None


class PairingOffer(PageModel):
    """A code that a phone can use now. Never logged."""

    code: str = Field(max_length=1024)
    ttl_ms: int = Field(ge=0, le=3_600_000)


class Sent(PageModel):
    """What became of a message."""

    id: Text
    ack: int | None = None
    to: Text | None = None
    result: Text | None = None
