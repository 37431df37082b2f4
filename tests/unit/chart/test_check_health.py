"""What the pod of `helm test` runs: it asks each replica, and says which one is not ready."""

from __future__ import annotations

import http.server
import runpy
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.loopback import unused_port

SCRIPT = Path(__file__).parents[3] / "charts/wasession-operator/files/check_health.py"


class Replica(http.server.BaseHTTPRequestHandler):
    """Answers with what is in ``statuses``, the last one again and again."""

    statuses: list[int]
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(self.statuses[0] if len(self.statuses) == 1 else self.statuses.pop(0))
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def replica() -> Iterator[tuple[type[Replica], str]]:
    """Yield a handler of requests and the address of its server."""
    handler = type("Own", (Replica,), {"statuses": [200], "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield handler, f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def check(*targets: str, patience: float) -> int:
    """Run the script with another patience, in seconds."""
    script = runpy.run_path(str(SCRIPT))
    script["main"].__globals__.update(PATIENCE=patience, AGAIN_AFTER=0.01)
    result: int = script["main"](list(targets))
    return result


def test_all_are_ready(replica: tuple[type[Replica], str]) -> None:
    handler, address = replica
    handler.statuses[:] = [503, 200]
    assert check(address, patience=60) == 0
    assert handler.asked == ["/readyz", "/readyz"]


def test_one_is_not_ready(
    replica: tuple[type[Replica], str], capsys: pytest.CaptureFixture[str]
) -> None:
    handler, address = replica
    handler.statuses[:] = [503]
    assert check(address, patience=0) == 1
    assert capsys.readouterr().out == "127.0.0.1: 127.0.0.1: /readyz answers 503\n"


def test_one_does_not_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert check(f"127.0.0.1:{unused_port()}", patience=0) == 1
    assert "127.0.0.1: 127.0.0.1: [Errno 111]" in capsys.readouterr().out


def test_there_are_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown(*_: object, **__: object) -> object:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert check("operator.system.svc:8080", patience=0) == 1
    assert "operator.system.svc: no replicas: [Errno -2]" in capsys.readouterr().out
