"""``python -m bench.delivery.pod CONTENDER DIRECTORY URL``: who tells a receiver of messages.

``wasession`` is the outbox and the deliveries of a session pod, without a browser. ``plain`` is
what a program does that keeps nothing: one POST for each message, all at once. Commands come as
lines on standard input, answers go to standard output.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
from pydantic import SecretStr
from wasession_api.session_pod.delivery import Configuration
from wasession_pod.delivery.deliveries import Deliveries
from wasession_pod.messages.database import Database
from wasession_pod.messages.outbox import Outbox
from wasession_pod.settings import Settings
from wasession_pod.state.observation import PageEvent

WEBHOOK = "bench"
CHATS = 200
AHEAD = 2000  # events that wait to be stored at most
KEY = "whsec_" + base64.b64encode(bytes(32)).decode()


def message(number: int) -> dict[str, object]:
    chat = f"1555{number % CHATS:07}@c.us"
    return {
        "id": f"false_{chat}_3EB0{number:012X}",
        "chatId": chat,
        "from": chat,
        "fromMe": False,
        "type": "chat",
        "text": f"{time.time()} {'x' * 100}",
        "sentAt": "2026-01-02T03:04:05Z",
    }


class Ours:
    """The session pod's outbox and deliveries."""

    def __init__(self, directory: Path, url: str) -> None:
        (directory / "keys").mkdir()
        (directory / "keys" / WEBHOOK).write_text(KEY)
        settings = Settings(
            client_id=WEBHOOK, token=SecretStr("none"), delivery_secret=directory / "keys"
        )
        database = Database(directory / "messages.sqlite")
        self._outbox = Outbox(database, retention=86400, maximum_bytes=2**31)
        self._loaded = asyncio.Event()
        self._deliveries = Deliveries(database, self._outbox, settings, self._loaded.set)
        self._url = url

    async def start(self) -> None:
        self._outbox.start(0)
        self._outbox.release()
        self._deliveries.start()
        await self._loaded.wait()
        while self._outbox.latest is None:
            await self._outbox.changed.wait()
        webhook = {"name": WEBHOOK, "url": self._url, "signingKey": WEBHOOK}
        policy = {"allowedNetworks": ["127.0.0.0/8"]}
        configuration = {"webhooks": [webhook], "policy": policy, "revision": "1"}
        await self._deliveries.configure(Configuration.model_validate(configuration))

    async def tell(self, number: int) -> None:
        self._outbox.receive(PageEvent(type="chat.message", data=message(number)))
        latest = self._outbox.latest
        while latest is not None and number - latest.number > AHEAD:
            await self._outbox.changed.wait()
            latest = self._outbox.latest

    def pause(self, *, paused: bool) -> None:
        self._deliveries.get(WEBHOOK).pause(paused=paused)


class Plain:
    """One POST for each message."""

    def __init__(self, _: Path, url: str) -> None:
        self._url = url
        self._requests: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._http = aiohttp.ClientSession()

    async def tell(self, number: int) -> None:
        task = asyncio.create_task(self._post(message(number)))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _post(self, data: dict[str, object]) -> None:
        async with self._http.post(self._url, json={"data": data}) as response:
            await response.read()


async def main(contender: str, directory: Path, url: str) -> None:
    pod = (Ours if contender == "wasession" else Plain)(directory, url)
    await pod.start()
    say("started")
    number = 0

    async def tell(count: int, rate: float) -> None:
        nonlocal number
        began = time.monotonic()
        for index in range(count):
            number += 1
            await pod.tell(number)
            if rate:
                await asyncio.sleep(max(began + (index + 1) / rate - time.monotonic(), 0))

    commands: dict[str, Callable[..., Awaitable[None]]] = {"tell": tell}
    while line := await asyncio.to_thread(sys.stdin.readline):
        name, *arguments = json.loads(line)
        if name == "pause" and isinstance(pod, Ours):
            pod.pause(paused=arguments[0])
        else:
            await commands[name](*arguments)
        say(name)


def say(what: str) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
