"""Sessions that sleep: who uses them wakes them, and waits until they are awake."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from integration.gateway.conftest import Start
from integration.gateway.fakes import ApiServer, Pod, now, serving
from integration.gateway.replica import READY, Replica, token, until
from integration.gateway.test_socket import Client
from support.loopback import pod_address
from wasession_api import names
from wasession_gateway import wake_ups
from wasession_gateway.operations import OPERATIONS, WAKING

SPEC = {"owner": "alice", "clientId": "sales"}
SESSION = "/whatsapp/sessions/sales"
HELLO = {"to": "15550001111", "text": "Hello"}
IDS = {
    "messageId": "true_15550001111@c.us_3EB0",
    "contactId": "15550001111@c.us",
    "chatId": "15550001111@c.us",
    "delivery": "crm",
}


class Sleeper:
    """Alice's session ``sales``, and its operator: it sleeps until the test lets it wake up."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api
        self.pod: Pod

    @property
    def request(self) -> str | None:
        """The wake-up that is requested."""
        annotations: dict[str, str] = self._api.session("sales")["metadata"].get("annotations", {})
        return annotations.get(names.ANNOTATION_WAKE)

    @property
    def patches(self) -> int:
        return sum(count for call, count in self._api.calls.items() if call.startswith("PATCH"))

    async def sleeps(self) -> None:
        self._api.remove_pod("sales")
        await self._api.status(
            "sales",
            phase="Hibernated",
            podName=None,
            podUID=None,
            hibernation={"since": now(minutes=-5), "wakeAt": now(hours=72)},
        )

    async def begins_to_wake(self, **status: Any) -> None:
        wake = self._noted(now(seconds=-20), done=False)
        await self._api.status(
            "sales", **{"phase": "Restoring", "wake": wake, "hibernation": None, **status}
        )

    async def wakes(self) -> None:
        self._api.add_pod("sales", pod_address(1))
        wake = self._noted(now(), done=True)
        await self._api.status("sales", **READY, hibernation=None, wake=wake)

    def _noted(self, at: str, *, done: bool) -> dict[str, Any] | None:
        """Return the request as the status has it."""
        if self.request is None:
            return None
        return {"request": names.request_id(self.request), "at": at, "done": done}


@pytest.fixture
async def sales(api: ApiServer) -> AsyncIterator[Sleeper]:
    body = await api.put("sales", SPEC, READY)
    sleeper = Sleeper(api)
    sleeper.pod = Pod(body["metadata"]["uid"])
    sleeper.pod.code, sleeper.pod.deliveries = "2@code", [{"name": "crm"}]
    async with serving(sleeper.pod.app, pod_address(1), 8080):
        await sleeper.sleeps()
        yield sleeper


@pytest.fixture
async def connect(gateway: Replica) -> AsyncIterator[Any]:
    clients: list[Client] = []

    async def begin(**claims: Any) -> Client:
        clients.append(await Client(gateway.url).connect("alice", **claims))
        return clients[-1]

    yield begin
    for client in clients:
        await client.io.disconnect()


def send(gateway: Replica, expect: int = 201, **more: Any) -> asyncio.Task[Any]:
    asked = gateway.ask("alice", "POST", f"{SESSION}/messages", expect, **{"json": HELLO, **more})
    return asyncio.create_task(asked)


async def waiting(gateway: Replica, count: int = 1) -> None:
    """Wait until so many requests wait for sessions to wake up."""
    await until(lambda: gateway.gateway._rest._wake_ups._waiting.total() == count)


# --- sending --------------------------------------------------------------------------------------


