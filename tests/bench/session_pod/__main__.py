"""``python -m bench.session_pod``: measure, save the results, and print them beside the goals."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import tempfile
from pathlib import Path

from support.cluster import host
from support.standin.world import Behaviour

from bench.session_pod import report, results
from bench.session_pod.contenders import CHROMIUM, PEER, stage
from bench.session_pod.measures import Bench

PARTS = {
    "start": 10,
    "heavy": 5,
    "messages": 3,
    "send": 4,
    "idle": 1,
    "kill": 20,
}  # with their repetitions
# The page's first sync. If it is shorter than the start of whatsapp-web.js, that never gets ready.
SYNC_SECONDS = 1.0


async def measure(parts: dict[str, int], found: results.Results) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        async with stage(
            directory, Behaviour(sync_seconds=SYNC_SECONDS, legacy_msg_key=True)
        ) as here:
            bench = Bench(here, directory)
            for part, repetitions in parts.items():
                setattr(found, part, await getattr(bench, part)(repetitions))
                results.save(found)


def conditions() -> dict[str, str]:
    """Return versions and machine."""

    def output(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def package(path: Path) -> str:
        version: str = json.loads((path / "package.json").read_text())["version"]
        return version

    user = "root" if os.geteuid() == 0 else "not root"
    kernel = ".".join(platform.release().split(".")[:2])
    return {
        "chromium": output(str(CHROMIUM), "--version").split(" built")[0],
        "whatsapp-web.js": package(PEER / "node_modules" / "whatsapp-web.js"),
        "puppeteer": package(PEER / "node_modules" / "puppeteer"),
        "node": output("node", "--version"),
        "wa-js": package(report.ROOT / "session-pod/bridge/node_modules/@wppconnect/wa-js"),
        "python": platform.python_version(),
        "machine": f"{os.cpu_count()} cores, Linux {kernel}, {user}",
        "page": f"stand-in, first sync {SYNC_SECONDS:g} s",
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.session_pod", description=__doc__)
    parser.add_argument(
        "--part", action="append", choices=PARTS, help="only this part; may be given several times"
    )
    parser.add_argument("--repetitions", type=int, help="instead of each part's own number")
    parser.add_argument(
        "--report", action="store_true", help="measure nothing; print the saved results"
    )
    options = parser.parse_args()
    found = results.load()
    if not options.report:
        host.ensure("browser")
        found.conditions = conditions()
        parts = {part: options.repetitions or PARTS[part] for part in options.part or PARTS}
        asyncio.run(measure(parts, found))
    print(report.table(found))
    report.SVG.parent.mkdir(parents=True, exist_ok=True)
    report.SVG.write_text(report.picture(found))


if __name__ == "__main__":
    main()
