"""What kopf does not deliver is detected by listing; and so is a dead watch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from unit.operator.situations import pvc
from wasession_api.kube.client import KubeClient, Rejected, Resource
from wasession_api.kube.manifests import Key, Manifest
from wasession_operator import metrics
from wasession_operator.cluster_cache import ClusterCache
from wasession_operator.resync import Resync
from wasession_operator.sharding.shards import Shards

KEY = ("ns", "sales")


def session(version: int, **metadata: Any) -> Manifest:
    fixed = {"name": "sales", "namespace": "ns", "uid": "uid-1", "resourceVersion": str(version)}
    return {"metadata": fixed | metadata}


class Api:
    def __init__(self) -> None:
        self.sessions: list[Manifest] = []
        self.rejected: set[str] = set()  # namespaces

    async def pages(
        self, _: Resource, namespace: str | None, *, metadata: bool
    ) -> AsyncIterator[Manifest]:
        if namespace in self.rejected:
            raise Rejected("forbidden")
        for item in self.sessions:
            if namespace in (None, item["metadata"]["namespace"]):
                yield {"items": [item]}


class Fixture:
    """A resync, what the API server has, and what kopf has delivered."""

    def __init__(self, *namespaces: str) -> None:
        self.api = Api()
        kube = cast(KubeClient, self.api)
        self.deleted: list[str] = []
        self.cache = ClusterCache(kube, namespaces, self, watch_nodes=False)
        self.held = True  # whether this replica acts on the sessions
        shards = SimpleNamespace(cache=self.cache, holds=lambda _: self.held)
        self.resync = Resync(cast(Shards, shards))

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


async def test_a_watch_is_dead_when_it_is_outdated_twice(fixture: Fixture) -> None:
    fixture.cache.session_event("ADDED", session(5))
    fixture.api.sessions = [session(5)]
    assert await fixture.verify() is None
    fixture.api.sessions = [session(7)]
    assert await fixture.verify() is None, "its event may be on the way"
    assert await fixture.verify() == "ns/sales"
    fixture.cache.session_event("MODIFIED", session(7))
    assert await fixture.verify() is None


async def test_a_session_that_changes_all_the_time_is_no_sign_of_death(fixture: Fixture) -> None:
    fixture.cache.session_event("ADDED", session(5))
    for version in (6, 7, 8):
        fixture.api.sessions = [session(version)]
        assert await fixture.verify() is None


async def test_a_session_that_was_never_delivered_is_one(fixture: Fixture) -> None:
    fixture.api.sessions = [session(5)]
    assert await fixture.verify() is None
    assert await fixture.verify() == "ns/sales"


async def test_a_namespace_that_cannot_be_listed_is_left_alone() -> None:
    fixture = Fixture("ns", "other")
    other = session(5, namespace="other", uid="uid-2")
    fixture.cache.session_event("ADDED", session(5))
    fixture.cache.session_event("ADDED", other)
    fixture.api.rejected.add("ns")
    await fixture.verify()
    assert fixture.deleted == ["uid-2"]
    assert KEY in fixture.cache.sessions
    fixture.api.sessions = [{**other, "metadata": {**other["metadata"], "resourceVersion": "7"}}]
    await fixture.verify()
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
