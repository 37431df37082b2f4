"""A private network namespace, whose addresses and ports collide with nobody else's."""

from __future__ import annotations

import ctypes
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

import aiohttp

P = ParamSpec("P")
T = TypeVar("T")
CLONE_NEWNET = 0x40000000


class Network:
    """A namespace with nothing but loopback, 127.0.0.0/8, and one thread in it.

    A socket stays in the namespace where it was created, a program in that of the thread that
    started it. So create with ``run`` what has to be inside; afterwards use it from anywhere.
    """

    def __init__(self) -> None:
        self._inside = ThreadPoolExecutor(1, thread_name_prefix="network")
        self.run(_enter)

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in the namespace's thread and return its result."""
        return self._inside.submit(function, *args, **kwargs).result()

    def connector(self, **options: Any) -> aiohttp.TCPConnector:
        """Return a connector for HTTP clients that connect inside."""
        return aiohttp.TCPConnector(socket_factory=self._socket, **options)

    def listen(self, address: str, port: int) -> socket.socket:
        """Return a listening socket; port 0 chooses a free one."""
        return self.run(socket.create_server, (address, port), backlog=1024)

    def close(self) -> None:
        self._inside.shutdown()

    def _socket(self, address: Any) -> socket.socket:
        created = self.run(socket.socket, address[0], address[1], address[2])
        created.setblocking(False)
        return created


def _enter() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "a network namespace needs root")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
