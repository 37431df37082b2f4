"""Fill a node with sessions, one after the other, until one of them is not served."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import psutil
from support.standin.client import Phone, PhoneError
from support.standin.world import Behaviour

from bench.density.node import MIB, Node, node
from bench.density.results import End, Faults, Round, Run, Swap
from bench.density.sessions import SESSIONS, Session
from bench.session_pod.contenders import PATIENCE, Stuck, stage

FRIEND = "15550001111"
# The page's first sync. If it is shorter than the start of whatsapp-web.js, that never gets ready.
SYNC_SECONDS = 5.0
POLL = 0.25  # seconds between looks for OOM kills
SETTLE = 5.0  # seconds between Ready and a round
LONGEST = 30.0  # seconds after which a session that has not answered never will
FAILURES = (AssertionError, OSError, TimeoutError, aiohttp.ClientError)


class NotReady(Exception):
    """A new session has not become Ready."""


class NoAnswer(Exception):
    """A session has not answered a text."""


async def until_full(
    add: Callable[[], Awaitable[float]],
    ask_all: Callable[[float], Awaitable[Round]],
    oom_kills: Callable[[], int],
) -> tuple[list[Round], End]:
    """Add sessions, with a round after each; return the rounds, and why there is no further one.

    ``add`` returns the seconds until Ready, or raises ``NotReady``. ``ask_all`` makes a round of
    them, or raises ``NoAnswer``.
    """
    rounds: list[Round] = []

    async def fill() -> End:
        try:
            while not rounds or rounds[-1].good:
                rounds.append(await ask_all(await add()))
        except NotReady as error:
            print(f"not Ready: {error.__cause__!r}", flush=True)
            return "not Ready"
        except NoAnswer as error:
            print(f"no answer: {error.__cause__!r}", flush=True)
            return "no answer"
        return "slow"

    filling = asyncio.create_task(fill())
    try:
        while not filling.done() and not oom_kills():
            await asyncio.wait({filling}, timeout=POLL)
    finally:
        filling.cancel()
    # Whatever else went wrong went wrong because of that.
    return rounds, "OOM kill" if oom_kills() else await filling


class Sessions:
    """Sessions of one kind on one node; each has an account and a directory of its own."""

    def __init__(
        self, node: Node, phone: Phone, flags: list[str], directory: Path, kind: type[Session]
    ) -> None:
        self._node, self._phone, self._flags = node, phone, flags
        self._directory, self._kind = directory, kind
        self._sessions: dict[str, Session] = {}  # by account

    async def add(self) -> float:
        """Start and link a session; return the seconds until it is Ready, or raise ``NotReady``."""
        account = f"1555{len(self._sessions) + 1:07d}"
        session = self._kind(self._directory / account, self._flags)
        before = time.monotonic()
        await session.start()
        self._node.admit(session.pid)
        self._sessions[account] = session
        try:
            async with asyncio.timeout(PATIENCE):
                await session.until("qr")
                with contextlib.suppress(PhoneError):
                    await self._phone.scan(session.code, account)
                await session.until("ready")
                seconds = time.monotonic() - before
                await session.listen()
        except (Stuck, *FAILURES) as error:
            raise NotReady(account) from error
        return seconds

    async def ask_all(self, ready_seconds: float) -> Round:
        """Ask one session after the other, ``SETTLE`` seconds from now, or raise ``NoAnswer``."""
        await asyncio.sleep(SETTLE)
        usage, before = self._node.usage(), self._node.faults()
        milliseconds = [await self._ask(*each) for each in self._sessions.items()]
        after = self._node.faults()
        made = Round(
            ready_seconds=round(ready_seconds, 2),
            milliseconds=milliseconds,
            usage=usage,
            faults=Faults(
                major=after.major - before.major,
                swap_reads=after.swap_reads - before.swap_reads,
                zswap_reads=after.zswap_reads - before.zswap_reads,
            ),
        )
        print(f"{self._kind.name}, {made.sessions} sessions: {made}", flush=True)
        return made

    async def _ask(self, account: str, session: Session) -> float:
        """Send a session a text, which it answers; return the milliseconds that it took."""
        before = time.perf_counter()
        try:
            async with asyncio.timeout(LONGEST):
                await self._phone.send(FRIEND, to=account, text="question")
                await session.received()
                await session.send(f"{FRIEND}@c.us", "answer")
        except FAILURES as error:
            raise NoAnswer(account) from error
        return round((time.perf_counter() - before) * 1000, 1)

    async def close(self) -> None:
        """Kill all sessions, and delete their data."""
        await self._node.clear()
        for account, session in self._sessions.items():
            await session.reap()
            shutil.rmtree(self._directory / account, ignore_errors=True)


async def measure(
    directory: Path, kind: type[Session], limit: int, swap: Swap, modules: int
) -> Run:
    """Return how a node with ``limit`` bytes of RAM fills up, and when it is full."""
    others = other_chromium()
    async with stage(directory, behaviour(modules)) as here, node(directory, limit, swap) as there:
        sessions = Sessions(there, here.phone, here.flags, directory, kind)
        try:
            rounds, end = await until_full(sessions.add, sessions.ask_all, there.oom_kills)
        finally:
            await sessions.close()
    print(f"{kind.name}, {len(rounds)} rounds: {end}", flush=True)
    return Run(
        contender=kind.name,
        limit_mib=limit // MIB,
        swap=swap,
        modules=modules,
        rounds=rounds,
        end=end,
        other_chromium=others,
    )


async def warm_up(directory: Path) -> None:
    """Start one of each, so that no session of a run has to prepare what all of them use."""
    async with stage(directory, behaviour(modules=0)) as here:
        for kind in SESSIONS:
            session = kind(directory / "first", here.flags)
            await session.start()
            try:
                await session.until("qr")
            finally:
                await session.kill()
                shutil.rmtree(directory / "first")


def behaviour(modules: int) -> Behaviour:
    return Behaviour(sync_seconds=SYNC_SECONDS, legacy_msg_key=True, modules=modules)


def other_chromium() -> int:
    """Return how many processes of Chromium run on the machine."""
    return sum(process.info["name"] == "chromium" for process in psutil.process_iter(["name"]))
