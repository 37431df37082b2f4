"""Leaders that end without a word: how long until the next one acts, and what both write."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Sequence

import psutil
from wasession_api.names import object_name, token_secret_name
from wasession_api.v1alpha1 import PLURAL
from wasession_operator.sharding.lease import shard_of

from bench.operator.audit import Write, by_kind, late
from bench.operator.measures import (
    at_rate,
    is_write,
    replica_names,
    say,
    session,
    session_names,
)
from bench.operator.results import FROZEN, KILLED, TERMINATED, Failover
from bench.operator.rig import CONTROLLER, NAMESPACE, USER, Rig
from bench.operator.statefulsets import create_secret, pod_name, stateful_set

SIGNALS = {KILLED: signal.SIGKILL, FROZEN: signal.SIGSTOP, TERMINATED: signal.SIGTERM}
RATE = 20.0  # sessions a second
LEASE = 10.0  # seconds; more than one renewal of any contender
LEADER_ENDS = 60.0  # seconds until one that has lost its lease notices
STANDS_BY = "ttempting to acquire leader lease"  # in the log of client-go


async def measure_operator(rig: Rig, sessions: int, times: int, replicas: int) -> Failover:
    """Let each kind of end happen to a replica that holds a shard, at random moments."""
    names, chance = session_names(sessions), random.Random(1)  # noqa: S311
    await rig.start_replicas(replica_names(replicas))
    await at_rate(RATE, names, lambda name: rig.api.create(PLURAL, session(name)))
    await rig.until_ready(sessions)
    await rig.until_shared(sessions)
    history = await rig.settled()
    began = time.time()
    seconds: dict[str, list[float]] = {kind: [] for kind in SIGNALS}
    deleted = set()
    for kind in SIGNALS:
        for _ in range(times):
            holders = await rig.holders()
            leader = chance.choice(sorted(set(holders.values())))
            held = [n for n in names if holders[shard_of((NAMESPACE, n), rig.shards)] == leader]
            name = chance.choice(held)
            deleted.add(name)
            await asyncio.sleep(chance.uniform(0, LEASE))
            end = (rig.replicas[leader].process, kind, object_name(name))
            seconds[kind].append(await recreated(rig, *end, USER, history))
            if kind == FROZEN:
                rig.replicas[leader].process.resume()
            else:
                await rig.until_ended(leader)
                await rig.start_replicas([leader])
            await rig.until_shared(sessions)
            history += await rig.settled()
            say(f"{leader} {kind}: {seconds[kind][-1]:.1f} s")
    await rig.end_replicas(rig.replicas)
    session_of = sessions_by_object(names)
    ours = [write for write in history if write.user == USER]
    others = [
        write
        for write in ours
        if write.received > began and session_of.get(write.name) not in deleted
    ]
    fenced = [write for write in ours if write.resource == "leases" or write.name in session_of]
    too_late = late(fenced, lambda write: shard_of((NAMESPACE, session_of[write.name]), rig.shards))
    return Failover(
        sessions=sessions,
        seconds=seconds,
        late_writes=by_kind(too_late),
        other_writes=by_kind(others),
    )


async def measure_controller_manager(rig: Rig, sessions: int, times: int) -> Failover:
    """Do the same to kube-controller-manager, with client-go's default leader election."""
    names, chance = session_names(sessions), random.Random(1)  # noqa: S311
    leader, standby = "manager-0", "manager-1"
    processes = {leader: rig.start_controller_manager(leader)}
    await create_secret(rig)
    await at_rate(RATE, names, lambda n: rig.api.create("statefulsets", stateful_set(n, 1)))
    await rig.until_running(sessions)
    processes[standby] = rig.start_controller_manager(standby)
    await until_stands_by(rig, standby, 1)
    starts = {leader: 1, standby: 1}
    history = await rig.settled()
    seconds: dict[str, list[float]] = {kind: [] for kind in SIGNALS}
    for kind in SIGNALS:
        for _ in range(times):
            await asyncio.sleep(chance.uniform(0, LEASE))
            end = (processes[leader], kind, pod_name(chance.choice(names)))
            seconds[kind].append(await recreated(rig, *end, CONTROLLER, history))
            if kind == FROZEN:
                processes[leader].resume()  # it notices that it leads no more, and ends
            await asyncio.to_thread(processes[leader].wait, LEADER_ENDS)
            processes[leader] = rig.start_controller_manager(leader)
            starts[leader] += 1
            await until_stands_by(rig, leader, starts[leader])
            await rig.until_running(sessions)
            say(f"{leader} {kind}: {seconds[kind][-1]:.1f} s")
            leader, standby = standby, leader
    return Failover(sessions=sessions, seconds=seconds)


async def recreated(
    rig: Rig, leader: psutil.Process, kind: str, pod: str, user: str, history: list[Write]
) -> float:
    """End a leader and delete a pod; return the seconds until there is the next one.

    Appends all writes until then to ``history``.
    """
    began = time.time()
    leader.send_signal(SIGNALS[kind])
    await rig.api.delete("pods", NAMESPACE, pod)
    created: list[float] = []

    async def is_created() -> bool:
        new = rig.audit.new()
        history.extend(new)
        created.extend(
            write.done - began
            for write in new
            if is_write(write, user, "create", "pods")
            and write.name == pod
            and write.received > began
        )
        return bool(created)

    await rig.until(f"the next pod {pod}", is_created)
    return created[0]


async def until_stands_by(rig: Rig, name: str, starts: int) -> None:
    """Return when a kube-controller-manager that was started so often waits for the lease."""
    log = rig.directory / f"{name}.log"

    async def waits() -> bool:
        return log.read_text().count(STANDS_BY) >= starts

    await rig.until(f"{name} to stand by", waits)


def sessions_by_object(names: Sequence[str]) -> dict[str, str]:
    """Return the session of each object that the operator writes, by its name."""
    return {made(name): name for name in names for made in (str, object_name, token_secret_name)}
