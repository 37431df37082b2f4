"""The status of a class says who uses it; an unused NetworkPolicy goes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest
from wasession_api.kube.client import KubeClient, Rejected, Resource
from wasession_api.kube.manifests import Manifest
from wasession_operator import class_usage
from wasession_operator.class_usage import ClassUsage
from wasession_operator.cluster_cache import ClusterCache
from wasession_operator.controller import Controller

NAME = "system/operator"
OTHER = {"operator": "another", "sessions": 1, "namespaces": 1}


class Api:
    """An API server that has classes; it merges their status as server-side apply does."""

    def __init__(self) -> None:
        self.applied: list[Manifest] = []
        self.deleted: list[str] = []
        self.error: Exception | None = None
        self.on_apply: Callable[[], object] = lambda: None

    async def apply(self, _: Resource, manifest: Manifest, sub: str, *, manager: str) -> Manifest:
        assert (sub, manager) == ("/status", NAME)
        if self.error is not None:
            raise self.error
        self.applied.append(manifest)
        self.on_apply()
        metadata = {**manifest["metadata"], "uid": "u"}
        metadata["resourceVersion"] = str(100 + len(self.applied))
        used_by = [OTHER, *manifest["status"]["usedBy"]]
        return {"metadata": metadata, "spec": {}, "status": {"usedBy": used_by}}

    async def delete(self, _: Resource, namespace: str, name: str, uid: str) -> None:
        self.deleted.append(f"{namespace}/{name} {uid}")


class Rig:
    """A cache with one class and one policy, and what follows from their use."""

    def __init__(self) -> None:
        self.api = Api()
        kube, handler = cast(KubeClient, self.api), mock.Mock()
        self.cache = ClusterCache(kube, [], handler, watch_nodes=False, network_policy_peers=[])
        self.cache._synced.set()
        self.open, self.checks = False, 0
        starts = mock.Mock()
        type(starts).is_open = mock.PropertyMock(side_effect=self._is_open)
        settings = SimpleNamespace(operator_name=NAME)
        controller = SimpleNamespace(cache=self.cache, starts=starts, settings=settings)
        self.usage = ClassUsage(kube, cast(Controller, controller))
        metadata = {"name": "gold", "uid": "u", "resourceVersion": "1"}
        status = {"usedBy": [OTHER]}
        self.cache.classes.informer._upsert(("", "gold"), {"metadata": metadata, "status": status})

    def _is_open(self) -> bool:
        self.checks += 1
        return self.open

    def add_policy(self) -> None:
        assert self.cache.network_policies is not None
        metadata: dict[str, Any] = {"namespace": "ns", "name": "wasession-gold", "uid": "p"}
        metadata |= {"resourceVersion": "2", "labels": {"wasession.dev/class": "gold"}}
        obj = {"metadata": metadata, "spec": {}}
        self.cache.network_policies.informer.upsert(obj)

    def add_session(self, name: str) -> Manifest:
        metadata = {"namespace": "ns", "name": name, "uid": name, "resourceVersion": "5"}
        obj = {"metadata": metadata, "spec": {"className": "gold"}}
        self.cache.upsert_session(obj)
        return obj

    def uses(self) -> list[list[dict[str, Any]]]:
        return [manifest["status"]["usedBy"] for manifest in self.api.applied]


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    with mock.patch.object(rig.cache, "is_served", return_value=True):
        yield rig


async def test_only_changes_are_written(rig: Rig) -> None:
    rig.add_session("a")
    use = {"operator": NAME, "sessions": 1, "namespaces": 1}
    for _ in range(2):
        assert await rig.usage._update()
        assert rig.uses() == [[use]]
    rig.cache.delete_session(("ns", "a"), "a")
    for _ in range(2):
        assert await rig.usage._update()
        assert rig.uses() == [[use], []]


async def test_nothing_is_written_about_a_class_that_nobody_uses(rig: Rig) -> None:
    assert await rig.usage._update()
    assert rig.uses() == []


async def test_what_fails_is_to_be_tried_again(rig: Rig) -> None:
    rig.api.error = Rejected("forbidden")
    rig.add_session("a")
    assert not await rig.usage._update()
    rig.cache.classes.informer._remove(("", "gold"), {"metadata": {"uid": "u"}})
    assert await rig.usage._update(), "the class is gone"


async def test_an_unused_policy_goes_with_its_last_session(rig: Rig) -> None:
    rig.add_session("a")
    rig.add_policy()
    await rig.usage._update()
    assert rig.api.deleted == []
    rig.cache.delete_session(("ns", "a"), "a")
    await rig.usage._update()
    assert rig.api.deleted == ["ns/wasession-gold p"]


async def test_a_policy_that_is_used_again_meanwhile_stays(rig: Rig) -> None:
    first = rig.add_session("a")
    await rig.usage._update()
    rig.add_policy()
    rig.cache.delete_session(("ns", "a"), "a")
    rig.api.on_apply = lambda: rig.cache.upsert_session(first)
    await rig.usage._update()
    assert rig.uses()[-1] == [], "it was unused when the pass began"
    assert rig.api.deleted == []


async def test_it_begins_when_all_sessions_are_known(rig: Rig) -> None:
    """Half of the sessions would look like a change."""
    rig.add_session("a")
    with (
        mock.patch.object(class_usage, "DEBOUNCE", 0),
        mock.patch.object(class_usage, "POLL_INTERVAL", 0),
    ):
        task = asyncio.create_task(rig.usage.run())
        while rig.checks < 3:  # noqa: ASYNC110 - its next pass
            await asyncio.sleep(0)
        assert rig.uses() == []
        rig.open = True
        while not rig.uses():  # noqa: ASYNC110 - its next pass
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert len(rig.uses()) == 1
