"""No session starts before all are known."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, cast
from unittest import mock

import aiohttp
import pytest
from unit.operator.situations import SETTINGS, master_key
from wasession_api.kube.client import (
    SESSIONS,
    KubeClient,
    Rejected,
    Resource,
    ResourceExpired,
    Unavailable,
)
from wasession_api.kube.manifests import Key, Manifest
from wasession_operator import startup
from wasession_operator.cluster_cache import ClusterCache
from wasession_operator.controller import Controller
from wasession_operator.plan import Backoff
from wasession_operator.reconcile import Result
from wasession_operator.reconcile_state import ReconcileState
from wasession_operator.startup import Restoration, restoration


def session(*, degraded: bool = False, suspend: bool = False, **status: Any) -> Manifest:
    conditions = [{"type": "Degraded", "status": str(degraded)}]
    return {
        "metadata": {"name": "sales", "namespace": "ns"},
        "spec": {"suspend": suspend},
        "status": {"conditions": conditions, **status},
    }


@pytest.mark.parametrize(
    ("obj", "outcome"),
    [
        (None, Restoration.DELETED),
        (session(phase="Ready", sessionValid=True), Restoration.RESTORED),
        (session(phase="Restoring", sessionValid=True), Restoration.PENDING),
        (session(phase="Restoring", sessionValid=True, degraded=True), Restoration.STALLED),
        (session(phase="Suspended", sessionValid=True, suspend=True), Restoration.STALLED),
        (session(phase="LoggedOut", sessionValid=False), Restoration.STALLED),
    ],
)
def test_how_far_a_restoration_is(obj: Manifest | None, outcome: Restoration) -> None:
    assert restoration(obj) is outcome


# --- all sessions are known before any is reconciled ----------------------------------------------


class Api:
    """An API server with sessions; each list takes the next error of its namespace, if any."""

    def __init__(self) -> None:
        self.sessions: dict[str, list[str]] = {}  # names, by namespace
        self.errors: dict[str, list[Exception]] = {}
        self.lists: Counter[str] = Counter()
        self.on_list: Callable[[str], None] = lambda _: None

    async def pages(
        self, resource: Resource, namespace: str, *, metadata: bool, page_size: int = 100
    ) -> AsyncIterator[Manifest]:
        assert (resource, metadata) == (SESSIONS, True)
        self.lists[namespace] += 1
        self.on_list(namespace)
        if self.errors.get(namespace):
            raise self.errors[namespace].pop(0)
        yield {"items": [listed(namespace, name) for name in self.sessions.get(namespace, [])]}


def listed(namespace: str, name: str) -> Manifest:
    metadata = {"namespace": namespace, "name": name, "uid": name, "resourceVersion": "5"}
    return {"metadata": metadata}


def make_cache(api: Api, *namespaces: str) -> ClusterCache:
    """Return a cache that waits for nothing but sessions."""
    cache = ClusterCache(cast(KubeClient, api), namespaces, mock.Mock(), watch_nodes=False)
    for informer in cache.informers:
        for scope in namespaces if informer.resource.namespaced else (None,):
            informer._accept(scope)
    return cache


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    monkeypatch.setattr(startup, "POLL_INTERVAL", 0.0)
    monkeypatch.setattr(startup, "next_backoff", lambda _: Backoff())
    return Api()


async def test_a_namespace_is_served_when_all_its_sessions_are_known(api: Api) -> None:
    cache = make_cache(api, "ns")
    api.sessions["ns"] = ["sales", "support"]
    polled = asyncio.Event()
    api.on_list = lambda _: polled.set()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        listing = group.create_task(startup.list_sessions(cache))
        await polled.wait()
        cache.session_event(None, listed("ns", "sales"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert (cache.is_served("ns"), cache.is_synced, listing.done()) == (False, False, False)
        cache.session_event(None, listed("ns", "support"))
        await listing
    assert (cache.is_served("ns"), cache.is_synced) == (True, True)
    assert api.lists == {"ns": 1}


async def test_a_session_that_is_gone_by_now_is_not_waited_for(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kopf never delivers it."""
    monkeypatch.setattr(startup, "RELIST_AFTER", 0.0)
    cache = make_cache(api, "ns")
    api.sessions["ns"] = ["sales"]

    def on_list(_: str) -> None:
        if api.lists["ns"] == 3:
            api.sessions["ns"] = []

    api.on_list = on_list
    async with asyncio.timeout(60):
        await startup.list_sessions(cache)
    assert api.lists["ns"] == 3
    assert cache.is_served("ns")


