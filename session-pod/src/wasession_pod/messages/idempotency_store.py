"""What was sent under which Idempotency-Key, on the volume, so that a retry after a crash sends nothing twice.

SQLite with a write-ahead log: a commit is one ``fsync``, a crash leaves whole commits, and a full
disk refuses a commit without harm to the ones before. The volume has one user at a time (its lock
sees to that), so no other process shares the file.
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

KEPT_SECONDS = 48 * 3600  # a day is promised; clients may be a day late and clocks may be set
SCHEMA = """
CREATE TABLE IF NOT EXISTS sends (
  key TEXT PRIMARY KEY,
  fingerprint BLOB NOT NULL,
  chat_id TEXT NOT NULL,
  message_id TEXT NOT NULL,
  started_at REAL NOT NULL,
  answer TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sends_by_start ON sends (started_at);
"""
log = logging.getLogger(__name__)


class JournalError(Exception):
    """The journal cannot be read or written now; the message is SQLite's."""


@dataclass(frozen=True)
class Entry:
    """A send: ``message_id`` was chosen before it; ``answer`` is None as long as its outcome is not known."""

    key: str
    fingerprint: bytes
    chat_id: str
    message_id: str
    answer: str | None = None


class Journal:
    """Opened at its first use, which must not be before the volume is held. Every method raises ``JournalError``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def find(self, key: str) -> Entry | None:
        with self._database() as database:
            row = database.execute(
                "SELECT key, fingerprint, chat_id, message_id, answer FROM sends WHERE key = ? AND started_at > ?",
                (key, time.time() - KEPT_SECONDS),
            ).fetchone()
        return Entry(*row) if row else None

    def begin(self, entry: Entry) -> None:
        """Writes down what is about to be sent; takes out what is too old."""
        now = time.time()
        with self._database() as database:
            database.execute("DELETE FROM sends WHERE started_at <= ?", (now - KEPT_SECONDS,))
            database.execute(
                "INSERT INTO sends (key, fingerprint, chat_id, message_id, started_at) VALUES (?, ?, ?, ?, ?)",
                (entry.key, entry.fingerprint, entry.chat_id, entry.message_id, now),
            )

    def finish(self, key: str, answer: str) -> None:
        with self._database() as database:
            database.execute("UPDATE sends SET answer = ? WHERE key = ?", (answer, key))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """One transaction."""
        try:
            if self._connection is None:
                self._connection = self._open()
            with self._connection as database:
                yield database
        except (sqlite3.Error, OSError) as error:
            raise JournalError(str(error)) from error

    def _open(self) -> sqlite3.Connection:
        try:
            return _connect(self._path)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise
            # Sending goes on. What it knew is kept for a person to look at.
            aside = self._path.with_name(
                f"{self._path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
            )
            self._path.rename(aside)
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    self._path.with_name(self._path.name + suffix).rename(
                        aside.with_name(aside.name + suffix)
                    )
            log.exception(
                "journal of sends is damaged; it was moved aside", extra={"to": aside.name}
            )
            return _connect(self._path)


def _connect(path: Path) -> sqlite3.Connection:
    # Callers take turns, on whatever thread. An exclusive lock makes shared memory for the log
    # needless.
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
