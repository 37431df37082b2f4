"""How much of a sender's event stream is read, and how fast."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable

import pytest
from aiohttp.http_exceptions import LineTooLong
from wasession_api.http import sse
from wasession_api.http.sse import MAXIMUM_EVENT, EventTooLarge, Pace
from wasession_api.session_pod.messages import LONGEST_TEXT


class Sender:
    """A stream that is always ahead of its reader."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self.sent = 0
        self._lines = iter(lines)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for line in self._lines:
            self.sent += len(line)
            yield line


class Paused(Exception):
    """The reader lets the sender wait."""


@pytest.fixture
def pause_ends_test(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(seconds: float) -> None:
        if seconds:
            raise Paused

    monkeypatch.setattr(asyncio, "sleep", sleep)


@pytest.mark.parametrize(
    "line", [b"data: " + b"x" * 1000 + b"\n", b"data\n", b"id: " + b"x" * 1000, b"event: x\n"]
)
async def test_an_event_without_an_end_ends_the_stream(line: bytes) -> None:
    sender = Sender(itertools.repeat(line, 10**5))
    with pytest.raises(EventTooLarge):
        await anext(sse.read(sender, Pace()))
    assert sender.sent <= MAXIMUM_EVENT + len(line)


@pytest.mark.parametrize("character", ["x", "\U0001f600", "\\u0001"])
async def test_the_longest_message_is_read(character: str) -> None:
    data = f'{{"text":"{character * LONGEST_TEXT}"}}'
    sender = Sender([b"event: message\n", f"data: {data}\n".encode(), b"\n"] * 3)
    events = [event async for event in sse.read(sender, Pace())]
    assert [event.data for event in events] == [data] * 3


@pytest.mark.usefixtures("pause_ends_test")
@pytest.mark.parametrize("lines", [[b"\n"], [b":\n"], [b"data: {}\n", b"\n"]])
async def test_a_sender_that_is_too_fast_has_to_wait(lines: list[bytes]) -> None:
    pace = Pace(rate=1000, burst=100_000)
    sender = Sender(itertools.chain.from_iterable(itertools.repeat(lines, 10**4)))
    with pytest.raises(Paused):
        async for _ in sse.read(sender, pace):
            pass
    assert sender.sent < pace.burst
    again = Sender([b"data: {}\n", b"\n"])
    with pytest.raises(Paused):
        await anext(sse.read(again, pace))


async def test_a_sender_that_has_to_wait_loses_nothing() -> None:
    lines = [line for i in range(100) for line in (f"data: {i}\n".encode(), b"\n")]
    pace = Pace(rate=500_000, burst=1000)
    events = [event.data async for event in sse.read(Sender(lines), pace)]
    assert events == [str(i) for i in range(100)]


async def test_others_run_while_a_sender_is_fast() -> None:
    others = asyncio.create_task(asyncio.sleep(0))
    sender = Sender([b"data: {}\n", b"\n"] * 10)
    async for _ in sse.read(sender, Pace()):
        pass
    assert others.done()


@pytest.mark.parametrize(("seconds", "wait"), [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0), (60.0, 0.0)])
def test_a_pace_refills(seconds: float, wait: float) -> None:
    pace = Pace(rate=100, burst=200)
    assert pace.take(200, 0.0) == 0
    assert pace.take(100, seconds) == pytest.approx(wait)


@pytest.mark.parametrize("fault", [b"data: " + b"x" * MAXIMUM_EVENT + b"\n", LineTooLong(b"", 7)])
async def test_an_event_that_is_too_large_is_named(fault: bytes | Exception) -> None:
    """So that a reader can go on after it."""

    async def lines() -> AsyncIterator[bytes]:
        for line in (b"id: 6\n", b"data: {}\n", b"\n", b"id: 7\n"):
            yield line
        if isinstance(fault, Exception):
            raise fault
        yield fault

    events = sse.read(lines(), Pace())
    assert (await anext(events)).id == "6"
    with pytest.raises(EventTooLarge) as error:
        await anext(events)
    assert error.value.id == "7"
