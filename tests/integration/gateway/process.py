"""The gateway as a separate process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import yaml
from integration.gateway.fakes import NAMESPACE, ApiServer, key_file
from integration.gateway.replica import SECRET
from support.loopback import unused_port
from support.processes import ENDS_WITH_PARENT


class Process:
    """One ``python -m wasession_gateway``."""

    def __init__(
        self,
        api: ApiServer,
        directory: Path,
        variables: Mapping[str, str] | None = None,
        /,
        **settings: str,
    ) -> None:
        """``variables`` are further ones, beside the settings."""
        kubeconfig = {
            "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{api.port}"}}],
            "users": [{"name": "fake", "user": {}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
            "current-context": "fake",
        }
        (directory / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
        self.key_file = directory / "session-key"
        self.key_file.write_text(key_file())
        port, management = unused_port(), unused_port()
        self.url, self.management = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{management}"
        chosen = {
            "host": "127.0.0.1",
            "port": str(port),
            "management_port": str(management),
            "namespace": NAMESPACE,
            "session_key_file": str(self.key_file),
        }
        self._environment = {
            "PATH": os.environ["PATH"],
            "KUBECONFIG": str(directory / "kubeconfig"),
            "JWT_SECRET": SECRET,
            **{
                f"WASESSION_{name.upper()}": value for name, value in {**chosen, **settings}.items()
            },
            **(variables or {}),
        }
        self._log = directory / "log"

    async def start(self) -> None:
        with self._log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *ENDS_WITH_PARENT,
                sys.executable,
                "-m",
                "wasession_gateway",
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        await self.becomes(200)

    async def becomes(self, readiness: int) -> None:
        """Waits for this answer to the readiness probe."""
        while await self.ready() != readiness:
            assert self.process.returncode is None, self._log.read_text()
            await asyncio.sleep(0.05)

    async def ready(self) -> int | None:
        with contextlib.suppress(aiohttp.ClientError):
            async with (
                aiohttp.ClientSession() as http,
                http.get(f"{self.management}/readyz") as answer,
            ):
                return answer.status
        return None

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    @property
    def memory(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)
