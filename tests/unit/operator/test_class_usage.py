"""The status of a class says who uses it; an unused NetworkPolicy goes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest
from support.background import in_background
from wasession_api.kube.client import KubeClient, Rejected, Resource
from wasession_api.kube.manifests import Manifest
from wasession_operator import class_usage
from wasession_operator.class_usage import ClassUsage, conflict_condition
from wasession_operator.cluster_cache import ClusterCache
from wasession_operator.sharding.lease_plan import LeasePlan
from wasession_operator.sharding.shards import Shards

NAME = "system/operator"
OTHER = {"operator": "another", "sessions": 1, "namespaces": 1}


class Api:
    """An API server that has classes; it merges their status as server-side apply does."""

    def __init__(self) -> None:
        self.applied: list[Manifest] = []
        self.deleted: list[str] = []
        self.error: Exception | None = None
        self.on_apply: Callable[[], object] = lambda: None
        self._written = asyncio.Event()

    async def written(self) -> None:
        """Wait for a write; raise ``TimeoutError`` if there is none."""
        async with asyncio.timeout(60):
            await self._written.wait()
        self._written.clear()

    async def apply(self, _: Resource, manifest: Manifest, sub: str, *, manager: str) -> Manifest:
        assert (sub, manager) == ("/status", NAME)
        if self.error is not None:
            raise self.error
        self.applied.append(manifest)
        self._written.set()
        self.on_apply()
        metadata = {**manifest["metadata"], "uid": "u"}
        metadata["resourceVersion"] = str(100 + len(self.applied))
        used_by = [OTHER, *manifest["status"]["usedBy"]]
        status = {**manifest["status"], "usedBy": used_by}
        return {"metadata": metadata, "spec": {}, "status": status}

    async def delete(
        self, _: Resource, namespace: str, name: str, uid: str, *, version: str
    ) -> None:
        self.deleted.append(f"{namespace}/{name} {uid} {version}")


class Rig:
    """A cache with one class and one policy, and what follows from their use."""

    def __init__(self) -> None:
        self.api = Api()
        kube, handler = cast(KubeClient, self.api), mock.Mock()
        self.cache = ClusterCache(kube, [], handler, watch_nodes=False, network_policy_peers=[])
        self.led = {"gold", "ns"}  # the class and the namespace that are up to this replica
        self.leases = SimpleNamespace(plan=LeasePlan(), rivals_changed=None)
        self.acquired = asyncio.Event()
        shards = SimpleNamespace(
            cache=self.cache,
            settings=SimpleNamespace(operator_name=NAME),
            leader_client=lambda name: kube if name in self.led else None,
            leases=self.leases,
            acquired=self.acquired,
        )
        self.usage = ClassUsage(cast(Shards, shards))
        metadata = {"name": "gold", "uid": "u", "resourceVersion": "1"}
        status = {"usedBy": [OTHER]}
        self.cache.classes.informer._upsert(("", "gold"), {"metadata": metadata, "status": status})

    def add_policy(self) -> None:
        assert self.cache.network_policies is not None
        metadata: dict[str, Any] = {"namespace": "ns", "name": "wasession-gold", "uid": "p"}
        metadata |= {"resourceVersion": "2", "labels": {"wasession.dev/class": "gold"}}
        obj = {"metadata": metadata, "spec": {}}
        self.cache.network_policies.informer.upsert(obj)

    def add_session(self, name: str, namespace: str = "ns") -> Manifest:
        metadata = {"namespace": namespace, "name": name, "uid": name, "resourceVersion": "5"}
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
    assert rig.api.deleted == ["ns/wasession-gold p 2"]


async def test_a_policy_that_is_used_again_meanwhile_stays(rig: Rig) -> None:
    first = rig.add_session("a")
    await rig.usage._update()
    rig.add_policy()
    rig.cache.delete_session(("ns", "a"), "a")
    rig.api.on_apply = lambda: rig.cache.upsert_session(first)
    await rig.usage._update()
    assert rig.uses()[-1] == [], "it was unused when the pass began"
    assert rig.api.deleted == []


@contextlib.asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[None]:
    with mock.patch.object(class_usage, "DEBOUNCE", 0):
        async with in_background(rig.usage.run()):
            yield


async def some_passes() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_it_begins_when_all_sessions_are_known(rig: Rig) -> None:
    """Half of the sessions would look like a change."""
    rig.add_session("a")
    async with running(rig):
        await some_passes()
        assert rig.uses() == []
        rig.add_session("b")
        rig.cache._synced.set()
        await rig.api.written()
        await some_passes()
    assert rig.uses() == [[{"operator": NAME, "sessions": 2, "namespaces": 1}]]


async def test_classes_and_policies_are_up_to_one_replica(rig: Rig) -> None:
    rig.led = set()
    rig.add_policy()
    rig.add_session("a", namespace="other")
    rig.cache._synced.set()
    async with running(rig):
        await some_passes()
        assert (rig.uses(), rig.api.deleted) == ([], [])
        rig.led = {"gold"}
        rig.acquired.set()
        await rig.api.written()
        await some_passes()
        assert len(rig.uses()) == 1
        assert rig.api.deleted == [], "its namespace is another replica's"
        rig.led = {"ns"}
        rig.acquired.set()
        await some_passes()
        assert rig.api.deleted == ["ns/wasession-gold p 2"]
    assert len(rig.uses()) == 1


# --- several operators ----------------------------------------------------------------------------


def conditions(rig: Rig) -> list[tuple[str, str]]:
    written = [manifest["status"]["conditions"] for manifest in rig.api.applied]
    return [(item["status"], item["reason"]) for of in written for item in of]


async def test_a_class_says_that_several_operators_serve_its_sessions(rig: Rig) -> None:
    """Once: the other one, which waits, has nothing to add."""
    rig.add_session("a")
    await rig.usage._update()
    assert conditions(rig) == []
    rig.leases.plan = LeasePlan(rivals=frozenset({"z/two", "a/one"}))
    for _ in range(2):
        assert await rig.usage._update()
        assert conditions(rig) == [("True", "SeveralOperators")]
    [condition] = rig.api.applied[-1]["status"]["conditions"]
    assert f"Operator {NAME} acts" in condition["message"]
    assert "a/one and z/two would act" in condition["message"]
    rig.leases.plan = LeasePlan()
    for _ in range(2):
        assert await rig.usage._update()
        assert conditions(rig) == [("True", "SeveralOperators"), ("False", "OneOperator")]


async def test_a_change_of_rivals_is_written_without_an_event_of_the_cache(rig: Rig) -> None:
    rig.cache._synced.set()
    rig.cache.classes.changed.clear()
    async with running(rig):
        await some_passes()
        assert rig.api.applied == []
        rig.leases.plan = LeasePlan(rivals=frozenset({"a/one"}))
        rig.leases.rivals_changed()
        await rig.api.written()
    assert conditions(rig) == [("True", "SeveralOperators")]


def test_an_operator_that_has_waited_corrects_what_the_former_one_has_written() -> None:
    """The former one has been uninstalled, and writes nothing any more."""
    rivals = frozenset({"a/one", NAME})
    said = conflict_condition({}, "former/operator", rivals)
    for expected in ("SeveralOperators", "OneOperator"):
        made = conflict_condition(cast(Manifest, said), NAME, rivals - {NAME})
        assert made is not None
        assert made["message"].startswith(f"Operator {NAME} ")
        assert made["reason"] == expected
        said, rivals = made, frozenset()
    alone = conflict_condition({}, "former/operator", frozenset({NAME}))
    made = conflict_condition(cast(Manifest, alone), NAME, frozenset())
    assert made is not None
    assert (made["status"], made["reason"]) == ("False", "OneOperator")


def present(operator: str, status: str) -> Manifest:
    rivals = frozenset({"a/one"}) if status == "True" else frozenset()
    made = conflict_condition({}, operator, frozenset({"a/one"}))
    assert made is not None
    if not rivals:
        made = conflict_condition(made, operator, rivals)
        assert made is not None
    return made


@pytest.mark.parametrize(
    ("before", "rivals", "status"),
    [
        ({}, False, None),
        ({}, True, "True"),
        (present("other/operator", "True"), True, None),
        (present("other/operator", "True"), False, None),
        (present("other/operator", "False"), True, "True"),
        (present("other/operator", "False"), False, None),
        (present(NAME, "True"), True, "True"),
        (present(NAME, "True"), False, "False"),
        (present(NAME, "False"), True, "True"),
        (present(NAME, "False"), False, "False"),
        (present(f"{NAME}-2", "True"), False, None),
    ],
)
def test_whose_condition_it_is(before: Manifest, rivals: bool, status: str | None) -> None:
    made = conflict_condition(before, NAME, frozenset({"x/y"} if rivals else ()))
    assert (made and made["status"]) == status
    if made is not None and before.get("status") == status:
        assert made["lastTransitionTime"] == before["lastTransitionTime"]
