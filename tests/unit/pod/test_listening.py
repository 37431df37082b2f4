"""Probes of a pod that has just started wait for its answer; none is refused."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
from wasession_pod.listening import listen


def test_the_pod_listens_before_it_imports_what_takes_long() -> None:
    code = (
        "import sys, wasession_pod.__main__; "
        "print(*{'aiohttp', 'playwright', 'pydantic', 'asyncio'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout.split() == []


def test_a_connection_waits_in_the_backlog() -> None:
    [listener] = listen("127.0.0.1", 0)
    with listener, socket.create_connection(listener.getsockname(), timeout=10) as client:
        client.sendall(b"GET /readyz HTTP/1.1\r\n\r\n")
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(100).startswith(b"GET /readyz")


def test_an_address_in_use_is_an_error() -> None:
    [listener] = listen("127.0.0.1", 0)
    with listener, pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", listener.getsockname()[1])
