"""The store of idempotency keys survives crashes, full disks and damage."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from wasession_pod.messages.idempotency_store import (
    RETENTION,
    IdempotencyStore,
    IdempotencyStoreError,
    SendRecord,
)

RECORD = SendRecord("key", b"fingerprint", "15551234567@c.us", "true_15551234567@c.us_3EB0")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "messages.sqlite"


def test_it_returns_what_was_begun_and_finished(path: Path) -> None:
    store = IdempotencyStore(path)
    assert store.find("key") is None
    store.begin(RECORD)
    assert store.find("key") == RECORD
    store.finish("key", "response")
    store.close()
    assert IdempotencyStore(path).find("key") == replace(RECORD, response="response")


def test_nothing_is_created_on_the_volume_before_the_first_use(path: Path) -> None:
    IdempotencyStore(path).close()
    assert not path.exists()


def test_expired_records_are_deleted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, now = IdempotencyStore(path), 1_000_000.0
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
        "from wasession_pod.messages.idempotency_store import *\n"
        "store = IdempotencyStore(Path(sys.argv[1]))\n"
        "for number in range(100): store.begin(SendRecord(str(number), b'f', 'c', 'm'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert (
        subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode
        == -signal.SIGKILL
    )
    store = IdempotencyStore(path)
    assert all(store.find(str(number)) for number in range(100))


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 256 KiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(directory)], check=True)
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


def begin_for_ever(store: IdempotencyStore, begun: list[str]) -> None:
    for number in itertools.count():
        store.begin(replace(RECORD, key=str(number)))
        begun.append(str(number))


def test_a_full_disk_refuses_and_harms_nothing(small: Path) -> None:
    store = IdempotencyStore(small / "messages.sqlite")
    begun: list[str] = []
    with pytest.raises(IdempotencyStoreError, match="full"):
        begin_for_ever(store, begun)
    assert len(begun) > 10
    assert all(store.find(key) for key in begun), "it can be read"
    assert store.find(str(len(begun))) is None, "what was refused is not there"
    store.close()
    again = IdempotencyStore(small / "messages.sqlite")
    assert all(again.find(key) for key in begun)
    subprocess.run(["mount", "-o", "remount,size=1m", str(small)], check=True)
    again.begin(replace(RECORD, key="room again"))
    assert again.find("room again")


@pytest.mark.parametrize(
    "content", [b"no database" * 1000, b"SQLite format 3\x00" + os.urandom(8192)]
)
def test_a_damaged_file_is_quarantined(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    store = IdempotencyStore(path)
    assert store.find("key") is None
    store.begin(RECORD)
    assert store.find("key") == RECORD
    [quarantined] = path.parent.glob("messages.sqlite.damaged-*")
    assert quarantined.read_bytes() == content


def test_two_processes_never_share_it(path: Path) -> None:
    first = IdempotencyStore(path)
    first.begin(RECORD)
    with pytest.raises(IdempotencyStoreError, match="locked"):
        IdempotencyStore(path).find("key")
    first.close()
    assert IdempotencyStore(path).find("key") == RECORD


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(IdempotencyStoreError, match="unable to open"):
        IdempotencyStore(tmp_path / "gone" / "messages.sqlite").find("key")
