"""The handlers of the HTTP API, by the names of their operations."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import quote

from aiohttp import hdrs, web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from wasession_api.http.openapi import JSON
from wasession_api.http.problem import HTTPProblem
from wasession_api.http.routes import HEADERS, PATH, QUERY, Handler
from wasession_api.session_pod.backup import BackupOrder
from wasession_api.session_pod.link_code import LinkCode
from wasession_api.session_pod.messages import Page, SendText
from wasession_api.v1alpha1 import PairingMethod, Phase, Reason

from wasession_pod import metrics
from wasession_pod.api import deliveries, event_stream, media
from wasession_pod.api.operations import (
    JPEG,
    PNG,
    SCREENCAST,
    SSE,
    SVG,
    TEXT,
    Alive,
    ChatPath,
    ContactPath,
    EventsHeaders,
    EventsQuery,
    LogoutQuery,
    MessagePath,
    NoteLogoutQuery,
    PageQuery,
    SendHeaders,
    api_document,
)
from wasession_pod.api.requests import SESSION, json_response, read_body
from wasession_pod.api.uploads import Uploads
from wasession_pod.browser.bridge import (
    ChatPosition,
    ContactPosition,
    Listing,
    MessagePosition,
    Position,
)
from wasession_pod.browser.errors import BrowserError
from wasession_pod.messages.database import DatabaseError
from wasession_pod.messages.outgoing import OutgoingMessage
from wasession_pod.messages.sending import MessageSender
from wasession_pod.session import NotReady, PagePrivate

T = TypeVar("T", bound=BaseModel)
P = TypeVar("P", bound=Position)
SENDER = web.AppKey("sender", MessageSender)
UPLOADS = web.AppKey("uploads", Uploads)
WRITE_TIMEOUT = 30.0  # seconds that the reader of a stream may leave it unread
NO_STORE = {"Cache-Control": "no-store"}
UNBUFFERED = {**NO_STORE, "X-Accel-Buffering": "no"}  # by nginx, which would collect pictures
BOUNDARY = b"--picture\r\n"


# --- the process ----------------------------------------------------------------------------------


async def live(request: web.Request) -> web.Response:
    """Fail only if the session's loop hangs, whatever is wrong with the browser or WhatsApp."""
    if not request.app[SESSION].alive:
        raise HTTPProblem(503, "Hung", "the session's loop has stopped ticking")
    return json_response(Alive())


async def ready(_: web.Request) -> web.Response:
    """Succeed as soon as the process serves; ``state`` tells whether it is logged in."""
    return json_response(Alive())


async def show_metrics(request: web.Request) -> web.Response:
    session = request.app[SESSION]
    metrics.set_report(session.report)
    with contextlib.suppress(DatabaseError):  # which has metrics of its own
        metrics.set_deliveries(await deliveries.details(session.deliveries))
    await session.measure_processes()
    return web.Response(body=generate_latest(), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST})


async def openapi(_: web.Request) -> web.Response:
    return web.json_response(api_document())


# --- the session ----------------------------------------------------------------------------------


async def state(request: web.Request) -> web.Response:
    return json_response(request.app[SESSION].report)


async def events(request: web.Request) -> web.StreamResponse:
    """Return a page of events as JSON, or stream them until the reader stops reading."""
    query: EventsQuery = request[QUERY]
    headers: EventsHeaders = request[HEADERS]
    session = request.app[SESSION]
    after = headers.last_event_id or query.after
    if _negotiate(request.headers.get(hdrs.ACCEPT, ""), (SSE, JSON)) == JSON:
        outbox = event_stream.require_loaded(session)
        page = await event_stream.page(outbox, query.types, after, query.limit, query.wait)
        return json_response(page, headers=NO_STORE)
    response = web.StreamResponse(headers={"Content-Type": SSE} | NO_STORE)
    await response.prepare(request)
    blocks = event_stream.follow(session, query.types, after)
    with contextlib.suppress(ConnectionError, TimeoutError, DatabaseError):
        async for block in blocks:
            await _write(response, block)
    return response


async def logout(request: web.Request) -> web.Response:
    query: LogoutQuery = request[QUERY]
    try:
        await request.app[SESSION].logout(query.request)
    except TimeoutError:
        detail = (
            "WhatsApp was asked to end the login and has not confirmed it in time. "
            "It may still end, which the session's state will show"
        )
        raise HTTPProblem(504, "Not confirmed", detail) from None
    return web.json_response({})


