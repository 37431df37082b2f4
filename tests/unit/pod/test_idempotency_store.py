"""The store of idempotency keys survives crashes and full disks."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from unit.pod.small_volume import resize, small_volume
from wasession_pod.messages.database import Database, DatabaseError
from wasession_pod.messages.idempotency_store import RETENTION, IdempotencyStore, SendRecord

RECORD = SendRecord("key", b"fingerprint", "15551234567@c.us", "true_15551234567@c.us_3EB0")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "messages.sqlite"


def store_of(path: Path) -> IdempotencyStore:
    return IdempotencyStore(Database(path))


def test_it_returns_what_was_begun_and_finished(path: Path) -> None:
    database = Database(path)
    store = IdempotencyStore(database)
    assert store.find("key") is None
    store.begin(RECORD)
    assert store.find("key") == RECORD
    store.finish("key", "response")
    database.close()
    assert store_of(path).find("key") == replace(RECORD, response="response")


def test_expired_records_are_deleted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, now = store_of(path), 1_000_000.0
    monkeypatch.setattr("wasession_pod.messages.idempotency_store.time.time", lambda: now)
    store.begin(RECORD)
    now += RETENTION - 1
    assert store.find("key") == RECORD
    now += 2
    assert store.find("key") is None
    store.begin(replace(RECORD, message_id="another"))
    assert store.find("key") == replace(RECORD, message_id="another")


def test_a_killed_process_leaves_what_it_had_begun(path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from wasession_pod.messages.database import Database\n"
        "from wasession_pod.messages.idempotency_store import *\n"
        "store = IdempotencyStore(Database(Path(sys.argv[1])))\n"
        "for number in range(100): store.begin(SendRecord(str(number), b'f', 'c', 'm'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert (
        subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode
        == -signal.SIGKILL
    )
    store = store_of(path)
    assert all(store.find(str(number)) for number in range(100))


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with small_volume(tmp_path / "small", "256k") as directory:
        yield directory


def begin_for_ever(store: IdempotencyStore, begun: list[str]) -> None:
    for number in itertools.count():
        store.begin(replace(RECORD, key=str(number)))
        begun.append(str(number))


def test_a_full_disk_refuses_and_harms_nothing(small: Path) -> None:
    database = Database(small / "messages.sqlite")
    store = IdempotencyStore(database)
    begun: list[str] = []
    with pytest.raises(DatabaseError, match="full"):
        begin_for_ever(store, begun)
    assert len(begun) > 10
    assert all(store.find(key) for key in begun), "it can be read"
    assert store.find(str(len(begun))) is None, "what was refused is not there"
    database.close()
    again = store_of(small / "messages.sqlite")
    assert all(again.find(key) for key in begun)
    resize(small, "1m")
    again.begin(replace(RECORD, key="room again"))
    assert again.find("room again")
