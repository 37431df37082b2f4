"""Read the container's memory usage and OOM kills from its cgroup, version 1 or 2."""

from __future__ import annotations

import contextlib
from pathlib import Path

from wasession_pod.state.memory_pressure import Memory

CGROUP = Path("/sys/fs/cgroup")  # a container sees its own cgroup here
UNLIMITED = 2**60  # bytes; cgroup v1 expresses "no limit" as a number near 2**63


def read_memory(cgroup: Path = CGROUP) -> Memory | None:
    """Return the working set and the limit; None without a limit."""
    version_1 = cgroup / "memory"
    layouts = (
        (
            cgroup / "memory.max",
            cgroup / "memory.current",
            cgroup / "memory.stat",
            "inactive_file",
        ),
        (
            version_1 / "memory.limit_in_bytes",
            version_1 / "memory.usage_in_bytes",
            version_1 / "memory.stat",
            "total_inactive_file",
        ),
    )
    for limit_file, usage_file, stat_file, inactive in layouts:
        with contextlib.suppress(OSError, ValueError):
            limit = int(limit_file.read_text())  # version 2 writes "max" for no limit
            if limit < UNLIMITED:
                reclaimable = _counter(stat_file, inactive)
                return Memory(max(int(usage_file.read_text()) - reclaimable, 0), limit)
    return None


def oom_kills(cgroup: Path = CGROUP) -> int:
    """Return how many of the container's processes the kernel's OOM killer has killed."""
    return max(
        _counter(cgroup / path, "oom_kill")
        for path in ("memory.events", "memory/memory.oom_control")
    )


def _counter(file: Path, name: str) -> int:
    """Return a counter from a file of "name value" lines; 0 when the file does not have it."""
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0