async def note_logout(request: web.Request) -> web.Response:
    query: NoteLogoutQuery = request[QUERY]
    await request.app[SESSION].note_logout(query.request)
    return web.json_response({})


async def back_up(request: web.Request) -> web.Response:
    order = BackupOrder.model_validate_json(await read_body(request))
    request.app[SESSION].back_up(order)
    return web.json_response({}, status=202)


async def restart(request: web.Request) -> web.Response:
    request.app[SESSION].restart()
    return web.json_response({}, status=202)


async def screenshot(request: web.Request) -> web.Response:
    picture = await request.app[SESSION].screenshot()
    return web.Response(body=picture, content_type=PNG, headers=NO_STORE)


async def screencast(request: web.Request) -> web.StreamResponse:
    """Stream the page until the viewer leaves or reads too slowly, or the page closes."""
    async with contextlib.aclosing(request.app[SESSION].screencast()) as pictures:
        part = _part(await anext(pictures))  # until then, what fails has a status of its own
        response = web.StreamResponse(headers={"Content-Type": SCREENCAST, **UNBUFFERED})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError, TimeoutError, BrowserError):
            await _write(response, BOUNDARY)
            await _write(response, part)
            async for picture in pictures:
                await _write(response, _part(picture))
    return response


def _part(picture: bytes) -> bytes:
    """Return a part with the boundary after it, for which browsers wait before they show it."""
    head = f"Content-Type: {JPEG}\r\nContent-Length: {len(picture)}\r\n\r\n"
    return b"".join((head.encode(), picture, b"\r\n", BOUNDARY))


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(WRITE_TIMEOUT):
        await response.write(data)


async def show_page(request: web.Request) -> web.Response:
    try:
        outline = await request.app[SESSION].outline()
    except PagePrivate as error:
        raise HTTPProblem(409, "Page private", str(error)) from None
    return web.Response(text=outline, content_type=TEXT, headers=NO_STORE)


# --- pairing --------------------------------------------------------------------------------------


async def pairing(request: web.Request) -> web.Response:
    """Respond with the link code as JSON or text; with a QR also as a picture."""
    session = request.app[SESSION]
    link_code = session.link_code
    if link_code is None:
        detail = f"no phone can be linked now: the session is {session.report.phase}"
        raise HTTPProblem(404, "No code", detail)
    kind = _negotiate(request.headers.get(hdrs.ACCEPT, ""), (JSON, PNG, SVG, TEXT))
    if kind == TEXT:
        return web.Response(text=link_code.code, headers=NO_STORE)
    if kind in (PNG, SVG):
        return web.Response(body=_picture(link_code, kind), content_type=kind, headers=NO_STORE)
    return json_response(link_code, headers=NO_STORE)


def _picture(link_code: LinkCode, kind: str) -> bytes:
    if link_code.method is not PairingMethod.QR_CODE:
        raise HTTPProblem(406, "No picture", "a pairing code is typed, not scanned")
    import segno  # here, as sessions with a login never draw a QR

    picture = io.BytesIO()
    image_format = "png" if kind == PNG else "svg"
    segno.make(link_code.code).save(picture, kind=image_format, scale=8, border=4)
    return picture.getvalue()


def _negotiate(accept: str, offers: tuple[str, ...]) -> str:
    """Return the offer with the highest quality in an Accept header, by default the first."""

    def quality(part: str) -> float:
        with contextlib.suppress(ValueError):
            return float(part.partition(";q=")[2] or 1)
        return 0

    accepted = sorted(
        (part.replace(" ", "").lower() for part in accept.split(",")), key=quality, reverse=True
    )
    kinds = (part.partition(";")[0] for part in accepted)
    return next((kind for kind in kinds if kind in offers), offers[0])


async def refresh_pairing(request: web.Request) -> web.Response:
    session = request.app[SESSION]
    report = session.report
    if report.phase is not Phase.AUTHENTICATING and report.reason != Reason.PAIRING_EXPIRED:
        detail = f"the session is not waiting for a phone: it is {report.phase}"
        raise HTTPProblem(409, "Not pairing", detail)
    await session.renew_code()
    return web.json_response({}, status=202)


# --- messages, chats, contacts --------------------------------------------------------------------


