"""The outbox while it runs: group commits, failing disks, waiting for the page, its readers."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.pod.page_events import FRIEND, ack, message
from wasession_api.session_pod.events import EventId, GapReason
from wasession_api.v1alpha1 import Reason
from wasession_pod.messages import outbox as outbox_module
from wasession_pod.messages.database import Database, DatabaseError
from wasession_pod.messages.event_store import EventStore
from wasession_pod.messages.outbox import UNKNOWN_LAG, Lag, Outbox
from wasession_pod.state.observation import PageEvent

Open = Callable[..., Awaitable[Outbox]]


@pytest.fixture
async def open_outbox(tmp_path: Path) -> AsyncIterator[Open]:
    """Open the outbox of the same file again and again; no live event waits."""
    opened: list[tuple[Outbox, Database]] = []

    async def close() -> None:
        while opened:
            outbox, database = opened.pop()
            await outbox.stop(0)
            database.close()

    async def begin(
        *, retention: float = 3600, maximum_bytes: int = 2**20, login: float | None = None
    ) -> Outbox:
        await close()
        database = Database(tmp_path / "messages.sqlite")
        outbox = Outbox(database, retention=retention, maximum_bytes=maximum_bytes)
        opened.append((outbox, database))
        outbox.release()
        outbox.start(login)
        await until(outbox, lambda: outbox.row is not None)
        return outbox

    yield begin
    await close()


async def until(outbox: Outbox, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            changed = outbox.changed
            if not condition():
                await changed.wait()


async def receive(outbox: Outbox, *events: PageEvent) -> None:
    """Receive live events and wait until they are committed."""
    for event in events:
        assert outbox.receive(event)
    await until(outbox, lambda: outbox.settled)


def messages(*numbers: int, size: int = 10) -> list[PageEvent]:
    return [message(f"3A{number:04}", text=f"{number} " + "x" * size) for number in numbers]


def texts(events: Any) -> list[str]:
    """Return the first words of messages, and the kinds of other events."""
    return [
        json.loads(event.data)["text"].split()[0] if event.kind == "message" else event.kind
        for event in events
    ]


async def read_all(outbox: Outbox, position: EventId | None) -> list[str]:
    """Return what a reader gets from a position on, with the reasons of gaps."""
    result: list[str] = []
    for _ in range(1000):
        batch = await outbox.read(position)
        result += ([batch.missing] if batch.missing else []) + texts(batch.events)
        position = batch.position
        if not batch.more:
            return result
    raise AssertionError("there is no end")


class Slow:
    """Holds commits up on their thread, or lets them fail, as long as a test likes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_go = threading.Event()
        self.may_go.set()
        self.problem: str | None = None
        self.batches: list[int] = []
        self.begun = asyncio.Event()
        loop, commit = asyncio.get_running_loop(), EventStore.commit

        def slowly(store: EventStore, items: Any, *arguments: Any) -> Any:
            items = list(items)
            self.batches.append(len(items))
            loop.call_soon_threadsafe(self.begun.set)
            assert self.may_go.wait(30)
            if self.problem is not None:
                raise DatabaseError(self.problem)
            return commit(store, items, *arguments)

        monkeypatch.setattr(EventStore, "commit", slowly)


@pytest.fixture
async def slow(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Slow]:
    monkeypatch.setattr(outbox_module, "RETRY_DELAYS", (0.01,))
    slow = Slow(monkeypatch)
    yield slow
    slow.problem = None
    slow.may_go.set()


# --- commits --------------------------------------------------------------------------------------


async def test_nobody_is_told_before_the_commit(open_outbox: Open, slow: Slow) -> None:
    outbox = await open_outbox()
    start = outbox.latest
    slow.may_go.clear()
    outbox.receive(messages(1)[0])
    await slow.begun.wait()
    assert await read_all(outbox, start) == []
    slow.may_go.set()
    await until(outbox, lambda: outbox.settled)
    assert await read_all(outbox, start) == ["1"]


