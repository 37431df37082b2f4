"""The measurements of the operator, one after the other on the same cluster."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
from support.cluster import binaries
from support.fakes.api import Manifest
from wasession_api.names import object_name
from wasession_api.v1alpha1 import API_VERSION, KIND, PLURAL

from bench.operator.audit import Write, by_kind, latencies
from bench.operator.nodes import NODES
from bench.operator.results import (
    Idle,
    Machine,
    Move,
    OperatorRun,
    Program,
    Quantiles,
    Replica,
    Restart,
    Writes,
)
from bench.operator.rig import NAMESPACE, OPERATOR, USER, Rig, cpu_seconds
from bench.operator.standing import Copies

PERSON = "admin"
PREFIX = "wasession-"  # of the name of a session's pod
IDLE = 60.0  # seconds
DELETED = 300  # pods, one by one
DELETIONS = 20.0  # a second
REMOVED = 1000  # sessions


async def measure_operator(
    rig: Rig, sessions: int, rate: float, replicas: int, standing: int = 0
) -> OperatorRun:
    """Measure with ``sessions`` in all, of which some stand already; the others are created."""
    names = session_names(sessions)
    created = names[standing:]
    pods = replica_names(replicas)
    if standing:
        await let_stand(rig, pods[0], names[:standing])
    await rig.start_replicas(pods)
    await rig.until_shared(standing)
    memory_empty = max(peak_memory(r.process) for r in rig.replicas.values())
    writes_of_start = by_kind(w for w in await rig.settled() if w.user == USER)
    say(f"started with {standing} sessions: {memory_empty:.0f} MiB, {writes_of_start}")

    before, cluster = cpu_of_replicas(rig), rig.programs()
    applied = await at_rate(rate, created, lambda name: rig.api.create(PLURAL, session(name)))
    ready = applied + await rig.until_ready(sessions)
    cluster = {name: used(cluster[name], now) for name, now in rig.programs().items()}
    await rig.until_shared(sessions)
    writes = await rig.settled()
    causes = [w for w in writes if is_write(w, PERSON, "create", PLURAL)]
    effects = [unprefixed(w) for w in writes if is_write(w, USER, "create", "pods")]
    applied_to_pod = Quantiles.of(latencies(causes, effects))
    writes_to_ready = per(len(created), writes, USER)
    at_ready = await state_of_replicas(rig, before)
    say(f"{sessions} sessions Ready after {ready:.0f} s: {applied_to_pod} {at_ready}")

    deleted_to_pod = await delete_pods(rig, names[:DELETED], object_name, USER)
    await rig.until_shared(sessions)
    await rig.settled()
    idle = await be_idle(rig)
    say(f"{idle}")
    move = await move_shards(rig, sessions) if replicas > 1 else None
    say(f"{move}")
    restarted = await restart(rig, pods, sessions)
    say(f"{restarted}")

    removed = names[-REMOVED:]
    await at_rate(rate, removed, lambda name: rig.api.delete(PLURAL, NAMESPACE, name))
    await rig.until_running(sessions - len(removed))
    writes_of_removal = per(len(removed), await rig.settled(), USER)
    await rig.end_replicas(rig.replicas)
    return OperatorRun(
        shards=rig.shards,
        memory_empty_mib=memory_empty,
        writes_of_start=writes_of_start,
        applied_seconds=applied,
        ready_seconds=ready,
        applied_to_pod_ms=applied_to_pod,
        deleted_to_pod_ms=deleted_to_pod,
        writes_to_ready=writes_to_ready,
        writes_of_removal=writes_of_removal,
        replicas=at_ready,
        idle=idle,
        restart=restarted,
        move=move,
        cluster=cluster,
    )


async def let_stand(rig: Rig, replica: str, names: Sequence[str]) -> None:
    """Let an operator make a session for each node, and make the others as copies of these."""
    originals = names[:NODES]
    await rig.start_replicas([replica])
    for name in originals:
        await rig.api.create(PLURAL, session(name))
    await rig.until_ready(len(originals))
    copies = Copies(rig)
    await copies.read(originals)
    await rig.end_replicas([replica])
    await copies.put(names[len(originals) :])
    await rig.server.calm()


async def be_idle(rig: Rig) -> Idle:
    before = cpu_of_replicas(rig)
    await asyncio.sleep(IDLE)
    after = cpu_of_replicas(rig)
    writes = [w for w in await rig.settled() if w.user == USER]
    return Idle(
        seconds=IDLE,
        writes=by_kind(writes),
        lease_writes=sum(w.resource == "leases" for w in writes),
        cpu_percent=[(after[name] - before[name]) / IDLE * 100 for name in after],
    )


async def move_shards(rig: Rig, sessions: int) -> Move:
    """End one replica in order and start it again; count what that writes."""
    holders = await rig.holders()
    name = max(rig.replicas, key=lambda name: list(holders.values()).count(name))
    began = time.monotonic()
    await rig.end_replicas([name])
    await rig.until_shared(sessions)
    away = time.monotonic() - began
    began = time.monotonic()
    await rig.start_replicas([name])
    await rig.until_shared(sessions)
    back = time.monotonic() - began
    return Move(
        shards=list(holders.values()).count(name),
        away_seconds=away,
        back_seconds=back,
        writes=by_kind(w for w in await rig.settled() if w.user == USER),
    )


async def restart(rig: Rig, names: Sequence[str], sessions: int) -> Restart:
    """Restart all replicas; measure until they have reconciled every session again."""
    await rig.end_replicas(rig.replicas)

    async def is_alone() -> bool:
        return rig.streams == 0

    await rig.until("the streams to end", is_alone)
    await rig.settled()
    began = time.monotonic()
    await rig.start_replicas(names)
    await rig.until_shared(sessions)
    seconds = time.monotonic() - began
    replicas = await state_of_replicas(rig, dict.fromkeys(names, 0.0))
    writes = by_kind(w for w in await rig.settled() if w.user == USER)
    return Restart(seconds=seconds, writes=writes, replicas=replicas)


# --- parts ----------------------------------------------------------------------------------------


def session_names(sessions: int) -> list[str]:
    return [f"s-{number:05}" for number in range(sessions)]


def replica_names(replicas: int) -> list[str]:
    return [f"{OPERATOR}-{number}" for number in range(replicas)]


async def at_rate(
    rate: float, names: Iterable[str], do: Callable[[str], Awaitable[object]]
) -> float:
    """Start ``do`` for each name at a fixed rate; return the seconds until all are done."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number, name in enumerate(names):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            group.create_task(_done(do(name)))
    return time.monotonic() - began


