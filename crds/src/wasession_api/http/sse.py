"""Server-sent events, as session pods send them (WHATWG HTML, 9.2)."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event. ``id`` is the stream's last event ID so far, to be sent as ``Last-Event-ID``."""

    type: str
    data: str
    id: str | None


async def read(lines: AsyncIterable[bytes]) -> AsyncIterator[ServerSentEvent]:
    """Yield the events of a stream of lines, without comments and an incomplete last event."""
    kind, data, last = "message", list[str](), None
    async for line in lines:
        text = line.decode(errors="replace").rstrip("\r\n")
        if not text:
            if data:
                yield ServerSentEvent(kind, "\n".join(data), last)
            kind, data = "message", []
            continue
        name, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            last = value
