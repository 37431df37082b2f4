"""The stand-in as an aiohttp application: the page, its socket, and the phones' control API."""

from __future__ import annotations

import contextlib
import json
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from standin.socket import Switchboard
from standin.world import Behaviour, Fault, Message, World

WWW = Path(__file__).with_name("www")
# The bundles that the page loads, and the files that they are made of. A bundle arrives whole, as on the real page.
LOADER = ("loader",)
EARLY = ("models", "ids", "utilities", "credentials", "connection")
LATE = ("collections", "messages", "backend")
LATE_AFTER_MS = 400  # wa-js waits until the number of modules has settled, so a late bundle matters
Number = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{6,14}$")]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SWITCHBOARD = web.AppKey("switchboard", Switchboard)


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Scan(Body):
    """What a phone does with the QR's text."""

    qr: str
    phone: Number = "15551234567"


class Code(Body):
    """What a person types on the phone."""

    phone: Number
    code: str


class Send(Body):
    """A text from somebody to an account."""

    sender: Number = Field(alias="from")
    to: Number
    text: str


class Account(Body):
    phone: Number


class FaultOrder(Body):
    """A fault, for the pages of one account or of all."""

    kind: Fault
    phone: Number | None = None
    seconds: float = 5


def problem(status: int, detail: str) -> web.Response:
    return web.json_response({"status": status, "detail": detail}, status=status)


def page(request: web.Request) -> web.Response:
    """The page, with a content security policy as strict as the real one's."""
    behaviour = request.app[SWITCHBOARD].world.behaviour
    settings = {
        "firstRefMs": behaviour.first_ref_ms,
        "nextRefMs": behaviour.next_ref_ms,
        "legacyCmd": behaviour.legacy_cmd,
    }
    nonce = secrets.token_urlsafe(6)
    html = f"""<!DOCTYPE html><html id="whatsapp-web" lang="en" dir="ltr"><head><meta charset="utf-8">
<title>WhatsApp</title>
<script nonce="{nonce}">__d_stub=[];__d=function(e,t,n,r){{__d_stub.push([e,t,n,r])}};
__rl_stub=[];requireLazy=function(){{__rl_stub.push(arguments)}};
self.__standin={json.dumps(settings)};</script>
<script src="/static/loader.js" async nonce="{nonce}"></script>
<script src="/static/early.js" async nonce="{nonce}"></script>
<script nonce="{nonce}">setTimeout(function(){{const s=document.createElement('script');s.src='/static/late.js';
s.nonce="{nonce}";document.head.appendChild(s)}},{LATE_AFTER_MS});</script>
</head><body><div id="app"></div></body></html>"""
    policy = (
        f"default-src 'self'; script-src 'self' 'nonce-{nonce}' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "connect-src 'self' ws: wss: https:; img-src * data: blob:; worker-src 'self' blob:"
    )
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store"}
    return web.Response(text=html, content_type="text/html", headers=headers)


