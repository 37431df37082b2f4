"""Several replicas of the operator: one acts on a session at a time, whatever happens to them.

The monitor of ``history.py`` looks for writes of a replica that does not hold the session's shard.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from integration.operator.test_idle import writes_in_two_rounds
from support.background import in_background
from support.fakes.api import ApiError, Manifest
from support.fakes.proxy import Forward
from support.fakes.world import PVCS, Replica, World

# ``make lease-drills`` has two hundred.
DRILLS = int(os.environ.get("LEASE_DRILLS", "10"))
SEED = int(os.environ.get("LEASE_DRILLS_SEED", time.time_ns()))
LEASE_DURATION = "2s"
FOREVER = "600s"  # a Lease that does not expire in a test
NAMES = tuple(f"session-{number}" for number in range(6))


@pytest.fixture
async def world(world: World) -> World:
    world.settings["lease_duration"] = LEASE_DURATION
    return world


# --- who holds what -------------------------------------------------------------------------------


def holders(world: World, shards: int = 1) -> list[str | None]:
    """Return the holder of each shard."""

    def holder(index: int) -> str | None:
        name = f"wasession-operator-shard-{index}-of-{shards}"
        lease = world.history.current.get(("leases", world.namespace, name))
        return (lease or {}).get("spec", {}).get("holderIdentity") or None

    return [holder(index) for index in range(shards)]


async def until_holders(world: World, *expected: Replica, shards: int = 1) -> None:
    """Wait until these replicas hold all shards, none of them two more than another."""

    def shared() -> bool:
        shares = Counter(holders(world, shards))
        fair = max(shares.values()) - min(shares.values()) < 2
        return fair and shares.keys() == {replica.name for replica in expected}

    names = ", ".join(replica.name for replica in expected)
    await world.until(shared, f"{shards} shards to be held by {names}")


async def start_pair(world: World, **settings: str) -> tuple[Replica, Replica]:
    """Start two replicas; return the one that has the only shard, and the one that waits."""
    world.settings |= settings
    await world.start_operator()
    [first] = world.replicas
    await until_holders(world, first)
    return first, await world.add_replica()


async def state_of(replica: Replica) -> Manifest:
    """Return what a replica says of itself."""
    _, body = await replica.get("/readyz")
    state: Manifest = json.loads(body)
    return state


async def until_aware(world: World, replica: Replica, shards: int = 1) -> None:
    """Wait until a replica says of itself what the Leases say, and is ready for more."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(aiohttp.ClientConnectionError):  # it has only just started
                status, body = await replica.get("/readyz")
                held = [n for n, name in enumerate(holders(world, shards)) if name == replica.name]
                if (status, json.loads(body).get("shards")) == (200, held):
                    return
            await asyncio.sleep(0.05)  # no event tells


async def acts(world: World, name: str = "sales") -> None:
    """Wait until somebody replaces a deleted pod."""
    pod = world.pod(name)
    await world.take_away("pods", name)
    await world.until_replaced(name, pod)


# --- what people do meanwhile ---------------------------------------------------------------------


class Activity:
    """People create, suspend, resume, restart and delete sessions, and delete their pods."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self._world = world
        self._chance = chance
        self._count = 0

    @contextlib.asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Go on until the end of the block; then wait until all sessions are as they should be."""
        async with in_background(self._run()):
            yield
        await self._world.until(lambda: all(map(self._is_settled, NAMES)), "all to settle")

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(ApiError):  # it is being deleted, or not there yet
                await self._do_something(self._chance.choice(NAMES))
            await asyncio.sleep(self._chance.uniform(0, 0.2))

    async def _do_something(self, name: str) -> None:
        self._count += 1
        if self._world.session(name) is None:
            await self._world.create(name)
            return
        what = self._chance.choice(["suspend", "resume", "resume", "restart", "delete", "pod"])
        if what in ("suspend", "resume"):
            await self._world.change(name, suspend=what == "suspend")
        elif what == "restart":
            await self._world.annotate(name, restart=str(self._count))
        elif what == "delete":
            await self._world.delete(name)
        elif self._world.object("pods", name) is not None:
            await self._world.take_away("pods", name)

    def _is_settled(self, name: str) -> bool:
        session = self._world.session(name)
        if session is None:
            return self._world.object("pods", name) is None
        metadata, status = session["metadata"], session.get("status", {})
        if status.get("observedGeneration") != metadata["generation"]:
            return False
        pod = self._world.object("pods", name)
        if session["spec"].get("suspend"):
            return pod is None and status.get("phase") == "Suspended"
        if pod is None or "deletionTimestamp" in {**metadata, **pod["metadata"]}:
            return False
        return (status.get("phase"), status.get("podUID")) == ("Ready", pod["metadata"]["uid"])


