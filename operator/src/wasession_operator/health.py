"""The operator's HTTP endpoints: liveness, readiness and metrics."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from wasession_api.kube.client import KubeClient

from wasession_operator import metrics
from wasession_operator.backups.controller import Backups
from wasession_operator.resync import Resync
from wasession_operator.session_watch import SessionWatch
from wasession_operator.sharding.shards import Shards

STUCK_AFTER = 900.0  # seconds; one pass makes a few API requests of at most 30 each
SILENT_AFTER = 300.0  # seconds; a watch receives a bookmark about every minute
ANSWERED_WITHIN = 60.0  # seconds; no watch is to blame while the API server answers nothing


def find_failure(
    shards: Shards, resync: Resync, watches: Sequence[SessionWatch], kube: KubeClient
) -> str | None:
    """Return what only a restart of the operator can repair; None if there is nothing.

    Nothing is to blame on the operator while the API server does not answer, and then not before it
    has had time to catch up; nor for a watch that fails and is started again. A blocked event loop
    needs no check: the probe would time out.
    """
    now = time.monotonic()
    if now - kube.answers.last > ANSWERED_WITHIN:
        return None
    answering = now - kube.answers.since
    longest = max((controller.queue.longest for controller in shards.controllers), default=0.0)
    if (stuck := min(longest, answering)) > STUCK_AFTER:
        return f"a session has been waiting or reconciling for {stuck:.0f} s"
    for informer in shards.informers:
        if (silent := min(informer.age, answering)) > SILENT_AFTER:
            return f"the watch of {informer.resource.plural} is silent for {silent:.0f} s"
    failing = {watch.namespace for watch in watches if watch.error is not None}
    if resync.missed is not None and not failing & {None, resync.missed.split("/")[0]}:
        return f"the watch of sessions has missed a change of {resync.missed}"
    return None


def find_unserved(shards: Shards, watches: Sequence[SessionWatch]) -> dict[str, str]:
    """Return the namespaces that are not served, and why; the whole cluster is named ``*``."""
    unserved: dict[str, str] = {}
    for watch in watches:
        error = shards.cache.rejection(watch.namespace) or watch.error
        if error is not None:
            unserved[watch.namespace or "*"] = error
    return unserved


async def serve(
    port: int,
    shards: Shards,
    resync: Resync,
    watches: Sequence[SessionWatch],
    kube: KubeClient,
    backups: Backups,
) -> web.AppRunner:
    """Serve until the returned runner is cleaned up."""

    async def live(_: web.Request) -> web.Response:
        failure = find_failure(shards, resync, watches, kube)
        return web.json_response({"status": failure or "ok"}, status=503 if failure else 200)

    async def ready(_: web.Request) -> web.Response:
        """Answer 200 also without a shard: the replica is ready to take one over."""
        if not shards.cache.is_synced:
            return web.json_response({"status": "waiting for the informers to sync"}, status=503)
        unserved = find_unserved(shards, watches)
        leases = shards.leases
        state = {
            "shards": shards.held,
            "of": shards.settings.shards,
            "unserved": unserved,
            "rivals": sorted(leases.plan.rivals),
            "blockedBy": leases.plan.blocked_by,
        }
        status = "ok"
        if len(unserved) == len(watches):
            status = "unserved"
        elif leases.error is not None:
            status = f"the Leases cannot be written: {leases.error}"
        return web.json_response({"status": status, **state}, status=200 if status == "ok" else 503)

    async def collect(_: web.Request) -> web.Response:
        observe(shards, watches)
        metrics.BACKUPS_OVERDUE.set(backups.scheduler.overdue(datetime.now(UTC)))
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/livez", live)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/metrics", collect)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()  # on all addresses of both IP families
    return runner


def observe(shards: Shards, watches: Sequence[SessionWatch]) -> None:
    """Set the gauges. Each session is counted by the replica that acts on it."""
    held = (shards.cache.counts[index] for index in shards.held)
    metrics.observe_sessions(held, shards.settings.max_session_series)
    blockers = sum(controller.updates.blockers for controller in shards.controllers)
    metrics.UPDATES_FAILED.set(blockers)
    starts = [controller.starts for controller in shards.controllers]
    metrics.STARTS.labels("starting").set(sum(budget.under_way for budget in starts))
    metrics.STARTS.labels("waiting").set(sum(budget.waiting for budget in starts))
    for index in range(shards.settings.shards):
        metrics.SHARD_HELD.labels(index).set(index in shards.held)
    metrics.RIVALS.set(len(shards.leases.plan.rivals))
    unserved = find_unserved(shards, watches)
    for watch in watches:
        name = watch.namespace or "*"
        metrics.NAMESPACE_SERVED.labels(name).set(name not in unserved)
    for informer in shards.informers:
        metrics.INFORMER_LAST_EVENT_AGE.labels(informer.resource.plural).set(informer.age)
