"""Operators as processes, which can be killed at any moment."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from support.fakes.network import Network
from support.processes import ENDS_WITH_PARENT

ZYGOTE = Path(__file__).with_name("zygote.py")
CLOCK_MOVED = signal.SIGUSR2  # see zygote.py, which is not to be imported here


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
        self,
        api: str,
        *,
        imported: bool = True,
        descriptors: int | None = None,
        variables: Mapping[str, str] | None = None,
        **settings: str,
    ) -> OperatorProcess:
        """Start an operator for the API server at ``api``.

        ``settings`` are its WASESSION_ variables in lower case, ``variables`` further ones. Unless
        ``imported``, it is a plain ``python -m wasession_operator`` instead of a fork of the
        zygote. ``descriptors`` is the soft limit of open file descriptors that a fork starts with.
        """
        self._count += 1
        log = self.directory / f"operator-{self._count}.log"
        kubeconfig = self.directory / f"operator-{self._count}.conf"
        kubeconfig.write_text(json.dumps(_kubeconfig(api)))
        environment = {f"WASESSION_{name.upper()}": value for name, value in settings.items()}
        environment |= {"KUBECONFIG": str(kubeconfig), **(variables or {})}
        environment.setdefault("WASESSION_MASTER_KEY_FILE", str(self.master_key))
        clock = None
        if imported:
            clock = Clock(self.directory / f"operator-{self._count}.clock")
            order = {
                "environment": environment,
                "log": str(log),
                "clock": str(clock.path),
                "descriptors": descriptors,
            }
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
        return OperatorProcess(pid, log, clock)

    def _fork(self, order: object) -> int:
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        self._zygote.stdin.write(f"{json.dumps(order)}\n")
        self._zygote.stdin.flush()
        return int(self._zygote.stdout.readline())


class Clock:
    """The file by which the clocks of a fork of the zygote run ahead of the machine's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._monotonic = self._wall = 0.0  # seconds
        self.move(0.0, 0.0)

    def move(self, monotonic: float, wall: float) -> None:
        """Move the clocks forward by these seconds, or back."""
        self._monotonic += monotonic
        self._wall += wall
        with self.path.open("r+b" if self.path.exists() else "wb", buffering=0) as file:
            file.write(struct.pack("dd", self._monotonic, self._wall))


class OperatorProcess:
    """One run of the operator; only a fork of the zygote has a clock that can be moved."""

    def __init__(self, pid: int, log: Path, clock: Clock | None = None) -> None:
        self.pid = pid
        self.log = log
        self._clock = clock
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

    def pause(self) -> None:
        """Send SIGSTOP: the process stands still, and its connections stay open."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def advance(self, seconds: float) -> None:
        """Let time pass in the process at once; all timers that are due then expire together."""
        self._move(seconds, seconds)

    def skew(self, seconds: float) -> None:
        """Move only the wall clock of the process, forward or back."""
        self._move(0.0, seconds)

    async def ended(self, timeout: float = 60) -> None:
        """Return when the process has ended; raises ``TimeoutError``."""
        async with asyncio.timeout(timeout):
            await self._ended.wait()

    def _move(self, monotonic: float, wall: float) -> None:
        assert self._clock is not None, "only a fork has a clock that can be moved"
        self._clock.move(monotonic, wall)
        self._send(CLOCK_MOVED)

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
