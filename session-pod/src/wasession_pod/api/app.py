"""The session's HTTP API. Thin: it checks what comes in, asks the session, and words the answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import io
import json
import logging
import traceback
from collections.abc import AsyncIterator, Mapping
from typing import TypeVar
from urllib.parse import quote

import segno
from aiohttp import hdrs, web
from aiohttp.log import server_logger
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError
from wasession_api.http.problem import MEDIA_TYPE, HTTPProblem, to_problem
from wasession_api.http.routes import HEADERS, PATH, QUERY, Handler, WithoutContent, checked
from wasession_api.session_pod.messages import Chat, Contact, MessageStatus, Page, SendText
from wasession_api.v1alpha1 import PairingMethod, Phase, Reason

from wasession_pod import metrics
from wasession_pod.api.operations import (
    DOCUMENT,
    MAXIMUM_JSON,
    OPERATIONS,
    PNG,
    SSE,
    SVG,
    TEXT,
    Alive,
    EventKind,
    EventsHeaders,
    EventsQuery,
    MessagePath,
    PageQuery,
    SendHeaders,
)
from wasession_pod.api.uploads import SILENCE, Uploads
from wasession_pod.browser.browser import BrowserError
from wasession_pod.events import GAP, EventBuffer
from wasession_pod.messages.idempotency_store import Journal
from wasession_pod.messages.sending import Messages, Order, understood
from wasession_pod.session import NotReady, Session
from wasession_pod.settings import Settings
from wasession_pod.state.observation import Part

M = TypeVar("M", bound=BaseModel)
SESSION = web.AppKey("session", Session)
SETTINGS = web.AppKey("settings", Settings)
MESSAGES = web.AppKey("messages", Messages)
UPLOADS = web.AppKey("uploads", Uploads)
log = logging.getLogger(__name__)
OPEN_PATHS = {operation.path for operation in OPERATIONS if not operation.secured}
HEARTBEAT = 10.0  # seconds between comments on an event stream without events
READER_PATIENCE = 30.0  # seconds that a reader of events may leave them unread
RETRY_AFTER = {"Retry-After": "5"}  # seconds
NO_STORE = {"Cache-Control": "no-store"}
JSON_OBJECT = TypeAdapter(dict[str, JsonValue])


@contextlib.asynccontextmanager
async def serving(session: Session, settings: Settings) -> AsyncIterator[None]:
    """The API, on its port while the block runs."""
    journal = Journal(settings.data_dir / "messages.sqlite")
    messages = Messages(session, journal, settings.send_timeout)
    runner = web.AppRunner(
        application(session, messages, settings), shutdown_timeout=0.5, handle_signals=False
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
        yield
    finally:
        await runner.cleanup()
        journal.close()


async def background(app: web.Application) -> AsyncIterator[None]:
    watching = asyncio.create_task(app[MESSAGES].watch_acks())
    yield
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    app[UPLOADS].close()


def application(session: Session, messages: Messages, settings: Settings) -> web.Application:
    app = web.Application(middlewares=[problems, authenticate], client_max_size=MAXIMUM_JSON)
    app[SESSION], app[SETTINGS], app[MESSAGES] = session, settings, messages
    app[UPLOADS] = Uploads(settings.maximum_media_bytes)
    app.cleanup_ctx.append(background)
    server_logger.addFilter(WithoutContent())
    for operation in OPERATIONS:
        handler = HANDLERS[operation.name]
        app.router.add_route(
            operation.method,
            operation.path,
            checked(operation, handler) if operation.secured else handler,
        )
    return app


# --- around every handler -------------------------------------------------------------------------


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Words every error as problem+json."""
    try:
        return await handler(request)
    except HTTPProblem as error:
        refused = error
    except NotReady as error:
        refused = HTTPProblem(503, "Not ready", str(error), RETRY_AFTER)
    except BrowserError as error:
        refused = HTTPProblem(502, "The page failed", str(error))
    except ValidationError as error:
        refused = to_problem(error)
    except web.HTTPException as error:
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        refused = HTTPProblem(error.status, error.reason, error.text or error.reason, headers)
    except ConnectionError:
        refused = HTTPProblem(
            400, "Gone", "the caller has gone in the middle of its request"
        )  # so nobody reads this
    except (
        Exception
    ) as error:  # a bug. Its message may have what somebody wrote, so only the place is logged
        log.error(
            "handler failed",
            extra={"error": type(error).__name__, "at": traceback.format_tb(error.__traceback__)},
        )
        refused = HTTPProblem(500, "Internal error", "the pod could not answer; its log says where")
    problem = refused.problem(request.app[SESSION].report.phase)
    return web.json_response(
        problem.dump(), status=refused.status, headers=refused.headers, content_type=MEDIA_TYPE
    )


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.path not in OPEN_PATHS:
        scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        try:
            expected = request.app[SETTINGS].bearer
        except OSError as error:
            log.error("token cannot be read", extra={"error": str(error)})  # noqa: TRY400
            raise HTTPProblem(
                503, "No token", "the pod cannot read its own token", RETRY_AFTER
            ) from None
        # A header may have any bytes; aiohttp has made surrogates of what is no UTF-8.
        same = hmac.compare_digest(token.encode(errors="surrogateescape"), expected.encode())
        if scheme.lower() != "bearer" or not same:
            raise HTTPProblem(
                401,
                "Unauthorized",
                "the session's bearer token is needed",
                {"WWW-Authenticate": "Bearer"},
            )
    return await handler(request)


