"""A real nats-server with JetStream, built from the Go module beside this file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from support.cluster import binaries
from support.loopback import unused_port
from support.processes import ENDS_WITH_PARENT

import nats
import nats.errors
from nats.aio.client import Client

MODULE = Path(__file__).with_name("go")
PACKAGE = "github.com/nats-io/nats-server/v2"
PATIENCE = 20.0  # seconds


def program() -> Path:
    """Return the path of the program; the first build takes a minute."""
    return binaries.of_module(MODULE, "nats-server", PACKAGE)


class NatsServer:
    """A server on a port of its own, whose streams outlive its restarts.

    ``options`` are those of nats-server's configuration file, besides its port and storage.
    """

    def __init__(self, directory: Path, options: Mapping[str, Any] | None = None) -> None:
        self.port = unused_port()
        self._directory, self._options = directory, dict(options or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._spawn()
        async with asyncio.timeout(PATIENCE):
            while not await self._listens():  # noqa: ASYNC110 - it is about another process
                await asyncio.sleep(0.02)

    def _spawn(self) -> None:
        streams = {"store_dir": str(self._directory / "streams"), "sync_interval": "always"}
        settings = {"host": "127.0.0.1", "port": self.port, "jetstream": streams, **self._options}
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / "nats.conf"
        path.write_text(json.dumps(settings))
        with (self._directory / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*ENDS_WITH_PARENT, str(program()), "-c", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def end(self) -> None:
        """End it by SIGKILL, also while it stands still."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextlib.asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Client]:
        """Yield a client of its own, for what tests want to see or change."""
        client = await nats.connect(self.url, **options)
        try:
            yield client
        finally:
            await client.close()