async def test_events_that_come_during_a_commit_go_into_the_next_one(
    open_outbox: Open, slow: Slow
) -> None:
    outbox = await open_outbox()
    slow.may_go.clear()
    outbox.receive(messages(0)[0])
    await slow.begun.wait()
    for event in messages(*range(1, 101)):
        outbox.receive(event)
    slow.may_go.set()
    await until(outbox, lambda: outbox.settled)
    assert slow.batches == [1, 100]
    assert await read_all(outbox, outbox.oldest) == [str(number) for number in range(101)]


async def test_a_commit_that_fails_is_tried_again_and_loses_nothing(
    open_outbox: Open, slow: Slow, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = await open_outbox()
    slow.problem = "database or disk is full"
    for event in messages(1, 2):
        outbox.receive(event)
    await until(outbox, lambda: outbox.problem is not None)
    outbox.receive(messages(3)[0])
    await until(outbox, lambda: len(slow.batches) > 2)
    warning = outbox.warning
    assert warning is not None
    assert (warning.reason, "disk is full" in warning.message) == (Reason.EVENTS_NOT_STORED, True)
    assert await read_all(outbox, outbox.oldest) == []
    slow.problem = None
    await until(outbox, lambda: outbox.settled and outbox.problem is None)
    assert await read_all(outbox, outbox.oldest) == ["1", "2", "3"]
    assert outbox.warning is None
    assert "hello" not in caplog.text


async def test_a_bug_in_a_commit_is_no_end(open_outbox: Open, slow: Slow) -> None:
    outbox = await open_outbox()
    slow.problem = None
    commit, failing = EventStore.commit, [True]

    def broken(*arguments: Any) -> Any:
        if failing:
            raise ZeroDivisionError
        return commit(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EventStore, "commit", broken)
        outbox.receive(messages(1)[0])
        await until(outbox, lambda: outbox.problem == "ZeroDivisionError")
        failing.clear()
        await until(outbox, lambda: outbox.settled)
    assert await read_all(outbox, outbox.oldest) == ["1"]


async def test_more_than_fits_memory_is_told_as_a_gap_and_asked_for_again(
    open_outbox: Open, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "MAXIMUM_PENDING_BYTES", 5000)
    outbox = await open_outbox()
    before = outbox.interruptions
    outbox.caught_up(before, complete=True)
    await until(outbox, lambda: outbox.settled)
    slow.problem = "database or disk is full"
    for event in messages(*range(100)):
        outbox.receive(event)
    outbox.start_login(7e9)
    await until(outbox, lambda: outbox.problem is not None)
    slow.problem = None
    await until(outbox, lambda: outbox.settled and outbox.interruptions > before)
    assert outbox.row is not None
    assert outbox.row.login == 7e9, "this is never given up"
    *kept, last = await read_all(outbox, outbox.oldest)
    assert kept == [str(number) for number in range(len(kept))]
    assert 5 < len(kept) < 30
    assert last == "gap"
    await receive(outbox, *messages(200))
    assert (await read_all(outbox, outbox.latest)) == []


async def test_a_stop_commits_what_waits(open_outbox: Open, slow: Slow) -> None:
    outbox = await open_outbox()
    slow.may_go.clear()
    outbox.receive(messages(1)[0])
    await slow.begun.wait()
    outbox.hold()
    outbox.receive(messages(2)[0])
    stopping = asyncio.create_task(outbox.stop(time.time()))
    await asyncio.sleep(0)
    slow.may_go.set()
    await stopping
    outbox = await open_outbox()
    assert await read_all(outbox, outbox.oldest) == ["1", "2"]


async def test_a_stop_does_not_wait_for_a_disk_that_fails(open_outbox: Open, slow: Slow) -> None:
    outbox = await open_outbox()
    slow.problem = "database or disk is full"
    outbox.receive(messages(1)[0])
    async with asyncio.timeout(10):
        await outbox.stop(time.time())


async def test_a_volume_that_cannot_be_opened_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "RETRY_DELAYS", (0.01,))
    database = Database(tmp_path / "absent" / "messages.sqlite")
    outbox = Outbox(database, retention=60, maximum_bytes=2**20)
    outbox.release()
    outbox.start(None)
    outbox.receive(messages(1)[0])
    await until(outbox, lambda: outbox.problem is not None)
    assert (outbox.row, outbox.latest) == (None, None)
    (tmp_path / "absent").mkdir()
    await until(outbox, lambda: outbox.settled)
    assert await read_all(outbox, outbox.oldest) == ["1"]
    await outbox.stop(0)
    database.close()


