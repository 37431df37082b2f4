"""Streams of server-sent events for a reader of thousands of them.

A response of aiohttp takes 17 KiB, and each heartbeat wakes the event loop and a task: 100 µs. This
takes 3 KiB and a tenth of the time, as all streams are read together, ten times a second; an event
may come that much later. Of HTTP it knows what a stream consists of: a head, and a body in chunks
or to the end.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import weakref
from collections.abc import Callable

import aiohttp

from wasession_api.http import sse

READ_INTERVAL = 0.1  # seconds
SILENCE_CHECK_INTERVAL = 5.0  # seconds
READ_SIZE = 64 * 2**10  # bytes, of one stream at a time
MAXIMUM_HEAD = 16 * 2**10  # bytes, of the status line and the header fields
MAXIMUM_SIZE_LINE = 256  # bytes, of the line that begins a chunk
# What is received is consumed before anything else is: one buffer does for all streams.
_BUFFER = memoryview(bytearray(READ_SIZE))
OnEvent = Callable[[sse.ServerSentEvent], None]


class InvalidResponse(ValueError):
    """The response is not HTTP/1.1."""


class EventStream:
    """The response to one request for a stream.

    ``on_event`` is called with each event of a response whose ``status`` is 200. A sender that is
    faster than ``pace`` has to wait, and loses nothing.

    The result of ``ended`` is why there is no more: None when the sender has ended the stream, else
    ``InvalidResponse``, ``sse.EventTooLarge``, ``OSError``, what ``on_event`` has raised, or
    ``TimeoutError`` when nothing has come for ``silence`` seconds.
    """

    __slots__ = (
        "_chunks",
        "_on_event",
        "_pace",
        "_parser",
        "_reader",
        "_received_at",
        "_rest",
        "_silence",
        "_socket",
        "ended",
        "status",
    )

    def __init__(
        self, connection: socket.socket, on_event: OnEvent, pace: sse.Pace, silence: float
    ) -> None:
        loop = asyncio.get_running_loop()
        self.status = 0  # until the head has come
        self.ended: asyncio.Future[Exception | None] = loop.create_future()
        self._socket = connection
        self._reader = _reader_of(loop)
        self._on_event = on_event
        self._pace = pace
        self._silence = silence
        self._received_at = loop.time()
        self._parser = sse.EventParser()
        self._chunks: ChunkDecoder | None = None
        self._rest = b""  # of the head, or of a line, that has not come in full

    @classmethod
    async def open(
        cls,
        address: tuple[str, int],
        request: bytes,
        on_event: OnEvent,
        pace: sse.Pace,
        *,
        connect_timeout: float,
        silence: float,
    ) -> EventStream:
        """Connect to an IP address, send the request and return the response once it has begun.

        Raises ``InvalidResponse`` or ``OSError``. Timeouts are in seconds.
        """
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        stream = cls(connection, on_event, pace, silence)
        try:
            connection.setblocking(False)
            await stream._connect(address, connect_timeout)
            await stream._read_head(request)
        except BaseException:
            stream.close()
            raise
        return stream

    def close(self) -> None:
        """End the stream at once."""
        self._end(None)

    def receive(self) -> None:
        """Read what has come; called by the reader."""
        try:
            size = self._socket.recv_into(_BUFFER)
            self._received_at = asyncio.get_running_loop().time()
            if size:
                self._feed(bytes(_BUFFER[:size]))
            else:
                self._end(None)
        except BlockingIOError:
            return
        except Exception as error:
            self._end(error)

    def check_silence(self, now: float) -> None:
        """End the stream if nothing has come for too long."""
        if now - self._received_at >= self._silence:
            self._end(aiohttp.SocketTimeoutError())

    async def _connect(self, address: tuple[str, int], seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().sock_connect(self._socket, address)
        except TimeoutError:
            raise aiohttp.ConnectionTimeoutError from None

    async def _read_head(self, request: bytes) -> None:
        """Read at once until the head has come, and leave the rest to the reader."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._silence):
                await loop.sock_sendall(self._socket, request)
                while not self.status:
                    data = await loop.sock_recv(self._socket, MAXIMUM_HEAD)
                    if not data:
                        raise ConnectionResetError("there was no response")
                    self._feed_head(data)
        except TimeoutError:
            raise aiohttp.SocketTimeoutError from None
        if self.status != 200:
            self._end(None)
            return
        self._received_at = loop.time()
        self._reader.add(self._socket, self)
        content, self._rest = self._rest, b""
        try:
            self._feed(content)
        except Exception as error:
            self._end(error)

    def _feed_head(self, data: bytes) -> None:
        head, complete, rest = (self._rest + data).partition(b"\r\n\r\n")
        _limit(head, MAXIMUM_HEAD)
        if not complete:
            self._rest = head
            return
        self.status, chunked = _parse_head(head)
        self._chunks = ChunkDecoder() if chunked else None
        self._rest = rest

    def _feed(self, data: bytes) -> None:
        # A read costs as much as a line: the sender may send byte by byte.
        cost = len(data) + sse.LINE_COST * (1 + data.count(b"\n"))
        if wait := self._pace.take(cost, self._received_at):
            self._pause(max(wait, sse.SHORTEST_PAUSE))
        self._parse(data if self._chunks is None else self._chunks.decode(data))
        if self._chunks is not None and self._chunks.ended:
            self._end(None)

    def _parse(self, content: bytes) -> None:
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            if event := self._parser.feed(line):
                self._on_event(event)
        if len(self._rest) > sse.MAXIMUM_EVENT:
            raise sse.EventTooLarge(f"a line has more than {sse.MAXIMUM_EVENT} bytes")

    def _pause(self, seconds: float) -> None:
        self._reader.remove(self._socket, self)
        asyncio.get_running_loop().call_later(seconds, self._resume)

    def _resume(self) -> None:
        if not self.ended.done():
            self._received_at = asyncio.get_running_loop().time()  # the silence was not its own
            self._reader.add(self._socket, self)

    def _end(self, error: Exception | None) -> None:
        self._reader.remove(self._socket, self)
        self._socket.close()
        if not self.ended.done():
            self.ended.set_result(error)