@pytest.fixture
def chance() -> random.Random:
    print(f"LEASE_DRILLS_SEED={SEED}")  # shown with a failure
    return random.Random(SEED)  # noqa: S311


@pytest.fixture
def activity(world: World, chance: random.Random) -> Activity:
    return Activity(world, chance)


async def until_written(replica: Replica, since: int) -> None:
    """Wait until a replica has written to a session since its write of this number."""
    await replica.proxy.until(lambda: any(c.status == 200 for c in replica.proxy.writes[since:]))


# --- a holder that ends, or stands still ----------------------------------------------------------


async def test_a_killed_holder_is_replaced(world: World) -> None:
    first, second = await start_pair(world)
    await world.create("sales")
    await world.until_phase("sales")
    await first.kill()
    await acts(world)
    assert holders(world) == [second.name]


@pytest.mark.timeout(60 + 30 * DRILLS)
async def test_a_frozen_holder_that_goes_on_writes_nothing(
    world: World, activity: Activity, chance: random.Random
) -> None:
    """SIGSTOP at a random moment; when another replica has taken over and has acted, SIGCONT."""
    replicas = await start_pair(world)
    async with activity.going_on():
        for _ in range(DRILLS):
            await asyncio.sleep(chance.uniform(0, 1))
            [holder] = holders(world)
            frozen, other = sorted(replicas, key=lambda replica: replica.name != holder)
            frozen.process.pause()
            written = len(other.proxy.writes)
            await until_holders(world, other)
            await until_written(other, written)
            frozen.process.resume()
            await until_aware(world, frozen)
            assert frozen.process.running


async def test_a_holder_that_is_terminated_hands_over_at_once(
    world: World, activity: Activity
) -> None:
    """The Lease would last ten minutes."""
    first, second = await start_pair(world, lease_duration=FOREVER)
    async with activity.going_on():
        await until_written(first, 0)
        await first.stop()
        await until_holders(world, second)
        await until_written(second, 0)
        third = await world.add_replica()
        await second.stop()
        await until_holders(world, third)


async def test_a_restarted_holder_takes_its_own_lease_over_at_once(world: World) -> None:
    """As a container in a pod: nobody else has the name."""
    await start_pair(world, lease_duration=FOREVER)
    await world.create("sales")
    await world.until_phase("sales")
    await world.kill_operator()
    await world.start_operator()
    await acts(world)


# --- the network, the clocks ----------------------------------------------------------------------


@pytest.mark.parametrize("refuse", [False, True], ids=["hanging", "refused"])
async def test_a_holder_without_the_api_server_is_replaced(
    world: World, activity: Activity, refuse: bool
) -> None:
    """Twice, as the first one comes back and waits; the second one does not come back."""
    first, second = await start_pair(world)
    async with activity.going_on():
        await until_written(first, 0)
        first.proxy.partition(refuse=refuse)
        await until_holders(world, second)
        await until_written(second, 0)
        first.proxy.heal()
        await until_aware(world, first)
        sent = len(first.proxy.writes)
        second.proxy.partition(refuse=refuse)
        await until_holders(world, first)
        await until_written(first, sent)


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("POST", PVCS),
        ("POST", "pods"),
        ("PATCH", "whatsappsessions"),
        ("PATCH", "whatsappsessions/status"),
        ("DELETE", "pods"),
    ],
)
async def test_a_write_that_the_network_delivers_too_late_is_rejected(
    world: World, verb: str, resource: str
) -> None:
    """It names the version that the holder has seen; another replica has changed it since."""
    first, second = await start_pair(world, lease_duration="5s")

    async def disconnect(request: web.Request, forward: Forward) -> web.StreamResponse:
        first.proxy.partition()
        return await forward()

    first.proxy.fail(disconnect, verb, resource)
    await world.create("sales")
    if verb == "DELETE":
        await world.until_phase("sales")
        pod = world.pod("sales")
        await world.annotate("sales", restart="1")
        await world.until_replaced("sales", pod)
    await until_holders(world, second)
    await world.until_phase("sales")
    writes = [call for call in first.proxy.writes if call.status == 0]
    [late] = [call for call in writes if (call.verb, call.resource) == (verb, resource)]
    first.proxy.heal()
    await first.proxy.until(lambda: late.status != 0)
    assert late.status in (404, 409, 422)


