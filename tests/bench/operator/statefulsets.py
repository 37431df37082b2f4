"""The same measurements of the peer: Kubernetes' own StatefulSet controller."""

from __future__ import annotations

import copy
from dataclasses import replace

from support.fakes.api import Manifest
from wasession_operator import objects
from wasession_operator.effective_spec import EffectiveSpec
from wasession_operator.settings import Settings

from bench.operator.audit import Write, latencies
from bench.operator.measures import (
    DELETED,
    PERSON,
    at_rate,
    delete_pods,
    is_write,
    per,
    say,
    session_names,
)
from bench.operator.results import Quantiles, StatefulSet, StatefulSets
from bench.operator.rig import CONTROLLER, NAMESPACE, Rig

SECRET = "token"


async def measure_statefulsets(rig: Rig, sessions: int, rate: float) -> StatefulSets:
    """Measure a StatefulSet of one replica for each session, with the same pod and claim."""
    names = session_names(sessions)
    await create_secret(rig)
    await rig.settled()
    applied = await at_rate(
        rate, names, lambda name: rig.api.create("statefulsets", stateful_set(name, 1))
    )
    ready = applied + await rig.until_running(sessions)
    writes = await rig.settled()
    causes = [w for w in writes if is_write(w, PERSON, "create", "statefulsets")]
    effects = [unsuffixed(w) for w in writes if is_write(w, CONTROLLER, "create", "pods")]
    found = StatefulSets(
        applied_seconds=applied,
        ready_seconds=ready,
        applied_to_pod_ms=Quantiles.of(latencies(causes, effects)),
        deleted_to_pod_ms=await delete_pods(rig, names[:DELETED], pod_name, CONTROLLER),
        writes_to_ready=per(sessions, writes, CONTROLLER),
    )
    say(f"{found!r}")
    return found


async def measure_statefulset(rig: Rig, sessions: int) -> StatefulSet:
    """Measure one StatefulSet with a replica for each session, all at once."""
    await create_secret(rig)
    await rig.settled()
    await rig.api.create("statefulsets", stateful_set("all", sessions))
    await rig.until_running(sessions)
    writes = await rig.settled()
    [applied] = [w for w in writes if is_write(w, PERSON, "create", "statefulsets")]
    created = [w for w in writes if is_write(w, CONTROLLER, "create", "pods")]
    names = [f"all-{number}" for number in range(min(DELETED, sessions))]
    found = StatefulSet(
        pods_per_second=len(created) / (max(w.done for w in created) - applied.received),
        deleted_to_pod_ms=await delete_pods(rig, names, lambda name: name, CONTROLLER),
        writes_to_ready=per(sessions, writes, CONTROLLER),
    )
    say(f"{found!r}")
    return found


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
            volume["secret"]["secretName"] = SECRET
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


async def create_secret(rig: Rig) -> None:
    metadata = {"namespace": NAMESPACE, "name": SECRET}
    await rig.api.create(
        "secrets",
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"token": "x"}},
    )


def pod_name(name: str) -> str:
    return f"{name}-0"


def unsuffixed(write: Write) -> Write:
    return replace(write, name=write.name.removesuffix("-0"))
