"""Server-sent events, as session pods send them (WHATWG HTML, 9.2)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

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
    """The sender has sent more than ``MAXIMUM_EVENT`` without ending the event."""


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


async def read(lines: AsyncIterable[bytes], pace: Pace) -> AsyncIterator[ServerSentEvent]:
    """Yield the events of a stream of lines, without comments and an incomplete last event.

    A sender that is faster than ``pace`` has to wait, and loses nothing. Raises ``EventTooLarge``.
    """
    kind, data, last, size = "message", list[str](), None, 0
    async for line in lines:
        cost = len(line) + LINE_COST
        if wait := pace.take(cost, time.monotonic()):
            await asyncio.sleep(max(wait, SHORTEST_PAUSE))
        text = line.decode(errors="replace").rstrip("\r\n")
        if not text:
            if data:
                yield ServerSentEvent(kind, "\n".join(data), last)
                await asyncio.sleep(0)  # let others run
            kind, data, size = "message", [], 0
            continue
        size += cost
        if size > MAXIMUM_EVENT:
            raise EventTooLarge(f"an event has more than {MAXIMUM_EVENT} bytes")
        name, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            last = value
