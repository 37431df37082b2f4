"""The outbox: every event of the session, stored before anybody is told.

Entries that arrive while a commit is in progress go into the next one together. Readers are only
positions, so a slow reader costs nothing: recent events come from memory, older ones from the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from wasession_api.session_pod.events import EventId, EventKind, Gap, GapReason
from wasession_api.session_pod.report import Notice
from wasession_api.v1alpha1 import Reason

from wasession_pod import metrics
from wasession_pod.messages import intake
from wasession_pod.messages.database import Database, DatabaseError
from wasession_pod.messages.event_store import Commit, Event, EventStore, Limits, OutboxRow
from wasession_pod.messages.intake import Entry, Item, Login, OwnMessage, Unreadable
from wasession_pod.state.observation import PageEvent

MAXIMUM_RECENT = 2000  # events in memory
MAXIMUM_RECENT_BYTES = 4 * 2**20
MAXIMUM_PENDING_BYTES = 16 * 2**20  # of entries that are not committed yet
MAXIMUM_BATCH = 2000  # entries of a commit
READ_EVENTS, READ_BYTES = 500, 2**20  # of one read from the file
RETRY_DELAYS = (1.0, 2.0, 5.0, 10.0, 30.0)  # seconds, after commits that failed
HOLD_LIMIT = 60.0  # seconds
WATERMARK_INTERVAL = 10.0  # seconds between writing ``complete_until`` along with a commit
IDLE_INTERVAL = 300.0  # seconds between writing it without one
LAG_WINDOW = 120.0  # seconds
UNKNOWN_LAG = 600.0  # seconds; an idle session has few messages to be asked for
FULL, FULL_WITHIN = 0.9, 86400.0  # of the bytes; seconds: so full, so soon, is worth a warning
log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """What follows a position. ``missing`` tells why events may be missing before ``events``."""

    events: Sequence[Event]
    position: EventId  # after the events
    more: bool
    missing: GapReason | None = None
    start: EventId | None = None  # before the events, if any are missing


class Lag:
    """How late messages have come recently, in seconds.

    Those of a queue come late, and all do by the difference between this clock and WhatsApp's.
    """

    def __init__(self) -> None:
        self._longest = [-math.inf, -math.inf]  # of the present window and the one before
        self._since = -math.inf

    def note(self, seconds: float, now: float) -> None:
        """Note that a message has come so late; ``now`` is monotonic."""
        self._turn(now)
        self._longest[0] = max(self._longest[0], seconds)

    def longest(self, now: float) -> float:
        """Return how late the next ones may come; not known without any, nor ever negative."""
        self._turn(now)
        known = max(self._longest)
        return UNKNOWN_LAG if known == -math.inf else max(known, 0.0)

    def _turn(self, now: float) -> None:
        if now - self._since >= LAG_WINDOW:
            recent = now - self._since < 2 * LAG_WINDOW
            self._longest = [-math.inf, self._longest[0] if recent else -math.inf]
            self._since = now


class Outbox:
    """The events of one session.

    While it holds, live events wait: what the page has from before comes first. It holds from the
    loss of a page or connection until ``release``, but for ``HOLD_LIMIT`` at most.
    """

    def __init__(self, database: Database, *, retention: float, maximum_bytes: int) -> None:
        self.store = EventStore(database, Limits(retention, maximum_bytes))
        self.row: OutboxRow | None = None  # None until it is loaded
        self.problem: str | None = None  # why the last commit has failed
        self.interruptions = 0  # losses of a page or connection
        self._maximum_bytes = maximum_bytes
        self._oldest_at: float | None = None  # when the oldest event was committed
        self._pending: deque[Item] = deque()
        self._pending_bytes = 0
        self._overflowed = False
        self._held: list[Entry] | None = []
        self._held_bytes = 0
        self._release_timer: asyncio.TimerHandle | None = None
        self._watching = False  # it misses nothing of what the page has
        self._lag = Lag()
        self._watermark_at = -math.inf  # monotonic
        self._recent: deque[Event] = deque()  # the latest events, without a hole
        self._recent_bytes = 0
        self._submitted = self._tried = 0  # entries
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._access = asyncio.Lock()  # held while the file and what is known of it change
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    # --- what comes in ----------------------------------------------------------------------------

    def receive(self, event: PageEvent) -> bool:
        """Take a live event of the page; return False if it is none for the outbox."""
        entry = _entry(event)
        if entry is None:
            return False
        if entry.sent_at is not None:
            self._lag.note(time.time() - entry.sent_at, time.monotonic())
        if self._held is None:
            self._submit(entry)
            return True
        if not self._held:
            self._release_timer = asyncio.get_running_loop().call_later(HOLD_LIMIT, self.release)
        self._held.append(entry)
        self._held_bytes += entry.size
        if self._held_bytes > MAXIMUM_PENDING_BYTES:
            self.release()
        return True

    async def reconcile(self, events: Iterable[PageEvent]) -> None:
        """Store what the page has and the outbox has not. Raises ``DatabaseError``."""
        for event in events:
            if (entry := _entry(event, reconciled=True)) is not None:
                self._submit(entry)
        await self._until_tried()
        if self.problem is not None:
            raise DatabaseError(self.problem)

    async def expect(self, message_id: str) -> None:
        """Await the acks of a message about to be sent, also after a crash.

        If that cannot be stored, it can after the next commit that works.
        """
        self._submit(OwnMessage(message_id))
        await self._until_tried()

    def tell_gap(self, reason: GapReason) -> None:
        self._submit(intake.gap(reason))

    def hold(self) -> None:
        """Let live events wait until ``release``: a page or a connection is lost."""
        self.interruptions += 1
        self._watching = False
        if self._held is None:
            self._held = []
        self.notify()

    def release(self) -> None:
        """Store the live events that wait, and those to come at once."""
        held, self._held, self._held_bytes = self._held or [], None, 0
        if self._release_timer is not None:
            self._release_timer.cancel()
            self._release_timer = None
        for entry in held:
            self._submit(entry)

    def caught_up(self, interruption: int, *, complete: bool) -> None:
        """End an interruption, unless there was another one meanwhile.

        If it is ``complete``, the outbox has all that the page has, and misses nothing from now on.
        """
        if interruption != self.interruptions:
            return
        self.release()
        if complete:
            self._watching = True
            self._watermark_at = -math.inf
            self._wake.set()

    @property
    def settled(self) -> bool:
        """Whether everything is committed."""
        return self.row is not None and not self._pending

    @property
    def is_quiet(self) -> bool:
        """Whether all that has come is committed, and nothing waits for the page to catch up."""
        return self.settled and not self._held

    def start_login(self, since: float) -> None:
        """Belong to the login that there is since then."""
        self._submit(Login(since))

    def _submit(self, entry: Item) -> None:
        full = self._pending_bytes + entry.size > MAXIMUM_PENDING_BYTES
        if full and isinstance(entry, Entry):  # the others are small and few
            self._overflow()
            return
        self._pending.append(entry)
        self._pending_bytes += entry.size
        self._submitted += 1
        metrics.OUTBOX_PENDING.set(len(self._pending))
        self._wake.set()

    def _overflow(self) -> None:
        """Give an entry up; once the disk works again, readers are told, and the page is asked."""
        if not self._overflowed:
            log.error("too many events wait for the volume; asking the page for the others later")
        self._overflowed = True
        self._watching = False

    async def _until_tried(self) -> None:
        """Wait until all pending entries are committed, or a commit has failed."""
        target = self._submitted
        while self._tried < target and self.problem is None and not self._stopping.is_set():
            changed = self._changed
            await changed.wait()

    # --- commits ----------------------------------------------------------------------------------

    def start(self, login_since: float | None) -> None:
        """Begin to commit; the volume must be open, and may have a login."""
        if login_since is not None:
            self.start_login(login_since)
        self._task = asyncio.create_task(self._run())

    async def stop(self, at: float) -> None:
        """Commit what waits, and that nothing was missed until ``at`` if that is so."""
        self._stopping.set()
        watched = self._watching
        self.release()
        self._wake.set()
        if self._task is not None:
            await self._task
        if watched and not self._pending:
            with contextlib.suppress(DatabaseError):
                await self._commit([], at - self._lag.longest(time.monotonic()))
        self.notify()

    async def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set() or self._pending:
            self._wake.clear()
            try:
                await self._commit_pending()
                failures = 0
            except Exception as error:
                self._fail(error)
                if self._stopping.is_set():
                    return
                await _wait(self._stopping, RETRY_DELAYS[min(failures, len(RETRY_DELAYS) - 1)])
                failures += 1
                continue
            if not self._pending and not self._stopping.is_set():
                await _wait(self._wake, IDLE_INTERVAL)

    async def _commit_pending(self) -> None:
        """Commit what waits, and how far the outbox is complete if that is due."""
        if self.row is None:
            await self._load()
        batch = list(itertools.islice(self._pending, MAXIMUM_BATCH))
        since = time.monotonic() - self._watermark_at
        due = since >= (WATERMARK_INTERVAL if batch else IDLE_INTERVAL)
        complete_until = None
        if due and self._watching and len(batch) == len(self._pending):
            # Messages of a queue come late: those that are still to come may be as old.
            complete_until = time.time() - self._lag.longest(time.monotonic())
        if batch or complete_until is not None:
            await self._commit(batch, complete_until)
        self._succeeded()

    async def _commit(self, batch: Sequence[Item], complete_until: float | None) -> None:
        async with self._access:
            now = time.time()
            commit = await asyncio.to_thread(self.store.commit, batch, now, complete_until)
            for entry in batch:
                self._pending.popleft()
                self._pending_bytes -= entry.size
            self._tried += len(batch)
            if complete_until is not None:
                self._watermark_at = time.monotonic()
            self._record(commit)
        self.notify()

    async def _load(self) -> None:
        async with self._access:
            self._adopt(await asyncio.to_thread(self.store.load, time.time()))
        self.notify()

    def _record(self, commit: Commit) -> None:
        """Take over what a commit has done."""
        self._adopt(commit.outbox, commit.before)
        self._recent.extend(commit.events)
        self._recent_bytes += sum(event.size for event in commit.events)
        while len(self._recent) > MAXIMUM_RECENT or self._recent_bytes > MAXIMUM_RECENT_BYTES:
            self._recent_bytes -= self._recent.popleft().size
        metrics.OUTBOX_PENDING.set(len(self._pending))
        self._oldest_at = commit.oldest_at
        metrics.OUTBOX_OLDEST.set(math.nan if commit.oldest_at is None else commit.oldest_at)
        metrics.RECONCILED.inc(commit.reconciled)
        metrics.RECEIVED.inc(commit.received)
        metrics.EXPIRED.inc(commit.expired)
        for event in commit.events:
            metrics.COMMITTED.labels(event.kind).inc()

    def _adopt(self, row: OutboxRow, before: int | None = None) -> None:
        """Take over the outbox's row; forget recent events that what follows does not adjoin."""
        last = row.last if before is None else before
        if self.row is None or self.row.id != row.id or self.row.last != last:
            if self.row is not None and self.row.id != row.id:
                log.error("the outbox was replaced: readers are told, and get what is kept")
            self._recent.clear()
            self._recent_bytes = 0
        self.row = row
        metrics.OUTBOX_BYTES.set(row.bytes)

    def _succeeded(self) -> None:
        if self.problem is not None:
            log.info("events can be stored again")
            self.problem = None
            self.notify()
        if self._overflowed:
            self._overflowed = False
            self.tell_gap(GapReason.INCOMPLETE)
            self.interruptions += 1  # so the page is asked
            self.notify()

    def _fail(self, error: Exception) -> None:
        """Keep the entries for the next attempt."""
        problem = str(error) if isinstance(error, DatabaseError) else type(error).__name__
        metrics.COMMITS_FAILED.inc()
        if self.problem is None:
            log.warning(
                "events cannot be stored; keeping them in memory and trying again",
                extra={"error": problem, "events": len(self._pending)},
            )
        self.problem = problem
        self.notify()

    async def make_room(self, size: int) -> int:
        """Delete the oldest events of about ``size`` bytes; return how many."""
        deleted = 0
        with contextlib.suppress(DatabaseError):
            async with self._access:
                deleted = await asyncio.to_thread(self.store.make_room, size, time.time())
            if deleted:
                metrics.EXPIRED.inc(deleted)
                await self._load()
        return deleted

    @property
    def warning(self) -> Notice | None:
        """What needs attention before events are lost."""
        if self.problem is not None:
            message = (
                f"Events cannot be stored on the volume ({self.problem}). Nobody is told of them "
                "until they are, and memory has room for a limited number."
            )
            return Notice(reason=Reason.EVENTS_NOT_STORED, message=message)
        if self.row is None or self._oldest_at is None:
            return None
        kept = time.time() - self._oldest_at
        if self.row.bytes < FULL * self._maximum_bytes or kept >= FULL_WITHIN:
            return None
        message = (
            f"The outbox holds {self.row.bytes // 2**20} MiB of events, nearly all that it may, "
            f"and the oldest is {kept / 3600:.1f} hours old: who reads them later will miss some."
        )
        return Notice(reason=Reason.OUTBOX_FULL, message=message)

    # --- readers ----------------------------------------------------------------------------------

    @property
    def changed(self) -> asyncio.Event:
        """Set at the next change. Get it before looking at the outbox, to miss none."""
        return self._changed

    def notify(self) -> None:
        """Wake the readers: the outbox or the session's report has changed."""
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def latest(self) -> EventId | None:
        """The position after the last event; None until the outbox is loaded."""
        return None if self.row is None else EventId(self.row.id, self.row.last)

    @property
    def oldest(self) -> EventId | None:
        """The position before the oldest event that is kept; None until the outbox is loaded."""
        return None if self.row is None else EventId(self.row.id, self.row.expired)

    async def read(self, position: EventId | None, limit: int = READ_EVENTS) -> Batch:
        """Return what follows a position; None is one of an outbox that is not known.

        The outbox must be loaded. Raises ``DatabaseError``.
        """
        row = self._loaded
        if position is None or position.outbox != row.id or position.number > row.last:
            start = EventId(row.id, row.expired)
            batch = await self._read(start, limit)
            return batch._replace(missing=GapReason.OUTBOX_REPLACED, start=batch.start or start)
        return await self._read(position, limit)

    @property
    def _loaded(self) -> OutboxRow:
        assert self.row is not None
        return self.row

    async def _read(self, position: EventId, limit: int) -> Batch:
        row = self._loaded
        if position.number >= row.last:
            return Batch((), position, more=False)
        skipped = position.number - (row.last - len(self._recent))
        if skipped >= 0:
            return _batch(position, _slice(self._recent, skipped, limit), row)
        limit = min(limit, READ_EVENTS)
        now = time.time()
        current, events = await asyncio.to_thread(
            self.store.read, position.number, limit, READ_BYTES, now
        )
        if current.id != position.outbox:  # replaced meanwhile
            await self._load()
            start = EventId(current.id, current.expired)
            return Batch((), start, True, GapReason.OUTBOX_REPLACED, start)
        row = self._loaded
        events = [event for event in events if event.number <= row.last]  # others are not told yet
        if current.expired <= position.number:
            return _batch(position, events, row)
        start = EventId(current.id, current.expired)
        return _batch(start, events, row)._replace(missing=GapReason.EXPIRED, start=start)


