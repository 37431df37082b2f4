"""Hostile callers: they are rejected and disconnected, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import aiohttp
import pytest
from integration.gateway.conftest import Start
from integration.gateway.fakes import ApiServer, Pod
from integration.gateway.replica import Replica, token, until
from integration.gateway.test_socket import Client
from wasession_gateway import socketio_connections as connections
from wasession_gateway import socketio_namespace as socket

CONNECT = "/socket.io/?EIO=4&transport=websocket"
HELLO = f"40/whatsapp,{json.dumps({'token': token('mallory')})}"
ENGINE_PACKETS = [
    "",
    "9",
    "0",
    "1",
    "2",
    "2probe",
    "3",
    "4",
    "5",
    "6",
    "b",
    "b!!!",
    "bAAAA",
    "x",
    "{}",
    b"",
    b"4",
    b"\xff" * 100,
]
SOCKET_PACKETS: list[Any] = [
    "4",
    "49",
    "4" + "[" * 20_000,
    "4{" + '"a":{' * 4000,
    "42",
    '42["init"]',
    "40/elsewhere,",
    "40/whatsapp,[]",
    "42/whatsapp,",
    '42/whatsapp,["connect",{},{"token":"x"}]',
    '42/whatsapp,["disconnect"]',
    '42/whatsapp,[{"a":1}]',
    "42/whatsapp,[[]]",
    '43/whatsapp,99["x"]',
    '451-/whatsapp,["init",{"_placeholder":true,"num":0}]',
    '459999999999-/whatsapp,["init"]',
    '42/whatsapp,1["init","text"]',
    '42/whatsapp,2["init",[]]',
    '42/whatsapp,3["init",{"clientId":7}]',
    '42/whatsapp,4["init",{"clientId":"' + "x" * 20_000 + '"}]',
    '42/whatsapp,5["init",{"create":true,"clientId":"../../etc"}]',
    '42/whatsapp,6["init",{"owner":"alice","clientId":"sales"}]',
    '42/whatsapp,["unheard-of",{}]',
    "44/whatsapp,{}",
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "SWEEP", 0.05)


def all_gone(gateway: Replica) -> bool:
    """Whether no connection is open; the library drops closed ones later."""
    return all(engine.closed for engine in gateway.gateway._connections.server.eio.sockets.values())


async def heard(connection: aiohttp.ClientWebSocketResponse, start: str) -> str:
    """Read packets until one starts so, and return it."""
    async for message in connection:
        if message.type is aiohttp.WSMsgType.TEXT and message.data.startswith(start):
            return str(message.data)
    raise AssertionError(f"closed without {start}")


async def test_nonsense_on_the_wire(
    gateway: Replica, caplog: pytest.LogCaptureFixture, pod: Pod
) -> None:
    await gateway.caught_up()
    alice = await Client(gateway.url).connect("alice")
    await alice.init(clientId="sales")
    await until(lambda: pod.followers == 1)
    caplog.set_level(logging.WARNING)
    for nonsense in (*ENGINE_PACKETS, *SOCKET_PACKETS):
        async with gateway.http.ws_connect(CONNECT) as mallory:
            await mallory.send_str(HELLO)
            await heard(mallory, "40/whatsapp,")
            send = mallory.send_bytes if isinstance(nonsense, bytes) else mallory.send_str
            await send(nonsense)
            if nonsense != "1":  # goodbye
                await mallory.send_str('42/whatsapp,99["init",{}]')  # answered, unless disconnected
            async for message in mallory:
                if message.type is aiohttp.WSMsgType.TEXT and message.data.startswith(
                    "43/whatsapp,99"
                ):
                    break
    await pod.receives("all is well")
    await alice.hears("message", text="all is well")
    await alice.io.disconnect()
    await until(lambda: all_gone(gateway))
    assert not gateway.gateway._namespace._clients
    assert [
        record.getMessage()
        for record in caplog.records
        if record.name != "wasession_gateway.socketio"
    ] == []


async def test_packets_and_connections_have_limits(start: Start) -> None:
    gateway = await start(max_connections_per_address=3)
    async with gateway.http.ws_connect(CONNECT) as mallory:
        await mallory.send_str(HELLO)
        await heard(mallory, "40/whatsapp,")
        await mallory.send_str("4" + "x" * 40_000)
        closed = await mallory.receive()
        while closed.type is aiohttp.WSMsgType.TEXT:
            closed = await mallory.receive()
        assert closed.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
    open_ones = [await gateway.http.ws_connect(CONNECT) for _ in range(3)]
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await gateway.http.ws_connect(CONNECT)
    assert refused.value.status == 429
    for connection in open_ones:
        await connection.close()

    async def again() -> bool:
        try:
            await (await gateway.http.ws_connect(CONNECT)).close()
        except aiohttp.WSServerHandshakeError:
            return False
        return True

    while not await again():  # noqa: ASYNC110 - no event
        await asyncio.sleep(0.01)


async def test_nonsense_over_polling(gateway: Replica) -> None:
    polling = "/socket.io/?EIO=4&transport=polling"
    for path, method in (
        ("/socket.io/?EIO=3&transport=polling", "GET"),
        ("/socket.io/?EIO=4&transport=pigeon", "GET"),
        ("/socket.io/", "GET"),
        (f"{polling}&sid=guessed", "GET"),
        (f"{polling}&sid=guessed", "POST"),
        (polling, "POST"),
        (f"{polling}&j=x", "GET"),
    ):
        async with gateway.http.request(method, path) as answer:
            assert answer.status == 400, path
    async with gateway.http.delete(polling) as answer:
        assert answer.status == 405
    async with gateway.http.get(polling) as answer:
        sid = json.loads((await answer.text())[1:])["sid"]
    bodies: list[Any] = [
        "\x1e".join(["42[]"] * 100),
        b"\xff\xfe",
        "d=",
        "4" + "[" * 10_000,
        "",
        b"x" * 10_000_000,
    ]
    for body in bodies:
        async with gateway.http.post(f"{polling}&sid={sid}", data=body) as answer:
            assert answer.status in (200, 400, 413)
    await until(lambda: all_gone(gateway))


async def test_who_says_nothing_is_hung_up_on(
    gateway: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "INTRODUCTION", 0.2)
    async with (
        gateway.http.ws_connect(CONNECT) as stranger,
        gateway.http.ws_connect(CONNECT) as nameless,
    ):
        await nameless.send_str("40/whatsapp,")
        await heard(nameless, "40/whatsapp,")
        assert "NotAuthenticated" in await heard(nameless, '42/whatsapp,["closing"')
        await heard(nameless, "41/whatsapp,")
        for connection in (nameless, stranger):
            while (await connection.receive()).type not in (
                aiohttp.WSMsgType.CLOSE,
                aiohttp.WSMsgType.CLOSED,
            ):
                pass
    await until(lambda: all_gone(gateway))


async def test_who_does_not_read_is_hung_up_on(
    api: ApiServer, gateway: Replica, monkeypatch: pytest.MonkeyPatch, pod: Pod
) -> None:
    monkeypatch.setattr(connections, "FULL_QUEUE", 5)
    monkeypatch.setattr(connections, "FULL_FOR", 0.1)
    await gateway.caught_up()
    mallory = await gateway.http.ws_connect(CONNECT, max_msg_size=2**22)
    await mallory.send_str(f"40/whatsapp,{json.dumps({'token': token('alice')})}")
    await mallory.send_str('42/whatsapp,["init",{"clientId":"sales"}]')
    await until(lambda: pod.followers == 1)
    mallory._response.connection.transport.pause_reading()  # type: ignore[union-attr]
    monkeypatch.setattr(connections, "GOODBYE", 0.1)
    while gateway.gateway._connections._requests:
        await pod.receives("x" * 60_000)
        await asyncio.sleep(0.01)
    await until(lambda: all_gone(gateway) and not gateway.gateway._namespace._clients)


async def test_a_flood_of_inits(start: Start) -> None:
    gateway = await start(subject_rate=0.001, subject_burst=5)
    client = await Client(gateway.url).connect("mallory")
    answers = [await client.init() for _ in range(8)]
    assert [answer["ok"] for answer in answers] == [True] * 5 + [False] * 3
    problem = answers[-1]["problem"]
    assert problem["status"] == 429
    assert problem["detail"].endswith(f"try again in {problem['retryAfter']} s")
    assert (await client.hears("exception"))["retryAfter"] == problem["retryAfter"]
    await client.io.disconnect()


async def test_inits_without_a_token_count_against_the_address(start: Start) -> None:
    gateway = await start(address_rate=0.001, address_burst=5, subject_burst=100)
    client = await Client(gateway.url).connect()
    answers = [await client.init(token="x") for _ in range(6)]
    assert [answer["problem"]["status"] for answer in answers] == [401] * 5 + [429]
    await client.io.disconnect()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/whatsapp/sessions/sales/messages/..%2fscreenshot", 422),
        ("/whatsapp/sessions/sales/messages/true_1@c.us_AAAA%3Fx=1", 422),
        ("/whatsapp/sessions/..%2f..%2fx", 422),
        ("/whatsapp/sessions/%00", 422),
        ("/whatsapp/sessions/sales?owner=", 422),
        ("/whatsapp/sessions?limit=1&limit=2", 422),
        ("/whatsapp/../openapi.json", 404),
        ("//whatsapp/sessions", 404),
        ("/whatsapp/sessions/sales/chats?limit=0", 422),
    ],
)
async def test_paths_lead_nowhere_else(gateway: Replica, pod: Pod, path: str, status: int) -> None:
    await gateway.caught_up()
    assert await raw_status(gateway, path) == status


async def raw_status(gateway: Replica, path: str, headers: dict[str, str] | None = None) -> int:
    """Send a request as it is, which a client library might not; return the status."""
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    headers = {
        "Host": "x",
        "Authorization": f"Bearer {token('alice')}",
        "Connection": "close",
        **(headers or {}),
    }
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode(errors="surrogateescape"))
    answer = await reader.read()
    writer.close()
    return int(answer.split(b" ", 2)[1])


PAGES = ("/", "/openapi.json", "/whatsapp/sessions", "/socket.io/?EIO=4&transport=polling", "/no")


@pytest.mark.parametrize(
    "origin", ["http://[", "http://]", "http://[x]", "[", "http://\u2100.example"]
)
async def test_a_malformed_origin_is_forbidden(
    gateway: Replica, origin: str, caplog: pytest.LogCaptureFixture
) -> None:
    for path in PAGES:
        assert await raw_status(gateway, path, {"Origin": origin}) == 403, path
        preflight = {"Origin": origin, "Access-Control-Request-Method": "GET"}
        assert await raw_status(gateway, path, preflight) == 403, path
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_requests_with_a_malformed_origin_count(start: Start) -> None:
    gateway = await start(address_rate=0.001, address_burst=2)
    statuses = [
        await raw_status(gateway, "/whatsapp/sessions", {"Origin": "http://["}) for _ in range(3)
    ]
    assert statuses == [403, 403, 429]


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (header, value)
        for header in ("Host", "X-Forwarded-For", "Accept", "If-None-Match", "Cookie", "Range")
        for value in ("[", "http://[", "\udcff", "=", "a, ,b", "bytes=9-1", "x" * 2000)
    ],
)
async def test_malformed_headers_are_no_server_error(
    start: Start, caplog: pytest.LogCaptureFixture, header: str, value: str
) -> None:
    gateway = await start(trusted_proxies=1, subject_burst=1000)
    for path in PAGES:
        assert await raw_status(gateway, path, {header: value}) < 500, path
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


MALFORMED = ("secret\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET / HTTP/1.1\r\nsecret\r\n\r\n")


class Records(logging.Handler):
    """Collects all records, as the handler of the process writes all that reach it."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
async def test_malformed_requests_are_for_debugging_only(
    gateway: Replica, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    """Anybody could fill the log with them."""
    handler, logger = Records(), logging.getLogger("aiohttp.server")
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "propagate", False)
    logger.setLevel(level)
    host, port = gateway.url.removeprefix("http://").split(":")
    for request in MALFORMED:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request.encode())
        assert b" 400 " in await reader.read()
        writer.close()
    logger.setLevel(logging.NOTSET)
    assert len(handler.records) == (0 if level == "INFO" else len(MALFORMED))
    for record in handler.records:
        assert record.levelno == logging.DEBUG
        assert "secret" not in logging.Formatter().format(record)
