"""What kopf does not tell is found out by asking; and that its watch is dead."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from wasession_api.kube.client import KubeClient
from wasession_operator.cluster_cache import Cluster
from wasession_operator.reconcile import Operator
from wasession_operator.upkeep import Upkeep

Manifest = dict[str, Any]
KEY = ("ns", "sales")


def session(version: int, **metadata: Any) -> Manifest:
    return {
        "metadata": {
            "name": "sales",
            "namespace": "ns",
            "uid": "uid-1",
            "resourceVersion": str(version),
            **metadata,
        }
    }


class Api:
    def __init__(self) -> None:
        self.sessions: list[Manifest] = []

    async def pages(self, *_: Any, metadata: bool) -> AsyncIterator[Manifest]:
        for item in self.sessions:
            yield {"items": [item]}


class Fixture:
    """An upkeep, what the API server has, and what kopf has told."""

    def __init__(self) -> None:
        self.api = Api()
        self.cluster = Cluster(cast(KubeClient, self.api), [], lambda _: None, watch_nodes=False)
        self.forgotten: list[str] = []
        operator: Any = SimpleNamespace(
            cluster=self.cluster,
            settings=SimpleNamespace(namespaces=[]),
            gone=self._gone,
            seen=self.cluster.session_seen,
        )
        self.upkeep = Upkeep(cast(Operator, operator), cast(KubeClient, self.api))

    def _gone(self, _: Any, uid: str) -> None:
        self.forgotten.append(uid)

    async def check(self) -> str | None:
        await self.upkeep._check()
        return self.upkeep.missed


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


async def test_a_session_that_went_away_unseen_is_forgotten(fixture: Fixture) -> None:
    fixture.cluster.session_seen(session(5))
    await fixture.check()
    assert fixture.forgotten == ["uid-1"]


async def test_a_watch_is_dead_when_it_is_behind_twice(fixture: Fixture) -> None:
    fixture.cluster.session_seen(session(5))
    fixture.api.sessions = [session(5)]
    assert await fixture.check() is None
    fixture.api.sessions = [session(7)]
    assert await fixture.check() is None, "it may be under way"
    assert await fixture.check() == "ns/sales"
    fixture.cluster.session_seen(session(7))
    assert await fixture.check() is None


async def test_a_session_that_changes_all_the_time_is_no_sign_of_death(fixture: Fixture) -> None:
    fixture.cluster.session_seen(session(5))
    for version in (6, 7, 8):
        fixture.api.sessions = [session(version)]
        assert await fixture.check() is None


async def test_a_session_that_was_never_told_of_is_one(fixture: Fixture) -> None:
    fixture.api.sessions = [session(5)]
    assert await fixture.check() is None
    assert await fixture.check() == "ns/sales"