async def send(request: web.Request) -> web.Response:
    request_headers: SendHeaders = request[HEADERS]
    key = request_headers.idempotency_key
    phase = request.app[SESSION].report.phase
    match request.content_type:
        case "application/json":
            message = OutgoingMessage(SendText.model_validate_json(await read_body(request)))
        case "multipart/form-data":
            if phase is not Phase.READY and key is None:
                raise NotReady(phase)  # before receiving a large file
            with request.app[SESSION].in_use():  # a large file takes a while
                message = await request.app[UPLOADS].receive(request)
        case _:
            detail = "send a text as application/json, a file as multipart/form-data"
            raise HTTPProblem(415, "Unsupported media type", detail)
    sent, replayed = await request.app[SENDER].send(message, key)
    headers = {"Location": f"/v1/messages/{quote(sent.id, safe='@')}"}
    if replayed:
        headers["Idempotent-Replayed"] = "true"
    return json_response(sent, 201, headers)


async def get_message(request: web.Request) -> web.Response:
    path: MessagePath = request[PATH]
    with request.app[SESSION].ready_page() as page:
        message = await page.message(path.id)
    if message is None:
        detail = "WhatsApp Web has no message with this ID"
        raise HTTPProblem(404, "Message not found", detail)
    return json_response(message)


async def get_media(request: web.Request) -> web.StreamResponse:
    path: MessagePath = request[PATH]
    with request.app[SESSION].ready_page() as page:
        return await media.respond(request, page, path.id)


async def list_messages(request: web.Request) -> web.Response:
    path: ChatPath = request[PATH]
    query: PageQuery = request[QUERY]
    before = _decode_position(MessagePosition, query.continue_)
    with request.app[SESSION].ready_page() as page:
        return json_response(_page_of(await page.history(path.id, query.limit, before)))


async def list_chats(request: web.Request) -> web.Response:
    query: PageQuery = request[QUERY]
    after = _decode_position(ChatPosition, query.continue_)
    with request.app[SESSION].ready_page() as page:
        return json_response(_page_of(await page.chats(query.limit, after)))


async def list_contacts(request: web.Request) -> web.Response:
    query: PageQuery = request[QUERY]
    after = _decode_position(ContactPosition, query.continue_)
    with request.app[SESSION].ready_page() as page:
        return json_response(_page_of(await page.contacts(query.limit, after)))


async def get_contact(request: web.Request) -> web.Response:
    path: ContactPath = request[PATH]
    with request.app[SESSION].ready_page() as page:
        contact = await page.contact(path.id)
    if contact is None:
        detail = "nobody on WhatsApp has this phone number or LID"
        raise HTTPProblem(404, "Contact not found", detail)
    return json_response(contact)


def _page_of(listing: Listing[T, P]) -> Page[T]:
    token = _encode_position(listing.next) if listing.next else None
    return Page(items=listing.items, continue_=token)


def _encode_position(position: Position) -> str:
    return base64.urlsafe_b64encode(position.model_dump_json().encode()).decode().rstrip("=")


def _decode_position(kind: type[P], token: str | None) -> P | None:
    if token is None:
        return None
    try:
        return kind.model_validate_json(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except ValueError:
        detail = "continue: must come from an earlier page of this list"
        raise HTTPProblem(422, "Bad request", detail) from None


HANDLERS: Mapping[str, Handler] = {
    "getLivez": live,
    "getReadyz": ready,
    "getMetrics": show_metrics,
    "getOpenapi": openapi,
    "getState": state,
    "getEvents": events,
    "getPairing": pairing,
    "refreshPairing": refresh_pairing,
    "sendMessage": send,
    "getMessage": get_message,
    "getMedia": get_media,
    "listMessages": list_messages,
    "listChats": list_chats,
    "listContacts": list_contacts,
    "getContact": get_contact,
    "logout": logout,
    "noteLogout": note_logout,
    "backUp": back_up,
    "restart": restart,
    "getScreenshot": screenshot,
    "getScreencast": screencast,
    "getPage": show_page,
    "configureDeliveries": deliveries.configure,
    "listDeliveries": deliveries.list_deliveries,
    "listDeadLetters": deliveries.list_dead_letters,
    "replayDeadLetters": deliveries.replay_dead_letters,
    "replayDelivery": deliveries.replay,
    "pauseDelivery": deliveries.pause,
    "resumeDelivery": deliveries.resume,
}
