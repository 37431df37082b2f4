"""The operator's own HTTP: liveness, readiness and metrics."""

from __future__ import annotations

import asyncio

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from wasession_operator.reconcile import Operator


async def serve(port: int, operator: Operator) -> web.AppRunner:
    """Serves until the runner is cleaned up. An answer at all proves that the event loop turns."""

    async def alive(_: web.Request) -> web.Response:
        await asyncio.sleep(0)
        return web.json_response({"status": "ok"})

    async def metrics(_: web.Request) -> web.Response:
        operator.observe()
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/livez", alive)
    app.router.add_get("/readyz", alive)
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", port).start()  # noqa: S104 - probes come from the node
    return runner
