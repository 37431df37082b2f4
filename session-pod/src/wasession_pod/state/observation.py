"""What the page says of itself. The page is untrusted: everything is checked and cut to size here."""

from __future__ import annotations

from datetime import datetime
from enum import Enum, auto
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel


def _short(value: Any) -> Any:
    """What is no text is not known: a page that words one thing differently is not silent for that."""
    return value[:256] if isinstance(value, str) else None


Text = Annotated[str | None, BeforeValidator(_short)]


class PageModel(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True
    )


class PageUnavailable(Enum):
    """Why a page says nothing; none of these means that it is logged out."""

    LOADING = auto()  # between two documents, or not yet WhatsApp Web
    HUNG = auto()  # no answer in time
    CLOSED = auto()  # page, browser or Playwright's driver has ended


class PageObservation(PageModel):
    """One look at the page; None where the page could not say."""

    injected: bool = False
    registered: bool | None = None
    authenticated: bool | None = None
    socket_state: Text = None
    mode: Text = None
    info: Text = None
    needs_update: bool = False
    passkey_required: bool = False
    banned_until: float | None = None  # seconds since 1970
    me: Text = None
    push_name: Text = None
    platform: Text = None
    wa_version: Text = None

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
    """Something happened on the page. Most events only say "look again": what is true is in the snapshot.

    ``data`` goes with ``chat.message`` and ``chat.ack``, which ``feed`` reads, and with
    ``phone.seen``.
    """

    type: Annotated[str, BeforeValidator(_short)]
    reason: Text = None
    data: dict[str, JsonValue] | None = Field(None, repr=False)


class PhoneActivity(PageModel):
    """When the account's phone did something."""

    at: datetime


class PageLinkCode(PageModel):
    """A code that a phone can use now. Never logged."""

    code: str = Field(max_length=1024)
    ttl_ms: int = Field(ge=0, le=3_600_000)


class Prepared(PageModel):
    """The chat that a recipient means and an id for a message to it, or the name of what WhatsApp does not know."""

    chat_id: Annotated[str, Field(max_length=64)] | None = None
    id: Annotated[str, Field(max_length=192)] | None = None
    unknown: Text = None


class Sent(PageModel):
    """What became of a message: ``ack`` is None when the page has no such message, ``result`` is WhatsApp's or wa-js's word."""

    ack: Annotated[int, Field(ge=-7, le=5)] | None = None
    sent_at: AwareDatetime | None = None
    result: Text = None

    @property
    def taken(self) -> bool:
        """WhatsApp's server has it."""
        return self.result == "OK" or (self.ack or 0) >= 1

    @property
    def unknown(self) -> bool:
        """It may have reached WhatsApp: the connection was lost, or the page still tries."""
        return not self.taken and (self.result == "ERROR_NETWORK" or self.ack == 0)


class Acks(PageModel):
    """How far some messages are, each as the data of a ``chat.ack``."""

    acks: list[dict[str, JsonValue]]


class Part(PageModel):
    """A part of a list; ``more`` says whether there is another one after it."""

    items: list[dict[str, JsonValue]]
    more: bool
