"""Call the HTTP API of one session pod."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from wasession_api import tracing
from wasession_api.http import sse
from wasession_api.http.event_stream import EventStream
from wasession_api.session_pod import PORT

CONNECT_TIMEOUT = 5.0  # seconds
SILENCE = 25.0  # seconds; a session pod sends a heartbeat every ten
MAXIMUM_BODY = 64 * 2**10  # bytes, of what is read at once: a link code or a problem
STREAM_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=SILENCE)
TokenSource = Callable[[], Awaitable[Iterable[str]]]


class Unauthorized(Exception):
    """The pod accepts none of the session's tokens."""


class UnexpectedStatus(Exception):
    """The pod's response is no stream; ``status`` is its HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP status {status}")
        self.status = status


async def read_body(response: aiohttp.ClientResponse, maximum: int = MAXIMUM_BODY) -> bytes:
    """Return a response's first ``maximum`` bytes: a longer one is no valid JSON then."""
    try:
        return await response.content.readexactly(maximum)
    except asyncio.IncompleteReadError as error:
        return error.partial


def base_url(address: str) -> str:
    """Return the URL of the session pod at an IPv4 or IPv6 address, or a host name."""
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{PORT}"


class SessionPodClient:
    """One session pod.

    ``tokens`` reads the session's bearer tokens, the present one first. During a rotation the pod
    knows only the previous token for up to a minute, until kubelet has updated the mounted Secret;
    the client tries each token once and remembers the one that the pod accepted.

    Requests raise ``Unauthorized`` and what aiohttp raises.
    """

    def __init__(self, http: aiohttp.ClientSession, base: str, tokens: TokenSource) -> None:
        self.base = base
        self._http = http
        self._tokens = tokens
        self._accepted: str | None = None

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield the pod's response, whatever its status is other than 401.

        The pod continues the present trace. Its path is not told, as it may have a phone number.
        """
        attributes = {"http.request.method": method}
        with tracing.child(f"{method} session pod", kind="CLIENT", attributes=attributes) as span:
            headers = {**(headers or {}), **span.headers}
            async with self._request(method, path, headers=headers, **options) as response:
                span.respond(response.status)
                yield response

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        *,
        timeout: aiohttp.ClientTimeout,
        headers: Mapping[str, str],
        **options: Any,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        async for token in self._candidates():
            async with self._http.request(
                method,
                f"{self.base}{path}",
                headers={**headers, "Authorization": f"Bearer {token}"},
                timeout=timeout,
                allow_redirects=False,
                **options,
            ) as response:
                if response.status != 401:
                    self._accepted = token
                    yield response
                    return
        self._accepted = None
        raise Unauthorized("the session pod accepts none of the session's tokens")

    async def events(
        self,
        types: str | None = None,
        last_id: str | None = None,
        pace: sse.Pace | None = None,
    ) -> AsyncGenerator[sse.ServerSentEvent]:
        """Yield the pod's events: the current state, then changes; those after ``last_id`` again.

        ``types`` lists event types separated by commas; all that the pod knows when omitted.
        ``pace`` is how fast to read, over all of the caller's connections to the pod. Ends when the
        pod ends the stream; raises ``TimeoutError`` after ``SILENCE`` seconds without a heartbeat,
        and ``sse.EventTooLarge``.
        """
        headers = {"Last-Event-ID": last_id} if last_id else {}
        path = f"/v1/events?types={types}" if types else "/v1/events"
        async with self._request("GET", path, headers=headers, timeout=STREAM_TIMEOUT) as response:
            response.raise_for_status()
            async for event in sse.read(response.content, pace or sse.Pace()):
                yield event

    async def follow(
        self, types: str, on_event: Callable[[sse.ServerSentEvent], None], pace: sse.Pace
    ) -> EventStream:
        """Return an open stream that calls ``on_event``: as ``events``, for thousands of pods.

        Raises ``UnexpectedStatus``, ``ValueError`` for what is not HTTP, and ``OSError``.
        """
        url = urlsplit(self.base)
        assert url.hostname is not None
        assert url.port is not None
        async for token in self._candidates():
            head = (
                f"GET /v1/events?types={types} HTTP/1.1",
                f"Host: {url.netloc}",
                "Accept: text/event-stream",
                f"Authorization: Bearer {token}",
                "\r\n",
            )
            stream = await EventStream.open(
                (url.hostname, url.port),
                "\r\n".join(head).encode(),
                on_event,
                pace,
                connect_timeout=CONNECT_TIMEOUT,
                silence=SILENCE,
            )
            if stream.status == 401:
                continue
            self._accepted = token
            if stream.status != 200:
                raise UnexpectedStatus(stream.status)
            return stream
        self._accepted = None
        raise Unauthorized("the session pod accepts none of the session's tokens")

    async def _candidates(self) -> AsyncIterator[str]:
        """Yield the token accepted last, then the others as they are now, each once."""
        rejected: set[str] = set()
        # Another request may learn of a new token while this one waits for the pod.
        while (accepted := self._accepted) is not None and accepted not in rejected:
            rejected.add(accepted)
            yield accepted
        for token in await self._tokens():
            if token not in rejected:
                rejected.add(token)
                yield token