async def test_a_malformed_event_is_a_gap_and_logged_without_its_content(
    open_outbox: Open, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = await open_outbox()
    await receive(outbox, message(text=7777, sentAt="secret"), PageEvent(type="chat.gap"))
    assert not outbox.receive(PageEvent(type="conn.online"))
    gaps = (await outbox.read(outbox.oldest)).events
    assert [json.loads(event.data) for event in gaps] == [{"reason": "Unreadable"}] * 2
    assert "secret" not in caplog.text
    assert "7777" not in caplog.text
    [record] = [record for record in caplog.records if "malformed" in record.message]
    assert vars(record)["fields"] == ["sentAt", "text"]


async def test_a_message_that_another_page_shows_again_is_told_once(open_outbox: Open) -> None:
    outbox = await open_outbox()
    await receive(outbox, message(), message())
    outbox = await open_outbox()
    await receive(outbox, message(chat="1234567@lid"))
    assert await read_all(outbox, outbox.oldest) == ["hello"]


async def test_acks_are_told_once_and_in_order(open_outbox: Open) -> None:
    outbox = await open_outbox()
    await outbox.expect(f"true_{FRIEND}_3E")
    await receive(outbox, *(ack(level) for level in (1, 1, 2, 1)))
    outbox = await open_outbox()
    await receive(outbox, *(ack(level) for level in (1, 2, 3, 3)))
    events = (await outbox.read(outbox.oldest)).events
    assert [json.loads(event.data)["ack"] for event in events] == [1, 2, 3]
    assert outbox.store.awaited_acks() == [], "no ack follows read"


async def test_a_send_goes_on_although_its_acks_cannot_be_awaited_yet(
    open_outbox: Open, slow: Slow
) -> None:
    outbox = await open_outbox()
    slow.problem = "database or disk is full"
    async with asyncio.timeout(10):
        await outbox.expect(f"true_{FRIEND}_3E")
    assert outbox.store.awaited_acks() == []
    slow.problem = None
    await until(outbox, lambda: outbox.settled)
    assert outbox.store.awaited_acks() == [f"true_{FRIEND}_3E"]


# --- waiting for what the page has from before ----------------------------------------------------


async def test_what_the_page_has_from_before_comes_first(open_outbox: Open) -> None:
    outbox = await open_outbox()
    outbox.hold()
    outbox.receive(messages(3)[0])
    outbox.receive(messages(4)[0])
    await outbox.reconcile(messages(1, 2, 3))
    assert await read_all(outbox, outbox.oldest) == ["1", "2", "3"]
    outbox.caught_up(outbox.interruptions, complete=True)
    await until(outbox, lambda: outbox.settled)
    assert await read_all(outbox, outbox.oldest) == ["1", "2", "3", "4"]
    await receive(outbox, *messages(5))
    assert (await read_all(outbox, outbox.oldest))[-1] == "5", "no event waits any longer"


async def test_an_interruption_meanwhile_keeps_events_waiting(open_outbox: Open) -> None:
    outbox = await open_outbox()
    outbox.hold()
    before = outbox.interruptions
    outbox.hold()
    outbox.receive(messages(1)[0])
    outbox.caught_up(before, complete=True)
    await outbox.reconcile([])
    assert await read_all(outbox, outbox.oldest) == []
    outbox.caught_up(outbox.interruptions, complete=False)
    await until(outbox, lambda: outbox.settled)
    assert await read_all(outbox, outbox.oldest) == ["1"]


async def test_events_wait_for_a_limited_time_and_in_limited_memory(
    open_outbox: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = await open_outbox()
    monkeypatch.setattr(outbox_module, "HOLD_LIMIT", 0.01)
    outbox.hold()
    outbox.receive(messages(1)[0])
    await until(outbox, lambda: outbox.latest is not None and outbox.latest.number == 1)
    monkeypatch.setattr(outbox_module, "HOLD_LIMIT", 3600)
    monkeypatch.setattr(outbox_module, "MAXIMUM_PENDING_BYTES", 100_000)
    outbox.hold()
    for event in messages(*range(2, 12), size=9000):
        outbox.receive(event)
    await asyncio.sleep(0)
    assert outbox.latest is not None
    assert outbox.latest.number == 1
    for event in messages(*range(12, 20), size=9000):
        outbox.receive(event)
    await until(outbox, lambda: outbox.settled and outbox.latest != EventId("", 1))
    assert (await read_all(outbox, outbox.oldest))[:11] == [str(number) for number in range(1, 12)]


async def test_how_far_it_is_complete(open_outbox: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "WATERMARK_INTERVAL", 0.0)
    outbox = await open_outbox()
    assert outbox.row is not None
    created = outbox.row.complete_until
    now = created + 100
    monkeypatch.setattr(time, "time", lambda: now)
    await receive(outbox, sent_at("3A00", created + 5))
    assert outbox.row.complete_until == created, "it does not know what it has missed"
    outbox.caught_up(outbox.interruptions, complete=True)
    await until(outbox, lambda: outbox.row is not None and outbox.row.complete_until > created)
    assert outbox.row.complete_until == about(created + 5), "others as old may be on their way"
    outbox._lag = Lag()
    await receive(outbox, sent_at("3A01", created + 98))
    assert outbox.row.complete_until == about(created + 98)
    now += 100
    await receive(outbox, sent_at("3A02", created + 198))
    assert outbox.row.complete_until == about(created + 198), "however many come"
    await receive(outbox, sent_at("3A03", created + 50))
    reached = outbox.row.complete_until
    assert reached == about(created + 198), "it never goes back"
    await outbox.stop(time.time())
    again = await open_outbox()
    assert again.row is not None
    assert again.row.complete_until == reached


def about(seconds: float) -> Any:
    """Return what equals a time, which text has in microseconds."""
    return pytest.approx(seconds, abs=1e-5)


def sent_at(stanza: str, seconds: float) -> PageEvent:
    return message(stanza, sentAt=datetime.fromtimestamp(seconds, UTC).isoformat())


async def test_a_graceful_stop_tells_how_far_it_is_complete(open_outbox: Open) -> None:
    outbox = await open_outbox()
    outbox.caught_up(outbox.interruptions, complete=True)
    await until(outbox, lambda: outbox.settled)
    at = time.time() + 2 * UNKNOWN_LAG
    await outbox.stop(at)
    again = await open_outbox()
    assert again.row is not None
    assert again.row.complete_until == at - UNKNOWN_LAG
    again.hold()
    await again.stop(at + 100)
    last = await open_outbox()
    assert last.row is not None
    assert last.row.complete_until == at - UNKNOWN_LAG, "it was not Ready"


@given(st.lists(st.tuples(st.floats(0, 500), st.floats(-100, 1e6)), max_size=20))
def test_the_lag_is_that_of_recent_messages(arrivals: list[tuple[float, float]]) -> None:
    lag, now, came = Lag(), 0.0, list[tuple[float, float]]()
    assert lag.longest(now) == UNKNOWN_LAG
    for wait, late in arrivals:
        now += wait
        lag.note(late, now)
        came.append((now, late))
        longest = lag.longest(now)
        recent = [late for at, late in came if now - at < outbox_module.LAG_WINDOW]
        longer = [late for at, late in came if now - at < 3 * outbox_module.LAG_WINDOW]
        assert max(*recent, 0) <= longest <= max(*longer, 0)
    assert lag.longest(now + 3 * outbox_module.LAG_WINDOW) == UNKNOWN_LAG


# --- readers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cursor", ["", "-", "5c1f0e7a9b3d4c62", "5c1f0e7a-", "5c1f0e7a-x", "5c1f0e7a-²", "x-1", "ü",
               "5c1f0e7a-" + "9" * 5000, "5C1F0E7A-1"],
)  # fmt: skip
def test_what_is_no_cursor(cursor: str) -> None:
    assert EventId.parse(cursor) is None


