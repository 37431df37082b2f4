"""`messages.sqlite`: damage, full disks, files of earlier versions, and who may use it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from unit.pod.small_volume import resize, small_volume
from wasession_pod.messages.database import Database, DatabaseError
from wasession_pod.messages.event_store import EventStore, Limits
from wasession_pod.messages.idempotency_store import IdempotencyStore, SendRecord

RECORD = SendRecord("key", b"fingerprint", "15551234567@c.us", "true_15551234567@c.us_3EB0")
SENDS_ALONE = """
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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "messages.sqlite"


def write(database: Database, key: str = "key", response: str | None = None) -> None:
    with database.transaction() as connection:
        connection.execute(
            "REPLACE INTO sends VALUES (?, x'00', 'chat', 'message', 1e12, ?)", (key, response)
        )


def keys(database: Database) -> list[str]:
    with database.transaction() as connection:
        return [row[0] for row in connection.execute("SELECT key FROM sends ORDER BY key")]


def test_nothing_is_created_on_the_volume_before_the_first_use(path: Path) -> None:
    database = Database(path)
    assert not database.exists
    database.close()
    assert not path.exists()


def test_a_transaction_does_all_or_nothing(path: Path) -> None:
    database = Database(path)
    write(database)

    def half() -> None:
        with database.transaction() as connection:
            connection.execute("DELETE FROM sends")
            connection.execute("SELECT key FROM absent")

    with pytest.raises(DatabaseError, match="no such table"):
        half()
    assert keys(database) == ["key"]

    def broken() -> None:
        with database.transaction() as connection:
            connection.execute("DELETE FROM sends")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert keys(database) == ["key"]


def test_a_closed_database_stays_closed(path: Path) -> None:
    database = Database(path)
    write(database)
    database.close()
    with pytest.raises(DatabaseError, match="closed"):
        keys(database)
    assert keys(Database(path)) == ["key"]


def test_two_processes_never_share_it(path: Path) -> None:
    first = Database(path)
    write(first)
    with pytest.raises(DatabaseError, match="locked"):
        keys(Database(path))
    first.close()
    assert keys(Database(path)) == ["key"]


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    database = Database(tmp_path / "later" / "messages.sqlite")
    with pytest.raises(DatabaseError, match="unable to open"):
        keys(database)
    (tmp_path / "later").mkdir()
    assert keys(database) == []


@pytest.mark.parametrize(
    "content", [b"no database" * 1000, b"SQLite format 3\x00" + os.urandom(8192)]
)
def test_a_damaged_file_is_quarantined(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    database = Database(path)
    write(database)
    assert keys(database) == ["key"]
    [quarantined] = path.parent.glob("messages.sqlite.damaged-*")
    assert quarantined.read_bytes() == content


def test_damage_that_shows_later_is_quarantined_too(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(path)
    for number in range(200):
        write(database, f"{number:03}", "x" * 4000)
    database.close()
    content = bytearray(path.read_bytes())
    content[64 * 2**10 : 128 * 2**10] = os.urandom(64 * 2**10)
    path.write_bytes(content)
    database = Database(path)
    with pytest.raises(DatabaseError, match="malformed"):
        keys(database)
    assert keys(database) == []
    write(database)
    assert keys(database) == ["key"]
    [quarantined] = path.parent.glob("messages.sqlite.damaged-*")
    assert quarantined.stat().st_size >= len(content)
    assert "quarantined" in caplog.text


def test_a_file_of_an_earlier_version_is_kept_and_can_shrink(path: Path) -> None:
    with sqlite3.connect(path) as earlier:
        earlier.execute("PRAGMA journal_mode = WAL")
        earlier.executescript(SENDS_ALONE)
        values = ("key", b"fingerprint", RECORD.chat_id, RECORD.message_id, 1e12, "response")
        earlier.execute("INSERT INTO sends VALUES (?, ?, ?, ?, ?, ?)", values)
    earlier.close()
    database = Database(path)
    found = IdempotencyStore(database).find("key")
    assert found is not None
    assert found.response == "response"
    outbox = EventStore(database, Limits(60, 2**20)).load(1000.0)
    assert (outbox.last, outbox.complete_until, outbox.floor) == (0, 1000.0, 1000.0)
    with database.transaction() as connection:
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)


def test_an_upgrade_on_a_full_volume_works_and_is_completed_later(tmp_path: Path) -> None:
    with small_volume(tmp_path / "small", "2m") as directory:
        path = directory / "messages.sqlite"
        with sqlite3.connect(path) as earlier:
            earlier.execute("PRAGMA journal_mode = WAL")
            earlier.executescript(SENDS_ALONE)
            insert = "INSERT INTO sends VALUES (?, x'00', '', '', 1e12, ?)"
            earlier.executemany(insert, [(str(number), "x" * 3000) for number in range(120)])
        earlier.close()
        free = shutil.disk_usage(directory).free
        (directory / "other").write_bytes(bytes(free - 100 * 2**10))
        database = Database(path)
        assert len(keys(database)) == 120
        with database.transaction() as connection:
            assert connection.execute("PRAGMA auto_vacuum").fetchone() == (0,)
        database.close()
        resize(directory, "8m")
        database = Database(path)
        assert len(keys(database)) == 120
        with database.transaction() as connection:
            assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
        database.close()


def test_space_is_given_back(path: Path) -> None:
    database = Database(path)
    database.give_back_space()
    for number in range(500):
        write(database, str(number), "x" * 4000)
    with database.transaction() as connection:
        connection.execute("DELETE FROM sends")
    database.give_back_space()
    files = path.parent.iterdir()
    assert sum(file.stat().st_size for file in files) < 200 * 2**10


def test_a_write_that_fails_commits_nothing_and_works_again(path: Path) -> None:
    """A disk that fails for a while: what was committed before stays, the retry succeeds."""
    script = """
import sys
from pathlib import Path
from wasession_pod.messages.database import Database, DatabaseError
from unit.pod import failing_disk
database = Database(Path(sys.argv[1]))
def write(key):
    with database.transaction() as connection:
        connection.execute("INSERT INTO sends VALUES (?, x'00', '', '', 1, ?)", (key, "x" * 20000))
write("before")
failing_disk.fail("pwrite64")
try:
    write("during")
except DatabaseError as error:
    print("failed:", error)
failing_disk.work()
write("after")
write("during")
with database.transaction() as connection:
    print(sorted(row[0] for row in connection.execute("SELECT key FROM sends")))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "failed: disk I/O error",
        "['after', 'before', 'during']",
    ]
