"""Middlewares: access log, CORS, errors, rate limits and authentication."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from aiohttp import hdrs, typedefs, web
from wasession_api import tracing
from wasession_api.http.problem import MEDIA_TYPE, HTTPProblem
from wasession_api.http.routes import Handler

from wasession_gateway import audit, metrics
from wasession_gateway.audit import SOURCE, AuditLog
from wasession_gateway.auth import Authenticator, Identity, Unauthorized, bearer
from wasession_gateway.limits import Limiter
from wasession_gateway.operations import AUDITED
from wasession_gateway.problems import problem_of
from wasession_gateway.session import Session
from wasession_gateway.settings import Settings
from wasession_gateway.socketio_connections import ADDRESS, PATH

log = logging.getLogger("wasession_gateway.access")
IDENTITY = web.RequestKey("identity", Identity)
SESSION = web.RequestKey("session", Session)
CLIENT_ID = web.RequestKey[str | None]("client_id", str)  # that the caller asked for
AUDIT_WRITTEN = web.RequestKey("audit_written", bool)
ROUTES = web.AppKey("routes", dict[web.AbstractRoute, str])  # the operations' names
TOO_MANY = 429
API = "/whatsapp/"
SOCKET = f"/{PATH}/"
ALLOWED_METHODS = "GET, POST, DELETE"
ALLOWED_HEADERS = (
    "Authorization, Content-Type, If-Match, If-None-Match, If-Range, Idempotency-Key, Range"
)
EXPOSED_HEADERS = (
    "Accept-Ranges, Content-Disposition, Content-Range, ETag, Location, Retry-After, "
    "Idempotent-Replayed, WWW-Authenticate, X-Request-ID"
)
HEADERS = {
    hdrs.SERVER: "wasession",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
API_POLICY = "default-src 'none'; frame-ancestors 'none'"
CONSOLE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


class Middleware:
    """The middlewares, which share the settings and the rate limits."""

    def __init__(
        self,
        settings: Settings,
        authenticator: Authenticator,
        subjects: Limiter,
        audit_log: AuditLog,
        find_name: Callable[[str], str | None],
    ) -> None:
        """``find_name`` finds the WhatsAppSession with a clientId, whoever owns it."""
        self.draining = asyncio.Event()
        self._audit_log, self._find_name = audit_log, find_name
        self._settings, self._authenticator, self._subjects = settings, authenticator, subjects
        self._addresses = Limiter("address", settings.address_rate, settings.address_burst)

    def all(self) -> list[typedefs.Middleware]:
        """Return the middlewares, outermost first."""
        own = (self.trace, self.observe, self.preflight, self.to_problems)
        return [*own, self.limit, self.authenticate]

    @web.middleware
    async def trace(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Trace requests for operations, as parts of their callers' traces."""
        resource = request.match_info.route.resource
        if request.match_info.route not in request.app[ROUTES] or resource is None:
            return await handler(request)
        with tracing.serving(request.method, resource.canonical, request.headers) as span:
            response = await handler(request)
            span.respond(response.status)
            if (session := request.get(SESSION)) is not None:
                span.set(
                    {tracing.NAMESPACE: self._settings.namespace, tracing.SESSION: session.name}
                )
            return response

    @web.middleware
    async def observe(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Log, count and audit the request.

        Its path may contain phone numbers, its query, headers and body secrets: log the route only.
        """
        caller_address = address(request, self._settings.trusted_proxies)
        request[ADDRESS], request[SOURCE] = caller_address, audit.source(request, caller_address)
        operation = _operation(request)
        start, status = time.perf_counter(), None
        try:
            response = await handler(request)
            status = response.status
        finally:
            self._audit(request, status)
        if self.draining.is_set():
            response.force_close()  # the caller's next request reaches another gateway
        if request.path != SOCKET:
            seconds = time.perf_counter() - start
            metrics.REQUEST_DURATION.labels(operation or "none", str(status)).observe(seconds)
            self._log(request, response.status, seconds)
        return response

    async def audit_start(self, request: web.Request, response: web.StreamResponse) -> None:
        """Audit a request as soon as its response begins: a stream may take minutes."""
        if SOURCE in request:
            self._audit(request, response.status)

    def _audit(self, request: web.Request, status: int | None) -> None:
        action = _operation(request)
        if action not in AUDITED or status == TOO_MANY or AUDIT_WRITTEN in request:
            return
        request[AUDIT_WRITTEN] = True
        session, client_id = request.get(SESSION), request.get(CLIENT_ID)
        name = session.name if session is not None else None
        if name is None and client_id is not None and status == 404:
            name = self._find_name(client_id)  # another user's
        self._audit_log.write(
            action,
            request[SOURCE],
            request.get(IDENTITY),
            name,
            status,
            hidden=status == 404 and session is None,
        )

    def _log(self, request: web.Request, status: int, seconds: float) -> None:
        resource, session = request.match_info.route.resource, request.get(SESSION)
        details = {
            "method": request.method,
            "route": resource.canonical if resource is not None else None,
            "session": session.name if session is not None else None,
            "status": status,
            "ms": round(seconds * 1000, 1),
            "requestId": request[SOURCE].request_id,
        }
        log.info("request", extra=details)

    @web.middleware
    async def to_problems(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer every error with problem+json."""
        try:
            return await handler(request)
        except ConnectionError:
            raise  # the caller is gone
        except Exception as error:
            problem = problem_of(error)
        session = request.get(SESSION)
        return web.json_response(
            problem.problem(session.phase if session is not None else None).dump(),
            status=problem.status,
            headers=problem.headers,
            content_type=MEDIA_TYPE,
        )

    @web.middleware
    async def preflight(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer the preflights of CORS (WHATWG Fetch, 3.3)."""
        if (
            _is_own_page(request)
            or request.method != hdrs.METH_OPTIONS
            or hdrs.ACCESS_CONTROL_REQUEST_METHOD not in request.headers
            or _is_malformed_origin(request.headers[hdrs.ORIGIN])
        ):
            return await handler(request)
        response = web.Response(status=204)
        if self.may_connect(request):
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = ALLOWED_METHODS
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = ALLOWED_HEADERS
            response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = "600"
        return response

    async def allow_origin(self, request: web.Request, response: web.StreamResponse) -> None:
        """Let pages of allowed origins, and no others, read the response, even a streamed one."""
        if not _is_own_page(request) and self.may_connect(request):
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = request.headers[hdrs.ORIGIN]
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = EXPOSED_HEADERS

    @web.middleware
    async def limit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Limit requests per address, except those of Socket.IO, which has limits of its own."""
        if request.path != SOCKET:
            self._addresses.check(request[ADDRESS])
        if _is_malformed_origin(request.headers.get(hdrs.ORIGIN)):
            raise HTTPProblem(403, "Not allowed", "the Origin header is malformed")
        return await handler(request)

    @web.middleware
    async def authenticate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.startswith(API):
            return await handler(request)
        header = request.headers.get(hdrs.AUTHORIZATION)
        token = bearer(header)
        if header is not None and token is None:
            raise Unauthorized("the header must be: Authorization: Bearer TOKEN")
        identity = await self._authenticator.identify(token)
        self._subjects.check(f"subject:{identity.subject}")
        request[IDENTITY] = identity
        return await handler(request)

    def may_connect(self, request: web.Request) -> bool:
        """Whether a page of this origin may use the gateway; other programs send no origin."""
        return _is_own_page(request) or request.headers[hdrs.ORIGIN] in self._settings.cors_origins


def _operation(request: web.Request) -> str | None:
    return request.app[ROUTES].get(request.match_info.route)


def _is_own_page(request: web.Request) -> bool:
    origin = request.headers.get(hdrs.ORIGIN)
    return origin is None or origin.partition("://")[2] == request.host


def _is_malformed_origin(origin: str | None) -> bool:
    """Whether a program forges an Origin: browsers send ``null`` or a scheme and a host."""
    if origin is None or origin == "null":
        return False
    try:
        return not urlsplit(origin).scheme
    except ValueError:
        return True


async def strict_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the security headers to every response, also to files."""
    response.headers.update(HEADERS)
    if (source := request.get(SOURCE)) is not None:
        response.headers["X-Request-ID"] = source.request_id
    api = request.path.startswith((API, SOCKET))
    response.headers.setdefault("Content-Security-Policy", API_POLICY if api else CONSOLE_POLICY)
    if api:
        response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)


def address(request: web.BaseRequest, trusted_proxies: int) -> str:
    """Return whom to count as one caller: an IPv4 address or an IPv6 network of 64 bits."""
    remote = request.remote or ""
    forwarded = [
        part.strip()
        for line in request.headers.getall("X-Forwarded-For", [])
        for part in line.split(",")
    ]
    if trusted_proxies and len(forwarded) >= trusted_proxies:
        client = forwarded[-trusted_proxies]
    else:
        client = remote
    try:
        parsed = ipaddress.ip_address(client)
    except ValueError:
        return remote
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
