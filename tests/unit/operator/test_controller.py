"""When a session is reconciled, and when not."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any, cast

import aiohttp
import pytest
from unit.operator import situations
from unit.operator.situations import SETTINGS, master_key
from wasession_api.kube.client import Fenced, KubeClient
from wasession_api.kube.manifests import Key, Manifest
from wasession_api.names import FINALIZER
from wasession_api.v1alpha1 import Status
from wasession_operator.backoff import next_backoff
from wasession_operator.cluster_cache import ClusterCache
from wasession_operator.controller import FAILED_WAIT, WORKERS, Controller
from wasession_operator.event_recorder import EventRecorder
from wasession_operator.plan import Event
from wasession_operator.reconcile import Result
from wasession_operator.reconcile_state import ReconcileState

KEY = ("ns", "sales")


def session(
    version: int,
    uid: str = "uid-1",
    finalizers: tuple[str, ...] = (FINALIZER,),
    name: str = "sales",
    **metadata: Any,
) -> Manifest:
    fixed = {
        "name": name,
        "namespace": "ns",
        "uid": uid,
        "resourceVersion": str(version),
        "finalizers": list(finalizers),
    }
    return {"metadata": fixed | metadata, "spec": {}}


class Fixture(Controller):
    """A controller that only records its reconciliations; ``then`` is called in each."""

    def __init__(self) -> None:
        kube, http = cast(KubeClient, None), cast(aiohttp.ClientSession, None)
        self.cache = ClusterCache(kube, [], self, watch_nodes=True)
        super().__init__(SETTINGS, kube, http, self.cache, master_key())
        self.reconciled: list[str] = []  # the names of the sessions, in order
        self.current: Counter[str] = Counter()  # by name, how often each is being reconciled
        self.most = 0  # concurrent reconciliations
        self.then: Callable[[int], Result] = lambda _: Result()

    @property
    def count(self) -> int:
        return len(self.reconciled)

    async def _reconcile(self, state: ReconcileState) -> Result:
        name = state.key[1]
        self.reconciled.append(name)
        self.current[name] += 1
        assert self.current[name] == 1
        self.most = max(self.most, self.current.total())
        await asyncio.sleep(0)
        result = self.then(self.count)
        self.current[name] -= 1
        return result

    def receive(self, obj: Manifest) -> None:
        self.cache.session_event("MODIFIED", obj)

    async def idle(self) -> None:
        """Return when nothing is queued or being reconciled."""
        await self.queue.join()


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Fixture]:
    controller = Fixture()
    task = asyncio.create_task(controller.run())
    yield controller
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def sync(controller: Fixture) -> None:
    for informer in controller.cache.informers:
        informer._accept(None)
    controller.cache.sessions_listed(None, known=True)


@pytest.fixture
async def controller() -> AsyncIterator[Fixture]:
    async with running() as running_controller:
        sync(running_controller)
        yield running_controller


async def test_the_own_finalizer_is_no_reason_to_reconcile_again(
    controller: Fixture,
) -> None:
    def then(_: int) -> Result:
        controller.cache.upsert_session(session(6))  # the response to its patch
        return Result()

    controller.then = then
    controller.receive(session(5, finalizers=()))
    await controller.idle()
    controller.receive(session(6))
    controller.receive(session(7))
    await controller.idle()
    assert controller.count == 1
    controller.receive(session(8, finalizers=()))
    await controller.idle()
    assert controller.count == 2, "someone else has removed it"


async def test_a_deleted_session_held_back_by_someone_else_is_ignored(
    controller: Fixture,
) -> None:
    controller.receive(
        session(5, finalizers=("example.com/other",), deletionTimestamp="2026-01-02T03:04:05Z")
    )
    assert controller.states == {}


async def test_nothing_is_reconciled_before_the_informers_have_synced() -> None:
    async with running() as controller:
        controller.receive(session(5))
        for _ in range(10):
            await asyncio.sleep(0)
        assert controller.count == 0
        for informer in controller.cache.informers:
            informer._accept(None)
        assert KEY not in controller.queue, "there may be sessions that are not known"
        controller.cache.sessions_listed(None, known=True)
        await controller.idle()
        assert controller.count == 1


async def test_a_change_during_a_reconciliation_is_reconciled(controller: Fixture) -> None:
    def then(count: int) -> Result:
        if count == 1:
            controller.enqueue(KEY)
            controller.enqueue(KEY)
        return Result()

    controller.then = then
    controller.receive(session(5))
    await controller.idle()
    assert controller.count == 2


async def test_a_requeue_timer_lasts_until_the_next_reconciliation(controller: Fixture) -> None:
    timed = asyncio.Event()

    def then(count: int) -> Result:
        if count == 2:
            timed.set()
        after = {1: timedelta(0), 2: timedelta(hours=1)}
        return Result(after.get(count))

    controller.then = then
    controller.receive(session(5))
    await timed.wait()
    await controller.idle()
    late = controller.states[KEY].requeue_timer
    assert late is not None
    controller.enqueue(KEY)
    await controller.idle()
    assert late.cancelled()
    assert controller.states[KEY].requeue_timer is None


async def test_what_follows_from_a_failure_is_no_reason_to_try_again_at_once(
    controller: Fixture,
) -> None:
    """Such as the pod that was created before the status could not be written."""

    def then(count: int) -> Result:
        state = controller.states[KEY]
        state.reconcile_failures = next_backoff(state.reconcile_failures)
        controller.enqueue(KEY)
        return Result(timedelta(hours=1))

    controller.then = then
    controller.receive(session(5))
    await controller.idle()
    assert controller.count == 1
    controller.enqueue(KEY)
    timer = controller.states[KEY].requeue_timer
    assert timer is not None
    assert timer.when() - asyncio.get_running_loop().time() <= FAILED_WAIT
    await controller.idle()
    assert controller.count == 1
    controller.then = lambda _: Result()
    controller.receive(session(6, generation=2))  # what its user changes may mend it
    await controller.idle()
    assert controller.count == 2


async def test_what_has_failed_does_not_wait_for_its_backoff_when_others_work_again(
    controller: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wasession_operator.controller.FAILED_WAIT", 0.0)

    def fail(count: int) -> Result:
        state = controller.states[KEY]
        for _ in range(count):
            state.reconcile_failures = next_backoff(state.reconcile_failures)
        return Result(timedelta(hours=1))

    controller.then = fail
    controller.receive(session(5))
    await controller.idle()
    again = asyncio.Event()

    def succeed(_: int) -> Result:
        again.set()
        return Result()

    controller.then = succeed
    controller.enqueue_failed("another")
    await controller.idle()
    assert controller.count == 1
    controller.enqueue_failed(KEY[0])
    async with asyncio.timeout(30):
        await again.wait()


async def test_a_change_while_a_failed_session_is_tried_again_is_not_lost(
    controller: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wasession_operator.controller.FAILED_WAIT", 0.0)
    again = asyncio.Event()

    def then(count: int) -> Result:
        state = controller.states[KEY]
        if count == 1:
            state.reconcile_failures = next_backoff(state.reconcile_failures)
            return Result(timedelta(hours=1))
        if count == 2:
            monkeypatch.setattr("wasession_operator.controller.FAILED_WAIT", 0.01)
            controller.enqueue(KEY)  # such as for the pod that this one creates
        if count == 3:
            again.set()
        return Result()

    controller.then = then
    controller.receive(session(5))
    await controller.idle()
    controller.receive(session(6, generation=2))
    async with asyncio.timeout(30):
        await again.wait()


async def test_the_own_status_write_is_no_reason_to_reconcile_again(controller: Fixture) -> None:
    controller.receive(session(5))
    await controller.idle()
    state = controller.states[KEY]
    state.written, state.written_version = Status(), "7"
    controller.receive(session(7))
    assert KEY not in controller.queue
    assert state.written is None
    state.written, state.written_version = Status(), "9"
    controller.receive(session(9, annotations={"wasession.dev/restart": "1"}))
    await controller.idle()
    assert controller.count == 2, "a user has requested something at the same time"


async def test_a_session_that_is_enqueued_all_the_time_does_not_block_others(
    controller: Fixture,
) -> None:
    def then(_: int) -> Result:
        controller.enqueue(KEY)
        return Result()

    controller.then = then
    others = asyncio.Event()
    controller.receive(session(5))
    asyncio.get_running_loop().call_soon(others.set)
    await others.wait()
    controller.cache.delete_session(KEY, "uid-1")


async def test_a_deleted_session_is_forgotten_when_it_is_done(controller: Fixture) -> None:
    ended = asyncio.Event()

    def then(count: int) -> Result:
        if count == 3:
            ended.set()
        return Result(timedelta(0), done=count == 3)

    controller.then = then
    controller.receive(session(5, deletionTimestamp="2026-01-02T03:04:05Z"))
    await ended.wait()
    await controller.idle()
    assert controller.count == 3
    assert controller.states == {}
    controller.receive(
        session(6, finalizers=("example.com/other",), deletionTimestamp="2026-01-02T03:04:05Z")
    )
    assert controller.states == {}, "someone else holds it back"
    assert KEY in controller.cache.sessions, "it exists until the API server deletes it"
    controller.cache.delete_session(KEY, "uid-1")
    assert KEY not in controller.cache.sessions


async def test_a_new_session_of_the_same_name_replaces_the_previous_one(
    controller: Fixture,
) -> None:
    controller.receive(session(5, deletionTimestamp="2026-01-02T03:04:05Z"))
    await controller.idle()
    controller.receive(session(9, uid="uid-2"))
    assert controller.states[KEY].uid == "uid-2"
    controller.cache.delete_session(KEY, "uid-1")
    assert controller.cache.sessions[KEY]["metadata"]["uid"] == "uid-2"


async def test_a_late_deletion_event_does_not_affect_the_successor(
    controller: Fixture,
) -> None:
    controller.receive(session(5))
    controller.receive(session(9, uid="uid-2"))
    controller.cache.delete_session(KEY, "uid-1")
    await controller.idle()
    assert controller.states[KEY].uid == "uid-2"
    assert controller.reconciled == ["sales"], "once for both, and not for the deletion"


# --- many sessions --------------------------------------------------------------------------------


def names_of(*numbers: int) -> list[str]:
    return [f"s-{number:03}" for number in numbers]


def have_pods(controller: Fixture, *sessions: str) -> None:
    for name in sessions:
        controller.cache.pods.objects["ns", f"wasession-{name}"] = {}


async def test_a_few_are_reconciled_at_a_time_in_the_order_of_their_events(
    controller: Fixture,
) -> None:
    for number in range(100):
        controller.receive(session(number + 1, name=names_of(number)[0]))
    await controller.idle()
    assert controller.reconciled == names_of(*range(100))
    assert controller.most == WORKERS


async def test_sessions_without_a_pod_go_first(controller: Fixture) -> None:
    have_pods(controller, *names_of(1, 2))
    for number in (1, 2, 3, 4):
        controller.receive(session(number, name=names_of(number)[0]))
    await controller.idle()
    assert controller.reconciled == names_of(3, 4, 1, 2)


async def test_a_queued_session_that_loses_its_pod_moves_ahead(
    controller: Fixture,
) -> None:
    have_pods(controller, *names_of(1, 2))
    for number in (1, 2):
        controller.receive(session(number, name=names_of(number)[0]))
    del controller.cache.pods.objects["ns", "wasession-s-002"]
    controller.enqueue(("ns", "s-002"))
    await controller.idle()
    assert controller.reconciled == names_of(2, 1), "and each once"


async def test_a_session_that_awaits_its_permit_to_start_is_not_urgent(controller: Fixture) -> None:
    have_pods(controller, *names_of(2))
    controller.starts.request(("ns", "s-001"))
    for number in (1, 2):
        controller.receive(session(number, name=names_of(number)[0]))
    await controller.idle()
    assert controller.reconciled == names_of(1, 2)


async def test_a_session_whose_permit_others_await_is_urgent(
    controller: Fixture,
) -> None:
    controller.starts.adopt(("ns", "s-001"))
    controller.starts.request(("ns", "s-009"))
    have_pods(controller, *names_of(1))
    for number in (2, 3, 1):
        controller.receive(session(number, name=names_of(number)[0]))
    controller.receive(session(4, name=names_of(4)[0]))
    await controller.idle()
    assert controller.reconciled == names_of(2, 3, 1, 4), "in the order of their events"


async def test_resynced_sessions_come_last(controller: Fixture) -> None:
    have_pods(controller, *names_of(1, 2))
    for number in (1, 2):
        controller.receive(session(number, name=names_of(number)[0]))
    await controller.idle()
    controller.enqueue_all()
    controller.enqueue(("ns", "s-002"))
    await controller.idle()
    assert controller.reconciled == names_of(1, 2, 2, 1)


class SlowEvents:
    """An API server that creates Events when the test lets it."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.created = 0

    async def create(self, *_: object) -> Manifest:
        await self.released.wait()
        self.created += 1
        return {"metadata": {"name": f"event-{self.created}"}}