@given(st.binary(min_size=4, max_size=16), st.integers(0, 10**18 - 1))
def test_cursors_there_and_back(outbox: bytes, number: int) -> None:
    position = EventId(outbox.hex(), number)
    assert EventId.parse(str(position)) == position


async def test_recent_events_come_from_memory_and_older_ones_from_the_file(
    open_outbox: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "MAXIMUM_RECENT", 10)
    monkeypatch.setattr(outbox_module, "READ_EVENTS", 7)
    outbox = await open_outbox()
    await receive(outbox, *messages(*range(1, 101)))
    assert outbox.latest is not None
    read, files = EventStore.read, list[int]()

    def counted(store: EventStore, after: int, *arguments: int) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        files.append(after)
        return read(store, after, *arguments)

    monkeypatch.setattr(EventStore, "read", counted)
    name = outbox.latest.outbox
    for number in (90, 99, 100):
        expected = [str(after) for after in range(number + 1, 101)]
        assert await read_all(outbox, EventId(name, number)) == expected
    assert files == []
    assert await read_all(outbox, EventId(name, 60)) == [str(after) for after in range(61, 101)]
    assert files == [60, 67, 74, 81, 88]
    again = await open_outbox()
    assert await read_all(again, EventId(name, 97)) == ["98", "99", "100"], "after a restart"


