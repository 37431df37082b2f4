"""The event buffer of messages and acks, and its readers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import Phase
from wasession_pod.api import event_stream
from wasession_pod.api.operations import EventKind
from wasession_pod.events import MAXIMUM_AWAITED, EventBuffer
from wasession_pod.session import Session
from wasession_pod.state.observation import PageEvent

START = datetime(2026, 1, 1, tzinfo=UTC)
MESSAGE = {
    "id": "false_15550001111@c.us_3A00",
    "chatId": "15550001111@c.us",
    "from": "15550001111@c.us",
    "fromMe": False,
    "type": "chat",
    "text": "hello",
    "sentAt": "2026-01-01T00:00:00.000Z",
}
ACK = {
    "id": "true_1@c.us_3E",
    "chatId": "1@c.us",
    "ack": 2,
    "participant": None,
    "at": "2026-01-01T00:00:00.000Z",
}


def buffer_with(**limits: int) -> EventBuffer:
    return EventBuffer(START, **limits)


def fill(buffer: EventBuffer, count: int) -> None:
    for _ in range(count):
        number = buffer.last + 1
        buffer.append("message", json.dumps({"number": number}))


@pytest.mark.parametrize(
    ("event", "recorded", "kinds"),
    [
        (PageEvent(type="chat.message", data=MESSAGE), True, ["message"]),
        (PageEvent(type="chat.ack", data=ACK), True, ["ack"]),
        (
            PageEvent(type="chat.message", data={**MESSAGE, "text": "x" * 100_000, "newer": [1]}),
            True,
            ["message"],
        ),
        (PageEvent(type="chat.message", data={**MESSAGE, "sentAt": "never"}), True, ["gap"]),
        (PageEvent(type="chat.ack", data={**ACK, "ack": 99}), True, ["gap"]),
        (PageEvent(type="chat.message"), True, ["gap"]),
        (PageEvent(type="chat.gap", reason="message"), True, ["gap"]),
        (PageEvent(type="chat.gap", reason="of the page's choice"), True, ["gap"]),
        (PageEvent(type="conn.online", data=MESSAGE), False, []),
    ],
)
def test_page_events_are_validated(event: PageEvent, recorded: bool, kinds: list[str]) -> None:
    buffer = buffer_with()
    assert buffer.record(event) is recorded
    assert [
        appended.kind for position in range(buffer.last) if (appended := buffer.after(position))
    ] == kinds


def test_acks_of_a_message_are_recorded_once_and_in_order() -> None:
    buffer = buffer_with()
    buffer.expect_acks("true_1@c.us_3E")
    for ack in (1, 1, 2, 1, 3):
        buffer.record(PageEvent(type="chat.ack", data=ACK | {"ack": ack}))
    events = [buffer.after(position) for position in range(buffer.last)]
    assert [json.loads(event.data)["ack"] for event in events if event] == [1, 2, 3]
    assert buffer.awaited_acks == {}, "no ack follows read"


def test_acks_are_awaited_for_the_latest_messages() -> None:
    buffer = buffer_with()
    for number in range(10_000):
        buffer.expect_acks(str(number))
    assert (len(buffer.awaited_acks), next(iter(buffer.awaited_acks))) == (
        MAXIMUM_AWAITED,
        str(10_000 - MAXIMUM_AWAITED),
    )


def test_a_malformed_event_is_logged_without_its_content(
    caplog: pytest.LogCaptureFixture,
) -> None:
    buffer_with().record(
        PageEvent(type="chat.message", data={**MESSAGE, "text": 7777, "sentAt": "secret"})
    )
    assert "secret" not in caplog.text
    assert "7777" not in caplog.text
    assert vars(caplog.records[0])["fields"] == ["sentAt", "text"]


def test_the_buffer_is_bounded_by_count_and_by_size() -> None:
    buffer = buffer_with(maximum_events=10)
    fill(buffer, 100)
    assert (buffer.oldest, buffer.last) == (90, 100)
    buffer = buffer_with(maximum_bytes=1000)
    for _ in range(100):
        buffer.append("message", "x" * 300)
    assert buffer.last - buffer.oldest == 3


@pytest.mark.parametrize(
    "event_id",
    ["", "-", "19b7bd8d400", "19b7bd8d400-", "19b7bd8d400-x", "19b7bd8d400-²", "other-95"],
)
def test_ids_of_other_processes(event_id: str) -> None:
    assert buffer_with().position(event_id) is None


def test_ids_of_this_process() -> None:
    buffer = buffer_with(maximum_events=10)
    fill(buffer, 100)
    assert [buffer.position(buffer.event_id(number)) for number in (89, 90, 100, 101)] == [
        None,
        90,
        100,
        None,
    ]
    assert buffer.position(buffer.event_id(0) + "9" * 5000) is None
    assert buffer.position(buffer.event_id(0) + "0" * 15 + "95" + "9" * 5000) is None


# --- readers --------------------------------------------------------------------------------------


class Reader:
    """A reader of a session that has only a report and an event buffer."""

    def __init__(
        self,
        buffer: EventBuffer,
        last_event_id: str | None = None,
        kinds: str = "state,message,ack",
    ) -> None:
        self.report = Report(
            client_id="sales", started_at=START, seq=1, phase=Phase.READY, reason="Connected"
        )
        self._session = SimpleNamespace(events=buffer, report=self.report)
        chosen = frozenset(map(EventKind, kinds.split(",")))
        self._blocks: AsyncIterator[bytes] = event_stream.follow(
            cast(Session, self._session), chosen, last_event_id
        )

    def change(self, seq: int) -> None:
        self._session.report = self.report.model_copy(update={"seq": seq})
        self._session.events.notify()

    async def next(self) -> tuple[str, Any, str]:
        """Return the type, data and id of the next event."""
        async with asyncio.timeout(10):
            block = (await anext(self._blocks)).decode()
        fields = dict(line.split(": ", 1) for line in block.strip().splitlines())
        return fields["event"], json.loads(fields["data"]), fields["id"]

    async def kinds(self, count: int) -> list[str]:
        return [(await self.next())[0] for _ in range(count)]


async def test_the_state_comes_first_and_at_each_change() -> None:
    buffer = buffer_with()
    fill(buffer, 3)
    reader = Reader(buffer)
    assert (await reader.next())[:2] == ("state", reader.report.dump())
    reader.change(2)
    assert (await reader.next())[1]["seq"] == 2
    fill(buffer, 1)
    assert (await reader.next())[:2] == ("message", {"number": 4})


async def test_a_waiting_reader_is_woken() -> None:
    buffer = buffer_with()
    reader = Reader(buffer)
    await reader.next()
    waiting = asyncio.create_task(reader.next())
    await asyncio.sleep(0)  # it has begun to wait
    fill(buffer, 1)
    assert (await waiting)[0] == "message"


async def test_other_kinds_are_skipped_and_the_position_moves_on() -> None:
    buffer = buffer_with()
    reader = Reader(buffer, kinds="ack")
    waiting = asyncio.create_task(reader.next())
    await asyncio.sleep(0)  # it has begun to wait
    fill(buffer, 5)
    buffer.append("ack", "{}")
    assert await waiting == ("ack", {}, buffer.event_id(6))


async def test_a_slow_reader_gets_a_gap_and_costs_nothing() -> None:
    buffer = buffer_with(maximum_events=10)
    slow = Reader(buffer)
    assert await slow.kinds(1) == ["state"]
    fill(buffer, 10_000)
    assert buffer.last - buffer.oldest == 10
    assert await slow.next() == ("gap", {}, buffer.event_id(9990))
    assert [(await slow.next())[1]["number"] for _ in range(10)] == list(range(9991, 10_001))


@pytest.mark.parametrize(
    ("last", "kinds"),
    [
        (None, ["state"]),
        (100, ["state"]),
        (98, ["state", "message", "message"]),
        (90, ["state", *["message"] * 10]),
        (89, ["state", "gap", *["message"] * 10]),
        (101, ["state", "gap", *["message"] * 10]),
    ],
)
async def test_where_a_reader_resumes(last: int | None, kinds: list[str]) -> None:
    buffer = buffer_with(maximum_events=10)
    fill(buffer, 100)
    reader = Reader(buffer, None if last is None else buffer.event_id(last))
    assert await reader.kinds(len(kinds)) == kinds
    reader.change(2)
    assert await reader.kinds(1) == ["state"], "nothing else was left"


async def test_a_new_page_is_a_gap_after_earlier_events() -> None:
    buffer = buffer_with()
    reader = Reader(buffer)
    await reader.next()
    for event in (
        PageEvent(type="loader.injected"),
        PageEvent(type="chat.message", data=MESSAGE),
        PageEvent(type="loader.injected"),
    ):
        buffer.record(event)
    assert await reader.kinds(2) == ["message", "gap"]


async def test_a_reader_of_the_state_alone_gets_no_gap() -> None:
    buffer = buffer_with(maximum_events=10)
    reader = Reader(buffer, "of another process", kinds="state")
    assert await reader.kinds(1) == ["state"]
    fill(buffer, 100)
    buffer.record(PageEvent(type="loader.injected"))
    reader.change(2)
    assert await reader.next() == ("state", reader.report.dump() | {"seq": 2}, buffer.event_id(101))


async def test_a_comment_is_the_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT", 0.01)
    reader = Reader(buffer_with())
    await reader.next()
    assert await anext(reader._blocks) == b": heartbeat\n\n"


def test_a_message_that_a_new_page_shows_again_is_recorded_once() -> None:
    buffer = buffer_with()
    for _page in range(2):
        assert buffer.record(PageEvent(type="loader.injected")) is False
        assert buffer.record(PageEvent(type="chat.message", data=MESSAGE)) is True
    events = [buffer.after(position) for position in range(buffer.oldest, buffer.last)]
    assert [event.kind for event in events if event] == ["message", "gap"]
