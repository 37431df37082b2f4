"""The audit log: who did or saw what, and who was refused it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from integration.gateway.conftest import Start
from integration.gateway.fakes import ApiServer, Pod
from integration.gateway.process import Process
from integration.gateway.replica import Replica, token, until
from integration.gateway.test_socket import Client
from wasession_gateway.operations import OPERATIONS
from wasession_gateway.scopes import Scope
from wasession_gateway.socketio_namespace import Namespace

FIELDS = {
    "event",
    "action",
    "subject",
    "admin",
    "scopes",
    "tokenId",
    "namespace",
    "session",
    "address",
    "userAgent",
    "outcome",
    "status",
    "requestId",
}
NUMBER, TEXT, CODE = "15550001111", "a text for one person", "2@code,of,a,phone"
BODIES: dict[str, Any] = {
    "replayDelivery": {"after": "5c1f0e7a9b3d4c62-7"},
    "createSession": {"clientId": "new"},
    "sendText": {"clientId": "sales", "to": NUMBER, "text": TEXT},
    "sendMessage": {"to": NUMBER, "text": TEXT},
}
# What another user gets: the 404 for somebody else's session, unless it is said here.
BY_ANOTHER: dict[str, tuple[Any, int]] = {
    "createSession": ({"clientId": "new", "owner": "alice"}, 403),
    "getScreenshot": (None, 403),
    "getScreencast": (None, 403),
}
BY_ADMINS = {"getScreenshot", "getScreencast"}


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return the lines since the last call."""
    records = [vars(record) for record in caplog.records if record.name == "wasession.audit"]
    caplog.clear()
    return [{name: record[name] for name in FIELDS} for record in records]


@pytest.fixture
async def clients(gateway: Replica) -> AsyncIterator[Any]:
    opened: list[Client] = []

    async def connect(who: str, **claims: Any) -> Client:
        opened.append(await Client(gateway.url).connect(who, **claims))
        return opened[-1]

    yield connect
    for client in opened:
        await client.io.disconnect()


def audited() -> list[tuple[str, str, str]]:
    """Return name, method and path of what must write a line, by the table of operations alone."""
    chosen = [
        operation
        for operation in OPERATIONS
        if operation.method != "GET" or any(Scope.PAIR in scope for scope in operation.scopes)
    ]
    chosen.sort(key=lambda operation: operation.method == "DELETE")
    return [(chosen_.name, chosen_.method, chosen_.path) for chosen_ in chosen]


async def test_the_table_has_all_routes(gateway: Replica) -> None:
    """No route that changes something is served besides those of the table."""
    app = gateway.gateway._runners[1].app
    unsafe = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.method not in ("GET", "HEAD", "OPTIONS") and route.resource is not None
    }
    table = {(operation.method, operation.path) for operation in OPERATIONS}
    assert {route for route in unsafe if not route[1].startswith("/socket.io")} <= table
    handlers = {name for name in vars(Namespace) if name.startswith("on_")}
    assert handlers == {"on_connect", "on_disconnect", "on_init"}


