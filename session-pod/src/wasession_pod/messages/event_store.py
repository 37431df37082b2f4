"""The outbox's tables: events by number, and the facts that they have told.

Every transaction begins with the outbox's own row, so it notices when the file has been replaced. A
number is given in the same transaction that stores the event and its fact; so an event has one
number, and a fact is told once, wherever the process dies.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from wasession_pod.messages.database import Database
from wasession_pod.messages.intake import OVERHEAD, Entry, Fact, Item, Login, OwnMessage

MAXIMUM_FACTS = 100_000
FACT_RETENTION = 2 * 86400.0  # seconds, at least; as long as the events, if that is longer
MAXIMUM_AWAITED = 500  # messages whose acks are awaited
EXPIRE_BATCH = 100  # events
ROOM_STEP = 256 * 2**10  # bytes
VALUES = "id, last, expired, bytes, complete_until, floor, login"
OLDEST = "SELECT number, committed_at, size FROM events ORDER BY number LIMIT ?"
REMEMBER = "REPLACE INTO facts (key, told_at, rank, value) VALUES (?, ?, ?, ?)"
SURPLUS = "SELECT told_at FROM facts ORDER BY told_at DESC LIMIT 1 OFFSET ?"
UPDATE = """
UPDATE outbox SET last = ?, expired = ?, bytes = ?, complete_until = ?, floor = ?, login = ?
"""
AWAIT = "REPLACE INTO awaited_acks (message_id, since) VALUES (?, ?)"
SETTLE = "DELETE FROM awaited_acks WHERE message_id = ?"
RENEW = (
    "DELETE FROM events",
    "DELETE FROM delivery_configuration",
    "DELETE FROM deliveries",
    "DELETE FROM dead_letters",
)
REPLACE_ID = "UPDATE outbox SET id = ?, expired = last, bytes = 0"
FORGET_AWAITED = """
DELETE FROM awaited_acks WHERE message_id IN
(SELECT message_id FROM awaited_acks ORDER BY since DESC LIMIT -1 OFFSET ?)
"""


@dataclass(frozen=True, slots=True)
class Event:
    """A committed event; ``number`` grows by one with each."""

    number: int
    committed_at: float  # seconds since the epoch
    kind: str
    data: str

    @property
    def size(self) -> int:
        return len(self.data.encode()) + OVERHEAD


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """The outbox itself.

    ``last`` and ``expired`` are the numbers of the latest event and of the latest deleted one. The
    outbox has all that the page has had before ``complete_until``; what the page has from before
    ``floor`` is never told: it is history, or its facts are forgotten. ``login`` is the time since
    which there is the login that the outbox belongs to.
    """

    id: str
    last: int
    expired: int
    bytes: int
    complete_until: float
    floor: float
    login: float | None


@dataclass(frozen=True, slots=True)
class Commit:
    """What a transaction has done. ``before`` is the number of the last event before it."""

    outbox: OutboxRow
    before: int
    events: Sequence[Event] = ()
    reconciled: int = 0
    received: int = 0  # messages of others
    expired: int = 0
    oldest_at: float | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the outbox holds: ``retention`` in seconds, ``maximum`` in bytes."""

    retention: float
    maximum: int


