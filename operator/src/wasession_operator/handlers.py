"""The operator's side towards kopf: settings, and handlers that pass on what they are told."""

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

from wasession_operator import health
from wasession_operator.cluster_cache import key_of
from wasession_operator.reconcile import Operator
from wasession_operator.settings import Settings
from wasession_operator.upkeep import Upkeep

SESSIONS = (GROUP, VERSION, PLURAL)


def register(registry: kopf.OperatorRegistry, settings: Settings) -> None:
    """Registers everything that kopf should call."""
    running: dict[str, Operator] = {}
    resources = contextlib.AsyncExitStack()

    @kopf.on.login(registry=registry)
    async def login(**arguments: Any) -> Any:
        return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(
            **arguments
        )

    @kopf.on.startup(registry=registry)
    async def startup(settings: kopf.OperatorSettings, **_: Any) -> None:
        _configure(settings)
        running["operator"] = await _start(resources)

    @kopf.on.cleanup(registry=registry)
    async def cleanup(**_: Any) -> None:
        await resources.aclose()

    @kopf.on.event(*SESSIONS, id="seen", registry=registry)
    async def session_event(type: str, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's name
        if type == "DELETED":
            running["operator"].gone(key_of(dict(body)), body["metadata"]["uid"])
        else:
            running["operator"].seen(dict(body))

    async def _start(resources: contextlib.AsyncExitStack) -> Operator:
        kube = await KubeClient.connect()
        resources.push_async_callback(kube.close)
        # One stream per session: aiohttp's own limit of 100 connections would leave all the others
        # unheard.
        http = await resources.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        )
        operator = Operator(settings, kube, http)
        resources.push_async_callback(operator.close)
        upkeep = Upkeep(operator, kube)
        server = await health.serve(settings.http_port, operator, upkeep, kube)
        resources.push_async_callback(server.cleanup)
        for work in (operator.run(), upkeep.run()):
            task = asyncio.create_task(work)
            task.add_done_callback(_end_with_it)
            resources.callback(task.cancel)
        return operator


def _end_with_it(task: asyncio.Task[None]) -> None:
    """Work that must never end has done so: a new process is better than one that is half dead."""
    if not task.cancelled():
        logging.getLogger(__name__).critical("the operator has failed", exc_info=task.exception())
        raise SystemExit(1)


class _NoDiffBase(kopf.DiffBaseStorage):
    """kopf would compare each object with the one before. The plan has no need of that."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def store(self, **_: Any) -> None:
        """Nothing."""


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
