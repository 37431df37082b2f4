"""The gateway as a process: start, memory and shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from integration.gateway.fakes import ApiServer, Pod
from integration.gateway.process import Process
from integration.gateway.replica import READY, token, until
from integration.gateway.test_socket import Client


@pytest.fixture
async def process(api: ApiServer, tmp_path: Path) -> AsyncIterator[Process]:
    running = Process(
        api, tmp_path, drain_delay="1s", address_rate="100000", address_burst="100000"
    )
    await running.start()
    yield running
    with contextlib.suppress(ProcessLookupError):
        running.process.kill()
    await running.process.wait()


HEADERS = {"Authorization": f"Bearer {token('alice')}"}


async def test_it_goes_gracefully(api: ApiServer, process: Process, pod: Pod) -> None:
    pod.hold.clear()
    client = await Client(process.url).connect("alice")
    await client.init(clientId="sales")
    async with aiohttp.ClientSession(process.url, headers=HEADERS) as http:
        order = {"clientId": "sales", "to": "15550001111", "text": "sent while the gateway goes"}
        sending = asyncio.create_task(http.post("/whatsapp/messages", json=order))
        await until(lambda: len(pod.sent) == 1)
        process.process.send_signal(signal.SIGTERM)
        await process.becomes(503)
        async with http.get("/whatsapp/sessions") as answer:  # load balancers do not know yet
            assert (answer.status, answer.headers["Connection"]) == (200, "close")
        pod.hold.set()
        assert (await sending).status == 201
    assert (await client.hears("closing"))["reason"] == "ShuttingDown"
    assert await process.process.wait() == 0
    assert await process.ready() is None
    entries = process.log
    assert {"request"} <= {entry["message"] for entry in entries}
    text = json.dumps(entries)
    assert "sent while" not in text
    assert HEADERS["Authorization"] not in text


async def test_memory_stays_flat(process: Process) -> None:
    """Rejected requests leave nothing behind."""
    big = b'"' + b"x" * 10_000_000 + b'"'
    async with aiohttp.ClientSession(
        process.url, headers=HEADERS | {"Content-Type": "application/json"}
    ) as http:

        async def attack() -> None:
            for path in (
                "/whatsapp/messages",
                "/whatsapp/sessions",
                "/socket.io/?EIO=4&transport=polling&sid=x",
            ):
                with contextlib.suppress(
                    aiohttp.ClientError
                ):  # disconnected before it has sent everything
                    async with http.post(path, data=big) as answer:
                        assert answer.status == 413
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(
                    "/whatsapp/sessions", headers={"Authorization": "Bearer " + "x" * 100_000}
                ) as answer:
                    assert answer.status == 400
            for _ in range(5):
                async with http.ws_connect("/socket.io/?EIO=4&transport=websocket") as socket:
                    await socket.send_str(
                        '451000000-/whatsapp,["init",{"_placeholder":true,"num":0}]'
                    )
                    await socket.send_str("4" + "[" * 20_000)

        for _ in range(5):
            await attack()
        before = process.memory
        for _ in range(20):
            await attack()
        async with http.get("/whatsapp/sessions") as answer:
            assert answer.status == 200
    assert process.memory - before < 24 * 2**20
    assert [entry for entry in process.log if entry["level"] not in ("info", "debug")] == []


async def test_a_gateway_without_an_api_server_is_not_ready(api: ApiServer, tmp_path: Path) -> None:
    api.failing = True
    process = Process(api, tmp_path)
    starting = asyncio.create_task(process.start())
    await until(lambda: hasattr(process, "process"))
    try:
        await process.becomes(503)
        await api.put("sales", {"owner": "alice"}, READY)
        api.failing = False
        await starting
    finally:
        process.process.kill()
        await process.process.wait()
