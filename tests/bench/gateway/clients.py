"""``python -m bench.gateway.clients``: many Socket.IO clients in one process, with aiohttp.

It reads an ``Order`` from the first line of stdin and writes ``{"joined": seconds}`` when all
clients have joined. For each event that all clients of a session have received it then writes
``{"event": number, "at": [times of the monotonic clock]}``. It ends with stdin.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time

import aiohttp
from pydantic import BaseModel

NAMESPACE = "/whatsapp"
NUMBER = re.compile(r'"restorations":([0-9]+)')
AT_ONCE = 50  # connections that are opened at a time


class Order(BaseModel):
    """``tokens`` by session; each session gets ``clients`` clients."""

    port: int
    tokens: dict[str, str]
    clients: int


class Clients:
    def __init__(self, order: Order) -> None:
        self._order, self._turn = order, asyncio.Semaphore(AT_ONCE)
        self._heard: dict[int, list[float]] = {}

    async def run(self) -> None:
        order, began = self._order, time.monotonic()
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
            asyncio.TaskGroup() as tasks,
        ):
            joins = [
                asyncio.create_task(self._join(http, session, token))
                for session, token in order.tokens.items()
                for _ in range(order.clients)
            ]
            sockets = await asyncio.gather(*joins)
            listeners = [tasks.create_task(self._listen(socket)) for socket in sockets]
            say({"joined": time.monotonic() - began})
            await asyncio.to_thread(sys.stdin.read)
            for listener in listeners:
                listener.cancel()

    async def _join(
        self, http: aiohttp.ClientSession, session: str, token: str
    ) -> aiohttp.ClientWebSocketResponse:
        url = f"http://127.0.0.1:{self._order.port}/socket.io/?EIO=4&transport=websocket"
        async with self._turn:
            socket = await http.ws_connect(
                url, max_msg_size=2**20, compress=15
            )  # offered, as browsers and Node.js do
            await until(socket, "0")
            await socket.send_str(f"40{NAMESPACE},{json.dumps({'token': token})}")
            await until(socket, f"40{NAMESPACE},")
            await socket.send_str(f'42{NAMESPACE},0["init",{json.dumps({"clientId": session})}]')
            answer = await until(socket, f"43{NAMESPACE},0")
            assert '"ok":true' in answer, answer
        return socket

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            now = time.monotonic()
            text = message.data
            if text == "2":
                await socket.send_str("3")
            elif (
                text.startswith(f'42{NAMESPACE},["state"')
                and (found := NUMBER.search(text)) is not None
            ):
                self._note(int(found[1]), now)
        raise ConnectionError("hung up")

    def _note(self, event: int, now: float) -> None:
        heard = self._heard.setdefault(event, [])
        heard.append(now)
        if event and len(heard) == self._order.clients:
            say({"event": event, "at": self._heard.pop(event)})


async def until(socket: aiohttp.ClientWebSocketResponse, beginning: str) -> str:
    while True:
        text = await socket.receive_str()
        if text.startswith(beginning):
            return text
        if text == "2":
            await socket.send_str("3")


def say(what: object) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    asyncio.run(Clients(Order.model_validate_json(sys.stdin.readline())).run())
