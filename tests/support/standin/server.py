"""The stand-in as an aiohttp application: the page, its socket, and the phones' control API."""

from __future__ import annotations

import contextlib
import secrets
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from pydantic import TypeAdapter
from support.standin import generated, identity, page, phone, receiver
from support.standin.chat import Switchboard
from support.standin.identity import Browsers, Context, Navigator
from support.standin.scripts import NAME as SCRIPT_NAME
from support.standin.scripts import application as script_application
from support.standin.world import World

SCRIPT_HOST = web.AppKey("script_host", str)
DOCUMENT: web.AppKey[Path | None] = web.AppKey("document")
LARGEST_BODY = 16 * 2**20  # bytes, of odd fields
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
    document = request.app[DOCUMENT]
    if document is not None:
        response = web.Response(text=document.read_text(), content_type="text/html")
    else:
        response = page.response(board.world.behaviour, request.app[SCRIPT_HOST])
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


async def generated_script(request: web.Request) -> web.Response:
    return generated.response(request.match_info["name"])


async def healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok")


async def favicon(_: web.Request) -> web.Response:
    return web.Response(status=204)


async def upload(request: web.Request) -> web.Response:
    """Store a page's file, which it has encrypted."""
    data = b"".join([chunk async for chunk in request.content.iter_chunked(2**18)])
    return web.json_response({"direct_path": request.app[phone.SWITCHBOARD].world.upload(data)})


async def download(request: web.Request) -> web.Response:
    """Serve an encrypted file; WhatsApp answers 410 for what it has deleted."""
    data = request.app[phone.SWITCHBOARD].world.download(request.match_info["name"])
    if data is None:
        raise web.HTTPGone
    return web.Response(body=data)


async def hang_up(app: web.Application) -> None:
    await app[phone.SWITCHBOARD].close()


def application(
    world: World, script_host: str = "/static", document: Path | None = None
) -> web.Application:
    app = web.Application(middlewares=[phone.explain], client_max_size=LARGEST_BODY)
    app[SCRIPT_HOST], app[DOCUMENT] = script_host, document
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
    app.router.add_post("/mms/{kind}", upload)
    app.router.add_get("/mms/{name:[0-9a-f]{32}}", download)
    app.router.add_get(r"/static/{name:generated-[0-9]+\.js}", generated_script)
    app.router.add_static("/static", page.WWW)
    app[receiver.HOOKS] = defaultdict(receiver.Hook)
    app.add_routes(phone.routes)
    app.add_routes(receiver.routes)
    return app


@dataclass
class Running:
    """A stand-in that runs in this process."""

    url: str
    port: int
    world: World
    browsers: Browsers
    script_port: int | None


@contextlib.asynccontextmanager
async def running(
    world: World | None = None,
    host: str = "localhost",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    scripts: bool = False,
    document: Path | None = None,
) -> AsyncIterator[Running]:
    """Serve while the block runs, on a free port unless one is given.

    With ``scripts`` a host of its own serves the page's scripts, on another port. ``document`` is
    served in place of the stand-in's page.
    """
    world = world or World()
    async with contextlib.AsyncExitStack() as stack:
        script_host, script_port = "/static", None
        if scripts:
            script_port = await stack.enter_async_context(_serving(script_application(world), tls))
            script_host = f"{'https' if tls else 'http'}://{SCRIPT_NAME}:{script_port}"
        app = application(world, script_host, document)
        port = await stack.enter_async_context(_serving(app, tls, host, port))
        url = f"{'https' if tls else 'http'}://{host}:{port}"
        yield Running(url, port, world, app[phone.SWITCHBOARD].browsers, script_port)


@contextlib.asynccontextmanager
async def _serving(
    app: web.Application, tls: ssl.SSLContext | None, host: str = "localhost", port: int = 0
) -> AsyncIterator[int]:
    """Serve an application while the block runs; yields its port."""
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
