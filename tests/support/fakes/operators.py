"""Operators as processes, which can be killed at any moment."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from support.fakes.network import Network
from support.processes import ENDS_WITH_PARENT

ZYGOTE = Path(__file__).with_name("zygote.py")


class Operators:
    """Starts operators inside the network."""

    def __init__(self, network: Network, directory: Path) -> None:
        self.directory = directory
        self._network = network
        self._count = 0
        self.master_key = directory / "master-key"
        self.master_key.write_bytes(base64.b64encode(os.urandom(32)))
        command = [*ENDS_WITH_PARENT, sys.executable, str(ZYGOTE)]
        self._zygote = network.run(
            subprocess.Popen, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def stop(self) -> None:
        assert self._zygote.stdin is not None
        self._zygote.stdin.close()
        self._zygote.wait()

    def start(
        self, api: str, *, imported: bool = True, descriptors: int | None = None, **settings: str
    ) -> OperatorProcess:
        """Start an operator for the API server at ``api``.

        ``settings`` are its WASESSION_ variables in lower case. Unless ``imported``, it is a plain
        ``python -m wasession_operator`` instead of a fork of the zygote. ``descriptors`` is the
        soft limit of open file descriptors that a fork starts with.
        """
        self._count += 1
        log = self.directory / f"operator-{self._count}.log"
        kubeconfig = self.directory / f"operator-{self._count}.conf"
        kubeconfig.write_text(json.dumps(_kubeconfig(api)))
        environment = {f"WASESSION_{name.upper()}": value for name, value in settings.items()}
        environment["KUBECONFIG"] = str(kubeconfig)
        environment.setdefault("WASESSION_MASTER_KEY_FILE", str(self.master_key))
        if imported:
            order = {"environment": environment, "log": str(log), "descriptors": descriptors}
            pid = self._fork(order)
        else:
            with log.open("wb") as output:
                started = self._network.run(
                    subprocess.Popen,
                    [*ENDS_WITH_PARENT, sys.executable, "-m", "wasession_operator"],
                    env={**os.environ, **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
            pid = started.pid
        return OperatorProcess(pid, log)

    def _fork(self, order: object) -> int:
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        self._zygote.stdin.write(f"{json.dumps(order)}\n")
        self._zygote.stdin.flush()
        return int(self._zygote.stdout.readline())


class OperatorProcess:
    """One run of the operator."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self.log = log
        self._fd = os.pidfd_open(pid)
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._fd, self._end)

    @property
    def running(self) -> bool:
        return not self._ended.is_set()

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send(signal.SIGKILL)

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    async def ended(self, timeout: float = 60) -> None:
        """Return when the process has ended; raises ``TimeoutError``."""
        async with asyncio.timeout(timeout):
            await self._ended.wait()

    def _send(self, number: int) -> None:
        if self.running:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                signal.pidfd_send_signal(self._fd, number)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
        self._ended.set()


def _kubeconfig(api: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": api}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
