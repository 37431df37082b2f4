"""An HTTP proxy between an operator and the API server: it counts, and makes happen what happens to such connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from aiohttp import web
from support.fakes.api import Api
from support.fakes.network import Network

HOP_BY_HOP = {
    "host",
    "connection",
    "keep-alive",
    "transfer-encoding",
    "content-length",
    "accept-encoding",
    "authorization",
}
WRITES = {"POST", "PUT", "PATCH", "DELETE"}


@dataclass
class Call:
    """One request of the operator, and how it ended: 0 when the API server has not been asked."""

    verb: str
    resource: str  # such as "pods" or "whatsappsessions/status"
    namespace: str | None
    name: str | None
    watch: bool
    status: int = 0

    @property
    def write(self) -> bool:
        """Whether it changes an object. An Event only tells of one."""
        return self.verb in WRITES and self.resource != "events"


class Forward(Protocol):
    """Passes the request on; a watch may be cut after some events, or slowed down."""

    def __call__(
        self, *, cut_after: int | None = None, pause: float = 0
    ) -> Awaitable[web.StreamResponse]: ...


Action = Callable[[web.Request, Forward], Awaitable[web.StreamResponse]]


@dataclass
class Fault:
    """Does ``action`` in place of the first ``times`` requests that match."""

    action: Action
    matches: Callable[[Call], bool]
    times: int = 1
    done: int = field(default=0, init=False)  # how often it has happened


class Proxy:
    """Serves one operator at ``url``, with the API server's rights of ``user``."""

    def __init__(self, api: Api, network: Network, user: str | None) -> None:
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.written: Callable[[Call], None] = lambda _: (
            None
        )  # called when a write is done, before the operator knows
        self.down = False
        self._called = asyncio.Event()
        self._api = api
        self._socket = network.listen("127.0.0.1", 0)
        self._as = {"Impersonate-User": user} if user else {}
        self._open: set[asyncio.Transport] = set()
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0, handler_cancellation=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    async def start(self) -> None:
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket).start()

    async def stop(self) -> None:
        self.cut()
        await self._runner.cleanup()

    def cut(self) -> None:
        """Ends every connection that is open now."""
        for transport in list(self._open):
            transport.abort()

    def fail(
        self, action: Action, verb: str | None = None, resource: str | None = None, times: int = 1
    ) -> Fault:
        """From now on the next ``times`` requests of this kind end so. Watches are the resource's name with ``?watch``."""

        def matches(call: Call) -> bool:
            found = f"{call.resource}?watch" if call.watch else call.resource
            return verb in (None, call.verb) and resource in (None, found)

        self.faults.append(Fault(action, matches, times))
        return self.faults[-1]

    async def until(self, condition: Callable[[], object], timeout: float = 120) -> None:
        """Waits for something about the calls; raises ``TimeoutError``."""
        async with asyncio.timeout(timeout):
            while not condition():
                await self._called.wait()

    @property
    def writes(self) -> list[Call]:
        return [call for call in self.calls if call.write]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        call = _read(request)
        self.calls.append(call)
        called, self._called = self._called, asyncio.Event()
        called.set()
        transport = request.transport
        if self.down or not isinstance(transport, asyncio.Transport):
            return _abort(request)
        self._open.add(transport)
        try:
            fault = next((f for f in self.faults if f.done < f.times and f.matches(call)), None)
            if fault is None:
                return await self._forward(request, call)
            fault.done += 1
            return await fault.action(request, partial(self._forward, request, call))
        finally:
            self._open.discard(transport)

    async def _forward(
        self, request: web.Request, call: Call, *, cut_after: int | None = None, pause: float = 0
    ) -> web.StreamResponse:
        headers = {
            name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP
        }
        headers |= {"Accept-Encoding": "identity", **self._as}
        body = await request.read()
        async with self._api.http.request(
            request.method, request.path_qs, headers=headers, data=body or None, read_bufsize=2**22
        ) as answer:
            call.status = answer.status
            kept = {
                name: value
                for name, value in answer.headers.items()
                if name.lower() not in HOP_BY_HOP
            }
            if not call.watch:
                content = await answer.read()
                if call.write and answer.status < 400:
                    self.written(call)
                return web.Response(status=answer.status, headers=kept, body=content)
            stream = web.StreamResponse(status=answer.status, headers=kept)
            await stream.prepare(request)
            seen = 0
            with contextlib.suppress(ConnectionResetError):
                async for line in answer.content:
                    if seen == cut_after:
                        await stream.write(line[: len(line) // 2])
                        _abort(request)
                        break
                    await stream.write(line)
                    seen += 1
                    if pause:
                        await asyncio.sleep(pause)
            return stream


# --- what can happen to a request -----------------------------------------------------------------


def answers(status: int, retry_after: int | None = None) -> Action:
    """The API server refuses, without having done anything."""

    async def action(request: web.Request, forward: Forward) -> web.StreamResponse:
        await request.read()
        reasons = {
            409: "Conflict",
            429: "TooManyRequests",
            500: "InternalError",
            503: "ServiceUnavailable",
        }
        body = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": status,
            "reason": reasons.get(status, ""),
        }
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return web.json_response(
            {**body, "message": "said by the proxy"}, status=status, headers=headers
        )

    return action


async def drop_before(request: web.Request, forward: Forward) -> web.StreamResponse:
    """The connection ends before the API server has heard anything."""
    return _abort(request)


async def drop_after(request: web.Request, forward: Forward) -> web.StreamResponse:
    """The API server does it, but the answer gets lost."""
    await forward()
    return _abort(request)


async def hang(request: web.Request, forward: Forward) -> web.StreamResponse:
    """The API server does it, but never answers."""
    await forward()
    await asyncio.Event().wait()
    raise AssertionError


def slow(seconds: float) -> Action:
    """The answer takes its time."""

    async def action(request: web.Request, forward: Forward) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await forward()

    return action


async def expired(request: web.Request, forward: Forward) -> web.StreamResponse:
    """A watch that starts from what the API server has forgotten: it says so in the stream."""
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": 410,
        "reason": "Expired",
    }
    line = json.dumps(
        {"type": "ERROR", "object": {**status, "message": "too old resource version"}}
    )
    return web.Response(text=f"{line}\n", content_type="application/json")


def cut_mid_line(after: int) -> Action:
    """A watch that breaks off in the middle of an event, after so many whole ones."""

    async def action(request: web.Request, forward: Forward) -> web.StreamResponse:
        return await forward(cut_after=after)

    return action


def trickle(pause: float) -> Action:
    """A watch whose events come one by one, with so many seconds between them."""

    async def action(request: web.Request, forward: Forward) -> web.StreamResponse:
        return await forward(pause=pause)

    return action


def _abort(request: web.Request) -> web.StreamResponse:
    if isinstance(request.transport, asyncio.Transport):
        request.transport.abort()
    return web.Response()  # to nobody


def _read(request: web.Request) -> Call:
    parts = request.path.strip("/").split("/")
    parts = parts[3:] if parts[0] == "apis" else parts[2:]
    namespace = None
    if parts[:1] == ["namespaces"] and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    resource = "/".join([*parts[:1], *parts[2:]])
    return Call(
        request.method,
        resource,
        namespace,
        parts[1] if len(parts) > 1 else None,
        _is_watch(request),
    )


def _is_watch(request: web.Request) -> bool:
    return request.query.get("watch", "").lower() in ("true", "1")