@pytest.mark.parametrize("seconds", [60, -60])
@pytest.mark.parametrize("skewed", ["holder", "standby"])
async def test_wall_clocks_do_not_matter(world: World, skewed: str, seconds: int) -> None:
    """Neither is the Lease taken over too early, nor is it not taken over at all."""
    first, second = await start_pair(world)
    await world.create("sales")
    await world.until_phase("sales")
    (first if skewed == "holder" else second).process.skew(seconds)
    before = renewals(first)
    await first.proxy.until(lambda: renewals(first) > before + 15)  # five times in its duration
    await acts(world)
    assert changes_of_holders(world) == [first.name]
    await first.kill()
    await acts(world)
    assert changes_of_holders(world) == [first.name, second.name]


def renewals(replica: Replica) -> int:
    """Return how often a replica has renewed the Lease of the shard."""
    calls = replica.proxy.calls
    return sum(c.verb == "PATCH" and "-shard-" in (c.name or "") for c in calls if c.status == 200)


def changes_of_holders(world: World) -> list[str]:
    """Return who has acquired the shard, in order."""
    leases = [c for c in world.changes if c.plural == "leases" and "-shard-" in c.key[2]]
    return [c.object["spec"]["holderIdentity"] for c in leases if c.type != "DELETED"]


# --- what people do to Leases ---------------------------------------------------------------------

LEASE = "wasession-operator-shard-0-of-1"


async def delete_lease(world: World) -> None:
    await world.api.delete("leases", world.namespace, LEASE)


def edit_lease(**patch: Any) -> Callable[[World], Awaitable[None]]:
    async def edit(world: World) -> None:
        await world.api.patch("leases", world.namespace, LEASE, patch)

    return edit


