"""``make bench-delivery``: measure, save the results, and write page and picture.

python -m bench.delivery --part latency --part drain
python -m bench.delivery --part kills --kills 100 --deaths 20
python -m bench.delivery --report
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from pathlib import Path

from support.cluster import host

from bench.delivery import kills, measures, report, results
from bench.delivery.contenders import WithLoop, WithWebhooks
from bench.measured import conditions

PARTS = ("latency", "drain", "kills")


async def measure(options: argparse.Namespace, found: results.Results) -> None:
    parts = options.part or list(PARTS)
    if "latency" in parts:
        for contender in (measures.OURS, measures.PLAIN):
            found.latency[contender] = await measures.measure_latency(contender)
            results.save(found)
    if "drain" in parts:
        found.drain = await measures.measure_drain()
        results.save(found)
    if "kills" in parts:
        for kind in (WithWebhooks, WithLoop):
            with tempfile.TemporaryDirectory(prefix="kills-", ignore_cleanup_errors=True) as name:
                found.kills[kind.name] = await kills.measure(
                    kind, options.seed, options.kills, options.deaths, options.rate, Path(name)
                )
            results.save(found)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.delivery", description=__doc__)
    parser.add_argument("--part", action="append", choices=PARTS, help="instead of all of them")
    parser.add_argument("--kills", type=int, default=100, help="of each contender")
    parser.add_argument("--deaths", type=int, default=20, help="of the receiver")
    parser.add_argument("--rate", type=float, default=20, help="messages a second, with kills")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--report", action="store_true", help="only write page and picture")
    options = parser.parse_args()
    found = results.load()
    if not options.report:
        host.ensure("browser")
        found.conditions = conditions("aiohttp")
        asyncio.run(measure(options, found))
        results.save(found)
    report.write(found)


if __name__ == "__main__":
    main()
