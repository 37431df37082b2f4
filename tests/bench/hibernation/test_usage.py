"""What is read of pods in control groups of both versions, and of volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.testbed import SYSTEM
from wasession_api.names import LABEL_SESSION

from bench.hibernation.usage import (
    COMPONENT,
    MACHINE,
    SESSIONS,
    STANDIN,
    V1,
    V2,
    Groups,
    Layout,
    Pod,
    pods,
    since,
    volumes,
)

MIB = 2**20
SESSION = Pod("uid-1", SESSIONS, "a")
OPERATOR = Pod("uid-2", "operator", "")


def put(group: Path, **files: str) -> None:
    group.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (group / name.replace("__", ".")).write_text(text)


def pod(name: str, namespace: str, phase: str = "Running", **labels: str) -> dict[str, Any]:
    metadata = {"uid": f"uid-{name}", "namespace": namespace, "labels": labels}
    return {"metadata": metadata, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("version", "stat"),
    [
        (V1, f"rss 1\nshmem 1\ntotal_rss {90 * MIB}\ntotal_shmem {20 * MIB}\n"),
        (V2, f"anon {90 * MIB}\nfile {60 * MIB}\nshmem {20 * MIB}\n"),
    ],
    ids=["cgroup v1", "cgroup v2"],
)
def test_a_pods_memory_is_that_of_its_containers(
    tmp_path: Path, version: Layout, stat: str
) -> None:
    groups = Groups(version._replace(memory=tmp_path))
    put(tmp_path / "node2" / "kubepods" / "burstable" / "poduid-1", memory__stat=stat)
    memory = groups.memory(SESSION)
    assert memory is not None
    assert (memory.anonymous, memory.shared, memory.total) == (90 * MIB, 20 * MIB, 110 * MIB)
    assert groups.memory(OPERATOR) is None
    put(tmp_path / "node1" / "kubepods" / "poduid-2", memory__stat=stat)
    assert groups.memory(OPERATOR) == memory


def test_sessions_that_have_ended_have_used_cpu_as_well(tmp_path: Path) -> None:
    groups = Groups(V1._replace(cpu=tmp_path))
    put(tmp_path / "node1", cpuacct__usage="5000000000\n")
    put(tmp_path / "node2", cpuacct__usage="2000000000\n")
    put(tmp_path / "node1/kubepods/burstable/poduid-2", cpuacct__usage="1500000000\n")
    used = groups.cpu([SESSION, OPERATOR])
    assert used.pop(MACHINE) > 0
    assert used == {SESSIONS: 5.5, "operator": 1.5}


def test_cpu_of_version_2_is_one_field_of_several(tmp_path: Path) -> None:
    groups = Groups(V2._replace(cpu=tmp_path))
    put(tmp_path / "node1", cpu__stat="usage_usec 2500000\nuser_usec 1\n")
    assert groups.cpu([])[SESSIONS] == 2.5


def test_pods_are_told_apart() -> None:
    found = [
        pod("1", "bench", **{LABEL_SESSION: "a", COMPONENT: "operator"}),
        pod("2", SYSTEM, **{COMPONENT: "operator"}),
        pod("3", SYSTEM, **{COMPONENT: "gateway"}),
        pod("4", "standin", app="standin"),
        pod("5", "kube-system", **{COMPONENT: "operator"}),
        pod("6", "bench", "Succeeded", **{LABEL_SESSION: "b"}),
    ]
    assert pods(found) == [
        SESSION,
        OPERATOR,
        Pod("uid-3", "gateway", ""),
        Pod("uid-4", STANDIN, ""),
    ]


def test_what_a_new_pod_has_used_is_never_negative() -> None:
    before, now = {"operator": 9.0, SESSIONS: 1.0}, {"operator": 0.5, SESSIONS: 1.25, "gateway": 2}
    assert since(before, now) == {"operator": 0, SESSIONS: 0.25, "gateway": 2}


def test_only_the_sessions_volumes_are_measured(tmp_path: Path) -> None:
    def volume(name: str, namespace: str) -> dict[str, Any]:
        path = {"path": f"/tmp/hostpath_pv/{name}"}
        return {"spec": {"hostPath": path, "claimRef": {"namespace": namespace}}}

    for name, size in (("one", 3 * MIB), ("two", MIB), ("other", MIB)):
        (tmp_path / name / "profile").mkdir(parents=True)
        (tmp_path / name / "profile" / "file").write_bytes(b"x" * size)
    found = [volume("one", "bench"), volume("two", "bench"), volume("other", "standin")]
    assert volumes(found, tmp_path, "bench") == pytest.approx([1, 3], abs=0.1)
