"""The operator's own HTTP: liveness, readiness and metrics."""

from __future__ import annotations

import time
from collections.abc import Iterable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from wasession_api.kube.client import KubeClient

from wasession_operator.reconcile import Operator
from wasession_operator.reconcile_state import Memory
from wasession_operator.upkeep import Upkeep

STUCK = 900.0  # seconds; a look makes a few calls to the API server, of 30 at most each, and others may come before it
DEAD = 300.0  # seconds without a sound on a watch; the API server says something every minute
ANSWERS = 60.0  # seconds in which the API server has answered anything at all: without it no watch can be blamed


def why_dead(operator: Operator, upkeep: Upkeep, kube: KubeClient) -> str | None:
    """What only a new process can mend; None when there is nothing of the kind. An answer at all proves the event loop."""
    if (stuck := oldest(operator.memories.values())) > STUCK:
        return f"a session has waited for {stuck:.0f} s"
    if time.monotonic() - kube.answered_at > ANSWERS:
        return None
    for watch in operator.cluster.watches:
        if watch.age > DEAD:
            return f"the watch of {watch.resource.plural} has been silent for {watch.age:.0f} s"
    if upkeep.missed is not None:
        return f"the watch of sessions has not told of {upkeep.missed}"
    return None


def oldest(memories: Iterable[Memory]) -> float:
    """The seconds that a session has been waiting to be looked at, or has been looked at; the longest of them."""
    since = [
        at
        for memory in memories
        for at in (memory.woken_at, memory.working_since)
        if at is not None
    ]
    return time.monotonic() - min(since) if since else 0.0


async def serve(port: int, operator: Operator, upkeep: Upkeep, kube: KubeClient) -> web.AppRunner:
    """Serves until the runner is cleaned up."""

    async def alive(_: web.Request) -> web.Response:
        dead = why_dead(operator, upkeep, kube)
        return web.json_response({"status": dead or "ok"}, status=503 if dead else 200)

    async def ready(_: web.Request) -> web.Response:
        synced = operator.cluster.is_synced
        return web.json_response(
            {"status": "ok" if synced else "listing"}, status=200 if synced else 503
        )

    async def metrics(_: web.Request) -> web.Response:
        upkeep.observe()
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/livez", alive)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", port).start()  # noqa: S104 - probes come from the node
    return runner
