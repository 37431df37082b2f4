"""The events of one session's pod, for the clients that listen to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable
from typing import Protocol

from wasession_api.base import Model
from wasession_api.http.sse import Pace, ServerSentEvent
from wasession_api.session_pod.events import EventId, EventKind, EventPage, GapReason
from wasession_api.session_pod.report import Report

from wasession_gateway import events, metrics
from wasession_gateway.cursors import Cursors
from wasession_gateway.pods import (
    RETRY_FIRST,
    RETRY_LAST,
    Interrupted,
    NoEvents,
    PodEventStream,
    Pods,
    Unreachable,
)
from wasession_gateway.problems import log_unexpected
from wasession_gateway.session import Session

log = logging.getLogger(__name__)
CATCH_UP_RATE = 2 * 2**20  # bytes per second of one pod's pages, for all clients
EVENT_COST = 2**10  # bytes that an event counts besides its own


class Clients(Protocol):
    """What a feed needs of the namespace."""

    def listeners(self, name: str) -> set[str]:
        """Return the clients that receive what the session's pod sends."""

    def listens(self, sid: str, name: str) -> bool:
        """Whether the client is one of these, and its token permits it to read messages."""

    async def deliver(self, event: Model, sids: Iterable[str]) -> object:
        """Send an event to those of the clients whose tokens permit it."""

    def packets_at_once(self, sid: str) -> int:
        """Return how many events to send before the client has read any of them."""

    async def read_all(self, sid: str) -> None:
        """Wait until the client has read what was sent to it."""

    async def take_report(self, session: Session, report: Report) -> None:
        """Take the session's state, as its pod reports it."""


