"""The stand-in as an aiohttp application: the page, its socket, and the phones' control API."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from pydantic import TypeAdapter
from support.standin import identity, page, phone
from support.standin.chat import Switchboard
from support.standin.identity import Browsers, Context, Navigator
from support.standin.world import World

CONTEXT: TypeAdapter[Context] = TypeAdapter(Context)
SCRIPTS: dict[str, Context] = {
    "/document.js": "document",
    "/frame.js": "iframe",
    "/worker.js": "worker",
    "/shared-worker.js": "shared_worker",
    "/sw.js": "service_worker",
}


async def index(request: web.Request) -> web.Response:
    board = request.app[phone.SWITCHBOARD]
    response = page.response(board.world.behaviour)
    browser = identity.browser_of(request) or secrets.token_hex(8)
    response.set_cookie(identity.COOKIE, browser, httponly=True)
    board.browsers.note(request, "document", browser=browser)
    return response


async def frame(request: web.Request) -> web.Response:
    request.app[phone.SWITCHBOARD].browsers.note(request, "iframe")
    return page.frame()


def context_script(context: Context) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Serves what a context runs, and notes who asks for it."""

    async def serve(request: web.Request) -> web.Response:
        request.app[phone.SWITCHBOARD].browsers.note(request, context)
        return identity.script(context)

    return serve


async def tell_identity(request: web.Request) -> web.Response:
    context = CONTEXT.validate_python(request.match_info["context"])
    says = Navigator.model_validate_json(await request.read())
    request.app[phone.SWITCHBOARD].browsers.note(request, context, says)
    return web.Response(status=204)


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
    app.router.add_get("/frame", frame)
    for path, context in SCRIPTS.items():
        app.router.add_get(path, context_script(context))
    app.router.add_post("/identity/{context}", tell_identity)
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
    browsers: Browsers


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
        browsers = runner.app[phone.SWITCHBOARD].browsers
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
        port = runner.addresses[0][1]
        yield Running(f"{'https' if tls else 'http'}://{host}:{port}", port, world, browsers)
    finally:
        await runner.cleanup()
