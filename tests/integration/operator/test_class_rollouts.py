"""A change of a class reaches its sessions step by step; at most the canary is hurt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from integration.operator.test_faults import FAULTS
from integration.operator.test_replicas import holders
from support.fakes import proxy
from support.fakes.api import Manifest
from support.fakes.world import Environment, World
from wasession_api.session_pod.report import Notice
from wasession_api.v1alpha1 import CLASS_PLURAL, Phase, Reason
from wasession_cli.rollouts import resume_patch, undone
from wasession_operator.sharding.lease import shard_of_name

NAMES = tuple(f"session-{number:02}" for number in range(50))
GOOD, BAD = "session-pod:good", "session-pod:bad"
ROLLOUT = {"soak": "1s", "steps": [5, "50%"], "maxConcurrent": 10}
Act = Callable[[World, str], Coroutine[Any, Any, None]]


@pytest.fixture
async def fleet(world: World) -> World:
    """Sessions that are Ready, of a class with a rollout."""
    await world.change_class(template={"updateStrategy": "RollingUpdate"}, rollout=ROLLOUT)
    await world.start_operator()
    await asyncio.gather(*(world.create(name) for name in NAMES))
    await world.until_phase(*NAMES)
    await until_phase(world, "Complete")
    return world


async def read_class(world: World) -> Manifest:
    return await world.api.get(CLASS_PLURAL, None, world.class_name)


async def until_phase(world: World, phase: str, timeout: float = 120) -> Manifest:
    """Wait until the rollout of the world's class is in a phase; return how far it is."""
    async with asyncio.timeout(timeout):
        while True:
            status = (await read_class(world)).get("status", {})
            for rollout in status.get("rollouts", []):
                if rollout["phase"] == phase:
                    return dict(rollout)
            await asyncio.sleep(0.2)  # classes are in no namespace, whose history could be awaited


def on(world: World, image: str) -> set[str]:
    """Return the sessions whose pods are of an image."""
    return {name for name in NAMES if image in str(world.object("pods", name))}


def touched(world: World, image: str) -> set[str]:
    """Return the pods that were ever created with an image."""
    return {
        change.object["metadata"]["name"].removeprefix("wasession-")
        for change in world.changes
        if change.plural == "pods" and change.type == "ADDED" and image in str(change.object)
    }


async def log_out(world: World, name: str) -> None:
    world.program(name).log_out()


async def crash(world: World, name: str) -> None:
    await world.kubelet.crash(world.pod(name), "Error", again=False)


async def deafen(world: World, name: str) -> None:
    warning = Notice(reason=Reason.MESSAGES_NOT_HEARD, message="No message is heard.")
    world.program(name).say(Phase.READY, Reason.CONNECTED, warnings=[warning])


async def hurt_first(world: World, act: Act) -> str:
    """Wait until the first session runs the bad image, and act as that image."""
    names = await world.until(lambda: on(world, BAD), "a canary")
    [canary] = names
    await world.until(
        lambda: world.status(canary).get("podUID") == world.pod(canary)["metadata"]["uid"],
        "the canary's report",
    )
    await act(world, canary)
    return str(canary)


async def test_a_good_image_reaches_all(fleet: World) -> None:
    await fleet.change_class(rollout={"soak": "5s"}, image=GOOD)  # long enough to be seen
    await until_phase(fleet, "Soaking")
    assert len(touched(fleet, GOOD)) == 1, "only the canary"
    done = await fleet.until(lambda: len(on(fleet, GOOD)) == len(NAMES), "all of the image")
    assert done
    await fleet.until_phase(*NAMES)
    rollout = await until_phase(fleet, "Complete")
    assert (rollout["updated"], rollout["total"]) == (len(NAMES), len(NAMES))


@pytest.mark.parametrize("act", [log_out, crash, deafen])
async def test_at_most_the_canary_is_hurt(fleet: World, act: Act) -> None:
    """An undo heals whom it can; a lost login is for a person to link again."""
    await fleet.change_class(rollout={"soak": "1h"}, image=BAD)
    canary = await hurt_first(fleet, act)
    halted = await until_phase(fleet, "Halted")
    assert halted["halted"]["session"] == f"{fleet.namespace}/{canary}"
    await fleet.restart_operator()
    assert len(touched(fleet, BAD)) == 1
    session_class = await read_class(fleet)
    [condition] = [c for c in session_class["status"]["conditions"] if c["type"] == "RolledOut"]
    assert (condition["status"], condition["reason"]) == ("False", "Halted")
    spec = undone(session_class)[0]["spec"]
    await fleet.change_class(image=spec.get("image"))
    await until_phase(fleet, "Complete")
    assert on(fleet, BAD) == set()
    assert len(touched(fleet, BAD)) == 1


async def test_a_killed_operator_goes_on_with_the_same_canary(fleet: World) -> None:
    await fleet.change_class(rollout={"soak": "1h"}, image=GOOD)
    await fleet.until(lambda: touched(fleet, GOOD), "a canary")
    for _ in range(3):
        await fleet.restart_operator()
    await until_phase(fleet, "Soaking")
    assert len(touched(fleet, GOOD)) == 1


