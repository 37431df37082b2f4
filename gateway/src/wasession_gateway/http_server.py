"""Serve an aiohttp application with the time limits that aiohttp does not set."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

from aiohttp import web
from wasession_api.http.routes import Handler

HEADER_TIMEOUT = 15.0  # seconds for the headers of a request, from a connection's first byte on
UNREAD_TIMEOUT = 60.0  # seconds that a caller may leave a response unread
KEEP_ALIVE = 620.0  # seconds without a request; load balancers reuse connections for up to 600
LINGERING = 1.0  # seconds during which the rest of a rejected body is read and discarded


class Connection(asyncio.Protocol):
    """Pass a connection on to aiohttp; abort it when a request's headers do not arrive in time."""

    def __init__(self, inner: asyncio.Protocol) -> None:
        self._inner = inner
        self._timer: asyncio.TimerHandle | None = None
        self._requests = 0  # being answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        _connections[transport] = self
        _limit_unread(transport.get_extra_info("socket"))
        self._start_timer()
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self._requests:
            self._start_timer()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self._stop_timer()
        del _connections[self._transport]
        self.lost.set_result(None)
        self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def request_started(self) -> None:
        """Its headers have arrived; its body has time limits of its own."""
        self._requests += 1
        self._stop_timer()

    def request_ended(self) -> None:
        self._requests -= 1

    def _start_timer(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(HEADER_TIMEOUT, self._transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_connections: dict[asyncio.BaseTransport, Connection] = {}  # those that are open


def _limit_unread(connection: socket.socket) -> None:
    """Have the kernel end a connection whose peer does not accept data (tcp(7))."""
    milliseconds = int(UNREAD_TIMEOUT * 1000)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


@contextlib.contextmanager
def cancelled_on_disconnect(request: web.Request) -> Iterator[None]:
    """Cancel the request if the caller goes away while the block runs."""
    connection = _connections.get(request.transport) if request.transport else None
    task = asyncio.current_task()
    assert task is not None
    if connection is None:  # gone already
        task.cancel()
        yield
        return

    def cancel(_: asyncio.Future[None]) -> None:
        task.cancel()

    connection.lost.add_done_callback(cancel)
    try:
        yield
    finally:
        connection.lost.remove_done_callback(cancel)


@web.middleware
async def note_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell the connection that a request's headers are complete."""
    connection = _connections.get(request.transport) if request.transport else None
    if connection is None:  # lost in the meantime
        return await handler(request)
    connection.request_started()
    try:
        return await handler(request)
    finally:
        connection.request_ended()


class Site(web.BaseSite):
    """Listens on a port, as ``web.TCPSite`` does."""

    def __init__(self, runner: web.AppRunner, host: str | None, port: int) -> None:
        super().__init__(runner)
        self._host, self._port = host, port

    @property
    def name(self) -> str:
        return f"http://{self._host or '*'}:{self._port}"

    async def start(self) -> None:
        await super().start()
        server = self._runner.server
        assert server is not None
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(server()), self._host, self._port, backlog=self._backlog
        )


async def serve(
    app: web.Application, host: str | None, port: int, shutdown_timeout: float
) -> web.AppRunner:
    """Serve the application, to whose middlewares ``note_request`` belongs as the first."""
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=shutdown_timeout,
        lingering_time=LINGERING,
        keepalive_timeout=KEEP_ALIVE,
    )
    await runner.setup()
    await Site(runner, host, port).start()
    return runner
