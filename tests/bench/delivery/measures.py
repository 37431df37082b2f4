"""How soon a receiver is told of a message, and how quickly a queue of events drains."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime

import psutil
from aiohttp import web
from support.processes import ENDS_WITH_PARENT

from bench.delivery.results import Drain, Latency
from bench.measured import percentile

OURS, PLAIN = "wasession", "plain"
RATE, SECONDS = 50, 60  # events a second, and for how long
QUEUE = 100_000  # events


@dataclass
class Receiver:
    """An application: it notes when it is told of what."""

    url: str = ""
    arrived: list[tuple[float, dict[str, object]]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.Response:
        self.arrived.append((time.time(), await request.json()))
        self.changed.set()
        return web.Response()

    async def until(self, count: int) -> None:
        while len(self.arrived) < count:
            self.changed.clear()
            await self.changed.wait()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_post("/", self.handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        try:
            yield
        finally:
            await runner.cleanup()


class Pod:
    """A process of ``pod.py``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.memory = psutil.Process(process.pid).memory_info

    async def do(self, *command: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        await self.answer()

    async def answer(self) -> None:
        assert self._process.stdout is not None
        if not await self._process.stdout.readline():
            raise RuntimeError("the process has ended")


@contextlib.asynccontextmanager
async def running(contender: str, receiver: Receiver) -> AsyncIterator[Pod]:
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        process = await asyncio.create_subprocess_exec(
            *ENDS_WITH_PARENT, sys.executable, "-m", "bench.delivery.pod", contender, directory,
            receiver.url, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        pod = Pod(process)
        try:
            await pod.answer()
            yield pod
        finally:
            process.kill()
            await process.wait()


async def measure_latency(contender: str) -> Latency:
    receiver = Receiver()
    async with receiver.serving(), running(contender, receiver) as pod:
        await pod.do("tell", RATE, RATE)  # connections and caches
        await receiver.until(RATE)
        receiver.arrived.clear()
        await pod.do("tell", RATE * SECONDS, RATE)
        await receiver.until(RATE * SECONDS)
    message, stored = list[float](), list[float]()
    for at, body in receiver.arrived:
        data = body["data"]
        assert isinstance(data, dict)
        message.append(1000 * (at - float(data["text"].partition(" ")[0])))
        if "time" in body:
            stored.append(1000 * (at - datetime.fromisoformat(str(body["time"])).timestamp()))
    found = Latency(
        rate=RATE,
        count=len(message),
        message_p50=percentile(message, 50),
        message_p99=percentile(message, 99),
    )
    if stored:
        found.stored_p50, found.stored_p99 = percentile(stored, 50), percentile(stored, 99)
    return found


async def measure_drain() -> Drain:
    receiver = Receiver()
    async with receiver.serving(), running(OURS, receiver) as pod:
        await pod.do("pause", True)
        began = time.monotonic()
        await pod.do("tell", QUEUE, 0)
        stored = time.monotonic() - began
        before = most = pod.memory().rss
        began = time.monotonic()
        await pod.do("pause", False)
        draining = asyncio.create_task(receiver.until(QUEUE))
        while not draining.done():
            await asyncio.wait({draining}, timeout=0.5)
            most = max(most, pod.memory().rss)
        drained = time.monotonic() - began
    return Drain(
        events=QUEUE,
        stored_per_second=QUEUE / stored,
        drained_per_second=QUEUE / drained,
        memory_mib_before=before / 2**20,
        memory_mib_most=most / 2**20,
    )
