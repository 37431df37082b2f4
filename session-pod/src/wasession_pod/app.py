"""The session's HTTP API. Thin: it checks what comes in, asks the session, and words the answer."""

from __future__ import annotations

import contextlib
import hmac
import io
import re
from collections.abc import Awaitable, Callable
from typing import Annotated

import segno
from aiohttp import hdrs, web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import Field, StringConstraints, ValidationError
from wasession_api.base import Model
from wasession_api.v1alpha1 import PairingMethod

from wasession_pod import metrics
from wasession_pod.browser import BrowserError
from wasession_pod.session import NotReady, Session
from wasession_pod.settings import Settings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SESSION = web.AppKey("session", Session)
SETTINGS = web.AppKey("settings", Settings)
OPEN_PATHS = {"/livez", "/readyz", "/metrics"}
HEARTBEAT = 10.0  # seconds between comments on an event stream without events
RETRY_AFTER = "5"  # seconds
MAXIMUM_BODY = 128 * 1024  # bytes
CHAT_ID = re.compile(r"[0-9]{5,20}@(c\.us|lid)|[0-9-]{5,40}@g\.us")
PHONE_NUMBER = re.compile(r"\+?([1-9][0-9]{6,14})")


class Problem(Exception):
    """An answer in the form of RFC 9457 (problem+json)."""

    def __init__(self, status: int, title: str, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail = status, title, detail
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class SendText(Model):
    """A text message. ``to`` is a phone number or a chat id such as ``15551234567@c.us`` or ``...@g.us``."""

    to: Annotated[str, StringConstraints(max_length=64)]
    text: Annotated[str, StringConstraints(min_length=1, max_length=65536)]


class SentText(Model):
    """What became of it; ``ack`` is WhatsApp's: 1 sent, 2 received, 3 read."""

    id: str
    to: str
    ack: int | None = Field(None)


def chat_id(to: str) -> str:
    """The chat that a phone number or chat id means; raises ``Problem``."""
    number = PHONE_NUMBER.fullmatch(to.replace(" ", ""))
    if number:
        return f"{number.group(1)}@c.us"
    if CHAT_ID.fullmatch(to):
        return to
    raise Problem(422, "Bad recipient", "`to` must be a phone number with country code, or a chat id")


def application(session: Session, settings: Settings) -> web.Application:
    app = web.Application(middlewares=[problems, authenticate], client_max_size=MAXIMUM_BODY)
    app[SESSION], app[SETTINGS] = session, settings
    app.router.add_get("/livez", alive)
    app.router.add_get("/readyz", alive)
    app.router.add_get("/metrics", show_metrics)
    app.router.add_get("/v1/state", state)
    app.router.add_get("/v1/events", events)
    app.router.add_get("/v1/pairing", pairing)
    app.router.add_post("/v1/pairing/refresh", refresh_pairing)
    app.router.add_post("/v1/messages", send)
    app.router.add_post("/v1/logout", logout)
    app.router.add_post("/v1/restart", restart)
    app.router.add_get("/v1/screenshot", screenshot)
    return app


# --- middlewares ------------------------------------------------------------------------------------------------------


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Words every error as problem+json."""
    try:
        return await handler(request)
    except Problem as error:
        found = error
    except NotReady as error:
        found = Problem(503, "Not ready", str(error), Retry_After=RETRY_AFTER)
    except BrowserError as error:
        found = Problem(502, "The page failed", str(error))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        found = Problem(422, "Bad request", f"{where}: {first['msg']}")
    except web.HTTPException as error:
        found = Problem(error.status, error.reason, error.text or error.reason)
    body = {"type": "about:blank", "title": found.title, "status": found.status, "detail": found.detail}
    phase = request.app[SESSION].report.phase
    return web.json_response(
        body | {"phase": phase}, status=found.status, headers=found.headers, content_type="application/problem+json"
    )


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.path not in OPEN_PATHS:
        scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        expected = request.app[SETTINGS].bearer
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.encode(), expected.encode()):
            raise Problem(401, "Unauthorized", "the session's bearer token is needed", WWW_Authenticate="Bearer")
    return await handler(request)


# --- handlers ---------------------------------------------------------------------------------------------------------


async def alive(_: web.Request) -> web.Response:
    """The process serves; whether it is logged in is in the state."""
    return web.json_response({"status": "ok"})


async def show_metrics(request: web.Request) -> web.Response:
    metrics.observe(request.app[SESSION].report)
    return web.Response(body=generate_latest(), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST})


async def state(request: web.Request) -> web.Response:
    return web.json_response(request.app[SESSION].report.dump())


async def events(request: web.Request) -> web.StreamResponse:
    """Server-sent events: the state at once, then at each change; a comment when nothing happens."""
    response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream", hdrs.CACHE_CONTROL: "no-store"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionResetError):  # the reader has gone, as readers do
        async for report in request.app[SESSION].reports(HEARTBEAT):
            if report is None:
                await response.write(b": still here\n\n")
            else:
                data = report.model_dump_json(by_alias=True, exclude_none=True)
                await response.write(f"id: {report.seq}\nevent: state\ndata: {data}\n\n".encode())
    return response


async def pairing(request: web.Request) -> web.Response:
    """The code that a phone can use now: as JSON, and a QR also as a picture."""
    session = request.app[SESSION]
    offer, status = session.offer, session.report.pairing
    if offer is None or status is None:
        raise Problem(404, "No code", f"no phone can be linked now: the session is {session.report.phase}")
    accept = request.headers.get(hdrs.ACCEPT, "")
    for media_type, kind in (("image/png", "png"), ("image/svg+xml", "svg")):
        if media_type in accept and status.method is PairingMethod.QR_CODE:
            picture = io.BytesIO()
            segno.make(offer.code).save(picture, kind=kind, scale=8, border=4)
            return web.Response(body=picture.getvalue(), content_type=media_type, headers={hdrs.CACHE_CONTROL: "no-store"})
    return web.json_response(status.dump() | {"code": offer.code}, headers={hdrs.CACHE_CONTROL: "no-store"})


async def refresh_pairing(request: web.Request) -> web.Response:
    await request.app[SESSION].renew_code()
    return web.json_response({}, status=202)


async def send(request: web.Request) -> web.Response:
    order = SendText.model_validate_json(await request.read())
    to = chat_id(order.to)
    with metrics.sending() as outcome:
        try:
            sent = await request.app[SESSION].send_text(to, order.text)
        except LookupError as error:
            raise Problem(404, "Unknown recipient", str(error.args[0])) from None
        if sent.result not in (None, "OK"):
            raise Problem(502, "Not sent", f"WhatsApp answered {sent.result}")
        outcome.sent = True
    return web.json_response(SentText(id=sent.id, to=sent.to or to, ack=sent.ack).dump(), status=201)


async def logout(request: web.Request) -> web.Response:
    try:
        await request.app[SESSION].logout()
    except TimeoutError:
        raise Problem(504, "Not confirmed", "WhatsApp has not confirmed the logout; the login was kept") from None
    return web.json_response({})


async def restart(request: web.Request) -> web.Response:
    request.app[SESSION].restart()
    return web.json_response({}, status=202)


async def screenshot(request: web.Request) -> web.Response:
    return web.Response(body=await request.app[SESSION].screenshot(), content_type="image/png")
