"""SIGKILL at random moments, for the tests and for ``bench.session_pod_kills``."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from integration.pod.conftest import Pod
from support.standin import Phone
from wasession_api.v1alpha1 import Phase

FRIEND = "15550001111"


@dataclass(frozen=True)
class Crash:
    """A SIGKILL to all processes; ``outcome`` is Ready, or the phase in which a code was shown."""

    after: float  # seconds since the login was valid, or since a start with a login
    phase: Phase  # at the kill
    outcome: Phase


async def crashes(
    make: Callable[[], Pod],
    phone: Phone,
    account: str,
    chance: random.Random,
    kills: int,
    longest: float,
    scan_after: float,
) -> AsyncIterator[Crash]:
    """Kill a login repeatedly, each time at most ``longest`` seconds after it was valid."""
    pod = make()
    await pod.start()
    try:
        code = await pod.qr()
        await asyncio.sleep(
            chance.uniform(0, scan_after)
        )  # the page's age at the scan determines when Chromium writes
        await phone.scan(code, account)
        for _ in range(kills):
            await pod.until(lambda report: report.session_valid, timeout=120)
            after = chance.uniform(0, longest)
            await _busy(pod, phone, account, after)
            phase = Phase((await pod.call("GET", "/v1/state"))["phase"])
            await pod.kill()
            pod = make()
            await pod.start()
            report = await pod.until(
                lambda report: report.phase is Phase.READY or report.pairing is not None,
                timeout=180,
            )
            yield Crash(round(after, 2), phase, report.phase)
            if report.phase is not Phase.READY:
                return
            if chance.random() < 0.5:  # half of the next kills hit the start itself
                await pod.kill()
                pod = make()
                await pod.start()
    finally:
        await pod.kill()


async def _busy(pod: Pod, phone: Phone, account: str, seconds: float) -> None:
    """Exchange messages for a time, as far as the session is Ready."""

    async def talk() -> None:
        while True:
            await phone.send(FRIEND, to=account, text="x" * 2000)
            await pod.answer("POST", "/v1/messages", json={"to": FRIEND, "text": "y" * 2000})
            await asyncio.sleep(0.05)  # between two messages

    talking = asyncio.create_task(talk())
    await asyncio.sleep(seconds)  # the moment of the kill, not a wait
    talking.cancel()
    await asyncio.gather(talking, return_exceptions=True)
