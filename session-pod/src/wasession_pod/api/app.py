"""The session's HTTP API: the aiohttp application, its authentication and its error responses."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import socket
import traceback
from collections.abc import AsyncIterator, Sequence

from aiohttp import hdrs, web
from aiohttp.log import server_logger
from pydantic import ValidationError
from wasession_api import tracing
from wasession_api.http.problem import MEDIA_TYPE, HTTPProblem, to_problem
from wasession_api.http.routes import Handler, WithoutContent, checked

from wasession_pod.api.handlers import HANDLERS, SENDER, UPLOADS
from wasession_pod.api.operations import MAXIMUM_JSON, OPERATIONS
from wasession_pod.api.requests import SESSION
from wasession_pod.api.uploads import Uploads
from wasession_pod.backup import BackupRunning, NoLogin
from wasession_pod.browser.errors import BrowserError, PageAway, PageClosed
from wasession_pod.delivery.deliveries import NotHere, UnknownDestination
from wasession_pod.messages.database import DatabaseError
from wasession_pod.messages.idempotency_store import IdempotencyStore
from wasession_pod.messages.reconciliation import Reconciler
from wasession_pod.messages.sending import MessageSender
from wasession_pod.session import LiveViewOff, NotReady, Session, Stopping
from wasession_pod.settings import Settings
from wasession_pod.volume.volume import StorageError

SETTINGS = web.AppKey("settings", Settings)
PUBLIC_PATHS = {operation.path for operation in OPERATIONS if not operation.secured}
UNTRACED_PATHS = {*PUBLIC_PATHS, "/v1/events"}
RETRY_AFTER = {"Retry-After": "5"}  # seconds
SHUTDOWN_TIMEOUT = 0.5  # seconds that open requests get
log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def serving(
    session: Session, settings: Settings, sockets: Sequence[socket.socket]
) -> AsyncIterator[None]:
    """Serve the API while the block runs."""
    sender = MessageSender(session, IdempotencyStore(session.database), settings.send_timeout)
    runner = web.AppRunner(
        application(session, sender, settings),
        shutdown_timeout=SHUTDOWN_TIMEOUT,
        handle_signals=False,
    )
    await runner.setup()
    try:
        for listener in sockets:
            await web.SockSite(runner, listener).start()
        yield
    finally:
        await runner.cleanup()


def application(session: Session, sender: MessageSender, settings: Settings) -> web.Application:
    """Return the application with a route for each row of ``OPERATIONS``."""
    app = web.Application(
        middlewares=[trace, respond_with_problems, authenticate], client_max_size=MAXIMUM_JSON
    )
    app[SESSION], app[SETTINGS], app[SENDER] = session, settings, sender
    app[UPLOADS] = Uploads(settings.maximum_media_bytes)
    app.cleanup_ctx.append(_run_in_background)
    server_logger.addFilter(WithoutContent())
    for operation in OPERATIONS:
        handler = HANDLERS[operation.name]
        app.router.add_route(
            operation.method,
            operation.path,
            checked(operation, handler) if operation.secured else handler,
        )
    return app


async def _run_in_background(app: web.Application) -> AsyncIterator[None]:
    reconciling = asyncio.create_task(Reconciler(app[SESSION]).run())
    yield
    reconciling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reconciling
    app[UPLOADS].close()


@web.middleware
async def trace(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Trace requests, as parts of their callers' traces; a stream of events has no end."""
    resource = request.match_info.route.resource
    if resource is None or resource.canonical in UNTRACED_PATHS:
        return await handler(request)
    with tracing.serving(request.method, resource.canonical, request.headers) as span:
        response = await handler(request)
        span.respond(response.status)
        span.set({tracing.PHASE: request.app[SESSION].report.phase.value})
        return response


@web.middleware
async def respond_with_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into a problem response with the session's phase."""
    try:
        return await handler(request)
    except Exception as error:
        problem = _problem_of(error)
    return web.json_response(
        problem.problem(request.app[SESSION].report.phase).dump(),
        status=problem.status,
        headers=problem.headers,
        content_type=MEDIA_TYPE,
    )


def _problem_of(error: Exception) -> HTTPProblem:
    match error:
        case HTTPProblem():
            return error
        case NotReady():
            return HTTPProblem(503, "Not ready", str(error), RETRY_AFTER)
        case Stopping():
            return HTTPProblem(503, "Shutting down", str(error), RETRY_AFTER)
        case LiveViewOff():
            return HTTPProblem(403, "Live view off", str(error))
        case UnknownDestination():
            return HTTPProblem(404, "Delivery not found", str(error))
        case NotHere():
            return HTTPProblem(409, "Not in the outbox", str(error))
        case NoLogin():
            return HTTPProblem(409, "No login", str(error))
        case BackupRunning():
            return HTTPProblem(409, "Backup running", str(error))
        case StorageError():
            return HTTPProblem(503, "Volume failed", str(error), RETRY_AFTER)
        case DatabaseError():
            detail = f"the events on the volume cannot be read: {error}"
            return HTTPProblem(503, "Volume failed", detail, RETRY_AFTER)
        case PageAway() | PageClosed():
            detail = f"the page of WhatsApp Web is away: {error}"
            return HTTPProblem(503, "Page away", detail, RETRY_AFTER)
        case BrowserError():
            return HTTPProblem(502, "Page failed", str(error))
        case ValidationError():
            return to_problem(error)
        case web.HTTPException():
            headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
            return HTTPProblem(error.status, error.reason, error.text or error.reason, headers)
        case ConnectionError():  # nobody reads the response
            return HTTPProblem(400, "Client disconnected", "the request was not received in full")
    # A bug. Only its place is logged, because its message may quote a user's message.
    log.error(
        "request handler failed; responding with status 500",
        extra={"error": type(error).__name__, "at": traceback.format_tb(error.__traceback__)},
    )
    return HTTPProblem(500, "Internal error", "the request failed; see the pod's log")


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Require the session's bearer token on all but the public paths."""
    if request.path not in PUBLIC_PATHS:
        scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        try:
            expected = request.app[SETTINGS].bearer
        except OSError as error:
            log.error(  # noqa: TRY400 - the traceback has nothing to add
                "cannot read the session's token; rejecting requests", extra={"error": str(error)}
            )
            detail = "the pod cannot read its own token"
            raise HTTPProblem(503, "Token unavailable", detail, RETRY_AFTER) from None
        # Headers may have any bytes; aiohttp decodes those that are not UTF-8 to surrogates.
        same = hmac.compare_digest(token.encode(errors="surrogateescape"), expected.encode())
        if scheme.lower() != "bearer" or not same:
            headers = {"WWW-Authenticate": "Bearer"}
            detail = "the session's bearer token is required"
            raise HTTPProblem(401, "Unauthorized", detail, headers)
    return await handler(request)
