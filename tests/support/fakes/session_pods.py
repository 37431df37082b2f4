"""Fake session pods: they answer the operator over HTTP like real ones, and obey tests at once."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from aiohttp import web
from support.fakes.network import Network
from wasession_api.session_pod import PORT
from wasession_api.session_pod.backup import (
    BackupOrder,
    BackupReport,
    BackupState,
    Restoration,
)
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
    login_id: str | None = None
    fulfilled_logout: str | None = None  # the latest request
    delivery: Configuration = field(default_factory=Configuration)
    clock: datetime = field(default_factory=lambda: datetime.now(UTC))  # of the program on it
    writers: set[str] = field(default_factory=set)  # UIDs of the pods that have it mounted
    used: bool = False  # whether a session has ever run on it
    restoration: Restoration | None = None

    def restore(self, environment: Mapping[str, str]) -> None:
        """Act as the init container that restores a backup, if the volume is empty."""
        if self.restoration is not None:
            return
        if not self.used:
            self.login, self.login_id = True, environment["WASESSION_RESTORE_LOGIN_ID"]
        self.restoration = Restoration(
            backup=environment["WASESSION_RESTORE_BACKUP"],
            restored=not self.used,
            login_id=self.login_id,
            at=datetime.now(UTC),
        )

    def adopt(self, environment: Mapping[str, str]) -> None:
        """Act as the init container that makes a copied volume its session's."""
        backup = environment["WASESSION_RESTORE_BACKUP"]
        if self.restoration is not None and self.restoration.backup == backup:
            return
        assert self.login_id == environment["WASESSION_RESTORE_LOGIN_ID"]
        self.restoration = Restoration(
            backup=backup, restored=True, login_id=self.login_id, at=datetime.now(UTC)
        )


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
        self.archive = b"an encrypted login"  # what it uploads
        self.may_upload = asyncio.Event()
        self.may_upload.set()
        self.failing_uploads = 0  # the next ones
        self.ended = asyncio.Event()
        volume.used = True
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
            login_id=volume.login_id,
            fulfilled_logout=volume.fulfilled_logout,
            delivery_revision=volume.delivery.revision,
            deliveries=[delivery(one.name) for one in volume.delivery.destinations],
            can_back_up=True,
            restoration=volume.restoration,
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
        self.volume.login, self.volume.login_id = True, uuid.uuid4().hex
        self.say(
            Phase.READY, Reason.CONNECTED, restored=False, session_valid=True,
            login_id=self.volume.login_id, **self._connected(),
        )  # fmt: skip

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
        self.volume.login, self.volume.login_id = False, None
        self.volume.fulfilled_logout = request or self.volume.fulfilled_logout
        self.say(
            Phase.LOGGED_OUT,
            Reason.LOGGED_OUT_ON_REQUEST,
            session_valid=False,
            login_id=None,
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

    def idle(self, since: datetime | None) -> None:
        """Report since when the session is idle; None: it is not."""
        self.say(self.report.phase, Reason(self.report.reason), idle_since=since)

    async def back_up(self, order: BackupOrder, http: aiohttp.ClientSession) -> None:
        """Upload the archive and report it; one that was uploaded, or is, is left alone."""
        present = self.report.backup
        if present is not None and present.id == order.id and present.state != BackupState.FAILED:
            return
        self._report_backup(order, BackupState.RUNNING)
        await self.may_upload.wait()
        if self.failing_uploads > 0:
            self.failing_uploads -= 1
            error = f"PUT {order.url.get_secret_value()}: the store answered 503"
            self._report_backup(order, BackupState.FAILED, error=error)
            return
        taken_at, archive = self.volume.clock, self.archive
        try:
            async with http.put(order.url.get_secret_value(), data=archive) as response:
                response.raise_for_status()
        except aiohttp.ClientError as error:
            self._report_backup(order, BackupState.FAILED, error=type(error).__name__)
            return
        self._report_backup(
            order,
            BackupState.UPLOADED,
            taken_at=taken_at,
            size=len(archive),
            sha256=hashlib.sha256(archive).hexdigest(),
        )

    def _report_backup(self, order: BackupOrder, state: BackupState, **more: Any) -> None:
        backup = BackupReport(id=order.id, state=state, **more)
        self.say(self.report.phase, Reason(self.report.reason), backup=backup)

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
        app.router.add_put("/v1/backup", self._back_up)
        self._uploads: set[asyncio.Task[None]] = set()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)

    async def start(self) -> None:
        await self._runner.setup()

    async def stop(self) -> None:
        for upload in self._uploads:
            upload.cancel()
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

    async def _back_up(self, request: web.Request) -> web.Response:
        pod = self._asked(request)
        if pod.deaf:
            await pod.ended.wait()
            raise web.HTTPServiceUnavailable
        order = BackupOrder.model_validate_json(await request.read())
        upload = asyncio.create_task(self._upload(pod, order))
        self._uploads.add(upload)
        upload.add_done_callback(self._uploads.discard)
        return web.json_response({}, status=202)

    async def _upload(self, pod: SessionPod, order: BackupOrder) -> None:
        """Let a pod upload; what a program has begun ends with it."""
        async with aiohttp.ClientSession(connector=self._network.connector()) as http:
            upload = asyncio.ensure_future(pod.back_up(order, http))
            ended = asyncio.ensure_future(pod.ended.wait())
            await asyncio.wait({upload, ended}, return_when=asyncio.FIRST_COMPLETED)
            upload.cancel()
            ended.cancel()

    async def _note_logout(self, request: web.Request) -> web.Response:
        pod = self._asked(request)
        pod.volume.fulfilled_logout = request.query["request"]
        pod.say(
            pod.report.phase,
            Reason(pod.report.reason),
            fulfilled_logout=pod.volume.fulfilled_logout,
        )
        return web.json_response({})
