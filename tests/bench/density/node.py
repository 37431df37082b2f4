"""A node's memory: a cgroup with a limit, a swap file, and zswap. Needs root.

The memory controller may be of cgroup version 1 or 2. Version 1 does not charge zswap's pool to the
cgroup, so the limit is lowered by its size there.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import random
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from bench.density.results import Faults, Swap, Usage

CGROUPS = Path("/sys/fs/cgroup")
NAME = "bench-density"
SWAPS_PER_LIMIT = 2  # the swap file's size
ZSWAP = Path("/sys/module/zswap/parameters")
ZSWAP_PERCENT = 20  # of a node's RAM, the kernel's default
MIB = 2**20
PAUSE = 0.25  # seconds


class Layout(NamedTuple):
    """The files of a version of cgroups, and the names in its ``memory.stat``."""

    controllers: Path
    limit: str
    events: str
    anonymous: str
    shared: str
    files: str  # with the shared ones
    faults: str


V1 = Layout(
    controllers=CGROUPS / "memory",
    limit="memory.limit_in_bytes",
    events="memory.oom_control",
    anonymous="rss",
    shared="shmem",
    files="cache",
    faults="pgmajfault",
)
V2 = Layout(
    controllers=CGROUPS,
    limit="memory.max",
    events="memory.events",
    anonymous="anon",
    shared="shmem",
    files="file",
    faults="pgmajfault",
)


class Node:
    """The cgroup ``directory``, in which all processes of all sessions run."""

    def __init__(self, directory: Path, layout: Layout, limit: int) -> None:
        self._directory, self._layout, self._limit = directory, layout, limit
        self._write(layout.limit, limit)

    def admit(self, pid: int) -> None:
        """Move a process that has just started, before it starts others."""
        self._write("cgroup.procs", pid)

    def oom_kills(self) -> int:
        """Return how many processes the kernel's OOM killer has killed."""
        return fields(self._directory / self._layout.events)["oom_kill"]

    def usage(self) -> Usage:
        layout, stat = self._layout, fields(self._directory / "memory.stat")
        anonymous, shared = stat[layout.anonymous], stat[layout.shared]
        files = stat[layout.files] - shared
        compressed = zswap_pool()
        if layout is V1:
            swapped, kernel = stat["swap"], self._read("memory.kmem.usage_in_bytes")
        else:  # both count some of it twice
            swapped = self._read("memory.swap.current") - stat["swapcached"]
            kernel = stat["kernel"] - compressed
        return Usage(
            anonymous=round(anonymous / MIB, 1),
            shared=round(shared / MIB, 1),
            swapped=round(swapped / MIB, 1),
            compressed=round(compressed / MIB, 1),
            files=round(files / MIB, 1),
            kernel=round(kernel / MIB, 1),
        )

    def faults(self) -> Faults:
        """Return how many there have been so far; those of swap are the machine's."""
        machine = fields(Path("/proc/vmstat"))
        return Faults(
            major=fields(self._directory / "memory.stat")[self._layout.faults],
            swap_reads=machine["pswpin"],
            zswap_reads=machine.get("zswpin", 0),
        )

    async def charge_zswap(self) -> None:
        """Keep zswap's pool within the limit where the kernel does not."""
        while self._layout is V1:
            # Reclaims; the limit stays as it was if that frees too little.
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._write, self._layout.limit, self._limit - zswap_pool())
            await asyncio.sleep(PAUSE)

    async def clear(self) -> None:
        """Kill all processes, and wait for their end."""
        while pids := (self._directory / "cgroup.procs").read_text().split():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            await asyncio.sleep(PAUSE)

    def _read(self, file: str) -> int:
        return int((self._directory / file).read_text())

    def _write(self, file: str, value: int) -> None:
        (self._directory / file).write_text(str(value))


