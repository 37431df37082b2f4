"""The REST handlers: thin, they validate the request, call, and encode the answer."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from itertools import islice
from operator import attrgetter
from typing import Any, TypeVar
from urllib.parse import urlencode

import aiohttp
from aiohttp import hdrs, web
from wasession_api.base import Model
from wasession_api.http.openapi import Operation
from wasession_api.http.problem import HTTPProblem
from wasession_api.http.routes import HEADERS, PATH, QUERY, Handler, checked
from wasession_api.session_pod.delivery import Replay

from wasession_gateway.auth import Identity
from wasession_gateway.commands import Commands, NewSession
from wasession_gateway.hibernation import becomes_ready
from wasession_gateway.http_server import cancelled_on_disconnect
from wasession_gateway.middleware import CLIENT_ID, IDENTITY, ROUTES, SESSION
from wasession_gateway.operations import (
    OPERATIONS,
    SCREENCAST,
    SCREENSHOT,
    WAKING,
    SendMessage,
    document,
)
from wasession_gateway.pods import Pods, Unreachable
from wasession_gateway.problems import late_body, shutting_down
from wasession_gateway.session import Session, health
from wasession_gateway.session_cache import SessionCache
from wasession_gateway.settings import Settings
from wasession_gateway.wake_ups import WakeUps

MAXIMUM_BODY = 512 * 1024  # bytes of JSON
BODY_TIMEOUT = 30.0  # seconds for it to arrive
STALE_AFTER = 180.0  # seconds without an event from the API server
# Seconds for the pod to answer, more than it allows itself: it calls the page for up to 30 s, and
# waits up to 60 s more for WhatsApp to confirm a message.
READ_TIMEOUT, SEND_TIMEOUT = 45.0, 120.0
MEDIA_TIMEOUT = 330.0  # seconds for the next part of a file, which the page first downloads
# Seconds until a screencast ends, whatever the pod says, and between two of its pictures.
SCREENCAST_LIMIT, SCREENCAST_SILENCE = 330.0, 20.0
REQUEST_HEADERS = ("Accept", "Content-Type", "Idempotency-Key")
RESPONSE_HEADERS = ("Content-Type", "Location", "Retry-After", "Idempotent-Replayed")
FILE_REQUEST_HEADERS = ("If-None-Match", "If-Range", "Range")
FILE_RESPONSE_HEADERS = ("Accept-Ranges", "Content-Length", "Content-Range", "ETag")
# Whatever the session pod says: a file is saved, not shown.
FILE_HEADERS = {"Content-Security-Policy": "sandbox", "Cache-Control": "private, no-store"}
ATTACHMENT = "attachment"
UNBUFFERED = {"X-Accel-Buffering": "no"}  # by nginx, which would collect pictures
JSON = "application/json"
WAKES = web.RequestKey("wakes", bool)
M = TypeVar("M", bound=Model)


class Rest:
    """One handler per operation, with the operation's name."""

    def __init__(
        self, settings: Settings, sessions: SessionCache, commands: Commands, pods: Pods
    ) -> None:
        self._settings, self._sessions = settings, sessions
        self._commands, self._pods = commands, pods
        timeout = settings.wake_timeout.total_seconds()
        self._wake_ups = WakeUps(sessions, commands, timeout)
        self._document = json.dumps(document())
        self._waits: set[asyncio.Timeout] = set()  # of requests that take long
        self._is_closing = False

    def close(self) -> None:
        """Answer requests that wait, and end screencasts: the callers can ask another gateway."""
        self._is_closing = True
        for wait in self._waits:
            wait.reschedule(asyncio.get_running_loop().time())

    def add_to(self, app: web.Application) -> None:
        routes = app[ROUTES] = {}
        for operation in OPERATIONS:
            methods = ["GET", "HEAD"] if operation.method == "GET" else [operation.method]
            for method in methods:
                route = app.router.add_route(method, operation.path, self._handler(operation))
                routes[route] = operation.name
        app.router.add_get("/openapi.json", self._openapi)

    def _handler(self, operation: Operation) -> Handler:
        name = re.sub(r"([A-Z])", lambda letter: f"_{letter[1].lower()}", operation.name)
        handler = checked(operation, getattr(self, name))

        async def handle(request: web.Request) -> web.StreamResponse:
            request[CLIENT_ID] = request.match_info.get("clientId")
            request[IDENTITY].require(*operation.scopes)
            request[WAKES] = operation.name in WAKING
            return await handler(request)

        return handle

    async def _openapi(self, _: web.Request) -> web.Response:
        return web.Response(text=self._document, content_type=JSON)

    # --- sessions ---------------------------------------------------------------------------------

    async def list_sessions(self, request: web.Request) -> web.Response:
        return self._page(request, attrgetter("json"))

    async def list_restored_sessions(self, request: web.Request) -> web.Response:
        return self._page(
            request, attrgetter("json"), lambda session: bool(session.status.restored)
        )

    async def list_accounts(self, request: web.Request) -> web.Response:
        return self._page(request, attrgetter("account_json"))

    async def get_health(self, request: web.Request) -> web.Response:
        caller = request[IDENTITY]
        sessions = self._sessions.of(None if caller.admin else caller.subject)
        stale = self._sessions.informer.age > STALE_AFTER
        return web.json_response(health(sessions, stale).dump())

    async def get_session(self, request: web.Request) -> web.Response:
        session = self._session(request)
        if request[HEADERS].if_none_match in (_etag(session), f"W/{_etag(session)}"):
            return web.Response(status=304, headers={hdrs.ETAG: _etag(session)})
        return _response(session)

    get_session_status = get_session

    async def create_session(self, request: web.Request) -> web.Response:
        wanted = await _parse_body(request, NewSession)
        session = await self._commands.create(request[IDENTITY], wanted)
        request[SESSION] = session
        return _response(session, status=201, location=_location(request[IDENTITY], session))

    async def delete_session(self, request: web.Request) -> web.Response:
        query = request[QUERY]
        session, version = self._session(request), _if_match(request)
        await self._commands.delete(
            session, logout=query.logout, delete_volume=query.delete_volume, version=version
        )
        return web.Response(status=202)

    async def suspend_session(self, request: web.Request) -> web.Response:
        session, version = self._session(request), _if_match(request)
        return _response(await self._commands.suspend(session, suspend=True, version=version))

    async def resume_session(self, request: web.Request) -> web.Response:
        session, version = self._session(request), _if_match(request)
        return _response(await self._commands.suspend(session, suspend=False, version=version))

    async def restart_session(self, request: web.Request) -> web.Response:
        session, version = self._session(request), _if_match(request)
        return _response(await self._commands.restart(session, version))

    async def logout_session(self, request: web.Request) -> web.Response:
        await self._commands.logout(await self._awake(request, self._session(request)))
        return web.Response(status=204)

    async def wake_session(self, request: web.Request) -> web.Response:
        return _response(await self._commands.wake(self._session(request)), status=202)

    async def restore_session(self, request: web.Request) -> web.Response:
        query = request[QUERY]
        session = self._session(request)
        limit = self._settings.restore_timeout.total_seconds()
        outcome = await self._commands.restore(session, min(limit, query.timeout or limit))
        session = request[SESSION] = self._sessions.get(session.name) or session
        if outcome.ready:
            return _response(session)
        detail = f"{outcome.reason}: {outcome.message}" if outcome.message else outcome.reason
        if outcome.final:
            raise HTTPProblem(409, "Not restored", detail)
        raise HTTPProblem(504, "Not ready yet", detail)

    # --- pairing and messages: answered by the session's pod --------------------------------------

    async def get_pairing(self, request: web.Request) -> web.StreamResponse:
        return await self._proxy(request, self._session(request), "/v1/pairing", READ_TIMEOUT)

    async def refresh_pairing(self, request: web.Request) -> web.StreamResponse:
        return await self._proxy(
            request, self._session(request), "/v1/pairing/refresh", READ_TIMEOUT
        )

    async def send_text(self, request: web.Request) -> web.StreamResponse:
        message = await _parse_body(request, SendMessage)
        request[CLIENT_ID] = message.client_id
        session = request[SESSION] = self._commands.find(
            request[IDENTITY], message.client_id, message.owner
        )
        body = message.model_dump_json(
            by_alias=True, exclude_none=True, exclude={"client_id", "owner"}
        )
        return await self._proxy(request, session, "/v1/messages", SEND_TIMEOUT, data=body.encode())

    async def send_message(self, request: web.Request) -> web.StreamResponse:
        session = self._session(request)
        if request.content_type == JSON:
            return await self._proxy(
                request, session, "/v1/messages", SEND_TIMEOUT, data=await _read_body(request)
            )
        if request.content_length is None:
            raise HTTPProblem(411, "Length required", "a file requires a Content-Length header")
        if request.content_length > self._settings.max_upload:
            raise HTTPProblem(
                413, "Too large", f"a file may have at most {self._settings.max_upload} bytes"
            )
        return await self._proxy(
            request, session, "/v1/messages", SEND_TIMEOUT, data=request.content
        )

    async def get_message(self, request: web.Request) -> web.StreamResponse:
        return await self._proxy(
            request,
            self._session(request),
            f"/v1/messages/{request[PATH].message_id}",
            READ_TIMEOUT,
        )

    async def get_media(self, request: web.Request) -> web.StreamResponse:
        session = await self._awake(request, self._session(request))
        path = f"/v1/messages/{request[PATH].message_id}/media"
        headers = _selected(request.headers, FILE_REQUEST_HEADERS)
        async with self._pods.request(
            session, request.method, path, MEDIA_TIMEOUT, any_length=True, headers=headers
        ) as pod_response:
            disposition = pod_response.headers.get(hdrs.CONTENT_DISPOSITION, "")
            if disposition.partition(";")[0].strip().lower() != ATTACHMENT:
                disposition = ATTACHMENT
            headers = {
                **_selected(pod_response.headers, FILE_RESPONSE_HEADERS),
                **FILE_HEADERS,
                hdrs.CONTENT_DISPOSITION: disposition,
            }
            return await self._pass_on(request, session, pod_response, headers)

    async def get_screenshot(self, request: web.Request) -> web.StreamResponse:
        session = self._session(request)
        async with self._pods.request(
            session, request.method, "/v1/screenshot", READ_TIMEOUT
        ) as pod_response:
            _require_type(pod_response, SCREENSHOT)
            return await self._pass_on(request, session, pod_response)

    async def get_screencast(self, request: web.Request) -> web.StreamResponse:
        """Stream until the pod ends it, the viewer leaves, or the viewer's token expires."""
        session = self._session(request)
        left = min(SCREENCAST_LIMIT, request[IDENTITY].accepted_until - time.time())
        async with self._pods.request(
            session, request.method, "/v1/screencast", SCREENCAST_SILENCE, any_length=True
        ) as pod_response:
            _require_type(pod_response, SCREENCAST)
            if pod_response.status != 200:
                return await self._pass_on(request, session, pod_response)
            headers = {**_selected(pod_response.headers, RESPONSE_HEADERS), **UNBUFFERED}
            response = web.StreamResponse(headers=headers)
            await response.prepare(request)
            with contextlib.suppress(ConnectionError, aiohttp.ClientError, TimeoutError):
                async with self._until_closing(left):
                    async for chunk in pod_response.content.iter_any():
                        await response.write(chunk)
            return response

    async def list_events(self, request: web.Request) -> web.StreamResponse:
        session, params = self._session(request), _pod_query(request)
        timeout = READ_TIMEOUT + request[QUERY].wait
        options: dict[str, Any] = {"params": params, "headers": {hdrs.ACCEPT: JSON}}
        async with contextlib.AsyncExitStack() as stack:
            async with self._waiting():
                pod_response = await stack.enter_async_context(
                    self._pods.request(session, request.method, "/v1/events", timeout, **options)
                )
            return await self._pass_on(request, session, pod_response)

    async def list_messages(self, request: web.Request) -> web.StreamResponse:
        return await self._pod_page(request, f"/v1/chats/{request[PATH].chat_id}/messages")

    async def list_chats(self, request: web.Request) -> web.StreamResponse:
        return await self._pod_page(request, "/v1/chats")

    async def list_contacts(self, request: web.Request) -> web.StreamResponse:
        return await self._pod_page(request, "/v1/contacts")

    async def get_contact(self, request: web.Request) -> web.StreamResponse:
        session = self._session(request)
        path = f"/v1/contacts/{request[PATH].contact_id}"
        return await self._proxy(request, session, path, READ_TIMEOUT)

    # --- deliveries: answered by the session's pod ------------------------------------------------

    async def list_deliveries(self, request: web.Request) -> web.StreamResponse:
        return await self._proxy(request, self._session(request), "/v1/deliveries", READ_TIMEOUT)

    async def list_dead_letters(self, request: web.Request) -> web.StreamResponse:
        return await self._of_delivery(request, "dead-letters")

    async def replay_dead_letters(self, request: web.Request) -> web.StreamResponse:
        return await self._of_delivery(request, "dead-letters/replay")

    async def replay_delivery(self, request: web.Request) -> web.StreamResponse:
        wanted = await _parse_body(request, Replay)
        return await self._of_delivery(request, "replay", json=wanted.dump())

    async def pause_delivery(self, request: web.Request) -> web.StreamResponse:
        return await self._of_delivery(request, "pause")

    async def resume_delivery(self, request: web.Request) -> web.StreamResponse:
        return await self._of_delivery(request, "resume")

    async def _of_delivery(
        self, request: web.Request, what: str, **options: Any
    ) -> web.StreamResponse:
        path = f"/v1/deliveries/{request[PATH].delivery}/{what}"
        return await self._proxy(request, self._session(request), path, READ_TIMEOUT, **options)

    # --- shared by the handlers -------------------------------------------------------------------

    def _session(self, request: web.Request) -> Session:
        """Return the caller's session that the path names."""
        session = self._commands.find(
            request[IDENTITY], request[PATH].client_id, request[QUERY].owner
        )
        request[SESSION] = session
        return session

    def _page(
        self,
        request: web.Request,
        encode: Callable[[Session], bytes],
        include: Callable[[Session], bool] | None = None,
    ) -> web.Response:
        """Return one page of those of the caller's sessions that ``include`` selects."""
        query, caller = request[QUERY], request[IDENTITY]
        sessions: Iterable[Session] = ()
        if caller.admin or query.owner in (None, caller.subject):
            owner = query.owner if caller.admin else caller.subject
            sessions = self._sessions.of(owner, after=_cursor(query.continue_))
        page = list(islice(filter(include, sessions) if include else sessions, query.limit + 1))
        end = b"]}"
        if len(page) > query.limit:
            del page[query.limit :]
            end = b'],"continue":"%b"}' % base64.urlsafe_b64encode(page[-1].name.encode())
        # Joined in one step, so that the whole page is in memory only once.
        items = [encode(session) for session in page] or [b""]
        items[0] = b'{"items":[' + items[0]
        items[-1] += end
        return web.Response(body=b",".join(items), content_type=JSON)

    async def _pod_page(self, request: web.Request, path: str) -> web.StreamResponse:
        session, params = self._session(request), _pod_query(request)
        return await self._proxy(request, session, path, READ_TIMEOUT, params=params)

    async def _proxy(
        self, request: web.Request, session: Session, path: str, timeout: float, **options: Any
    ) -> web.StreamResponse:
        """Forward the request to the session's pod and stream the pod's response back."""
        session = await self._awake(request, session)
        try:
            return await self._forward(request, session, path, timeout, **options)
        except Unreachable:
            can_repeat = request[WAKES] and options.get("data") is not request.content
            if not (can_repeat and session.ready):
                raise
            if not await self._wake_ups.has_fallen_asleep(session):
                raise
        session = await self._awake(request, self._sessions.get(session.name) or session)
        return await self._forward(request, session, path, timeout, **options)

    async def _awake(self, request: web.Request, session: Session) -> Session:
        """Return the session once it is awake, if the operation uses the account."""
        if not request[WAKES] or not becomes_ready(session):
            return session
        with cancelled_on_disconnect(request):
            session = await self._wake_ups.until_awake(session, request[IDENTITY])
        request[SESSION] = session
        self._pods.forget(session.uid)  # it has another one now
        return session

    async def _forward(
        self, request: web.Request, session: Session, path: str, timeout: float, **options: Any
    ) -> web.StreamResponse:
        headers = _selected(request.headers, REQUEST_HEADERS)
        if options.get("data") is request.content:
            headers["Content-Length"] = request.headers["Content-Length"]
        async with self._pods.request(
            session, request.method, path, timeout, headers=headers, **options
        ) as pod_response:
            return await self._pass_on(request, session, pod_response)

    async def _pass_on(
        self,
        request: web.Request,
        session: Session,
        pod_response: aiohttp.ClientResponse,
        headers: Mapping[str, str] = {},
    ) -> web.StreamResponse:
        """Stream a pod's response, with these headers besides the usual ones."""
        response = web.StreamResponse(
            status=pod_response.status,
            headers={**_selected(pod_response.headers, RESPONSE_HEADERS), **headers},
        )
        if hdrs.LOCATION in response.headers:
            pod_path = response.headers[hdrs.LOCATION]
            response.headers[hdrs.LOCATION] = _location(request[IDENTITY], session, pod_path)
        await response.prepare(request)
        try:
            async for chunk in pod_response.content.iter_any():
                await response.write(chunk)
        except (aiohttp.ClientError, TimeoutError):
            # Abort, or the caller would take the partial response for a complete one.
            if request.transport is not None:
                request.transport.abort()
        else:
            await response.write_eof()
        return response

    @contextlib.asynccontextmanager
    async def _waiting(self) -> AsyncIterator[None]:
        """End the block with a problem as soon as the gateway shuts down."""
        try:
            async with self._until_closing(None):
                yield
        except TimeoutError:
            raise shutting_down("ask again with the same `after`") from None

    @contextlib.asynccontextmanager
    async def _until_closing(self, limit: float | None) -> AsyncIterator[None]:
        """End the block with ``TimeoutError`` after so many seconds, or if the gateway closes."""
        async with asyncio.timeout(0 if self._is_closing else limit) as wait:
            self._waits.add(wait)
            try:
                yield
            finally:
                self._waits.discard(wait)


