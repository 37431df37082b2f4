"""Socket.IO as applications use it, with python-socketio's client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import socketio
import socketio.exceptions
from integration.gateway.conftest import Start
from integration.gateway.fakes import KEY, ApiServer, Pod, now
from integration.gateway.replica import READY, Replica, token, until
from wasession_api.session_pod.token_derivation import derive_token

NAMESPACE = "/whatsapp"
Heard = tuple[str, Any]


class Client:
    """One connection, and the events that it received."""

    def __init__(self, url: str, namespace: str = NAMESPACE) -> None:
        self.url, self.namespace, self.heard = url, namespace, list[Heard]()
        self.io = socketio.AsyncClient(reconnection=False)
        self.io.on("*", self._hear, namespace=namespace)
        self.io.on("connect_error", partial(self._hear, "connect_error"), namespace=namespace)
        self._news = asyncio.Condition()

    async def connect(
        self,
        who: str | None = None,
        transports: list[str] | None = None,
        auth: dict[str, Any] | None = None,
        **claims: Any,
    ) -> Client:
        if who is not None:
            auth = {"token": token(who, **claims)}
        await self.io.connect(
            self.url,
            namespaces=[self.namespace],
            auth=auth,
            transports=transports or ["websocket"],
        )
        return self

    async def init(self, **payload: Any) -> Any:
        return await self.io.call("init", payload, namespace=NAMESPACE)

    async def hears(self, name: str, /, **expected: Any) -> Any:
        """Wait for an event with this payload; drop what was received before."""

        def wanted() -> int | None:
            for index, (heard, data) in enumerate(self.heard):
                if heard == name and all(data.get(key) == value for key, value in expected.items()):
                    return index
            return None

        async with self._news:
            await self._news.wait_for(lambda: wanted() is not None)
        index = wanted()
        assert index is not None
        data = self.heard[index][1]
        del self.heard[: index + 1]
        return data

    async def hears_more(self) -> None:
        async with self._news:
            await self._news.wait()

    def names(self) -> list[str]:
        return [name for name, _ in self.heard if name != "state"]

    async def _hear(self, name: str, data: Any = None) -> None:
        async with self._news:
            self.heard.append((name, data))
            self._news.notify_all()


@pytest.fixture
async def connect(gateway: Replica) -> AsyncIterator[Any]:
    clients: list[Client] = []

    async def begin(who: str | None = None, url: str = gateway.url, **more: Any) -> Client:
        clients.append(await Client(url).connect(who, **more))
        return clients[-1]

    yield begin
    for client in clients:
        await client.io.disconnect()


# --- joining --------------------------------------------------------------------------------------


@pytest.mark.parametrize("transports", [["polling"], ["websocket"], ["polling", "websocket"]])
async def test_a_known_session_answers_at_once(
    api: ApiServer, gateway: Replica, connect: Any, transports: list[str]
) -> None:
    await api.put(
        "sales",
        {"owner": "alice", "clientId": "sales"},
        READY | {"restored": True, "restorations": 2},
    )
    await gateway.caught_up()
    client = await connect("alice", transports=transports)
    answer = await client.init(clientId="sales")
    assert answer["ok"] is True
    assert answer["sessions"][0]["phase"] == "Ready"
    assert (await client.hears("state"))["clientId"] == "sales"
    ready = await client.hears("ready")
    assert ready == {
        "clientId": "sales",
        "owner": "alice",
        "name": "sales",
        "isRestored": True,
        "account": {"id": "15551234567@c.us"},
        "lastConnected": "2026-10-01T10:00:00Z",
    }
    assert (await client.hears("restored_session_ready"))["restorations"] == 2


async def test_the_token_may_come_with_init(api: ApiServer, gateway: Replica, connect: Any) -> None:
    await api.put("sales", {"owner": "alice"}, READY)
    await gateway.caught_up()
    client = await connect()
    assert (await client.init(clientId="sales"))["problem"]["status"] == 401
    assert (await client.hears("exception"))["status"] == 401
    assert (
        await client.init(clientId="sales", token=token("alice"), userId="an application's own")
    )["ok"] is True
    assert (await client.init(clientId="sales", token=token("bob")))["problem"]["status"] == 403


async def test_a_bad_token_is_refused_with_a_reason(gateway: Replica) -> None:
    client = Client(gateway.url)
    with pytest.raises(socketio.exceptions.ConnectionError):
        await client.connect("alice", exp=time.time() - 60)
    problem = (await client.hears("connect_error"))["data"]
    assert (problem["status"], problem["detail"]) == (401, "the token has expired")
    await client.io.disconnect()


async def test_a_token_with_an_impossible_date_is_refused(gateway: Replica, connect: Any) -> None:
    endless: dict[str, Any] = {"exp": 10**400}
    client = Client(gateway.url)
    with pytest.raises(socketio.exceptions.ConnectionError):
        await client.connect("alice", **endless)
    assert (await client.hears("connect_error"))["data"]["status"] == 401
    await client.io.disconnect()
    client = await connect()
    assert (await client.init(token=token("alice", **endless)))["problem"]["status"] == 401


async def test_init_has_a_budget_of_its_own(start: Start, connect: Any) -> None:
    gateway = await start(subject_rate=0.001, subject_burst=2)
    for status in (200, 200, 429):
        await gateway.ask("alice", "GET", "/whatsapp/sessions", status)
    for _ in range(2):
        client = await connect("alice", url=gateway.url)
        assert (await client.init())["ok"] is True
    assert (await client.init())["problem"]["status"] == 429


async def test_a_token_may_have_its_scheme(gateway: Replica, connect: Any) -> None:
    """As in an Authorization header, which applications copy it from."""
    bearer = f"Bearer {token('alice')}"
    client = await connect(auth={"token": bearer})
    assert (await client.init())["ok"] is True
    client = await connect(auth={"token": f" {token('alice')}\n"})
    assert (await client.init())["ok"] is True
    client = await connect()
    assert (await client.init(token=bearer))["ok"] is True


@pytest.mark.parametrize("namespace", ["/", "/elsewhere"])
async def test_another_namespace_is_refused_with_the_right_one(
    gateway: Replica, namespace: str
) -> None:
    client = Client(gateway.url, namespace)
    with pytest.raises(socketio.exceptions.ConnectionError):
        await client.connect("alice")
    problem = (await client.hears("connect_error"))["data"]
    assert (problem["status"], problem["detail"]) == (404, "connect to the namespace /whatsapp")
    await client.io.disconnect()


async def test_nobody_joins_anothers_session(
    api: ApiServer, gateway: Replica, connect: Any, pod: Pod
) -> None:
    await gateway.caught_up()
    alice, bob = await connect("alice"), await connect("bob")
    await alice.init(clientId="sales")
    for payload in ({"clientId": "sales"}, {"clientId": "sales", "owner": "alice"}):
        assert (await bob.init(**payload))["problem"]["status"] == 404
    assert (await bob.init(owner="alice"))["problem"]["status"] == 403
    assert (await bob.init())["sessions"] == []
    await until(lambda: pod.followers == 1)
    await pod.receives("for alice only")
    assert (await alice.hears("message"))["text"] == "for alice only"
    await api.status("sales", phase="Reconnecting")
    await alice.hears("disconnected")
    assert [name for name in bob.names() if name != "exception"] == []


async def test_init_creates_a_session_on_request(
    api: ApiServer, start: Start, gateway: Replica, connect: Any
) -> None:
    alice = await connect("alice")
    assert (await alice.init(clientId="new"))["problem"]["status"] == 404
    answer = await alice.init(clientId="new", create=True, pairing={"method": "QRCode"})
    assert answer["sessions"][0]["phase"] == "Pending"
    name = answer["sessions"][0]["name"]
    await api.status(name, phase="Authenticating")
    event = await alice.hears("authenticating")
    assert event == {"clientId": "new", "owner": "alice", "name": name, "method": "QRCode"}
    again = await alice.init(clientId="new", create=True)
    assert again["sessions"][0]["name"] == name, "a session that is there is joined"
    closed = await start(allow_create=False)
    bob = await connect("bob", url=closed.url)
    assert (await bob.init(clientId="x", create=True))["problem"]["status"] == 403


async def test_many_sessions_and_many_clients(
    api: ApiServer, gateway: Replica, connect: Any
) -> None:
    for name in ("one", "two"):
        await api.put(name, {"owner": "alice"}, {"phase": "Restoring", "sessionValid": True})
    await gateway.caught_up()
    both, all_of_hers, only_two = (
        await connect("alice"),
        await connect("alice"),
        await connect("alice"),
    )
    await both.init(clientId="one")
    await both.init(clientId="two")
    assert [session["clientId"] for session in (await all_of_hers.init())["sessions"]] == [
        "one",
        "two",
    ]
    await only_two.init(clientId="two")
    await api.put("three", {"owner": "alice"}, READY)
    await all_of_hers.hears("ready", clientId="three")
    for name in ("one", "two"):
        await api.status(name, phase="Ready", restored=True)
        for client in (both, all_of_hers):
            await client.hears("restored_session_ready", clientId=name)
    await only_two.hears("restored_session_ready", clientId="two")
    assert all(data.get("clientId") != "one" for _, data in only_two.heard)
    assert all(data.get("clientId") != "three" for _, data in both.heard)


async def test_an_admin_sees_all_states_but_no_messages_unless_by_name(
    api: ApiServer, gateway: Replica, connect: Any, pod: Pod
) -> None:
    await gateway.caught_up()
    admin = await connect("root", role="admin")
    assert [session["owner"] for session in (await admin.init())["sessions"]] == ["alice"]
    assert pod.followers == 0
    await api.status("sales", phase="Reconnecting")
    await admin.hears("disconnected", clientId="sales")
    await admin.init(clientId="sales", owner="alice")
    await until(lambda: pod.followers == 1)
    await pod.receives("support")
    await admin.hears("message", text="support")


async def test_an_admin_tells_two_owners_sessions_apart(
    api: ApiServer, gateway: Replica, connect: Any, pod: Pod
) -> None:
    await api.put("sales-of-bob", {"owner": "bob", "clientId": "sales"}, {"phase": "Starting"})
    await gateway.caught_up()
    admin = await connect("root", role="admin")
    for owner in ("alice", "bob"):
        assert (await admin.init(clientId="sales", owner=owner))["ok"] is True
    await until(lambda: pod.followers == 1)
    await pod.receives("Hello")
    await pod.tells(
        "ack",
        {"id": "true_15550001111@c.us_3EB0", "chatId": "15550001111@c.us", "ack": 3, "at": now()},
    )
    await pod.tells("gap", {})
    for event in ("ready", "message", "message_ack", "messages_missed", "qr"):
        if event == "qr":
            await pod.offers("2@code", attempt=1)
        heard = await admin.hears(event)
        assert (heard["clientId"], heard["owner"], heard["name"]) == ("sales", "alice", "sales"), (
            event
        )
    await api.status("sales", phase="Failed")
    await admin.hears("disconnected", owner="alice", name="sales")
    await api.status("sales-of-bob", phase="Authenticating")
    await admin.hears("authenticating", owner="bob", name="sales-of-bob", clientId="sales")
    await api.remove("sales-of-bob")
    await admin.hears("session_removed", owner="bob", name="sales-of-bob")


# --- events ---------------------------------------------------------------------------------------


async def test_a_phone_is_linked(api: ApiServer, gateway: Replica, connect: Any, pod: Pod) -> None:
    await api.status("sales", phase="Starting", lastConnected=None)
    await gateway.caught_up()
    client = await connect("alice")
    await client.init(clientId="sales")
    await until(lambda: pod.followers == 1)
    await pod.offers("2@first,QR", attempt=1)
    qr = await client.hears("qr")
    assert (qr["clientId"], qr["qr"], qr["attempt"]) == ("sales", "2@first,QR", 1)
    assert qr["image"].startswith("data:image/png;base64,")
    await pod.offers("2@second,QR", attempt=2)
    await client.hears("qr", qr="2@second,QR")
    late = await connect("alice")
    await late.init(clientId="sales")
    await late.hears("qr", qr="2@second,QR")
    await pod.offers("ABCD-EFGH", attempt=3, method="PairingCode")
    assert (await client.hears("pairing_code"))["code"] == "ABCD-EFGH"
    await pod.says(phase="Ready", reason="Connected", pairing=None)
    await api.status("sales", **READY)
    assert (await client.hears("ready"))["isRestored"] is False
    third = await connect("alice")
    await third.init(clientId="sales")
    await third.hears("ready")
    assert "qr" not in third.names()
    assert "restored_session_ready" not in client.names()


async def test_a_logout_and_a_lost_connection_differ(
    api: ApiServer, gateway: Replica, connect: Any
) -> None:
    await api.put("sales", {"owner": "alice"}, READY)
    await gateway.caught_up()
    client = await connect("alice")
    await client.init()
    await client.hears("ready")
    lost = {"at": now(), "kind": "Connection", "reason": "TIMEOUT"}
    await api.status("sales", phase="Reconnecting", lastDisconnect=lost)
    event = await client.hears("disconnected")
    assert (event["kind"], event["reason"]) == ("Connection", "ConnectionLost")
    assert (event["cause"], event["permanent"]) == ("TIMEOUT", False)
    await api.status("sales", **READY | {"lastConnected": now()})
    await client.hears("ready")
    gone = {"at": now(seconds=1), "kind": "Logout", "reason": "user_initiated"}
    await api.status("sales", phase="LoggedOut", sessionValid=False, lastDisconnect=gone)
    event = await client.hears("disconnected")
    assert (event["kind"], event["permanent"]) == ("Logout", True)
    assert (await client.hears("logged_out"))["reason"] == "LoggedOutByPhone"
    again = await connect("alice")
    await again.init()
    await again.hears("logged_out")


async def test_messages_survive_the_pods_stream(gateway: Replica, connect: Any, pod: Pod) -> None:
    await gateway.caught_up()
    client = await connect("alice")
    await client.init(clientId="sales")
    await until(lambda: pod.followers == 1)
    await pod.receives("one")
    await client.hears("message", text="one", clientId="sales", chatId="15550001111@c.us")
    await pod.tells(
        "ack",
        {"id": "true_15550001111@c.us_3EB0", "chatId": "15550001111@c.us", "ack": 3, "at": now()},
    )
    await client.hears("message_ack", ack=3)
    await pod.tells("gap", {})
    await client.hears("messages_missed", clientId="sales")
    pod.answer = {"code": 7}  # an invalid code ends the stream too
    await pod.offers("2@code", attempt=1)
    await pod.tells("message", {"id": "nonsense"})
    await pod.receives("two")
    assert (await client.hears("messages_missed"))["reason"] == "Unreadable"
    await client.hears("message", text="two")


async def test_the_pods_stream_goes_on_when_its_token_is_rotated(
    api: ApiServer, gateway: Replica, connect: Any, pod: Pod
) -> None:
    await gateway.caught_up()
    client = await connect("alice")
    await client.init(clientId="sales")
    await until(lambda: pod.followers == 1)
    second = derive_token(KEY, pod.state["sessionUid"], 1)
    await api.status("sales", tokenEpoch=1)
    await gateway.caught_up()
    await pod.restarts()  # while it has the previous token
    await pod.receives("one")
    await client.hears("message", text="one")
    pod.token = second
    await pod.restarts()
    await pod.receives("two")
    await client.hears("message", text="two")
    assert pod.refused == [second]


async def test_pods_are_followed_only_while_somebody_listens(
    api: ApiServer, gateway: Replica, connect: Any, pod: Pod
) -> None:
    await gateway.caught_up()
    first, second = await connect("alice"), await connect("alice")
    await first.init(clientId="sales")
    await second.init()
    await until(lambda: pod.followers == 1)
    await first.io.disconnect()
    await pod.receives("still heard")
    await second.hears("message")
    await second.io.disconnect()
    await until(lambda: pod.followers == 0)


async def test_the_owner_changes(api: ApiServer, gateway: Replica, connect: Any, pod: Pod) -> None:
    await gateway.caught_up()
    alice, by_owner, bob = await connect("alice"), await connect("alice"), await connect("bob")
    await alice.init(clientId="sales")
    await by_owner.init()
    await bob.init()
    await api.put("sales", {"owner": "bob", "clientId": "sales"})
    await alice.hears("session_removed")
    await by_owner.hears("session_removed")
    await bob.hears("ready", clientId="sales")
    await until(lambda: pod.followers == 1)
    await pod.receives("for bob only")
    await bob.hears("message")
    assert alice.names() == by_owner.names() == []


async def test_a_session_is_deleted(
    api: ApiServer, gateway: Replica, connect: Any, pod: Pod
) -> None:
    await gateway.caught_up()
    client = await connect("alice")
    await client.init(clientId="sales")
    await gateway.ask("alice", "DELETE", "/whatsapp/sessions/sales", 202)
    assert (await client.hears("disconnected"))["kind"] == "Deleted"
    await api.remove("sales")
    await client.hears("session_removed")
    await until(lambda: pod.followers == 0)
    await api.put("sales", {"owner": "bob"}, READY)
    await gateway.caught_up()
    assert client.names() == []


# --- the end of connections -----------------------------------------------------------------------


async def test_an_expired_token_ends_the_connection(
    api: ApiServer, gateway: Replica, connect: Any
) -> None:
    await api.put("sales", {"owner": "alice"}, READY)
    await gateway.caught_up()
    client, renewing = await connect("alice"), await connect("alice")
    await client.init(clientId="sales")
    assert (await renewing.init(clientId="sales", token=token("alice", exp=time.time() + 10_000)))[
        "ok"
    ] is True
    gateway.expire_tokens(until=time.time() + 5000)
    assert await client.hears("closing") == {
        "reason": "TokenExpired",
        "message": "the token has expired: connect with a new one",
        "reconnect": False,
    }
    await until(lambda: not client.io.connected)
    await api.status("sales", phase="Reconnecting")
    await renewing.hears("disconnected")
    assert "disconnected" not in client.names()


async def test_shutdown_is_announced(api: ApiServer, start: Start) -> None:
    gateway = await start()
    client = await Client(gateway.url).connect("alice")
    await client.init()
    await gateway.stop()
    assert (await client.hears("closing"))["reason"] == "ShuttingDown"
    await until(lambda: not client.io.connected)
