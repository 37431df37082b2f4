"""What kopf calls: startup, cleanup, and the watch events of sessions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import aiohttp
import kopf
from wasession_api import names
from wasession_api.kube.client import PAGE_SIZE, KubeClient
from wasession_api.v1alpha1 import GROUP, PLURAL, VERSION

from wasession_operator import health, startup
from wasession_operator.controller import Controller
from wasession_operator.resync import Resync
from wasession_operator.settings import Settings

log = logging.getLogger(__name__)
SESSIONS = (GROUP, VERSION, PLURAL)


def register(registry: kopf.OperatorRegistry, settings: Settings) -> None:
    """Register the handlers."""
    running: dict[str, Controller] = {}
    resources = contextlib.AsyncExitStack()

    @kopf.on.login(registry=registry)
    async def login(**arguments: Any) -> Any:
        return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(
            **arguments
        )

    @kopf.on.startup(registry=registry)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        _configure(settings)
        running["controller"] = await _start(resources)

    @kopf.on.cleanup(registry=registry)
    async def stop(**_: Any) -> None:
        await resources.aclose()

    @kopf.on.event(*SESSIONS, id="session", registry=registry)
    async def session_event(type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's name
        running["controller"].cache.session_event(type, dict(body))

    async def _start(resources: contextlib.AsyncExitStack) -> Controller:
        kube = await KubeClient.connect()
        resources.push_async_callback(kube.close)
        # No limit: each session pod has a stream of its own, aiohttp's default is 100 in all.
        http = await resources.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        )
        controller = Controller(settings, kube, http)
        resources.push_async_callback(controller.close)
        resync = Resync(controller, kube)
        server = await health.serve(settings.http_port, controller, resync, kube)
        resources.push_async_callback(server.cleanup)
        for work in (controller.run(), resync.run(), startup.run(controller)):
            task = asyncio.create_task(work)
            task.add_done_callback(_exit_on_error)
            resources.callback(task.cancel)
        return controller


def _exit_on_error(task: asyncio.Task[None]) -> None:
    """Exit when background work fails: kubelet's restart is better than half an operator."""
    if not task.cancelled() and task.exception() is not None:
        log.critical("operator failed; exiting", exc_info=task.exception())
        raise SystemExit(1)


class _NoDiffBase(kopf.DiffBaseStorage):
    """Keep kopf from storing and comparing what it has last handled: the plan does not need it."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def store(self, **_: Any) -> None:
        """Store nothing."""


def _configure(settings: kopf.OperatorSettings) -> None:
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.watching.chunk_size = PAGE_SIZE
    settings.watching.reconnect_backoff = 1.0
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = (1, 2, 4, 8, 15, 30)
    settings.queueing.idle_timeout = 0.5
    settings.posting.level = logging.WARNING
    settings.posting.reporting_component = names.MANAGED_BY
    settings.scanning.disabled = True
