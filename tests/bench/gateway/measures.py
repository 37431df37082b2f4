"""The measurements: a gateway and its peers as processes, their clients, and a fake API server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil
from aiohttp import web
from integration.gateway.fakes import ApiServer, Body, now, serving
from integration.gateway.process import Process
from integration.gateway.replica import token, until
from pydantic import BaseModel
from support.loopback import unused_port

from bench.gateway import clients, load
from bench.gateway.results import Lists, Load, Quantiles, Told

GATEWAY, HELLO, BYTES, SOCKETIO = (
    "the gateway",
    "aiohttp, hello",
    "aiohttp, the same bytes",
    "python-socketio",
)
SESSIONS, OWNERS = 1000, 100
CONNECTIONS = (1, 10, 50)
LOAD_SECONDS = 3.0
CLIENTS = 2000
IDLE_SECONDS = 8.0
EVENTS = {1: 40, SESSIONS: 1000}  # by the number of sessions that the clients have joined
ADDRESS = "127.0.3.1"  # of the one session pod that plays all of them
HEARTBEAT = 10.0  # seconds, as in the session pod
UNLIMITED = {
    "subject_rate": "1e9",
    "subject_burst": "1000000000",
    "address_rate": "1e9",
    "address_burst": "1000000000",
    "max_connections_per_address": "100000",
    "drain_delay": "0s",
}
MIB, KIB = 2**20, 2**10


# --- the gateway's surroundings -------------------------------------------------------------------


def status(restorations: int = 0) -> Body:
    """Return the status of a ready session as the operator writes it."""
    reasons = {
        "Ready": "Connected",
        "PodReady": "PodRunning",
        "StorageReady": "VolumeBound",
        "Authenticated": "Connected",
        "Restored": "NewLogin",
        "Progressing": "UpToDate",
        "Degraded": "AsExpected",
    }
    conditions = [
        {
            "type": kind,
            "status": str(kind not in ("Restored", "Progressing", "Degraded")),
            "reason": reason,
            "message": "",
            "lastTransitionTime": "2026-10-01T10:00:00Z",
            "observedGeneration": 1,
        }
        for kind, reason in reasons.items()
    ]
    return {
        "phase": "Ready",
        "accountStatus": "ready",
        "sessionValid": True,
        "isAuthenticated": True,
        "authState": "CONNECTED",
        "restored": False,
        "restorations": restorations,
        "lastConnected": "2026-10-01T10:00:00Z",
        "conditions": conditions,
        "account": {"id": "15551234567@c.us", "pushName": "Sales", "platform": "android"},
        "observedGeneration": 1,
        "podName": "wasession-pod",
        "podUID": "1",
        "nodeName": "node-1",
        "lastDisconnect": {"at": "2026-10-01T09:59:50Z", "kind": "Connection", "reason": "TIMEOUT"},
    }


def name(number: int) -> str:
    return f"session-{number:04}"


def owner(number: int) -> str:
    return f"user-{number // (SESSIONS // OWNERS)}"


async def stream(request: web.Request) -> web.StreamResponse:
    """Serve the event stream of a session pod without news."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    state = {"clientId": "x", "startedAt": now(), "seq": 1, "phase": "Ready", "reason": "Connected"}
    await response.write(f"id: 1\nevent: state\ndata: {json.dumps(state)}\n\n".encode())
    while True:
        await asyncio.sleep(HEARTBEAT)
        await response.write(b": still here\n\n")


@contextlib.asynccontextmanager
async def gateway(directory: Path) -> AsyncIterator[tuple[ApiServer, Process]]:
    """Run a gateway that knows all sessions, with its API server and session pods."""
    api, pods = ApiServer(), web.Application()
    pods.router.add_get("/v1/events", stream)
    for number in range(SESSIONS):
        await api.put(name(number), {"owner": owner(number), "clientId": name(number)}, status())
        api.add_pod(name(number), ADDRESS)
    async with serving(api.app, "127.0.0.1") as api.port, serving(pods, ADDRESS, 8080):
        process = Process(api, directory, **UNLIMITED)
        await process.start()
        try:
            yield api, process
        finally:
            process.process.kill()
            await process.process.wait()


