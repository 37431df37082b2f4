"""``make bench-operator``: measure the operator beside StatefulSets, and write page and picture.

python -m bench.operator --sessions 1000
python -m bench.operator --sessions 5000 --without-peers
python -m bench.operator --report
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from pathlib import Path

from bench.operator import report
from bench.operator.measures import machine, measure
from bench.operator.rig import rig


async def run(sessions: int, rate: float, *, peers: bool) -> dict[str, object]:
    found: dict[str, object] = {"machine": machine()}
    with tempfile.TemporaryDirectory(
        prefix="wasession-bench-", ignore_cleanup_errors=True
    ) as directory:
        async with rig(Path(directory)) as it:
            return found | await measure(it, sessions, rate, peers=peers)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.operator", description="The operator beside StatefulSets."
    )
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=75, help="sessions a second")
    parser.add_argument("--without-peers", action="store_true", help="the operator alone")
    parser.add_argument(
        "--report",
        action="store_true",
        help="only write page and picture, from the saved results",
    )
    arguments = parser.parse_args()
    if not arguments.report:
        found = asyncio.run(
            run(arguments.sessions, arguments.rate, peers=not arguments.without_peers)
        )
        print(json.dumps(found, indent=1))
        report.keep(arguments.sessions, found)
    report.write()


if __name__ == "__main__":
    main()