async def test_a_namespace_that_cannot_be_listed_holds_up_no_other(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    cache = make_cache(api, "rejected", "slow", "ns")
    cache.session_event(None, listed("ns", "sales"))
    api.sessions["ns"] = ["sales"]
    api.errors = {
        "rejected": [Rejected("forbidden")] * 5,
        "slow": [Unavailable("no answer"), ResourceExpired()],
    }
    served: list[tuple[str, set[str]]] = []
    api.on_list = lambda namespace: served.append(
        (namespace, {name for name in ("rejected", "slow", "ns") if cache.is_served(name)})
    )
    async with asyncio.timeout(60):
        await startup.list_sessions(cache)
    assert served[0] == ("rejected", set())
    assert ("rejected", {"ns"}) in served, "the others were served meanwhile"
    assert cache.is_synced
    assert all(cache.is_served(namespace) for namespace in ("rejected", "slow", "ns"))
    assert api.lists == {"rejected": 6, "slow": 3, "ns": 1}
    failed = {vars(record)["namespace"] for record in caplog.records}
    assert failed == {"rejected", "slow"}


# --- the start of a shard -------------------------------------------------------------------------


class Fixture(Controller):
    """A controller of one permit to start, whose reconciliations wait until they are released."""

    def __init__(self) -> None:
        settings = SETTINGS.model_copy(
            update={"max_concurrent_starts_per_node": 1, "max_concurrent_starts_per_zone": 1}
        )
        kube, http = cast(KubeClient, None), cast(aiohttp.ClientSession, None)
        self.cache = ClusterCache(kube, [], self, watch_nodes=False)
        super().__init__(settings, kube, http, self.cache, master_key())
        for informer in self.cache.informers:
            informer._accept(None)
        self.cache.sessions_listed(None, known=True)
        self.released: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.reconciled: set[str] = set()
        self.updates_open = asyncio.Event()
        self.updates.open = self.updates_open.set  # type: ignore[method-assign]

    async def _reconcile(self, state: ReconcileState) -> Result:
        await self.released[state.key[1]].wait()
        self.reconciled.add(state.key[1])
        return Result()

    def add(self, name: str, *, has_pod: bool = False, **status: Any) -> Key:
        self.cache.session_event(None, {**listed("ns", name), "spec": {}, "status": status})
        if has_pod:
            self.cache.pods.objects["ns", f"wasession-{name}"] = {"spec": {}}
        return "ns", name

    def restore(self, delay: float = 0) -> Coroutine[None, None, None]:
        return startup.restore(self, self.cache.sessions, delay)


@pytest.fixture
async def controller() -> Fixture:
    return Fixture()


async def run_all(*work: Coroutine[None, None, None]) -> None:
    """Run each until nothing is left to do but wait."""
    tasks = [asyncio.create_task(part) for part in work]
    for _ in range(50):
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_nothing_starts_before_the_delay_is_over(controller: Fixture) -> None:
    key = controller.add("new")
    await run_all(controller.restore(3600))
    assert not controller.starts.is_open
    assert not controller.starts.request(key)
    await run_all(controller.restore())
    assert controller.starts.is_held(key)


async def test_starting_sessions_count_and_valid_logins_come_first(controller: Fixture) -> None:
    """As if each had been reconciled, however many there are."""
    new = controller.add("a-new")
    long_ago = controller.add(
        "b-valid", sessionValid=True, lastConnected="2026-01-02T03:04:05Z", phase="Ready"
    )
    lately = controller.add(
        "c-valid", sessionValid=True, lastConnected="2026-01-03T03:04:05Z", phase="Ready"
    )
    starting = controller.add("d-starting", has_pod=True, phase="Starting")
    running = controller.add("e-running", has_pod=True, phase="Ready", sessionValid=True)
    await run_all(controller.restore())
    order = []
    while held := [key for key in controller.states if controller.starts.is_held(key)]:
        order += held
        for key in held:
            controller.starts.release(key)
    assert order == [starting, lately, long_ago, new]
    assert not controller.starts.is_waiting(running)


@pytest.mark.parametrize("state", ["suspended", "deleted"])
async def test_sessions_that_are_not_to_start_hold_up_none(controller: Fixture, state: str) -> None:
    key = controller.add("old", sessionValid=True)
    obj = controller.cache.sessions[key]
    if state == "suspended":
        obj = {**obj, "spec": {"suspend": True}}
    else:
        obj = {**obj, "metadata": {**obj["metadata"], "deletionTimestamp": "2026-01-02T03:04:05Z"}}
    metadata = {**obj["metadata"], "resourceVersion": "6"}
    controller.cache.upsert_session({**obj, "metadata": metadata})
    other = controller.add("other")
    await run_all(controller.restore())
    assert not controller.starts.is_waiting(key)
    assert controller.starts.is_held(other)


async def test_updates_begin_when_each_session_has_been_reconciled_once(
    controller: Fixture,
) -> None:
    """Until then, it is not known how many updates are under way."""
    for name in ("a", "b", "deleted"):
        controller.add(name)
    running, restoring = map(asyncio.create_task, (controller.run(), controller.restore()))

    async def settle() -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    await settle()
    assert controller.starts.is_open
    controller.add("late")
    for name in ("a", "b"):
        controller.released[name].set()
        await settle()
        assert not controller.updates_open.is_set()
    assert controller.reconciled == {"a", "b"}
    controller.cache.delete_session(("ns", "deleted"), "deleted")
    await restoring
    assert controller.updates_open.is_set(), "one that came later is not waited for"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_updates_begin_at_once_without_a_session(controller: Fixture) -> None:
    await run_all(controller.run(), controller.restore())
    assert controller.updates_open.is_set()
