"""Make entries of the outbox from events of the page. Pure.

Each entry carries the fact that it tells, so that the outbox can see whether it is news: the page
may show a message again after a crash, and name its chat by phone number at one time and by LID at
another.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel, ValidationError
from wasession_api.session_pod.events import PAYLOADS, EventKind, Gap, GapReason
from wasession_api.session_pod.messages import (
    Call,
    GroupChange,
    IncomingMessage,
    MessageAck,
    MessageChange,
    MessageDeletion,
    MessageEdit,
    PollVote,
    Reaction,
)

from wasession_pod.state.observation import PageEvent

KINDS = {f"chat.{kind}": kind for kind in PAYLOADS if kind is not EventKind.GAP}
READ = 3  # the last ack that is awaited
# Bytes. Readers of the stream accept half a MiB for an event with everything around it.
MAXIMUM_DATA = 500 * 2**10
OVERHEAD = 64  # bytes that an event counts besides its data
MESSAGE_ID = re.compile(r"(true|false)_([^_]+)_([^_]+)(?:_.+)?")


@dataclass(frozen=True, slots=True)
class Fact:
    """What an entry tells about ``key``: once, or each time that ``value`` is another one.

    A fact of a lower ``rank`` (a time, or the level of an ack) than the known one is outdated.
    """

    key: bytes
    rank: float = 0.0
    value: bytes = b""

    def is_news(self, known: tuple[float, bytes] | None) -> bool:
        """Return whether to tell it, when the rank and value that were told last are ``known``."""
        if known is None:
            return True
        rank, value = known
        return self.value != value and self.rank >= rank


@dataclass(frozen=True, slots=True)
class Entry:
    """An event to be committed. A gap has no fact: it is told each time."""

    kind: EventKind
    data: str
    fact: Fact | None = None
    sent_at: float | None = None  # of a message
    from_other: bool = False  # a message of somebody else
    last_ack_of: str | None = None  # the message whose acks need not be awaited any longer
    reconciled: bool = False  # read from the page's storage

    @property
    def size(self) -> int:
        return len(self.data.encode()) + OVERHEAD


@dataclass(frozen=True, slots=True)
class OwnMessage:
    """A message about to be sent: its acks are awaited, and it is no news when the page has it."""

    message_id: str
    size: int = OVERHEAD

    @property
    def fact(self) -> Fact:
        return Fact(_hashed("message", *_message_key(self.message_id)))


@dataclass(frozen=True, slots=True)
class Login:
    """The outbox belongs to the login that there is since then, in seconds since the epoch."""

    since: float
    size: int = OVERHEAD


Item = Entry | OwnMessage | Login


class Unreadable(NamedTuple):
    """An event of the page that is not valid: its kind, and the fields that are not."""

    kind: str
    fields: tuple[str, ...] = ()


def gap(reason: GapReason) -> Entry:
    return Entry(EventKind.GAP, Gap(reason=reason).model_dump_json())


def read(event: PageEvent, *, reconciled: bool = False) -> Entry | Unreadable | None:
    """Return the entry for an event of the page; None if the event is none for the outbox."""
    if event.type == "chat.gap":
        return Unreadable(event.reason if event.reason and event.reason in PAYLOADS else "event")
    kind = KINDS.get(event.type)
    if kind is None:
        return None
    try:
        payload = PAYLOADS[kind].model_validate(event.data)
    except ValidationError as error:
        problems = error.errors(include_input=False)
        fields = {".".join(map(str, problem["loc"])) for problem in problems}
        return Unreadable(kind, tuple(sorted(fields)))
    data = _encode(payload)
    if data is None:
        return Unreadable(kind)
    message = payload if isinstance(payload, IncomingMessage) else None
    settled = isinstance(payload, MessageAck) and payload.participant is None
    return Entry(
        kind,
        data,
        _fact(payload),
        sent_at=None if message is None else message.sent_at.timestamp(),
        from_other=message is not None and not message.from_me,
        last_ack_of=payload.id
        if isinstance(payload, MessageAck) and settled and payload.ack >= READ
        else None,
        reconciled=reconciled,
    )


def _encode(payload: BaseModel) -> str | None:
    """Return the payload as JSON, with fewer contacts if need be; None if it is too large."""
    while True:
        data = payload.model_dump_json(by_alias=True, exclude_none=True)
        if len(data.encode()) <= MAXIMUM_DATA:
            return data
        if not isinstance(payload, IncomingMessage) or not payload.contacts:
            return None
        fewer = payload.contacts[: len(payload.contacts) // 2]
        payload = payload.model_copy(update={"contacts": fewer or None})


def _fact(payload: BaseModel) -> Fact:
    match payload:
        case IncomingMessage():
            return Fact(_hashed("message", *_message_key(payload.id)))
        case MessageDeletion():
            return Fact(_hashed("deletion", *_message_key(payload.id)))
        case MessageEdit():
            return _latest("edit", payload, "", payload.text or "")
        case Reaction():
            return _latest("reaction", payload, _person(payload), payload.emoji or "")
        case PollVote():
            return _latest("vote", payload, _person(payload), *sorted(payload.options))
        case MessageAck():
            key = _hashed("ack", *_message_key(payload.id), payload.participant or "")
            return Fact(key, payload.ack, b"%d" % payload.ack)
        case Call():
            return Fact(_hashed("call", payload.id))
        case GroupChange():
            at = f"{payload.at.timestamp():.0f}"
            members = sorted(payload.participants)
            return Fact(_hashed("group", payload.chat_id, payload.action, at, *members))
    raise TypeError(f"{type(payload).__name__} is no payload of an event")


def _latest(name: str, change: MessageChange, by: str, *value: str) -> Fact:
    """Return the fact that ``value`` is what somebody has last done to a message."""
    key = _hashed(name, *_message_key(change.id), by)
    return Fact(key, change.at.timestamp(), _hashed(*value))


def _message_key(message_id: str) -> tuple[str, ...]:
    """Return what names a message for good; only the name of a person's chat may change."""
    match = MESSAGE_ID.fullmatch(message_id)
    if match is None:
        return (message_id,)
    from_me, chat, stanza = match.groups()
    return (from_me, chat if chat.endswith("@g.us") else "person", stanza)


def _person(change: MessageChange) -> str:
    return "me" if change.from_me else change.phone_number or change.from_ or ""


def _hashed(*parts: str) -> bytes:
    content = "\0".join(part.replace("\0", "") for part in parts)
    return hashlib.blake2b(content.encode(), digest_size=16).digest()
