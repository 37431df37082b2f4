"""The event stream: the session's state and the buffered events, as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from wasession_pod.api.operations import EventKind
from wasession_pod.events import GAP, EventBuffer
from wasession_pod.session import Session

HEARTBEAT = 10.0  # seconds between comments on a stream without events


async def follow(
    session: Session, kinds: frozenset[EventKind], last_event_id: str | None
) -> AsyncIterator[bytes]:
    """Yield the state now and at each change, and the buffered events after ``last_event_id``."""
    buffer = session.events
    resumed = buffer.last if last_event_id is None else buffer.position(last_event_id)
    missed = resumed is None
    position = buffer.oldest if resumed is None else resumed
    seq = -1
    while True:
        changed = buffer.changed
        report = session.report
        if EventKind.STATE in kinds and report.seq != seq:
            seq = report.seq
            data = report.model_dump_json(by_alias=True, exclude_none=True)
            yield _block(buffer, position, "state", data)
        if kinds == {EventKind.STATE}:
            missed, position = False, buffer.last
        if missed or position < buffer.oldest:
            missed, position = False, buffer.oldest
            yield _block(buffer, position, GAP, "{}")
        elif event := buffer.after(position):
            position = event.number
            if event.kind == GAP or event.kind in kinds:
                yield _block(buffer, position, event.kind, event.data)
        elif not changed.is_set():
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await changed.wait()
            except TimeoutError:
                yield b": heartbeat\n\n"


def _block(buffer: EventBuffer, position: int, kind: str, data: str) -> bytes:
    return f"id: {buffer.event_id(position)}\nevent: {kind}\ndata: {data}\n\n".encode()
