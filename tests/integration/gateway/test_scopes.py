"""Tokens with scopes, over REST and Socket.IO."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from integration.gateway.conftest import Start
from integration.gateway.fakes import ApiServer, Pod, now
from integration.gateway.replica import READY, Replica, token, until
from integration.gateway.test_socket import Client
from wasession_gateway.operations import OPERATIONS
from wasession_gateway.scopes import PERMISSIONS, Scope

ACK = {"id": "true_15550001111@c.us_3EB0", "chatId": "15550001111@c.us", "ack": 3, "at": now()}
BODIES: dict[str, Any] = {
    "createSession": {"clientId": "sales"},
    "sendText": {"clientId": "sales", "to": "15550001111", "text": "Hello"},
    "sendMessage": {"to": "15550001111", "text": "Hello"},
    "replayDelivery": {"after": "5c1f0e7a9b3d4c62-7"},
}
IDS = {
    "clientId": "sales",
    "messageId": "true_15550001111@c.us_3EB0",
    "contactId": "15550001111@c.us",
    "chatId": "15550001111@c.us",
    "delivery": "crm",
}


@pytest.fixture
async def connect(gateway: Replica) -> AsyncIterator[Any]:
    clients: list[Client] = []

    async def begin(who: str = "alice", **claims: Any) -> Client:
        clients.append(await Client(gateway.url).connect(who, **claims))
        return clients[-1]

    yield begin
    for client in clients:
        await client.io.disconnect()


@pytest.mark.parametrize("scope", ["", "openid", *sorted(Scope)])
async def test_each_operation_with_each_scope(start: Start, pod: Pod, scope: str) -> None:
    gateway = await start(subject_burst=1000, restore_timeout="1s")
    await gateway.caught_up()
    pod.code = "2@code"
    headers = {"Authorization": f"Bearer {token('alice', scope=scope)}"}
    pod.live_view = True
    granted = PERMISSIONS | {"admin"} if scope == "admin" else {scope}
    deletions_last = sorted(OPERATIONS, key=lambda operation: operation.method == "DELETE")
    for operation in deletions_last:
        async with gateway.http.request(
            operation.method,
            operation.path.format(**IDS),
            headers=headers,
            json=BODIES.get(operation.name),
        ) as answer:
            pod.torn = operation.name == "getScreencast"  # it ends after a picture
            body = await answer.read()
        pod.torn = False
        if any(granted.issuperset(needed.split()) for needed in operation.scopes):
            assert answer.status != 403, operation.name
            continue
        assert answer.status == 403, operation.name
        assert (
            answer.headers["WWW-Authenticate"]
            == f'Bearer error="insufficient_scope", scope="{" ".join(operation.scopes)}"'
        )
        names = [needed.replace(" ", " and ") for needed in operation.scopes]
        assert f"the token lacks the scope {' or '.join(names)}".encode() in body
        assert b"sales" not in body
    assert (sum(pod.asked.values()) > 0) is (scope in PERMISSIONS | {"admin"})


async def test_admin_says_whose_the_others_say_what(api: ApiServer, gateway: Replica) -> None:
    await api.put("sales", {"owner": "alice"}, READY)
    for scope, listed, suspended in (
        ("admin", 200, 200),
        ("admin sessions:read", 200, 403),
        ("sessions:read sessions:write", 200, 404),
        ("admin messages:send", 403, 403),
    ):
        claims = {"scope": scope}
        answer = await gateway.ask("root", "GET", "/whatsapp/sessions", listed, claims=claims)
        if listed == 200:
            assert bool(answer["items"]) is ("admin" in scope)
        path = "/whatsapp/sessions/sales/suspend"
        await gateway.ask("root", "POST", path, suspended, claims=claims)
    role = {"role": "admin", "scope": "sessions:read"}
    assert (await gateway.ask("root", "GET", "/whatsapp/sessions", claims=role))["items"]
    await gateway.ask("root", "POST", "/whatsapp/sessions/sales/resume", 403, claims=role)
    await gateway.ask("root", "GET", "/whatsapp/sessions", 401, claims={"scope": 7})


@pytest.mark.parametrize(
    ("scope", "received"),
    [
        ("sessions:read", {"state", "ready", "disconnected"}),
        ("pair", {"qr", "pairing_code"}),
        ("messages:read", {"message", "message_ack", "messages_missed", "caught_up"}),
    ],
)
async def test_events_that_the_token_does_not_permit_are_not_sent(
    api: ApiServer, gateway: Replica, pod: Pod, connect: Any, scope: str, received: set[str]
) -> None:
    await gateway.caught_up()
    narrow, everything = await connect(scope=scope), await connect()
    for client in (narrow, everything):
        answer = await client.init(clientId="sales")
        assert bool(answer["sessions"]) is (client is everything or scope == "sessions:read")
    await until(lambda: pod.followers == 1)
    await pod.receives("Hello")
    await pod.tells("ack", ACK)
    await pod.tells("gap", {})
    await pod.offers("2@code", attempt=1)
    await everything.hears("qr")
    await pod.offers("ABCDEFGH", attempt=2, method="PairingCode")
    await everything.hears("pairing_code")
    await api.status("sales", phase="Reconnecting")
    await everything.hears("disconnected")
    late = await connect(scope=scope)
    await late.init(clientId="sales")
    await late.init()
    for client in (narrow, late):
        await client.init()  # whatever was sent before has arrived
        assert {name for name, _ in client.heard} <= received
    assert {name for name, _ in narrow.heard} == received


@pytest.mark.parametrize("scope", ["", "sessions:write", "messages:send"])
async def test_who_may_receive_nothing_cannot_join(
    gateway: Replica, pod: Pod, connect: Any, scope: str
) -> None:
    await gateway.caught_up()
    client = await connect(scope=scope)
    for payload in ({}, {"clientId": "sales"}, {"clientId": "new", "create": True}):
        problem = (await client.init(**payload))["problem"]
        assert problem["status"] == 403
        assert (
            problem["detail"] == "the token lacks the scope sessions:read or pair or messages:read"
        )
    assert pod.followers == 0


async def test_pods_are_not_followed_for_states_alone(
    gateway: Replica, pod: Pod, connect: Any
) -> None:
    await gateway.caught_up()
    client = await connect(scope="sessions:read")
    await client.init(clientId="sales")
    await client.hears("ready")
    assert pod.followers == 0
    await client.init(clientId="sales", token=token("alice", scope="messages:read"))
    await until(lambda: pod.followers == 1)
    await client.init(clientId="sales", token=token("alice", scope="sessions:read"))
    await until(lambda: pod.followers == 0)


async def test_a_renewed_token_takes_effect_at_once(
    api: ApiServer, gateway: Replica, pod: Pod, connect: Any
) -> None:
    await gateway.caught_up()
    client, witness = await connect(), await connect()
    for one in (client, witness):
        await one.init(clientId="sales")
    await until(lambda: pod.followers == 1)
    await client.init(token=token("alice", scope="sessions:read pair"))
    await pod.receives("not for this token")
    await witness.hears("message")
    await pod.offers("2@code", attempt=1)
    await client.hears("qr")
    assert "message" not in client.names()
    await client.init(token=token("alice"))
    await pod.receives("again")
    await client.hears("message", text="again")
    refused = await client.init(token=token("bob"))
    assert refused["problem"]["status"] == 403
    expired = await client.init(token=token("alice", exp=time.time() - 60))
    assert expired["problem"]["status"] == 401


async def test_who_is_no_admin_any_more_leaves_the_others_sessions(
    api: ApiServer, gateway: Replica, pod: Pod, connect: Any
) -> None:
    await gateway.caught_up()
    admin, alice = await connect("root", role="admin"), await connect()
    await admin.init()
    await admin.init(owner="alice")
    await admin.init(clientId="sales", owner="alice")
    await alice.init(clientId="sales")
    await until(lambda: pod.followers == 1)
    assert (await admin.init(token=token("root")))["sessions"] == []
    admin.heard.clear()
    await pod.receives("private")
    await alice.hears("message")
    await api.status("sales", phase="Reconnecting")
    await alice.hears("disconnected")
    await admin.init()
    assert admin.heard == []


async def test_ten_tokens_of_a_subject_have_the_rate_of_one(start: Start) -> None:
    gateway = await start(subject_rate=0.001, subject_burst=100, address_burst=10_000)
    tokens = [
        token("alice", jti=str(number), scope="sessions:read " + "x" * number)
        for number in range(10)
    ]
    statuses = Counter[int]()
    for number in range(1000):
        headers = {"Authorization": f"Bearer {tokens[number % 10]}"}
        async with gateway.http.get("/whatsapp/sessions", headers=headers) as answer:
            statuses[answer.status] += 1
    assert statuses == {200: 100, 429: 900}
    await gateway.ask("bob", "GET", "/whatsapp/sessions")