async def test_a_message_is_sent_when_the_session_is_awake(
    gateway: Replica, sales: Sleeper
) -> None:
    form = aiohttp.FormData({"to": "15550001111"})
    form.add_field("file", b"x" * 3_000_000, filename="a.bin")
    sending = [
        send(gateway),
        send(gateway, json=None, data=form),
        asyncio.create_task(
            gateway.ask(
                "alice", "POST", "/whatsapp/messages", 201, json={"clientId": "sales", **HELLO}
            )
        ),
    ]
    await waiting(gateway, 3)
    request = sales.request
    assert request is not None
    for phase in ("Pending", "Starting", "Restoring", "Syncing"):
        await sales.begins_to_wake(phase=phase)
    late = send(gateway)
    await waiting(gateway, 4)
    assert sales.pod.sent == []
    await sales.wakes()
    for answer in await asyncio.gather(*sending, late):
        assert answer["id"] == "true_15550001111@c.us_3EB0"
    assert len(sales.pod.sent) == 4
    assert (sales.request, sales.patches) == (request, 1), "one wake-up for all"
    await waiting(gateway, 0)
    await send(gateway)
    assert sales.patches == 1


async def test_two_replicas_ask_at_once(start: Start, sales: Sleeper) -> None:
    replicas = [await start(), await start()]
    sending = [send(replica) for replica in replicas]
    for replica in replicas:
        await waiting(replica)
    await sales.begins_to_wake()
    await sales.wakes()
    await asyncio.gather(*sending)
    assert sales.patches <= 2
    await send(replicas[0])
    await sales.sleeps()
    again = [send(replica) for replica in replicas]
    for replica in replicas:
        await waiting(replica)
    await sales.wakes()
    await asyncio.gather(*again)
    assert len(sales.pod.sent) == 5


async def test_a_wake_up_that_somebody_else_has_requested(
    api: ApiServer, gateway: Replica, sales: Sleeper
) -> None:
    for value in ("by-kubectl", "x" * 1000):
        api.session("sales")["metadata"]["annotations"] = {names.ANNOTATION_WAKE: value}
        await sales.sleeps()
        sending = send(gateway)
        await waiting(gateway)
        assert (sales.request, sales.patches) == (value, 0)
        await sales.begins_to_wake()
        await sales.wakes()
        await sending


async def test_a_session_that_falls_asleep_again_is_woken_again(
    api: ApiServer, gateway: Replica, sales: Sleeper
) -> None:
    sending = send(gateway)
    await waiting(gateway)
    first = sales.request
    wake = {"request": first, "at": now(), "done": True}
    await api.status("sales", wake=wake)  # Ready in between, which the cache has not seen
    await until(lambda: sales.request != first)
    await sales.wakes()
    await sending


async def test_a_retry_while_the_session_wakes_up_sends_one_message(
    gateway: Replica, sales: Sleeper
) -> None:
    """The client gives up and sends again with its key."""
    key = {"Idempotency-Key": "k1"}
    for _ in range(3):
        given_up = send(gateway, headers=key)
        await waiting(gateway)
        given_up.cancel()
        await waiting(gateway, 0)
    sending = send(gateway, headers=key)
    await waiting(gateway)
    await sales.begins_to_wake()
    await sales.wakes()
    await sending
    assert [message["key"] for message in sales.pod.sent] == ["k1"]
    assert sales.patches == 1


async def test_what_a_caller_who_has_gone_wanted_to_send_is_not_sent(
    gateway: Replica, sales: Sleeper
) -> None:
    sending = send(gateway)
    await waiting(gateway)
    assert sales.request is not None
    sending.cancel()
    await waiting(gateway, 0)
    await sales.wakes()
    await send(gateway)
    assert len(sales.pod.sent) == 1


# --- sessions that do not wake up -----------------------------------------------------------------


async def test_the_wait_is_bounded(start: Start, sales: Sleeper) -> None:
    gateway = await start(wake_timeout="1s")
    problem = await send(gateway, 503)
    assert problem["title"] == "Waking"
    assert re.match(r"the session has been waking up for \d s: nothing", problem["detail"])
    assert problem["phase"] == "Hibernated"
    await sales.begins_to_wake()
    headers = {"Authorization": f"Bearer {token('alice')}"}
    async with gateway.http.post(f"{SESSION}/messages", json=HELLO, headers=headers) as answer:
        problem = await answer.json()
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert re.search(r"waking up for [2-9]\d s", problem["detail"]), "since the operator has begun"
    assert problem["phase"] == "Restoring"
    assert (sales.patches, sales.pod.sent) == (1, [])
    await waiting(gateway, 0)


