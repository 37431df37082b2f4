"""The measurements, one after the other on the same cluster."""

from __future__ import annotations

import asyncio
import copy
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import psutil
from support.cluster import binaries
from support.fakes.api import Manifest, path
from wasession_api.v1alpha1 import API_VERSION, KIND, PLURAL
from wasession_operator import objects
from wasession_operator.effective_spec import EffectiveSpec
from wasession_operator.settings import Settings

from bench.operator.audit import Write, by_kind, latencies
from bench.operator.rig import NAMESPACE, USER, Rig, until

CONTROLLER = "system:serviceaccount:kube-system:statefulset-controller"
PERSON = "admin"
PREFIX = "wasession-"  # of a session's pod
IDLE = 60.0  # seconds
DELETED = 300  # pods, one by one
Found = dict[str, Any]


async def measure(rig: Rig, sessions: int, rate: float, *, peers: bool) -> Found:
    found: Found = {"sessions": sessions, "rate": rate}
    found["operator"] = await measure_operator(rig, sessions, rate, removed=peers)
    if peers:
        found["statefulsets"] = await measure_statefulsets(rig, sessions, rate)
        found["statefulset"] = await measure_one_statefulset(rig, sessions)
    return found


async def measure_operator(rig: Rig, sessions: int, rate: float, *, removed: bool) -> Found:
    names = [f"s-{number:05}" for number in range(sessions)]
    operator = rig.start_operator()
    await until(lambda: metric_is_there(rig), True)
    found: Found = {"memoryEmptyMiB": memory(operator)}

    cpu = seconds_of(operator)
    found["appliedIn"] = await at_rate(
        rate, names, lambda name: rig.api.create(PLURAL, session(name))
    )
    found["readyAfter"] = found["appliedIn"] + await until(rig.phases, sessions)
    writes = await settled(rig)
    applied = [w for w in writes if (w.user, w.verb, w.resource) == (PERSON, "create", PLURAL)]
    created = [
        unprefixed(w) for w in writes if (w.user, w.verb, w.resource) == (USER, "create", "pods")
    ]
    found["appliedToPodMs"] = summary(latencies(applied, created))
    found["writesPerSession"] = per(sessions, [w for w in writes if w.user == USER])
    found["cpuMsPerSession"] = (seconds_of(operator) - cpu) * 1000 / sessions
    found["memoryMiB"] = memory(operator)
    say(f"{sessions} sessions Ready", found)

    found["deletedToPodMs"] = await delete_pods(rig, names[:DELETED], rate, PREFIX, "", USER)
    await until(rig.phases, sessions)
    await settled(rig)

    cpu = seconds_of(operator)
    await asyncio.sleep(IDLE)
    idle = [w for w in await settled(rig) if w.user == USER]
    found["idle"] = {
        "seconds": IDLE,
        "writes": len(idle),
        "cpuPercent": (seconds_of(operator) - cpu) / IDLE * 100,
    }

    found["restart"] = await restart(rig, operator, sessions)
    operator = psutil.Process(found["restart"].pop("pid"))
    say("idle and restarted", found)

    if removed:
        found["removedIn"] = await at_rate(
            rate, names, lambda name: rig.api.delete(PLURAL, NAMESPACE, name)
        )
        await until(lambda: count(rig, "pods"), 0)
        await until(lambda: count(rig, PLURAL), 0)
        writes = await settled(rig)
        found["writesPerRemoval"] = per(sessions, [w for w in writes if w.user == USER])
        await empty(rig)
    operator.terminate()
    operator.wait(60)
    return found


async def restart(rig: Rig, operator: psutil.Process, sessions: int) -> Found:
    """Restart the operator; measure until it knows every session and listens to every pod."""
    operator.terminate()
    operator.wait(60)
    await until(lambda: count_streams(rig), 0)
    await settled(rig)
    began = time.monotonic()
    fresh = rig.start_operator()
    await until(lambda: count_streams(rig), sessions)
    await until(rig.phases, sessions)
    found: Found = {
        "pid": fresh.pid,
        "seconds": time.monotonic() - began,
        "cpuSeconds": seconds_of(fresh),
    }
    writes = [w for w in await settled(rig) if w.user == USER]
    return {**found, "writes": len(writes), "memoryMiB": memory(fresh)}


