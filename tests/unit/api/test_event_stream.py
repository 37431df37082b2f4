"""A stream of events on its own connection: what a sender may send, and how each stream ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wasession_api.http import event_stream, sse
from wasession_api.http.event_stream import ChunkDecoder, EventStream, InvalidResponse, OnEvent

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTRANSFER-ENCODING:  Chunked\r\n\r\n"
REQUEST = b"GET / HTTP/1.1\r\n\r\n"


class Sender:
    """A server that answers one connection as the test says."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Wait for another connection."""
        self.connected = asyncio.Event()
        self.closed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.received = b""
        self._writer: asyncio.StreamWriter | None = None

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.received = await reader.read(1000)
        self.connected.set()
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
        self.closed.set_result(True)

    async def send(self, data: bytes) -> None:
        await self.connected.wait()
        assert self._writer is not None
        self._writer.write(data)

    async def end(self) -> None:
        await self.connected.wait()
        assert self._writer is not None
        self._writer.close()


class Fixture:
    def __init__(self, address: tuple[str, int], sender: Sender) -> None:
        self.address = address
        self.sender = sender
        self.events: asyncio.Queue[sse.ServerSentEvent] = asyncio.Queue()

    async def open(
        self,
        head: bytes = HEAD,
        pace: sse.Pace | None = None,
        silence: float = 60.0,
        on_event: OnEvent | None = None,
    ) -> EventStream:
        opening = EventStream.open(
            self.address,
            REQUEST,
            on_event or self.events.put_nowait,
            pace or sse.Pace(),
            connect_timeout=60.0,
            silence=silence,
        )
        stream, _ = await asyncio.gather(opening, self.sender.send(head))
        return stream

    async def received(self, number: int) -> list[str]:
        return [(await self.events.get()).data for _ in range(number)]


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "READ_INTERVAL", 0.001)
    monkeypatch.setattr(event_stream, "SILENCE_CHECK_INTERVAL", 0.001)


@pytest.fixture
async def fixture() -> AsyncIterator[Fixture]:
    sender = Sender()
    async with asyncio.timeout(60), contextlib.AsyncExitStack() as stack:
        server = await asyncio.start_server(sender, "127.0.0.1", 0)
        stack.callback(server.close)
        yield Fixture(server.sockets[0].getsockname()[:2], sender)


async def test_events_as_they_come(fixture: Fixture) -> None:
    stream = await fixture.open(HEAD + b": open\n\nid: 7\nda")
    await fixture.sender.send(
        b"ta: a\nevent: state\n\n: heartbeat\n\ndata: b\r\ndata: c\n\ndata: cut"
    )
    await fixture.sender.end()
    assert await stream.ended is None
    assert [fixture.events.get_nowait() for _ in range(2)] == [
        sse.ServerSentEvent("state", "a", "7"),
        sse.ServerSentEvent("message", "b\nc", "7"),
    ]
    assert fixture.events.empty()
    assert fixture.sender.received == REQUEST


async def test_events_in_chunks(fixture: Fixture) -> None:
    stream = await fixture.open(CHUNKED + b"5\r\ndata:\r\n1")
    await fixture.sender.send(b"; extension=1\r\na\r\n2\r\n\n\n\r\n")
    assert await fixture.received(1) == ["a"]
    assert not stream.ended.done()
    await fixture.sender.send(b"0\r\n\r\n")
    assert await stream.ended is None


