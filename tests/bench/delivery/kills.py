"""``make bench-delivery-kills``: pods and receivers that die, and what of the messages arrives.

A real session pod is killed again and again while messages come, and the receiver of its webhook
dies meanwhile too. The receiver keeps what it has answered with 200, by ``webhook-id``, as an
application does that stores an event before it answers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web
from integration.pod.conftest import Pod
from pydantic import BaseModel
from support.cluster import host
from support.loopback import unused_port
from support.standin import Phone, running

from bench.delivery.pod import KEY

RESULTS = Path(__file__).with_name("kills.json")
ME = "15551234567"
FRIENDS = [f"1555000{number:04}" for number in range(5)]
LONGEST_LIFE = 4.0  # seconds of a pod that is Ready, until it is killed
LONGEST_FREEZE = 0.3  # seconds that its page goes on before the kill, and is not heard
AWAY = 1.0  # seconds that the receiver is away
PATIENCE = 300.0  # seconds until everything has arrived


class Results(BaseModel):
    seed: int
    kills: int
    deaths: int  # of the receiver
    sent: int
    lost: int
    requests: int  # that were answered with 200
    repeated: int  # of them, under an ID that was known
    out_of_order: int  # messages that the receiver keeps behind a later one of their chat
    seconds: float


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
        kinds = "dev.wasession.message"
        return [body["data"] for body in self.kept.values() if body["type"] == kinds]


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


async def measure(seed: int, kills: int, deaths: int, rate: float, directory: Path) -> Results:
    chance, receiver, began = random.Random(seed), Receiver(), time.monotonic()  # noqa: S311
    (keys := directory / "keys").mkdir()
    (keys / "bench").write_text(KEY)
    (data := directory / "data").mkdir()
    await receiver.start()
    async with running() as world:
        phone = Phone(world.url)

        async def start() -> Pod:
            pod = Pod(world.url, data, delivery_secret=str(keys))
            await pod.start()
            return pod

        pod = await start()
        try:
            await phone.scan(await pod.qr(), ME)
            await pod.ready()
            webhook = {"name": "bench", "url": receiver.url, "signingKey": "bench"}
            policy = {"allowedNetworks": ["127.0.0.0/8"]}
            await pod.call("PUT", "/v1/deliveries", json={"webhooks": [webhook], "policy": policy})
            dying = asyncio.create_task(die_and_return(receiver, deaths, chance))
            async with messages(phone, rate) as sent:
                for number in range(kills):
                    await asyncio.sleep(chance.uniform(0, LONGEST_LIFE))
                    assert pod.process is not None
                    os.kill(pod.process.pid, signal.SIGSTOP)
                    await asyncio.sleep(chance.uniform(0, LONGEST_FREEZE))
                    await pod.kill()
                    pod = await start()
                    await pod.ready()
                    print(f"{number + 1}/{kills}", len(sent), len(receiver.messages), flush=True)
            dying.cancel()
            await asyncio.gather(dying, return_exceptions=True)
            await receiver.stop()
            await receiver.start()
            await until_arrived(receiver, sent)
        finally:
            await pod.kill()
            await receiver.stop()
    return Results(
        seed=seed,
        kills=kills,
        deaths=receiver.deaths,
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
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while lost(receiver, sent):
                receiver.changed.clear()
                await receiver.changed.wait()


def out_of_order(kept: list[dict[str, Any]]) -> int:
    latest, count = dict[str, int](), 0
    for message in kept:
        chat, number = message["chatId"], int(message["text"])
        count += number < latest.get(chat, -1)
        latest[chat] = max(number, latest.get(chat, -1))
    return count


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.delivery.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--deaths", type=int, default=20, help="of the receiver")
    parser.add_argument("--rate", type=float, default=20, help="messages a second")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    host.ensure("browser")
    with tempfile.TemporaryDirectory(prefix="kills-", ignore_cleanup_errors=True) as name:
        found = asyncio.run(
            measure(options.seed, options.kills, options.deaths, options.rate, Path(name))
        )
    RESULTS.write_text(found.model_dump_json(indent=1) + "\n")
    print(found)


if __name__ == "__main__":
    main()