@pytest.mark.parametrize("phase", ["LoggedOut", "Failed", "Authenticating", "Conflict"])
async def test_a_session_that_needs_a_person_is_not_waited_for(
    api: ApiServer, gateway: Replica, sales: Sleeper, phase: str
) -> None:
    sending = send(gateway, 503)
    await waiting(gateway)
    await sales.begins_to_wake()
    await api.status("sales", phase=phase)
    problem = await sending
    assert (problem["detail"], problem["phase"]) == ("the session has no pod", phase)


async def test_a_suspended_session_is_not_waited_for(
    api: ApiServer, gateway: Replica, sales: Sleeper
) -> None:
    sending = send(gateway, 503)
    await waiting(gateway)
    await api.put("sales", {**SPEC, "suspend": True})
    problem = await sending
    assert problem["phase"] == "Hibernated", "the operator has not stopped it yet"
    await api.status("sales", phase="Suspended", hibernation=None)
    patches = sales.patches
    assert (await send(gateway, 503))["detail"] == "the session has no pod"
    problem = await gateway.ask("alice", "POST", f"{SESSION}/wake", 409)
    assert problem["detail"] == "the session is suspended: resume it"
    assert sales.patches == patches


async def test_a_session_that_goes_away(api: ApiServer, gateway: Replica, sales: Sleeper) -> None:
    sending = send(gateway, 404)
    await waiting(gateway)
    await api.remove("sales")
    await sending


async def test_a_session_that_is_another_users_by_now(
    api: ApiServer, gateway: Replica, sales: Sleeper
) -> None:
    sending = send(gateway, 404)
    await waiting(gateway)
    await api.put("sales", {**SPEC, "owner": "bob"})
    await sales.wakes()
    await sending
    assert sales.pod.sent == []


async def test_a_wake_up_that_cannot_be_requested(
    api: ApiServer, gateway: Replica, sales: Sleeper
) -> None:
    await gateway.caught_up()
    api.failing = True
    problem = await send(gateway, 503, at_once=True)
    assert problem["detail"] == "the Kubernetes API does not answer"
    api.failing, api.forbidden = False, "PATCH"
    problem = await send(gateway, 422)
    assert problem["detail"].startswith("the gateway cannot PATCH")


async def test_a_shutdown_ends_the_wait(api: ApiServer, sales: Sleeper) -> None:
    gateway = await Replica(api).start()
    await gateway.caught_up()
    headers = {"Authorization": f"Bearer {token('alice')}"}
    async with aiohttp.ClientSession(gateway.url, headers=headers) as http:
        sending = asyncio.create_task(http.post(f"{SESSION}/messages", json=HELLO))
        await waiting(gateway)
        await gateway.stop()
        async with await sending as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
            detail = (await answer.json())["detail"]
    assert detail == "this gateway is shutting down: nothing was done, try again"
    assert sales.pod.sent == []


# --- limits ---------------------------------------------------------------------------------------


async def test_so_many_requests_wait(
    api: ApiServer, start: Start, sales: Sleeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wake_ups, "MAXIMUM_OF_SESSION", 2)
    monkeypatch.setattr(wake_ups, "MAXIMUM", 3)
    gateway = await start()
    sending = [send(gateway), send(gateway)]
    await waiting(gateway, 2)
    problem = await send(gateway, 429)
    assert problem["detail"] == "2 requests wait until the session is awake: try again in 5 s"
    for name in ("one", "another"):
        asleep = {"phase": "Hibernated", "hibernation": {"since": now(), "wakeAt": now(hours=1)}}
        await api.put(name, {"owner": "alice"}, asleep)
    path = "/whatsapp/sessions/{}/chats"
    third = asyncio.create_task(gateway.ask("alice", "GET", path.format("one"), 503))
    await waiting(gateway, 3)
    problem = await gateway.ask("alice", "GET", path.format("another"), 503)
    assert problem["title"] == "Waking"
    annotations = api.session("another")["metadata"]["annotations"]
    assert names.ANNOTATION_WAKE in annotations, "it wakes up for the next one"
    await sales.wakes()
    await asyncio.gather(*sending)
    await api.status("one", phase="Failed")
    await third
    await waiting(gateway, 0)