MISTAKES = {
    "deleted": delete_lease,
    "of somebody else": edit_lease(spec={"holderIdentity": "somebody"}),
    "of the other replica": edit_lease(spec={"holderIdentity": "operator-1"}),
    "of nobody": edit_lease(spec={"holderIdentity": None}),
    "empty": edit_lease(spec=None),
    "for an hour": edit_lease(spec={"leaseDurationSeconds": 3600}),
    "without labels": edit_lease(metadata={"labels": None}),
    "without annotations": edit_lease(metadata={"annotations": None}),
    "of another operator": edit_lease(
        metadata={"annotations": {"wasession.dev/operator": "another/operator"}}
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_lease_that_a_person_breaks_is_mended(
    world: World, activity: Activity, chance: random.Random, mistake: str
) -> None:
    """Its holder keeps it, or somebody takes it; both of them never act.

    The holder may learn late of what has happened, as its process stands still for a moment. The
    other one is first in the order, and would take over what is free.
    """
    first, second = await start_pair(world)
    await first.stop()
    await until_holders(world, second)
    first.start()
    await until_aware(world, first)  # one that has never seen the Lease believes what it says
    replicas = {replica.name: replica for replica in (first, second)}
    async with activity.going_on():
        for _ in range(3):
            holder = await world.until(lambda: replicas.get(holders(world)[0] or ""), "a holder")
            await asyncio.sleep(chance.uniform(0, 0.5))
            if stands_still := chance.random() < 0.5:
                holder.process.pause()
            with contextlib.suppress(ApiError):  # it is not there at the moment
                await MISTAKES[mistake](world)
            if stands_still:
                await asyncio.sleep(chance.uniform(0, 0.5))
                holder.process.resume()
            await until_somebody_acts(world)


async def until_somebody_acts(world: World) -> None:
    """Wait until a replica has written to a session."""
    before = successful_writes(world)
    await world.until(lambda: successful_writes(world) > before, "a write to a session")


def successful_writes(world: World) -> int:
    return sum(call.write and bool(call.version) for call in world.calls)


# --- shards ---------------------------------------------------------------------------------------


async def test_shards_are_shared_out_and_their_sessions_left_alone(world: World) -> None:
    """Replicas join, leave and die. Nothing is written to the sessions."""
    names = [f"session-{number}" for number in range(12)]
    world.settings["shards"] = "4"
    await world.start_operator()
    [first] = world.replicas
    await asyncio.gather(*(world.create(name) for name in names))
    await world.until_phase(*names)
    while await writes_in_two_rounds(world):
        pass
    version = world.changes[-1].version
    second = await world.add_replica()
    await until_holders(world, first, second, shards=4)
    third = await world.add_replica()
    await until_holders(world, first, second, third, shards=4)
    await second.stop()
    await until_holders(world, first, third, shards=4)
    await third.kill()
    await until_holders(world, first, shards=4)
    second.start()
    await until_holders(world, first, second, shards=4)
    await first.stop()
    await until_holders(world, second, shards=4)
    assert [c for c in world.changes if c.version > version and c.plural != "leases"] == []
    for name in names:
        await acts(world, name)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("killed", ["giver", "taker"])
async def test_a_replica_killed_while_a_shard_moves(
    world: World, activity: Activity, killed: str, moment: str
) -> None:
    """Before or after the write by which it gives the shard away, or takes it."""
    world.settings["shards"] = "4"
    await world.start_operator()
    [first] = world.replicas
    await until_holders(world, first, shards=4)
    async with activity.going_on():
        await until_written(first, 0)
        second = await world.prepare_replica()
        victim, survivor = (first, second) if killed == "giver" else (second, first)
        holder = "" if killed == "giver" else second.name

        async def kill(request: web.Request, forward: Forward) -> web.StreamResponse:
            body = await request.json()
            if "-shard-" not in json.dumps(body) + request.path or holder_in(body) != holder:
                fault.times += 1
                return await forward()
            if moment == "after":
                await forward()
            victim.process.kill()
            return web.Response()

        fault = victim.proxy.fail(kill)
        fault.matches = lambda call: call.resource == "leases" and call.verb in ("POST", "PATCH")
        second.start()
        await victim.process.ended()
        await until_holders(world, survivor, shards=4)
        fault.end()
        victim.start()
        await until_holders(world, first, second, shards=4)


def holder_in(lease: Manifest) -> str | None:
    holder: str | None = lease.get("spec", {}).get("holderIdentity")
    return holder


# --- two installations ----------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_of_two_installations_one_acts(world: World, activity: Activity, end: str) -> None:
    await world.start_operator()
    [first] = world.replicas
    await until_holders(world, first)
    async with activity.going_on():
        other_name = f"{world.namespace}/another"
        second = await world.add_replica(operator_name=other_name)
        await until_written(first, 0)
        await until_state(second, "blockedBy", f"{world.namespace}/wasession-operator")
        assert (await second.get("/readyz"))[0] == 200
        assert "wasession_rival_installations 1.0" in (await second.get("/metrics"))[1]
        await until_state(first, "rivals", [other_name])
        for replica in (first, second):
            assert "only one of them acts" in log_of(replica)
        assert "waiting until it releases them" in log_of(second)
        assert second.proxy.writes == []
        await (first.stop() if end == "stop" else first.kill())
        await until_written(second, 0)
    assert (await state_of(second))["shards"] == [0]


async def test_of_two_installations_that_start_at_the_same_moment_one_acts(
    world: World, activity: Activity
) -> None:
    await world.add_replica(operator_name=f"{world.namespace}/another")
    await world.start_operator()
    async with activity.going_on():
        await until_somebody_acts(world)


async def until_state(replica: Replica, name: str, expected: object) -> None:
    async with asyncio.timeout(60):
        while (await state_of(replica)).get(name) != expected:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.05)


def log_of(replica: Replica) -> str:
    return replica.process.log.read_text()


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_the_number_of_shards_changes(world: World, activity: Activity, end: str) -> None:
    """As in a rolling update: new replicas wait until the old ones have released their shards."""
    first, second = await start_pair(world)
    async with activity.going_on():
        third = await world.add_replica(shards="4")
        await until_written(first, 0)
        await until_state(third, "blockedBy", f"{world.namespace}/wasession-operator")
        fourth = await world.add_replica(shards="4")
        await first.stop()
        await (second.stop() if end == "stop" else second.kill())
        await until_holders(world, third, fourth, shards=4)
        await until_written(third, 0)
        await until_written(fourth, 0)
    assert third.process.running
