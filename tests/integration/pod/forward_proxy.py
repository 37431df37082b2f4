"""A small HTTP proxy that requires credentials and records its requests."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

REFUSAL = (
    b"HTTP/1.1 407 Proxy Authentication Required\r\n"
    b'Proxy-Authenticate: Basic realm="tests"\r\n'
    b"Content-Length: 0\r\n\r\n"
)


class Proxy:
    def __init__(self, username: str, password: str) -> None:
        self._expected = base64.b64encode(f"{username}:{password}".encode()).decode()
        self.passed: list[str] = []  # accepted requests: methods and targets
        self.refused: list[str] = []
        self.port = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError), contextlib.closing(writer):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, target, _ = head.split(" ", 2)
                if f"Proxy-Authorization: Basic {self._expected}" not in head:
                    self.refused.append(f"{method} {target}")
                    writer.write(REFUSAL)
                    await writer.drain()
                    continue
                self.passed.append(f"{method} {target}")
                await self._pass_on(method, target, head, reader, writer)
                return

    async def _pass_on(
        self,
        method: str,
        target: str,
        head: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        url = urlsplit(f"//{target}" if method == "CONNECT" else target)
        there, to_there = await asyncio.open_connection(url.hostname, url.port or 80)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            lines = [
                line
                for line in head.split("\r\n")[1:]
                if line and not line.lower().startswith(("proxy-", "connection:"))
            ]
            path = url._replace(scheme="", netloc="").geturl() or "/"
            to_there.write(
                "\r\n".join(
                    [f"{method} {path} HTTP/1.1", *lines, "Connection: close", "", ""]
                ).encode()
            )
        await asyncio.gather(_pour(reader, to_there), _pour(there, writer))


async def _pour(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await source.read(65536):
            target.write(chunk)
            await target.drain()
    target.close()
