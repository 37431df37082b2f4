"""``python -m bench.density``: fill nodes, save the results, and print them. As root, on Linux.

Nothing else may run on the machine: the sessions need its cores, and files that other programs use
too do not count against the node's memory.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import signal
import tempfile
from pathlib import Path

from support.cluster import host

from bench.density import report, results
from bench.density.measures import SYNC_SECONDS, measure, warm_up
from bench.density.node import MIB, describe
from bench.density.results import SWAPS, Results, Swap
from bench.density.sessions import SESSIONS
from bench.session_pod.__main__ import conditions
from bench.session_pod.measures import REAL_MODULES

PAGES = (0, REAL_MODULES)


def main() -> None:
    arguments = parser().parse_args()
    found = results.load()
    if not arguments.report:
        if os.geteuid() != 0:
            raise SystemExit("cgroups and swap files need root")
        if Path("/proc/swaps").read_text().count("\n") > 1:
            raise SystemExit("this machine swaps already: run `swapoff -a` first")
        host.ensure("browser")
        # As after Ctrl-C, swap file, zswap and cgroup are undone then.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        page = f"stand-in, first sync {SYNC_SECONDS:g} s"
        found.conditions = conditions() | {"page": page} | describe(Path(tempfile.gettempdir()))
        nodes = list(
            itertools.product(
                arguments.limit or [2048], arguments.modules or PAGES, arguments.swap or SWAPS
            )
        )
        asyncio.run(fill(nodes, arguments.repetitions, found))
    print(report.table(found))
    report.SVG.write_text(report.picture(found))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m bench.density", description=__doc__)
    made.add_argument("--limit", action="append", type=int, help="a node's RAM in MiB")
    made.add_argument("--modules", action="append", type=int, help="only pages with so many")
    made.add_argument("--swap", action="append", choices=SWAPS, help="only nodes with this")
    made.add_argument("--repetitions", type=int, default=1)
    made.add_argument(
        "--report", action="store_true", help="measure nothing; print the saved results"
    )
    return made


async def fill(nodes: list[tuple[int, int, Swap]], repetitions: int, found: Results) -> None:
    """Measure both contenders on each node, each of them first in turn; save after each run."""
    found.runs = [run for run in found.runs if (run.limit_mib, run.modules, run.swap) not in nodes]
    with tempfile.TemporaryDirectory(prefix="bench-density-") as name:
        directory = Path(name)
        await warm_up(directory)
        for number, (limit, modules, swap) in enumerate(nodes * repetitions):
            for kind in SESSIONS if number % 2 == 0 else SESSIONS[::-1]:
                run = await measure(directory, kind, limit * MIB, swap, modules)
                found.runs.append(run)
                results.save(found)


if __name__ == "__main__":
    main()
