"""The operator's HTTP endpoints: liveness, readiness and metrics."""

from __future__ import annotations

import time

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from wasession_api.kube.client import KubeClient

from wasession_operator import metrics
from wasession_operator.controller import Controller
from wasession_operator.resync import Resync

STUCK_AFTER = 900.0  # seconds; one pass makes a few API requests of at most 30 each
SILENT_AFTER = 300.0  # seconds; a watch receives a bookmark about every minute
ANSWERED_WITHIN = 60.0  # seconds; no watch is to blame while the API server answers nothing


def find_failure(controller: Controller, resync: Resync, kube: KubeClient) -> str | None:
    """Return what only a restart of the operator can repair; None if there is nothing.

    A blocked event loop needs no check: the probe would time out.
    """
    if (stuck := controller.queue.longest) > STUCK_AFTER:
        return f"a session has been waiting or reconciling for {stuck:.0f} s"
    if time.monotonic() - kube.answered_at > ANSWERED_WITHIN:
        return None
    for informer in controller.cache.informers:
        if informer.age > SILENT_AFTER:
            return f"the watch of {informer.resource.plural} is silent for {informer.age:.0f} s"
    if resync.missed is not None:
        return f"the watch of sessions has missed a change of {resync.missed}"
    return None


async def serve(
    port: int, controller: Controller, resync: Resync, kube: KubeClient
) -> web.AppRunner:
    """Serve until the returned runner is cleaned up."""

    async def live(_: web.Request) -> web.Response:
        failure = find_failure(controller, resync, kube)
        return web.json_response({"status": failure or "ok"}, status=503 if failure else 200)

    async def ready(_: web.Request) -> web.Response:
        if controller.cache.is_synced:
            return web.json_response({"status": "ok"})
        return web.json_response({"status": "waiting for the informers to sync"}, status=503)

    async def collect(_: web.Request) -> web.Response:
        metrics.observe_sessions(controller.cache.sessions.values())
        for informer in controller.cache.informers:
            metrics.INFORMER_LAST_EVENT_AGE.labels(informer.resource.plural).set(informer.age)
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/livez", live)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/metrics", collect)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", port).start()  # noqa: S104 - probes come from the node
    return runner
