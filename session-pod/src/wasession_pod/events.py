"""Messages and acks as the page tells them, kept for a while for everybody who follows.

There is one buffer for all readers; a reader is only a position in it. So a slow one costs nothing:
what it has not read when the buffer's end passes it is told as a gap.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ValidationError
from wasession_api.session_pod.messages import IncomingMessage, MessageAck

from wasession_pod import metrics
from wasession_pod.state.observation import PageEvent

MAXIMUM_EVENTS = 2000
MAXIMUM_BYTES = 4 * 2**20
MAXIMUM_AWAITED = 500
READ = 3  # the last ack that is awaited
GAP = "gap"
KINDS: dict[str, tuple[str, type[BaseModel]]] = {
    "chat.message": ("message", IncomingMessage),
    "chat.ack": ("ack", MessageAck),
}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """A message, an ack or a gap; ``data`` is its JSON. Numbers grow by one from event to event."""

    number: int
    kind: str
    data: str


class EventBuffer:
    """The latest events of this process. An event's id is the process's start and its number: ``1a2b3c-17``."""

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
        self.awaited_acks: dict[
            str, int
        ] = {}  # the last ack that was told, by the ids of messages that have not been read

    def record(self, said: PageEvent) -> bool:
        """Keeps a message or ack; False when it is something else.

        A message that the old page has taken in the moment of a change may have been told by
        nobody, so another page is a gap.
        """
        if said.type == "loader.injected" and self.last:
            self.append(GAP, "{}")
        if said.type not in KINDS:
            return False
        kind, model = KINDS[said.type]
        try:
            told = model.model_validate(said.data)
        except ValidationError as error:
            fields = sorted(
                {
                    ".".join(map(str, problem["loc"]))
                    for problem in error.errors(include_input=False)
                }
            )
            log.warning("event not understood", extra={"kind": kind, "fields": fields})
            return True
        if isinstance(told, IncomingMessage) and not told.from_me:
            metrics.RECEIVED.inc()
        if isinstance(told, MessageAck) and told.participant is None and not self._is_news(told):
            return True
        self.append(kind, told.model_dump_json(by_alias=True, exclude_none=True))
        return True

    def expect_acks(self, message_id: str) -> None:
        """Awaits the acks of a message that is about to be sent; the oldest of too many are forgotten."""
        self.awaited_acks.setdefault(message_id, 0)
        if len(self.awaited_acks) > MAXIMUM_AWAITED:
            del self.awaited_acks[next(iter(self.awaited_acks))]

    def _is_news(self, told: MessageAck) -> bool:
        before = self.awaited_acks.get(told.id)
        if before is None:
            return True
        if told.ack >= READ:
            del self.awaited_acks[told.id]
        else:
            self.awaited_acks[told.id] = max(told.ack, before)
        return told.ack > before

    def append(self, kind: str, data: str) -> None:
        self.last += 1
        self._events.append(Event(self.last, kind, data))
        self._bytes += len(data)
        while len(self._events) > self._maximum_events or self._bytes > self._maximum_bytes:
            self._bytes -= len(self._events.popleft().data)
        self.notify()

    @property
    def oldest(self) -> int:
        """The position before the oldest event that is still there."""
        return self.last - len(self._events)

    def after(self, position: int) -> Event | None:
        """The event that follows; None when there is none yet. ``position`` must not be before ``oldest``."""
        return self._events[position - self.oldest] if position < self.last else None

    def event_id(self, position: int) -> str:
        """What a reader that has read up to ``position`` comes back with."""
        return f"{self._start}-{position}"

    def position(self, event_id: str) -> int | None:
        """Where a reader was; None when its id is another process's, or what followed is no longer there."""
        start, _, number = event_id.partition("-")
        if start != self._start or not number.isdecimal() or not number.isascii():
            return None
        return int(number) if self.oldest <= int(number[:18]) <= self.last else None

    def notify(self) -> None:
        """Something has changed that readers look at."""
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def changed(self) -> asyncio.Event:
        """Set at the next change. Take it before you look, so that no change is missed."""
        return self._changed
