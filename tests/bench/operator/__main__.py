"""``make bench-operator``: measure the operator beside StatefulSets, and write page and pictures.

python -m bench.operator --sessions 1000
python -m bench.operator --sessions 1000 --rate 5
python -m bench.operator --sessions 20000 --standing 19500 --shards 4 --replicas 4 --rate 5
python -m bench.operator --failover 30 --sessions 200
python -m bench.operator --report
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from support.fakes.api_server import CONTROLLERS

from bench.operator import failover, report, results
from bench.operator.measures import machine, measure_operator
from bench.operator.results import Failovers, Run
from bench.operator.rig import Rig, rig
from bench.operator.statefulsets import measure_statefulset, measure_statefulsets


def main() -> None:
    arguments = parser().parse_args()
    found = results.load()
    if arguments.failover:
        found.failovers[arguments.shards] = asyncio.run(fail_over(arguments))
    elif not arguments.report:
        found.add(asyncio.run(run(arguments)))
    results.save(found)
    report.write(found)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m bench.operator", description="The operator beside StatefulSets."
    )
    made.add_argument("--sessions", type=int, default=1000)
    made.add_argument("--standing", type=int, default=0, help="sessions that stand already")
    made.add_argument("--rate", type=float, default=75, help="sessions a second")
    made.add_argument("--shards", type=int, default=1)
    made.add_argument("--replicas", type=int, default=2)
    made.add_argument("--without-peers", action="store_true", help="the operator alone")
    what = made.add_mutually_exclusive_group()
    what.add_argument(
        "--failover", type=int, metavar="TIMES", help="end the leader so often, in each way"
    )
    what.add_argument(
        "--report", action="store_true", help="only write page and pictures, from saved results"
    )
    return made


async def run(arguments: argparse.Namespace) -> Run:
    """Measure each contender on a cluster of its own, one after the other."""
    sessions, standing, rate = arguments.sessions, arguments.standing, arguments.rate
    before = machine()
    async with cluster(arguments.shards) as it:
        operator = await measure_operator(it, sessions, rate, arguments.replicas, standing)
    found = Run(machine=before, sessions=sessions, standing=standing, rate=rate, operator=operator)
    if not arguments.without_peers:
        async with cluster() as it:
            found.statefulsets = await measure_statefulsets(it, sessions, rate)
        async with cluster() as it:
            found.statefulset = await measure_statefulset(it, sessions)
    return found


async def fail_over(arguments: argparse.Namespace) -> Failovers:
    before, sessions, times = machine(), arguments.sessions, arguments.failover
    async with cluster(arguments.shards) as it:
        operator = await failover.measure_operator(it, sessions, times, arguments.replicas)
    found = Failovers(
        machine=before, shards=arguments.shards, replicas=arguments.replicas, operator=operator
    )
    if not arguments.without_peers:
        others = [name for name in CONTROLLERS if name != "statefulset-controller"]
        async with cluster(controllers=others) as it:
            found.controller_manager = await failover.measure_controller_manager(
                it, sessions, times
            )
    return found


@contextlib.asynccontextmanager
async def cluster(shards: int = 1, controllers: Sequence[str] = CONTROLLERS) -> AsyncIterator[Rig]:
    with tempfile.TemporaryDirectory(
        prefix="wasession-bench-", ignore_cleanup_errors=True
    ) as directory:
        async with rig(Path(directory), shards, controllers) as it:
            yield it


if __name__ == "__main__":
    main()
