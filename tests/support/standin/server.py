"""The stand-in as an aiohttp application: the page, its socket, and the phones' control API."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import web
from support.standin import page, phone
from support.standin.chat import Switchboard
from support.standin.world import World


async def index(request: web.Request) -> web.Response:
    return page.response(request.app[phone.SWITCHBOARD].world.behaviour)


async def healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok")


async def favicon(_: web.Request) -> web.Response:
    return web.Response(status=204)


async def upload(request: web.Request) -> web.Response:
    """A page's file: counted, hashed and forgotten."""
    size, digest = 0, hashlib.sha256()
    async for chunk in request.content.iter_chunked(2**18):
        size += len(chunk)
        digest.update(chunk)
    return web.json_response(
        {"id": request.app[phone.SWITCHBOARD].world.upload(size, digest.hexdigest())}
    )


async def hang_up(app: web.Application) -> None:
    await app[phone.SWITCHBOARD].close()


def application(world: World) -> web.Application:
    app = web.Application(middlewares=[phone.explain])
    app[phone.SWITCHBOARD] = Switchboard(world)
    app.on_shutdown.append(hang_up)
    app.router.add_get("/", index)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/favicon.ico", favicon)
    app.router.add_get("/ws/chat", app[phone.SWITCHBOARD].handle)
    app.router.add_post("/upload", upload)
    app.router.add_static("/static", page.WWW)
    app.add_routes(phone.routes)
    return app


@dataclass
class Running:
    """A stand-in that runs in this process."""

    url: str
    port: int
    world: World


@contextlib.asynccontextmanager
async def running(
    world: World | None = None,
    host: str = "localhost",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Running]:
    """Serves while the block runs, on a free port unless one is given."""
    world = world or World()
    runner = web.AppRunner(application(world), shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
        port = runner.addresses[0][1]
        yield Running(f"{'https' if tls else 'http'}://{host}:{port}", port, world)
    finally:
        await runner.cleanup()