@given(st.lists(st.binary(min_size=1), max_size=5), st.lists(st.integers(1, 20), min_size=1))
def test_chunks_may_be_cut_anywhere(parts: list[bytes], cuts: list[int]) -> None:
    body = b"".join(b"%X\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    decoder, content, position = ChunkDecoder(), b"", 0
    for index in range(len(body)):
        size = cuts[index % len(cuts)]
        content += decoder.decode(body[position : position + size])
        position += size
    assert content == b"".join(parts)
    assert decoder.ended


@pytest.mark.parametrize("status", [401, 503])
async def test_nothing_is_read_of_another_status(fixture: Fixture, status: int) -> None:
    head = f"HTTP/1.1 {status} \r\nContent-Length: 9\r\n\r\ndata: a\n\n"
    stream = await fixture.open(head.encode())
    assert stream.status == status
    assert await stream.ended is None
    assert fixture.events.empty()


@pytest.mark.parametrize(
    "head",
    [
        b"data: a\n\n\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * event_stream.MAXIMUM_HEAD,
    ],
)
async def test_a_response_that_is_not_http(fixture: Fixture, head: bytes) -> None:
    with pytest.raises(InvalidResponse):
        await fixture.open(head)


@pytest.mark.parametrize("chunk", [b"-1\r\n", b"0x1\r\n", b";\r\n", b"1" * 1000])
async def test_a_chunk_without_a_size(fixture: Fixture, chunk: bytes) -> None:
    stream = await fixture.open(CHUNKED + chunk)
    assert isinstance(await stream.ended, InvalidResponse)


async def test_there_is_no_response(fixture: Fixture) -> None:
    opening = asyncio.create_task(fixture.open(b"HTTP/1.1"))
    await fixture.sender.end()
    with pytest.raises(ConnectionResetError):
        await opening


async def test_nobody_listens() -> None:
    with pytest.raises(ConnectionRefusedError):
        await EventStream.open(
            ("127.0.0.1", 1), b"", print, sse.Pace(), connect_timeout=60.0, silence=60.0
        )


async def test_a_connection_that_takes_too_long(fixture: Fixture) -> None:
    with pytest.raises(aiohttp.ConnectionTimeoutError):
        await EventStream.open(
            fixture.address, b"", print, sse.Pace(), connect_timeout=0.0, silence=60.0
        )


async def test_a_response_that_does_not_come(fixture: Fixture) -> None:
    with pytest.raises(aiohttp.SocketTimeoutError):
        await fixture.open(b"HTTP/1.1 200", silence=0.05)


async def test_a_silent_sender(fixture: Fixture) -> None:
    stream = await fixture.open(silence=0.05)
    assert isinstance(await stream.ended, TimeoutError)


async def test_whoever_waits_for_its_pace_is_not_silent(fixture: Fixture) -> None:
    pace = sse.Pace(rate=10_000, burst=0)
    stream = await fixture.open(HEAD + b"data: a\n\n" * 20, pace, silence=0.01)
    assert await fixture.received(20) == ["a"] * 20
    assert not stream.ended.done()
    assert pace.due > asyncio.get_running_loop().time() + 0.5
    stream.close()


async def test_a_sender_that_has_to_wait_loses_nothing(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "SHORTEST_PAUSE", 0.001)
    stream = await fixture.open(HEAD, sse.Pace(rate=2**20, burst=1000))
    for number in range(100):
        await fixture.sender.send(f"data: {number}\n\n".encode())
    assert await fixture.received(100) == [str(number) for number in range(100)]
    assert not stream.ended.done()
    stream.close()


def test_a_byte_costs_as_much_as_a_line() -> None:
    async def cost() -> float:
        pace = sse.Pace(rate=1.0, burst=10**6)
        with socket.socket() as connection:
            stream = EventStream(connection, print, pace, 60.0)
            began = pace.due = asyncio.get_running_loop().time()
            for byte in HEAD:
                stream._feed(bytes([byte]))
            return pace.due - began

    assert asyncio.run(cost()) >= len(HEAD) * sse.LINE_COST


@pytest.mark.parametrize("line", [b"data: " + b"x" * 1000 + b"\n", b"data\n", b"x"])
async def test_an_event_without_an_end_ends_the_stream(fixture: Fixture, line: bytes) -> None:
    times = sse.MAXIMUM_EVENT // len(line) + 1
    stream = await fixture.open(HEAD + line * times, sse.Pace(burst=10**9))
    assert isinstance(await stream.ended, sse.EventTooLarge)


async def test_an_event_that_its_reader_rejects_ends_the_stream(fixture: Fixture) -> None:
    def reject(event: sse.ServerSentEvent) -> None:
        raise ValueError(event.data)

    stream = await fixture.open(HEAD + b"data: a\n\ndata: b\n\n", on_event=reject)
    error = await stream.ended
    assert isinstance(error, ValueError)
    assert str(error) == "a"


async def test_whoever_gives_up_closes_the_connection(fixture: Fixture) -> None:
    opening = asyncio.create_task(fixture.open(b"HTTP"))
    await fixture.sender.connected.wait()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert await fixture.sender.closed


async def test_streams_come_and_go(fixture: Fixture) -> None:
    for _ in range(3):
        stream = await fixture.open(HEAD + b"data: a\n\n")
        assert await fixture.received(1) == ["a"]
        await fixture.sender.send(b"data: b\n\n")
        assert await fixture.received(1) == ["b"]
        stream.close()
        await fixture.sender.closed
        fixture.sender.reset()
