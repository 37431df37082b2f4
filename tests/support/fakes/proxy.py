"""An HTTP proxy between an operator and the API server: it records calls and injects faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import aiohttp
from aiohttp import web
from support.fakes.api import Api, Manifest
from support.fakes.network import Network
from wasession_api.names import MANAGED_BY

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
APPLY_PATCH = "application/apply-patch+yaml"


@dataclass
class Call:
    """One request of the operator; its status is 0 if it has not reached the API server."""

    verb: str
    resource: str  # such as "pods" or "whatsappsessions/status"
    namespace: str | None
    name: str | None
    watch: bool
    dry_run: bool = False
    status: int = 0
    replica: str = ""  # whose User-Agent is wasession-operator/<replica>
    apply: bool = False  # whether it is a server-side apply
    body: Any = field(default=None, repr=False)  # of a write
    version: int = 0  # of the object, after a write; 0: it is gone at once
    uid: str = ""  # of the object, after a write

    @property
    def write(self) -> bool:
        """Whether it changes an object; an Event reports on one, a Lease on the operator."""
        return (
            self.verb in WRITES and self.resource not in ("events", "leases") and not self.dry_run
        )

    def note(self, result: Manifest) -> None:
        """Note the object that a write has returned, or the ``Status`` of one that is gone."""
        metadata = result.get("metadata", {})
        self.version = int(metadata.get("resourceVersion") or 0)
        self.uid = metadata.get("uid") or result.get("details", {}).get("uid", "")


class Forward(Protocol):
    """Forwards a request; it may break a watch after some events, or slow it down."""

    def __call__(
        self, *, cut_after: int | None = None, pause: float = 0
    ) -> Awaitable[web.StreamResponse]: ...


Action = Callable[[web.Request, Forward], Awaitable[web.StreamResponse]]


@dataclass
class Fault:
    """Replaces the first ``times`` requests that match by ``action``."""

    action: Action
    matches: Callable[[Call], bool]
    times: int = 1
    done: int = field(default=0, init=False)  # how often that has happened


class Proxy:
    """Serves one operator at ``url``, with the rights that ``user`` has in the API server."""

    def __init__(self, api: Api, network: Network, user: str | None) -> None:
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        # Called after each write that has changed something, before the operator gets the response.
        self.written: Callable[[Call], None] = lambda _: None
        self.down = False
        self._connected = asyncio.Event()
        self._connected.set()
        self._forwarding: set[asyncio.Task[web.Response]] = set()
        self._versions: set[int] = set()  # of patched objects
        self._called = asyncio.Event()
        self._api = api
        self._socket = network.listen("127.0.0.1", 0)
        self._as: dict[str, str] = {}
        self.impersonate(user)
        self._open: set[asyncio.Transport] = set()
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0, handler_cancellation=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def _is_change(self, call: Call) -> bool:
        """Return whether a write has not left its object at the version of an earlier one."""
        if call.verb != "PATCH":
            return True
        changed = call.version not in self._versions
        self._versions.add(call.version)
        return changed

    def impersonate(self, user: str | None) -> None:
        """Let the operator have the rights of a user; all rights without one."""
        self._as = {"Impersonate-User": user} if user else {}

    async def start(self) -> None:
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket).start()

    async def stop(self) -> None:
        self.heal()
        self.cut()
        await self._runner.cleanup()
        await asyncio.gather(*self._forwarding, return_exceptions=True)

    def cut(self) -> None:
        """Abort every open connection."""
        for transport in list(self._open):
            transport.abort()

    def partition(self, *, refuse: bool = False) -> None:
        """Separate the operator from the API server until ``heal``.

        Requests and watches hang. If ``refuse``, they and all new connections are aborted.
        """
        if refuse:
            self.down = True
            self.cut()
        else:
            self._connected.clear()

    def heal(self) -> None:
        self.down = False
        self._connected.set()

    def fail(
        self, action: Action, verb: str | None = None, resource: str | None = None, times: int = 1
    ) -> Fault:
        """Inject a fault into the next ``times`` requests of a kind.

        A watch has the resource's name with ``?watch``.
        """

        def matches(call: Call) -> bool:
            name = f"{call.resource}?watch" if call.watch else call.resource
            return verb in (None, call.verb) and resource in (None, name)

        self.faults.append(Fault(action, matches, times))
        return self.faults[-1]

    async def until(self, condition: Callable[[], object], timeout: float = 120) -> None:
        """Wait for a condition, evaluated at each call; raises ``TimeoutError``."""
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
            await self._connected.wait()
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
        if call.verb in WRITES:
            # A write takes effect even if the operator does not wait for the response any more.
            task = asyncio.create_task(self._write(request, call, headers, body))
            self._forwarding.add(task)
            task.add_done_callback(self._forwarding.discard)
            response = await asyncio.shield(task)
            await self._connected.wait()
            return response
        async with self._api.http.request(
            request.method, request.path_qs, headers=headers, data=body or None, read_bufsize=2**22
        ) as answer:
            call.status = answer.status
            passed_on = _passed_on(answer)
            if not call.watch:
                content = await answer.read()
                await self._connected.wait()
                return web.Response(status=answer.status, headers=passed_on, body=content)
            stream = web.StreamResponse(status=answer.status, headers=passed_on)
            await stream.prepare(request)
            seen = 0
            with contextlib.suppress(ConnectionResetError):
                async for line in answer.content:
                    if seen == cut_after:
                        await stream.write(line[: len(line) // 2])
                        _abort(request)
                        break
                    await self._connected.wait()
                    await stream.write(line)
                    seen += 1
                    if pause:
                        await asyncio.sleep(pause)
            return stream

    async def _write(
        self, request: web.Request, call: Call, headers: dict[str, str], body: bytes
    ) -> web.Response:
        call.apply = request.content_type == APPLY_PATCH
        call.body = json.loads(body)
        async with self._api.http.request(
            request.method, request.path_qs, headers=headers, data=body, read_bufsize=2**22
        ) as answer:
            content = await answer.read()
            call.status = answer.status
            if answer.status < 400:
                call.note(json.loads(content))
                if call.write and self._is_change(call):
                    self.written(call)
            return web.Response(status=answer.status, headers=_passed_on(answer), body=content)


def _passed_on(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}


# --- faults ---------------------------------------------------------------------------------------


def answers(status: int, retry_after: int | None = None) -> Action:
    """Return an error without forwarding the request."""

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
            {**body, "message": "injected by the proxy"}, status=status, headers=headers
        )

    return action


async def drop_before(request: web.Request, forward: Forward) -> web.StreamResponse:
    """Abort the connection before the request reaches the API server."""
    return _abort(request)


async def drop_after(request: web.Request, forward: Forward) -> web.StreamResponse:
    """Forward the request, but lose the response."""
    await forward()
    return _abort(request)


async def hang(request: web.Request, forward: Forward) -> web.StreamResponse:
    """Forward the request, but never respond."""
    await forward()
    await asyncio.Event().wait()
    raise AssertionError


def slow(seconds: float) -> Action:
    """Delay the response."""

    async def action(request: web.Request, forward: Forward) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await forward()

    return action


async def expired(request: web.Request, forward: Forward) -> web.StreamResponse:
    """Answer a watch as if its resource version had expired: with an error in the stream."""
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
    """Break a watch off in the middle of an event, after ``after`` whole ones."""

    async def action(request: web.Request, forward: Forward) -> web.StreamResponse:
        return await forward(cut_after=after)

    return action


def trickle(pause: float) -> Action:
    """Deliver a watch's events one by one, with a pause in seconds between them."""

    async def action(request: web.Request, forward: Forward) -> web.StreamResponse:
        return await forward(pause=pause)

    return action


def _abort(request: web.Request) -> web.StreamResponse:
    if isinstance(request.transport, asyncio.Transport):
        request.transport.abort()
    return web.Response()  # nobody receives it


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
        "dryRun" in request.query,
        replica=_replica(request),
    )


def _replica(request: web.Request) -> str:
    program, _, replica = request.headers.get("User-Agent", "").partition("/")
    return replica if program == MANAGED_BY else ""


def _is_watch(request: web.Request) -> bool:
    return request.query.get("watch", "").lower() in ("true", "1")