# --- what the cache does not know yet -------------------------------------------------------------


async def test_a_session_that_fell_asleep_a_moment_ago(
    api: ApiServer, gateway: Replica, sales: Sleeper
) -> None:
    """Its pod is gone, and the cache has it as Ready."""
    await sales.wakes()
    await send(gateway)
    api.remove_pod("sales")
    asked = api.calls["GET /api/v1/namespaces/sessions/pods"]
    gateway.gateway._rest._pods.forget(api.session("sales")["metadata"]["uid"])
    sending = send(gateway)
    await until(lambda: api.calls["GET /api/v1/namespaces/sessions/pods"] > asked)
    await sales.sleeps()
    await waiting(gateway)
    assert sales.request is not None
    await sales.wakes()
    await sending
    assert len(sales.pod.sent) == 2


async def test_a_ready_session_without_a_pod_is_not_asleep(
    api: ApiServer, gateway: Replica, sales: Sleeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wake_ups, "WATCH_LAG", 0.1)
    await sales.wakes()
    api.remove_pod("sales")
    assert (await send(gateway, 503))["detail"] == "the session has no pod"
    assert sales.patches == 0


async def test_a_session_that_is_awake_already(
    api: ApiServer, gateway: Replica, sales: Sleeper
) -> None:
    """The cache learns it only after the wake-up is requested."""
    sending = send(gateway)
    await waiting(gateway)
    await sales.wakes()
    await sending
    await gateway.ask("alice", "POST", f"{SESSION}/wake", 202)
    pending = sales.request
    for _ in range(3):
        await gateway.ask("alice", "POST", f"{SESSION}/wake", 202)
        assert sales.request == pending
    await send(gateway)


# --- who may wake it, and what does ---------------------------------------------------------------


async def test_what_uses_the_account_wakes_the_session_and_nothing_else(
    api: ApiServer, start: Start, sales: Sleeper
) -> None:
    gateway = await start(wake_timeout="1s", restore_timeout="1s")
    bodies = {
        "sendText": {"clientId": "sales", **HELLO},
        "sendMessage": HELLO,
        "replayDelivery": {"after": "5c1f0e7a9b3d4c62-7"},
    }
    left_out = {"createSession", "deleteSession", "suspendSession", "resumeSession"}
    headers = {"Authorization": f"Bearer {token('alice')}"}
    woken = set[str]()
    for operation in OPERATIONS:
        if operation.name in left_out:
            continue
        api.session("sales")["metadata"]["annotations"] = {}
        await sales.sleeps()
        await gateway.caught_up()
        path = operation.path.format(clientId="sales", **IDS)
        asking = asyncio.create_task(
            gateway.http.request(
                operation.method, path, headers=headers, json=bodies.get(operation.name)
            )
        )
        while not asking.done() and sales.request is None:  # noqa: ASYNC110 - either may come first
            await asyncio.sleep(0.01)
        if sales.request is not None:
            woken.add(operation.name)
            await sales.wakes()
        async with await asking as answer:
            assert answer.status < 300 or operation.name not in woken, operation.name
    assert woken == WAKING | {"wakeSession", "restoreSession"}


