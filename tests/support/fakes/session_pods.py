"""Fake session pods: they answer the operator over HTTP like real ones, and obey tests at once."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from support.fakes.network import Network
from wasession_api.session_pod import PORT
from wasession_api.session_pod.delivery import Configuration
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import (
    Account,
    AuthState,
    DeliveryState,
    DeliveryStatus,
    Phase,
    Reason,
)

HEARTBEAT = 10.0  # seconds


@dataclass
class Volume:
    """The contents of a disk: a login, or none."""

    login: bool = False
    fulfilled_logout: str | None = None  # the latest request
    delivery: Configuration = field(default_factory=Configuration)
    clock: datetime = field(default_factory=lambda: datetime.now(UTC))  # of the program on it
    writers: set[str] = field(default_factory=set)  # UIDs of the pods that have it mounted


def delivery(
    name: str, state: DeliveryState = DeliveryState.DELIVERING, error: str | None = None
) -> DeliveryStatus:
    since = datetime.now(UTC).replace(microsecond=0)
    return DeliveryStatus(name=name, state=state, since=since, error=error)


class SessionPod:
    """One run of a session pod's program on a volume."""

    def __init__(
        self,
        address: str,
        client_id: str,
        session_uid: str,
        token: str,
        volume: Volume,
        *,
        scanned: bool,
    ) -> None:
        self.address = address
        self.token = token
        self.volume = volume
        self.requests: list[str] = []  # such as "POST /v1/logout"
        self.deaf = False  # whether requests stay unanswered
        self.ended = asyncio.Event()
        self._changed = asyncio.Event()
        # Real pods take seconds where these take none, and timestamps of whole seconds must differ.
        volume.clock = max(datetime.now(UTC), volume.clock + timedelta(seconds=2)).replace(
            microsecond=0
        )
        self.report = Report(
            client_id=client_id,
            session_uid=session_uid,
            started_at=volume.clock,
            seq=0,
            phase=Phase.STARTING,
            reason=Reason.BROWSER_STARTING,
            session_valid=volume.login,
            fulfilled_logout=volume.fulfilled_logout,
            delivery_revision=volume.delivery.revision,
            deliveries=[delivery(one.name) for one in volume.delivery.destinations],
        )
        if volume.login:
            self.say(Phase.READY, Reason.CONNECTED, restored=True, **self._connected())
        else:
            self.say(Phase.AUTHENTICATING, Reason.WAITING_FOR_SCAN)
            if scanned:
                self.scan()

    def say(self, phase: Phase, reason: Reason, message: str = "", **more: Any) -> None:
        """Publish the next report."""
        changes = {
            "seq": self.report.seq + 1,
            "phase": phase,
            "reason": reason,
            "message": message,
            **more,
        }
        self.report = self.report.model_copy(update=changes)
        self.beat()

    def beat(self) -> None:
        """Send what there is, at least a heartbeat, to all readers of events."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def scan(self) -> None:
        """Act as after the scan of a phone: write the login to the volume, then report it."""
        self.volume.login = True
        self.say(
            Phase.READY, Reason.CONNECTED, restored=False, session_valid=True, **self._connected()
        )

    def _connected(self) -> dict[str, Any]:
        self.volume.clock += timedelta(seconds=1)
        connected = {"is_authenticated": True, "last_connected": self.volume.clock}
        return {**connected, "account": self._account, "auth_state": AuthState.CONNECTED}

    @property
    def _account(self) -> Account:
        """Return the account of the session's phone: each has one of its own."""
        number = 15550000000 + zlib.crc32((self.report.session_uid or "").encode()) % 10_000_000
        return Account(id=f"{number}@c.us", push_name="Sales", platform="android")

    def log_out(self, request: str | None = None) -> None:
        self.volume.login = False
        self.volume.fulfilled_logout = request or self.volume.fulfilled_logout
        self.say(
            Phase.LOGGED_OUT,
            Reason.LOGGED_OUT_ON_REQUEST,
            session_valid=False,
            is_authenticated=False,
            fulfilled_logout=self.volume.fulfilled_logout,
        )

    def configure(self, configuration: Configuration) -> None:
        """Act as a pod that delivers to these, and has no trouble with it."""
        self.volume.delivery = configuration
        self.report_deliveries(*(delivery(one.name) for one in configuration.destinations))

    def report_deliveries(self, *deliveries: DeliveryStatus) -> None:
        report = self.report
        self.say(
            report.phase,
            Reason(report.reason),
            delivery_revision=self.volume.delivery.revision,
            deliveries=list(deliveries),
        )

    async def write_events(self, stream: web.StreamResponse) -> None:
        """Write each report as a server-sent event, until the program ends."""
        last = -1
        while not self.ended.is_set():
            changed = self._changed
            if self.report.seq != last:
                last = self.report.seq
                report = self.report.model_dump_json(by_alias=True)
                await stream.write(f"id: {last}\nevent: state\ndata: {report}\n\n".encode())
            else:
                await stream.write(b": alive\n\n")
            ended = asyncio.ensure_future(self.ended.wait())
            waiting = asyncio.ensure_future(changed.wait())
            await asyncio.wait(
                {ended, waiting}, timeout=HEARTBEAT, return_when=asyncio.FIRST_COMPLETED
            )
            ended.cancel()
            waiting.cancel()


