"""An idle operator writes nothing; and many sessions start in order."""

from __future__ import annotations

import asyncio
import os
import re
from functools import partial

from support.fakes.api import Manifest
from support.fakes.history import Change
from support.fakes.kubelet import SELECTED_NODE
from support.fakes.proxy import Call
from support.fakes.world import PVCS, World
from wasession_api.v1alpha1 import CLASS_PLURAL

# ``make idle-audit`` has two hundred sessions for ten minutes.
SESSIONS = int(os.environ.get("IDLE_SESSIONS", "60"))
SECONDS = float(os.environ.get("IDLE_SECONDS", "0"))
KINDS = {"pods", PVCS, "networkpolicies", "whatsappsessions", CLASS_PLURAL}


async def test_nothing_is_written_while_nothing_happens(world: World) -> None:
    """Not when all watches break twice either, or when the operator is restarted."""
    names = [f"session-{number}" for number in range(SESSIONS)]
    await world.start_operator(
        max_concurrent_starts_per_node=str(SESSIONS), max_concurrent_starts_per_zone=str(SESSIONS)
    )
    await asyncio.gather(*(world.create(name) for name in names))
    await world.until_phase(*names)
    await until_used(world)
    while await writes_in_two_rounds(world):
        pass
    quiet = len(world.proxy.writes)
    await asyncio.sleep(SECONDS)
    await writes_in_two_rounds(world)
    assert world.proxy.writes[quiet:] == []
    heard = {name: len(world.program(name).requests) for name in names}
    before = len(world.proxy.writes)
    await world.restart_operator()
    await world.proxy.until(
        lambda: all(len(world.program(name).requests) > heard[name] for name in names)
    )
    await writes_in_two_rounds(world)
    assert world.proxy.writes[before:] == []


async def writes_in_two_rounds(world: World) -> list[Call]:
    """Return what is written while all watches are cut off and opened again twice."""
    before = len(world.proxy.writes)
    for _ in range(2):
        seen = len(world.proxy.calls)
        world.proxy.cut()
        await world.proxy.until(partial(watched, world, seen))
    return world.proxy.writes[before:]


async def until_used(world: World) -> None:
    """Wait until the class's status has the number of its sessions: it is written some later."""
    listed = await world.api.list(CLASS_PLURAL)
    uses = {item["metadata"]["name"]: used_by(item) for item in listed["items"]}
    if uses[world.class_name] == [SESSIONS]:
        return
    async with asyncio.timeout(120):
        async for event in world.api.watch(CLASS_PLURAL, listed["metadata"]["resourceVersion"]):
            session_class = event["object"]
            is_own = session_class["metadata"].get("name") == world.class_name
            if is_own and used_by(session_class) == [SESSIONS]:
                return


def used_by(session_class: Manifest) -> list[int]:
    """Return how many sessions of a class each operator has written to its status."""
    return [use["sessions"] for use in session_class.get("status", {}).get("usedBy", [])]


def watched(world: World, since: int) -> bool:
    """Return whether all watches have been opened since the call of this number."""
    return {call.resource for call in world.proxy.calls[since:] if call.watch} >= KINDS


async def test_many_sessions_start_in_order(world: World) -> None:
    """After a power cut: a few pods at a time, valid logins before new sessions."""
    valid = [f"valid-{number:02}" for number in range(40)]
    new = [f"new-{number:02}" for number in range(20)]
    limit = 5
    await world.start_operator(max_concurrent_starts_per_node="40")
    await asyncio.gather(*(world.create(name) for name in valid))
    await world.until_phase(*valid)
    await world.kill_operator()
    pods = {name: world.pod(name)["metadata"]["uid"] for name in valid}
    for name in valid:
        await world.take_away("pods", name)
    await asyncio.gather(*(world.create(name) for name in new))
    await world.until(
        lambda: not world.history.objects("pods", world.namespace), "the pods to be gone"
    )
    start = world.changes[-1].version
    await world.start_operator(max_concurrent_starts_per_node=str(limit))
    await world.until_phase(*valid, *new)
    assert all(world.pod(name)["metadata"]["uid"] != pods[name] for name in valid)
    changes = [change for change in world.changes if change.version > start]
    order = [
        change.key[2].removeprefix("wasession-")
        for change in changes
        if (change.plural, change.type) == ("pods", "ADDED")
    ]
    assert sorted(order) == [*new, *valid]
    # Of those that have a turn at a time, a later one may be the sooner to use it.
    assert set(order[: len(valid) - limit + 1]) <= set(valid)
    assert most_at_once(changes) <= limit


