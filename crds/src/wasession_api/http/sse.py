"""Server-sent events, as session pods send them (WHATWG HTML, 9.2)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

from aiohttp.http_exceptions import LineTooLong

# Bytes, of all lines of one event. A message of 65,536 characters may take 384 KiB as JSON.
MAXIMUM_EVENT = 512 * 2**10
LINE_COST = 256  # bytes that a line counts besides its own, as even an empty one takes time
SHORTEST_PAUSE = 0.1  # seconds


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event. ``id`` is the stream's last event ID so far, to be sent as ``Last-Event-ID``."""

    type: str
    data: str
    id: str | None


class EventTooLarge(ValueError):
    """The sender has sent more than ``MAXIMUM_EVENT`` without ending the event.

    ``id`` is the stream's last event ID: that of this event, if its ``id`` field came first.
    """

    def __init__(self, message: str, last_id: str | None = None) -> None:
        super().__init__(message)
        self.id = last_id


@dataclass(slots=True)
class Pace:
    """How fast to read a sender's streams: a leaky bucket of bytes (GCRA).

    ``rate`` is in bytes per second, ``burst`` in bytes. One for each sender, so that it gains
    nothing by connecting again. By default the whole buffer of a session pod comes at once.
    """

    rate: float = 512 * 2**10
    burst: float = 8 * 2**20
    due: float = 0.0  # when the bucket is empty again

    def take(self, size: int, now: float) -> float:
        """Count ``size`` bytes, and return for how many seconds to read no further."""
        self.due = max(self.due, now) + size / self.rate
        return max(self.due - now - self.burst / self.rate, 0.0)


class EventParser:
    """Makes events of lines, without comments and an incomplete last event."""

    __slots__ = ("_data", "_size", "_type", "last_id")

    def __init__(self) -> None:
        self._type = "message"
        self._data: list[str] = []
        self.last_id: str | None = None
        self._size = 0  # of the present event so far

    def feed(self, line: bytes) -> ServerSentEvent | None:
        """Return the event that the line ends, if it does; raise ``EventTooLarge``."""
        text = line.decode(errors="replace").rstrip("\r\n")
        if not text:
            event = ServerSentEvent(self._type, "\n".join(self._data), self.last_id)
            complete = bool(self._data)
            self._type, self._data, self._size = "message", [], 0
            return event if complete else None
        self._size += len(line) + LINE_COST
        if self._size > MAXIMUM_EVENT:
            raise EventTooLarge(f"an event has more than {MAXIMUM_EVENT} bytes", self.last_id)
        name, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._type = value
        elif name == "data":
            self._data.append(value)
        elif name == "id":
            self.last_id = value
        return None


async def read(lines: AsyncIterable[bytes], pace: Pace) -> AsyncIterator[ServerSentEvent]:
    """Yield the events of a stream of lines.

    A sender that is faster than ``pace`` has to wait, and loses nothing. Raises ``EventTooLarge``.
    """
    parser = EventParser()
    try:
        async for line in lines:
            if wait := pace.take(len(line) + LINE_COST, time.monotonic()):
                await asyncio.sleep(max(wait, SHORTEST_PAUSE))
            if event := parser.feed(line):
                yield event
                await asyncio.sleep(0)  # let others run
    except LineTooLong:
        raise EventTooLarge("a line does not fit the buffer", parser.last_id) from None
