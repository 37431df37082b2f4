"""What a client has missed it gets once, in order, and then what happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from integration.gateway.conftest import Start
from integration.gateway.fakes import ApiServer, Pod, now
from integration.gateway.replica import READY, Replica, token, until
from integration.gateway.test_socket import Client

CHAT = "15550001111@c.us"
CHANGED = {"id": f"false_{CHAT}_3EB0", "chatId": CHAT, "at": now()}
PAYLOADS: dict[str, tuple[str, dict[str, Any]]] = {
    "edit": ("message_edit", {**CHANGED, "text": "better"}),
    "deletion": ("message_deletion", CHANGED),
    "reaction": ("message_reaction", {**CHANGED, "emoji": "👍"}),
    "vote": ("poll_vote", {**CHANGED, "options": ["yes"]}),
    "ack": ("message_ack", {**CHANGED, "ack": 3}),
    "call": ("call", {"id": "C1", "from": CHAT, "video": True, "at": now()}),
    "group": (
        "group_change",
        {"chatId": "1203@g.us", "action": "add", "participants": [CHAT], "at": now()},
    ),
    "gap": ("messages_missed", {"reason": "Incomplete"}),
}


@pytest.fixture
async def connect(gateway: Replica, pod: Pod) -> AsyncIterator[Any]:
    clients: list[Client] = []

    async def begin(who: str = "alice", url: str = gateway.url, **more: Any) -> Client:
        clients.append(await Client(url).connect(who, **more))
        return clients[-1]

    await gateway.caught_up()
    yield begin
    for client in clients:
        await client.io.disconnect()


async def texts_until_caught_up(client: Client) -> list[str]:
    """Return the texts that the client has until it has caught up, and forget them."""
    heard, end = client.heard, 0
    while end == len(heard) or heard[end][0] != "caught_up":
        if end == len(heard):
            await client.hears_more()
        else:
            end += 1
    texts = [data["text"] for name, data in heard[:end] if name == "message"]
    del heard[: end + 1]
    return texts


@pytest.mark.parametrize("missed", [250, 10 * 60 * 20], ids=["some", "ten minutes at 20/s"])
async def test_a_client_that_comes_back_gets_exactly_what_it_missed(
    gateway: Replica, connect: Any, pod: Pod, missed: int
) -> None:
    client = await connect()
    await client.init(clientId="sales")
    assert (await client.hears("caught_up"))["eventId"] == pod.cursor(0)
    await pod.receives("1")
    since = (await client.hears("message", text="1"))["eventId"]
    assert since == pod.cursor(1)
    await client.io.disconnect()
    await until(lambda: pod.followers == 0)
    numbers = range(2, 2 + missed)
    for number in numbers:
        await pod.receives(str(number))
    client = await connect()
    await client.init(clientId="sales", since=since)
    assert await texts_until_caught_up(client) == [str(number) for number in numbers]
    await pod.receives("next")
    assert (await client.hears("message"))["text"] == "next"


async def test_a_client_that_does_not_say_what_it_had_gets_what_happens(
    gateway: Replica, connect: Any, pod: Pod
) -> None:
    await pod.receives("before")
    client = await connect()
    await client.init(clientId="sales")
    assert await texts_until_caught_up(client) == []
    await pod.receives("after")
    assert (await client.hears("message"))["text"] == "after"


async def test_clients_of_one_session_each_have_their_cursor(
    gateway: Replica, connect: Any, pod: Pod
) -> None:
    """While messages arrive all the time."""

    async def receive() -> None:
        for number in range(20, 120):
            await pod.receives(str(number))
            await asyncio.sleep(0)

    for number in range(20):
        await pod.receives(str(number))
    live = await connect()
    await live.init(clientId="sales")
    await live.hears("caught_up")
    receiving = asyncio.create_task(receive())
    late = [await connect() for _ in range(4)]
    for place, client in enumerate(late):
        await client.init(clientId="sales", since=pod.cursor(5 * place))
    await receiving
    for place, client in enumerate(late):
        await until(partial(has_text, client, "119"))
        texts = [data["text"] for name, data in client.heard if name == "message"]
        assert texts == [str(number) for number in range(5 * place, 120)]
    await until(lambda: has_text(live, "119"))
    assert [data["text"] for name, data in live.heard if name == "message"] == [
        str(number) for number in range(20, 120)
    ]
    assert pod.followers == 1


def has_text(client: Client, text: str) -> bool:
    return any(name == "message" and data["text"] == text for name, data in client.heard)


async def test_several_sessions_have_cursors_by_name(
    api: ApiServer, gateway: Replica, connect: Any, pod: Pod
) -> None:
    await api.put("quiet", {"owner": "alice"}, {**READY, "podName": None})
    await pod.receives("1")
    await pod.receives("2")
    await gateway.caught_up()
    client = await connect()
    since = {"sales": pod.cursor(1), "quiet": pod.cursor(7), "of-another": pod.cursor(3)}
    assert (await client.init(since=since))["ok"] is True
    assert await texts_until_caught_up(client) == ["2"]


@pytest.mark.parametrize(
    ("payload", "detail"),
    [
        ({"since": "0123456789abcdef-1"}, "since: must have one ID for each name"),
        ({"clientId": "sales", "since": "seven"}, "must be the ID of an event, unchanged"),
        ({"clientId": "sales", "since": {"sales": "../7"}}, "must be the ID of an event"),
        ({"clientId": "sales", "since": 7}, "since.id: Input should be a valid string"),
    ],
)
async def test_what_is_no_cursor_is_refused(
    gateway: Replica, connect: Any, pod: Pod, payload: dict[str, Any], detail: str
) -> None:
    client = await connect()
    problem = (await client.init(**payload))["problem"]
    assert problem["status"] == 422
    assert detail in problem["detail"]


async def test_the_cursor_of_another_outbox_is_a_gap(
    gateway: Replica, connect: Any, pod: Pod
) -> None:
    await pod.receives("1")
    client = await connect()
    await client.init(clientId="sales", since="ffffffffffffffff-17")
    missed = await client.hears("messages_missed")
    assert missed["reason"] == "OutboxReplaced"
    assert (await client.hears("message"))["text"] == "1"
    await client.hears("caught_up", eventId=pod.cursor(1))


async def test_all_kinds_of_events(gateway: Replica, connect: Any, pod: Pod) -> None:
    live, late = await connect(), await connect()
    await live.init(clientId="sales")
    await live.hears("caught_up")
    for kind, (_, data) in PAYLOADS.items():
        await pod.tells(kind, data)
    await late.init(clientId="sales", since=pod.cursor(0))
    of = {"clientId": "sales", "owner": "alice", "name": "sales"}
    for client in (live, late):
        for number, (name, data) in enumerate(PAYLOADS.values(), 1):
            heard = await client.hears(name)
            assert heard == {"fromMe": False, **of, **data, "eventId": pod.cursor(number)} or (
                "fromMe" not in data and data.items() <= heard.items()
            )
            assert heard["eventId"] == pod.cursor(number)


async def test_a_pod_that_restarts_tells_what_came_meanwhile(
    gateway: Replica, connect: Any, pod: Pod
) -> None:
    client = await connect()
    await client.init(clientId="sales")
    await client.hears("caught_up")
    await pod.receives("1")
    await client.hears("message", text="1")
    for number in range(2, 5):
        await pod.restarts()
        await pod.receives(str(number))
        assert (await client.hears("message"))["text"] == str(number)


async def test_a_suspended_session_tells_what_came_before_its_stream(
    api: ApiServer, gateway: Replica, connect: Any, pod: Pod
) -> None:
    client, late = await connect(), await connect()
    await client.init(clientId="sales")
    await client.hears("caught_up")
    await pod.receives("1")
    await client.hears("message")
    await api.status("sales", phase="Suspended", podName=None)
    await until(lambda: pod.followers == 0)
    await late.init(clientId="sales", since=pod.cursor(0))
    await pod.receives("2")
    await api.status("sales", **READY)
    assert (await client.hears("message"))["text"] == "2"
    assert await texts_until_caught_up(late) == ["1", "2"]


async def test_an_outbox_that_is_replaced(gateway: Replica, connect: Any, pod: Pod) -> None:
    client = await connect()
    await client.init(clientId="sales")
    await client.hears("caught_up")
    await pod.receives("1")
    await client.hears("message")
    pod.outbox, pod._events = "ffffffffffffffff", []
    await pod.receives("2")
    await pod.restarts()
    missed = await client.hears("messages_missed")
    assert (missed["reason"], missed["eventId"]) == ("OutboxReplaced", "ffffffffffffffff-0")
    message = await client.hears("message")
    assert (message["text"], message["eventId"]) == ("2", "ffffffffffffffff-1")


async def test_a_pod_without_pages(gateway: Replica, connect: Any, pod: Pod) -> None:
    pod.is_old = True
    client = await connect()
    await pod.receives("1")
    await client.init(clientId="sales", since=pod.cursor(0))
    assert (await client.hears("messages_missed"))["reason"] == "Incomplete"
    await pod.receives("2")
    assert (await client.hears("message"))["text"] == "2"


@pytest.mark.parametrize(("transport", "page"), [("websocket", 100), ("polling", 10)])
async def test_a_client_is_sent_a_page_at_a_time(
    connect: Any, pod: Pod, transport: str, page: int
) -> None:
    """Over polling a small one, so that one poll takes it."""
    for number in range(300):
        await pod.receives(str(number))
    client = await connect(transports=[transport])
    await client.init(clientId="sales", since=pod.cursor(0))
    assert await texts_until_caught_up(client) == [str(number) for number in range(300)]
    assert pod.asked["GET /v1/events"] == 1 + 300 // page, "the stream, and the pages"


async def test_a_client_that_leaves_is_sent_nothing_more(
    gateway: Replica, connect: Any, pod: Pod
) -> None:
    for number in range(1000):
        await pod.receives(str(number))
    client = await connect()
    await client.init(clientId="sales", since=pod.cursor(0))
    await client.io.disconnect()
    await until(lambda: not gateway.gateway._namespace._feeds)


async def test_without_the_scope_a_cursor_opens_nothing(
    gateway: Replica, connect: Any, pod: Pod
) -> None:
    await pod.receives("1")
    client = await connect(scope="sessions:read pair")
    assert (await client.init(clientId="sales", since=pod.cursor(0)))["ok"] is True
    await until(lambda: pod.followers == 1)
    await pod.offers("2@code", attempt=1)
    await client.hears("qr")
    assert pod.asked["GET /v1/events"] == 1, "the stream alone"
    assert not {"message", "caught_up"} & set(client.names())
    await client.init(token=token("alice"), clientId="sales", since=pod.cursor(0))
    assert await texts_until_caught_up(client) == ["1"]


async def test_nobody_catches_up_with_anothers_session(
    api: ApiServer, gateway: Replica, connect: Any, pod: Pod
) -> None:
    await pod.receives("for alice only")
    bob = await connect("bob")
    refused = await bob.init(clientId="sales", since=pod.cursor(0))
    assert refused["problem"]["status"] == 404
    assert (await bob.init(since={"sales": pod.cursor(0)}))["sessions"] == []
    root = await connect("root", role="admin")
    assert (await root.init(since={"sales": pod.cursor(0)}))["ok"] is True
    assert pod.asked["GET /v1/events"] == 0
    await root.init(clientId="sales", owner="alice", since=pod.cursor(0))
    assert await texts_until_caught_up(root) == ["for alice only"]
    assert bob.names() == ["exception"]


async def test_another_replica_goes_on(
    api: ApiServer, start: Start, connect: Any, pod: Pod
) -> None:
    """A gateway that is killed: its clients connect to another one."""
    first = await connect()
    await first.init(clientId="sales")
    await first.hears("caught_up")
    await pod.receives("1")
    since = (await first.hears("message"))["eventId"]
    await first.io.disconnect()
    await pod.receives("2")
    other = await start()
    await other.caught_up()
    second = await connect(url=other.url)
    await second.init(clientId="sales", since=since)
    assert await texts_until_caught_up(second) == ["2"]


# --- REST -----------------------------------------------------------------------------------------

EVENTS = "/whatsapp/sessions/sales/events"
MEDIA = f"/whatsapp/sessions/sales/messages/false_{CHAT}_3EB0/media"


async def test_events_in_pages(gateway: Replica, pod: Pod) -> None:
    for text in ("1", "2", "3"):
        await pod.receives(text)
    await pod.tells("ack", PAYLOADS["ack"][1])
    first = await gateway.ask("alice", "GET", f"{EVENTS}?limit=2")
    assert [event["data"]["text"] for event in first["items"]] == ["1", "2"]
    assert (first["more"], first["next"]) == (True, pod.cursor(2))
    second = await gateway.ask("alice", "GET", f"{EVENTS}?after={first['next']}")
    assert [event["kind"] for event in second["items"]] == ["message", "ack"]
    acks = await gateway.ask("alice", "GET", f"{EVENTS}?types=call,ack")
    assert [event["kind"] for event in acks["items"]] == ["ack"]


async def test_events_are_awaited(gateway: Replica, pod: Pod) -> None:
    await gateway.caught_up()
    waiting = asyncio.create_task(
        gateway.ask("alice", "GET", f"{EVENTS}?after={pod.cursor(0)}&wait=60", at_once=True)
    )
    await until(lambda: pod.asked["GET /v1/events"] == 1)
    await pod.receives("at last")
    assert (await waiting)["items"][0]["data"]["text"] == "at last"


async def test_who_waits_for_events_is_answered_at_a_shutdown(
    api: ApiServer, start: Start, pod: Pod
) -> None:
    gateway = await start()
    await gateway.caught_up()
    path = f"{EVENTS}?after={pod.cursor(0)}&wait=60"
    waiting = asyncio.create_task(gateway.ask("alice", "GET", path, 503, at_once=True))
    await until(lambda: pod.asked["GET /v1/events"] == 1)
    gateway.gateway._rest.close()
    assert "ask again" in (await waiting)["detail"]
    assert "ask again" in (await gateway.ask("alice", "GET", path, 503))["detail"]


@pytest.mark.parametrize(
    "query", ["after=7", "limit=0", "limit=501", "wait=61", "types=", "types=nothing", "x=1"]
)
async def test_event_queries_that_make_no_sense(gateway: Replica, pod: Pod, query: str) -> None:
    await gateway.ask("alice", "GET", f"{EVENTS}?{query}", 422)
    assert pod.asked["GET /v1/events"] == 0


async def test_a_chats_messages(gateway: Replica, pod: Pod) -> None:
    for chat in (CHAT, "15550001111", "%2B15550001111"):
        path = f"/whatsapp/sessions/sales/chats/{chat}/messages?limit=7&continue=abc"
        [item] = (await gateway.ask("alice", "GET", path))["items"]
        assert item["query"] == {"limit": "7", "continue": "abc"}
    assert pod.asked[f"GET /v1/chats/{CHAT}/messages"] == 3
    await gateway.ask("alice", "GET", "/whatsapp/sessions/sales/chats/nobody/messages", 422)


async def fetch(gateway: Replica, **headers: str) -> tuple[int, dict[str, str], bytes]:
    await gateway.caught_up()
    headers = {"Authorization": f"Bearer {token('alice')}", **headers}
    async with gateway.http.get(MEDIA, headers=headers) as answer:
        return answer.status, dict(answer.headers), await answer.read()


async def test_a_file_in_full_and_in_part(gateway: Replica, pod: Pod) -> None:
    status, headers, body = await fetch(gateway)
    assert (status, body) == (200, pod.file)
    assert int(headers["Content-Length"]) == len(pod.file)
    assert headers["Content-Type"] == "image/jpeg"
    assert headers["Content-Disposition"] == 'attachment; filename="a.jpg"'
    assert headers["Content-Security-Policy"] == "sandbox"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "private, no-store"
    assert "X-Internal" not in headers
    status, headers, body = await fetch(gateway, Range="bytes=10-19")
    assert (status, body) == (206, pod.file[10:20])
    assert headers["Content-Range"] == f"bytes 10-19/{len(pod.file)}"
    status, headers, _ = await fetch(gateway, Range="bytes=99999999-")
    assert (status, headers["Content-Range"]) == (416, f"bytes */{len(pod.file)}")
    status, headers, body = await fetch(gateway, **{"If-None-Match": headers.get("ETag", '"file"')})
    assert (status, body) == (304, b"")
    status, _, body = await fetch(gateway, **{"Range": "bytes=0-9", "If-Range": '"other"'})
    assert (status, len(body)) == (200, len(pod.file))


@pytest.mark.parametrize("disposition", ["inline", "", 'inline; filename="attachment"'])
async def test_a_pod_cannot_have_a_file_shown(gateway: Replica, pod: Pod, disposition: str) -> None:
    pod.file_headers = {
        "Content-Type": "text/html",
        "Content-Disposition": disposition,
        "Content-Security-Policy": "default-src *",
        "Cache-Control": "public",
        "X-Content-Type-Options": "sniff",
        "Set-Cookie": "a=b",
    }
    _, headers, _ = await fetch(gateway)
    assert headers["Content-Disposition"] == "attachment"
    assert headers["Content-Security-Policy"] == "sandbox"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "private, no-store"
    assert "Set-Cookie" not in headers


async def test_a_file_that_breaks_off_is_no_whole_file(gateway: Replica, pod: Pod) -> None:
    pod.torn = True
    with pytest.raises(Exception, match=r"(?i)payload|disconnected|reset"):
        await fetch(gateway)


@pytest.mark.parametrize("path", [EVENTS, MEDIA, f"/whatsapp/sessions/sales/chats/{CHAT}/messages"])
async def test_only_who_may_read_messages_gets_them(gateway: Replica, pod: Pod, path: str) -> None:
    claims = {"scope": "sessions:read messages:send pair"}
    await gateway.ask("alice", "GET", path, 403, claims=claims)
    await gateway.ask("bob", "GET", path, 404)
    assert not pod.asked
