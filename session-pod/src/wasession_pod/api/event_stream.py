"""The events as server-sent events or in pages: the outbox, and the session's state.

A reader is a position in the outbox. What it misses, it is told as a gap.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

from wasession_api.session_pod.events import Event, EventId, EventKind, EventPage

from wasession_pod.messages import event_store
from wasession_pod.messages.outbox import Batch, Outbox, gap_event
from wasession_pod.session import NotReady, Session

HEARTBEAT = 10.0  # seconds between comments on a stream without events


async def follow(
    session: Session, kinds: frozenset[EventKind], last_event_id: str | None
) -> AsyncIterator[bytes]:
    """Yield the state now and at each change, and the events after ``last_event_id``.

    Without one, those from now on. Raises ``DatabaseError``.
    """
    outbox = session.outbox
    known, position = False, None  # where to read on, once the outbox is loaded
    seq = -1
    while True:
        changed = outbox.changed
        if not known and outbox.latest is not None:
            known = True
            position = outbox.latest if last_event_id is None else EventId.parse(last_event_id)
        report = session.report
        if EventKind.STATE in kinds and report.seq != seq:
            seq = report.seq
            data = report.model_dump_json(by_alias=True, exclude_none=True)
            yield _block(position, EventKind.STATE, data)
        batch = None
        if known and kinds == {EventKind.STATE}:
            position = outbox.latest
        elif known and position != outbox.latest:
            batch = await outbox.read(position)
        if batch is not None:
            for event in _wanted(batch, kinds):
                yield _block(_id_of(batch, event), event.kind, event.data)
            position = batch.position
        elif not changed.is_set():
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await changed.wait()
            except TimeoutError:
                yield b": heartbeat\n\n"


async def page(
    outbox: Outbox, kinds: frozenset[EventKind], after: str | None, limit: int, wait: float
) -> EventPage:
    """Return the events after a cursor, by default all; wait for the first if there is none.

    The outbox must be loaded. Raises ``DatabaseError``.
    """
    position = outbox.oldest if after is None else EventId.parse(after)
    deadline = time.monotonic() + wait
    while True:
        changed = outbox.changed
        batch = await outbox.read(position)
        wanted = _wanted(batch, kinds)
        position = batch.position
        if len(wanted) > limit:
            position = _id_of(batch, wanted[limit - 1])
        if wanted:
            items = [_event(_id_of(batch, event), event) for event in wanted[:limit]]
            return EventPage(items=items, next=str(position), more=position != outbox.latest)
        if batch.more:
            continue
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await changed.wait()
        except TimeoutError:
            return EventPage(items=[], next=str(position), more=False)


def require_loaded(session: Session) -> Outbox:
    """Return the session's outbox; raise ``NotReady`` before there is one."""
    if session.outbox.latest is None:
        raise NotReady(session.report.phase)
    return session.outbox


def _wanted(batch: Batch, kinds: frozenset[EventKind]) -> Sequence[event_store.Event]:
    """Return the events of these kinds, and all gaps."""
    missing = gap_event(batch)
    events = [event for event in batch.events if event.kind in kinds or event.kind == EventKind.GAP]
    return events if missing is None else [missing, *events]


def _id_of(batch: Batch, event: event_store.Event) -> EventId:
    return EventId(batch.position.outbox, event.number)


def _event(position: EventId, event: event_store.Event) -> Event:
    return Event(
        id=str(position),
        kind=event.kind,
        time=datetime.fromtimestamp(event.committed_at, UTC),
        data=json.loads(event.data),
    )


def _block(position: EventId | None, kind: str, data: str) -> bytes:
    name = "" if position is None else f"id: {position}\n"
    return f"{name}event: {kind}\ndata: {data}\n\n".encode()
