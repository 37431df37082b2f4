"""What pods and volumes use, from control groups of both versions and from the disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import psutil
from support.cluster import cgroups
from support.fakes.api import Manifest
from support.testbed import SYSTEM
from wasession_api.names import LABEL_SESSION

from bench.density.node import MIB, fields

SESSIONS, MACHINE = "sessions", "machine"
STANDIN = "standin"
COMPONENT = "app.kubernetes.io/component"
OVER = {"Succeeded", "Failed"}


class Layout(NamedTuple):
    """Where a version of control groups tells the memory and CPU of a group and those in it."""

    memory: Path
    cpu: Path
    anonymous: str
    shared: str
    cpu_file: str
    cpu_field: str  # empty: the file has nothing else
    per_second: float


V1 = Layout(
    memory=cgroups.ROOT / "memory" / cgroups.NAME,
    cpu=cgroups.ROOT / "cpuacct" / cgroups.NAME,
    anonymous="total_rss",
    shared="total_shmem",
    cpu_file="cpuacct.usage",
    cpu_field="",
    per_second=1e9,
)
V2 = Layout(
    memory=cgroups.ROOT / cgroups.NAME,
    cpu=cgroups.ROOT / cgroups.NAME,
    anonymous="anon",
    shared="shmem",
    cpu_file="cpu.stat",
    cpu_field="usage_usec",
    per_second=1e6,
)


class Memory(NamedTuple):
    """Bytes that only these processes have, and that are no file."""

    anonymous: int
    shared: int

    @property
    def total(self) -> int:
        return self.anonymous + self.shared


class Pod(NamedTuple):
    """``session`` is empty unless it is a session's."""

    uid: str
    component: str
    session: str


class Groups:
    """The control groups of all pods of the embedded cluster."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def memory(self, pod: Pod) -> Memory | None:
        """Return a pod's memory; None without such a pod on the nodes."""
        for group in _groups(self._layout.memory, pod.uid):
            try:
                stat = fields(group / "memory.stat")
            except OSError:  # it ends just now
                return None
            return Memory(stat[self._layout.anonymous], stat[self._layout.shared])
        return None

    def cpu(self, pods: Iterable[Pod]) -> dict[str, float]:
        """Return the seconds of CPU so far, by component.

        All pods together are counted with those that have ended, which were sessions'.
        """
        used: dict[str, float] = {}
        for pod in pods:
            if pod.component != SESSIONS:
                for group in _groups(self._layout.cpu, pod.uid):
                    used[pod.component] = used.get(pod.component, 0) + self._seconds(group)
        nodes = sum(self._seconds(node) for node in self._layout.cpu.glob("node*"))
        times = psutil.cpu_times()
        machine = times.user + times.nice + times.system + times.irq + times.softirq
        return {SESSIONS: nodes - sum(used.values()), **used, MACHINE: machine}

    def _seconds(self, group: Path) -> float:
        layout, path = self._layout, group / self._layout.cpu_file
        try:
            value = fields(path)[layout.cpu_field] if layout.cpu_field else int(path.read_text())
        except OSError:  # it ends just now
            return 0.0
        return value / layout.per_second


def groups() -> Groups:
    return Groups(V1 if (cgroups.ROOT / "memory").exists() else V2)


def _groups(root: Path, uid: str) -> list[Path]:
    """Return a pod's group, which kubelet has put into that of its quality of service."""
    return [*root.glob(f"*/kubepods/*/pod{uid}"), *root.glob(f"*/kubepods/pod{uid}")]


def pods(found: Iterable[Manifest]) -> list[Pod]:
    """Return the pods of wasession and of the stand-in that have not ended."""
    named = [
        Pod(pod["metadata"]["uid"], component, pod["metadata"]["labels"].get(LABEL_SESSION, ""))
        for pod in found
        if pod.get("status", {}).get("phase") not in OVER and (component := _component(pod))
    ]
    return sorted(named)


def _component(pod: Manifest) -> str:
    labels, namespace = pod["metadata"].get("labels", {}), pod["metadata"]["namespace"]
    if LABEL_SESSION in labels:
        return SESSIONS
    if namespace == STANDIN:
        return STANDIN
    return str(labels.get(COMPONENT, "")) if namespace == SYSTEM else ""


def since(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """Return what was used between two moments; what a replaced pod had used does not count."""
    return {name: round(max(0.0, used - before.get(name, 0)), 3) for name, used in now.items()}


def volumes(persistent_volumes: Iterable[Manifest], directory: Path, namespace: str) -> list[float]:
    """Return the MiB on the disk of each volume of the namespace's claims, the smallest first."""
    names = [
        Path(volume["spec"]["hostPath"]["path"]).name
        for volume in persistent_volumes
        if volume["spec"].get("claimRef", {}).get("namespace") == namespace
    ]
    return sorted(round(disk_usage(directory / name) / MIB, 1) for name in names)


def disk_usage(directory: Path) -> int:
    """Return the bytes that a directory's files take on the disk; files may vanish meanwhile."""
    taken = 0
    for root, _, files in os.walk(directory):
        for file in files:
            try:
                taken += os.lstat(f"{root}/{file}").st_blocks * 512
            except FileNotFoundError:
                continue
    return taken
