"""The process of Chromium: started with a pipe for its DevTools protocol, watched, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from wasession_pod.browser import cdp
from wasession_pod.browser.errors import BrowserError, first_line

LOWEST_COPY = 10  # descriptor of what becomes the child's 0 to 4, so that none is overwritten
ERROR_TAIL = 4096  # bytes of what Chromium writes to stderr that are kept
# Seconds for processes that outlive the browser's: the service that stores localStorage writes it.
REST_TIMEOUT = 5.0
KILL_TIMEOUT = 5.0  # seconds after SIGKILL; a process that waits for a volume may take forever
DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)  # which Python ignores, as would its children


class Chromium:
    """A browser's process and the connection to it.

    ``exited`` has its exit status, negative for a signal. When this process ends, however that
    comes about, the pipe closes: Chromium then writes its profile and exits, unless its container
    ends first.
    """

    def __init__(self, pid: int, connection: cdp.Connection, errors: LastLine) -> None:
        self.connection = connection
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pid, self._errors = pid, errors
        self._pidfd = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)

    async def failure(self) -> str | None:
        """Return how it has exited, with its last line on stderr; None while it runs."""
        if self.connection.closed.done():  # it exits, or is about to
            await asyncio.wait({self.exited}, timeout=REST_TIMEOUT)
        if not self.exited.done():
            return None
        status = self.exited.result()
        how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
        return f"it {how}: {self._errors.line}" if self._errors.line else f"it {how}"

    async def close(self, timeout: float) -> bool:
        """Let it write its profile and exit; kill it if it takes longer than ``timeout`` seconds.

        Return whether it has exited by itself and well. No process of it is left then.
        """
        try:
            async with asyncio.timeout(timeout):
                with contextlib.suppress(cdp.ProtocolError):
                    await self.connection.call("Browser.close")
                await asyncio.shield(self.exited)
            async with asyncio.timeout(REST_TIMEOUT):
                await asyncio.shield(self._errors.ended)
        except TimeoutError:
            await self.kill()
            return False
        return self.exited.result() == 0

    async def kill(self) -> None:
        """Kill it and all processes below it, without its profile being written."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILL_TIMEOUT):
                await asyncio.shield(self.exited)
                await asyncio.shield(self._errors.ended)

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        _, status = os.waitpid(self._pid, 0)
        self.connection.close()
        self.exited.set_result(os.waitstatus_to_exitcode(status))


class LastLine(asyncio.Protocol):
    """The stderr of all processes, of which the end is kept; ``ended`` once none is left."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tail = b""

    @property
    def line(self) -> str:
        """The last line that is not empty, cut to size."""
        lines = self._tail.decode(errors="replace").split("\n")
        return first_line(next((line for line in reversed(lines) if line.strip()), ""))

    def data_received(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-ERROR_TAIL:]

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(None)


async def start(
    program: Path, arguments: Sequence[str], environment: Mapping[str, str]
) -> Chromium:
    """Start Chromium in a session and process group of its own; raise ``BrowserError``."""
    pipe, child_pipe = socket.socketpair()
    stderr, child_stderr = socket.socketpair()
    with child_pipe, child_stderr:  # the connections end with these if no process has them
        connection = await cdp.connect(pipe)
        _, errors = await asyncio.get_running_loop().create_connection(LastLine, sock=stderr)
        try:
            pid = _spawn(program, arguments, environment, child_pipe, child_stderr)
        except OSError as error:
            raise BrowserError(f"could not start {program}: {error.strerror}") from None
    return Chromium(pid, connection, errors)


def _spawn(
    program: Path,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    pipe: socket.socket,
    stderr: socket.socket,
) -> int:
    """Return the new process's ID; ``pipe`` becomes its descriptors 3 and 4. Raises ``OSError``."""
    with contextlib.ExitStack() as stack:
        copies = []
        for end in (pipe, stderr):
            copies.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, LOWEST_COPY))
            stack.callback(os.close, copies[-1])
        protocol, errors = copies
        return os.posix_spawn(
            program,
            [str(program), *arguments],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, errors, 2),
                (os.POSIX_SPAWN_DUP2, protocol, 3),
                (os.POSIX_SPAWN_DUP2, protocol, 4),
            ],
            setsid=True,
            setsigdef=DEFAULT_SIGNALS,
        )
