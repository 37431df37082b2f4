"""Control groups for the nodes' pods: the only part of a cluster that outlives its namespaces."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
NAME = "wasession"


def path(node: str) -> str:
    """Return the node's group in the form of kubelet's ``cgroupRoot``."""
    return f"/{NAME}/{node}"


def create(node: str) -> None:
    """Create the node's group in every hierarchy (cgroup v1) or in the only one (cgroup v2)."""
    for hierarchy in _hierarchies():
        group = hierarchy / NAME / node
        group.mkdir(parents=True, exist_ok=True)
        for parent in (group.parent, group):
            for name in ("cpuset.cpus", "cpuset.mems"):
                # cgroup v1: a new group has no CPUs and no memory nodes.
                if (parent / name).exists() and (hierarchy / name).exists():
                    (parent / name).write_text((hierarchy / name).read_text())
        # cgroup v2: a group has only the controllers that its parent delegates.
        if (hierarchy / "cgroup.subtree_control").exists():
            controllers = (hierarchy / "cgroup.controllers").read_text().split()
            for parent in (hierarchy, group.parent, group):
                (parent / "cgroup.subtree_control").write_text(
                    " ".join(f"+{name}" for name in controllers)
                )


def remove() -> None:
    """Remove the groups of earlier nodes, deepest first; groups with processes stay."""
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
    """Return the groups that still exist."""
    return [hierarchy / NAME for hierarchy in _hierarchies() if (hierarchy / NAME).exists()]
