"""Memory and CPU time of a tree of processes, as counted by the kernel."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil

from bench.session_pod.contenders import family
from bench.session_pod.results import Memory, Tree

TICKS = os.sysconf("SC_CLK_TCK")  # per second
MIB = 1024  # of the KiB in /proc


def memory(pid: int) -> Tree:
    """Return the memory of a tree by kind of process."""
    found: Tree = {}
    for process in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            fields = {line.split()[0]: int(line.split()[1]) for line in rollup.splitlines()[1:]}
            private = fields["Pss_Anon:"] + fields["Pss_Shmem:"]
            each = Memory(private=private / MIB, pss=fields["Pss:"] / MIB, rss=fields["Rss:"] / MIB)
            kind = role(process.cmdline())
            found[kind] = found[kind] + each if kind in found else each
    return found


def cpu_seconds(pid: int) -> dict[str, float]:
    """Return the CPU time of a tree by kind of process; ended children count to their parent."""
    found: dict[str, float] = {}
    for process in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            # After the name in parentheses: utime, stime, cutime, cstime are fields 14 to 17 of
            # proc_pid_stat(5).
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            kind = role(process.cmdline())
            found[kind] = found.get(kind, 0.0) + sum(map(int, fields[11:15])) / TICKS
    return found


def role(command: list[str]) -> str:
    """Return ``python``, ``node`` or Chromium's own name for the process."""
    text = " ".join(command)
    if "chromium" not in Path(command[0]).name if command else True:
        return (
            "python"
            if "wasession_pod" in text
            else "node"
            if "node" in text.partition(" ")[0]
            else "other"
        )
    kind = next(
        (argument.partition("=")[2] for argument in text.split() if argument.startswith("--type=")),
        "browser",
    )
    if kind == "utility":
        kind = next(
            (a.rpartition(".")[2] for a in text.split() if a.startswith("--utility-sub-type=")),
            kind,
        )
    return f"chromium {kind}"
