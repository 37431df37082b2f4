"""What every request goes through before its handler, and every answer after it."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import time
import traceback
from urllib.parse import urlsplit

from aiohttp import hdrs, typedefs, web
from pydantic import ValidationError
from wasession_api.http.problem import MEDIA_TYPE, HTTPProblem, to_problem
from wasession_api.http.routes import Handler
from wasession_api.kube.client import Unavailable

from wasession_gateway import metrics
from wasession_gateway.auth import Authenticator, Identity, KeysUnavailable, Unauthorized, bearer
from wasession_gateway.commands import RETRY_LATER
from wasession_gateway.limits import Limiter
from wasession_gateway.pods import Interrupted, Unreachable
from wasession_gateway.session_cache import Session
from wasession_gateway.settings import Settings
from wasession_gateway.socketio_connections import ADDRESS, PATH

log = logging.getLogger("wasession_gateway.access")
IDENTITY = web.RequestKey("identity", Identity)
SESSION = web.RequestKey("session", Session)
OPERATION = web.RequestKey("operation", str)
API = "/whatsapp/"
SOCKET = f"/{PATH}/"
ALLOWED_METHODS = "GET, POST, DELETE"
ALLOWED_HEADERS = "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key"
EXPOSED_HEADERS = "ETag, Location, Retry-After, Idempotent-Replayed"
HEADERS = {
    hdrs.SERVER: "wasession",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
NOTHING_LOADED = "default-src 'none'; frame-ancestors 'none'"
CONSOLE_LOADS = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


class Middleware:
    """The middlewares, which share the settings and the limits."""

    def __init__(self, settings: Settings, authenticator: Authenticator, subjects: Limiter) -> None:
        self.draining = asyncio.Event()
        self._settings, self._authenticator, self._subjects = settings, authenticator, subjects
        self._addresses = Limiter(settings.address_rate, settings.address_burst)

    def all(self) -> list[typedefs.Middleware]:
        """From the outermost to the innermost."""
        return [self.observed, self.shared, self.worded, self.within_limits, self.authenticated]

    @web.middleware
    async def observed(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Logs and counts, without what is secret: queries, headers and bodies stay out."""
        request[ADDRESS] = address(request, self._settings.trusted_proxies)
        start = time.perf_counter()
        response = await handler(request)
        took = time.perf_counter() - start
        if self.draining.is_set():
            response.force_close()  # the caller's next request finds another gateway
        if request.path != SOCKET:
            metrics.REQUESTS.labels(request.get(OPERATION, "none"), str(response.status)).observe(
                took
            )
            told = {
                "method": request.method,
                "path": request.path,
                "status": response.status,
                "ms": round(took * 1000, 1),
            }
            log.info("request", extra=told)
        return response

    @web.middleware
    async def worded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Words every error as problem+json."""
        try:
            return await handler(request)
        except HTTPProblem as error:
            refused = error
        except ValidationError as error:
            refused = to_problem(error)
        except Unreachable as error:
            refused = HTTPProblem(503, "Not available", str(error), RETRY_LATER)
        except Interrupted as error:
            refused = HTTPProblem(502, "No answer", f"{error}; what was asked may have been done")
        except web.HTTPException as error:
            headers = {
                name: value
                for name, value in error.headers.items()
                if name in (hdrs.ALLOW, hdrs.LOCATION)
            }
            refused = HTTPProblem(error.status, error.reason, error.text or error.reason, headers)
        except Unavailable as error:
            log.warning("API server not reached", extra={"error": str(error)})
            refused = HTTPProblem(
                503, "Not available", "the cluster does not answer now; try again", RETRY_LATER
            )
        except ConnectionError:
            raise  # the caller has gone
        except (
            Exception
        ) as error:  # a bug. Its message may have what somebody wrote, so only the place is logged
            where = traceback.format_tb(error.__traceback__)
            log.error("handler failed", extra={"error": type(error).__name__, "at": where})  # noqa: TRY400
            refused = HTTPProblem(
                500, "Internal error", "the gateway could not do this; its log says where"
            )
        session = request.get(SESSION)
        problem = refused.problem(session.phase if session is not None else None)
        return web.json_response(
            problem.dump(), status=refused.status, headers=refused.headers, content_type=MEDIA_TYPE
        )

    @web.middleware
    async def shared(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """CORS (WHATWG Fetch, 3.3): pages of other origins read answers only where that is allowed."""
        if _own_page(request):
            return await handler(request)
        allowed = self.may_connect(request)
        if (
            request.method == hdrs.METH_OPTIONS
            and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        ):
            response: web.StreamResponse = web.Response(status=204)
            if allowed:
                response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = ALLOWED_METHODS
                response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = ALLOWED_HEADERS
                response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = "600"
        else:
            response = await handler(request)
        if allowed and not response.prepared:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = request.headers[hdrs.ORIGIN]
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = EXPOSED_HEADERS
        return response

    @web.middleware
    async def within_limits(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._count("address", self._addresses, request[ADDRESS])
        return await handler(request)

    @web.middleware
    async def authenticated(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.startswith(API):
            return await handler(request)
        try:
            identity = await self._authenticator.identify(
                bearer(request.headers.get(hdrs.AUTHORIZATION))
            )
        except Unauthorized as error:
            raise HTTPProblem(
                401, "Unauthorized", str(error), {"WWW-Authenticate": "Bearer"}
            ) from None
        except KeysUnavailable as error:
            raise HTTPProblem(503, "Keys unavailable", str(error), RETRY_LATER) from None
        self._count("subject", self._subjects, f"subject:{identity.subject}")
        request[IDENTITY] = identity
        return await handler(request)

    def may_connect(self, request: web.Request) -> bool:
        """Whether a page of this origin may use the gateway; programs that are no browsers name none."""
        return _own_page(request) or request.headers[hdrs.ORIGIN] in self._settings.cors_origins

    def _count(self, by: str, limiter: Limiter, key: str) -> None:
        wait = limiter.take(key, time.monotonic())
        if wait:
            metrics.RATE_LIMITED.labels(by).inc()
            seconds = math.ceil(wait)
            raise HTTPProblem(
                429, "Too many requests", f"try again in {seconds} s", {"Retry-After": str(seconds)}
            )


def _own_page(request: web.Request) -> bool:
    origin = request.headers.get(hdrs.ORIGIN)
    return origin is None or urlsplit(origin).netloc == request.host


async def strict_headers(request: web.Request, response: web.StreamResponse) -> None:
    """For every answer, also those of the static files."""
    response.headers.update(HEADERS)
    api = request.path.startswith((API, SOCKET))
    response.headers.setdefault("Content-Security-Policy", NOTHING_LOADED if api else CONSOLE_LOADS)
    if api:
        response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)


def address(request: web.BaseRequest, trusted_proxies: int) -> str:
    """Who is counted as one caller: an IPv4 address or an IPv6 network of 64 bits, which is one customer's."""
    found = request.remote or ""
    if trusted_proxies:
        forwarded = [
            part.strip()
            for line in request.headers.getall("X-Forwarded-For", [])
            for part in line.split(",")
        ]
        if len(forwarded) >= trusted_proxies:
            found = forwarded[-trusted_proxies]
    try:
        parsed = ipaddress.ip_address(found)
    except ValueError:
        return request.remote or ""
    return (
        str(parsed)
        if parsed.version == 4
        else str(ipaddress.ip_network((parsed, 64), strict=False))
    )
