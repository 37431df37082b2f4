"""The typed side of ``bridge.js``: one method for each of its functions, with the same parameters.

The page is untrusted: every answer is validated and cut to size here, before anybody else sees it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import AwareDatetime, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError
from wasession_api import tracing
from wasession_api.session_pod.messages import Chat, Contact, MessageAck, MessageStatus

from wasession_pod.browser.errors import BrowserError, browser_errors
from wasession_pod.browser.tab import Tab
from wasession_pod.state.observation import PageModel, PageObservation, Text

CALL_TIMEOUT = 30.0  # seconds, for calls that wait for WhatsApp's servers
SCAN_TIMEOUT = 120.0  # seconds, for reading all chats in the page's database
DOWNLOAD_TIMEOUT = 300.0  # seconds, for a file
MAXIMUM_DOWNLOAD = 256 * 2**20  # bytes; WhatsApp Web has a whole file in memory
CHUNK = 2**20  # bytes of a file that are read at a time
# A page that has just reloaded itself has no bridge yet, and later one without wa-js.
FUNCTION = """(name) => {
    const ready = window.__wasession && (name === 'observe' || WPP.isInjected);
    if (!ready) throw new Error('WhatsApp Web is loading');
    return window.__wasession[name];
}"""
CALL = f"(name, values) => ({FUNCTION})(name)(...values)"
CALL_WITH_FILE = f"(file, name, values) => ({FUNCTION})(name)(file, ...values)"
UNTRACED = ("observe", "readMedia")  # often, and for each MiB
MediaKind = Literal["auto-detect", "image", "video", "audio", "document"]
T = TypeVar("T")
P = TypeVar("P", bound="Position")


class IssuedCode(PageModel):
    """A QR's content or a pairing code as the page issues it. Never log it."""

    code: str = Field(max_length=1024, repr=False)
    ttl_ms: int = Field(ge=0, le=3_600_000)


class PreparedMessage(PageModel):
    """The recipient's chat and a new message id, or the name of the parameter that is unknown."""

    chat_id: Annotated[str, Field(max_length=64)] | None = None
    message_id: Annotated[str, Field(max_length=192)] | None = None
    unknown: Literal["to", "replyTo"] | None = None


class SendOutcome(PageModel):
    """What became of a message that was sent.

    ``ack`` is None if the page has no such message; ``result`` is WhatsApp's or wa-js's word.
    """

    ack: Annotated[int, Field(ge=-7, le=5)] | None = None
    sent_at: AwareDatetime | None = None
    result: Text = None

    @property
    def accepted(self) -> bool:
        """Whether WhatsApp's server has the message."""
        return self.result == "OK" or (self.ack or 0) >= 1

    @property
    def unknown(self) -> bool:
        """Whether it may have reached WhatsApp: the connection broke, or the page still tries."""
        return not self.accepted and (self.result == "ERROR_NETWORK" or self.ack == 0)


class Position(PageModel):
    """The sort key of an item in a list. Clients of the HTTP API send it back to continue."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str = Field(max_length=64)


class ChatPosition(Position):
    t: int  # time of the last message, in seconds since the epoch


class ContactPosition(Position):
    pass


class MessagePosition(Position):
    id: str = Field(max_length=192)
    t: int  # when it was sent, in seconds since the epoch


class Listing(PageModel, Generic[T, P]):
    """One page of a list; ``next`` is the position of its last item if more items follow."""

    items: list[T]
    next: P | None


class RecentEvent(PageModel):
    """What the page's database shows, like the event of the same type; a gap if unreadable."""

    type: Literal[
        "chat.message", "chat.edit", "chat.deletion", "chat.reaction", "chat.vote", "chat.gap"
    ]
    reason: Text = None  # kind of a gap
    data: dict[str, JsonValue] | None = Field(None, repr=False)


class OpenMedia(PageModel):
    """A message's file that the page has downloaded."""

    handle: str = Field(max_length=64)
    size: int = Field(ge=0)
    mime_type: Annotated[str, Field(max_length=512)] | None = None


class MediaProblem(PageModel):
    """Why a file is not open."""

    problem: Literal["Gone", "TooLarge", "Busy"]