async def _done(work: Awaitable[object]) -> None:
    await work


async def delete_pods(
    rig: Rig, names: Sequence[str], pod_of: Callable[[str], str], user: str
) -> Quantiles:
    """Delete pods; return the milliseconds until the next pod of each is created."""
    pods = len(rig.ready_pods)
    await rig.settled()
    await at_rate(DELETIONS, names, lambda name: rig.api.delete("pods", NAMESPACE, pod_of(name)))
    writes = await rig.settled()
    await rig.until_running(pods)
    writes += await rig.settled()
    created = [w for w in writes if is_write(w, user, "create", "pods")]
    deleted = [w for w in writes if is_write(w, PERSON, "delete", "pods")]
    # The confirmation of a deletion is another one by the same user.
    first = {w.name: w for w in reversed(deleted)}
    return Quantiles.of(latencies(list(first.values()), created))


def session(name: str) -> Manifest:
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"namespace": NAMESPACE, "name": name},
        "spec": {},
    }


def is_write(write: Write, user: str, verb: str, resource: str) -> bool:
    return (write.user, write.verb, write.resource) == (user, verb, resource)


def unprefixed(write: Write) -> Write:
    return replace(write, name=write.name.removeprefix(PREFIX))


def per(sessions: int, writes: Iterable[Write], user: str) -> Writes:
    """Count a user's writes in the namespace: a class, which has none, is not a session's."""
    kinds = by_kind(w for w in writes if w.user == user and w.namespace == NAMESPACE)
    return Writes(kinds={kind: number / sessions for kind, number in kinds.items()})


def cpu_of_replicas(rig: Rig) -> dict[str, float]:
    return {name: cpu_seconds(replica.process) for name, replica in rig.replicas.items()}


async def state_of_replicas(rig: Rig, cpu_before: dict[str, float]) -> list[Replica]:
    holders = list((await rig.holders()).values())
    return [
        Replica(
            shards=holders.count(name),
            memory_mib=peak_memory(replica.process),
            cpu_seconds=cpu_seconds(replica.process) - cpu_before[name],
        )
        for name, replica in rig.replicas.items()
    ]


def used(before: Program, after: Program) -> Program:
    seconds = after.cpu_seconds - before.cpu_seconds
    return Program(memory_mib=after.memory_mib, cpu_seconds=seconds)


def peak_memory(process: psutil.Process) -> float:
    """Return the most MiB that a process has had resident."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**10
    raise LookupError(f"no VmHWM of process {process.pid}")


def machine() -> Machine:
    """Return facts about the machine; call it before anything starts, to measure other work."""
    return Machine(
        cores=os.cpu_count() or 0,
        memory_gib=round(psutil.virtual_memory().total / 2**30),
        kernel=platform.release(),
        cpu_percent_before=psutil.cpu_percent(interval=3),
        python=platform.python_version(),
        kubernetes=binaries.kubernetes_version(),
    )


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
