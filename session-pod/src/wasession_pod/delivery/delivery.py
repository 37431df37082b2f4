"""Delivers what is in the outbox to one webhook or sink, and keeps how far it has come."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from wasession_api.session_pod.events import EventId, EventKind, GapReason
from wasession_api.v1alpha1 import ChatKind, DeliveryState, DeliveryStatus
from wasession_api.v1alpha1.delivery import Destination

from wasession_pod import metrics
from wasession_pod.delivery import plan
from wasession_pod.delivery.cloud_events import request
from wasession_pod.delivery.plan import Outcome, Progress, Queued
from wasession_pod.delivery.sender import Attempt, Sender
from wasession_pod.delivery.store import DeliveryStore, Kept, StoredDeadLetter
from wasession_pod.messages.database import DatabaseError
from wasession_pod.messages.event_store import Event
from wasession_pod.messages.outbox import Batch, Outbox, make_gap

MOST = 16  # events on their way at the same time
WINDOW, WINDOW_BYTES = 2000, 2 * 2**20  # events that wait in memory
RETRY_STORE = 2.0  # seconds after the volume could not be written
JITTER = (0.8, 1.2)
BEFORE_THE_FIRST = -1  # so that the event with the number 0 follows: a gap
log = logging.getLogger(__name__)


def chat_of(data: Mapping[str, Any]) -> str:
    """Return the chat that an event is about; empty for one that is about none."""
    return str(data.get("chatId") or "")


def wants(destination: Destination, kind: str, data: Mapping[str, Any]) -> bool:
    """Return whether a webhook or sink wants an event. Each wants gaps."""
    if kind == EventKind.GAP:
        return True
    if destination.events and kind not in destination.events:
        return False
    chat, wanted = chat_of(data), destination.filter
    if wanted.chats and chat:
        of_group = ChatKind.GROUP if chat.endswith("@g.us") else ChatKind.PERSON
        if of_group not in wanted.chats:
            return False
    return wanted.from_me is None or data.get("fromMe", False) is wanted.from_me


class Waiting(NamedTuple):
    """An event that waits in memory, with the ID under which it is told."""

    queued: Queued
    event: Event
    id: str


class Delivery:
    """Runs until cancelled. ``source`` is the session, as in CloudEvents."""

    def __init__(
        self,
        kept: Kept,
        outbox: Outbox,
        sender: Sender,
        store: DeliveryStore,
        source: str,
        on_change: Callable[[], None],
    ) -> None:
        self.kept = kept
        # Of the last attempt, unless it was delivered; at first, of an earlier process.
        self.error = next((one.error for one in kept.progress.troubles.values()), None)
        self.last_delivered: float | None = None  # seconds since the epoch
        self._since = datetime.now(UTC)
        self._on_change = on_change
        self.status = self._status()
        self._outbox, self._sender, self._store, self._source = outbox, sender, store, source
        self._window: dict[int, Waiting] = {}  # by number
        self._window_bytes = 0
        self._read_to = kept.progress.settled_to
        self._requests: set[asyncio.Task[None]] = set()
        self._dead: list[StoredDeadLetter] = []
        self._delivered: list[str] = []  # since the last write
        self._dirty = asyncio.Event()
        self._wake = asyncio.Event()
        self._bug: BaseException | None = None  # that a request has met with

    # --- what others see and ask ------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """The number of events that wait; it may count some that are not wanted."""
        row = self._outbox.row
        unread = 0 if row is None or row.id != self.kept.outbox else row.last - self._read_to
        return len(self._window) + max(unread, 0)

    @property
    def oldest(self) -> float | None:
        """When the oldest event that waits was committed, in seconds since the epoch."""
        first = next(iter(self._window.values()), None)
        return None if first is None else first.event.committed_at

    def _status(self) -> DeliveryStatus:
        progress, state, error = self.kept.progress, DeliveryState.DELIVERING, None
        if self.kept.paused:
            state = DeliveryState.PAUSED
        elif progress.gone:
            state = DeliveryState.GONE
        elif progress.is_away or any(
            trouble.attempts >= plan.AWAY_AFTER for trouble in progress.troubles.values()
        ):
            state, error = DeliveryState.FAILING, self.error
        return DeliveryStatus(
            name=self.kept.destination.name, state=state, since=self._since, error=error
        )

    def _publish(self) -> None:
        """Adopt the status if the state is another one; what fails meanwhile may change."""
        status = self._status()
        if status.state is not self.status.state:
            self._since = datetime.now(UTC).replace(microsecond=0)
            self.status = status.model_copy(update={"since": self._since})
            self._on_change()

    def pause(self, *, paused: bool) -> None:
        """Stop or go on, also with a receiver that wanted no more."""
        progress = self.kept.progress if paused else replace(self.kept.progress, gone=False)
        self._keep(replace(self.kept, paused=paused, progress=progress))

    def rewind(self, number: int) -> None:
        """Deliver everything after an event again."""
        self._reread(plan.rewind(self.kept.progress, number))

    def reopen(self, numbers: list[int]) -> None:
        """Deliver these events again."""
        self._reread(plan.reopen(self.kept.progress, numbers))

    def _reread(self, progress: Progress) -> None:
        """Read the outbox again from another place. Requests that are under way do not count."""
        for task in self._requests:
            task.cancel()
        progress = replace(progress, in_flight={})
        self._window.clear()
        self._window_bytes = 0
        self._read_to = max(progress.settled_to, 0)
        if progress.settled_to == BEFORE_THE_FIRST:
            self._add_gap(0, GapReason.OUTBOX_REPLACED)
        self._keep(replace(self.kept, progress=progress))

    # --- the loop ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver until cancelled; then keep what is known of the requests that have ended."""
        self._bug = None
        self._reread(self.kept.progress)
        keeping = asyncio.create_task(self._keep_on())
        try:
            while self._bug is None:
                changed = self._outbox.changed
                self._wake.clear()
                wake_at = await self._deliver()
                await self._wait(changed, wake_at)
            raise self._bug
        finally:
            for task in [*self._requests, keeping]:
                task.cancel()
            await asyncio.gather(*self._requests, keeping, return_exceptions=True)
            with contextlib.suppress(DatabaseError):
                await self._write()

    async def _deliver(self) -> float | None:
        """Start the requests that are due; return when to look again."""
        if self.kept.paused:
            return None
        try:
            await self._fill()
        except DatabaseError as error:
            log.warning("cannot read the outbox; trying again", extra={"error": str(error)})
            return time.time() + RETRY_STORE
        if self.kept.paused:  # by now
            return None
        queue = (waiting.queued for waiting in self._window.values())
        found = plan.choose(self.kept.progress, queue, time.time(), MOST)
        self.kept = replace(self.kept, progress=plan.begin(self.kept.progress, found.events))
        for queued in found.events:
            task = asyncio.create_task(self._send(self._window[queued.number]))
            self._requests.add(task)
            task.add_done_callback(self._on_request_done)
        return found.wake_at

    def _on_request_done(self, task: asyncio.Task[None]) -> None:
        self._requests.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._bug = error
            self._wake.set()

    async def _wait(self, changed: asyncio.Event, wake_at: float | None) -> None:
        """Wait for an event, an answer, a request of a person, or a time."""
        waiting = {asyncio.ensure_future(one.wait()) for one in (changed, self._wake)}
        timeout = None if wake_at is None else max(wake_at - time.time(), 0)
        try:
            await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()

    # --- reading the outbox -----------------------------------------------------------------------

    async def _fill(self) -> None:
        """Read on, as far as there is space in memory."""
        latest = self._outbox.latest
        if latest is None:
            return  # not loaded yet
        if latest.outbox != self.kept.outbox:
            self._start_over(latest.outbox)
        while len(self._window) < WINDOW and self._window_bytes < WINDOW_BYTES:
            start = self._read_to
            batch = await self._outbox.read(EventId(self.kept.outbox, start))
            if self._read_to != start:
                continue  # somebody wants it from another place, since it was asked for
            if batch.position.outbox != self.kept.outbox:
                self._start_over(batch.position.outbox)
                continue
            self._take(batch)
            if not batch.more:
                return

    def _start_over(self, outbox: str) -> None:
        """Follow another outbox from its start; the receiver is told what that means."""
        self.kept = replace(self.kept, outbox=outbox)
        self._reread(Progress(BEFORE_THE_FIRST))

    def _take(self, batch: Batch) -> None:
        unwanted, progress = list[int](), self.kept.progress
        if batch.missing is not None and batch.start is not None:
            passed = range(self._read_to + 1, batch.start.number + 1)
            lost = [number for number in passed if not progress.is_settled(number)]
            if lost:  # the number of the last one stands for all
                unwanted += lost[:-1]
                self._add_gap(lost[-1], batch.missing)
        for event in batch.events:
            if progress.is_settled(event.number):
                continue
            data_of = json.loads(event.data)
            if wants(self.kept.destination, event.kind, data_of):
                queued = Queued(event.number, chat_of(data_of))
                self._add(Waiting(queued, event, self._id(event.number)))
            else:
                unwanted.append(event.number)
        self._read_to = batch.position.number
        if unwanted:
            self._keep(replace(self.kept, progress=plan.skip(progress, unwanted)))

    def _id(self, number: int) -> str:
        return str(EventId(self.kept.outbox, number))

    def _add_gap(self, number: int, reason: GapReason) -> None:
        """Tell a gap in the place of an event, whose own ID the receiver may know already."""
        queued, gap = Queued(number, ""), make_gap(number, reason)
        self._add(Waiting(queued, gap, f"{self._id(number)}-gap"))

    def _add(self, waiting: Waiting) -> None:
        self._window[waiting.queued.number] = waiting
        self._window_bytes += waiting.event.size

    def _remove(self, number: int) -> None:
        found = self._window.pop(number, None)
        if found is not None:
            self._window_bytes -= found.event.size

    # --- requests ---------------------------------------------------------------------------------

    async def _send(self, waiting: Waiting) -> None:
        name, (queued, event, event_id) = self.kept.destination.name, waiting
        at = datetime.fromtimestamp(event.committed_at, UTC).isoformat(timespec="milliseconds")
        time_of = at.replace("+00:00", "Z")
        made = request(self._source, event_id, event.kind, time_of, queued.chat, event.data)
        with metrics.DELIVERY_SECONDS.labels(name).time():
            attempt = await self._sender.attempt(made)
        metrics.DELIVERY_ATTEMPTS.labels(name, attempt.outcome.name.lower()).inc()
        self._end(waiting, attempt)

    def _end(self, waiting: Waiting, attempt: Attempt) -> None:
        queued, event, event_id = waiting
        before, destination, now = self.kept.progress, self.kept.destination, time.time()
        ended = plan.end(
            before,
            queued,
            attempt.outcome,
            now,
            longest_try=destination.retry.longest.total_seconds(),
            jitter=random.uniform(*JITTER),  # noqa: S311
            wish=attempt.wish,
            error=attempt.error,
        )
        delivered = attempt.outcome is Outcome.DELIVERED
        self._note(None if delivered else attempt.error)
        if ended.is_dead:
            trouble = before.troubles.get(queued.chat)
            attempts = 1 if trouble is None else trouble.attempts + 1
            self._dead.append(StoredDeadLetter(event_id, event.kind, now, attempts, attempt.error))
            log.warning(
                "an event was not taken; keeping it as a dead letter",
                extra={"delivery": destination.name, "event": event_id, "error": attempt.error},
            )
        if delivered:
            self.last_delivered = now
            self._delivered.append(event_id)
        if delivered or ended.is_dead:
            self._remove(queued.number)
        self._keep(replace(self.kept, progress=ended.progress))

    def _note(self, error: str | None) -> None:
        if error != self.error and error is not None:
            log.warning(
                "a delivery has failed; trying again",
                extra={"delivery": self.kept.destination.name, "error": error},
            )
        elif error is None and self.error is not None:
            log.info("a delivery works again", extra={"delivery": self.kept.destination.name})
        self.error = error

    # --- keeping progress -------------------------------------------------------------------------

    def _keep(self, kept: Kept) -> None:
        self.kept = kept
        self._dirty.set()
        self._wake.set()
        self._publish()

    async def _keep_on(self) -> None:
        while True:
            await self._dirty.wait()
            try:
                await self._write()
            except DatabaseError as error:
                log.warning(
                    "cannot keep how far a delivery has come; trying again",
                    extra={"delivery": self.kept.destination.name, "error": str(error)},
                )
                await asyncio.sleep(RETRY_STORE)

    async def _write(self) -> None:
        """Write what has changed; several changes at once are one transaction."""
        self._dirty.clear()
        dead, self._dead = self._dead, []
        delivered, self._delivered = self._delivered, []
        try:
            await asyncio.to_thread(self._store.advance, self.kept, dead, delivered)
        except BaseException:
            self._dead, self._delivered = dead + self._dead, delivered + self._delivered
            self._dirty.set()
            raise
