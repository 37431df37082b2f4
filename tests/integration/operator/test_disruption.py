"""A PodDisruptionBudget over session pods limits evictions, as with any workload."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from support.fakes.api import ApiError, Manifest
from support.fakes.world import World
from wasession_api.names import object_name
from wasession_operator.objects import DO_NOT_DISRUPT, SAFE_TO_EVICT

BUDGET = "sessions"


async def evict(world: World, name: str) -> None:
    """Evict a session's pod, as ``kubectl drain`` does; raises ``ApiError`` with 429 if refused."""
    metadata = {"name": object_name(name), "namespace": world.namespace}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    await world.api.create("pods", eviction, "eviction")


async def until_allowed(world: World, allowed: int, expected: int, healthy: int) -> None:
    """Wait until the disruption controller allows this many evictions of so many pods.

    It has seen the end of those that were evicted before: without it, its status is preliminary.
    """
    wanted = {"disruptionsAllowed": allowed, "expectedPods": expected, "currentHealthy": healthy}
    async with asyncio.timeout(60):
        while True:
            budget = await world.api.get("poddisruptionbudgets", world.namespace, BUDGET)
            status = budget.get("status", {})
            if wanted.items() <= status.items() and not status.get("disruptedPods"):
                return
            await asyncio.sleep(0.1)


def has_other_pod(world: World, name: str, pod: Manifest) -> bool:
    """Return whether a session has another pod than this one, be it ready or not."""
    present = world.object("pods", name)
    return present is not None and present["metadata"]["uid"] != pod["metadata"]["uid"]


async def test_a_drain_goes_on_one_pod_at_a_time(world: World) -> None:
    """The controller finds the number of pods with the scale subresource of the sessions."""
    sessions = [f"s{index}" for index in range(3)]
    await world.start_operator()
    for name in sessions:
        await world.create(name)
    await world.until_phase(*sessions)
    world.script.scans = False
    await world.api.create(
        "poddisruptionbudgets",
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": BUDGET, "namespace": world.namespace},
            "spec": {
                "maxUnavailable": 1,
                "selector": {"matchLabels": {"app.kubernetes.io/name": "wasession-session"}},
            },
        },
    )
    pods = {name: world.pod(name) for name in sessions}
    for name in sessions:
        await until_allowed(world, 1, expected=3, healthy=3)
        world.script.images = False
        await evict(world, name)
        # It counts the pods that there are: without the next one there would be two, both healthy.
        await world.until(partial(has_other_pod, world, name, pods[name]), "the next pod")
        await until_allowed(world, 0, expected=3, healthy=2)
        other = next(another for another in sessions if another != name)
        with pytest.raises(ApiError, match="429"):
            await evict(world, other)
        world.script.images = True
        world.kubelet.look_again(world.namespace)
        await world.until_replaced(name, pods[name])
    await world.change("s0", suspend=True)
    await until_allowed(world, 1, expected=2, healthy=2)


def evictable(world: World, name: str) -> str | None:
    """Return what a session's pod tells cluster-autoscaler."""
    value: str | None = world.pod(name)["metadata"]["annotations"].get(SAFE_TO_EVICT)
    return value


async def test_autoscalers_leave_a_pod_alone_until_its_phone_is_linked(world: World) -> None:
    """It is created so, and released after the session is Ready: a start takes no more writes."""
    world.script.scans = False
    await world.start_operator()
    await world.create("s0")
    await world.until_phase("s0", phase="Authenticating")
    assert evictable(world, "s0") == "false"
    assert world.pod("s0")["metadata"]["annotations"][DO_NOT_DISRUPT] == "true"
    world.program("s0").scan()
    await world.until_phase("s0")
    await world.until(lambda: evictable(world, "s0") == "true", "the pod to be released")
    assert DO_NOT_DISRUPT not in world.pod("s0")["metadata"]["annotations"]
    told = [
        (change.plural, change.object["metadata"].get("annotations", {}).get(SAFE_TO_EVICT))
        if change.plural == "pods"
        else (change.plural, change.object.get("status", {}).get("phase"))
        for change in world.changes
    ]
    assert told.index(("whatsappsessions", "Ready")) < told.index(("pods", "true"))
    # A restoration is not disturbed by it: the next pod may be evicted from the start.
    pod = world.pod("s0")
    await world.take_away("pods", "s0")
    await world.until_replaced("s0", pod)
    uid = world.pod("s0")["metadata"]["uid"]
    of_next = [change for change in world.changes if change.object["metadata"].get("uid") == uid]
    assert {c.object["metadata"]["annotations"].get(SAFE_TO_EVICT) for c in of_next} == {"true"}
