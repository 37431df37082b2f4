"""The connections under Socket.IO, with the limits that python-socketio does not set itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import engineio
import socketio
from aiohttp import hdrs, web
from wasession_api.http.problem import HTTPProblem
from wasession_api.http.routes import Handler

from wasession_gateway import metrics
from wasession_gateway.limits import Limiter, too_many
from wasession_gateway.problems import late_body

NAMESPACE = "/whatsapp"
PATH = "socket.io"
ADDRESS = web.RequestKey("address", str)  # the caller's, for limits
MAXIMUM_PACKET = 32 * 1024  # bytes that a client may send at once
REQUESTS_PER_ENGINE = 8  # open ones; a client has a poll, a post and a WebSocket at most
TOO_MANY_CONNECTIONS_RETRY = 5.0  # seconds
BODY_TIMEOUT = 30.0  # seconds for a packet to arrive
INTRODUCTION = 10.0  # seconds for a client to join the namespace and authenticate
FULL_QUEUE = 256  # events that wait for a client to read them
AT_ONCE = 100  # packets that are sent before a client has read any, over a WebSocket
AT_ONCE_POLLING = 10  # python-engineio accepts 16 in the answer to a poll, other events among them
FULL_FOR = 20.0  # seconds that a client may leave so many unread
GOODBYE = 5.0  # seconds between the end of a connection and the end of its transport
LONG_AGO = -math.inf
INVALID = "x"  # encodes a packet of no type


class Packet(socketio.packet.Packet):  # type: ignore[misc]
    """Text packets only.

    An invalid packet decodes as a disconnect by the client: none of it is processed or logged.
    """

    uses_binary_events = False

    def __init__(self, *args: Any, encoded_packet: Any = None, **options: Any) -> None:
        if encoded_packet is not None and not encoded_packet:
            encoded_packet = INVALID  # the library would decode an empty packet as an event
        super().__init__(*args, encoded_packet=encoded_packet, **options)

    def decode(self, encoded_packet: str) -> int:
        try:
            super().decode(encoded_packet)
            if self._is_valid():
                return 0
        except (ValueError, TypeError, AttributeError, IndexError, RecursionError):
            pass
        self.packet_type, self.namespace = socketio.packet.DISCONNECT, NAMESPACE
        self.id = self.data = None
        return 0

    def _is_valid(self) -> bool:
        data: Any = self.data
        match self.packet_type:
            case socketio.packet.CONNECT:
                return data is None or isinstance(data, dict)
            case socketio.packet.DISCONNECT:
                return True
            case socketio.packet.EVENT:
                # The library would take a client's event of these names for its own.
                return (
                    isinstance(data, list)
                    and isinstance(data[0], str)
                    and data[0] not in ("connect", "disconnect")
                )
            case socketio.packet.ACK:
                return isinstance(data, list)
        return False


class _CountErrors(logging.Handler):
    """Count the library's errors, which clients cause and with which they could fill the log."""

    def emit(self, record: logging.LogRecord) -> None:
        metrics.INVALID_PACKETS.inc()