async def test_memory_has_a_limited_number_of_bytes(
    open_outbox: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "MAXIMUM_RECENT_BYTES", 10_000)
    outbox = await open_outbox()
    await receive(outbox, *messages(*range(50), size=1000))
    assert sum(event.size for event in outbox._recent) <= 10_000
    assert len(await read_all(outbox, outbox.oldest)) == 50


async def test_a_reader_that_comes_too_late_is_told(open_outbox: Open) -> None:
    outbox = await open_outbox(maximum_bytes=10_000)
    first = outbox.latest
    await receive(outbox, *messages(1, size=1000))
    second = outbox.latest
    for number in range(2, 30):
        await receive(outbox, *messages(number, size=1000))
    oldest = outbox.oldest
    assert first is not None
    assert second is not None
    assert oldest is not None
    outbox = await open_outbox(maximum_bytes=10_000)  # whose memory has none
    kept = [str(number) for number in range(oldest.number + 1, 30)]
    for position in (first, second):
        assert await read_all(outbox, position) == [GapReason.EXPIRED, *kept]
    assert await read_all(outbox, oldest) == kept
    batch = await outbox.read(first)
    assert batch.start == oldest


@pytest.mark.parametrize("lost", ["damaged", "deleted"])
async def test_an_outbox_that_is_replaced(open_outbox: Open, tmp_path: Path, lost: str) -> None:
    outbox = await open_outbox()
    await receive(outbox, *messages(1, 2, 3))
    position = outbox.latest
    assert position is not None
    await outbox.stop(0)
    outbox.store._database.close()
    path = tmp_path / "messages.sqlite"
    path.unlink() if lost == "deleted" else path.write_bytes(b"damaged" * 1000)
    again = await open_outbox()
    assert again.latest is not None
    assert again.latest.outbox != position.outbox
    assert await read_all(again, position) == [GapReason.OUTBOX_REPLACED]
    await receive(again, *messages(4, 5))
    assert await read_all(again, position) == [GapReason.OUTBOX_REPLACED, "4", "5"]
    assert again.row is not None
    assert time.time() - again.row.floor < 60, "what the page has from before is not told"