class SessionFeed:
    """One session's pod, followed through its restarts while the session has listeners."""

    def __init__(self, pods: Pods, session: Session, clients: Clients) -> None:
        self.session = session
        self._pods, self._clients = pods, clients
        self._cursors = Cursors()
        self._stream: PodEventStream | None = None
        self._last_id: str | None = None  # of the latest stream, where the next one begins
        self._moved = asyncio.Event()
        self._catch_ups: dict[str, asyncio.Task[None]] = {}
        self._pace, self._reading = Pace(rate=CATCH_UP_RATE), asyncio.Lock()
        self.update(session)

    def update(self, session: Session) -> None:
        """Take the session's new state; follow its pod if it has one."""
        self.session = session
        if session.status.pod_name is None:
            self._end_stream()
        elif self._stream is None:
            self._stream = PodEventStream(self._pods, session, self._on_event, self._last_id)
        else:
            self._stream.update(session)

    def close(self) -> None:
        self._end_stream()
        for sid in list(self._catch_ups):
            self.drop(sid)

    def catch_up(self, sid: str, since: str, turn: asyncio.Lock) -> None:
        """Send a client the events after ``since``, then those of the stream.

        ``turn`` is the client's: it gets one page at a time, of whatever session.
        """
        self.drop(sid)
        self._cursors.hold(sid)
        self._catch_ups[sid] = asyncio.create_task(self._catch_up(sid, since, turn))

    async def greet(self, sid: str) -> None:
        """Tell a client from which event on it has all, if that is known yet."""
        if self._cursors.position is not None and not self._cursors.is_held(sid):
            await self._tell_caught_up(self._cursors.position, [sid])

    def drop(self, sid: str) -> None:
        """Forget where a client is."""
        if (task := self._catch_ups.pop(sid, None)) is not None:
            task.cancel()
        self._cursors.release(sid)

    def _end_stream(self) -> None:
        if self._stream is not None:
            self._last_id = self._stream.last_id
            self._stream.close()
            self._stream = None

    # --- the stream -------------------------------------------------------------------------------

    async def _on_event(self, session: Session, event: ServerSentEvent) -> None:
        event_id = EventId.parse(event.id)
        listeners = self._clients.listeners(session.name)
        if event.type == EventKind.STATE:
            await self._begin(event_id, listeners)
            self._wake()
            await self._clients.take_report(session, Report.model_validate_json(event.data))
            return
        receivers = self._cursors.advance(event_id, listeners)
        self._wake()
        if (payload := events.of_pod(session, event.type, event.data, event_id)) is not None:
            await self._clients.deliver(payload, receivers)

    async def _begin(self, event_id: EventId | None, listeners: set[str]) -> None:
        """Take the first state's ID, with which the stream begins."""
        if event_id is None or self._cursors.position is not None:
            return
        receivers = self._cursors.advance(event_id, listeners)
        await self._tell_caught_up(event_id, receivers)

    async def _tell_caught_up(self, event_id: EventId, sids: Iterable[str]) -> None:
        told = events.CaughtUp(**events.subject(self.session), event_id=str(event_id))
        await self._clients.deliver(told, sids)

    def _wake(self) -> None:
        """Wake the catch-ups that wait for the stream."""
        if self._catch_ups:
            self._moved.set()
            self._moved = asyncio.Event()

    # --- what clients have missed -----------------------------------------------------------------

    async def _catch_up(self, sid: str, cursor: str, turn: asyncio.Lock) -> None:
        try:
            with metrics.CATCH_UPS.track_inprogress():
                await self._send_pages(sid, cursor, turn)
        except NoEvents as error:
            log.warning(
                "cannot read what a client has missed; it gets a gap in its place",
                extra={"session": self.session.name, "error": str(error)},
            )
            await self._give_up(sid)
        except Exception as error:  # must not leave the client without events
            log_unexpected(
                error,
                "cannot send what a client has missed; it gets a gap in its place",
                session=self.session.name,
            )
            await self._give_up(sid)
        finally:
            if self._catch_ups.get(sid) is asyncio.current_task():
                del self._catch_ups[sid]

    async def _send_pages(self, sid: str, cursor: str, turn: asyncio.Lock) -> None:
        """Send pages until the client has joined the stream, or listens no longer."""
        delay = RETRY_FIRST
        while True:
            moved = self._moved
            if self._stream is None or not self._stream.is_open:
                await moved.wait()
                continue
            try:
                async with turn:
                    page = await self._read(cursor, self._clients.packets_at_once(sid))
                    if await self._send(sid, page):
                        return
                    await self._clients.read_all(sid)
            except (Unreachable, Interrupted):
                await _wait(moved, delay)
                delay = min(delay * 2, RETRY_LAST)
                continue
            cursor, delay = page.next, RETRY_FIRST
            if not page.items:  # the stream is elsewhere, such as in an outbox that was replaced
                await moved.wait()

    async def _read(self, cursor: str, limit: int) -> EventPage:
        """Return the page after a cursor; one at a time is read, of all clients."""
        async with self._reading:
            page, size = await self._pods.events(self.session, cursor, limit)
            cost = size + EVENT_COST * (1 + len(page.items))
            await asyncio.sleep(self._pace.take(cost, time.monotonic()))
        return page

    async def _send(self, sid: str, page: EventPage) -> bool:
        """Send a page to the client; return whether this was the last one."""
        if not self._clients.listens(sid, self.session.name):
            self._cursors.release(sid)
            return True
        for item in page.items:
            event_id = EventId.parse(item.id)
            payload = events.of_pod(self.session, item.kind, item.data, event_id)
            if payload is not None:
                await self._clients.deliver(payload, [sid])
        if (last := EventId.parse(page.next)) is None:
            raise NoEvents("the page has no cursor to continue with")
        if not self._cursors.join(sid, last):
            return False
        await self._tell_caught_up(last, [sid])
        return True

    async def _give_up(self, sid: str) -> None:
        """Have the client go on with the stream."""
        self._cursors.release(sid)
        missed = events.MessagesMissed(**events.subject(self.session), reason=GapReason.INCOMPLETE)
        await self._clients.deliver(missed, [sid])
        await self.greet(sid)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
