"""Runs kopf, which watches the sessions: once for each namespace, so that one can fail alone."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any, cast

import kopf
from wasession_api.kube.client import PAGE_SIZE

log = logging.getLogger(__name__)
STABLE_AFTER = 30.0  # seconds for which a watch must last to count as working
RETRY_FIRST, RETRY_LAST = 1.0, 60.0  # seconds


class SessionWatch:
    """The watch of one namespace, or with None of the cluster.

    kopf gives up on a response that it does not expect: a rejected list after a few attempts, an
    error in a stream, an API server that answers nothing but 500. It is then started again, with
    backoff. ``error`` is why; None while it works. ``on_start`` is called after each start.
    """

    def __init__(
        self, registry: kopf.OperatorRegistry, namespace: str | None, on_start: Callable[[], None]
    ) -> None:
        self.namespace = namespace
        self.error: str | None = None
        self._registry = registry
        self._on_start = on_start

    async def run(self) -> None:
        """Watch until cancelled."""
        delay = RETRY_FIRST
        while True:
            try:
                await self._run_kopf()
            except Exception as error:
                if self.error is None:
                    delay = RETRY_FIRST
                self.error = f"{type(error).__name__}: {error}"
                log.warning(
                    "watch of the sessions failed; starting it again in %.0f s",
                    delay,
                    extra={"namespace": self.namespace, "error": self.error},
                )
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311
            delay = min(delay * 2, RETRY_LAST)

    async def _run_kopf(self) -> None:
        """Run kopf until it fails. Unlike ``kopf.operator``, this ends no task but its own."""
        tasks = await kopf.spawn_tasks(
            registry=self._registry,
            settings=_settings(),
            # Unused without peering, but kopf's default looks up the name of the user ID, and fails
            # for one without an entry in /etc/passwd, such as OpenShift assigns.
            identity=cast(Any, "wasession-operator"),
            standalone=True,
            clusterwide=self.namespace is None,
            namespaces=[] if self.namespace is None else [self.namespace],
        )
        try:
            self._on_start()
            done, _ = await asyncio.wait(
                tasks, timeout=STABLE_AFTER, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                self.error = None
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        raise RuntimeError("kopf has ended")


class _NoDiffBase(kopf.DiffBaseStorage):
    """Keep kopf from storing and comparing what it has last handled: the plan does not need it."""

    def build(self, **_: object) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: object) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def store(self, **_: object) -> None:
        """Store nothing."""


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.watching.chunk_size = PAGE_SIZE
    settings.watching.reconnect_backoff = 1.0
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = (1, 2, 4)  # longer ones are for SessionWatch
    settings.queueing.idle_timeout = 0.5
    settings.posting.enabled = False  # Events are for users, and come from EventRecorder alone
    settings.scanning.disabled = True
    settings.process.ultimate_exiting_timeout = None  # the process goes on without this watch
    return settings
