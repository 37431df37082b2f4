"""Buffer recent messages and acks for the readers of the event stream.

All readers share one buffer, and each is only a position in it, so a slow reader costs nothing.
Events that leave the buffer before a reader gets them reach it as a gap.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ValidationError
from wasession_api.session_pod.messages import IncomingMessage, MessageAck

from wasession_pod import metrics
from wasession_pod.state.observation import PageEvent

MAXIMUM_EVENTS = 2000
MAXIMUM_BYTES = 4 * 2**20
MAXIMUM_REMEMBERED = 10_000  # ids of messages that readers have had
MAXIMUM_AWAITED = 500  # sent messages whose acks are awaited
READ = 3  # the last ack that is awaited
GAP = "gap"
UNREADABLE_KINDS = {"message", "ack"}  # of the page's data; anything else is an "event"
KINDS: dict[str, tuple[str, type[BaseModel]]] = {
    "chat.message": ("message", IncomingMessage),
    "chat.ack": ("ack", MessageAck),
}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """A message, an ack or a gap as JSON; ``number`` grows by one with each event."""

    number: int
    kind: str
    data: str


class EventBuffer:
    """The latest events of this process.

    An event's id consists of the process's start time and the event's number: ``1a2b3c-17``.
    """

    def __init__(
        self,
        started_at: datetime,
        maximum_events: int = MAXIMUM_EVENTS,
        maximum_bytes: int = MAXIMUM_BYTES,
    ) -> None:
        self._start = f"{int(started_at.timestamp() * 1000):x}"
        self._maximum_events, self._maximum_bytes = maximum_events, maximum_bytes
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()
        self.last = 0
        self._messages: dict[str, None] = {}  # ids, oldest first
        # The latest ack of each message that is not read yet, by message id.
        self.awaited_acks: dict[str, int] = {}

    def record(self, event: PageEvent) -> bool:
        """Buffer a message or an ack; return False for any other event.

        What cannot be read is a gap, and so is a new page: what the previous page received while it
        closed may be lost.
        """
        if event.type == "loader.injected" and self.last:
            self.append(GAP, "{}")
        if event.type == "chat.gap":
            self._append_unreadable(event.reason or "event")
            return True
        if event.type not in KINDS:
            return False
        kind, model = KINDS[event.type]
        try:
            payload = model.model_validate(event.data)
        except ValidationError as error:
            problems = error.errors(include_input=False)
            fields = sorted({".".join(map(str, problem["loc"])) for problem in problems})
            log.warning(
                "event of the page is malformed; readers get a gap in its place",
                extra={"kind": kind, "fields": fields},
            )
            self._append_unreadable(kind)
            return True
        if isinstance(payload, IncomingMessage) and not self._is_new(payload.id):
            return True
        if isinstance(payload, IncomingMessage) and not payload.from_me:
            metrics.RECEIVED.inc()
        if (
            isinstance(payload, MessageAck)
            and payload.participant is None
            and not self._advances(payload)
        ):
            return True
        self.append(kind, payload.model_dump_json(by_alias=True, exclude_none=True))
        return True

    def expect_acks(self, message_id: str) -> None:
        """Await the acks of a message about to be sent, of ``MAXIMUM_AWAITED`` messages at most."""
        self.awaited_acks.setdefault(message_id, 0)
        if len(self.awaited_acks) > MAXIMUM_AWAITED:
            del self.awaited_acks[next(iter(self.awaited_acks))]

    def _is_new(self, message_id: str) -> bool:
        """Remember a message; return False for one that an earlier page has had already."""
        if message_id in self._messages:
            return False
        self._messages[message_id] = None
        if len(self._messages) > MAXIMUM_REMEMBERED:
            del self._messages[next(iter(self._messages))]
        return True

    def _append_unreadable(self, kind: str) -> None:
        metrics.UNREADABLE.labels(kind if kind in UNREADABLE_KINDS else "event").inc()
        self.append(GAP, "{}")

    def _advances(self, ack: MessageAck) -> bool:
        """Return whether the ack is higher than the previous one of its message."""
        before = self.awaited_acks.get(ack.id)
        if before is None:
            return True
        if ack.ack >= READ:
            del self.awaited_acks[ack.id]
        else:
            self.awaited_acks[ack.id] = max(ack.ack, before)
        return ack.ack > before

    def append(self, kind: str, data: str) -> None:
        """Append an event, drop the oldest beyond the limits, and notify the readers."""
        self.last += 1
        self._events.append(Event(self.last, kind, data))
        self._bytes += len(data)
        while len(self._events) > self._maximum_events or self._bytes > self._maximum_bytes:
            self._bytes -= len(self._events.popleft().data)
        self.notify()

    @property
    def oldest(self) -> int:
        """The position before the oldest buffered event."""
        return self.last - len(self._events)

    def after(self, position: int) -> Event | None:
        """Return the event after ``position``, or None; ``position`` is at least ``oldest``."""
        return self._events[position - self.oldest] if position < self.last else None

    def event_id(self, position: int) -> str:
        """Return the ``Last-Event-ID`` with which a reader resumes after ``position``."""
        return f"{self._start}-{position}"

    def position(self, event_id: str) -> int | None:
        """Return a reader's position; None for another process's id or an event no longer there."""
        start, _, number = event_id.partition("-")
        if start != self._start or not re.fullmatch("[0-9]{1,18}", number):
            return None
        return int(number) if self.oldest <= int(number) <= self.last else None

    def notify(self) -> None:
        """Wake the readers: an event or the session's report has changed."""
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def changed(self) -> asyncio.Event:
        """Set at the next change. Get it before looking at the buffer, to miss none."""
        return self._changed
