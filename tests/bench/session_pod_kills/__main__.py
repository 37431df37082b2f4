"""``python -m bench.session_pod_kills``: a hundred SIGKILLs at random moments.

Each new login is killed and restarted five times after ``sessionValid``, during an exchange of
messages; half of the kills hit a start with the stored login. The results are in ``results.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path

from integration.pod.conftest import Pod
from integration.pod.crashes import Crash, crashes
from pydantic import BaseModel
from support.cluster import host
from support.standin import Phone, running
from wasession_api.v1alpha1 import Phase

RESULTS = Path(__file__).with_name("results.json")
KILLS_OF_A_LOGIN = 5
LONGEST = 60.0  # seconds from ``sessionValid`` to a kill
SCAN_AFTER = 15.0  # seconds at most between the QR and its scan


class Results(BaseModel):
    seed: int
    chromium: str
    survived: int
    kills: list[dict[str, str | float]]


async def measure(seed: int, kills: int, at_once: int) -> list[Crash]:
    turn = asyncio.Semaphore(at_once)
    found: list[Crash] = []

    async def one(number: int, url: str, directory: Path) -> None:
        chance = random.Random(f"{seed} {number}")  # noqa: S311
        data = directory / f"data-{number}"
        data.mkdir()
        async with turn:
            made = crashes(
                lambda: Pod(url, data),
                Phone(url),
                f"1555{number:07d}",
                chance,
                kills=KILLS_OF_A_LOGIN,
                longest=LONGEST,
                scan_after=SCAN_AFTER,
            )
            async for crash in made:
                found.append(crash)
                print(f"{len(found)}/{kills}", crash, flush=True)

    with tempfile.TemporaryDirectory(prefix="kills-", ignore_cleanup_errors=True) as name:
        async with running() as world, asyncio.TaskGroup() as logins:
            for number in range(kills // KILLS_OF_A_LOGIN):
                logins.create_task(one(number, world.url, Path(name)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.session_pod_kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument(
        "--at-once",
        type=int,
        default=5,
        help="sessions at a time; no time is measured",
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    host.ensure("browser")
    version = subprocess.run(
        ["chromium", "--version"], capture_output=True, text=True, check=True
    ).stdout.split(" built")[0]
    found = asyncio.run(measure(options.seed, options.kills, options.at_once))
    survived = sum(crash.outcome is Phase.READY for crash in found)
    results = Results(
        seed=options.seed,
        chromium=version,
        survived=survived,
        kills=[asdict(crash) for crash in found],
    )
    RESULTS.write_text(results.model_dump_json(indent=1) + "\n")
    print(f"{survived} of {len(found)} logins survived")
    raise SystemExit(survived != len(found))


if __name__ == "__main__":
    main()
