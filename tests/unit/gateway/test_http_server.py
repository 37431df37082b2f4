"""What the HTTP server holds of its connections."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from wasession_gateway import http_server


async def test_a_closed_connection_leaves_nothing_behind() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=str(len(http_server._connections)))

    app = web.Application(middlewares=[http_server.note_request])
    app.router.add_get("/", answer)
    runner = await http_server.serve(app, "127.0.0.1", 0, shutdown_timeout=1)
    try:
        host, port = runner.addresses[0]
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET / HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"1")
        writer.close()
        async with asyncio.timeout(10):
            while http_server._connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        await runner.cleanup()


async def test_a_request_whose_caller_has_gone_before_is_cancelled() -> None:
    async def wait() -> None:
        with http_server.cancelled_on_disconnect(make_mocked_request("GET", "/")):
            await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(wait())