class EventStore:
    """The outbox on disk. Methods block, are safe on any thread, and raise ``DatabaseError``."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits

    def commit(
        self, items: Iterable[Item], now: float, complete_until: float | None = None
    ) -> Commit:
        """Store those entries that are news, and delete what is beyond the limits."""
        with self._database.transaction() as database:
            outbox = _outbox(database, now)
            before, reconciled, received, events = outbox.last, 0, 0, list[Event]()
            for item in items:
                match item:
                    case OwnMessage():
                        _expect(database, item, now)
                    case Login():
                        outbox = _belong(database, outbox, item)
                    case Entry() if item.fact is None or _is_news(database, item.fact, now):
                        event = Event(before + len(events) + 1, now, item.kind, item.data)
                        _insert(database, event)
                        events.append(event)
                        reconciled += item.reconciled
                        received += item.from_other
                        if item.last_ack_of is not None:
                            database.execute(SETTLE, (item.last_ack_of,))
            outbox = replace(
                outbox,
                last=before + len(events),
                bytes=outbox.bytes + sum(event.size for event in events),
                complete_until=max(outbox.complete_until, complete_until or 0),
            )
            outbox, expired, oldest_at = _expire(database, outbox, now, self._limits)
            if complete_until is not None:
                outbox = _forget(database, outbox, now, self._limits)
            _update(database, outbox)
        return Commit(outbox, before, events, reconciled, received, expired, oldest_at)

    def load(self, now: float) -> OutboxRow:
        """Return the outbox; create it if there is none."""
        with self._database.transaction() as database:
            return _outbox(database, now)

    def read(
        self, after: int, limit: int, maximum: int, now: float
    ) -> tuple[OutboxRow, list[Event]]:
        """Return the events after a number: up to ``limit`` and, after the first, ``maximum``."""
        with self._database.transaction() as database:
            outbox, events, size = _outbox(database, now), list[Event](), 0
            query = (
                "SELECT number, committed_at, kind, data FROM events WHERE number > ? "
                "ORDER BY number LIMIT ?"
            )
            for row in database.execute(query, (after, limit)):
                event = Event(*row)
                size += event.size
                if events and size > maximum:
                    break
                events.append(event)
        return outbox, events

    def awaited_acks(self) -> list[str]:
        """Return the messages whose acks are awaited, latest first."""
        with self._database.transaction() as database:
            query = "SELECT message_id FROM awaited_acks ORDER BY since DESC LIMIT ?"
            return [row[0] for row in database.execute(query, (MAXIMUM_AWAITED,))]

    def make_room(self, size: int, now: float) -> int:
        """Delete the oldest events of about ``size`` bytes and return their space; return how many.

        Step by step, because each step needs some space for itself first.
        """
        deleted = 0
        while size > 0:
            with self._database.transaction() as database:
                outbox = _outbox(database, now)
                limits = Limits(self._limits.retention, max(outbox.bytes - min(size, ROOM_STEP), 0))
                after, count, _ = _expire(database, outbox, now, limits)
                _update(database, after)
            if not count:
                break
            self._database.give_back_space()
            deleted += count
            size -= outbox.bytes - after.bytes
        return deleted


def renew(database: Database) -> None:
    """Make a copy of an earlier time the outbox of a session that goes on elsewhere.

    It gets another ID, so that nobody takes cursors of the time since for its own, and no events or
    deliveries, so that nothing is told again. Facts stay: of what the page has, those that the copy
    does not know are told. Raises ``DatabaseError``.
    """
    with database.transaction() as connection:
        for statement in RENEW:
            connection.execute(statement)
        connection.execute(REPLACE_ID, (secrets.token_hex(8),))
    database.compact()


def _outbox(database: sqlite3.Connection, now: float) -> OutboxRow:
    row = database.execute(f"SELECT {VALUES} FROM outbox").fetchone()  # noqa: S608
    if row is not None:
        return OutboxRow(*row)
    outbox = OutboxRow(secrets.token_hex(8), 0, 0, 0, now, now, None)
    database.execute(
        f"INSERT INTO outbox ({VALUES}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (outbox.id, outbox.last, outbox.expired, outbox.bytes, now, now, None),
    )
    return outbox


def _update(database: sqlite3.Connection, outbox: OutboxRow) -> None:
    database.execute(
        UPDATE,
        (
            outbox.last,
            outbox.expired,
            outbox.bytes,
            outbox.complete_until,
            outbox.floor,
            outbox.login,
        ),
    )


def _insert(database: sqlite3.Connection, event: Event) -> None:
    database.execute(
        "INSERT INTO events (number, committed_at, size, kind, data) VALUES (?, ?, ?, ?, ?)",
        (event.number, event.committed_at, event.size, event.kind, event.data),
    )


def _is_news(database: sqlite3.Connection, fact: Fact, now: float) -> bool:
    """Return whether the fact is news; remember it if it is, or is true for longer than known."""
    query = "SELECT rank, value FROM facts WHERE key = ?"
    known = database.execute(query, (fact.key,)).fetchone()
    news = fact.is_news(known)
    if news or fact.rank > known[0]:
        database.execute(REMEMBER, (fact.key, now, fact.rank, fact.value))
    return news


def _expect(database: sqlite3.Connection, message: OwnMessage, now: float) -> None:
    _is_news(database, message.fact, now)
    database.execute(AWAIT, (message.message_id, now))
    database.execute(FORGET_AWAITED, (MAXIMUM_AWAITED,))


def _belong(database: sqlite3.Connection, outbox: OutboxRow, login: Login) -> OutboxRow:
    """Return the outbox of a login; what the page has from before a new one is history."""
    if outbox.login == login.since:
        return outbox
    if outbox.login is None:  # a new outbox, which is complete from its beginning
        return replace(outbox, login=login.since)
    database.execute("DELETE FROM awaited_acks")
    return replace(
        outbox,
        login=login.since,
        complete_until=max(outbox.complete_until, login.since),
        floor=max(outbox.floor, login.since),
    )


def _expire(
    database: sqlite3.Connection, outbox: OutboxRow, now: float, limits: Limits
) -> tuple[OutboxRow, int, float | None]:
    """Delete the events that are too old or too many; also return how many, and the oldest left."""
    number, size, count = outbox.expired, outbox.bytes, 0
    while rows := database.execute(OLDEST, (EXPIRE_BATCH,)).fetchall():
        kept = None
        for row_number, committed_at, row_size in rows:
            if size <= limits.maximum and committed_at >= now - limits.retention:
                kept = committed_at
                break
            number, size, count = row_number, size - row_size, count + 1
        database.execute("DELETE FROM events WHERE number <= ?", (number,))
        if kept is not None:
            return replace(outbox, expired=number, bytes=size), count, kept
    return replace(outbox, expired=outbox.last, bytes=0), count, None


def _forget(
    database: sqlite3.Connection, outbox: OutboxRow, now: float, limits: Limits
) -> OutboxRow:
    """Delete facts that are too old or too many; what is older is not told any more.

    So it cannot be told again, now that it is forgotten.
    """
    until = now - max(limits.retention, FACT_RETENTION)
    surplus = database.execute(SURPLUS, (MAXIMUM_FACTS,)).fetchone()
    until = max(until, surplus[0]) if surplus else until
    if not database.execute("DELETE FROM facts WHERE told_at <= ?", (until,)).rowcount:
        return outbox
    return replace(outbox, floor=max(outbox.floor, until))
