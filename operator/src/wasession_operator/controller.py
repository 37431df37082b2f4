"""The controller of one shard: decides when each of its sessions is reconciled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime, timedelta

import aiohttp
from wasession_api.kube.client import Conflict, Fenced, KubeClient, Rejected, Unavailable
from wasession_api.kube.manifests import Key, Manifest, key_of

from wasession_operator import metrics, start_traces
from wasession_operator.backoff import next_backoff
from wasession_operator.backups.store import Store
from wasession_operator.cluster_cache import ClusterCache, is_released, object_key, requested
from wasession_operator.master_key import MasterKey
from wasession_operator.plan import Backoff
from wasession_operator.reconcile import Reconciler, Result
from wasession_operator.reconcile_state import ReconcileState
from wasession_operator.settings import Settings
from wasession_operator.update_permits import Board
from wasession_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)
WORKERS = 10  # concurrent reconciliations
CANCEL_AGAIN = 0.1  # seconds
# Patience in the workqueue, in seconds. Those that need a pod have none.
PATIENCE_WITH_POD = 60.0
PATIENCE_UNCHANGED = 120.0
FAILED_WAIT = 2.0  # seconds until what could not be reconciled is tried again for a change


class Controller:
    """Reconciles the sessions of one shard: those whose watch events it receives.

    ``kube`` writes only while this replica holds the shard's Lease. ``board`` coordinates updates
    with the other shards; None if there are none. ``changed`` is called with each session about
    which something has changed, be it only what its pod reports.
    """

    def __init__(
        self,
        settings: Settings,
        kube: KubeClient,
        http: aiohttp.ClientSession,
        cache: ClusterCache,
        master_key: MasterKey,
        shard: int = 0,
        board: Board | None = None,
        store: Store | None = None,
        is_admitted: Callable[[str, str, Key], bool] = lambda *_: False,
    ) -> None:
        self.kube = kube
        self.changed: Callable[[Key], None] = lambda _: None
        self.states: dict[Key, ReconcileState] = {}
        self.queue = WorkQueue(self._patience)
        self._cache = cache
        self._reconciler = Reconciler(
            settings, kube, http, cache, master_key, self.enqueue, shard, board, store, is_admitted
        )
        self.starts, self.updates = self._reconciler.starts, self._reconciler.updates
        self._workers: list[asyncio.Task[None]] = []
        self._idle: set[asyncio.Task[None]] = set()  # workers that wait for a session
        self._is_finishing = False
        self._others: set[asyncio.Future[None]] = set()  # see ``writing``
        self._unreconciled: set[Key] = set()  # of those that there were at the beginning
        self._reconciled = asyncio.Event()

    async def run(self) -> None:
        """Reconcile until cancelled or finished; each session from when its namespace has synced.

        Raises what a worker has raised: that is a bug.
        """
        self._unreconciled = set(self.states)
        self._note_reconciled()
        self._workers = [asyncio.create_task(self._work()) for _ in range(WORKERS)]
        try:
            ended, _ = await asyncio.wait(self._workers, return_when=asyncio.FIRST_EXCEPTION)
            for worker in ended:
                if not worker.cancelled():
                    worker.result()
        finally:
            is_lost, self._is_finishing = not self._is_finishing, True
            await _cancel(self._workers)
            for state in self.states.values():
                state.cancel_requeue()
                state.stop_watching()
                start_traces.end(state)
            if is_lost:
                await self._reconciler.close(0.0)

    async def finish(self, timeout: float) -> bool:
        """End the reconciliations in progress within a time in seconds, and begin none.

        Their Events are part of them. Return whether the API server has answered every write: one
        that was given up may still be carried out.
        """
        ends = time.monotonic() + timeout
        is_done = True
        self._is_finishing = True
        for worker in self._idle:
            worker.cancel()
        busy = [worker for worker in self._workers if worker not in self._idle]
        if busy:
            _, late = await asyncio.wait(busy, timeout=timeout)
            for worker in late:
                worker.cancel()
            is_done = not late
        if self._others:
            _, late_others = await asyncio.wait(
                self._others, timeout=max(ends - time.monotonic(), 0.0)
            )
            is_done = is_done and not late_others
        await self._reconciler.close(max(ends - time.monotonic(), 0.0))
        return is_done

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Have ``finish`` wait for what somebody else writes about a session of the shard.

        Raise ``Fenced`` when no more may be written.
        """
        if self._is_finishing:
            raise Fenced("not sent: the shard is given away")
        ended = asyncio.get_running_loop().create_future()
        self._others.add(ended)
        try:
            yield
        finally:
            self._others.discard(ended)
            ended.set_result(None)

    async def wait_until_reconciled(self) -> None:
        """Return when each session that there was at the beginning has been reconciled once."""
        await self._reconciled.wait()

    def open_starts(self) -> None:
        """Let sessions start, those that are starting already before any other."""
        for key in self.states:
            if (session := self._cache.sessions.get(key)) is not None:
                self._reconciler.expect_start(key, session)
        self.starts.open()

    def enqueue(self, key: Key) -> None:
        """Queue a session, because something about it has changed.

        One whose namespace has not synced is queued when it has. One that could not be reconciled
        is not queued at once: it may itself have caused the change, and would again.
        """
        self.changed(key)
        state = self.states.get(key)
        if state is None:
            return
        backoff = state.reconcile_failures.wait(datetime.now(UTC)).total_seconds()
        if backoff > 0:
            self._requeue(state, min(backoff, FAILED_WAIT))
        else:
            self._add(key)

    def _add(self, key: Key) -> None:
        if key in self.states and self._cache.is_settled(key[0]):
            self.queue.add(key)

    def _requeue(self, state: ReconcileState, delay: float) -> None:
        """Queue a session after a delay in seconds, unless it is queued sooner."""
        loop = asyncio.get_running_loop()
        if state.requeue_timer is not None:
            if state.requeue_timer.when() <= loop.time() + delay:
                return
            state.requeue_timer.cancel()
        state.requeue_timer = loop.call_later(delay, self._on_timer, state)

    def _on_timer(self, state: ReconcileState) -> None:
        state.requeue_timer = None
        self._add(state.key)

    def enqueue_all(self) -> None:
        """Queue every session, behind those that have changed."""
        for key in self.states:
            if self._cache.is_settled(key[0]):
                self.queue.add(key, PATIENCE_UNCHANGED)

    def enqueue_failed(self, namespace: str | None) -> None:
        """Queue what could not be reconciled of a namespace; None is every one."""
        for key, state in self.states.items():
            if namespace in (None, key[0]) and state.reconcile_failures.count:
                self.enqueue(key)

    def _patience(self, key: Key) -> float:
        """Return none for a session that can create its pod or whose permit others await."""
        needs_pod = object_key(key) not in self._cache.pods.objects
        urgent = (needs_pod and not self.starts.is_waiting(key)) or self.starts.is_contended(key)
        return 0.0 if urgent else PATIENCE_WITH_POD

    # --- watch events -----------------------------------------------------------------------------

    def on_upsert(self, before: Manifest | None, after: Manifest) -> None:
        key, metadata = key_of(after), after["metadata"]
        state = self.states.get(key)
        if state is not None and state.uid != metadata["uid"]:
            self._forget(state)
            state = None
        if state is None and not is_released(after):
            state = self.states[key] = ReconcileState(key, metadata["uid"])
        own_write = state is not None and state.observe_version(metadata["resourceVersion"])
        if (
            before is None
            or requested(before) != requested(after)
            or before["metadata"].get("finalizers") != metadata.get("finalizers")
            or (before.get("status") != after.get("status") and not own_write)
        ):
            self._add(key)
        self.changed(key)

    def on_delete(self, key: Key, uid: str) -> None:
        state = self.states.get(key)
        if state is not None and state.uid == uid:
            self._forget(state)
        self.changed(key)

    def on_sync(self, namespace: str | None) -> None:
        for key in self.states:
            if namespace in (None, key[0]):
                self._add(key)

    def on_start_node(self, name: str, zone: str | None) -> None:
        self.starts.set_node(name, zone)

    def _forget(self, state: ReconcileState) -> None:
        """Drop a session for which nothing is left to do."""
        del self.states[state.key]
        self._note_reconciled(state.key)
        self.queue.discard(state.key)
        self._reconciler.forget(state.key)
        state.cancel_requeue()
        state.stop_watching()
        start_traces.end(state)

    def _note_reconciled(self, *keys: Key) -> None:
        self._unreconciled.difference_update(keys)
        if not self._unreconciled:
            self._reconciled.set()

    # --- workers ----------------------------------------------------------------------------------

    async def _work(self) -> None:
        worker = asyncio.current_task()
        assert worker is not None
        while not self._is_finishing:
            self._idle.add(worker)
            key = await self.queue.get()
            self._idle.discard(worker)
            await self._process(self.states[key])
            self.queue.done(key)
            await asyncio.sleep(0)  # let other tasks run, however fast the reconciliation was

    async def _process(self, state: ReconcileState) -> None:
        """Reconcile one session, and set the timer for its next reconciliation."""
        state.cancel_requeue()
        result = await self._reconcile(state)
        self._note_reconciled(state.key)
        if self.states.get(state.key) is not state:  # deleted meanwhile
            state.cancel_requeue()
            state.stop_watching()
        elif result.done:
            self._forget(state)
        elif result.requeue_after is not None:
            self._requeue(state, max(result.requeue_after.total_seconds(), 0.0))

    async def _reconcile(self, state: ReconcileState) -> Result:
        """Reconcile one session; after an error, requeue it with backoff."""
        try:
            traced = start_traces.reconciling(state, self._cache.sessions)
            with metrics.RECONCILE_DURATION.time(), traced:
                result = await self._reconciler.reconcile(state)
        except Exception as error:
            state.reconcile_failures = next_backoff(state.reconcile_failures)
            backoff = state.reconcile_failures.wait(datetime.now(UTC)).total_seconds()
            delay = max(backoff, getattr(error, "retry_after", 0.0))
            extra = {**state.log_extra, "requeue_after": round(delay, 1)}
            if isinstance(error, Unavailable | Rejected | Conflict):
                log.warning("API request failed; requeueing", extra={**extra, "error": str(error)})
            else:
                log.exception("reconciliation failed; requeueing", extra=extra)
            return Result(timedelta(seconds=delay))
        state.reconcile_failures = Backoff()
        return result


async def _cancel(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended.

    aiohttp drops a cancellation that comes just when a request times out, and that is what all
    requests do at the moment when their client may write no more.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN)