class MediaError(BrowserError):
    """A message's file cannot be downloaded."""


class MediaGone(MediaError):
    """WhatsApp no longer has the file."""


class MediaTooLarge(MediaError):
    """The file has more bytes than may be downloaded."""


class MediaBusy(MediaError):
    """As many files are open as may be."""


MEDIA_ERRORS: dict[str, tuple[type[MediaError], str]] = {
    "Gone": (MediaGone, "WhatsApp no longer has the file"),
    "TooLarge": (MediaTooLarge, "the file is too large to be downloaded"),
    "Busy": (MediaBusy, "too many files are being downloaded"),
}
NOTHING: TypeAdapter[None] = TypeAdapter(None)
OBSERVATION = TypeAdapter(PageObservation)
CODE = TypeAdapter(IssuedCode)
CODE_OR_NONE: TypeAdapter[IssuedCode | None] = TypeAdapter(IssuedCode | None)
PREPARED = TypeAdapter(PreparedMessage)
OUTCOME = TypeAdapter(SendOutcome)
MESSAGE_OR_NONE: TypeAdapter[MessageStatus | None] = TypeAdapter(MessageStatus | None)
ACKS = TypeAdapter(list[MessageAck])
CHATS = TypeAdapter(Listing[Chat, ChatPosition])
CONTACT_OR_NONE: TypeAdapter[Contact | None] = TypeAdapter(Contact | None)
CONTACTS = TypeAdapter(Listing[Contact, ContactPosition])

RECENT = TypeAdapter(Listing[RecentEvent, MessagePosition])
HISTORY = TypeAdapter(Listing[MessageStatus, MessagePosition])
MEDIA: TypeAdapter[OpenMedia | MediaProblem | None] = TypeAdapter(OpenMedia | MediaProblem | None)
BASE64 = TypeAdapter(Annotated[str, Field(max_length=4 * CHUNK)])


