"""Contenders and receivers that die, and what of the messages arrives.

A contender is killed again and again while messages come, and the receiver of its webhook dies
meanwhile too. The receiver keeps what it has answered with 200, by ID, as an application does that
stores an event before it answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web
from support.loopback import unused_port
from support.standin import Phone
from support.standin.world import Behaviour

from bench.delivery.contenders import WithLoop, WithWebhooks
from bench.delivery.results import Kills
from bench.session_pod.contenders import stage

ME = "15551234567"
FRIENDS = [f"1555000{number:04}" for number in range(5)]
LONGEST_LIFE = 4.0  # seconds of a contender that is ready, until it is killed
LONGEST_FREEZE = 0.3  # seconds that its page goes on before the kill, and is not heard
AWAY = 1.0  # seconds that the receiver is away
SILENCE = 60.0  # seconds without anything that arrives, after which nothing more will
# Each login that is lost leaves a linked device on the phone.
BEHAVIOUR = Behaviour(sync_seconds=1.0, legacy_msg_key=True, max_devices=1000)


class Receiver:
    """An application whose endpoint comes and goes; what it has stored stays."""

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{unused_port()}/"
        self.kept: dict[str, dict[str, Any]] = {}  # by webhook-id, in the order of arrival
        self.requests = self.repeated = self.deaths = 0
        self.changed = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        port = int(self.url.rpartition(":")[2].strip("/"))
        await web.TCPSite(self._runner, "127.0.0.1", port, reuse_address=True).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.Request) -> web.Response:
        event_id, body = request.headers["webhook-id"], await request.json()
        self.requests += 1
        self.repeated += event_id in self.kept
        self.kept.setdefault(event_id, body)
        self.changed.set()
        return web.Response()

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [body["data"] for body in self.kept.values() if body["type"].endswith("message")]


@contextlib.asynccontextmanager
async def messages(phone: Phone, rate: float) -> AsyncIterator[list[tuple[str, str]]]:
    """Send messages to the session while the block runs; yield what was sent: chat and text."""
    sent = list[tuple[str, str]]()

    async def send() -> None:
        began = time.monotonic()
        while True:
            friend, text = FRIENDS[len(sent) % len(FRIENDS)], str(len(sent))
            await phone.send(friend, ME, text)
            sent.append((f"{friend}@c.us", text))
            await asyncio.sleep(max(began + len(sent) / rate - time.monotonic(), 0))

    sending = asyncio.create_task(send())
    try:
        yield sent
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def die_and_return(receiver: Receiver, deaths: int, chance: random.Random) -> None:
    while receiver.deaths < deaths:
        await asyncio.sleep(chance.uniform(2, 20))  # the moment of the death, not a wait
        await receiver.stop()
        receiver.deaths += 1
        await asyncio.sleep(chance.uniform(0, AWAY))
        await receiver.start()


async def measure(
    kind: type[WithWebhooks | WithLoop],
    seed: int,
    kills: int,
    deaths: int,
    rate: float,
    directory: Path,
) -> Kills:
    """Kill one contender ``kills`` times at random moments, and its receiver ``deaths`` times."""
    chance, receiver, began = random.Random(seed), Receiver(), time.monotonic()  # noqa: S311
    logins_lost = 0
    await receiver.start()
    async with stage(directory, BEHAVIOUR) as here:
        contender = kind(directory / "session", here.flags)

        async def start() -> bool:
            """Start it; return whether a phone had to scan a QR."""
            await contender.start()
            if await contender.until("ready", "qr") == "ready":
                return False
            await here.phone.scan(contender.code, ME)
            await contender.until("ready")
            return True

        await start()
        try:
            await contender.tell(receiver.url)
            dying = asyncio.create_task(die_and_return(receiver, deaths, chance))
            async with messages(here.phone, rate) as sent:
                for number in range(kills):
                    await asyncio.sleep(chance.uniform(0, LONGEST_LIFE))
                    os.kill(contender.pid, signal.SIGSTOP)
                    await asyncio.sleep(chance.uniform(0, LONGEST_FREEZE))
                    await contender.kill()
                    logins_lost += await start()
                    if isinstance(contender, WithLoop):
                        await contender.tell(receiver.url)
                    print(f"{kind.name} {number + 1}/{kills}", len(sent), flush=True)
            dying.cancel()
            await asyncio.gather(dying, return_exceptions=True)
            await receiver.stop()
            await receiver.start()
            await until_arrived(receiver, sent)
        finally:
            await contender.kill()
            await receiver.stop()
    return Kills(
        seed=seed,
        rate=rate,
        kills=kills,
        deaths=receiver.deaths,
        logins_lost=logins_lost,
        sent=len(sent),
        lost=len(lost(receiver, sent)),
        requests=receiver.requests,
        repeated=receiver.repeated,
        out_of_order=out_of_order(receiver.messages),
        seconds=time.monotonic() - began,
    )


def lost(receiver: Receiver, sent: list[tuple[str, str]]) -> set[tuple[str, str]]:
    return {*sent} - {(message["chatId"], message["text"]) for message in receiver.messages}


async def until_arrived(receiver: Receiver, sent: list[tuple[str, str]]) -> None:
    """Wait until everything has arrived, or nothing arrives any more."""
    with contextlib.suppress(TimeoutError):
        while lost(receiver, sent):
            receiver.changed.clear()
            await asyncio.wait_for(receiver.changed.wait(), SILENCE)


def out_of_order(kept: list[dict[str, Any]]) -> int:
    latest, count = dict[str, int](), 0
    for message in kept:
        chat, number = message["chatId"], int(message["text"])
        count += number < latest.get(chat, -1)
        latest[chat] = max(number, latest.get(chat, -1))
    return count
