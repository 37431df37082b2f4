"""Single API requests fail: the session gets there, and nothing is created twice."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from support.fakes import proxy
from support.fakes.world import PVCS, Environment, World

WRITES = [
    ("PATCH", "secrets"),
    ("POST", PVCS),
    ("POST", "pods"),
    ("PATCH", "whatsappsessions"),
    ("PATCH", "whatsappsessions/status"),
    ("DELETE", "pods"),
]
FAULTS = {
    "409": proxy.answers(409),
    "429 with Retry-After": proxy.answers(429, retry_after=1),
    "500": proxy.answers(500),
    "503": proxy.answers(503),
    "lost before it is done": proxy.drop_before,
    "lost after it is done": proxy.drop_after,
    "slow": proxy.slow(1.0),
    "no answer": proxy.hang,
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_call_that_goes_wrong(environment: Environment, name: str) -> None:
    """Each kind of write fails in a world of its own; an unanswered one times out after 30 s."""
    async with asyncio.TaskGroup() as group:
        for verb, resource in WRITES:
            group.create_task(gets_there(environment, FAULTS[name], verb, resource))


async def gets_there(
    environment: Environment, action: proxy.Action, verb: str, resource: str
) -> None:
    world = World(environment)
    await world.open()
    fault = world.proxy.fail(action, verb, resource)
    await world.start_operator()
    await world.create("sales")
    await world.until_phase("sales")
    world.script.scans = False
    pod = world.pod("sales")
    await world.annotate("sales", restart="1")
    await world.until_replaced("sales", pod)
    assert fault.done == 1, f"{verb} {resource} was never called"
    assert world.status("sales")["restored"] is True
    assert [world.created(plural) for plural in ("pods", PVCS, "secrets")] == [2, 1, 1]
    assert await world.close() == []


async def test_an_api_server_that_refuses_half_of_all(world: World) -> None:
    """Every other request fails somehow; all ten sessions get there."""
    names = [f"session-{number}" for number in range(10)]
    kinds = [
        proxy.answers(500),
        proxy.answers(429, retry_after=1),
        proxy.drop_after,
        proxy.drop_before,
    ]
    turn = 0

    async def sometimes(request: web.Request, forward: proxy.Forward) -> web.StreamResponse:
        nonlocal turn
        turn += 1
        if turn % 2:
            return await forward()
        return await kinds[turn // 2 % len(kinds)](request, forward)

    world.proxy.faults.append(proxy.Fault(sometimes, lambda call: call.write, times=60))
    await world.start_operator()
    for name in names:
        await world.create(name)
    await world.until_phase(*names)
    assert world.created("pods") == len(names)


REFUSALS = {"forbidden": proxy.answers(403), "a webhook that is down": proxy.answers(500)}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_deletion_that_is_refused_for_long(world: World, name: str) -> None:
    """It is retried after 2 s, 4 s, 8 s …, and the status says so; then the session goes on."""
    await world.start_operator()
    await world.create("sales")
    await world.until_phase("sales")
    world.script.scans = False
    pod = world.pod("sales")
    fault = world.proxy.fail(REFUSALS[name], "DELETE", "pods", times=10**6)
    began = asyncio.get_running_loop().time()
    await world.annotate("sales", restart="1")
    condition = await world.until_reason("sales", "Degraded", "PodDeleteFailed")
    assert "injected by the proxy" in condition["message"]
    await world.proxy.until(lambda: fault.done >= 3)
    assert asyncio.get_running_loop().time() - began > 4, "three attempts take 2 + 4 s, less jitter"
    assert fault.done == 3
    fault.times = 0
    await world.until_replaced("sales", pod)
    await world.until_reason("sales", "Degraded", "AsExpected")