async def measure_statefulsets(rig: Rig, sessions: int, rate: float) -> Found:
    """Measure a StatefulSet of one replica for each session, with the same pod and claim."""
    names = [f"s-{number:05}" for number in range(sessions)]
    await shared_secret(rig)
    found: Found = {}
    found["appliedIn"] = await at_rate(
        rate, names, lambda name: rig.api.create("statefulsets", stateful_set(name, 1))
    )
    found["readyAfter"] = found["appliedIn"] + await until(lambda: ready_pods(rig), sessions)
    writes = await settled(rig)
    applied = [
        w for w in writes if (w.user, w.verb, w.resource) == (PERSON, "create", "statefulsets")
    ]
    created = [
        unsuffixed(w)
        for w in writes
        if (w.user, w.verb, w.resource) == (CONTROLLER, "create", "pods")
    ]
    found["appliedToPodMs"] = summary(latencies(applied, created))
    found["writesPerSession"] = per(sessions, [w for w in writes if w.user == CONTROLLER])
    found["deletedToPodMs"] = await delete_pods(rig, names[:DELETED], rate, "", "-0", CONTROLLER)
    await until(lambda: ready_pods(rig), sessions)
    say("StatefulSets of one replica", found)
    for name in names:
        await rig.api.delete("statefulsets", NAMESPACE, name)
    await until(lambda: count(rig, "pods"), 0)
    await empty(rig)
    return found


async def measure_one_statefulset(rig: Rig, sessions: int) -> Found:
    """Measure one StatefulSet with a replica for each session, all at once."""
    await shared_secret(rig)
    await settled(rig)
    await rig.api.create("statefulsets", stateful_set("all", sessions))
    await until(lambda: ready_pods(rig), sessions)
    writes = await settled(rig)
    [applied] = [
        w for w in writes if (w.user, w.verb, w.resource) == (PERSON, "create", "statefulsets")
    ]
    created = [w for w in writes if (w.user, w.verb, w.resource) == (CONTROLLER, "create", "pods")]
    found: Found = {
        "podsPerSecond": len(created) / (max(w.done for w in created) - applied.received)
    }
    found["writesPerSession"] = per(sessions, [w for w in writes if w.user == CONTROLLER])
    names = [f"all-{number}" for number in range(min(DELETED, sessions))]
    found["deletedToPodMs"] = await delete_pods(rig, names, 20, "", "", CONTROLLER)
    say("one StatefulSet", found)
    return found


async def delete_pods(
    rig: Rig, names: list[str], rate: float, prefix: str, suffix: str, user: str
) -> Found:
    """Delete pods; return the milliseconds until the next pod of each is created."""
    await settled(rig)
    await at_rate(
        min(rate, 20),
        names,
        lambda name: rig.api.delete("pods", NAMESPACE, f"{prefix}{name}{suffix}"),
    )
    writes: list[Write] = []
    async with asyncio.timeout(300):
        while True:
            writes += await settled(rig)
            created = [
                w for w in writes if (w.user, w.verb, w.resource) == (user, "create", "pods")
            ]
            if len({w.name for w in created}) == len(names):
                break
    deleted = [w for w in writes if (w.user, w.verb, w.resource) == (PERSON, "delete", "pods")]
    # The confirmation of a deletion is another one by the same user.
    first = {w.name: w for w in reversed(deleted)}
    return summary(latencies(list(first.values()), created))


# --- parts ----------------------------------------------------------------------------------------


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


