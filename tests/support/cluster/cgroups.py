"""Control groups for the nodes' pods. They are the one thing of a cluster that its namespaces don't take with them."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
NAME = "wasession"


def path(node: str) -> str:
    """The node's group, as kubelet's ``cgroupRoot`` wants it."""
    return f"/{NAME}/{node}"


def create(node: str) -> None:
    """Makes the node's group in every hierarchy (cgroup v1) or in the one there is (cgroup v2)."""
    for hierarchy in _hierarchies():
        group = hierarchy / NAME / node
        group.mkdir(parents=True, exist_ok=True)
        for parent in (group.parent, group):
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (parent / name).exists() and (
                    hierarchy / name
                ).exists():  # v1: a new group has none
                    (parent / name).write_text((hierarchy / name).read_text())
        if (
            hierarchy / "cgroup.subtree_control"
        ).exists():  # v2: children get only what their parents hand down
            controllers = (hierarchy / "cgroup.controllers").read_text().split()
            for parent in (hierarchy, group.parent, group):
                (parent / "cgroup.subtree_control").write_text(
                    " ".join(f"+{name}" for name in controllers)
                )


def remove() -> None:
    """Takes away what earlier nodes left, deepest first; groups that still hold processes stay."""
    for hierarchy in _hierarchies():
        for directory, _, _ in os.walk(hierarchy / NAME, topdown=False):
            try:
                Path(directory).rmdir()
            except OSError:
                continue


def _hierarchies() -> list[Path]:
    if (ROOT / "cgroup.controllers").exists():
        return [ROOT]
    return [
        child
        for child in ROOT.iterdir()
        if (child / "cgroup.procs").exists() and not child.is_symlink()
    ]


def left() -> list[Path]:
    """The groups that are still there."""
    return [hierarchy / NAME for hierarchy in _hierarchies() if (hierarchy / NAME).exists()]
