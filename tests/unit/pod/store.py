"""A store of archives: a real HTTP server that takes PUT and GET requests with a signed URL."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from aiohttp import web
from support.loopback import unused_port

SIGNATURE = "X-Amz-Signature=5ec7e7"


@dataclass
class Store:
    """``statuses`` are those of the next responses; then it does what it is asked."""

    base: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    gate: asyncio.Event | None = None  # PUT requests wait for it, if there is one

    def url(self, key: str) -> str:
        return f"{self.base}/{key}?X-Amz-Credential=a%2Fb&{SIGNATURE}"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        key = request.path.lstrip("/")
        self.requests.append((f"{request.method} {request.raw_path}", dict(request.headers)))
        body = await request.read()
        if request.method == "PUT" and self.gate is not None:
            await self.gate.wait()
        if self.statuses:
            return web.Response(status=self.statuses.pop(0), headers={"Location": "/elsewhere"})
        if SIGNATURE not in request.query_string:
            return web.Response(status=403, text="SignatureDoesNotMatch")
        if request.method == "PUT":
            self.objects[key] = body
            return web.Response()
        if key not in self.objects:
            return web.Response(status=404)
        return web.Response(body=self.objects[key])

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Store]:
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{key:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None)  # it would have the signatures
        await runner.setup()
        port = unused_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        self.base = f"http://127.0.0.1:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()


@contextlib.contextmanager
def in_a_thread() -> Iterator[Store]:
    """Serve a store for a program that has no event loop yet."""
    store, started, ended = Store(), threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        async with store.serving():
            loops.append(asyncio.get_running_loop())
            started.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(20)
    try:
        yield store
    finally:
        loops[0].call_soon_threadsafe(ended.set)
        thread.join()