def _batch(position: EventId, events: Sequence[Event], row: OutboxRow) -> Batch:
    after = position._replace(number=events[-1].number) if events else position
    return Batch(events, after, more=after.number < row.last)


def _slice(events: deque[Event], start: int, limit: int) -> list[Event]:
    size, result = 0, list[Event]()
    for index in range(start, min(start + limit, len(events))):
        size += events[index].size
        if result and size > READ_BYTES:
            break
        result.append(events[index])
    return result


def gap_event(batch: Batch) -> Event | None:
    """Return the event which tells that events are missing before a batch, if they are."""
    if batch.missing is None or batch.start is None:
        return None
    return make_gap(batch.start.number, batch.missing)


def make_gap(number: int, reason: GapReason) -> Event:
    """Return an event that is not stored, and says that events before it may be missing."""
    return Event(number, time.time(), EventKind.GAP, Gap(reason=reason).model_dump_json())


def _entry(event: PageEvent, *, reconciled: bool = False) -> Entry | None:
    """Return the entry for an event of the page, a gap for one that cannot be read."""
    entry = intake.read(event, reconciled=reconciled)
    if not isinstance(entry, Unreadable):
        return entry
    metrics.UNREADABLE.labels(entry.kind).inc()
    if entry.fields:
        log.warning(
            "event of the page is malformed; readers get a gap in its place",
            extra={"kind": entry.kind, "fields": list(entry.fields)},
        )
    return intake.gap(GapReason.UNREADABLE)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, but no longer than that."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