@pytest.mark.parametrize("given_away", [True, False])
async def test_only_a_shard_that_is_given_away_emits_its_events(given_away: bool) -> None:
    """Whoever has lost it must not wait for them: other shards have to be renewed."""
    api = SlowEvents()
    async with asyncio.timeout(60), running() as controller:
        recorder = EventRecorder(cast(KubeClient, api))
        controller._reconciler._status_writer._recorder = recorder
        await controller.idle()
        recorder.emit(situations.session(), [Event("Normal", "Ready", "message")], {})
        if given_away:
            finishing = asyncio.create_task(controller.finish(60))
            for _ in range(20):
                await asyncio.sleep(0)
            assert not finishing.done()
            api.released.set()
            await finishing
    assert api.created == given_away


async def test_a_cancellation_that_a_worker_drops_is_repeated() -> None:
    begun = asyncio.Event()

    class Deaf(Fixture):
        async def _reconcile(self, state: ReconcileState) -> Result:
            begun.set()
            with contextlib.suppress(asyncio.CancelledError):  # as aiohttp, at a timeout
                await asyncio.Event().wait()
            await asyncio.Event().wait()
            raise AssertionError

    controller = Deaf()
    sync(controller)
    controller.receive(session(1))
    running = asyncio.create_task(controller.run())
    await begun.wait()
    running.cancel()
    async with asyncio.timeout(10):
        await asyncio.gather(running, return_exceptions=True)
    assert all(worker.done() for worker in controller._workers)


async def test_writes_of_others_are_ended_before_the_shard_is_given_away() -> None:
    async with running() as controller:
        sync(controller)
        with controller.writing():
            finishing = asyncio.create_task(controller.finish(60))
            for _ in range(20):
                await asyncio.sleep(0)
            assert not finishing.done()
        await finishing
        with pytest.raises(Fenced), controller.writing():
            pass


async def test_others_hear_of_every_change_of_a_session(controller: Fixture) -> None:
    changed: list[Key] = []
    controller.changed = changed.append
    changes: tuple[Callable[[], None], ...] = (
        lambda: controller.receive(session(5)),
        lambda: controller.enqueue(KEY),
        lambda: controller.cache.session_event("DELETED", session(6)),
    )
    for change in changes:
        changed.clear()
        change()
        assert set(changed) == {KEY}
    await controller.idle()
