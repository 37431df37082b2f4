"""What a session pod tells about its session: events, with IDs that are durable cursors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, NamedTuple

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    JsonValue,
    PlainSerializer,
    StringConstraints,
)

from wasession_api.base import Observed, Pattern, Time
from wasession_api.session_pod.messages import (
    Call,
    GroupChange,
    IncomingMessage,
    MessageAck,
    MessageDeletion,
    MessageEdit,
    PollVote,
    Reaction,
)


class EventKind(StrEnum):
    """What has happened. All but ``state`` are numbered and kept in the outbox."""

    STATE = "state"  # the session's report, now and at each change; not kept
    MESSAGE = "message"
    EDIT = "edit"
    DELETION = "deletion"
    REACTION = "reaction"
    VOTE = "vote"
    ACK = "ack"
    CALL = "call"
    GROUP = "group"
    GAP = "gap"  # events before this one may be missing


def _split(value: object) -> object:
    return value.split(",") if isinstance(value, str) else value


EventKinds = Annotated[
    frozenset[EventKind],
    BeforeValidator(_split),
    PlainSerializer(lambda kinds: ",".join(sorted(kinds)), return_type=str),
]  # in a query, separated by commas


class GapReason(StrEnum):
    """Why events may be missing."""

    UNREADABLE = "Unreadable"  # WhatsApp Web has told something that cannot be read
    EXPIRED = "Expired"  # the outbox has deleted them: they were too old or too many
    OUTBOX_REPLACED = "OutboxReplaced"  # the cursor is of an outbox that is not there any more
    INCOMPLETE = "Incomplete"  # what came while nobody looked could not be read in full


class Gap(Observed):
    """Events before this one may be missing."""

    reason: str = Field(max_length=64, description="One of the reasons in the documentation.")


PAYLOADS: Mapping[EventKind, type[BaseModel]] = {
    EventKind.MESSAGE: IncomingMessage,
    EventKind.EDIT: MessageEdit,
    EventKind.DELETION: MessageDeletion,
    EventKind.REACTION: Reaction,
    EventKind.VOTE: PollVote,
    EventKind.ACK: MessageAck,
    EventKind.CALL: Call,
    EventKind.GROUP: GroupChange,
    EventKind.GAP: Gap,
}
# A gap that a webhook is told in the place of an event ends with -gap.
CURSOR = r"^[0-9a-f]{8,32}-[0-9]{1,18}(-gap)?$"
Cursor = Annotated[
    str,
    StringConstraints(max_length=64),
    Pattern(CURSOR, "must be the ID of an event, unchanged"),
    Field(
        description="ID of an event: of its outbox, and its number there.",
        examples=["5c1f0e7a9b3d4c62-1042"],
    ),
]


class EventId(NamedTuple):
    """The ID of an event, which is also the position of a reader who has had all up to it.

    The number grows by at least one with each event of an outbox.
    """

    outbox: str
    number: int

    @classmethod
    def parse(cls, text: str | None) -> EventId | None:
        """Return the ID; None if it is none that a reader could come back with."""
        if text is None or re.fullmatch(CURSOR, text) is None:
            return None
        outbox, _, number = text.removesuffix("-gap").partition("-")
        return cls(outbox, int(number))

    def __str__(self) -> str:
        return f"{self.outbox}-{self.number}"

    def reaches(self, other: EventId) -> bool:
        """Whether who has had all events up to this one has had the other one too."""
        return self.outbox == other.outbox and self.number >= other.number


class Event(Observed):
    """One event of the outbox. ``id`` never changes, also when the event is told again."""

    id: str = Field(max_length=64)
    kind: str = Field(max_length=32)
    time: Time = Field(description="When the session pod committed the event.")
    data: dict[str, JsonValue]


class EventPage(Observed):
    """Events after a cursor, oldest first."""

    items: list[Event]
    next: str = Field(
        max_length=64, description="Cursor to continue with, also if there are no items yet."
    )
    more: bool = Field(False, description="Whether more events follow at once.")
