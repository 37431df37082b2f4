"""``make bench-hibernation``: measure, save the results, and write page and picture. As root.

python -m bench.hibernation --sessions 200 --awake 20 --minutes 20
python -m bench.hibernation --report
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
from pathlib import Path

from support.cluster import binaries
from support.testbed import Testbed

from bench.hibernation import report, results
from bench.hibernation.load import Load, default_awake
from bench.hibernation.measures import Bench
from bench.hibernation.results import Run
from bench.hibernation.stage import stage, testbed
from bench.measured import conditions


def main() -> None:
    options = parser().parse_args()
    directory: Path = options.directory
    if not options.report:
        # As after Ctrl-C, the cluster is stopped then, and nothing of it is left.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        load = Load(
            options.sessions, options.awake or default_awake(options.sessions), options.minutes
        )
        run = new_run(load, options.seed)
        directory.mkdir(parents=True, exist_ok=True)
        with testbed() as bed:
            asyncio.run(measure(bed, load, run, directory))
    report.write(directory, results.load(directory))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m bench.hibernation", description="Sessions most of which sleep."
    )
    made.add_argument("--sessions", type=positive, default=200)
    made.add_argument("--awake", type=positive, help="of them at a time; a tenth by default")
    made.add_argument("--minutes", type=float, default=20, help="after the first five or so")
    made.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    made.add_argument(
        "--directory", type=Path, default=results.DIRECTORY, help="of the page and its numbers"
    )
    made.add_argument("--report", action="store_true", help="only write page and picture")
    return made


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def new_run(load: Load, seed: int) -> Run:
    return Run(
        conditions=conditions() | {"kubernetes": binaries.kubernetes_version()},
        seed=seed,
        sessions=load.sessions,
        awake=load.awake,
        minutes=load.minutes,
        ramp=load.ramp,
        interval=load.interval,
    )


async def measure(bed: Testbed, load: Load, run: Run, directory: Path) -> None:
    async with stage(bed) as it:
        await Bench(it, load, run, lambda found: results.save(directory, found)).measure()


if __name__ == "__main__":
    main()
