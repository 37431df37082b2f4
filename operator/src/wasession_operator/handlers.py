"""The operator's side towards kopf: settings, and handlers that pass on what they are told."""

from __future__ import annotations

import logging
from typing import Any

import aiohttp
import kopf
from wasession_api.v1alpha1 import GROUP, PLURAL, VERSION

from wasession_operator import health, names
from wasession_operator.kube import Kube
from wasession_operator.reconcile import Operator
from wasession_operator.settings import Settings

SESSIONS = (GROUP, VERSION, PLURAL)
SELECTOR = {names.LABEL_MANAGED_BY: names.MANAGED_BY}


def register(registry: kopf.OperatorRegistry, settings: Settings) -> None:
    """Registers everything that kopf should call."""
    running: dict[str, Any] = {}

    def operator() -> Operator:
        found: Operator = running["operator"]
        return found

    @kopf.on.login(registry=registry)
    async def login(**arguments: Any) -> Any:
        return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)

    @kopf.on.startup(registry=registry)
    async def startup(settings: kopf.OperatorSettings, **_: Any) -> None:
        _configure(settings)
        running["kube"] = kube = await Kube.connect()
        # One stream per session: aiohttp's own limit of 100 connections would leave all the others unheard.
        running["http"] = http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        running["operator"] = Operator(running["settings"], kube, http)
        running["health"] = await health.serve(running["settings"].http_port, operator())

    @kopf.on.cleanup(registry=registry)
    async def cleanup(**_: Any) -> None:
        await operator().close()
        await running["health"].cleanup()
        await running["http"].close()
        await running["kube"].close()

    @kopf.on.event(*SESSIONS, registry=registry)
    async def session_event(type: str, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's name
        operator().session_seen(dict(body), gone=type == "DELETED")

    @kopf.on.event("v1", "pods", labels=SELECTOR, registry=registry)
    async def pod_event(type: str, body: kopf.Body, **_: Any) -> None:  # noqa: A002
        operator().object_seen("Pod", dict(body), gone=type == "DELETED")

    @kopf.on.event("v1", "persistentvolumeclaims", labels=SELECTOR, registry=registry)
    async def pvc_event(type: str, body: kopf.Body, **_: Any) -> None:  # noqa: A002
        operator().object_seen("PersistentVolumeClaim", dict(body), gone=type == "DELETED")

    if settings.watch_nodes:

        @kopf.on.event("v1", "nodes", registry=registry)
        async def node_event(type: str, body: kopf.Body, **_: Any) -> None:  # noqa: A002
            operator().node_seen(dict(body), gone=type == "DELETED")

    @kopf.daemon(*SESSIONS, registry=registry, cancellation_timeout=10)
    async def session_daemon(namespace: str | None, name: str, body: kopf.Body, stopped: Any, **_: Any) -> None:
        operator().session_seen(dict(body), gone=False)
        await operator().hold(str(namespace), name, stopped)

    @kopf.on.delete(*SESSIONS, registry=registry)
    async def session_deleted(namespace: str | None, name: str, body: kopf.Body, **_: Any) -> None:
        operator().session_seen(dict(body), gone=False)
        await operator().release(str(namespace), name)

    running["settings"] = settings


def _configure(settings: kopf.OperatorSettings) -> None:
    settings.persistence.finalizer = names.FINALIZER
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)
    settings.watching.label_selectors["v1/pods"] = names.SELECTOR
    settings.watching.label_selectors["v1/persistentvolumeclaims"] = names.SELECTOR
    settings.watching.chunk_size = 500
    settings.watching.reconnect_backoff = 1.0
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = (1, 2, 4, 8, 15, 30)
    settings.queueing.idle_timeout = 0.5
    settings.posting.level = logging.WARNING
    settings.posting.reporting_component = names.MANAGED_BY
    settings.scanning.disabled = True