async def settled(rig: Rig) -> list[Write]:
    """Wait until nobody writes any more and the audit log is flushed; return the new writes."""
    found: list[Write] = []
    quiet = 0
    while quiet < 2:
        await asyncio.sleep(1.5)
        new = rig.audit.new()
        found += new
        ours = [w for w in new if w.user in (USER, CONTROLLER) and w.resource != "events"]
        quiet = 0 if ours else quiet + 1
    return found


def session(name: str) -> Manifest:
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"namespace": NAMESPACE, "name": name},
        "spec": {},
    }


def stateful_set(name: str, replicas: int) -> Manifest:
    """Return a StatefulSet whose pod is that of a session."""
    settings = Settings(session_image="session-pod:1")
    labels = {"app": name}
    pod = copy.deepcopy(
        objects.make_pod(
            NAMESPACE, name, "uid", EffectiveSpec(), settings, restoring=False, token_id=None
        )
    )
    spec = pod["spec"]
    spec["volumes"] = [v for v in spec["volumes"] if "persistentVolumeClaim" not in v]
    for volume in spec["volumes"]:
        if "secret" in volume:
            volume["secret"]["secretName"] = "token"
    claim = objects.make_pvc(NAMESPACE, name, "uid", EffectiveSpec())["spec"]
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"namespace": NAMESPACE, "name": name},
        "spec": {
            "replicas": replicas,
            "serviceName": "none",
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
        },
    }


async def shared_secret(rig: Rig) -> None:
    metadata = {"namespace": NAMESPACE, "name": "token"}
    await rig.api.create(
        "secrets",
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"token": "x"}},
    )


async def empty(rig: Rig) -> None:
    """Delete claims, volumes and Secrets, so that each measurement starts with the same cluster."""
    for plural in ("persistentvolumeclaims", "secrets"):
        await rig.api.call("DELETE", path(plural, NAMESPACE))
        await until(partial(count, rig, plural), 0)
    await rig.api.call("DELETE", path("persistentvolumes"))
    await settled(rig)


async def count(rig: Rig, plural: str) -> int:
    found = await rig.api.call("GET", f"{path(plural, NAMESPACE)}?limit=1")
    return len(found["items"]) + int(found["metadata"].get("remainingItemCount", 0))


async def count_streams(rig: Rig) -> int:
    return len(rig.pods.streams)


async def ready_pods(rig: Rig) -> int:
    selector = "fieldSelector=status.phase=Running"
    found = await rig.api.call("GET", f"{path('pods', NAMESPACE)}?{selector}&resourceVersion=0")
    return sum("deletionTimestamp" not in pod["metadata"] for pod in found["items"])


async def metric_is_there(rig: Rig) -> bool:
    return await rig.metric("process_start_time_seconds") > 0


def unprefixed(write: Write) -> Write:
    return replace(write, name=write.name.removeprefix(PREFIX))


def unsuffixed(write: Write) -> Write:
    return replace(write, name=write.name.removesuffix("-0"))


def summary(milliseconds: list[float]) -> Found:
    cuts = statistics.quantiles(milliseconds, n=100)
    return {
        "count": len(milliseconds),
        "p50": cuts[49],
        "p90": cuts[89],
        "p99": cuts[98],
        "most": max(milliseconds),
    }


def per(sessions: int, writes: list[Write]) -> Found:
    kinds = by_kind(writes)
    return {
        "all": sum(kinds.values()) / sessions,
        "kinds": {kind: number / sessions for kind, number in kinds.items()},
    }


def memory(process: psutil.Process) -> float:
    return float(process.memory_info().rss / 2**20)


def seconds_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def machine() -> Found:
    """Return facts about the machine; call it before anything starts, to measure other work."""
    return {
        "cores": os.cpu_count(),
        "memoryGiB": round(psutil.virtual_memory().total / 2**30),
        "kernel": platform.release(),
        "cpuPercentBefore": psutil.cpu_percent(interval=3),
        "python": platform.python_version(),
        "kubernetes": binaries.kubernetes_version(),
    }


def say(what: str, found: Found) -> None:
    print(what, found, file=sys.stderr, flush=True)
