"""The contenders, with one interface: the session pod, and whatsapp-web.js in a Node program.

Both open ``https://web.whatsapp.com``, which Chromium resolves to the stand-in: whatsapp-web.js
knows no other address.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import ssl
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import aiohttp
import psutil
from support.loopback import unused_port
from support.standin import Phone, running
from support.standin.tls import self_signed
from support.standin.world import Behaviour, World

REAL = "web.whatsapp.com"
CHROMIUM = Path("/usr/bin/chromium")
PEER = Path(__file__).with_name("peer")
PATIENCE = 120.0  # seconds to wait for anything that a contender does
TOKEN = "token-of-the-benchmark"

Sign = Literal["qr", "ready"]


class Stuck(Exception):
    """The contender has not given any of the expected signs."""


class Contender(ABC):
    """One session, on the same data directory at each start."""

    name: str

    def __init__(self, directory: Path, flags: list[str]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._flags = directory, flags
        self.code = ""  # the last QR's text
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def log(self) -> IO[bytes]:
        return (self._directory.parent / f"{self._directory.name}.log").open("ab")

    @abstractmethod
    async def start(self) -> None:
        """Start the process; return at once."""

    async def until(self, *wanted: Sign) -> Sign:
        """Return the first of the wanted signs; raises ``Stuck`` after ``PATIENCE`` seconds."""
        try:
            async with asyncio.timeout(PATIENCE):
                async for sign in self._signs():
                    if sign in wanted:
                        return sign
        except TimeoutError:
            pass
        raise Stuck(f"{self.name}: no {' or '.join(wanted)} within {PATIENCE:.0f} s")

    @abstractmethod
    def _signs(self) -> AsyncIterator[Sign]:
        """Yield ``ready`` when it reports a ready session and a valid login, ``qr`` for each QR."""

    @abstractmethod
    async def send(self, to: str, text: str) -> float:
        """Send a text to a chat; return the milliseconds until the caller has WhatsApp's answer."""

    async def stop(self) -> None:
        """End it gracefully, as its documentation says."""
        assert self._process is not None
        await self._end()
        await asyncio.wait_for(self._process.wait(), PATIENCE)
        await self._close()

    @abstractmethod
    async def _end(self) -> None: ...

    @abstractmethod
    async def _close(self) -> None:
        """Close the connection to a process that has ended."""

    async def kill(self) -> None:
        """Send SIGKILL to all its processes, as when a container's first process is killed."""
        assert self._process is not None
        members = family(self.pid)
        # Stop them first, so that none can act on the end of another.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in members:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
        await self._process.wait()
        await asyncio.to_thread(psutil.wait_procs, members, PATIENCE)
        await self._close()


class SessionPod(Contender):
    """``python -m wasession_pod`` as it is in its image, through its HTTP API."""

    name = "session pod"

    @property
    def settings(self) -> Mapping[str, str]:
        return {
            "client_id": "bench",
            "token": TOKEN,
            "data_dir": str(self._directory),
            "host": "127.0.0.1",
            "extra_args": json.dumps(self._flags),
            "chromium": str(CHROMIUM),
        }

    async def start(self) -> None:
        self._url = f"http://127.0.0.1:{(port := unused_port())}"
        self._http = aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"})
        settings = {**self.settings, "port": str(port)}
        environment = {
            **os.environ,
            # In its image, Python's bytecode is compiled; here the first start caches it.
            "PYTHONDONTWRITEBYTECODE": "",
            **{f"WASESSION_{name.upper()}": value for name, value in settings.items()},
        }
        command = [sys.executable, "-m", "wasession_pod"]
        with self.log() as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    async def _signs(self) -> AsyncIterator[Sign]:
        async with await self._events() as stream:
            async for line in stream.content:
                if not line.startswith(b"data: "):
                    continue
                state = json.loads(line[6:])
                if state["phase"] == "Ready" and state["sessionValid"]:
                    yield "ready"
                if state.get("pairing", {}).get("available"):
                    async with self._http.get(self._url + "/v1/pairing") as answer:
                        if answer.status == 200:
                            self.code = (await answer.json())["code"]
                            yield "qr"

    async def _events(self) -> aiohttp.ClientResponse:
        while True:
            try:
                return await self._http.get(
                    self._url + "/v1/events",
                    params={"types": "state"},
                    timeout=aiohttp.ClientTimeout(None),
                )
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.02)  # it does not listen yet

    async def send(self, to: str, text: str) -> float:
        before = time.perf_counter()
        async with self._http.post(
            self._url + "/v1/messages", json={"to": to, "text": text}
        ) as answer:
            assert answer.status == 201, await answer.text()
            await answer.read()
        return (time.perf_counter() - before) * 1000

    async def page_milliseconds(self) -> float:
        """Return the mean of all sends, from the call into the page to WhatsApp's answer.

        It comes from the pod's own metric.
        """
        async with self._http.get(self._url + "/metrics") as answer:
            lines = dict(
                line.rsplit(" ", 1)
                for line in (await answer.text()).splitlines()
                if not line.startswith("#")
            )
        return (
            1000
            * float(lines["wasession_pod_send_seconds_sum"])
            / float(lines["wasession_pod_send_seconds_count"])
        )

    async def _end(self) -> None:
        assert self._process is not None
        self._process.terminate()

    async def _close(self) -> None:
        await self._http.close()


