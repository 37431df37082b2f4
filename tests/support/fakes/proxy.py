"""An HTTP proxy between an operator and the API server: it records calls and injects faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Collection
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
    sent: float = 0.0  # when the operator has sent it; monotonic
    seconds: float = 0.0  # from then to the API server's response

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
    """Forwards a request; it may break a watch in an event, after some others, or slow it down.

    If ``whole``, the response ends as if nothing were missing; else its connection is aborted.
    """

    def __call__(
        self, *, cut_after: int | None = None, whole: bool = False, pause: float = 0
    ) -> Awaitable[web.StreamResponse]: ...


Action = Callable[[web.Request, Forward], Awaitable[web.StreamResponse]]


@dataclass
class Fault:
    """Replaces the first ``times`` requests that match by ``action``."""

    action: Action
    matches: Callable[[Call], bool]
    times: int = 1
    mutes: bool = False  # whether the watches that are open already deliver nothing any more
    done: int = field(default=0, init=False)  # how often that has happened

    @property
    def active(self) -> bool:
        return self.done < self.times

    def end(self) -> None:
        self.times = 0


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
        self._open: list[tuple[Call, asyncio.Transport]] = []  # requests without a full response
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
        self.cut()
        await self._runner.cleanup()
        if not self._connected.is_set():
            for task in self._forwarding:
                task.cancel()
        await asyncio.gather(*self._forwarding, return_exceptions=True)

    def cut(self) -> None:
        """Abort every open connection."""
        for _, transport in list(self._open):
            transport.abort()

    @property
    def requests(self) -> list[Call]:
        """What waits for a response; watches do not count."""
        return [call for call, _ in self._open if not call.watch]

    def partition(self, *, refuse: bool = False) -> None:
        """Separate the operator from the API server until ``heal``.

        Requests and watches hang, and those that are given up meanwhile are lost, except a write
        that was on its way already. If ``refuse``, connections are aborted instead.
        """
        if refuse:
            self.down = True
            self.cut()
        else:
            self._connected.clear()

    def heal(self) -> None:
        self.down = False
        self._connected.set()

    def break_watches(
        self,
        action: Action,
        resources: Collection[str],
        namespace: str | None = None,
        *,
        lists: bool = False,
        mute: bool = False,
    ) -> Fault:
        """Inject a fault into all watches of resources until it ends, also into the open ones.

        Those are aborted, or stay open and deliver nothing if ``mute``. With a namespace, those of
        others go on; a cluster-wide resource is in none. ``lists`` may have the fault too.
        """

        def matches(call: Call) -> bool:
            concerned = call.watch or (lists and call.verb == "GET" and call.name is None)
            return concerned and call.resource in resources and namespace in (None, call.namespace)

        self.faults.append(Fault(action, matches, 10**9, mutes=mute))
        if not mute:
            for call, transport in list(self._open):
                if matches(call):
                    transport.abort()
        return self.faults[-1]

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
        """Wait for a condition, evaluated at each call and its end; raises ``TimeoutError``."""
        async with asyncio.timeout(timeout):
            while not condition():
                await self._called.wait()

    @property
    def writes(self) -> list[Call]:
        return [call for call in self.calls if call.write]

    def _note_change(self) -> None:
        """Let those evaluate their conditions who wait."""
        called, self._called = self._called, asyncio.Event()
        called.set()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        call = _read(request)
        call.sent = time.monotonic()
        self.calls.append(call)
        self._note_change()
        transport = request.transport
        if self.down or not isinstance(transport, asyncio.Transport):
            return _abort(request)
        self._open.append((call, transport))
        try:
            await self._connected.wait()
            fault = next((f for f in self.faults if f.active and f.matches(call)), None)
            if fault is None:
                return await self._forward(request, call)
            fault.done += 1
            return await fault.action(request, partial(self._forward, request, call))
        finally:
            self._open = [(other, t) for other, t in self._open if other is not call]
            self._note_change()

    async def _forward(
        self,
        request: web.Request,
        call: Call,
        *,
        cut_after: int | None = None,
        whole: bool = False,
        pause: float = 0,
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
                        if not whole:
                            _abort(request)
                        break
                    await self._connected.wait()
                    if any(f.mutes and f.active and f.matches(call) for f in self.faults):
                        await asyncio.Event().wait()
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
        await self._connected.wait()
        async with self._api.http.request(
            request.method, request.path_qs, headers=headers, data=body, read_bufsize=2**22
        ) as answer:
            content = await answer.read()
            call.status, call.seconds = answer.status, time.monotonic() - call.sent
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
            403: "Forbidden",
            409: "Conflict",
            410: "Expired",
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


async def bad_gateway(request: web.Request, forward: Forward) -> web.StreamResponse:
    """Answer like a load balancer without a server."""
    return web.Response(status=502, text="<html>502 Bad Gateway</html>", content_type="text/html")


def delivers(*events: object) -> Action:
    """Answer a watch with these events, whatever they are, and end it."""

    async def action(request: web.Request, forward: Forward) -> web.StreamResponse:
        lines = "".join(f"{json.dumps(event)}\n" for event in events)
        return web.Response(text=lines, content_type="application/json")

    return action


def fails_in_stream(code: int, reason: str) -> Action:
    """Open a watch, and answer with an error in its stream."""
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
    return delivers(
        {"type": "ERROR", "object": {**status, "reason": reason, "message": "injected"}}
    )


expired = fails_in_stream(410, "Expired")


async def silence(request: web.Request, forward: Forward) -> web.StreamResponse:
    """Open a watch, and never deliver anything."""
    stream = web.StreamResponse(headers={"Content-Type": "application/json"})
    await stream.prepare(request)
    await asyncio.Event().wait()
    raise AssertionError


async def truncate(request: web.Request, forward: Forward) -> web.StreamResponse:
    """End a watch in the middle of its first event, as if that were the end."""
    return await forward(cut_after=0, whole=True)


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
