"""The journal of sends: what it keeps, over crashes, full disks and damage."""

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
from wasession_pod.messages import idempotency_store as journals
from wasession_pod.messages.idempotency_store import Entry, Journal, JournalError

ENTRY = Entry("key", b"fingerprint", "15551234567@c.us", "true_15551234567@c.us_3EB0")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "messages.sqlite"


def test_it_knows_what_was_begun_and_what_was_answered(path: Path) -> None:
    journal = Journal(path)
    assert journal.find("key") is None
    journal.begin(ENTRY)
    assert journal.find("key") == ENTRY
    journal.finish("key", "answer")
    journal.close()
    assert Journal(path).find("key") == replace(ENTRY, answer="answer")


def test_nothing_is_made_on_the_volume_before_it_is_used(path: Path) -> None:
    Journal(path).close()
    assert not path.exists()


def test_old_entries_are_taken_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, now = Journal(path), 1_000_000.0
    monkeypatch.setattr("wasession_pod.messages.idempotency_store.time.time", lambda: now)
    journal.begin(ENTRY)
    now += journals.KEPT_SECONDS - 1
    assert journal.find("key") == ENTRY
    now += 2
    assert journal.find("key") is None
    journal.begin(replace(ENTRY, message_id="another"))
    assert journal.find("key") == replace(ENTRY, message_id="another")


def test_a_killed_process_leaves_what_it_had_begun(path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from wasession_pod.messages.idempotency_store import Entry, Journal\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "for number in range(100): journal.begin(Entry(str(number), b'f', 'c', 'm'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert (
        subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode
        == -signal.SIGKILL
    )
    journal = Journal(path)
    assert all(journal.find(str(number)) for number in range(100))


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(directory)], check=True)
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


def begin_for_ever(journal: Journal, begun: list[str]) -> None:
    for number in itertools.count():
        journal.begin(replace(ENTRY, key=str(number)))
        begun.append(str(number))


def test_a_full_disk_refuses_and_harms_nothing(small: Path) -> None:
    journal = Journal(small / "messages.sqlite")
    begun: list[str] = []
    with pytest.raises(JournalError, match="full"):
        begin_for_ever(journal, begun)
    assert len(begun) > 10
    assert all(journal.find(key) for key in begun), "it can be read"
    assert journal.find(str(len(begun))) is None, "what was refused is not there"
    journal.close()
    again = Journal(small / "messages.sqlite")
    assert all(again.find(key) for key in begun)
    subprocess.run(["mount", "-o", "remount,size=1m", str(small)], check=True)
    again.begin(replace(ENTRY, key="room again"))
    assert again.find("room again")


@pytest.mark.parametrize(
    "content", [b"no database" * 1000, b"SQLite format 3\x00" + os.urandom(8192)]
)
def test_a_damaged_journal_is_moved_aside(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    journal = Journal(path)
    assert journal.find("key") is None
    journal.begin(ENTRY)
    assert journal.find("key") == ENTRY
    [aside] = path.parent.glob("messages.sqlite.damaged-*")
    assert aside.read_bytes() == content


def test_another_process_has_it(path: Path) -> None:
    first = Journal(path)
    first.begin(ENTRY)
    with pytest.raises(JournalError, match="locked"):
        Journal(path).find("key")
    first.close()
    assert Journal(path).find("key") == ENTRY


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="unable to open"):
        Journal(tmp_path / "gone" / "messages.sqlite").find("key")
