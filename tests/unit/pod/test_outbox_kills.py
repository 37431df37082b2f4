"""A process that is killed after any write loses nothing, and tells nothing twice.

SQLite calls the tests' own functions in place of the system calls that write, which kill the
process after the first, the second and so on. What it has told by then is in a file; like what
SQLite has written, that outlives it in the kernel's page cache.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from unit.pod import failing_disk
from unit.pod.test_event_store import NOW, messages
from wasession_pod.messages.database import Database
from wasession_pod.messages.event_store import EventStore, Limits
from wasession_pod.messages.intake import OwnMessage

MAXIMUM = 60_000  # so that events are deleted as well
LIMITS = Limits(7 * 86400, MAXIMUM)
Told = list[tuple[str, int, str]]


def program(path: Path, output: int, kill_after: int, kill_untold: int) -> None:
    """Commit and tell; die after so many writes, or before telling of this commit."""
    if kill_after:
        failing_disk.kill_after(kill_after)
    database = Database(path)
    store = EventStore(database, LIMITS)
    for number in range(0, 24, 2):
        own = OwnMessage(f"true_15550001111@c.us_3E{number}")
        batch = [*messages(number, number + 1, number // 2, size=5000), own]
        commit = store.commit(batch, NOW, NOW + number)
        if kill_untold == number // 2 + 1:
            failing_disk.die()
        for event in commit.events:
            line = json.dumps([commit.outbox.id, event.number, event.data])
            os.write(output, f"{line}\n".encode())
    database.close()
    os.write(output, b'"complete"\n')


def run(path: Path, kill_after: int, kill_untold: int) -> tuple[Told, bool]:
    """Run the program in a process of its own; return what it told, and whether it was killed."""
    output = path.with_name("told")
    output.unlink(missing_ok=True)
    descriptor = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    if not (child := os.fork()):
        try:
            program(path, descriptor, kill_after, kill_untold)
        finally:
            os._exit(0)
    os.close(descriptor)
    status = os.waitpid(child, 0)[1]
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or lines[-1:] == ["complete"]
    return [(line[0], line[1], line[2]) for line in lines if isinstance(line, list)], killed


def assert_consistent(path: Path, earlier: Told) -> None:
    """What was told is still there under its number, unless it is deleted."""
    database = Database(path)
    outbox, events = EventStore(database, LIMITS).read(0, 1000, 2**30, NOW)
    kept = {event.number: event.data for event in events}
    assert list(kept) == list(range(outbox.expired + 1, outbox.last + 1))
    for name, number, data in earlier:
        assert name == outbox.id
        assert number <= outbox.last
        assert number <= outbox.expired or kept[number] == data
    database.close()


def complete(path: Path, before: Told) -> None:
    """Run the program again to its end, and check all that readers have had."""
    assert_consistent(path, before)
    after, killed = run(path, 0, 0)
    assert not killed
    by_number = {number: data for _, number, data in before}
    for _, number, data in after:
        assert number not in by_number, "a number is given once"
        by_number[number] = data
    messages = [json.loads(data)["id"] for data in by_number.values()]
    assert len(messages) == len(set(messages)), "a message is told under one number"
    assert_consistent(path, [*before, *after])
    database = Database(path)
    outbox, events = EventStore(database, LIMITS).read(0, 1000, 2**30, NOW)
    assert outbox.last == 24, "nothing is lost"
    for event in events:  # also what was committed and not told before the kill
        assert by_number.setdefault(event.number, event.data) == event.data
    assert len({json.loads(data)["id"] for data in by_number.values()}) == len(by_number)
    assert len(EventStore(database, Limits(1, 1)).awaited_acks()) == 12
    database.close()


@pytest.fixture(scope="module")
def writes(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Return after how many writes the program is killed only as it ends."""
    low, high = 1, 4096
    while low < high:
        middle = (low + high) // 2
        killed = run(tmp_path_factory.mktemp("count") / "messages.sqlite", middle, 0)[1]
        low, high = (middle + 1, high) if killed else (low, middle)
    return low - 1


def test_killed_after_any_write(writes: int, tmp_path: Path) -> None:
    assert 50 < writes < 2000
    for count in [*range(1, 12), *range(12, writes, max(writes // 25, 1)), writes]:
        directory = tmp_path / str(count)
        directory.mkdir()
        told, killed = run(directory / "messages.sqlite", count, 0)
        assert killed
        complete(directory / "messages.sqlite", told)


@pytest.mark.parametrize("commit", range(1, 13))
def test_killed_between_a_commit_and_telling_of_it(commit: int, tmp_path: Path) -> None:
    path = tmp_path / "messages.sqlite"
    told, killed = run(path, 0, commit)
    assert killed
    assert_consistent(path, told)
    database = Database(path)
    outbox, events = EventStore(database, LIMITS).read(len(told), 1000, 2**30, NOW)
    database.close()
    assert outbox.last > len(told), "a reader gets it after the last that it was told"
    assert events[0].number == len(told) + 1 or outbox.expired > len(told)
    complete(path, told)


@pytest.mark.parametrize("seed", range(5))
def test_killed_again_and_again(writes: int, seed: int, tmp_path: Path) -> None:
    path, told = tmp_path / "messages.sqlite", Told()
    for attempt in range(8):
        told += run(path, (seed * 7919 + attempt * 104729) % writes + 1, 0)[0]
        assert_consistent(path, told)
    complete(path, told)