def _require_type(pod_response: aiohttp.ClientResponse, media_type: str) -> None:
    """Raise ``HTTPProblem`` if a pod responds with something else than it should."""
    if pod_response.status == 200 and pod_response.content_type != media_type:
        raise HTTPProblem(502, "No picture", "the session's pod responded with something else")


def _selected(headers: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    return {name: headers[name] for name in names if name in headers}


def _pod_query(request: web.Request) -> dict[str, Any]:
    """Return the request's query as the session's pod takes it."""
    query: Model = request[QUERY]
    return query.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"owner"})


async def _parse_body(request: web.Request, model: type[M]) -> M:
    if request.content_type != JSON:
        raise HTTPProblem(415, "Unsupported media type", f"the body must be {JSON}")
    return model.model_validate_json(await _read_body(request))


async def _read_body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            return await request.read()
    except TimeoutError:
        raise late_body(BODY_TIMEOUT) from None


def _response(session: Session, status: int = 200, location: str | None = None) -> web.Response:
    headers = {hdrs.ETAG: _etag(session)}
    if location is not None:
        headers[hdrs.LOCATION] = location
    return web.Response(body=session.json, status=status, content_type=JSON, headers=headers)


def _location(caller: Identity, session: Session, pod_path: str = "") -> str:
    """Return the path at which the caller reads the session, or what its pod has at a path."""
    path = f"/whatsapp/sessions/{session.client_id}{pod_path.removeprefix('/v1')}"
    if caller.admin and session.owner is not None:
        path += f"?{urlencode({'owner': session.owner})}"
    return path


def _etag(session: Session) -> str:
    return f'"{session.version}"'


def _if_match(request: web.Request) -> str | None:
    """Return the version that the session must still have; the API server compares it."""
    value = request[HEADERS].if_match
    if value in (None, "*"):
        return None
    if (version := re.fullmatch(r'"([0-9]{1,20})"', value)) is None:
        raise HTTPProblem(412, "Changed", "If-Match is not the ETag of a session")
    return version[1]


def _cursor(token: str | None) -> str:
    try:
        return base64.urlsafe_b64decode(token).decode() if token else ""
    except (binascii.Error, ValueError):
        raise HTTPProblem(
            422, "Bad request", "continue: must be the value that a previous page returned"
        ) from None