class _Reader:
    """Reads all open streams of an event loop at an interval, and ends those that are silent.

    The loop is woken ten times a second, and not for each of the heartbeats of thousands of pods.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._streams: set[EventStream] = set()
        self._checked_at = 0.0
        self._is_scheduled = False

    def add(self, connection: socket.socket, stream: EventStream) -> None:
        self._streams.add(stream)
        self._selector.register(connection, selectors.EVENT_READ, stream)
        self._schedule()

    def remove(self, connection: socket.socket, stream: EventStream) -> None:
        if stream in self._streams:
            self._streams.remove(stream)
            self._selector.unregister(connection)

    def _schedule(self) -> None:
        if self._streams and not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_later(READ_INTERVAL, self._read)

    def _read(self) -> None:
        self._is_scheduled = False
        loop = asyncio.get_running_loop()
        for key, _ in self._selector.select(0):
            if key.data in self._streams:  # not closed by what another one has sent
                key.data.receive()
        if loop.time() - self._checked_at >= SILENCE_CHECK_INTERVAL:
            self._checked_at = loop.time()
            for stream in list(self._streams):
                stream.check_silence(self._checked_at)
        self._schedule()


_readers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Reader] = (
    weakref.WeakKeyDictionary()
)


def _reader_of(loop: asyncio.AbstractEventLoop) -> _Reader:
    if loop not in _readers:
        _readers[loop] = _Reader()
    return _readers[loop]


class ChunkDecoder:
    """Takes a body in chunks apart (RFC 9112, 7.1); ``ended`` is true after the last one."""

    __slots__ = ("_left", "_rest", "ended")

    def __init__(self) -> None:
        self.ended = False
        self._left = 0  # bytes of the present chunk
        self._rest = b""  # of a size line that has not come in full

    def decode(self, data: bytes) -> bytes:
        """Return the content of what has come; raise ``InvalidResponse``."""
        content = []
        data = self._rest + data
        self._rest = b""
        while data and not self.ended:
            if self._left:
                part, data = data[: self._left], data[self._left :]
                self._left -= len(part)
                content.append(part)
                continue
            line, complete, data = data.partition(b"\r\n")
            _limit(line, MAXIMUM_SIZE_LINE)
            if not complete:
                self._rest = line
            elif line:  # an empty one ends the chunk before
                self._left = _parse_size(line)
                self.ended = self._left == 0
        return b"".join(content)


def _parse_head(head: bytes) -> tuple[int, bool]:
    """Return the status, and whether the body comes in chunks."""
    status_line, *fields = head.split(b"\r\n")
    version, _, rest = status_line.partition(b" ")
    status = rest[:3]
    if not version.startswith(b"HTTP/1.") or not (len(status) == 3 and status.isdigit()):
        raise InvalidResponse("there is no status line of HTTP/1.1")
    parted = [field.lower().partition(b":") for field in fields]
    encodings = [value.strip() for name, _, value in parted if name == b"transfer-encoding"]
    if encodings not in ([], [b"chunked"]):
        raise InvalidResponse("the transfer encoding is unknown")
    return int(status), bool(encodings)


def _parse_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits or digits.strip(b"0123456789abcdefABCDEF"):
        raise InvalidResponse("a chunk has no size")
    return int(digits, 16)


def _limit(data: bytes, maximum: int) -> None:
    if len(data) > maximum:
        raise InvalidResponse(f"a line or head has more than {maximum} bytes")