def _bad(detail: str) -> HTTPProblem:
    return HTTPProblem(422, "Bad request", detail)


def _json(
    model: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    text = model.model_dump_json(by_alias=True, exclude_none=True)
    return web.Response(text=text, status=status, headers=headers, content_type="application/json")


# --- the process ----------------------------------------------------------------------------------


async def alive(request: web.Request) -> web.Response:
    """Whether the session is still looked after. Whatever is wrong with the browser or WhatsApp does not count here."""
    if not request.app[SESSION].alive:
        raise HTTPProblem(503, "Hung", "the session's loop does not turn any more")
    return _json(Alive())


async def serves(_: web.Request) -> web.Response:
    """The process serves; whether it is logged in is in the state."""
    return _json(Alive())


async def show_metrics(request: web.Request) -> web.Response:
    metrics.set_report(request.app[SESSION].report)
    return web.Response(body=generate_latest(), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST})


async def openapi(_: web.Request) -> web.Response:
    return web.json_response(DOCUMENT)


# --- the session ----------------------------------------------------------------------------------


async def state(request: web.Request) -> web.Response:
    return _json(request.app[SESSION].report)


async def events(request: web.Request) -> web.StreamResponse:
    """Server-sent events until the reader goes, or leaves them unread for too long."""
    query: EventsQuery = request[QUERY]
    headers: EventsHeaders = request[HEADERS]
    response = web.StreamResponse(headers={"Content-Type": SSE} | NO_STORE)
    await response.prepare(request)
    with contextlib.suppress(ConnectionError, TimeoutError):
        async for block in _follow(request.app[SESSION], query.types, headers.last_event_id):
            async with asyncio.timeout(READER_PATIENCE):
                await response.write(block)
    return response


async def _follow(
    session: Session, kinds: frozenset[EventKind], last_event_id: str | None
) -> AsyncIterator[bytes]:
    """The blocks of an event stream: the state now and at each change, and the buffer from where the reader was."""
    buffer = session.events
    position = buffer.last if last_event_id is None else buffer.position(last_event_id)
    missed = position is None
    place = buffer.oldest if position is None else position
    told = -1
    while True:
        changed = buffer.changed
        report = session.report
        if EventKind.STATE in kinds and report.seq != told:
            told = report.seq
            yield _block(
                buffer, place, "state", report.model_dump_json(by_alias=True, exclude_none=True)
            )
        if kinds == {EventKind.STATE}:
            missed, place = False, buffer.last
        if missed or place < buffer.oldest:
            missed, place = False, buffer.oldest
            yield _block(buffer, place, GAP, "{}")
        elif event := buffer.after(place):
            place = event.number
            if event.kind == GAP or event.kind in kinds:
                yield _block(buffer, place, event.kind, event.data)
        elif not changed.is_set():
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await changed.wait()
            except TimeoutError:
                yield b": still here\n\n"


def _block(buffer: EventBuffer, place: int, kind: str, data: str) -> bytes:
    return f"id: {buffer.event_id(place)}\nevent: {kind}\ndata: {data}\n\n".encode()


async def logout(request: web.Request) -> web.Response:
    try:
        await request.app[SESSION].logout()
    except TimeoutError:
        raise HTTPProblem(
            504, "Not confirmed", "WhatsApp has not confirmed the logout; the login was kept"
        ) from None
    return web.json_response({})


async def restart(request: web.Request) -> web.Response:
    request.app[SESSION].restart()
    return web.json_response({}, status=202)


async def screenshot(request: web.Request) -> web.Response:
    return web.Response(
        body=await request.app[SESSION].screenshot(), content_type=PNG, headers=NO_STORE
    )


# --- pairing --------------------------------------------------------------------------------------


