"""Events of messages and acks, resuming a stream, chats and contacts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from integration.pod.conftest import Event, Linked, Pod
from support.standin import Media, Phone
from support.standin.world import FIRST_GROUP

Start = Callable[..., Awaitable[Pod]]
ME = "15551234567"
FRIEND = "15550001111"


@pytest.fixture(scope="module")
def numbers() -> Iterator[str]:
    return (f"1555{number:07}" for number in range(2_000_000, 3_000_000))


@pytest.fixture
def friend(numbers: Iterator[str]) -> str:
    """Return a contact that no other test writes to."""
    return next(numbers)


async def take(events: AsyncIterator[Event], count: int, timeout: float = 30) -> list[Event]:
    async with asyncio.timeout(timeout):
        return [await anext(events) for _ in range(count)]


async def send(pod: Pod, to: str, text: str) -> Any:
    return await pod.call("POST", "/v1/messages", 201, json={"to": to, "text": text})


# --- messages -------------------------------------------------------------------------------------


async def test_a_text_comes_in(linked: Linked, friend: str) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    async with linked.pod.stream("message") as events:
        message_id = await linked.phone.send(friend, ME, "good morning ☀")
        [event] = await take(events, 1)
    message = event.json
    assert datetime.fromisoformat(message.pop("sentAt")) >= before
    assert message == {
        "id": f"false_{friend}@c.us_{message_id}",
        "chatId": f"{friend}@c.us",
        "from": f"{friend}@c.us",
        "phoneNumber": friend,
        "fromMe": False,
        "senderName": f"Phone {friend}",
        "type": "chat",
        "text": "good morning ☀",
        "forwarded": False,
        "viewOnce": False,
    }
    assert event.kind == "message"


async def test_a_text_of_a_group_and_a_reply_come_in(linked: Linked, friend: str) -> None:
    sent = await send(linked.pod, friend, "a question")
    async with linked.pod.stream("message") as events:
        await linked.phone.send(friend, ME, "to all", group=FIRST_GROUP)
        await linked.phone.send(friend, ME, "an answer", quoted=sent["id"].rpartition("_")[2])
        group, answer = [event.json for event in await take(events, 2)]
    assert (group["chatId"], group["from"]) == (FIRST_GROUP, f"{friend}@c.us")
    assert answer["replyTo"] == sent["id"]


@pytest.mark.parametrize("caption", ["look", None])
async def test_a_file_comes_in_by_its_description(
    linked: Linked, friend: str, caption: str | None
) -> None:
    media = Media(
        kind="video",
        mime_type="video/mp4",
        size=1000,
        file_name="a.mp4",
        caption=caption,
        duration=4,
    )
    async with linked.pod.stream("message") as events:
        await linked.phone.send(friend, ME, media=media)
        [event] = await take(events, 1)
    assert (event.json["type"], event.json.get("text")) == ("video", caption)
    assert event.json["media"] == {
        "mimeType": "video/mp4",
        "size": 1000,
        "fileName": "a.mp4",
        "duration": 4.0,
    }


async def test_messages_of_the_accounts_other_devices_are_events(
    start: Start, phone: Phone
) -> None:
    one, two = await start("one"), await start("two")
    for pod in (one, two):
        await phone.scan(await pod.qr())
        await pod.ready()
    async with one.stream("message") as of_one, two.stream("message") as of_two:
        sent = await send(one, FRIEND, "by one")
        await send(two, FRIEND, "by two")
        [of_the_other] = await take(of_one, 1)
        [by_one] = await take(of_two, 1)
    assert (by_one.json["fromMe"], by_one.json["text"], by_one.json["id"]) == (
        True,
        "by one",
        sent["id"],
    )
    assert (of_the_other.json["fromMe"], of_the_other.json["text"]) == (True, "by two")


async def test_messages_are_counted(linked: Linked, friend: str) -> None:
    async def counted(name: str) -> float:
        lines = (await linked.pod.answer("GET", "/metrics")).body.decode().splitlines()
        return float(next((line.rpartition(" ")[2] for line in lines if line.startswith(name)), 0))

    sent, received = (
        'wasession_pod_messages_sent_total{result="sent"}',
        "wasession_pod_messages_received_total",
    )
    before = (
        await counted(sent),
        await counted(received),
        await counted("wasession_pod_send_seconds_count"),
    )
    async with linked.pod.stream("message") as events:
        await send(linked.pod, friend, "out")
        await linked.phone.send(friend, ME, "in")
        await take(events, 1)
    after = (
        await counted(sent),
        await counted(received),
        await counted("wasession_pod_send_seconds_count"),
    )
    assert after == tuple(value + 1 for value in before)


# --- acks -----------------------------------------------------------------------------------------


async def test_acks_from_sent_to_read(linked: Linked, friend: str) -> None:
    await linked.phone.behave(auto_delivery=False)
    try:
        async with linked.pod.stream("ack") as events:
            sent = await send(linked.pod, friend, "hello")
            message_id = sent["id"].rpartition("_")[2]
            await linked.phone.deliver(message_id)
            await linked.phone.read(message_id)
            acks = [event.json for event in await take(events, 3)]
    finally:
        await linked.phone.behave(auto_delivery=True)
    assert [(ack["id"], ack["chatId"], ack["ack"]) for ack in acks] == [
        (sent["id"], f"{friend}@c.us", number) for number in (1, 2, 3)
    ]
    assert (await linked.pod.call("GET", f"/v1/messages/{sent['id']}"))["ack"] == 3


async def test_acks_that_came_while_the_page_was_away(start: Start, phone: Phone) -> None:
    await phone.behave(auto_delivery=False)
    pod = await start()
    await phone.scan(await pod.qr())
    await pod.ready()
    async with pod.stream("ack") as events:
        sent = await send(pod, FRIEND, "hello")
        await take(events, 1)
        pod.process_of("browser").kill()
        await pod.until(lambda report: report.phase == "Restoring")
        await phone.deliver(sent["id"].rpartition("_")[2])
        await phone.read(sent["id"].rpartition("_")[2])
        [ack] = await take(events, 1, timeout=60)
        if ack.json["ack"] == 2:  # the page has loaded the message between its two receipts
            [ack] = await take(events, 1)
    assert (ack.json["id"], ack.json["ack"]) == (sent["id"], 3)


async def test_acks_of_a_group_carry_the_id_that_was_sent(linked: Linked) -> None:
    async with linked.pod.stream("ack") as events:
        sent = await send(linked.pod, FIRST_GROUP, "to all")
        await linked.phone.deliver(sent["id"].split("_")[2])
        acks = [event.json for event in await take(events, 2)]
    assert [(ack["id"], ack["ack"]) for ack in acks] == [(sent["id"], 1), (sent["id"], 2)]


# --- resuming -------------------------------------------------------------------------------------


async def test_a_reader_that_comes_back_misses_nothing(linked: Linked, friend: str) -> None:
    async with linked.pod.stream("message") as events:
        await linked.phone.send(friend, ME, "one")
        [first] = await take(events, 1)
    for text in ("two", "three"):
        await linked.phone.send(friend, ME, text)
    async with linked.pod.stream("state,message", first.id) as events:
        state, *rest = await take(events, 3)
    assert state.kind == "state"
    assert [event.json["text"] for event in rest] == ["two", "three"]
    async with linked.pod.stream("state,message", state.id) as events:  # so does the state's id
        assert [event.json["text"] for event in (await take(events, 3))[1:]] == ["two", "three"]


@pytest.mark.parametrize("last_event_id", ["1a2b3c-17", "nonsense", "-", "ü", "1" * 5000])
async def test_a_reader_with_an_unknown_id_gets_a_gap(
    linked: Linked, friend: str, last_event_id: str
) -> None:
    await linked.phone.send(friend, ME, "what there is")
    async with linked.pod.stream(
        "message"
    ) as events:  # once the page has this one, it has the previous one
        await linked.phone.send(friend, ME, "next")
        await take(events, 1)
    async with linked.pod.stream("state,message", last_event_id) as events:
        state, gap, *rest = await take(events, 4)
    assert (state.kind, state.id, gap.kind) == ("state", None, "gap")
    assert gap.json == {"reason": "OutboxReplaced"}
    assert all(event.kind == "message" for event in rest)


async def test_messages_that_came_while_the_pod_was_down_come_later(
    start: Start, phone: Phone
) -> None:
    pod = await start()
    await phone.scan(await pod.qr())
    await pod.ready()
    async with pod.stream("state") as events:
        [state] = await take(events, 1)
    await pod.kill()
    await phone.send(FRIEND, ME, "missed")
    again = await start()
    await again.ready()
    async with again.stream("message", state.id) as events:
        [message] = await take(events, 1)
    assert (message.kind, message.json["text"]) == ("message", "missed")


@pytest.mark.parametrize("types", ["nothing", "", "state,", "state,nothing"])
async def test_unknown_types_are_refused(linked: Linked, types: str) -> None:
    response = await linked.pod.answer("GET", "/v1/events", params={"types": types})
    assert (response.status, response.json["detail"].split(":")[0].split(".")[0]) == (422, "types")


# --- chats and contacts ---------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "key"), [("/v1/chats", "lastMessageAt"), ("/v1/contacts", "id")])
async def test_lists_in_parts(linked: Linked, path: str, key: str, numbers: Iterator[str]) -> None:
    async with linked.pod.stream("message") as events:
        for _ in range(5):
            await linked.phone.send(next(numbers), ME, "hello")
        await take(events, 5)
    whole = (await linked.pod.call("GET", path))["items"]
    assert whole == sorted(whole, key=lambda item: item[key], reverse=path == "/v1/chats")
    parts: list[Any] = []
    more: dict[str, str] = {}
    while True:
        page = await linked.pod.call("GET", path, params={"limit": 2, **more})
        parts += page["items"]
        assert len(page["items"]) <= 2
        if "continue" not in page:
            break
        more = {"continue": page["continue"]}
    assert parts == whole
    assert len({item["id"] for item in whole}) == len(whole) >= 6


async def test_what_a_chat_and_a_contact_say(linked: Linked, friend: str) -> None:
    async with linked.pod.stream("message") as events:
        await linked.phone.send(friend, ME, "hello")
        await take(events, 1)
    chats = {chat["id"]: chat for chat in (await linked.pod.call("GET", "/v1/chats"))["items"]}
    assert (chats[FIRST_GROUP]["group"], chats[FIRST_GROUP]["name"]) == (True, "Group")
    assert (chats[f"{friend}@c.us"]["group"], chats[f"{friend}@c.us"]["unreadCount"]) == (False, 1)
    contacts = {
        contact["id"]: contact
        for contact in (await linked.pod.call("GET", "/v1/contacts"))["items"]
    }
    ada = contacts[f"{FRIEND}@c.us"]
    assert (ada["name"], ada["myContact"]) == ("Ada", True)
    stranger = contacts[f"{friend}@c.us"]
    assert (stranger["pushName"], stranger["myContact"]) == (f"Phone {friend}", False)
    assert FIRST_GROUP not in contacts


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=501", "limit=x", "continue=x", "continue=e30", "limit=1&limit=2", "more=1"],
)
@pytest.mark.parametrize("path", ["/v1/chats", "/v1/contacts"])
async def test_bad_pages_are_refused(linked: Linked, path: str, query: str) -> None:
    assert (await linked.pod.answer("GET", f"{path}?{query}")).status == 422
