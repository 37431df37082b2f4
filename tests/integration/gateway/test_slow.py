"""Callers that are slow on purpose: half-sent requests and unread responses end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from integration.gateway.conftest import Start
from integration.gateway.fakes import ApiServer, Pod
from integration.gateway.replica import READY, Replica, token, until
from wasession_gateway import http_server, rest, socketio_connections

REQUEST = (
    f"GET /whatsapp/sessions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token('alice')}\r\n"
)
JSON = f"{REQUEST.replace('GET', 'POST')}Content-Type: application/json\r\nContent-Length: 100\r\n"
POLLING = "/socket.io/?EIO=4&transport=polling"


@contextlib.asynccontextmanager
async def connection(
    gateway: Replica, **options: Any
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), **options)
    try:
        yield reader, writer
    finally:
        writer.close()


async def response(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read a response with a Content-Length; return its status and body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(head.lower().split("content-length: ")[1].split()[0])
    return int(head.split()[1]), await reader.readexactly(length)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "HEADER_TIMEOUT", 0.3)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("sent", ["", "G", REQUEST, f"{REQUEST}X-Very: "])
async def test_half_sent_requests_end(gateway: Replica, sent: str) -> None:
    async with connection(gateway) as (reader, writer):
        writer.write(sent.encode())
        assert await reader.read() == b""


@pytest.mark.usefixtures("hasty")
async def test_a_half_sent_second_request_ends_and_an_idle_connection_does_not(
    gateway: Replica,
) -> None:
    async with (
        connection(gateway) as (idle, idle_writer),
        connection(gateway) as (slow, slow_writer),
    ):
        for reader, writer in ((idle, idle_writer), (slow, slow_writer)):
            writer.write(f"{REQUEST}\r\n".encode())
            assert (await response(reader))[0] == 200
        slow_writer.write(REQUEST.encode())
        assert await slow.read() == b""
        idle_writer.write(f"{REQUEST}\r\n".encode())
        assert (await response(idle))[0] == 200


@pytest.mark.usefixtures("hasty")
async def test_answers_and_bodies_may_take_longer(api: ApiServer, start: Start, pod: Pod) -> None:
    gateway = await start(restore_timeout="1s")
    await api.put("slow", {"owner": "alice"}, {"phase": "Restoring", "sessionValid": True})
    await gateway.ask("alice", "POST", "/whatsapp/restore-session/slow", 504)
    body = json.dumps({"clientId": "sales", "to": "15550001111", "text": "x" * 20}).encode()
    head = JSON.replace("/sessions", "/messages").replace(": 100", f": {len(body)}")
    async with connection(gateway) as (reader, writer), connection(gateway) as (other, _):
        writer.write(f"{head}\r\n".encode())
        assert await other.read() == b"", "as long as a connection without a request"
        writer.write(body)
        assert await reader.readuntil(b" 201 ")
    async with gateway.http.ws_connect("/socket.io/?EIO=4&transport=websocket") as socket:
        await socket.receive()
        async with connection(gateway) as (other, _):
            assert await other.read() == b""
        await socket.send_str("40/whatsapp,")
        assert (await socket.receive()).data.startswith("40/whatsapp,")


async def test_half_sent_bodies_end(
    gateway: Replica, monkeypatch: pytest.MonkeyPatch, pod: Pod
) -> None:
    await gateway.caught_up()
    monkeypatch.setattr(rest, "BODY_TIMEOUT", 0.2)
    monkeypatch.setattr(socketio_connections, "BODY_TIMEOUT", 0.2)
    async with gateway.http.get(POLLING) as answer:
        sid = json.loads((await answer.text())[1:])["sid"]
    for path in (
        "/whatsapp/sessions",
        "/whatsapp/messages",
        "/whatsapp/sessions/sales/messages",
        f"{POLLING}&sid={sid}",
    ):
        async with connection(gateway) as (reader, writer):
            writer.write(f"{JSON.replace('/whatsapp/sessions', path)}\r\n{{".encode())
            status, body = await response(reader)
            assert status == 408, path
            assert "did not arrive" in json.loads(body)["detail"]
    assert pod.sent == []


async def test_unread_responses_end(
    api: ApiServer, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "UNREAD_TIMEOUT", 0.5)
    gateway = await start(subject_burst=10_000, address_burst=10_000)
    for number in range(200):
        await api.put(f"session-{number}", {"owner": "alice"}, READY)
    await gateway.caught_up()
    [_, runner] = gateway.gateway._runners
    server = runner.server
    assert server is not None
    async with connection(gateway, limit=1) as (_, writer):
        assert isinstance(writer.transport, asyncio.Transport)
        writer.transport.pause_reading()
        for _ in range(200):
            writer.write(f"{REQUEST.replace('sessions', 'sessions?limit=1000')}\r\n".encode())
        await until(lambda: len(server.connections) == 1)
        await until(lambda: len(server.connections) == 0)
