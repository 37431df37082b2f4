"""What the page reports. The page is untrusted: everything is validated and truncated here."""

from __future__ import annotations

from datetime import datetime
from enum import Enum, auto
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel


def _well_formed(text: str) -> str:
    """Replace halves of surrogate pairs, which JavaScript allows and UTF-8 does not."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _truncate(value: Any) -> Any:
    """Return at most 256 characters; None for anything but text, to preserve the other fields."""
    return _well_formed(value[:256]) if isinstance(value, str) else None


def _texts(value: Any) -> Any:
    """Return at most 8 texts; none for anything but a list, to preserve the other fields."""
    items = value if isinstance(value, list) else []
    return tuple(_well_formed(item[:64]) for item in items if isinstance(item, str))[:8]


def _not_from_page(_value: Any) -> None:
    """Return None: the browser fills this field in, not the page."""


Text = Annotated[str | None, BeforeValidator(_truncate)]


class PageModel(BaseModel):
    """Data from the page: camelCase there, snake_case here; unknown fields are ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        defer_build=True,
    )


class PageUnavailable(Enum):
    """Why the page could not be observed. None of these implies a logout."""

    LOADING = auto()  # between two documents, or not yet WhatsApp Web
    HUNG = auto()  # no answer within the answer timeout
    CLOSED = auto()  # the page or the browser has exited


class ScriptFault(NamedTuple):
    """Why scripts of the page have not come: a reason of the API, and a sentence."""

    reason: str
    message: str
    pending: bool = False  # they may still come


class PageObservation(PageModel):
    """The state of the page at one moment; None where the page could not tell."""

    injected: bool = False
    registered: bool | None = None
    authenticated: bool | None = None
    socket_state: Text = None
    mode: Text = None
    info: Text = None
    needs_update: bool = False
    passkey_required: bool = False
    banned_until: float | None = None  # seconds since the epoch
    me: Text = None
    sync_progress: float | None = None  # of loading the messages, in percent
    unheard: Annotated[tuple[str, ...], BeforeValidator(_texts)] = ()
    push_name: Text = None
    platform: Text = None
    wa_version: Text = None
    wa_js_error: Text = None  # a predicate, if wa-js does not run in the page at all
    script_fault: Annotated[ScriptFault | None, BeforeValidator(_not_from_page)] = None

    @property
    def healthy(self) -> bool:
        """Whether the page is logged in, synced and connected, whoever it is logged in as.

        In wa-js 4.6.0 each of these alone becomes true too early.
        """
        return (
            self.registered is True
            and self.mode == "MAIN"
            and self.info == "NORMAL"
            and self.socket_state == "CONNECTED"
        )


class PageEvent(PageModel):
    """An event on the page. Most only call for a new ``PageObservation``, which has the facts.

    ``data`` comes with ``chat.message`` and ``chat.ack``, which ``events`` validates, and with
    ``phone.seen``.
    """

    type: Annotated[str, BeforeValidator(_truncate)]
    reason: Text = None
    data: dict[str, JsonValue] | None = Field(None, repr=False)


class PhoneActivity(PageModel):
    """When the account's phone was last active."""

    at: datetime