class Bridge:
    """Calls into the page of WhatsApp Web.

    Every method raises ``BrowserError`` if no page is open, if the page does not answer in time, or
    if the function throws or its answer is not valid.
    """

    def __init__(self, current_tab: Callable[[], Tab], observation_timeout: float) -> None:
        self._current_tab = current_tab
        self._observation_timeout = observation_timeout

    async def observe(self) -> PageObservation:
        """Return the state of the page now."""
        return await self._call(OBSERVATION, "observe", timeout=self._observation_timeout)

    async def qr(self) -> IssuedCode | None:
        """Return the current QR, or None if there is none."""
        return await self._call(CODE_OR_NONE, "qr")

    async def pairing_code(self, phone_number: str) -> IssuedCode:
        """Return a new pairing code for a phone number of digits only."""
        return await self._call(CODE, "pairingCode", phone_number)

    async def refresh_qr(self) -> None:
        """Start a new round of QRs."""
        await self._call(NOTHING, "refreshQr")

    async def logout(self) -> None:
        """Start a logout; its end shows in later observations."""
        await self._call(NOTHING, "logout")

    async def take_over(self) -> None:
        """Take the session back from where WhatsApp Web was opened last."""
        await self._call(NOTHING, "takeOver")

    async def prepare(self, to: str, reply_to: str | None) -> PreparedMessage:
        """Look up the recipient's chat and choose an id for a message to it."""
        return await self._call(PREPARED, "prepare", to, reply_to)

    async def send_text(
        self, message_id: str, chat_id: str, reply_to: str | None, body: str
    ) -> SendOutcome:
        """Send a text and wait for its outcome, without a timeout."""
        arguments = (message_id, chat_id, reply_to, body)
        return await self._call(OUTCOME, "sendText", *arguments, timeout=None)

    async def send_file(
        self,
        file: Path,
        message_id: str,
        chat_id: str,
        reply_to: str | None,
        kind: MediaKind,
        caption: str | None,
        file_name: str | None,
        mime_type: str | None,
    ) -> SendOutcome:
        """Send a file and wait for its outcome, without a timeout."""
        arguments = [message_id, chat_id, reply_to, kind, caption, file_name, mime_type]
        async with browser_errors(None):
            tab = self._current_tab()
            with tracing.child("page sendFile"):
                answer = await tab.evaluate_with_file(CALL_WITH_FILE, file, "sendFile", arguments)
        return _validated(OUTCOME, "sendFile", answer)

    async def message(self, message_id: str) -> MessageStatus | None:
        """Return a message, or None if WhatsApp Web has none with this id."""
        return await self._call(MESSAGE_OR_NONE, "message", message_id)

    async def recent(
        self, since: float, limit: int, after: MessagePosition | None
    ) -> Listing[RecentEvent, MessagePosition]:
        """Return what all chats have since a time, in seconds since the epoch, oldest first.

        That is up to ``limit`` messages that follow ``after``, each with what has happened to it.
        Messages that this session has sent are among them, except those that this page has sent.
        """
        position = after and after.model_dump()
        arguments = (int(since), limit, position)
        return await self._call(RECENT, "recent", *arguments, timeout=SCAN_TIMEOUT)

    async def history(
        self, chat_id: str, limit: int, before: MessagePosition | None
    ) -> Listing[MessageStatus, MessagePosition]:
        """Return up to ``limit`` messages of a chat that precede ``before``, newest first."""
        position = before and before.model_dump()
        return await self._call(HISTORY, "history", chat_id, limit, position)

    async def open_media(
        self, message_id: str, largest: int = MAXIMUM_DOWNLOAD
    ) -> OpenMedia | None:
        """Download a message's file, of ``largest`` bytes at most; None if there is none.

        At most 4 are open, each until a minute after it was last read or until the page is closed.
        Raise ``MediaGone``, ``MediaTooLarge`` or ``MediaBusy`` if it cannot be downloaded.
        """
        answer = await self._call(MEDIA, "openMedia", message_id, largest, timeout=DOWNLOAD_TIMEOUT)
        if isinstance(answer, MediaProblem):
            error, message = MEDIA_ERRORS[answer.problem]
            raise error(message)
        return answer

    async def read_media(self, handle: str, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes of an open file, of ``CHUNK`` at most."""
        answer = await self._call(BASE64, "readMedia", handle, offset, length)
        try:
            return base64.b64decode(answer, validate=True)[:length]
        except binascii.Error:
            raise BrowserError("the page's answer to readMedia is not valid") from None

    async def close_media(self, handle: str) -> None:
        """Close a file; nothing happens if it is closed."""
        await self._call(NOTHING, "closeMedia", handle)

    async def acks(self, message_ids: Sequence[str]) -> list[MessageAck]:
        """Return the acks of those messages that WhatsApp has accepted."""
        return await self._call(ACKS, "acks", list(message_ids))

    async def chats(self, limit: int, after: ChatPosition | None) -> Listing[Chat, ChatPosition]:
        """Return up to ``limit`` chats that follow ``after``, latest first."""
        position = after and after.model_dump()
        return await self._call(CHATS, "chats", limit, position)

    async def contacts(
        self, limit: int, after: ContactPosition | None
    ) -> Listing[Contact, ContactPosition]:
        """Return up to ``limit`` contacts that follow ``after``, by id."""
        position = after and after.model_dump()
        return await self._call(CONTACTS, "contacts", limit, position)

    async def contact(self, contact_id: str) -> Contact | None:
        """Return the person with this phone number or LID; None if there is none."""
        return await self._call(CONTACT_OR_NONE, "contact", contact_id)

    async def _call(
        self,
        answer_type: TypeAdapter[T],
        name: str,
        *arguments: object,
        timeout: float | None = CALL_TIMEOUT,
    ) -> T:
        traced = contextlib.nullcontext() if name in UNTRACED else tracing.child(f"page {name}")
        with traced:
            async with browser_errors(timeout):
                answer = await self._current_tab().evaluate(CALL, name, list(arguments))
        return _validated(answer_type, name, answer)


def _validated(answer_type: TypeAdapter[T], name: str, answer: object) -> T:
    try:
        return answer_type.validate_python(answer)
    except ValidationError:  # not passed on, because it quotes the page
        raise BrowserError(f"the page's answer to {name} is not valid") from None