@pytest.mark.parametrize(
    ("scope", "may"),
    [
        ("messages:read", False),
        ("sessions:read pair messages:read", False),
        ("messages:read messages:send", True),
        ("messages:read sessions:write", True),
        ("admin messages:read", False),
    ],
)
async def test_who_may_only_read_may_not_wake(
    gateway: Replica, sales: Sleeper, scope: str, may: bool
) -> None:
    claims = {"scope": scope}
    chats = asyncio.create_task(
        gateway.ask("alice", "GET", f"{SESSION}/chats", 200 if may else 503, claims=claims)
    )
    if may:
        await waiting(gateway)
    else:
        detail = (await chats)["detail"]
        assert detail.endswith("waking it takes the scope messages:send or sessions:write")
        await gateway.ask("alice", "POST", f"{SESSION}/wake", 403, claims=claims)
        assert sales.request is None
        sending = send(gateway)
        await waiting(gateway)
        chats = asyncio.create_task(gateway.ask("alice", "GET", f"{SESSION}/chats", claims=claims))
        await waiting(gateway, 2)  # somebody else has woken it
    await sales.wakes()
    assert (await chats)["items"]
    if not may:
        await sending


async def test_the_session_can_be_woken_by_itself(gateway: Replica, sales: Sleeper) -> None:
    session = await gateway.ask("alice", "POST", f"{SESSION}/wake", 202)
    assert (session["phase"], session["status"]) == ("Hibernated", "active")
    assert sales.request is not None
    await gateway.ask("bob", "POST", f"{SESSION}/wake", 404)
    restoring = asyncio.create_task(gateway.ask("alice", "POST", "/whatsapp/restore-session/sales"))
    await gateway.caught_up()
    await sales.wakes()
    assert (await restoring)["phase"] == "Ready"
    assert sales.patches == 1


async def test_a_session_that_sleeps_says_so(gateway: Replica, sales: Sleeper) -> None:
    session = await gateway.ask("alice", "GET", SESSION)
    assert (session["phase"], session["status"]) == ("Hibernated", "active")
    assert session["hibernation"].keys() == {"since", "wakeAt"}
    problem = await gateway.ask("alice", "GET", f"{SESSION}/events", 503)
    assert problem["detail"].startswith("the session is asleep")


# --- Socket.IO ------------------------------------------------------------------------------------


async def test_clients_stay_connected_while_the_session_sleeps(
    gateway: Replica, sales: Sleeper, connect: Any
) -> None:
    await sales.wakes()
    await gateway.caught_up()
    client = await connect()
    await client.init(clientId="sales")
    await client.hears("ready")
    await until(lambda: sales.pod.followers == 1)
    await sales.sleeps()
    assert (await client.hears("hibernated"))["clientId"] == "sales"
    await sales.pod.restarts()
    await until(lambda: sales.pod.followers == 0)
    await sales.pod.receives("while it slept")
    sending = send(gateway)
    await waiting(gateway)
    await sales.begins_to_wake()
    await sales.wakes()
    await sending
    await client.hears("ready")
    await client.hears("message", text="while it slept")
    assert "disconnected" not in client.names()


async def test_init_wakes_the_session_that_it_names(
    gateway: Replica, sales: Sleeper, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await gateway.caught_up()
    client = await connect()
    await client.init()
    await client.init(clientId="sales", wake=False)
    reader = await connect(scope="sessions:read messages:read")
    await reader.init(clientId="sales")
    assert (await client.hears("hibernated")).keys() >= {"since", "wakeAt"}
    assert sales.request is None
    answer = await client.init(clientId="sales")
    assert answer["ok"] is True
    assert [session["phase"] for session in answer["sessions"]] == ["Hibernated"]
    assert sales.request is not None
    await client.init(clientId="sales")
    assert sales.patches == 1
    woken = [record for record in caplog.records if vars(record).get("action") == "wakeSession"]
    assert [vars(record)["outcome"] for record in woken] == ["ok"]
    await sales.begins_to_wake()
    await sales.wakes()
    await client.hears("ready")


async def test_a_client_joins_even_if_it_cannot_wake_the_session(
    api: ApiServer, gateway: Replica, sales: Sleeper, connect: Any
) -> None:
    await gateway.caught_up()
    client = await connect()
    api.forbidden = "PATCH"
    answer = await client.init(clientId="sales")
    assert (answer["ok"], answer["sessions"][0]["phase"]) == (True, "Hibernated")
    await sales.wakes()
    await client.hears("ready")
