"""`messages.sqlite` on the volume: one connection for the outbox and the idempotency keys.

SQLite with a write-ahead log: a commit is one ``fsync``, a crash leaves whole commits, and on a
full disk a commit fails without harm to earlier ones. No other process uses the file, because the
session holds the volume's lock.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

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

CREATE TABLE IF NOT EXISTS outbox (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  id TEXT NOT NULL,
  last INTEGER NOT NULL,
  expired INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  complete_until REAL NOT NULL,
  floor REAL NOT NULL,
  login REAL
) STRICT;
CREATE TABLE IF NOT EXISTS events (
  number INTEGER PRIMARY KEY,
  committed_at REAL NOT NULL,
  size INTEGER NOT NULL,
  kind TEXT NOT NULL,
  data TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS facts (
  key BLOB PRIMARY KEY,
  told_at REAL NOT NULL,
  rank REAL NOT NULL,
  value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS facts_by_time ON facts (told_at);
CREATE TABLE IF NOT EXISTS awaited_acks (
  message_id TEXT PRIMARY KEY,
  since REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS delivery_configuration (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  configuration TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS deliveries (
  name TEXT PRIMARY KEY,
  outbox TEXT NOT NULL,
  progress TEXT NOT NULL,
  paused INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead_letters (
  delivery TEXT NOT NULL,
  event_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  died_at REAL NOT NULL,
  attempts INTEGER NOT NULL,
  error TEXT NOT NULL,
  UNIQUE (delivery, event_id)
) STRICT;
"""
INCREMENTAL = 2  # of PRAGMA auto_vacuum
LOG_PAGES = 256  # 1 MiB: the log's space, besides the file's
CACHE_PAGES = 256  # 1 MiB of memory
SHRINK_PAGES = 64  # 256 KiB
VACUUM_SPACE = 4  # times the file's size
COPY = "messages.sqlite.copy"
SIZE = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
log = logging.getLogger(__name__)


class DatabaseError(Exception):
    """The file can't be read or written at present; the message is SQLite's."""


class Database:
    """The file, opened at the first transaction, which must not be before the volume is held.

    Damage is quarantined whenever it is found, and the next transaction starts a new file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.RLock()  # callers take turns, on any thread
        self._closed = False

    @property
    def exists(self) -> bool:
        return self._path.exists()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what the block does, or nothing of it. Raises ``DatabaseError``."""
        with self._lock:
            try:
                if self._closed:
                    raise DatabaseError("the database is closed")
                if self._connection is None:
                    self._connection = self._open()
                with _committing(self._connection) as connection:
                    yield connection
            except (sqlite3.Error, OSError) as error:
                self._recover_from(error)
                raise DatabaseError(str(error)) from error

    def give_back_space(self) -> None:
        """Return free pages and the log's space to the file system. Raises ``DatabaseError``."""
        with self._lock:
            if self._connection is None:
                return
            try:
                _shrink(self._connection)
            except sqlite3.Error as error:
                self._recover_from(error)
                raise DatabaseError(str(error)) from error

    def compact(self) -> None:
        """Rewrite an open file without its free pages, at once. Raises ``DatabaseError``."""
        with self._lock:
            if self._connection is None:
                return
            try:
                self._connection.execute("VACUUM")
                _checkpoint(self._connection)
            except sqlite3.Error as error:
                self._recover_from(error)
                raise DatabaseError(str(error)) from error

    @contextlib.contextmanager
    def copied(self, room: int) -> Iterator[Path]:
        """Yield a consistent copy of at most ``room`` bytes beside the file, deleted afterwards.

        Transactions wait until it is written. Raises ``DatabaseError``.
        """
        path = self._path.with_name(COPY)
        try:
            self._copy(path, room)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _copy(self, path: Path, room: int) -> None:
        with self.transaction() as connection:
            (size,) = connection.execute(SIZE).fetchone()
        if size > room:
            raise DatabaseError("the volume has too little space for a copy of them")
        path.unlink(missing_ok=True)
        with self._lock:
            if self._connection is None:
                raise DatabaseError("the database is closed")
            try:
                with contextlib.closing(sqlite3.connect(path)) as copy:
                    # A crash makes it worthless anyway.
                    copy.executescript("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF")
                    self._connection.backup(copy)
            except sqlite3.Error as error:
                self._recover_from(error)
                raise DatabaseError(str(error)) from error

    def close(self) -> None:
        """Close the file for good: the volume may be another process's afterwards."""
        with self._lock:
            self._closed = True
            self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _recover_from(self, error: Exception) -> None:
        """Let the next transaction start on a sound file and a new connection."""
        if _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY):
            return
        self._disconnect()
        if _is_damage(error):
            with contextlib.suppress(OSError):
                self._quarantine(error)

    def _open(self) -> sqlite3.Connection:
        """Open the file; quarantine it and start a new one if it is damaged."""
        self._path.with_name(COPY).unlink(missing_ok=True)  # which a killed process has left
        try:
            return _connect(self._path)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._quarantine(error)
            return _connect(self._path)

    def _quarantine(self, error: Exception) -> None:
        quarantine = self._path.with_name(
            f"{self._path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        )
        self._path.rename(quarantine)
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self._path.with_name(self._path.name + suffix).rename(
                    quarantine.with_name(quarantine.name + suffix)
                )
        log.error(
            "the events and idempotency keys are damaged; quarantined the file and starting a new "
            "one",
            exc_info=error,
            extra={"quarantined_as": quarantine.name},
        )


def _code(error: Exception) -> int | None:
    """Return SQLite's primary result code."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _is_damage(error: Exception) -> bool:
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextlib.contextmanager
def _committing(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _connect(path: Path) -> sqlite3.Connection:
    # With an exclusive lock SQLite needs no shared memory.
    connection = sqlite3.connect(path, timeout=0, check_same_thread=False, isolation_level=None)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        # Before anything is written: a file that has tables gets it by VACUUM alone.
        connection.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        connection.execute(f"PRAGMA cache_size = {CACHE_PAGES}")
        connection.executescript(SCHEMA)
        _checkpoint(connection)
        if connection.execute("PRAGMA auto_vacuum").fetchone()[0] != INCREMENTAL:
            _vacuum(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _shrink(connection: sqlite3.Connection) -> None:
    """Give back free pages step by step, as the log needs space for each page that moves."""
    free, before = _free_pages(connection), None
    while free and free != before:  # a file of an earlier version may not be able to shrink yet
        # A script, because ``execute`` would give back one page only.
        connection.executescript(f"PRAGMA incremental_vacuum({SHRINK_PAGES})")
        _checkpoint(connection)
        free, before = _free_pages(connection), free
    _checkpoint(connection)


def _free_pages(connection: sqlite3.Connection) -> int:
    (pages,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(pages)


def _vacuum(connection: sqlite3.Connection, path: Path) -> None:
    """Rewrite the file of an earlier version once, so that it can shrink; later if space is low."""
    if shutil.disk_usage(path.parent).free < VACUUM_SPACE * path.stat().st_size:
        log.warning("no space to make messages.sqlite shrinkable; trying again at the next start")
        return
    connection.execute("VACUUM")
    _checkpoint(connection)


def _checkpoint(connection: sqlite3.Connection) -> None:
    """Move what the log has into the file, and empty the log, as far as there is space.

    So what an earlier process has committed is on disk, whatever became of its last fsync.
    """
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.OperationalError as error:
        if _code(error) != sqlite3.SQLITE_FULL:
            raise