async def test_an_outbox_that_is_damaged_while_it_runs(
    open_outbox: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "RETRY_DELAYS", (0.01,))
    outbox = await open_outbox()
    await receive(outbox, *messages(1, 2, 3))
    position = outbox.latest
    load, damaged = EventStore.commit, [True]

    def damage(store: EventStore, *arguments: Any) -> Any:
        if damaged:
            damaged.clear()
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            store._database._recover_from(error)
            raise DatabaseError(str(error))
        return load(store, *arguments)

    monkeypatch.setattr(EventStore, "commit", damage)
    outbox.receive(messages(4)[0])
    await until(outbox, lambda: outbox.settled)
    assert len(list(tmp_path.glob("messages.sqlite.damaged-*"))) == 1  # noqa: ASYNC240
    assert await read_all(outbox, position) == [GapReason.OUTBOX_REPLACED, "4"]


async def test_a_cursor_from_the_future_is_one_of_another_outbox(open_outbox: Open) -> None:
    outbox = await open_outbox()
    await receive(outbox, *messages(1))
    assert outbox.latest is not None
    future = outbox.latest._replace(number=7)
    assert await read_all(outbox, future) == [GapReason.OUTBOX_REPLACED, "1"]


async def test_a_commit_whose_answer_was_lost_is_told_under_its_number(
    open_outbox: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk has it although the commit seemed to fail: its events have their numbers."""
    monkeypatch.setattr(outbox_module, "RETRY_DELAYS", (0.01,))
    outbox = await open_outbox()
    await receive(outbox, *messages(1))
    commit, lost = EventStore.commit, [True]

    def lose(*arguments: Any) -> Any:
        result = commit(*arguments)
        if lost:
            lost.clear()
            raise DatabaseError("disk I/O error")
        return result

    monkeypatch.setattr(EventStore, "commit", lose)
    await receive(outbox, *messages(2, 3))
    await receive(outbox, *messages(4))
    assert await read_all(outbox, outbox.oldest) == ["1", "2", "3", "4"]
    assert outbox.latest is not None
    assert outbox.latest.number == 4


async def test_a_reader_during_a_commit_is_not_told_too_early(
    open_outbox: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the file has an event already that memory has not."""
    monkeypatch.setattr(outbox_module, "MAXIMUM_RECENT", 0)
    outbox = await open_outbox()
    await receive(outbox, *messages(1, 2))
    row = outbox.row
    assert row is not None
    await receive(outbox, *messages(3))
    outbox.row = row
    assert await read_all(outbox, outbox.oldest) == ["1", "2"]


async def test_room_is_made_by_deleting_the_oldest(open_outbox: Open) -> None:
    outbox = await open_outbox(maximum_bytes=4 * 2**20)
    for number in range(200):
        outbox.receive(messages(number, size=2000)[0])
    await until(outbox, lambda: outbox.settled)
    start = outbox.oldest
    deleted = await outbox.make_room(100_000)
    assert 40 < deleted < 60
    assert outbox.oldest is not None
    assert outbox.oldest.number == deleted
    assert len(await read_all(outbox, start)) == 200, "memory still has them"


async def test_an_outbox_that_is_too_small_is_a_warning(open_outbox: Open) -> None:
    outbox = await open_outbox(maximum_bytes=20_000)
    await receive(outbox, *messages(1, size=1000))
    assert outbox.warning is None
    await receive(outbox, *messages(*range(2, 30), size=1000))
    warning = outbox.warning
    assert warning is not None
    assert warning.reason == Reason.OUTBOX_FULL
    assert "0.0 hours" in warning.message
    outbox._oldest_at = time.time() - 2 * 86400
    assert outbox.warning is None, "there is time to read them"
