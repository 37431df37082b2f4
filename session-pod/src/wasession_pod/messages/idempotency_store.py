"""Sends by their Idempotency-Key, on the volume: a retry after a crash must not send twice.

SQLite with a write-ahead log: a commit is one ``fsync``, a crash leaves whole commits, and on a
full disk a commit fails without harm to earlier ones. No other process uses the file, because the
session holds the volume's lock.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

RETENTION = 48 * 3600  # seconds; the API promises one day, and clients or clocks may be late
SCHEMA = """
CREATE TABLE IF NOT EXISTS sends (
  key TEXT PRIMARY KEY,
  fingerprint BLOB NOT NULL,
  chat_id TEXT NOT NULL,
  message_id TEXT NOT NULL,
  started_at REAL NOT NULL,
  response TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sends_by_start ON sends (started_at);
"""
FIND = """
SELECT key, fingerprint, chat_id, message_id, response FROM sends WHERE key = ? AND started_at > ?
"""
BEGIN = """
INSERT INTO sends (key, fingerprint, chat_id, message_id, started_at) VALUES (?, ?, ?, ?, ?)
"""
log = logging.getLogger(__name__)


class IdempotencyStoreError(Exception):
    """The store can't be read or written at present; the message is SQLite's."""


@dataclass(frozen=True)
class SendRecord:
    """One send. ``message_id`` is chosen beforehand; ``response`` is None until the outcome."""

    key: str
    fingerprint: bytes
    chat_id: str
    message_id: str
    response: str | None = None


class IdempotencyStore:
    """The sends of the last two days.

    Opens its file at the first use, which must not be before the session holds the volume. Methods
    raise ``IdempotencyStoreError``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def find(self, key: str) -> SendRecord | None:
        with self._transaction() as database:
            row = database.execute(FIND, (key, time.time() - RETENTION)).fetchone()
        return SendRecord(*row) if row else None

    def begin(self, record: SendRecord) -> None:
        """Record a message that is about to be sent, and delete expired records."""
        now = time.time()
        values = (record.key, record.fingerprint, record.chat_id, record.message_id, now)
        with self._transaction() as database:
            database.execute("DELETE FROM sends WHERE started_at <= ?", (now - RETENTION,))
            database.execute(BEGIN, values)

    def finish(self, key: str, response: str) -> None:
        """Record the response to a send."""
        with self._transaction() as database:
            database.execute("UPDATE sends SET response = ? WHERE key = ?", (response, key))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            if self._connection is None:
                self._connection = self._open()
            with self._connection as database:
                yield database
        except (sqlite3.Error, OSError) as error:
            raise IdempotencyStoreError(str(error)) from error

    def _open(self) -> sqlite3.Connection:
        """Open the file; quarantine it and start a new one if it is damaged."""
        try:
            return _connect(self._path)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise
            quarantine = self._path.with_name(
                f"{self._path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
            )
            self._path.rename(quarantine)
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    self._path.with_name(self._path.name + suffix).rename(
                        quarantine.with_name(quarantine.name + suffix)
                    )
            log.exception(
                "the store of idempotency keys is damaged; quarantined it and starting a new one",
                extra={"quarantined_as": quarantine.name},
            )
            return _connect(self._path)


def _connect(path: Path) -> sqlite3.Connection:
    # Callers take turns, on any thread. With an exclusive lock SQLite needs no shared memory.
    connection = sqlite3.connect(path, timeout=0, check_same_thread=False)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection
