"""An operator killed after any of its writes reaches the same end state as an undisturbed one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from support.fakes.proxy import Call
from support.fakes.world import PVCS, Environment, World
from wasession_api.v1alpha1 import CLASS_PLURAL
from wasession_cli.rollouts import undone

AT_ONCE = 4  # worlds at a time


@dataclass(frozen=True)
class Scenario:
    """``prepare`` sets up a stable state, ``act`` changes something, ``end`` awaits the result."""

    prepare: Callable[[World], Awaitable[None]]
    act: Callable[[World], Awaitable[Any]]
    end: Callable[[World], Awaitable[Any]]


async def nothing(world: World) -> None:
    """A namespace without sessions."""


async def ready(world: World, **spec: Any) -> None:
    await world.create("sales", **spec)
    await world.until_phase("sales")


async def suspended(world: World) -> None:
    await ready(world)
    await world.change("sales", suspend=True)
    await no_pod(world)


async def without_class(world: World) -> None:
    await world.create("sales", className=f"{world.namespace}-gold")
    await world.until_phase("sales", phase="Failed")


async def left_behind(world: World) -> None:
    """A claim with a login, whose session was deleted."""
    await ready(world)
    await world.delete("sales")
    await world.until_gone("sales")
    await world.until_none("secrets", "sales")  # else the next session takes it over


async def no_pod(world: World) -> None:
    def stopped() -> bool:
        reasons = [
            world.condition("sales", kind).get("reason") for kind in ("Ready", "StorageReady")
        ]
        return world.object("pods", "sales") is None and reasons == ["Suspended", "VolumeBound"]

    await world.until(stopped, "a suspended session without a pod")


async def is_ready(world: World) -> None:
    await world.until_phase("sales")


async def another_pod(world: World) -> None:
    """Ready with another pod than the first one."""

    def replaced() -> bool:
        pods = {c.object["metadata"]["uid"] for c in world.changes if c.plural == "pods"}
        status = world.status("sales")
        pod = world.object("pods", "sales")
        current = pod is not None and pod["metadata"]["uid"] == status.get("podUID")
        return len(pods) > 1 and current and status.get("phase") == "Ready"

    await world.until(replaced, "another pod, Ready")


async def with_rollout(world: World) -> None:
    """A session of a class whose rollout is complete."""
    await world.change_class(rollout={"soak": "1s"})
    await ready(world, updateStrategy="RollingUpdate")
    await until_rolled_out(world, "Complete")


async def rolled_out(world: World) -> None:
    await another_pod(world)
    await until_rolled_out(world, "Complete", image="other:1")


async def with_a_hurt_canary(world: World) -> None:
    await with_rollout(world)
    await world.change_class(rollout={"soak": "1h"}, image="other:1")
    await until_rolled_out(world, "Soaking")
    await world.kubelet.crash(world.pod("sales"), "Error", again=False)
    await until_rolled_out(world, "Halted")


async def undo(world: World) -> None:
    spec = undone(await world.api.get(CLASS_PLURAL, None, world.class_name))[0]["spec"]
    await world.change_class(image=spec["image"])


async def undone_and_ready(world: World) -> None:
    await until_rolled_out(world, "Complete")
    await is_ready(world)
    assert world.created("pods") == 3, "of the stable revision, of the other one, and again"


async def until_rolled_out(world: World, phase: str, image: str = "") -> None:
    """Wait until the rollout of the world's class, which has an image, is in a phase."""
    async with asyncio.timeout(120):
        while True:
            obj = await world.api.get(CLASS_PLURAL, None, world.class_name)
            [rollout] = obj.get("status", {}).get("rollouts", [{}])
            of_image = image in str(rollout.get("stable", {}).get("template"))
            if rollout.get("phase") == phase and of_image:
                return
            await asyncio.sleep(0.2)  # classes are in no namespace, whose history could be awaited


async def token_is_rotated(world: World) -> None:
    def rotated() -> bool:
        rotation = world.status("sales").get("tokenRotation", {})
        return bool(rotation.get("done") and world.phase("sales") == "Ready")

    await world.until(rotated, "another token, Ready")


async def is_gone(world: World) -> None:
    await world.until_gone("sales")


async def is_gone_with_its_claim(world: World) -> None:
    await world.until_gone("sales")
    await world.until(lambda: world.object(PVCS, "sales") is None, "the claim to be gone")


