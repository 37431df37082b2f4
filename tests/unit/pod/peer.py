"""Chromium's end of the pipe of its DevTools protocol, without Chromium."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

from wasession_pod.browser import cdp
from wasession_pod.browser.cdp import Connection


class Peer:
    """Receives calls, and sends what a test wants."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._buffer = b""

    async def receive(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        while b"\0" not in self._buffer:
            received = await loop.sock_recv(self._end, 2**16)
            assert received, "the pipe is closed"
            self._buffer += received
        message, self._buffer = self._buffer.split(b"\0", 1)
        call: dict[str, Any] = json.loads(message)
        return call

    async def send(self, *messages: dict[str, Any] | bytes) -> None:
        loop = asyncio.get_running_loop()
        for message in messages:
            raw = message if isinstance(message, bytes) else json.dumps(message).encode()
            await loop.sock_sendall(self._end, raw + b"\0")

    async def answer(self, **result: Any) -> dict[str, Any]:
        """Answer the next call, and return it."""
        call = await self.receive()
        await self.send({"id": call["id"], "result": result})
        return call

    def close(self) -> None:
        self._end.close()


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[Connection, Peer]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    connection, peer = await cdp.connect(ours), Peer(theirs)
    yield connection, peer
    connection.close()
    peer.close()


async def round_trip(connection: Connection, peer: Peer) -> None:
    """Return once the connection has received all that the peer has sent before."""
    call = asyncio.create_task(connection.browser.call("Browser.getVersion"))
    await peer.answer()
    await call
