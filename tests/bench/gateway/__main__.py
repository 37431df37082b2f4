"""``python -m bench.gateway``: measure, save the results, and print them beside the goals."""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
from pathlib import Path

from bench.gateway import measures, report, results
from bench.measured import conditions

PARTS = ("lists", "clients")
PACKAGES = ("aiohttp", "python-socketio", "python-engineio")
OPEN_FILES = 10_000


async def measure(parts: list[str], found: results.Results) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        if "lists" in parts:
            found.lists = await measures.lists(directory)
            results.save(found)
        if "clients" in parts:
            found.told = {measures.GATEWAY: [], measures.SOCKETIO: []}
            for sessions in measures.EVENTS:
                found.told[measures.GATEWAY].append(
                    await measures.told_by_gateway(directory, sessions)
                )
                found.told[measures.SOCKETIO].append(
                    await measures.told_by_peer(directory, sessions)
                )
                results.save(found)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.gateway", description=__doc__)
    parser.add_argument(
        "--part", action="append", choices=PARTS, help="only this part; may be given several times"
    )
    parser.add_argument(
        "--report", action="store_true", help="measure nothing; print the saved results"
    )
    options = parser.parse_args()
    found = results.load()
    if not options.report:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, most), most))
        found.conditions = conditions(*PACKAGES)
        asyncio.run(measure(options.part or list(PARTS), found))
    print(report.table(found))


if __name__ == "__main__":
    main()