def bundle(files: tuple[str, ...]) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A handler that serves these files as one script."""
    script = "".join((WWW / f"{name}.js").read_text() for name in files)

    async def serve(_: web.Request) -> web.Response:
        return web.Response(text=script, content_type="text/javascript")

    return serve


async def scan(request: web.Request) -> web.Response:
    board, order = request.app[SWITCHBOARD], Scan.model_validate_json(await request.read())
    parts = order.qr.split(",")
    if len(parts) not in (4, 5):
        return problem(400, f"a QR has 4 or 5 parts, not {len(parts)}")
    connection = board.refs.get(parts[0])
    if connection is None:
        return problem(410, "the QR has expired")
    if connection.noise != parts[1]:
        return problem(409, "the QR is not of the page that shows it")
    return web.json_response({"device": (await board.pair(connection, parts[1], order.phone)).id})


async def code(request: web.Request) -> web.Response:
    board, order = request.app[SWITCHBOARD], Code.model_validate_json(await request.read())
    found = board.codes.pop((order.phone, order.code), None)
    if found is None:
        return problem(403, "no page shows this code for this phone")
    return web.json_response({"device": (await board.pair(*found, order.phone)).id})


async def passkey(request: web.Request) -> web.Response:
    board, order = request.app[SWITCHBOARD], Account.model_validate_json(await request.read())
    event = board.waiting_for_passkey.get(order.phone)
    if event is None:
        return problem(409, "nothing waits for this account's passkey")
    event.set()
    return web.json_response({})


async def logout(request: web.Request) -> web.Response:
    board, order = request.app[SWITCHBOARD], Account.model_validate_json(await request.read())
    devices = board.world.devices_of(order.phone)
    for device in devices:
        await board.unlink(device)
    return web.json_response({"removed": len(devices)})


async def send(request: web.Request) -> web.Response:
    board, order = request.app[SWITCHBOARD], Send.model_validate_json(await request.read())
    message = Message(
        id="3A" + secrets.token_hex(9).upper(),
        sender=f"{order.sender}@c.us",
        to=f"{order.to}@c.us",
        text=order.text,
        at=int(time.time()),
    )
    pages = board.connections(order.to)
    for page_ in pages:
        await page_.send("message", id=message.id, body=message.text, ts=message.at, name="Ada", **{"from": message.sender})
    return web.json_response({"id": message.id, "delivered": len(pages)})


async def messages(request: web.Request) -> web.Response:
    found = request.app[SWITCHBOARD].world.state.messages
    return web.json_response([message.model_dump(by_alias=True) for message in found])


async def devices(request: web.Request) -> web.Response:
    board = request.app[SWITCHBOARD]
    found = board.world.state.devices.values()
    return web.json_response([{"id": d.id, "phone": d.phone, "online": d.id in board.online} for d in found])


async def fault(request: web.Request) -> web.Response:
    board, order = request.app[SWITCHBOARD], FaultOrder.model_validate_json(await request.read())
    if order.kind == "refuse":
        board.world.refuse(order.seconds)
    for connection in board.connections(order.phone):
        if order.kind in ("drop", "refuse"):
            await connection.ws.close()
        else:
            await connection.send("stream-error", code=order.kind)
    return web.json_response({})


async def behaviour(request: web.Request) -> web.Response:
    world = request.app[SWITCHBOARD].world
    changes = json.loads(await request.read())
    world.behaviour = Behaviour.model_validate(world.behaviour.model_dump() | changes)
    return web.json_response(world.behaviour.model_dump())


@web.middleware
async def explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except (ValidationError, json.JSONDecodeError) as error:
        return problem(400, str(error))


def application(world: World) -> web.Application:
    app = web.Application(middlewares=[explain])
    app[SWITCHBOARD] = Switchboard(world)

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def favicon(_: web.Request) -> web.Response:
        return web.Response(status=204)

    async def page_(request: web.Request) -> web.Response:
        return page(request)

    app.router.add_get("/", page_)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/favicon.ico", favicon)
    app.router.add_get("/ws/chat", app[SWITCHBOARD].handle)
    for name, files in (("loader", LOADER), ("early", EARLY), ("late", LATE)):
        app.router.add_get(f"/static/{name}.js", bundle(files))
    app.router.add_post("/phone/scan", scan)
    app.router.add_post("/phone/code", code)
    app.router.add_post("/phone/passkey", passkey)
    app.router.add_post("/phone/logout", logout)
    app.router.add_post("/phone/send", send)
    app.router.add_get("/phone/messages", messages)
    app.router.add_get("/phone/devices", devices)
    app.router.add_post("/server/fault", fault)
    app.router.add_patch("/server/behaviour", behaviour)
    return app


@dataclass
class Running:
    """A stand-in that runs in this process."""

    url: str
    world: World


@contextlib.asynccontextmanager
async def running(
    world: World | None = None, host: str = "localhost", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Running]:
    """Serves while the block runs, on a free port unless one is given."""
    world = world or World()
    runner = web.AppRunner(application(world), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
        address = runner.addresses[0]
        yield Running(f"{'https' if tls else 'http'}://{host}:{address[1]}", world)
    finally:
        await runner.cleanup()
