"""Loopback addresses and ports of one test process, however many run on this machine."""

from __future__ import annotations

import functools
import itertools
import socket
from collections.abc import Iterator

# Below the ports that Linux gives to outgoing connections (from 32768 on).
FIRST_PORT = 20000
PORTS = 200  # for each process
PROCESSES = 60


def unused_port() -> int:
    """Return a port of this process on which nothing listens.

    A port that the kernel chooses may be taken again before a program listens on it.
    """
    for port in itertools.islice(_ports(), PORTS):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("all ports of this process are in use")


def pod_address(number: int) -> str:
    """Return one of this process's addresses for fake session pods, which all use one port."""
    return f"127.1.{_claim()[0]}.{number}"


@functools.cache
def _ports() -> Iterator[int]:
    first = FIRST_PORT + _claim()[0] * PORTS
    return itertools.cycle(range(first, first + PORTS))


@functools.cache
def _claim() -> tuple[int, socket.socket]:
    """Return a number that no other process has, and the socket whose name reserves it."""
    for number in range(PROCESSES):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0wasession-tests-{number}")
        except OSError:
            claim.close()
            continue
        return number, claim
    raise RuntimeError(f"more than {PROCESSES} test processes run on this machine")