async def test_sessions_of_a_busy_node_hold_up_none_of_another(world: World) -> None:
    """Their volumes are on the nodes, so that they cannot start elsewhere."""
    await world.add_node()
    busy, free = world.nodes
    names = {
        node.name: [f"{kind}-{number}" for number in range(6)]
        for node, kind in ((busy, "busy"), (free, "free"))
    }
    every = [name for of_node in names.values() for name in of_node]
    await world.start_operator()
    await asyncio.gather(*(world.create(name) for name in every))
    await world.until_phase(*every)
    await world.kill_operator()
    pods = {}
    for node, of_node in names.items():
        for name in of_node:
            annotations = {SELECTED_NODE: node}
            await world.api.patch(
                *world.key(PVCS, name), {"metadata": {"annotations": annotations}}
            )
            pods[name] = await world.take_away("pods", name)
    await world.until(
        lambda: not world.history.objects("pods", world.namespace), "the pods to be gone"
    )
    start = world.changes[-1].version
    busy.starts = False
    await world.start_operator(max_concurrent_starts_per_node="2")
    await asyncio.gather(*(world.until_replaced(name, pods[name]) for name in names[free.name]))
    waiting = [name for name in names[busy.name] if world.object("pods", name) is None]
    assert len(waiting) == 4
    for name in waiting:
        condition = await world.until_reason(name, "Ready", "StartQueued")
        assert f"node {busy.name} has no start budget left" in condition["message"]
    # The last one's turn ends a moment after it is Ready.
    async with asyncio.timeout(30):
        while await starts(world) != {"starting": "2.0", "waiting": "4.0"}:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    busy.starts = True
    world.kubelet.look_again(world.namespace)
    await asyncio.gather(*(world.until_replaced(name, pods[name]) for name in every))
    changes = [change for change in world.changes if change.version > start]
    for of_node in names.values():
        its = [c for c in changes if c.key[2].removeprefix("wasession-") in of_node]
        assert most_at_once(its) <= 2


async def starts(world: World) -> dict[str, str]:
    """Return how many sessions are starting, and how many wait for a turn."""
    _, metrics = await world.get("/metrics")
    return dict(re.findall(r'^wasession_starts{state="(\w+)"} (\S+)', metrics, re.MULTILINE))


async def test_a_node_that_joins_lets_waiting_sessions_start(world: World) -> None:
    [node] = world.nodes
    node.starts = False
    await world.start_operator(max_concurrent_starts_per_node="1")
    await world.create("first")
    await world.until(lambda: world.object("pods", "first"), "a pod of first")
    await world.create("second")
    condition = await world.until_reason("second", "Ready", "StartQueued")
    assert "the cluster has no start budget left" in condition["message"]
    assert world.object("pods", "second") is None
    await world.add_node()
    await world.until(lambda: world.object("pods", "second"), "a pod of second")
    node.starts = True
    world.kubelet.look_again(world.namespace)
    await world.until_phase("first", "second")


def most_at_once(changes: list[Change]) -> int:
    """Return the highest number of pods that existed while their session was not Ready."""
    starting: set[str] = set()
    most = 0
    for change in changes:
        name = change.key[2].removeprefix("wasession-")
        if made(change):
            starting.add(name)
        elif (
            change.plural == "whatsappsessions"
            and change.object.get("status", {}).get("phase") == "Ready"
        ):
            starting.discard(name)
        most = max(most, len(starting))
    return most


def made(change: Change) -> bool:
    """Return whether a pod was created."""
    return (change.plural, change.type) == ("pods", "ADDED")