class SessionPods:
    """The HTTP server of all fake session pods: the address of a request selects the pod."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._pods: dict[str, SessionPod] = {}
        self._servers: dict[str, asyncio.Server] = {}
        app = web.Application()
        app.router.add_get("/v1/events", self._events)
        app.router.add_get("/v1/state", self._state)
        app.router.add_post("/v1/logout", self._logout)
        app.router.add_put("/v1/logout", self._note_logout)
        app.router.add_put("/v1/deliveries", self._configure)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)

    async def start(self) -> None:
        await self._runner.setup()

    async def stop(self) -> None:
        for pod in list(self._pods.values()):
            self.remove(pod)
        await self._runner.cleanup()

    async def add(self, pod: SessionPod) -> None:
        """Listen on the pod's address; before and after, connections to it are refused."""
        assert self._runner.server is not None
        self._pods[pod.address] = pod
        listener = self._network.listen(pod.address, PORT)
        self._servers[pod.address] = await asyncio.get_running_loop().create_server(
            self._runner.server, sock=listener
        )

    def remove(self, pod: SessionPod) -> None:
        pod.ended.set()
        del self._pods[pod.address]
        self._servers.pop(pod.address).close()

    def _asked(self, request: web.Request) -> SessionPod:
        assert request.transport is not None
        pod = self._pods.get(request.transport.get_extra_info("sockname")[0])
        if pod is None:
            raise web.HTTPServiceUnavailable
        if request.headers.get("Authorization") != f"Bearer {pod.token}":
            raise web.HTTPUnauthorized
        pod.requests.append(f"{request.method} {request.path}")
        return pod

    async def _events(self, request: web.Request) -> web.StreamResponse:
        pod = self._asked(request)
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        with contextlib.suppress(ConnectionResetError):
            await pod.write_events(stream)
        return stream

    async def _state(self, request: web.Request) -> web.Response:
        return web.json_response(text=self._asked(request).report.model_dump_json(by_alias=True))

    async def _logout(self, request: web.Request) -> web.Response:
        pod = self._asked(request)
        if pod.deaf:
            await pod.ended.wait()
            raise web.HTTPServiceUnavailable
        pod.log_out(request.query.get("request"))
        return web.json_response({})

    async def _configure(self, request: web.Request) -> web.Response:
        pod = self._asked(request)
        if pod.deaf:
            await pod.ended.wait()
            raise web.HTTPServiceUnavailable
        pod.configure(Configuration.model_validate_json(await request.read()))
        return web.json_response({})

    async def _note_logout(self, request: web.Request) -> web.Response:
        pod = self._asked(request)
        pod.volume.fulfilled_logout = request.query["request"]
        pod.say(
            pod.report.phase,
            Reason(pod.report.reason),
            fulfilled_logout=pod.volume.fulfilled_logout,
        )
        return web.json_response({})
