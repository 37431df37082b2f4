"""A network namespace of its own: the addresses and ports in it meet nobody else's."""

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
    """A namespace with nothing but loopback, 127.0.0.0/8, and one thread that lives in it.

    A socket stays in the namespace that it was made in, and a program in that of the thread that
    started it. So whatever is to be inside is made by ``run``; using it needs nothing more.
    """

    def __init__(self) -> None:
        self._inside = ThreadPoolExecutor(1, thread_name_prefix="network")
        self.run(_enter)

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls a function in the namespace's thread."""
        return self._inside.submit(function, *args, **kwargs).result()

    def connector(self, **options: Any) -> aiohttp.TCPConnector:
        """For an HTTP client whose connections are inside."""
        return aiohttp.TCPConnector(socket_factory=self._socket, **options)

    def listen(self, address: str, port: int) -> socket.socket:
        """A listening socket; port 0 takes a free one."""
        return self.run(socket.create_server, (address, port), backlog=1024)

    def close(self) -> None:
        self._inside.shutdown()

    def _socket(self, address: Any) -> socket.socket:
        made = self.run(socket.socket, address[0], address[1], address[2])
        made.setblocking(False)
        return made


def _enter() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "a network namespace needs root")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
