"""The gateway as a whole: what it is made of, how it starts and how it goes."""

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

from wasession_gateway import metrics
from wasession_gateway.auth import Authenticator
from wasession_gateway.commands import Commands
from wasession_gateway.limits import Limiter
from wasession_gateway.middleware import Middleware, strict_headers
from wasession_gateway.pods import Pods
from wasession_gateway.rest import MAXIMUM_BODY, Rest
from wasession_gateway.session_cache import Sessions
from wasession_gateway.settings import Settings
from wasession_gateway.socketio_connections import Connections
from wasession_gateway.socketio_namespace import Socket

log = logging.getLogger(__name__)
CONSOLE = Path(__file__).with_name("console")
READ_BUFFER = 2**20  # bytes; the longest message is one line of an event stream
LINGERING = 1.0  # seconds that a caller may go on sending what was refused, so that it reads why


class Gateway:
    """One replica. As a context: it serves inside, and has gone gracefully at the end."""

    def __init__(self, settings: Settings, kube: KubeClient) -> None:
        self._settings, self._kube = settings, kube
        self.sessions = Sessions(kube, settings.namespace)

    async def __aenter__(self) -> Self:
        settings = self._settings
        self._http = aiohttp.ClientSession(
            read_bufsize=READ_BUFFER, connector=aiohttp.TCPConnector(limit=0)
        )
        subjects = Limiter(settings.subject_rate, settings.subject_burst)
        authenticator = Authenticator(settings, self._http)
        pods = Pods(self._kube, self._http, settings.namespace)
        commands = Commands(settings, self.sessions, pods)
        self._middleware = Middleware(settings, authenticator, subjects)
        self._connections = Connections(
            settings.max_connections_per_address, self._middleware.may_connect
        )
        self._socket = Socket(
            self._connections, authenticator, self.sessions, commands, pods, subjects
        )
        self.sessions.listen(self._socket.session_changed)
        self._tasks = [
            asyncio.create_task(self.sessions.watch.run()),
            asyncio.create_task(self._socket.run()),
        ]
        for task in self._tasks:
            task.add_done_callback(_ended)

        middlewares = [*self._middleware.all(), self._connections.middleware]
        server_logger.addFilter(WithoutContent())
        app = web.Application(middlewares=middlewares, client_max_size=MAXIMUM_BODY)
        app.on_response_prepare.append(strict_headers)
        Rest(settings, self.sessions, commands, pods).add_to(app)
        self._connections.attach(app)
        for file in CONSOLE.rglob("*.*"):
            app.router.add_get(
                f"/{file.relative_to(CONSOLE).as_posix()}".removesuffix("index.html"), _file(file)
            )
        app.router.add_get("/socket.io-client.js", _file(settings.socket_io_client))
        ports = ((self._management(), settings.management_port), (app, settings.port))
        self._runners = [await _serve(served, settings, port) for served, port in ports]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Not ready first, so that no more requests come; then the clients are told; what is being answered is answered."""
        self._middleware.draining.set()
        if error is None:
            await asyncio.sleep(self._settings.drain_delay.total_seconds())
        self.sessions.close()
        await self._socket.close()
        self._connections.abort()
        for runner in reversed(self._runners):
            await runner.cleanup()
        for task in self._tasks:
            task.remove_done_callback(_ended)
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.close()

    def _management(self) -> web.Application:
        """Probes and metrics, on a port that no Ingress leads to."""

        async def alive(_: web.Request) -> web.Response:
            return web.json_response({"status": "ok"})

        async def ready(_: web.Request) -> web.Response:
            """Ready once all sessions are known; not while the API server is away, as old answers beat none."""
            ready = self.sessions.watch.is_synced and not self._middleware.draining.is_set()
            return web.json_response(
                {"status": "ok" if ready else "not ready"}, status=200 if ready else 503
            )

        async def show_metrics(_: web.Request) -> web.Response:
            metrics.SESSIONS.set(len(self.sessions))
            metrics.INFORMER_LAST_EVENT_AGE.set(self.sessions.watch.age)
            return web.Response(
                body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST}
            )

        app = web.Application()
        app.router.add_get("/livez", alive)
        app.router.add_get("/readyz", ready)
        app.router.add_get("/metrics", show_metrics)
        return app


def _file(path: Path) -> Handler:
    async def answer(_: web.Request) -> web.FileResponse:
        return web.FileResponse(
            path, headers={"Cache-Control": "no-cache"}
        )  # its parts must be of one version

    return answer


async def _serve(app: web.Application, settings: Settings, port: int) -> web.AppRunner:
    finish = settings.shutdown_timeout.total_seconds()
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=finish,
        lingering_time=LINGERING,
    )
    await runner.setup()
    await web.TCPSite(runner, settings.host, port).start()
    return runner


def _ended(task: asyncio.Task[None]) -> None:
    """A task that should run until the end has failed: better a restart than a gateway that only looks alive."""
    if not task.cancelled():
        log.critical("ended by an error", exc_info=task.exception())
        raise SystemExit(1)