@contextlib.asynccontextmanager
async def node(directory: Path, limit: int, swap: Swap) -> AsyncIterator[Node]:
    """Yield a node with ``limit`` bytes of RAM, and its swap file in ``directory``."""
    layout = V1 if V1.controllers.exists() else V2
    group = layout.controllers / NAME
    with contextlib.ExitStack() as stack:
        if swap != "none":
            stack.enter_context(swap_file(directory / "swap", SWAPS_PER_LIMIT * limit))
        if swap == "zswap":
            stack.enter_context(zswap(limit))
        if layout is V2:
            (CGROUPS / "cgroup.subtree_control").write_text("+memory")
        group.mkdir()
        stack.callback(group.rmdir)
        await asyncio.to_thread(drop_caches)
        made = Node(group, layout, limit)
        charging = asyncio.create_task(made.charge_zswap())
        try:
            yield made
        finally:
            charging.cancel()
            await made.clear()


@contextlib.contextmanager
def swap_file(path: Path, size: int) -> Iterator[None]:
    """Swap to a file of ``size`` bytes, and then remove it."""
    with path.open("xb") as file:
        path.chmod(0o600)
        os.posix_fallocate(file.fileno(), 0, size)
    try:
        subprocess.run(["mkswap", path], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["swapon", path], check=True)
        try:
            yield
        finally:
            subprocess.run(["swapoff", path], check=True)
    finally:
        path.unlink()


@contextlib.contextmanager
def zswap(limit: int) -> Iterator[None]:
    """Enable zswap with the share of ``limit`` that it has of a node's RAM; then restore it."""
    percent = max(1, round(ZSWAP_PERCENT * limit / psutil.virtual_memory().total))
    wanted = {"max_pool_percent": str(percent), "enabled": "Y"}
    before = {name: (ZSWAP / name).read_text().strip() for name in wanted}
    try:
        for name, value in wanted.items():
            (ZSWAP / name).write_text(value)
        yield
    finally:
        for name, value in before.items():
            (ZSWAP / name).write_text(value)


def drop_caches() -> None:
    """Let the first who reads a file again be charged for it, as on a node."""
    os.sync()  # pages that are not written yet stay
    Path("/proc/sys/vm/drop_caches").write_text("1")


def describe(directory: Path) -> dict[str, str]:
    """Return what the machine's memory and the disk of the swap file are like."""
    swappiness = Path("/proc/sys/vm/swappiness").read_text().strip()
    return {
        "memory": f"cgroup {'v1' if V1.controllers.exists() else 'v2'}, swappiness {swappiness}",
        "swap file": f"on a disk that reads 4 KiB in {read_microseconds(directory):.0f} µs",
        "zswap": f"{(ZSWAP / 'compressor').read_text().strip()}, in {ZSWAP_PERCENT} % of a node's "
        f"RAM, as whole percents of the machine's {psutil.virtual_memory().total / MIB:.0f} MiB",
    }


def read_microseconds(directory: Path, size: int = 256 * MIB, count: int = 2000) -> float:
    """Return the median time of a random read of a page, past the cache."""
    times = []
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())
        descriptor = os.open(file.name, os.O_RDONLY | os.O_DIRECT)
        try:
            page = mmap.mmap(-1, mmap.PAGESIZE)  # aligned, as O_DIRECT wants it
            for _ in range(count):
                offset = random.randrange(size // mmap.PAGESIZE) * mmap.PAGESIZE  # noqa: S311
                before = time.perf_counter()
                os.preadv(descriptor, [page], offset)
                times.append(time.perf_counter() - before)
        finally:
            os.close(descriptor)
    return statistics.median(times) * 1e6


def zswap_pool() -> int:
    """Return the bytes of RAM that zswap's pool takes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, size, *_ = line.split()
        if name == "Zswap:":
            return int(size) * 1024
    return 0


def fields(file: Path) -> dict[str, int]:
    """Return the fields of a file of "name value" lines."""
    return {
        name: int(value) for name, value in (line.split() for line in file.read_text().splitlines())
    }
