"""Many Socket.IO clients behind one address, as behind a proxy or a company's NAT."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from integration.gateway.conftest import Start
from integration.gateway.fakes import ApiServer
from integration.gateway.replica import READY, Replica, token, until
from wasession_gateway import socketio_connections as connections

SCRIPT = Path(__file__).with_name("crowd.mjs")
CLIENTS = 500
RATE = 20  # REST requests per second, as many as the limit allows


class Crowd:
    """A Node.js process with many clients; ``events`` counts what has happened to them."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.events: Counter[str] = Counter()
        self.details: set[str] = set()

    async def until(self, event: str, count: int) -> None:
        """Wait until ``event`` has happened so often; end early when that cannot be any more."""
        assert self._process.stdout is not None
        while self.events[event] + self.events["failed"] + self.events["disconnected"] < count:
            line = await self._process.stdout.readline()
            assert line, "the clients have ended"
            name, detail = json.loads(line)
            self.events[name] += 1
            if detail is not None:
                self.details.add(json.dumps(detail))


@contextlib.asynccontextmanager
async def crowd(gateway: Replica, tokens: list[str]) -> AsyncIterator[Crowd]:
    arguments = json.dumps({"url": f"{gateway.url}/whatsapp", "tokens": tokens})
    process = await asyncio.create_subprocess_exec(
        "node",
        str(SCRIPT),
        arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Crowd(process)
    finally:
        process.kill()
        await process.wait()


async def ask_steadily(gateway: Replica, statuses: Counter[int]) -> None:
    """Send ``RATE`` requests per second from ten users, until cancelled."""
    loop = asyncio.get_running_loop()
    headers = [{"Authorization": f"Bearer {token(f'user-{number}')}"} for number in range(10)]

    async def ask(number: int) -> None:
        async with gateway.http.get(
            "/whatsapp/sessions", headers=headers[number % len(headers)]
        ) as answer:
            statuses[answer.status] += 1

    start, number = loop.time(), 0
    async with asyncio.TaskGroup() as tasks:
        while True:
            await asyncio.sleep(start + number / RATE - loop.time())
            tasks.create_task(ask(number))
            number += 1


async def test_all_connect_beside_others_requests(
    api: ApiServer, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With socket.io-client's default transports; REST takes all that its limit allows."""
    monkeypatch.setattr(connections, "INTRODUCTION", 120)  # for a slow machine
    await api.put("sales", {"owner": "alice"}, READY)
    gateway = await start(address_rate=RATE, address_burst=CLIENTS)
    tokens = [token(f"client-{number}") for number in range(CLIENTS)]
    statuses: Counter[int] = Counter()
    asking = asyncio.create_task(ask_steadily(gateway, statuses))
    async with crowd(gateway, tokens) as clients:
        await clients.until("joined", CLIENTS)
        await clients.until("upgraded", CLIENTS)
        assert (clients.events["joined"], clients.events["upgraded"]) == (CLIENTS, CLIENTS), (
            clients.events,
            clients.details,
        )
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        assert clients.events["disconnected"] == 0
    assert set(statuses) == {200}, statuses


async def test_only_handshakes_count_against_an_address(start: Start) -> None:
    gateway = await start(address_rate=0.001, address_burst=2)
    polling = "/socket.io/?EIO=4&transport=polling"
    async with gateway.http.get(polling) as answer:
        sid = json.loads((await answer.text())[1:])["sid"]
    for number in range(20):
        async with gateway.http.post(f"{polling}&sid={sid}", data="3") as answer:
            assert answer.status == 200, number
    statuses = []
    for path in (f"{polling}&sid=guessed", polling, polling):
        async with gateway.http.get(path) as answer:
            statuses.append(answer.status)
    assert statuses == [400, 429, 429], "unknown connections count"
    async with gateway.http.get("/openapi.json") as answer:
        assert answer.status == 200, "REST has its own budget"


async def test_requests_of_a_closed_connection_are_bad_requests(gateway: Replica) -> None:
    polling = "/socket.io/?EIO=4&transport=polling"
    async with gateway.http.get(polling) as answer:
        sid = json.loads((await answer.text())[1:])["sid"]
    engine = gateway.gateway._connections.server.eio.sockets[sid]
    await engine.close(wait=False)
    await until(lambda: engine.closed)
    gateway.gateway._connections.server.eio.sockets[sid] = engine  # not yet cleaned up
    for method in ("GET", "POST"):
        async with gateway.http.request(method, f"{polling}&sid={sid}") as answer:
            assert answer.status == 400


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_connections_of_an_address_are_limited(start: Start, transport: str) -> None:
    """Requests of an open connection are not: a client with polling has several at once."""
    gateway = await start(max_connections_per_address=2)
    polling = "/socket.io/?EIO=4&transport=polling"

    async def connect() -> str:
        async with gateway.http.get(polling) as answer:
            answer.raise_for_status()
            return str(json.loads((await answer.text())[1:])["sid"])

    first, _ = await connect(), await connect()
    for _ in range(2):
        async with gateway.http.get(polling.replace("polling", transport)) as answer:
            assert answer.status == 429
    waiting = asyncio.create_task(gateway.http.get(f"{polling}&sid={first}"))
    async with gateway.http.post(f"{polling}&sid={first}", data="1") as answer:
        assert answer.status == 200
    (await waiting).release()
    await connect()