class WhatsAppWebJs(Contender):
    """``peer.cjs``: whatsapp-web.js with LocalAuth, called in its own process."""

    name = "whatsapp-web.js"

    async def start(self) -> None:
        if not (PEER / "node_modules").exists():
            raise SystemExit("whatsapp-web.js is not installed: run `make setup`")
        # Its guide has --no-sandbox for root on Linux, where Chromium refuses its sandbox.
        flags = [*self._flags, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        order = {"dataPath": str(self._directory), "chromium": str(CHROMIUM), "args": flags}
        pipe = asyncio.subprocess.PIPE
        with self.log() as log:
            self._process = await asyncio.create_subprocess_exec(
                *("node", str(PEER / "peer.cjs"), json.dumps(order)),
                stdin=pipe,
                stdout=pipe,
                stderr=log,
                start_new_session=True,
            )
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._numbers = itertools.count()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            message = json.loads(line)
            if "event" in message:
                self._events.put_nowait(message)
            else:
                self._answers.pop(message["id"]).set_result(message)

    async def _signs(self) -> AsyncIterator[Sign]:
        while True:
            message = await self._events.get()
            match message["event"]:
                case "ready":
                    yield "ready"
                # It starts like this once the page has removed its QR.
                case "qr" if not message["qr"].startswith("undefined,"):
                    self.code = message["qr"]
                    yield "qr"

    async def order(self, name: str, **values: Any) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        number = next(self._numbers)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = future
        self._process.stdin.write(
            json.dumps({"id": number, "order": name, **values}).encode() + b"\n"
        )
        answer = await future
        assert "error" not in answer, answer
        return answer

    async def send(self, to: str, text: str) -> float:
        answer = await self.order("send", to=to, text=text, options={"waitUntilMsgSent": True})
        return float(answer["ms"])

    async def _end(self) -> None:
        await self.order("stop")

    async def _close(self) -> None:
        await self._reader


CONTENDERS: tuple[type[Contender], ...] = (SessionPod, WhatsAppWebJs)


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


@dataclass
class Stage:
    """The stand-in, with phones, and the flags that make Chromium open it."""

    phone: Phone
    flags: list[str]


@contextlib.asynccontextmanager
async def stage(directory: Path, behaviour: Behaviour) -> AsyncIterator[Stage]:
    """Serve web.whatsapp.com; its certificate is stored in ``directory``."""
    tls, key_hash = self_signed(directory, REAL)
    world = World()
    world.behaviour = behaviour
    async with running(world, tls=tls) as server:
        phone = Phone(server.url, ssl.create_default_context(cafile=str(directory / "tls.pem")))
        resolve = f"--host-resolver-rules=MAP {REAL} 127.0.0.1:{server.port}"
        yield Stage(phone, [resolve, f"--ignore-certificate-errors-spki-list={key_hash}"])
