"""What kopf does not deliver is detected by listing; and so is a dead watch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from wasession_api.base import rfc3339
from wasession_api.kube.client import SECRETS, KubeClient, Resource
from wasession_api.kube.manifests import Key, Manifest
from wasession_operator.cluster_cache import ClusterCache
from wasession_operator.controller import Controller
from wasession_operator.resync import Resync

KEY = ("ns", "sales")
INTERVAL = timedelta(minutes=10)


def session(version: int, **metadata: Any) -> Manifest:
    fixed = {"name": "sales", "namespace": "ns", "uid": "uid-1", "resourceVersion": str(version)}
    return {"metadata": fixed | metadata}


def secret(name: str, owner: str, age: timedelta) -> Manifest:
    return {
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": f"uid-of-{name}",
            "creationTimestamp": rfc3339(datetime.now(UTC) - age),
            "ownerReferences": [{"uid": owner, "controller": True}],
        }
    }


class Api:
    def __init__(self) -> None:
        self.sessions: list[Manifest] = []
        self.deleted: list[tuple[str, ...]] = []

    async def pages(self, *_: Any, metadata: bool) -> AsyncIterator[Manifest]:
        for item in self.sessions:
            yield {"items": [item]}

    async def delete(self, resource: Resource, *where: str) -> None:
        assert resource is SECRETS
        self.deleted.append(where)


class Fixture:
    """A resync, what the API server has, and what kopf has delivered."""

    def __init__(self) -> None:
        self.api = Api()
        kube = cast(KubeClient, self.api)
        self.deleted: list[str] = []
        self.enqueued_all = 0
        self.cache = ClusterCache(kube, [], self, watch_nodes=False)
        controller = SimpleNamespace(
            cache=self.cache,
            settings=SimpleNamespace(cleanup_interval=INTERVAL),
            enqueue_all=self._enqueue_all,
        )
        self.resync = Resync(cast(Controller, controller), kube)

    def _enqueue_all(self) -> None:
        self.enqueued_all += 1

    def enqueue(self, key: Key) -> None:
        """Nothing."""

    def on_upsert(self, before: Manifest | None, after: Manifest) -> None:
        """Nothing."""

    def on_delete(self, key: Key, uid: str) -> None:
        self.deleted.append(uid)

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


async def test_only_old_orphaned_secrets_are_deleted(fixture: Fixture) -> None:
    fixture.cache.session_event("ADDED", session(5))
    for name, owner, age in (
        ("wasession-sales", "uid-0", 2 * INTERVAL),
        ("wasession-owned", "uid-1", 2 * INTERVAL),
        ("wasession-new", "uid-2", INTERVAL / 2),
        ("wasession-orphan", "uid-2", 2 * INTERVAL),
    ):
        fixture.cache.secrets.objects["ns", name] = secret(name, owner, age)
    await fixture.resync._resync()
    assert fixture.api.deleted == [("ns", "wasession-orphan", "uid-of-wasession-orphan")]
    assert fixture.enqueued_all == 1