@contextlib.asynccontextmanager
async def program(module: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdin=pipe, stdout=pipe, limit=2**24
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def peer(content: Path) -> AsyncIterator[tuple[int, int]]:
    """Run the peers; yield their port and process id."""
    port = unused_port()
    async with program("bench.gateway.peer", str(port), str(content)) as process:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with (
                    aiohttp.ClientSession() as http,
                    http.get(f"http://127.0.0.1:{port}/hello"),
                ):
                    break
            await asyncio.sleep(0.05)
        yield port, process.pid


def port_of(process: Process) -> int:
    return int(process.url.rpartition(":")[2])


# --- lists ----------------------------------------------------------------------------------------


async def ask(port: int, path: str, who: str) -> list[Load]:
    found = []
    for connections in CONNECTIONS:
        order = load.Order(
            port=port, path=path, token=who, connections=connections, seconds=LOAD_SECONDS
        )
        async with program("bench.gateway.load") as process:
            said, _ = await process.communicate(order.model_dump_json().encode())
        found.append(Load.model_validate_json(said))
    return found


def reads(api: ApiServer) -> int:
    """Return the number of calls so far, without the watch, which the gateway reopens when idle."""
    return sum(calls for call, calls in api.calls.items() if not call.startswith("WATCH "))


async def lists(directory: Path) -> Lists:
    """Measure the lists of a user and an admin, and plain aiohttp with as many bytes."""
    user, admin = token(owner(0)), token("root", role="admin")
    pages = {
        "a user's 10 sessions": ("/whatsapp/sessions", user),
        "a page of 100": ("/whatsapp/sessions", admin),
        "all 1000 in one page": ("/whatsapp/sessions?limit=1000", admin),
    }
    found = Lists(sessions=SESSIONS)
    content = directory / "content"
    async with gateway(directory) as (api, process):
        before = reads(api)
        for page, (path, who) in pages.items():
            found.loads[f"{GATEWAY}: {page}"] = await ask(port_of(process), path, who)
            content.write_bytes(b"x" * found.loads[f"{GATEWAY}: {page}"][0].bytes)
            async with peer(content) as (port, _):
                found.loads[f"{BYTES}: {page}"] = await ask(port, "/file", "x")
        found.requests = sum(
            load.milliseconds.count for page in pages for load in found.loads[f"{GATEWAY}: {page}"]
        )
        found.api_calls = reads(api) - before
        found.memory_mib = process.memory / MIB
        async with peer(content) as (port, _):
            found.loads[HELLO] = await ask(port, "/hello", "x")
    return found


# --- clients --------------------------------------------------------------------------------------


class Joined(BaseModel):
    joined: float


class Heard(BaseModel):
    event: int
    at: list[float]


@dataclass
class Server:
    """A server; ``tell`` makes it send an event, by its number, to the clients of a session."""

    port: int
    pid: int
    tell: Callable[[str, int], Awaitable[None]]

    @property
    def memory(self) -> int:
        """Bytes that it does not share."""
        return int(psutil.Process(self.pid).memory_full_info().uss)

    @property
    def cpu(self) -> float:
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)


async def told_by_gateway(directory: Path, sessions: int) -> Told:
    async with gateway(directory) as (api, process):

        async def tell(session: str, event: int) -> None:
            await api.status(session, restorations=event)

        return await told(Server(port_of(process), process.process.pid, tell), sessions)


async def told_by_peer(directory: Path, sessions: int) -> Told:
    """Measure python-socketio with the same event, sent to rooms."""
    content = directory / "content"
    content.write_bytes(b"")
    async with (
        peer(content) as (port, pid),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
    ):

        async def tell(session: str, event: int) -> None:
            view = {
                "clientId": session,
                "owner": "user-0",
                "name": session,
                **status(event),
                "version": "1000",
            }
            await http.post("/tell", json=view)

        return await told(Server(port, pid, tell), sessions)


async def told(server: Server, sessions: int) -> Told:
    """Measure changes from the server to all clients.

    They follow each other if all clients have joined one session; else there are fifty per second.
    """
    order = clients.Order(
        port=server.port,
        tokens={name(number): token(owner(number)) for number in range(sessions)},
        clients=CLIENTS // sessions,
    )
    await asyncio.sleep(1)
    empty = server.memory
    async with program("bench.gateway.clients") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(order.model_dump_json().encode() + b"\n")
        joined = Joined.model_validate_json(await process.stdout.readline()).joined
        began: dict[int, float] = {}
        heard: dict[int, Heard] = {}

        async def listen(output: asyncio.StreamReader) -> None:
            while line := await output.readline():
                event = Heard.model_validate_json(line)
                heard[event.event] = event

        listening = asyncio.create_task(listen(process.stdout))
        await asyncio.sleep(2)
        cpu, since = server.cpu, time.monotonic()
        await asyncio.sleep(IDLE_SECONDS)
        idle = (server.cpu - cpu) / (time.monotonic() - since)
        cpu, since = server.cpu, time.monotonic()
        for event in range(1, EVENTS[sessions] + 1):
            began[event] = time.monotonic()
            await server.tell(name(event % sessions), event)
            if sessions == 1:
                await until(lambda event=event: event in heard)  # type: ignore[misc]
            else:
                await asyncio.sleep(0.02)
        await until(lambda: len(heard) == len(began))
        busy = server.cpu - cpu - idle * (time.monotonic() - since)
        full = server.memory
        listening.cancel()
    milliseconds = [(at - began[event.event]) * 1000 for event in heard.values() for at in event.at]
    return Told(
        clients=CLIENTS,
        sessions=sessions,
        milliseconds=Quantiles.of(milliseconds),
        joined_seconds=joined,
        kib_per_client=(full - empty) / KIB / CLIENTS,
        cpu_microseconds=busy / len(milliseconds) * 1e6,
        idle_cpu_percent=idle * 100,
    )
