"""Readers of events: streams and pages, where they begin, and what they are told of."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from unit.pod.page_events import ack, message
from wasession_api.session_pod.events import EventKind, EventPage
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import Phase
from wasession_pod.api import event_stream
from wasession_pod.messages import outbox as outbox_module
from wasession_pod.messages.database import Database
from wasession_pod.messages.outbox import Outbox
from wasession_pod.session import NotReady, Session

ALL = frozenset(EventKind)
OTHER = "0123456789abcdef"  # another outbox


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[Outbox]:
    database = Database(tmp_path / "messages.sqlite")
    outbox = Outbox(database, retention=3600, maximum_bytes=6500)
    outbox.release()
    outbox.start(None)
    while outbox.row is None:
        await outbox.changed.wait()
    yield outbox
    await outbox.stop(0)
    database.close()


async def fill(outbox: Outbox, *numbers: int) -> None:
    """Store messages; the outbox has room for ten of them."""
    for number in numbers:
        outbox.receive(message(f"3A{number:04}", text=f"{number}", senderName="x" * 340))
        await outbox.reconcile([])


class Reader:
    """A reader of a session that has only a report and an outbox."""

    def __init__(
        self, outbox: Outbox, last_event_id: str | None = None, kinds: str | None = None
    ) -> None:
        self.report = Report(
            client_id="sales",
            started_at=datetime(2026, 1, 1, tzinfo=UTC),
            seq=1,
            phase=Phase.READY,
            reason="Connected",
        )
        self._session = SimpleNamespace(outbox=outbox, report=self.report)
        chosen = ALL if kinds is None else frozenset(map(EventKind, kinds.split(",")))
        self.blocks: AsyncIterator[bytes] = event_stream.follow(
            cast(Session, self._session), chosen, last_event_id
        )

    def change(self, seq: int) -> None:
        self._session.report = self.report.model_copy(update={"seq": seq})
        self._session.outbox.notify()

    async def next(self) -> tuple[str, Any, str | None]:
        """Return the type, data and id of the next event."""
        async with asyncio.timeout(10):
            block = (await anext(self.blocks)).decode()
        fields = dict(line.split(": ", 1) for line in block.strip().splitlines())
        return fields["event"], json.loads(fields["data"]), fields.get("id")

    async def told(self, count: int) -> list[str]:
        """Return the texts of messages, the reasons of gaps and the kinds of other events."""
        result = []
        for _ in range(count):
            kind, data, _id = await self.next()
            result.append(
                data.get("text") or data["reason"] if kind in ("message", "gap") else kind
            )
        return result


def cursor(outbox: Outbox, number: int) -> str:
    assert outbox.latest is not None
    return str(outbox.latest._replace(number=number))


# --- streams --------------------------------------------------------------------------------------


async def test_the_state_comes_first_and_at_each_change(outbox: Outbox) -> None:
    await fill(outbox, 1, 2, 3)
    reader = Reader(outbox)
    assert await reader.next() == ("state", reader.report.dump(), cursor(outbox, 3))
    reader.change(2)
    assert (await reader.next())[1]["seq"] == 2
    await fill(outbox, 4)
    kind, data, name = await reader.next()
    assert (kind, data["text"], name) == ("message", "4", cursor(outbox, 4))


async def test_the_state_comes_before_there_is_an_outbox(tmp_path: Path) -> None:
    database = Database(tmp_path / "messages.sqlite")
    outbox = Outbox(database, retention=60, maximum_bytes=2**20)
    old, new = Reader(outbox, f"{OTHER}-7"), Reader(outbox)
    for reader in (old, new):
        assert (await reader.next())[::2] == ("state", None)
    outbox.release()
    outbox.start(None)
    await outbox.reconcile([message(text="1")])
    assert await old.told(2) == ["OutboxReplaced", "1"]
    waiting = asyncio.create_task(new.told(1))
    await asyncio.sleep(0)
    await outbox.reconcile([message("3A01", text="2")])
    assert await waiting in (["1"], ["2"])
    await outbox.stop(0)
    database.close()


async def test_a_waiting_reader_is_woken(outbox: Outbox) -> None:
    reader = Reader(outbox)
    await reader.next()
    waiting = asyncio.create_task(reader.next())
    await asyncio.sleep(0)  # it has begun to wait
    await fill(outbox, 1)
    assert (await waiting)[0] == "message"


async def test_other_kinds_are_skipped_and_the_position_moves_on(outbox: Outbox) -> None:
    reader = Reader(outbox, kinds="ack")
    waiting = asyncio.create_task(reader.next())
    await asyncio.sleep(0)  # it has begun to wait
    await fill(outbox, 1, 2)
    outbox.receive(ack(1))
    kind, data, name = await waiting
    assert (kind, data["ack"], name) == ("ack", 1, cursor(outbox, 3))


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (None, []),
        (20, []),
        (18, ["19", "20"]),
        (10, [str(number) for number in range(11, 21)]),
        (9, ["Expired", *(str(number) for number in range(11, 21))]),
        (0, ["Expired", *(str(number) for number in range(11, 21))]),
        (21, ["OutboxReplaced", *(str(number) for number in range(11, 21))]),
    ],
)
async def test_where_a_reader_resumes(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, last: int | None, told: list[str]
) -> None:
    monkeypatch.setattr(outbox_module, "MAXIMUM_RECENT", 3)
    await fill(outbox, *range(1, 21))
    assert outbox.oldest is not None
    assert outbox.oldest.number == 10
    reader = Reader(outbox, None if last is None else cursor(outbox, last))
    assert await reader.told(1 + len(told)) == ["state", *told]
    reader.change(2)
    assert await reader.told(1) == ["state"], "nothing else was left"


@pytest.mark.parametrize("last", ["", "-", "nonsense", "ü", "1a2b3c-17", f"{OTHER}-1", "1" * 5000])
async def test_a_reader_with_an_unknown_id_gets_all(outbox: Outbox, last: str) -> None:
    await fill(outbox, 1, 2)
    reader = Reader(outbox, last)
    assert await reader.told(4) == ["state", "OutboxReplaced", "1", "2"]


async def test_a_slow_reader_gets_a_gap(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "MAXIMUM_RECENT", 3)
    slow = Reader(outbox)
    assert await slow.told(1) == ["state"]
    await fill(outbox, *range(1, 31))
    kind, data, name = await slow.next()
    assert (kind, data, name) == ("gap", {"reason": "Expired"}, cursor(outbox, 20))
    assert await slow.told(10) == [str(number) for number in range(21, 31)]


async def test_a_reader_of_the_state_alone_gets_no_gap(outbox: Outbox) -> None:
    reader = Reader(outbox, "of another process", kinds="state")
    assert await reader.told(1) == ["state"]
    await fill(outbox, 1, 2)
    reader.change(2)
    assert await reader.next() == ("state", reader.report.dump() | {"seq": 2}, cursor(outbox, 2))


async def test_a_comment_is_the_heartbeat(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT", 0.01)
    reader = Reader(outbox)
    await reader.next()
    assert await anext(reader.blocks) == b": heartbeat\n\n"


# --- pages ----------------------------------------------------------------------------------------


async def page(
    outbox: Outbox, after: str | None = None, kinds: frozenset[EventKind] = ALL,
    limit: int = 100, wait: float = 0,
) -> EventPage:  # fmt: skip
    return await event_stream.page(outbox, kinds, after, limit, wait)


def texts(of: EventPage) -> list[Any]:
    return [event.data.get("text") or event.data.get("reason") for event in of.items]


async def test_a_page_begins_with_the_oldest_event(outbox: Outbox) -> None:
    empty = await page(outbox)
    assert (empty.items, empty.next, empty.more) == ([], cursor(outbox, 0), False)
    await fill(outbox, *range(1, 21))
    whole = await page(outbox)
    assert texts(whole) == [str(number) for number in range(11, 21)]
    assert [event.id for event in whole.items][-1] == whole.next == cursor(outbox, 20)
    assert (whole.items[0].kind, whole.more) == ("message", False)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 10, 11])
async def test_pages_are_the_whole(outbox: Outbox, limit: int) -> None:
    await fill(outbox, *range(1, 11))
    after, collected = None, []
    for _ in range(20):
        one = await page(outbox, after, limit=limit)
        assert len(one.items) <= limit
        collected += texts(one)
        after = one.next
        if not one.more:
            break
    assert collected == [str(number) for number in range(1, 11)]


async def test_pages_of_some_kinds(outbox: Outbox) -> None:
    await fill(outbox, 1, 2)
    await outbox.reconcile([ack(1), ack(2)])
    await fill(outbox, 3)
    acks = frozenset({EventKind.ACK})
    first = await page(outbox, kinds=acks, limit=1)
    assert ([event.data["ack"] for event in first.items], first.more) == ([1], True)
    second = await page(outbox, first.next, kinds=acks, limit=1)
    assert ([event.data["ack"] for event in second.items], second.next) == ([2], cursor(outbox, 5))
    third = await page(outbox, second.next, kinds=acks)
    assert (third.items, third.more) == ([], False)


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (3, ["Expired", "11"]),
        (10, ["11", "12"]),
        (99, ["OutboxReplaced", "11"]),
        (None, ["OutboxReplaced", "11"]),
    ],
)
async def test_a_page_tells_what_is_missing(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, after: int | None, told: list[str]
) -> None:
    monkeypatch.setattr(outbox_module, "MAXIMUM_RECENT", 3)
    await fill(outbox, *range(1, 21))
    first = await page(outbox, f"{OTHER}-3" if after is None else cursor(outbox, after), limit=2)
    assert texts(first) == told
    rest = await page(outbox, first.next)
    assert texts(rest)[0] == str(int(told[-1]) + 1), "the gap is told once"


async def test_a_page_waits_for_the_first_event(outbox: Outbox) -> None:
    waiting = asyncio.create_task(page(outbox, wait=30, kinds=frozenset({EventKind.MESSAGE})))
    await asyncio.sleep(0)
    await outbox.reconcile([ack(1)])
    await asyncio.sleep(0)
    assert not waiting.done(), "that is none of those that are wanted"
    await fill(outbox, 1)
    async with asyncio.timeout(10):
        assert texts(await waiting) == ["1"]
    after = (await waiting).next
    assert (await page(outbox, after, wait=0.01)).next == after


async def test_there_is_no_page_before_there_is_an_outbox(tmp_path: Path) -> None:
    outbox = Outbox(Database(tmp_path / "messages.sqlite"), retention=60, maximum_bytes=2**20)
    report = SimpleNamespace(phase=Phase.STARTING)
    session = cast(Session, SimpleNamespace(outbox=outbox, report=report))
    with pytest.raises(NotReady):
        event_stream.require_loaded(session)


async def test_what_a_stream_has_told_a_page_continues(outbox: Outbox) -> None:
    await fill(outbox, 1, 2, 3)
    reader = Reader(outbox, cursor(outbox, 0))
    await reader.told(2)
    name = (await reader.next())[2]
    assert texts(await page(outbox, name)) == ["3"]
