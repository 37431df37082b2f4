"""Whatever is killed, and whenever: a valid login comes back at the next start without a QR."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest
from integration.pod.conftest import Pod
from integration.pod.crashes import crashes
from support.standin import Phone
from support.standin.server import Running
from wasession_api.v1alpha1 import Phase

Start = Callable[..., Awaitable[Pod]]


@pytest.mark.parametrize("run", [1, 2])
async def test_sigkill_of_everything_at_random_moments(
    world: Running, phone: Phone, tmp_path: Path, chromium: Path, run: int
) -> None:
    """Ten in total; ``bench.session_pod_kills`` does a hundred."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    (tmp_path / "data").mkdir()

    def make() -> Pod:
        return Pod(world.url, tmp_path / "data")

    chance = random.Random(seed)  # noqa: S311
    results = [
        crash
        async for crash in crashes(
            make, phone, "15551234567", chance, kills=5, longest=6, scan_after=3
        )
    ]
    assert [crash.outcome for crash in results] == [Phase.READY] * 5, (seed, results)
    assert len(await phone.devices()) == 1


@pytest.mark.parametrize("kind", ["browser", "renderer"])
async def test_everything_is_killed_while_a_part_that_was_killed_comes_back(
    start: Start, phone: Phone, kind: str
) -> None:
    pod = await start()
    await phone.scan(await pod.qr())
    before = await pod.ready()
    pod.process_of(kind).kill()
    await pod.until(lambda report: report.last_disconnect != before.last_disconnect)
    await pod.kill()
    again = await start()
    report = await again.ready()
    assert report.restored
    assert report.account == before.account


async def test_a_new_process_waits_for_the_chromium_of_one_that_was_killed(
    start: Start, phone: Phone
) -> None:
    """Only the program is killed: its lock is free, but its Chromium still uses the profile."""
    pod = await start()
    await phone.scan(await pod.qr())
    await pod.ready()
    browser = pod.process_of("browser")
    browser.suspend()  # otherwise it would exit once its pipe closes
    assert pod.process is not None
    pod.process.kill()
    await pod.process.wait()
    again = await start(reconnect_max_delay="0.5")
    report = await again.until(lambda report: report.phase is Phase.FAILED)
    assert report.reason == "VolumeInUse"
    assert browser.is_running()
    for process in [*browser.children(recursive=True), browser]:
        process.kill()
    await asyncio.to_thread(psutil.wait_procs, [browser], timeout=10)
    report = await again.ready()
    assert report.restored