async def test_every_write_and_every_look_at_a_code_or_a_page(
    gateway: Replica, pod: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    await gateway.caught_up()
    pod.code = CODE
    pod.deliveries = [{"name": "crm"}]
    pod.live_view = pod.torn = True  # a screencast ends at once
    for name, method, path in audited():
        url, body = path.format(clientId="sales", delivery="crm"), BODIES.get(name)
        stranger_body, refusal = BY_ANOTHER.get(name, (body, 404))
        rights = {"role": "admin"} if name in BY_ADMINS else {}
        for who, claims, sent, expected, outcome in (
            ("alice", {"jti": "t-1", **rights}, body, None, "ok"),
            ("bob", {}, stranger_body, refusal, "denied"),
            ("alice", {"scope": "sessions:read"}, body, 403, "denied"),
            ("alice", {"exp": 1}, body, 401, "denied"),
        ):
            bearer = token(who, **claims)
            async with gateway.http.request(
                method,
                url,
                json=sent,
                headers={"Authorization": f"Bearer {bearer}", "User-Agent": "app/1 " + "x" * 500},
            ) as answer:
                await answer.read()
                assert expected is None or answer.status == expected, name
            [line] = lines(caplog)
            assert (line["action"], line["outcome"]) == (name, outcome), (name, who, answer.status)
            assert line["status"] == answer.status
            assert line["subject"] == (who if expected != 401 else None)
            assert line["tokenId"] == claims.get("jti")
            assert line["requestId"] == answer.headers["X-Request-ID"]
            assert (line["namespace"], line["address"]) == ("sessions", "127.0.0.1")
            assert len(line["userAgent"]) == 128
            if name != "createSession" and expected in (None, 404):
                assert line["session"] == "sales"
            text = json.dumps(line)
            assert not [secret for secret in (NUMBER, TEXT, CODE, bearer) if secret in text]


async def test_a_line_says_with_which_rights(
    gateway: Replica, pod: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    await gateway.ask(
        "root",
        "POST",
        "/whatsapp/sessions/sales/restart",
        claims={"scope": "admin sessions:write"},
    )
    [line] = lines(caplog)
    assert (line["admin"], line["scopes"]) == (True, ["sessions:write"])


async def test_what_fails_is_not_what_is_denied(
    gateway: Replica, pod: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    """The session's owner asks for a code while there is none."""
    await gateway.ask("alice", "GET", "/whatsapp/sessions/sales/pairing", 404)
    [line] = lines(caplog)
    assert (line["outcome"], line["status"], line["session"]) == ("failed", 404, "sales")


async def test_reads_write_no_line(
    gateway: Replica, pod: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    for path in ("sessions", "sessions/sales", "health", "sessions/sales/chats"):
        await gateway.ask("alice", "GET", f"/whatsapp/{path}")
    assert lines(caplog) == []


async def test_rate_limits_bound_the_lines(
    start: Start, pod: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await start(subject_rate=0.001, subject_burst=2, trusted_proxies=1)
    for status in (200, 200, 429, 429):
        await gateway.ask(
            "alice",
            "POST",
            "/whatsapp/sessions/sales/restart",
            status,
            headers={"X-Forwarded-For": "203.0.113.9, 2001:db8::1"},
        )
    assert [line["address"] for line in lines(caplog)] == ["2001:db8::/64"] * 2


async def test_over_socket_io(
    gateway: Replica, pod: Pod, clients: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await gateway.caught_up()
    alice, bob, reader = (
        await clients("alice", jti="t-1"),
        await clients("bob"),
        await clients("alice", scope="sessions:read"),
    )
    await alice.init(clientId="sales")
    assert lines(caplog) == []
    await alice.init(clientId="mine", create=True)
    await reader.init(clientId="another", create=True)
    await bob.init(clientId="sales")
    await bob.init(owner="alice")
    await bob.init(clientId="his", owner="alice", create=True)
    assert [
        (line["action"], line["subject"], line["outcome"], line["status"]) for line in lines(caplog)
    ] == [
        ("createSession", "alice", "ok", 201),
        ("createSession", "alice", "denied", 403),
        ("joinSessions", "bob", "denied", 404),
        ("joinSessions", "bob", "denied", 403),
        ("createSession", "bob", "denied", 403),
    ]


async def test_a_code_is_a_line_for_each_connection(
    gateway: Replica, pod: Pod, clients: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await gateway.caught_up()
    alice, reader = await clients("alice", jti="t-1"), await clients("alice", scope="sessions:read")
    await alice.init(clientId="sales")
    await reader.init(clientId="sales")
    await until(lambda: pod.followers == 1)
    for number in range(3):  # new ones of one round; a refresh begins with the first round again
        await pod.offers(f"{CODE}{number}", attempt=1, seconds=20 + 20 * number)
        await alice.hears("qr", qr=f"{CODE}{number}")
    await pod.offers("ABCDEFGH", attempt=2, method="PairingCode")
    await alice.hears("pairing_code")
    late = await clients("alice", jti="t-2")
    await late.init(clientId="sales")
    await late.hears("pairing_code")
    written = lines(caplog)
    assert [(line["action"], line["tokenId"], line["session"]) for line in written] == [
        *[("receiveLinkCode", "t-1", "sales")] * 4,
        ("receiveLinkCode", "t-2", "sales"),
    ]
    assert CODE not in json.dumps(written)
    assert "ABCDEFGH" not in json.dumps(written)
    assert {"qr", "pairing_code"}.isdisjoint(reader.names())


async def test_the_log_level_does_not_matter(api: ApiServer, pod: Pod, tmp_path: Path) -> None:
    process = Process(api, tmp_path, log_level="error")
    await process.start()
    headers = {"Authorization": f"Bearer {token('alice')}"}
    try:
        async with (
            aiohttp.ClientSession(process.url, headers=headers) as http,
            http.post("/whatsapp/sessions/sales/restart") as answer,
        ):
            assert answer.status == 200
        await until(lambda: bool(process.log))
    finally:
        process.process.kill()
        await process.process.wait()
    [line] = process.log
    assert line.keys() >= FIELDS
    assert (line["logger"], line["action"]) == ("wasession.audit", "restartSession")
