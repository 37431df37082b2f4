"""Watches fail in every way, for seconds or for a quarter of an hour; nothing is missed for good.

``make watch-faults`` breaks each watch alone, in all ways, everywhere and in one namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from aiohttp import web
from support.fakes import proxy
from support.fakes.api import Manifest
from support.fakes.world import PVCS, Environment, World
from wasession_api.v1alpha1 import API_VERSION, CLASS_PLURAL, PLURAL
from wasession_operator.session_watch import STABLE_AFTER

ALL = os.environ.get("WATCH_FAULTS") == "all"
NAMESPACED = (PLURAL, "pods", PVCS, "networkpolicies")
CLUSTER_WIDE = ("nodes", CLASS_PLURAL, "leases")
SHORT, LONG = 10, 900  # seconds
STEP = 12  # seconds by which clocks move: no timeout is less than two steps
SOON = 120  # seconds: at most 90 until a silent watch is noticed, or 60 between two attempts
SETTINGS = {"log_format": "json", "lease_duration": "3600s"}  # a lease outlasts each step


class Fault(NamedTuple):
    action: proxy.Action
    lists: bool = False  # whether lists fail too
    mute: bool = False  # whether open watches stay open


FAULTS = {
    "500": Fault(proxy.answers(500), lists=True),
    "502 of a load balancer": Fault(proxy.bad_gateway, lists=True),
    "403": Fault(proxy.answers(403), lists=True),
    "410": Fault(proxy.answers(410)),
    "410 in the stream": Fault(proxy.expired),
    "500 in the stream": Fault(proxy.fails_in_stream(500, "InternalError")),
    "silence": Fault(proxy.silence, mute=True),
    "truncated": Fault(proxy.truncate),
    "cut": Fault(proxy.cut_mid_line(0)),
    "ended at once": Fault(proxy.delivers()),
    "no events": Fault(proxy.delivers(None, {}, {"type": "ADDED", "object": {}})),
}


class Case(NamedTuple):
    fault: str
    resources: tuple[str, ...]
    everywhere: bool  # or in one of two namespaces
    seconds: int

    def __str__(self) -> str:
        where = "everywhere" if self.everywhere else "in one namespace"
        return f"{self.fault}: {', '.join(self.resources)} {where} for {self.seconds} s"


def cases(fault: str) -> Iterator[Case]:
    """Yield the cases of a fault: any two of their properties meet in one of them at least."""
    if ALL:
        for resource, everywhere, seconds in itertools.product(
            NAMESPACED, (True, False), (SHORT, LONG)
        ):
            yield Case(fault, (resource,), everywhere, seconds)
        for resource, seconds in itertools.product(CLUSTER_WIDE, (SHORT, LONG)):
            yield Case(fault, (resource,), True, seconds)
        return
    turn = list(FAULTS).index(fault)
    for index, resources in enumerate(((PLURAL,), ("pods", "networkpolicies"), (PVCS,))):
        everywhere = (turn + index) % 2 == 0
        seconds = LONG if (turn // 2 + index) % 2 == 0 else SHORT
        more = CLUSTER_WIDE if everywhere else ()
        yield Case(fault, (*resources, *more), everywhere, seconds)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_watch_that_fails(environment: Environment, fault: str) -> None:
    at_once = asyncio.Semaphore(3)

    async def run_one(case: Case) -> None:
        async with at_once:
            try:
                await run(environment, case)
            except BaseException as error:
                error.add_note(f"in case {case}")
                raise

    async with asyncio.TaskGroup() as group:
        for case in cases(fault):
            group.create_task(run_one(case))


async def test_an_api_server_that_does_not_know_the_kind_yet(world: World) -> None:
    """kopf asks once, and would wait for ever; others have their own ways."""
    asked = 0

    async def unknown(request: web.Request, forward: proxy.Forward) -> web.StreamResponse:
        nonlocal asked
        if request.path != f"/apis/{API_VERSION}":
            return await forward()
        asked += 1
        return await proxy.answers(404)(request, forward)

    fault = world.proxy.fail(unknown, "GET", "", times=10**9)
    operator = await world.start_operator(**SETTINGS)
    await world.create("sales")
    await world.proxy.until(lambda: asked and not world.proxy.requests)
    fault.end()
    operator.advance(STABLE_AFTER)
    await world.until_phase("sales")


async def run(environment: Environment, case: Case) -> None:
    operated, other = World(environment), World(environment)
    worlds = (operated, other)
    for world in worlds:
        await world.open()
    operated.settings |= SETTINGS | {"namespaces": f"{operated.namespace},{other.namespace}"}
    await operated.start_operator()
    begun = [await Sessions.begin(world) for world in worlds]
    action, lists, mute = FAULTS[case.fault]
    namespaced = [resource for resource in case.resources if resource in NAMESPACED]
    affected = None if case.everywhere else other.namespace
    breaks = [operated.proxy.break_watches(action, namespaced, affected, lists=lists, mute=mute)]
    breaks.append(
        operated.proxy.break_watches(
            action, set(case.resources) & set(CLUSTER_WIDE), lists=lists, mute=mute
        )
    )
    before = len(operated.proxy.calls)
    await asyncio.gather(*(sessions.change() for sessions in begun))
    await pass_time(operated, other, case.seconds)
    if not case.everywhere and case.seconds == LONG:
        await begun[0].until_reconciled()
    for fault in breaks:
        fault.end()
    await pass_time(operated, other, SOON)
    for sessions in begun:
        await sessions.until_reconciled()
    if not (mute and case.seconds == SHORT):  # nobody has noticed
        assert sum(fault.done for fault in breaks) > 0
    assert floods(operated) == {}
    if case.seconds == LONG and case.fault not in ("truncated", "cut"):  # they need an event
        assert reported(operated) >= {PLURAL} & set(case.resources), log_of(operated)
    for sessions in begun:
        needless = [
            call for call in operated.proxy.calls[before:] if sessions.is_needless(call, case)
        ]
        assert not needless, "\n".join(f"{call}: {call.body}" for call in needless)
    assert await operated.close() == []
    assert await other.close() == []


async def pass_time(operated: World, other: World, seconds: int) -> None:
    """Move the clocks of the operator forward, and let it do at each step what is due then.

    The clocks of the session pods stay, so their heartbeats do not come by themselves.
    """
    assert operated.operator is not None
    for _ in range(0, seconds, STEP):
        operated.operator.advance(STEP)
        for world in (operated, other):
            for pod in world.history.objects("pods", world.namespace):
                with contextlib.suppress(KeyError):  # it runs no program
                    world.kubelet.program(pod).beat()
        seen = -1
        while seen != (seen := len(operated.proxy.calls)):  # until nothing follows any more
            for _ in range(2):
                status, body = await operated.get("/livez")
                assert status == 200, body
            await operated.proxy.until(lambda: not operated.proxy.requests)


class Sessions:
    """The sessions of a namespace, each of which something happens to."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.before: dict[str, Manifest] = {}

    @classmethod
    async def begin(cls, world: World) -> Sessions:
        sessions, names = cls(world), ("calm", "changed", "podless", "gone", "again")
        await asyncio.gather(*(world.create(name) for name in names))
        await world.until_phase(*names)
        await world.until_noted(*names)
        sessions.before = {name: world.pod(name) for name in names}
        return sessions

    async def change(self) -> None:
        world = self.world
        await world.take_away("pods", "podless")
        await world.annotate("changed", restart="1")
        await world.delete("gone")
        await world.create("new")
        await self._create_again()

    async def _create_again(self) -> None:
        """Delete a session and create another one of this name, as fast as its finalizer allows."""
        world = self.world
        await world.delete("again")
        if world.session("again") is not None:
            await world.api.patch(
                PLURAL, world.namespace, "again", {"metadata": {"finalizers": None}}
            )
        world.deleted.add(world.key("secrets", "again"))  # and the operator does not know it yet
        await world.until_gone("again")
        await world.create("again")

    async def until_reconciled(self) -> None:
        world = self.world
        await world.until_phase("new")
        for name in ("podless", "changed", "again"):
            await world.until_replaced(name, self.before[name])
        await world.until_gone("gone")
        await world.until_none("pods", "gone")

    def is_needless(self, call: proxy.Call, case: Case) -> bool:
        """Return whether a call writes to the session that nothing happens to.

        Its status may say that its NetworkPolicy cannot be watched.
        """
        if call.namespace != self.world.namespace or not call.write:
            return False
        if call.resource == f"{PLURAL}/status" and "networkpolicies" in case.resources:
            return False
        return call.name in ("calm", self.world.key("pods", "calm")[2])


def log_of(world: World) -> list[Manifest]:
    assert world.operator is not None
    lines = world.operator.log.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def floods(world: World) -> dict[object, int]:
    """Return what the log says too often of a watch: more than a dozen times."""
    lines = Counter(
        (line["logger"], line["message"], line.get("resource"), line.get("namespace"))
        for line in log_of(world)
        if line["level"] not in ("debug", "info") and "controller" not in line["logger"]
    )
    return {what: number for what, number in lines.items() if number > 12}


def reported(world: World) -> set[str]:
    """Return the resources of whose watches the log says that they fail."""
    lines = [line for line in log_of(world) if line["level"] == "warning"]
    return {line.get("resource", PLURAL) for line in lines if "watch" in line["message"]}
