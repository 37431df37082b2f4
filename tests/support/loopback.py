"""Loopback addresses and ports that belong to one test process alone, also when several run."""

from __future__ import annotations

import itertools
import os
import socket

# Below the ports that Linux gives to outgoing connections (from 32768 on).
FIRST_PORT = 20000
PORTS = 1000  # for each process
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))

_offsets = itertools.cycle(range(PORTS))


def unused_port() -> int:
    """Return a port of this process on which nothing listens.

    A port that the kernel chooses may be in use again by the time that a program listens on it.
    """
    for offset in itertools.islice(_offsets, PORTS):
        port = FIRST_PORT + WORKER % 12 * PORTS + offset
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port from {FIRST_PORT} on")


def pod_address(number: int) -> str:
    """Return one of this process's addresses for fake session pods, which all have one port."""
    return f"127.1.{WORKER}.{number}"
