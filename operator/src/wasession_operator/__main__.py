"""``python -m wasession_operator``: run until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
from collections.abc import Coroutine
from functools import partial

import aiohttp
from pydantic import ValidationError
from wasession_api import logs, names, tracing
from wasession_api.kube.client import KubeClient
from wasession_api.kube.informer import log_failure

from wasession_operator import handlers, health
from wasession_operator.backups.controller import Backups
from wasession_operator.backups.store import InvalidStore, Store, open_store
from wasession_operator.class_usage import ClassUsage
from wasession_operator.gateway_keys import GatewayKeys
from wasession_operator.master_key import InvalidMasterKey, MasterKey
from wasession_operator.resync import Resync
from wasession_operator.rollouts import Rollouts
from wasession_operator.session_watch import KOPF_LOGGERS, SessionWatch
from wasession_operator.settings import Settings
from wasession_operator.sharding.shards import Shards

log = logging.getLogger(__name__)
RELEASE_TIMEOUT = 20.0  # seconds; kubelet kills the operator 30 s after SIGTERM


def main() -> None:
    try:
        settings = Settings()
    except ValidationError as error:
        problems = "; ".join(
            f"WASESSION_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()
        )
        raise SystemExit(f"invalid settings: {problems}") from None
    try:
        master_key = MasterKey(settings.master_key_file)
    except InvalidMasterKey as error:
        raise SystemExit(f"invalid settings: WASESSION_MASTER_KEY_FILE: {error}") from None
    try:
        store = open_store(settings.backup_store)
    except InvalidStore as error:
        raise SystemExit(f"invalid settings: WASESSION_BACKUP_STORE: {error}") from None
    logs.configure(settings.log_level, text=settings.log_format == "text")
    for handler in logging.getLogger().handlers:
        handler.addFilter(name_session)
    if settings.log_level != "DEBUG":
        # kopf logs each event that each handler has processed, and each attempt to log in.
        logging.getLogger("kopf").setLevel(logging.WARNING)
        for name in KOPF_LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
    raise_descriptor_limit()
    tracing.configure("wasession-operator", {"k8s.pod.name": settings.pod_name})
    try:
        asyncio.run(run(settings, master_key, store))
    except Exception as error:  # kubelet's restart is better than half an operator
        log_failure(log, "operator failed; exiting", error)
        raise SystemExit(1) from None
    finally:
        tracing.close()


async def run(settings: Settings, master_key: MasterKey, store: Store | None) -> None:
    """Run the operator until SIGTERM or SIGINT; raise when a part of it fails."""
    async with contextlib.AsyncExitStack() as resources:
        user_agent = f"{names.MANAGED_BY}/{settings.pod_name}"
        kube = await KubeClient.connect(names.MANAGED_BY, user_agent)
        resources.push_async_callback(kube.close)
        # No limit: each session pod has a stream of its own, aiohttp's default is 100 in all.
        http = await resources.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        )
        shards = Shards(settings, kube, http, master_key, store)
        stop, registry = asyncio.Event(), handlers.registry_for(shards.cache)
        watches = [
            SessionWatch(registry, namespace, partial(_stop_on_signals, stop))
            for namespace in shards.cache.namespaces
        ]
        resync = Resync(shards, watches)
        backups = Backups(shards, kube)
        server = await health.serve(settings.http_port, shards, resync, watches, kube, backups)
        resources.push_async_callback(server.cleanup)
        _stop_on_signals(stop)
        gateways = GatewayKeys(
            shards.leader_client, master_key, settings.gateway_keys, shards.enqueue_all
        )
        work = (
            resync.run(),
            gateways.run(),
            ClassUsage(shards).run(),
            Rollouts(shards).run(),
            backups.run(),
        )
        await _run_until(stop, shards, *work, *(watch.run() for watch in watches))


async def _run_until(
    stop: asyncio.Event, shards: Shards, *work: Coroutine[None, None, None]
) -> None:
    """Run everything until ``stop`` is set; then hand over the shards before the rest ends."""
    async with asyncio.TaskGroup() as group:
        acting = group.create_task(shards.run())
        tasks = [group.create_task(part) for part in work]
        await stop.wait()
        if shards.cache.is_synced:
            shards.leases.stop()
            await asyncio.wait((acting,), timeout=RELEASE_TIMEOUT)
        for task in (acting, *tasks):
            task.cancel()


def _stop_on_signals(stop: asyncio.Event) -> None:
    """Set ``stop`` on a signal. kopf installs handlers of its own, at each of its starts."""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


def name_session(record: logging.LogRecord) -> bool:
    """Give kopf's lines about a session the fields of the operator's own."""
    fields = record.__dict__
    if (reference := fields.pop("k8s_ref", None)) is not None:
        fields.pop("settings", None)
        fields.pop("k8s_skip", None)
        names_of = {"namespace": "namespace", "session": "name", "uid": "uid"}
        fields |= {field: reference.get(name) for field, name in names_of.items()}
    return True


def raise_descriptor_limit() -> None:
    """Raise the soft limit of file descriptors to the hard one.

    The operator has a connection to each session pod. Container runtimes start processes with a
    soft limit of 1024, for the sake of programs that use select(2).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
