"""The connections under Socket.IO. python-socketio trusts its clients with much: here they are held to what they may do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import engineio
import socketio
from aiohttp import hdrs, web
from wasession_api.http.problem import HTTPProblem
from wasession_api.http.routes import Handler

from wasession_gateway import metrics

NAMESPACE = "/whatsapp"
PATH = "socket.io"
ADDRESS = web.RequestKey("address", str)  # where a request comes from
LONGEST_PACKET = 32 * 1024  # bytes that a client may send at once
INTRODUCTION = 10.0  # seconds that a client has to come into the namespace and say who it is
FULL_QUEUE = 256  # events that wait for a client to read
FULL_FOR = 20.0  # seconds that a client may leave so many unread
GOODBYE = 5.0  # seconds between the end of a connection and the end of its transport
LONG_AGO = -math.inf
NONSENSE = "x"  # a packet of no type


class Packet(socketio.packet.Packet):  # type: ignore[misc]
    """Text packets only. One that makes no sense counts as the client's goodbye: nothing of it is kept, nothing logged."""

    uses_binary_events = False

    def __init__(self, *args: Any, encoded_packet: Any = None, **more: Any) -> None:
        empty = (
            encoded_packet is not None and not encoded_packet
        )  # the library would take it for an event
        super().__init__(*args, encoded_packet=NONSENSE if empty else encoded_packet, **more)

    def decode(self, encoded_packet: str) -> int:
        try:
            super().decode(encoded_packet)
            if self._makes_sense():
                return 0
        except (ValueError, TypeError, AttributeError, IndexError, RecursionError):
            pass
        self.packet_type, self.namespace, self.id, self.data = (
            socketio.packet.DISCONNECT,
            NAMESPACE,
            None,
            None,
        )
        return 0

    def _makes_sense(self) -> bool:
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


class _Counting(logging.Handler):
    """What the library takes for an error is a client's nonsense: counted, as a log of it would be the client's to fill."""

    def emit(self, record: logging.LogRecord) -> None:
        metrics.NONSENSE.inc()


