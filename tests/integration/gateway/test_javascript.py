"""Socket.IO with an unmodified socket.io-client from npm."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from integration.gateway.conftest import Start
from integration.gateway.fakes import ApiServer, Pod
from integration.gateway.replica import READY, Replica, token, until
from integration.gateway.test_socket import Client
from support.loopback import unused_port

GATEWAY = Path(__file__).parents[3] / "gateway"
README, SOCKET_IO = GATEWAY / "README.md", GATEWAY / "client" / "node_modules" / "socket.io-client"
SCRIPT = Path(__file__).with_name("application.mjs")


class Application:
    """A Node.js process with one client."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._heard: list[tuple[str, Any]] = []

    async def emit(self, name: str, **payload: Any) -> Any:
        """Emits an event and waits for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, payload]).encode() + b"\n")
        before = self._heard
        self._heard = []
        answer = await self._next(f"{name} answered")
        self._heard = before + self._heard
        return answer

    async def hears(self, name: str, **expected: Any) -> Any:
        """Waits for an event with this content, and forgets what was heard until then."""
        while self._heard:
            heard, data = self._heard.pop(0)
            if heard == name and _has(data, expected):
                return data
        data = await self._next(name, **expected)
        self._heard = []
        return data

    async def _next(self, name: str, **expected: Any) -> Any:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            heard, data = json.loads(line)
            if heard == name and _has(data, expected):
                return data
            self._heard.append((heard, data))
        raise AssertionError(f"the client has ended without {name}")


def _has(data: Any, expected: dict[str, Any]) -> bool:
    return all(data.get(key) == value for key, value in expected.items())


@pytest.fixture
async def application(gateway: Replica) -> AsyncIterator[Any]:
    async with contextlib.AsyncExitStack() as stack:

        async def begin(
            who: str, url: str = gateway.url, claims: dict[str, Any] | None = None, **options: Any
        ) -> Application:
            chosen = {
                "auth": {"token": token(who, **(claims or {}))},
                "reconnectionDelay": 100,
                **options,
            }
            process = await asyncio.create_subprocess_exec(
                "node",
                str(SCRIPT),
                f"{url}/whatsapp",
                json.dumps(chosen),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=2**20,
            )
            stack.push_async_callback(process.wait)
            stack.callback(process.kill)
            return Application(process)

        yield begin


@pytest.mark.parametrize("transports", [["polling"], ["polling", "websocket"], ["websocket"]])
async def test_from_qr_to_message(
    api: ApiServer, gateway: Replica, application: Any, pod: Pod, transports: list[str]
) -> None:
    await api.status("sales", phase="Authenticating", lastConnected=None)
    await gateway.caught_up()
    app = await application("alice", transports=transports)
    await app.hears("connect")
    assert (await app.emit("init", clientId="sales"))["ok"] is True
    await until(lambda: pod.followers == 1)
    await pod.offers("2@code", attempt=1)
    await app.hears("qr", clientId="sales", qr="2@code")
    await api.status("sales", **READY)
    assert (await app.hears("ready"))["isRestored"] is False
    await pod.receives("Hello from the phone ☎")
    await app.hears("message", text="Hello from the phone ☎")
    await api.status("sales", phase="Restoring", podName=None)
    await app.hears("disconnected", kind="Connection")
    await api.status("sales", **READY | {"restored": True, "restorations": 1})
    await app.hears("ready", isRestored=True)
    await app.hears("restored_session_ready")


async def test_a_gateway_goes_and_the_client_finds_another(
    api: ApiServer, start: Start, application: Any
) -> None:
    await api.put("sales", {"owner": "alice"}, READY)
    port = unused_port()
    first = await start(port=port)
    app = await application("alice", url=f"http://127.0.0.1:{port}")
    await app.hears("connect")
    await app.emit("init", clientId="sales")
    await first.stop()
    await app.hears("closing", reason="ShuttingDown", reconnect=True)
    assert (await app.hears("disconnect"))["active"] is True, "it will connect again by itself"
    await api.status("sales", phase="LoggedOut", sessionValid=False)  # while nobody listens
    await start(port=port)
    await app.hears("connect")
    await app.emit("init", clientId="sales")
    await app.hears("logged_out")


async def test_an_expired_token_keeps_the_client_away(gateway: Replica, application: Any) -> None:
    app = await application("alice")
    await app.hears("connect")
    gateway.expire_tokens(until=time.time() + 5000)
    await app.hears("closing", reason="TokenExpired", reconnect=False)
    assert await app.hears("disconnect") == {"reason": "io server disconnect", "active": False}


async def test_a_bad_token_is_rejected_with_a_reason(application: Any) -> None:
    app = await application("alice", claims={"exp": 1})
    refused = await app.hears("connect_error")
    assert refused["message"] == "the token has expired"
    assert refused["data"]["status"] == 401
    assert refused["active"] is False


async def test_the_readmes_example_joins_in_the_end(api: ApiServer, start: Start) -> None:
    """When too many clients of a user join at once, the answer says when to try again."""
    await api.put("sales-eu", {"owner": "alice"}, READY)
    gateway = await start(subject_rate=0.5, subject_burst=1)
    await gateway.caught_up()
    earlier = await Client(gateway.url).connect("alice")
    assert (await earlier.init())["ok"] is True
    async with example(0, gateway, "const show = () => {};") as output:
        lines = list[bytes]()
        while "sales-eu" not in (line := await output.readline()).decode():
            assert line, lines
            lines.append(line)
    await earlier.io.disconnect()


async def test_the_readmes_example_misses_nothing(
    gateway: Replica, pod: Pod, tmp_path: Path
) -> None:
    """It is killed after each message, while further ones arrive."""
    await gateway.caught_up()
    functions = (
        'const { existsSync, readFileSync, writeFileSync } = require("node:fs");'
        f"const file = {json.dumps(str(tmp_path / 'cursors'))};"
        "const load = () => (existsSync(file) ? JSON.parse(readFileSync(file)) : {});"
        "const save = (cursors) => writeFileSync(file, JSON.stringify(cursors));"
        "const handle = ({ text }) => console.log(text);"
    )
    cursors = tmp_path / "cursors"
    async with example(1, gateway, functions):
        await until(cursors.exists)
    expected = 0
    for _ in range(3):
        for number in range(3):
            await pod.receives(str(expected + number))
        async with example(1, gateway, functions) as output:
            for number in range(3):
                assert (await output.readline()).decode() == f"{expected + number}\n"
            expected += 3
            await until(partial(lambda last: last in cursors.read_text(), pod.latest))


@contextlib.asynccontextmanager
async def example(
    which: int, gateway: Replica, functions: str
) -> AsyncIterator[asyncio.StreamReader]:
    """Run one of the README's examples, with these functions, until killed."""
    examples = re.findall(r"```js\n(.*?)```", README.read_text(), re.DOTALL)
    prelude = (
        f"const {{ io }} = require({json.dumps(str(SOCKET_IO))});"
        f"const token = {json.dumps(token('alice'))};"
    )
    script = prelude + functions + examples[which].replace("https://gateway.example", gateway.url)
    process = await asyncio.create_subprocess_exec(
        "node", "-e", script, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield process.stdout
    finally:
        process.kill()
        await process.wait()