async def pairing(request: web.Request) -> web.Response:
    """The code that a phone can use now: as JSON or text, and a QR also as a picture."""
    session = request.app[SESSION]
    link_code = session.link_code
    if link_code is None:
        raise HTTPProblem(
            404, "No code", f"no phone can be linked now: the session is {session.report.phase}"
        )
    kind = _preferred(request.headers.get(hdrs.ACCEPT, ""), ("application/json", PNG, SVG, TEXT))
    if kind == TEXT:
        return web.Response(text=link_code.code, headers=NO_STORE)
    if kind in (PNG, SVG):
        if link_code.method is not PairingMethod.QR_CODE:
            raise HTTPProblem(406, "No picture", "a pairing code is typed, not scanned")
        picture = io.BytesIO()
        segno.make(link_code.code).save(
            picture, kind="png" if kind == PNG else "svg", scale=8, border=4
        )
        return web.Response(body=picture.getvalue(), content_type=kind, headers=NO_STORE)
    return _json(link_code, headers=NO_STORE)


def _preferred(accept: str, offers: tuple[str, ...]) -> str:
    """The offer that an Accept header names with the highest quality; the first offer when it names none."""

    def quality(part: str) -> float:
        with contextlib.suppress(ValueError):
            return float(part.partition(";q=")[2] or 1)
        return 0

    wanted = sorted(
        (part.replace(" ", "").lower() for part in accept.split(",")), key=quality, reverse=True
    )
    return next((kind for part in wanted if (kind := part.partition(";")[0]) in offers), offers[0])


async def refresh_pairing(request: web.Request) -> web.Response:
    session = request.app[SESSION]
    report = session.report
    if report.phase is not Phase.AUTHENTICATING and report.reason != Reason.PAIRING_EXPIRED:
        raise HTTPProblem(
            409, "Not pairing", f"no phone is waited for: the session is {report.phase}"
        )
    await session.renew_code()
    return web.json_response({}, status=202)


# --- messages, chats, contacts --------------------------------------------------------------------


async def send(request: web.Request) -> web.Response:
    headers: SendHeaders = request[HEADERS]
    match request.content_type:
        case "application/json":
            order = Order(SendText.model_validate_json(await _body(request)))
        case "multipart/form-data":
            if (
                request.app[SESSION].report.phase is not Phase.READY
                and headers.idempotency_key is None
            ):
                raise NotReady(request.app[SESSION].report.phase)  # before a long file comes in
            order = await request.app[UPLOADS].receive(request)
        case _:
            raise HTTPProblem(
                415, "Unsupported type", "a message is application/json, a file multipart/form-data"
            )
    sent, replayed = await request.app[MESSAGES].send(order, headers.idempotency_key)
    said = {"Location": f"/v1/messages/{quote(sent.id, safe='@')}"}
    return _json(sent, 201, said | {"Idempotent-Replayed": "true"} if replayed else said)


async def _body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(SILENCE):
            return await request.read()
    except TimeoutError:
        raise HTTPProblem(
            408, "Too slow", f"the body has not come within {SILENCE:.0f} s"
        ) from None


async def message(request: web.Request) -> web.Response:
    path: MessagePath = request[PATH]
    found = await request.app[SESSION].call("message", path.id)
    if found is None:
        raise HTTPProblem(404, "Unknown message", "WhatsApp Web has no message of this id")
    try:
        return _json(MessageStatus.model_validate(found))
    except ValidationError:
        raise BrowserError("the page's message could not be understood") from None


async def chats(request: web.Request) -> web.Response:
    return _json(await _list(request, "chats", Chat, ("t", "id")))


async def contacts(request: web.Request) -> web.Response:
    return _json(await _list(request, "contacts", Contact, ("id",)))


async def _list(
    request: web.Request, function: str, model: type[M], order: tuple[str, ...]
) -> Page[M]:
    """A part of a list of the page's. Where it ended is in ``continue``: what the last item is sorted by."""
    query: PageQuery = request[QUERY]
    after = _read_place(query.continue_, order) if query.continue_ else None
    part = understood(Part, await request.app[SESSION].call(function, query.limit, after))
    try:
        items = [model.model_validate(item) for item in part.items]
    except ValidationError:
        raise BrowserError(f"the page's {function} could not be understood") from None
    place = {name: part.items[-1].get(name) for name in order} if part.more and part.items else None
    return Page(items=items, continue_=_write_place(place) if place else None)


def _write_place(place: Mapping[str, JsonValue]) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def _read_place(token: str, order: tuple[str, ...]) -> dict[str, JsonValue]:
    try:
        place = JSON_OBJECT.validate_json(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except ValueError:
        place = {}
    kinds = {"t": int, "id": str}
    if set(place) != set(order) or not all(type(place[name]) is kinds[name] for name in order):
        raise _bad("continue: it is not from this list")
    return place


HANDLERS: Mapping[str, Handler] = {
    "getLivez": alive,
    "getReadyz": serves,
    "getMetrics": show_metrics,
    "getOpenapi": openapi,
    "getState": state,
    "getEvents": events,
    "getPairing": pairing,
    "refreshPairing": refresh_pairing,
    "sendMessage": send,
    "getMessage": message,
    "listChats": chats,
    "listContacts": contacts,
    "logout": logout,
    "restart": restart,
    "getScreenshot": screenshot,
}
