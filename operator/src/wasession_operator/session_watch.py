"""Runs kopf, which watches the sessions: once for each namespace, so that one can fail alone."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Any, cast

import aiohttp
import kopf
from wasession_api.kube.client import PAGE_SIZE
from wasession_api.kube.informer import is_worth_logging

log = logging.getLogger(__name__)
STABLE_AFTER = 45.0  # seconds for which a watch must last to count as working
RETRY_FIRST, RETRY_LAST = 1.0, 60.0  # seconds between two starts of kopf
# Seconds between two requests for the same. A list and a watch that follow each other in turn are
# both held back, and must not count as stable for that.
PACE_FIRST, PACE_LAST = 1.0, 15.0
ATTEMPTS = 4  # of a request, before kopf gives up
# kopf logs each failed request and the traceback of each task that fails, at each attempt. A
# ``SessionWatch`` logs the same, with backoff.
KOPF_LOGGERS = (
    "kopf._cogs.clients.watching",
    "kopf._core.reactor.observation",
    "kopf._core.reactor.orchestration",
    "kopf._core.reactor.running",
)


class SessionWatch:
    """The watch of one namespace, or with None of the cluster.

    kopf gives up on a response that it does not expect: a rejected list after a few attempts, an
    error in a stream, an API server that answers nothing but 500. It is then started again, with
    backoff. Of a failed connection it opens the next one at once, and of sessions that it does not
    find among the API's resources it waits for ever: its requests are paced and observed.

    ``error`` is why the sessions are not watched now; None while they are. ``on_start`` is called
    after each start.
    """

    def __init__(
        self, registry: kopf.OperatorRegistry, namespace: str | None, on_start: Callable[[], None]
    ) -> None:
        self.namespace = namespace
        self.error: str | None = None
        self._registry = registry
        self._on_start = on_start
        self._failures = 0  # since it last worked
        self._recovery: asyncio.TimerHandle | None = None
        self._delay = RETRY_FIRST
        self._restart = asyncio.Event()
        self._connections = Connections(self._stop_recovery, self._request_done)

    def restart(self) -> None:
        """List all sessions again: the watch has missed a change."""
        self._restart.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                await self._run_kopf()
            except Exception as error:
                self.error = f"{type(error).__name__}: {error}"
                self._fail(self.error)
                await asyncio.sleep(self._delay * random.uniform(0.5, 1.0))  # noqa: S311
                self._delay = min(self._delay * 2, RETRY_LAST)

    async def _run_kopf(self) -> None:
        """Run kopf until it fails. Unlike ``kopf.operator``, this ends no task but its own."""
        self._restart.clear()
        self._connections.begin()
        tasks = await kopf.spawn_tasks(
            registry=self._registry,
            settings=_settings(),
            memo=self._connections,
            # Unused without peering, but kopf's default looks up the name of the user ID, and fails
            # for one without an entry in /etc/passwd, such as OpenShift assigns.
            identity=cast(Any, "wasession-operator"),
            standalone=True,
            clusterwide=self.namespace is None,
            namespaces=[] if self.namespace is None else [self.namespace],
        )
        parts = [*tasks, asyncio.create_task(self._restart.wait())]
        try:
            self._on_start()
            done, _ = await asyncio.wait(
                parts, timeout=STABLE_AFTER, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                if not self._connections.has_listed:
                    raise RuntimeError("kopf has found no WhatsAppSessions; is the CRD installed?")
                done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._connections.end()
            for task in parts:
                task.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
        if not self._restart.is_set():
            raise RuntimeError("kopf has ended")

    # --- does it work? ----------------------------------------------------------------------------

    def _request_done(self, error: str | None) -> None:
        """Note that a request has failed, or that a watch has begun."""
        if error is not None:
            self._fail(error)
            if self._failures > ATTEMPTS:
                self.error = error
        elif self._failures and self._recovery is None:
            loop = asyncio.get_running_loop()
            self._recovery = loop.call_later(STABLE_AFTER, self._recover)

    def _stop_recovery(self) -> None:
        if self._recovery is not None:
            self._recovery.cancel()
            self._recovery = None

    def _fail(self, error: str) -> None:
        self._stop_recovery()
        self._failures += 1
        if is_worth_logging(self._failures):
            log.warning(
                "watch of the sessions failed; trying again",
                extra={"namespace": self.namespace, "error": error, "failures": self._failures},
            )

    def _recover(self) -> None:
        log.info("watch of the sessions works again", extra={"namespace": self.namespace})
        self.error, self._failures, self._recovery, self._delay = None, 0, None, RETRY_FIRST


class Connections:
    """Opens kopf's connections to the API server, and observes and paces what it sends on them.

    A request that follows the same one at once is held back for longer each time; the parts of a
    list are not. ``on_end`` is called before each list and each watch: the watch before it has
    ended. ``on_done`` is called with the error of each request that fails, and with None when a
    watch begins. kopf hands this to the login handler as its memo.
    """

    def __init__(self, on_end: Callable[[], None], on_done: Callable[[str | None], None]) -> None:
        self.has_listed = False
        self._on_end = on_end
        self._on_done = on_done
        self._active = False
        self._sent: dict[tuple[str, bool], tuple[float, int]] = {}  # when, and how often in a row

    def __copy__(self) -> Connections:
        """Return the same object: kopf makes a copy for each session."""
        return self

    def begin(self) -> None:
        """Observe what kopf sends from now on."""
        self.has_listed, self._active = False, True
        self._sent.clear()

    def end(self) -> None:
        """Observe no more: what fails now does because kopf is being stopped."""
        self._active = False

    def open(self, info: kopf.ConnectionInfo) -> kopf.AiohttpSession:
        """Return what kopf logs in with: its own kind of client, with traces."""
        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(self._pace)
        trace.on_request_end.append(self._end)
        trace.on_request_exception.append(self._except)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
            headers=info.as_http_headers(),
            proxy=info.proxy_url,
            trust_env=info.trust_env,
            trace_configs=[trace],
        )
        return kopf.AiohttpSession(
            aiohttp_session=session, server=info.server, default_namespace=info.default_namespace
        )

    async def _pace(
        self, _session: aiohttp.ClientSession, _: object, request: aiohttp.TraceRequestStartParams
    ) -> None:
        query = request.url.query
        if "continue" in query:
            return
        self.has_listed |= "limit" in query
        self._on_end()
        key, now = (request.url.path, "watch" in query), time.monotonic()
        sent, repeated = self._sent.get(key, (-STABLE_AFTER, 0))
        repeated = 0 if now - sent >= STABLE_AFTER else repeated + 1
        delay = min(PACE_FIRST * 2 ** (repeated - 1), PACE_LAST) if repeated else 0.0
        delay *= random.uniform(0.5, 1.0)  # noqa: S311
        self._sent[key] = now + delay, repeated
        if repeated and "watch" in query:
            self._note(f"{request.url.path}: the watch has ended at once")
        await asyncio.sleep(delay)

    async def _end(
        self, _session: aiohttp.ClientSession, _: object, request: aiohttp.TraceRequestEndParams
    ) -> None:
        response = request.response
        if response.status >= 400:
            self._note(f"{request.url.path}: {response.status} {response.reason}")
        elif "watch" in request.url.query:
            self._note(None)

    async def _except(
        self,
        _session: aiohttp.ClientSession,
        _: object,
        request: aiohttp.TraceRequestExceptionParams,
    ) -> None:
        error = request.exception
        self._note(f"{request.url.path}: {type(error).__name__} {error}".rstrip())

    def _note(self, error: str | None) -> None:
        if self._active:
            self._on_done(error)


class _NoDiffBase(kopf.DiffBaseStorage):
    """Keep kopf from storing and comparing what it has last handled: the plan does not need it."""

    def build(self, **_: object) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: object) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def store(self, **_: object) -> None:
        """Store nothing."""


class _NoProgress(kopf.ProgressStorage):
    """Keep kopf from looking for the progress of handlers that it does not have.

    That is an eighth of what it spends on an event.
    """

    def fetch(self, **_: object) -> None:
        """Return no progress."""

    def store(self, **_: object) -> None:
        """Store nothing."""

    def purge(self, **_: object) -> None:
        """Remove nothing."""

    def touch(self, **_: object) -> None:
        """Change nothing."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """Return all of it."""
        return essence


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    settings.watching.chunk_size = PAGE_SIZE
    settings.watching.reconnect_backoff = 1.0
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = (0,) * (ATTEMPTS - 1)  # Connections paces them
    settings.queueing.idle_timeout = 0.5
    settings.posting.enabled = False  # Events are for users, and come from EventRecorder alone
    settings.scanning.disabled = True
    settings.process.ultimate_exiting_timeout = None  # the process goes on without this watch
    return settings