class Connections:
    """The Socket.IO server and its transports. An engine is what the library calls a connection, with an id of its own."""

    def __init__(
        self, maximum_per_address: int, may_connect: Callable[[web.Request], bool]
    ) -> None:
        self._maximum, self._may_connect = maximum_per_address, may_connect
        self._requests: dict[asyncio.Task[Any], web.Request] = {}  # polls and WebSockets
        self._per_address: Counter[str] = Counter()
        self._strangers: dict[str, float] = {}  # engines outside the namespace, and since when
        self._ended: dict[
            asyncio.Task[Any], float
        ] = {}  # WebSockets whose engine has ended, and since when
        # At lower levels the library logs packets, with tokens and messages in them.
        quiet = logging.getLogger("wasession_gateway.socketio")
        quiet.setLevel(logging.ERROR)
        quiet.handlers, quiet.propagate = [_Counting()], False
        self.server = socketio.AsyncServer(
            async_mode="aiohttp",
            async_handlers=False,  # one at a time from each client: who sends more waits
            serializer=Packet,
            cors_allowed_origins=[],  # seen to by the middleware
            max_http_buffer_size=LONGEST_PACKET,
            namespaces=[NAMESPACE],
            logger=quiet,
            engineio_logger=quiet,
        )

    def attach(self, app: web.Application) -> None:
        self.server.attach(app, PATH)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """So many connections per address, and no compression, whose buffers would be most of a client's memory."""
        if request.path != f"/{PATH}/":
            return await handler(request)
        if not self._may_connect(request):
            raise HTTPProblem(
                403, "Not allowed", "pages of this origin may not connect"
            )  # WebSockets know no CORS
        if (request.content_length or 0) > LONGEST_PACKET:
            raise HTTPProblem(413, "Too large", f"{LONGEST_PACKET} bytes are the most")
        where = request[ADDRESS]
        if self._per_address[where] >= self._maximum:
            raise HTTPProblem(429, "Too many connections", "close some first", {"Retry-After": "5"})
        if hdrs.SEC_WEBSOCKET_EXTENSIONS in request.headers:
            request = _without_extensions(request)
        task = asyncio.current_task()
        assert task is not None
        self._requests[task] = request
        self._per_address[where] += 1
        try:
            return await handler(request)
        except (ValueError, IndexError, RecursionError):
            metrics.NONSENSE.inc()
            if (engine := self._engines()(request)) is not None:
                await engine.close(wait=False, abort=True)
            raise HTTPProblem(400, "Bad request", "this is not Engine.IO") from None
        finally:
            del self._requests[task]
            self._ended.pop(task, None)
            self._per_address[where] -= 1
            if not self._per_address[where]:
                del self._per_address[where]

    async def tell(self, sids: Iterable[str], event: str, content: dict[str, Any]) -> None:
        """Sends an event to these clients: encoded once, and without the task for each of them that the library would start."""
        encoded = Packet(socketio.packet.EVENT, [event, content], NAMESPACE).encode()
        packet = engineio.packet.Packet(engineio.packet.MESSAGE, encoded)
        for sid in sids:
            if (engine := self._engine(sid)) is not None:
                with contextlib.suppress(engineio.exceptions.SocketIsClosedError):
                    await engine.send(packet)

    # --- of one client ----------------------------------------------------------------------------

    def has_left(self, sid: str) -> None:
        """A client has left the namespace: its connection goes as well."""
        engine = self._engine(sid)
        if engine is None:
            return
        if engine.closing:
            engine.queue.put_nowait(None)  # ends a poll that the library would leave waiting
        else:
            self._strangers[engine.sid] = LONG_AGO

    def unread(self, sid: str) -> int:
        """How many packets wait for the client to read them."""
        engine = self._engine(sid)
        return engine.queue.qsize() if engine is not None else 0

    async def hang_up(self, sid: str) -> None:
        """Ends the client's transport, after which socket.io-client connects again by itself."""
        if (engine := self._engine(sid)) is not None:
            await _hang_up(engine)

    def _engine(self, sid: str) -> Any:
        return self.server.eio.sockets.get(self.server.manager.eio_sid_from_sid(sid, NAMESPACE))

    def _engines(self) -> Callable[[web.Request], Any]:
        """Finds the engine that a WebSocket or poll belongs to, while it is open."""
        opened = {
            id(environ["aiohttp.request"]): sid for sid, environ in self.server.environ.items()
        }
        return lambda request: self.server.eio.sockets.get(
            request.query.get("sid") or opened.get(id(request))
        )

    # --- of all of them ---------------------------------------------------------------------------

    async def sweep(self, sids: set[str]) -> None:
        """Ends what does not belong to one of these clients, or has ended and does not go."""
        now = time.monotonic()
        known = {self.server.manager.eio_sid_from_sid(sid, NAMESPACE) for sid in sids}
        engines = {
            sid: engine for sid, engine in self.server.eio.sockets.items() if sid not in known
        }
        self._strangers = {sid: self._strangers.get(sid, now) for sid in engines}
        for sid, since in self._strangers.items():
            if now - since >= INTRODUCTION:
                await _hang_up(engines[sid])
        engine_of = self._engines()
        for task, request in list(self._requests.items()):
            engine = engine_of(request)
            if engine is not None and not engine.closed:
                self._ended.pop(task, None)
            elif now - self._ended.setdefault(task, now) >= GOODBYE:
                task.cancel()  # the client reads nothing, so that the library waits for ever
                if request.transport is not None:
                    request.transport.abort()

    async def close(self) -> None:
        await asyncio.gather(
            *(_hang_up(engine) for engine in list(self.server.eio.sockets.values()))
        )
        await self.server.shutdown()

    def abort(self) -> None:
        """Ends what has not ended by itself."""
        for task in self._requests:
            task.cancel()


async def _hang_up(engine: Any) -> None:
    """The library leaves the end of the transport to the client, which may not see to it."""
    await engine.close(wait=False)
    engine.queue.put_nowait(None)


def _without_extensions(request: web.Request) -> web.Request:
    headers = request.headers.copy()
    headers.popall(hdrs.SEC_WEBSOCKET_EXTENSIONS)
    try:
        return request.clone(headers=headers)
    except UnicodeEncodeError:
        raise HTTPProblem(400, "Bad request", "a header is not UTF-8") from None