@pytest.mark.parametrize("image", [GOOD, BAD])
async def test_the_leader_of_a_class_is_killed_again_and_again(world: World, image: str) -> None:
    """Its successor finds what is written, and whom the former one has admitted."""
    shards, names = 3, NAMES[:12]
    world.settings |= {"lease_duration": "2s", "shards": str(shards)}
    await world.change_class(template={"updateStrategy": "RollingUpdate"}, rollout=ROLLOUT)
    await world.start_operator()
    await world.add_replica()
    await asyncio.gather(*(world.create(name) for name in names))
    await world.until_phase(*names)
    await until_phase(world, "Complete")
    await world.change_class(rollout={"soak": "4s"}, image=image)

    async def kill_leader() -> None:
        lead = holders(world, shards)[shard_of_name(world.class_name, shards)]
        for replica in [replica for replica in world.replicas if replica.name == lead]:
            await replica.kill()
            await world.add_replica()

    await world.until(lambda: touched(world, image), "a canary")
    await kill_leader()
    assert len(touched(world, image)) == 1
    if image == BAD:
        [canary] = touched(world, image)
        await world.until_phase(canary)
        await crash(world, canary)
        await until_phase(world, "Halted")
        await kill_leader()
        await world.until(lambda: all(holders(world, shards)), "all shards to be held")
        assert (await until_phase(world, "Halted"))["halted"]["session"].endswith(canary)
        assert len(touched(world, image)) == 1
        return
    await world.until(lambda: len(touched(world, image)) > 1, "the next step")
    await kill_leader()
    rollout = await until_phase(world, "Complete")
    assert rollout["updated"] == len(names)
    assert touched(world, image) == set(names)


async def test_a_class_that_is_created_again_has_a_canary_all_the_same(fleet: World) -> None:
    """With another image: what its sessions run, they say themselves."""
    spec = (await read_class(fleet))["spec"]
    await fleet.delete_class(fleet.class_name)
    await fleet.until(
        lambda: all(
            fleet.condition(name, "Degraded")["reason"] == "ClassNotFound" for name in NAMES
        ),
        "sessions without a class",
    )
    await fleet.create_class(fleet.class_name, **spec | {"rollout": {"soak": "1h"}, "image": GOOD})
    rollout = await until_phase(fleet, "Soaking")
    assert rollout["stable"]["name"] != rollout["revision"]
    assert len(touched(fleet, GOOD)) == 1


async def test_what_is_decided_cannot_be_written_at_once(environment: Environment) -> None:
    """Whatever the API server answers, each of the first writes is tried again."""
    faults = FAULTS | {str(code): proxy.answers(code) for code in (403, 404, 410, 422)}
    turn = asyncio.Semaphore(4)

    async def gets_there(fault: proxy.Action) -> None:
        async with turn:
            world = World(environment)
            await world.open()
            rollout = ROLLOUT | {"soak": "0s"}
            await world.change_class(template={"updateStrategy": "RollingUpdate"}, rollout=rollout)
            await world.start_operator()
            await asyncio.gather(*(world.create(name) for name in NAMES[:3]))
            await world.until_phase(*NAMES[:3])
            await until_phase(world, "Complete")
            hits = world.proxy.fail(fault, "PATCH", "whatsappsessionclasses/status", times=2)
            await world.change_class(image=GOOD)
            await world.until(lambda: touched(world, GOOD) == set(NAMES[:3]), "all of the image")
            await until_phase(world, "Complete")
            assert hits.done == 2
            assert await world.close() == []

    async with asyncio.TaskGroup() as group:
        for fault in faults.values():
            group.create_task(gets_there(fault))


async def test_paused_and_resumed(fleet: World) -> None:
    await fleet.change_class(rollout={"paused": True}, image=GOOD)
    await until_phase(fleet, "Paused")
    assert touched(fleet, GOOD) == set()
    patch = resume_patch(await read_class(fleet))
    await fleet.api.patch(CLASS_PLURAL, None, fleet.class_name, patch)
    await until_phase(fleet, "Complete")
    assert len(on(fleet, GOOD)) == len(NAMES)


async def test_sessions_wait_for_the_maintenance_window(fleet: World) -> None:
    """It opens at an hour that is not this one; then the operator's clock gets there."""
    opens = datetime.now(UTC) + timedelta(hours=3)
    window = {"schedule": f"0 {opens.hour} * * *", "duration": "1h"}
    await fleet.change_class(rollout={"maintenanceWindow": window}, image=GOOD)
    waiting = await until_phase(fleet, "WaitingForWindow")
    assert "opens at" in waiting["message"]
    assert touched(fleet, GOOD) == set()
    assert fleet.operator is not None
    start = opens.replace(minute=0, second=0, microsecond=0)
    fleet.operator.skew((start - datetime.now(UTC)).total_seconds() + 1)
    await fleet.until(lambda: touched(fleet, GOOD), "an update in the window")
