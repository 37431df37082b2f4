"""What kopf does not deliver is detected by listing; and so is a dead watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from unit.operator.situations import pvc
from wasession_api.kube.client import (
    KubeClient,
    Rejected,
    Resource,
    ResourceExpired,
    Unavailable,
)
from wasession_api.kube.manifests import Key, Manifest
from wasession_operator import metrics, resync
from wasession_operator.cluster_cache import ClusterCache
from wasession_operator.resync import Resync
from wasession_operator.session_watch import SessionWatch
from wasession_operator.sharding.shards import Shards

KEY = ("ns", "sales")


def session(version: int, **metadata: Any) -> Manifest:
    fixed = {"name": "sales", "namespace": "ns", "uid": "uid-1", "resourceVersion": str(version)}
    return {"metadata": fixed | metadata}


class Api:
    def __init__(self) -> None:
        self.sessions: list[Manifest] = []
        self.failing: dict[str | None, Exception] = {}  # namespaces

    async def pages(
        self, _: Resource, namespace: str | None, *, metadata: bool, page_size: int = 100
    ) -> AsyncIterator[Manifest]:
        if namespace in self.failing:
            raise self.failing[namespace]
        for item in self.sessions:
            if namespace in (None, item["metadata"]["namespace"]):
                yield {"items": [item]}


class Watch:
    def __init__(self, namespace: str | None) -> None:
        self.namespace = namespace
        self.restarts = 0
        self.restarted = asyncio.Event()

    def restart(self) -> None:
        self.restarts += 1
        self.restarted.set()


class Fixture:
    """A resync, what the API server has, and what kopf has delivered."""

    def __init__(self, *namespaces: str) -> None:
        self.api = Api()
        kube = cast(KubeClient, self.api)
        self.deleted: list[str] = []
        self.cache = ClusterCache(kube, namespaces, self, watch_nodes=False)
        self.held = True  # whether this replica acts on the sessions
        self.retried: list[str | None] = []  # namespaces
        shards = SimpleNamespace(
            cache=self.cache, holds=lambda _: self.held, enqueue_failed=self.retried.append
        )
        self.watches = [Watch(namespace) for namespace in namespaces or (None,)]
        self.resync = Resync(cast(Shards, shards), cast(list[SessionWatch], self.watches))

    def enqueue(self, key: Key) -> None:
        """Nothing."""

    def on_upsert(self, before: Manifest | None, after: Manifest) -> None:
        """Nothing."""

    def on_delete(self, key: Key, uid: str) -> None:
        self.deleted.append(uid)

    def on_sync(self, namespace: str | None) -> None:
        """Nothing."""

    def on_start_node(self, name: str, zone: str | None) -> None:
        """Nothing."""

    async def verify(self) -> str | None:
        await self.resync._verify_cache()
        return self.resync.missed


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


async def test_a_session_deleted_without_a_watch_event_is_forgotten(fixture: Fixture) -> None:
    fixture.cache.session_event("ADDED", session(5))
    await fixture.verify()
    assert fixture.deleted == ["uid-1"]
    assert KEY not in fixture.cache.sessions


async def test_a_watch_that_is_outdated_twice_is_started_again(fixture: Fixture) -> None:
    fixture.cache.session_event("ADDED", session(5))
    fixture.api.sessions = [session(5)]
    assert await fixture.verify() is None
    fixture.api.sessions = [session(7)]
    assert await fixture.verify() is None, "its event may be on the way"
    assert fixture.watches[0].restarts == 0
    assert await fixture.verify() is None, "kopf is started again"
    assert fixture.watches[0].restarts == 1
    assert await fixture.verify() == "ns/sales"
    assert fixture.watches[0].restarts == 1
    fixture.cache.session_event("MODIFIED", session(7))
    assert await fixture.verify() is None


async def test_what_has_failed_is_tried_again_when_the_api_server_answers() -> None:
    fixture = Fixture("a", "b")
    fixture.api.failing["a"] = Unavailable("500")
    await fixture.verify()
    await fixture.verify()
    assert fixture.retried == []
    fixture.api.failing.clear()
    await fixture.verify()
    await fixture.verify()
    assert fixture.retried == ["a"]


async def test_a_session_that_changes_all_the_time_is_no_sign_of_death(fixture: Fixture) -> None:
    fixture.cache.session_event("ADDED", session(5))
    for version in (6, 7, 8):
        fixture.api.sessions = [session(version)]
        assert await fixture.verify() is None
    assert fixture.watches[0].restarts == 0


async def test_a_watch_that_delivers_nothing_from_the_start_is_started_again(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is not complete before it has delivered everything."""
    monkeypatch.setattr(resync, "VERIFY_INTERVAL", 0.0)
    fixture.api.sessions = [session(5)]
    running = asyncio.create_task(fixture.resync.run())
    async with asyncio.timeout(30):
        await fixture.watches[0].restarted.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not fixture.cache.is_synced


async def test_a_session_that_was_never_delivered_is_one(fixture: Fixture) -> None:
    fixture.api.sessions = [session(5)]
    assert [await fixture.verify() for _ in range(2)] == [None, None]
    assert await fixture.verify() == "ns/sales"


@pytest.mark.parametrize("error", [Rejected("forbidden"), Unavailable("500"), ResourceExpired()])
async def test_a_namespace_that_cannot_be_listed_is_left_alone(error: Exception) -> None:
    fixture = Fixture("ns", "other")
    other = session(5, namespace="other", uid="uid-2")
    fixture.cache.session_event("ADDED", session(5))
    fixture.cache.session_event("ADDED", other)
    fixture.api.failing["ns"] = error
    await fixture.verify()
    assert fixture.deleted == ["uid-2"]
    assert KEY in fixture.cache.sessions
    fixture.api.sessions = [{**other, "metadata": {**other["metadata"], "resourceVersion": "7"}}]
    await fixture.verify()
    await fixture.verify()
    assert [watch.restarts for watch in fixture.watches] == [0, 1]
    assert await fixture.verify() == "other/sales"


def test_the_claim_of_a_deleted_session_is_reported_and_left_alone(
    fixture: Fixture, caplog: pytest.LogCaptureFixture
) -> None:
    delete = {"storage": {"retention": {"whenDeleted": "Delete"}}}
    owned, retained = pvc(spec=delete), pvc()
    fixture.cache.session_event("ADDED", session(5))
    fixture.cache.pvcs.objects["ns", "wasession-sales"] = owned
    fixture.cache.pvcs.objects["ns", "wasession-retained"] = retained
    fixture.resync._report_orphaned_claims()
    assert caplog.records == []
    fixture.cache.delete_session(KEY, "uid-1")
    fixture.held = False
    fixture.resync._report_orphaned_claims()
    assert caplog.records == [], "another replica reports it"
    fixture.held = True
    fixture.resync._report_orphaned_claims()
    [record] = caplog.records
    assert vars(record)["pvc"] == "wasession-sales"
    assert metrics.ORPHANED_CLAIMS._value.get() == 1


def test_many_sessions_are_verified_less_often() -> None:
    assert [resync.verify_interval(count) for count in (0, 3000, 5000, 20_000)] == [
        60.0,
        60.0,
        100.0,
        400.0,
    ]
