"""The measurements, each a part of its own. Contenders take turns, and each is first in turn."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from support.standin.client import PhoneError

from bench.session_pod import processes
from bench.session_pod.contenders import CONTENDERS, Contender, SessionPod, Stage, Stuck
from bench.session_pod.results import Idle, Kill, Kills, Messages, Sends, Starts

FRIEND = "15550001111"
SETTLE = 10.0  # seconds between ready, or the last message, and a measurement of memory
SCAN_AFTER = 10.0  # seconds that a person needs to scan
LONGEST = 60.0  # seconds between ready and a kill
REAL_MODULES = 13_000  # of web.whatsapp.com in 2026
AT_ONCE = 6  # sessions at a time in the part with kills, which measures no time


class Bench:
    """Sessions on one stand-in, each with an account and a directory of its own."""

    def __init__(self, here: Stage, directory: Path) -> None:
        self._here, self._directory = here, directory
        self._numbers = itertools.count(1)

    @contextlib.asynccontextmanager
    async def session(self, kind: type[Contender]) -> AsyncIterator[tuple[Contender, str]]:
        """Yield a new session and its account; then kill its processes and delete its data."""
        number = next(self._numbers)
        data = self._directory / f"{kind.__name__}-{number}"
        contender = kind(data, self._here.flags)
        try:
            yield contender, f"1555{number:07d}"
        finally:
            with contextlib.suppress(Exception):
                await contender.kill()
            shutil.rmtree(data, ignore_errors=True)

    async def pair(self, contender: Contender, account: str, scan_after: float = 0) -> None:
        """Take a new session to ready."""
        await contender.start()
        await contender.until("qr")
        await asyncio.sleep(scan_after)
        with contextlib.suppress(PhoneError):
            await self._here.phone.scan(contender.code, account)
        await contender.until("ready")

    # --- parts ------------------------------------------------------------------------------------

    async def start(self, repetitions: int) -> Starts:
        """Measure start to QR, start with a stored login to ready, and the memory then.

        One round before the first does not count.
        """
        found = Starts()
        for number, kind in turns(1 + repetitions):
            async with self.session(kind) as (contender, account):
                before = time.monotonic()
                await contender.start()
                await contender.until("qr")
                qr_seconds = time.monotonic() - before
                await self._here.phone.scan(contender.code, account)
                await contender.until("ready")
                await contender.stop()
                before = time.monotonic()
                await contender.start()
                try:
                    await contender.until("ready")
                except Stuck:
                    found.stuck[kind.name] = found.stuck.get(kind.name, 0) + 1
                    continue
                ready_seconds = time.monotonic() - before
                if number == 0:
                    continue
                await asyncio.sleep(SETTLE)
                found.memory.setdefault(kind.name, []).append(processes.memory(contender.pid))
                found.qr_seconds.setdefault(kind.name, []).append(qr_seconds)
                found.ready_seconds.setdefault(kind.name, []).append(ready_seconds)
                await contender.stop()
        return found

    async def heavy(self, repetitions: int) -> Starts:
        """Measure starts with as many modules as the real page has."""
        await self._here.phone.behave(modules=REAL_MODULES)
        try:
            return await self.start(repetitions)
        finally:
            await self._here.phone.behave(modules=0)

    async def messages(self, repetitions: int, count: int = 500) -> Messages:
        """Measure memory after as many received as sent texts."""
        found = Messages(received=count, sent=count)
        for _, kind in turns(repetitions):
            async with self.session(kind) as (contender, account):
                await self.pair(contender, account)
                for number in range(count):
                    await self._here.phone.send(FRIEND, to=account, text=f"question {number}")
                    await contender.send(f"{FRIEND}@c.us", f"answer {number}")
                await asyncio.sleep(SETTLE)
                found.memory.setdefault(kind.name, []).append(processes.memory(contender.pid))
                await contender.stop()
        return found

    async def idle(self, repetitions: int, seconds: float = 300) -> Idle:
        """Measure the CPU time of idle sessions, all at once."""
        found = Idle(seconds=seconds)
        for _ in range(repetitions):
            async with contextlib.AsyncExitStack() as stack:
                running = []
                for kind in CONTENDERS:
                    contender, account = await stack.enter_async_context(self.session(kind))
                    await self.pair(contender, account)
                    running.append(contender)
                await asyncio.sleep(SETTLE)
                before = [processes.cpu_seconds(contender.pid) for contender in running]
                await asyncio.sleep(seconds)
                for contender, earlier in zip(running, before, strict=True):
                    later = processes.cpu_seconds(contender.pid)
                    spent = {
                        kind: 100 * (later[kind] - earlier.get(kind, 0)) / seconds for kind in later
                    }
                    found.cpu_percent.setdefault(contender.name, []).append(spent)
                for contender in running:
                    await contender.stop()
        return found

    async def send(self, repetitions: int, count: int = 100) -> Sends:
        """Measure ``count`` sends one after the other; the first 20 of a session do not count."""
        found = Sends()
        for _, kind in turns(repetitions):
            async with self.session(kind) as (contender, account):
                await self.pair(contender, account)
                times = [
                    await contender.send(f"{FRIEND}@c.us", f"number {number}")
                    for number in range(20 + count)
                ]
                found.milliseconds.setdefault(kind.name, []).extend(
                    round(each, 2) for each in times[20:]
                )
                if isinstance(contender, SessionPod):
                    found.page_milliseconds.append(await contender.page_milliseconds())
                await contender.stop()
        return found

    async def kill(self, repetitions: int) -> Kills:
        """Send SIGKILL to everything at moments of the first minute after ready; then restart."""
        found = Kills(scan_after=SCAN_AFTER)
        at_once = asyncio.Semaphore(AT_ONCE)

        async def one(kind: type[Contender], after: float) -> None:
            async with at_once, self.session(kind) as (contender, account):
                await self.pair(contender, account, SCAN_AFTER)
                await asyncio.sleep(after)
                await contender.kill()
                outcome = await self._after_kill(contender, account)
                found.kills.setdefault(kind.name, []).append(
                    Kill(after=round(after, 2), outcome=outcome)
                )
                await contender.stop()

        moments = [LONGEST * (index / max(repetitions - 1, 1)) for index in range(repetitions)]
        trials = [(kind, after) for after in moments for kind in CONTENDERS]
        random.Random(1).shuffle(trials)  # noqa: S311 - so that short and long ones mix
        await asyncio.gather(*(one(kind, after) for kind, after in trials))
        for kills in found.kills.values():
            kills.sort(key=lambda kill: kill.after)
        return found

    async def _after_kill(self, contender: Contender, account: str) -> str:
        """Restart; return ``ready``, ``qr`` (the login is lost), ``connected`` or ``stuck``.

        With ``connected`` the device is online at WhatsApp, but the contender never reports ready.
        """
        await contender.start()
        try:
            return await contender.until("ready", "qr")
        except Stuck:
            online = any(device.online for device in await self._here.phone.devices(account))
            return "connected" if online else "stuck"


def turns(repetitions: int) -> Iterator[tuple[int, type[Contender]]]:
    """Yield both contenders in each repetition, each of them first in turn."""
    for number in range(repetitions):
        for kind in CONTENDERS if number % 2 == 0 else CONTENDERS[::-1]:
            yield number, kind