SCENARIOS = {
    "created": Scenario(nothing, lambda world: world.create("sales"), is_ready),
    "pod deleted": Scenario(ready, lambda world: world.take_away("pods", "sales"), another_pod),
    "pod failed": Scenario(
        ready,
        lambda world: world.kubelet.end(
            world.pod("sales"), "Failed", "Evicted", "The node was low on memory."
        ),
        another_pod,
    ),
    "template changed": Scenario(
        lambda world: ready(world, updateStrategy="RollingUpdate"),
        lambda world: world.change("sales", browser={"locale": "de-DE"}),
        another_pod,
    ),
    "class created": Scenario(
        without_class, lambda world: world.create_class(f"{world.namespace}-gold"), is_ready
    ),
    "class changed": Scenario(
        lambda world: ready(world, updateStrategy="RollingUpdate"),
        lambda world: world.change_class(image="other:1"),
        another_pod,
    ),
    "rolled out": Scenario(
        with_rollout, lambda world: world.change_class(image="other:1"), rolled_out
    ),
    "rollout undone": Scenario(with_a_hurt_canary, undo, undone_and_ready),
    "suspended": Scenario(ready, lambda world: world.change("sales", suspend=True), no_pod),
    "resumed": Scenario(suspended, lambda world: world.change("sales", suspend=False), another_pod),
    "restart asked for": Scenario(
        ready, lambda world: world.annotate("sales", restart="1"), another_pod
    ),
    "token rotated": Scenario(
        ready, lambda world: world.annotate("sales", rotate_token="1"), token_is_rotated
    ),
    "deleted, claim kept": Scenario(ready, lambda world: world.delete("sales"), is_gone),
    "deleted, claim too": Scenario(
        lambda world: ready(world, storage={"retention": {"whenDeleted": "Delete"}}),
        lambda world: world.delete("sales"),
        is_gone_with_its_claim,
    ),
    "adopted": Scenario(left_behind, lambda world: world.create("sales"), another_pod),
}


@pytest.mark.parametrize("name", SCENARIOS)
async def test_killed_after_any_write(environment: Environment, name: str) -> None:
    scenario = SCENARIOS[name]
    undisturbed, writes = await run(environment, scenario, lambda _: False)
    assert writes > 0
    turn = asyncio.Semaphore(AT_ONCE)

    async def killed_after(number: int) -> None:
        async with turn:
            end, _ = await run(environment, scenario, lambda count: count == number)
            assert not end ^ undisturbed, (
                f"killed after write {number} of {writes}: {end - undisturbed}"
            )

    async def killed_each_time() -> None:
        async with turn:
            end, _ = await run(environment, scenario, lambda _: True)
            assert not end ^ undisturbed, f"killed after each write: {end - undisturbed}"

    async with asyncio.TaskGroup() as group:
        group.create_task(killed_each_time())
        for number in range(1, writes + 1):
            group.create_task(killed_after(number))


async def run(
    environment: Environment, scenario: Scenario, dies: Callable[[int], bool]
) -> tuple[set[str], int]:
    """Run a scenario, and kill the operator after each write whose number ``dies`` accepts.

    SIGKILL hits it before it receives the response. Return the end state and the number of writes.
    """
    world = World(environment)
    await world.open()
    await world.start_operator()
    await scenario.prepare(world)
    count = 0
    killed = asyncio.Event()

    def written(_: Call) -> None:
        nonlocal count
        count += 1
        if dies(count):
            assert world.operator is not None
            world.operator.kill()
            killed.set()

    async def keep_running() -> None:
        while True:
            await killed.wait()
            assert world.operator is not None
            await world.operator.ended()
            killed.clear()
            await world.start_operator()

    world.proxy.written = written
    keeper = asyncio.create_task(keep_running())
    try:
        await scenario.act(world)
        await scenario.end(world)
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        world.proxy.written = lambda _: None
    assert await world.close() == []
    return outcome(world), count


def outcome(world: World) -> set[str]:
    """Return the end state, without what differs from run to run."""
    status = world.status("sales")
    told = (
        "phase",
        "accountStatus",
        "sessionValid",
        "isAuthenticated",
        "restored",
        "restorations",
        "podName",
        "pvcName",
        "tokenEpoch",
    )
    found = {f"{field}: {status.get(field)}" for field in told}
    found |= {
        f"restarts.{field}: {status.get('restarts', {}).get(field)}"
        for field in ("count", "reason")
    }
    found |= {f"{c['type']}: {c['status']}, {c['reason']}" for c in status.get("conditions", [])}
    found |= {f"{plural} created: {world.created(plural)}" for plural in ("pods", PVCS, "secrets")}
    return found | {
        f"{key[0]} left"
        for key in world.history.current
        if key[1] == world.namespace and key[0] not in ("secrets", "networkpolicies")
    }
