"""The gateway as a whole: its parts, its start and its shutdown."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web
from aiohttp.log import server_logger
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from wasession_api.http.routes import Handler, WithoutContent
from wasession_api.kube.client import KubeClient
from wasession_api.kube.informer import log_failure

from wasession_gateway import metrics
from wasession_gateway.audit import AuditLog
from wasession_gateway.auth import Authenticator
from wasession_gateway.commands import Commands
from wasession_gateway.http_server import note_request, serve
from wasession_gateway.limits import Limiter
from wasession_gateway.middleware import Middleware, strict_headers
from wasession_gateway.pods import Pods
from wasession_gateway.rest import MAXIMUM_BODY, Rest
from wasession_gateway.session_cache import SessionCache
from wasession_gateway.session_key import SessionKey
from wasession_gateway.settings import Settings
from wasession_gateway.socketio_connections import Connections
from wasession_gateway.socketio_namespace import Namespace

log = logging.getLogger(__name__)
CONSOLE = Path(__file__).with_name("console")
READ_BUFFER = 2**20  # bytes; the longest message is one line of an event stream


class Gateway:
    """One replica, as an async context manager: it serves inside and shuts down gracefully."""

    def __init__(self, settings: Settings, kube: KubeClient) -> None:
        self._settings, self._kube = settings, kube
        self.sessions = SessionCache(kube, settings.namespace)
        self._key = SessionKey(settings.session_key_file)

    async def __aenter__(self) -> Self:
        settings = self._settings
        self._http = aiohttp.ClientSession(
            read_bufsize=READ_BUFFER, connector=aiohttp.TCPConnector(limit=0)
        )
        subjects = Limiter("subject", settings.subject_rate, settings.subject_burst)
        authenticator = Authenticator(settings, self._http)
        pods = Pods(self._kube, self._http, settings.namespace, self._key)
        audit_log = AuditLog(settings.namespace)
        commands = Commands(settings, self.sessions, pods)
        self._middleware = Middleware(
            settings, authenticator, subjects, audit_log, self.sessions.find_name
        )
        handshakes = Limiter("handshake", settings.address_rate, settings.address_burst)
        self._connections = Connections(
            settings.max_connections_per_address, handshakes, self._middleware.may_connect
        )
        self._namespace = Namespace(
            self._connections,
            authenticator,
            self.sessions,
            commands,
            pods,
            audit_log,
            Limiter("init", settings.subject_rate, settings.subject_burst),
            Limiter("init", settings.address_rate, settings.address_burst),
        )
        self.sessions.listen(self._namespace.session_changed)
        self._tasks = [
            asyncio.create_task(self.sessions.informer.run()),
            asyncio.create_task(self._namespace.run()),
        ]
        for task in self._tasks:
            task.add_done_callback(_exit_on_error)
        server_logger.addFilter(WithoutContent())
        self._rest = Rest(settings, self.sessions, commands, pods)
        app = self._application()
        ports = ((self._management(), settings.management_port), (app, settings.port))
        timeout = settings.shutdown_timeout.total_seconds()
        self._runners = [
            await serve(served, settings.host, port, timeout) for served, port in ports
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Become not ready, wait for load balancers, close clients, finish pending requests."""
        self._middleware.draining.set()
        if error is None:
            await asyncio.sleep(self._settings.drain_delay.total_seconds())
        self.sessions.close()
        self._rest.close()
        await self._namespace.close()
        self._connections.abort()
        for runner in reversed(self._runners):
            await runner.cleanup()
        for task in self._tasks:
            task.remove_done_callback(_exit_on_error)
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.close()

    def _application(self) -> web.Application:
        """REST, Socket.IO and the console."""
        app = web.Application(
            middlewares=[
                note_request,
                *self._middleware.all(),
                self._connections.middleware,
            ],
            client_max_size=MAXIMUM_BODY,
        )
        app.on_response_prepare.extend(
            (strict_headers, self._middleware.allow_origin, self._middleware.audit_start)
        )
        self._rest.add_to(app)
        self._connections.attach(app)
        for file in CONSOLE.rglob("*.*"):
            path = file.relative_to(CONSOLE).as_posix().removesuffix("index.html")
            app.router.add_get(f"/{path}", _file(file))
        app.router.add_get("/socket.io-client.js", _file(self._settings.socket_io_client))
        return app

    def _not_ready(self) -> str:
        """Return why the gateway is not ready; empty if it is.

        It stays ready while the API server is away: data that may be out of date is better than
        none.
        """
        if self._middleware.draining.is_set():
            return "the gateway is shutting down"
        if not self.sessions.informer.is_synced:
            return "the sessions have not been listed yet"
        return self._key.problem

    def _management(self) -> web.Application:
        """Probes and metrics, on a port that no Ingress exposes."""

        async def alive(_: web.Request) -> web.Response:
            return web.json_response({"status": "ok"})

        async def ready(_: web.Request) -> web.Response:
            if not (problem := self._not_ready()):
                return web.json_response({"status": "ok"})
            return web.json_response({"status": "not ready", "reason": problem}, status=503)

        async def show_metrics(_: web.Request) -> web.Response:
            metrics.SESSIONS.set(len(self.sessions))
            metrics.INFORMER_LAST_EVENT_AGE.set(self.sessions.informer.age)
            return web.Response(
                body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST}
            )

        app = web.Application(middlewares=[note_request])
        app.router.add_get("/livez", alive)
        app.router.add_get("/readyz", ready)
        app.router.add_get("/metrics", show_metrics)
        return app


def _file(path: Path) -> Handler:
    async def serve_file(_: web.Request) -> web.FileResponse:
        # Revalidated each time, so that the console's files are all of one version.
        return web.FileResponse(path, headers={"Cache-Control": "no-cache"})

    return serve_file


def _exit_on_error(task: asyncio.Task[None]) -> None:
    """End the process when a background task fails: a restart beats a gateway that looks alive."""
    if not task.cancelled():
        log_failure(log, "background task failed; exiting", task.exception())
        raise SystemExit(1)