class Connections:
    """The Socket.IO server and its transports.

    The library calls a connection a socket of its Engine.IO server: here it is an engine, with an
    ID of its own.
    """

    def __init__(
        self,
        maximum_per_address: int,
        handshakes: Limiter,
        may_connect: Callable[[web.Request], bool],
    ) -> None:
        self._maximum, self._handshakes, self._may_connect = (
            maximum_per_address,
            handshakes,
            may_connect,
        )
        self._requests: dict[asyncio.Task[Any], web.Request] = {}  # polls and WebSockets
        self._per_engine: Counter[str] = Counter()  # open requests of an engine
        # By address: open handshakes, which for WebSockets are connections, and polling engines.
        self._opening: Counter[str] = Counter()
        self._polling: defaultdict[str, set[str]] = defaultdict(set)
        # Engines outside the namespace, and WebSockets whose engine has ended, each since when.
        self._strangers: dict[str, float] = {}
        self._ended: dict[asyncio.Task[Any], float] = {}
        # Below ERROR the library logs packets, with tokens and messages in them.
        logger = logging.getLogger("wasession_gateway.socketio")
        logger.setLevel(logging.ERROR)
        logger.handlers, logger.propagate = [_CountErrors()], False
        self.server = socketio.AsyncServer(
            async_mode="aiohttp",
            async_handlers=False,  # one event of a client at a time, so that a flood waits
            serializer=Packet,
            cors_allowed_origins=[],  # the middleware checks origins
            max_http_buffer_size=MAXIMUM_PACKET,
            namespaces="*",
            logger=logger,
            engineio_logger=logger,
        )

    def attach(self, app: web.Application) -> None:
        self.server.attach(app, PATH)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Limit handshakes and connections per address, and disable compression.

        Requests of an open connection do not count: a client with socket.io-client's default
        transports sends many, and with one of them rejected it would lose its connection.
        Compression buffers would take most of a client's memory.
        """
        if request.path != f"/{PATH}/":
            return await handler(request)
        if not self._may_connect(request):  # CORS does not cover WebSockets
            raise HTTPProblem(403, "Not allowed", "pages of this origin may not connect")
        if (request.content_length or 0) > MAXIMUM_PACKET:
            raise HTTPProblem(413, "Too large", f"a body may have at most {MAXIMUM_PACKET} bytes")
        sid = request.query.get("sid")
        if not self._is_open(sid):
            self._handshakes.check(request[ADDRESS])
        if hdrs.SEC_WEBSOCKET_EXTENSIONS in request.headers:
            request = _without_extensions(request)
        with self._tracked(request), self._limited(sid, request[ADDRESS]):
            await _wait_for_body(request)
            try:
                response = await handler(request)
                if sid is None and response.status == 200:
                    self._note_polling(request)
                return response
            except (ValueError, LookupError, RecursionError):
                metrics.INVALID_PACKETS.inc()
                if (engine := self._engine_finder()(request)) is not None:
                    await engine.close(wait=False, abort=True)
                raise HTTPProblem(
                    400, "Bad request", "the request is not valid Engine.IO"
                ) from None

    def _is_open(self, sid: str | None) -> bool:
        engine = self.server.eio.sockets.get(sid)
        return engine is not None and not engine.closed

    @contextlib.contextmanager
    def _tracked(self, request: web.Request) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None
        self._requests[task] = request
        try:
            yield
        finally:
            del self._requests[task]
            self._ended.pop(task, None)

    @contextlib.contextmanager
    def _limited(self, sid: str | None, address: str) -> Iterator[None]:
        """Limit the requests of an engine, or the connections of an address."""
        counter, key = (self._opening, address) if sid is None else (self._per_engine, sid)
        if sid is not None and counter[key] >= REQUESTS_PER_ENGINE:
            raise too_many("Too many requests", "this connection has too many open requests", 1)
        if sid is None and self._connections_of(address) >= self._maximum:
            detail = "your address has too many connections"
            raise too_many("Too many connections", detail, TOO_MANY_CONNECTIONS_RETRY)
        counter[key] += 1
        try:
            yield
        finally:
            counter[key] -= 1
            if not counter[key]:
                del counter[key]

    def _connections_of(self, address: str) -> int:
        count = self._opening[address] + len(self._polling.get(address, ()))
        if count >= self._maximum and address in self._polling:
            self._forget_closed(address)
            count = self._opening[address] + len(self._polling.get(address, ()))
        return count

    def _note_polling(self, request: web.Request) -> None:
        """Count the engine that a handshake has opened: it is among the newest."""
        for sid, environ in reversed(self.server.environ.items()):
            if environ["aiohttp.request"] is request:
                self._polling[request[ADDRESS]].add(sid)
                return

    def _forget_closed(self, address: str) -> None:
        self._polling[address] = {sid for sid in self._polling[address] if self._is_open(sid)}
        if not self._polling[address]:
            del self._polling[address]

    async def send(self, sids: Iterable[str], event: str, payload: dict[str, Any]) -> None:
        """Send an event to these clients.

        It is encoded once, without the task for each client that the library would start.
        """
        encoded = Packet(socketio.packet.EVENT, [event, payload], NAMESPACE).encode()
        packet = engineio.packet.Packet(engineio.packet.MESSAGE, encoded)
        for sid in sids:
            if (engine := self._engine(sid)) is not None:
                with contextlib.suppress(engineio.exceptions.SocketIsClosedError):
                    await engine.send(packet)

    # --- one client -------------------------------------------------------------------------------

    def left(self, sid: str) -> None:
        """A client has left the namespace: close its connection as well."""
        engine = self._engine(sid)
        if engine is None:
            return
        if engine.closing:
            engine.queue.put_nowait(None)  # ends a poll that the library would leave waiting
        else:
            self._strangers[engine.sid] = LONG_AGO

    def unread(self, sid: str) -> int:
        """Return how many packets wait for the client to read them."""
        engine = self._engine(sid)
        return engine.queue.qsize() if engine is not None else 0

    def packets_at_once(self, sid: str) -> int:
        """Return how many packets to send before the client has read any of them."""
        engine = self._engine(sid)
        return AT_ONCE if engine is not None and engine.upgraded else AT_ONCE_POLLING

    async def read_all(self, sid: str) -> None:
        """Wait until the transport has taken all packets; a client that has gone never reads."""
        if (engine := self._engine(sid)) is not None:
            await engine.queue.join()

    async def hang_up(self, sid: str) -> None:
        """Close the client's transport; socket.io-client then reconnects by itself."""
        if (engine := self._engine(sid)) is not None:
            await _hang_up(engine)

    def _engine(self, sid: str) -> Any:
        return self.server.eio.sockets.get(self.server.manager.eio_sid_from_sid(sid, NAMESPACE))

    def _engine_finder(self) -> Callable[[web.Request], Any]:
        """Return a function from a poll or WebSocket to its engine, None once that has ended."""
        opened = {
            id(environ["aiohttp.request"]): sid for sid, environ in self.server.environ.items()
        }
        return lambda request: self.server.eio.sockets.get(
            request.query.get("sid") or opened.get(id(request))
        )

    # --- all of them ------------------------------------------------------------------------------

    async def sweep(self, sids: set[str]) -> None:
        """Close connections without a client in the namespace, and those that do not end."""
        now = time.monotonic()
        members = {self.server.manager.eio_sid_from_sid(sid, NAMESPACE) for sid in sids}
        engines = {
            sid: engine for sid, engine in self.server.eio.sockets.items() if sid not in members
        }
        for address in list(self._polling):
            self._forget_closed(address)
        self._strangers = {sid: self._strangers.get(sid, now) for sid in engines}
        for sid, since in self._strangers.items():
            if now - since >= INTRODUCTION:
                await _hang_up(engines[sid])
        engine_of = self._engine_finder()
        for task, request in list(self._requests.items()):
            engine = engine_of(request)
            if engine is not None and not engine.closed:
                self._ended.pop(task, None)
            elif now - self._ended.setdefault(task, now) >= GOODBYE:
                task.cancel()  # the client reads nothing, so the library would wait for ever
                if request.transport is not None:
                    request.transport.abort()

    async def close(self) -> None:
        await asyncio.gather(
            *(_hang_up(engine) for engine in list(self.server.eio.sockets.values()))
        )
        await self.server.shutdown()

    def abort(self) -> None:
        """End the requests that have not ended by themselves."""
        for task in self._requests:
            task.cancel()


async def _hang_up(engine: Any) -> None:
    """Close the transport too; the library leaves that to the client, which may not do it."""
    await engine.close(wait=False)
    engine.queue.put_nowait(None)


async def _wait_for_body(request: web.Request) -> None:
    """Wait for a body, which is small enough to be buffered; the library would wait for ever."""
    if not request.content_length:
        return
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            await request.content.wait_eof()
    except TimeoutError:
        raise late_body(BODY_TIMEOUT) from None


def _without_extensions(request: web.Request) -> web.Request:
    headers = request.headers.copy()
    headers.popall(hdrs.SEC_WEBSOCKET_EXTENSIONS)
    try:
        return request.clone(headers=headers)
    except UnicodeEncodeError:
        raise HTTPProblem(400, "Bad request", "a header is not UTF-8") from None
