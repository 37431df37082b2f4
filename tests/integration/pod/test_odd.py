"""Odd fields of WhatsApp's models stop nothing, and lose nothing without a gap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from integration.pod.conftest import Event, Linked, Pod
from support.standin import Phone
from wasession_api.v1alpha1 import Reason

ME = "15551234567"
# --- values that a field should not have ----------------------------------------------------------

ABSENT: dict[str, Any] = {"$absent": True}
THROWS: dict[str, Any] = {"$throws": "not of this release"}
HUGE = "x" * 2_000_000
HALF_A_CHARACTER = {"$utf16": [0xD83D, 0x41]}
texts = st.one_of(
    st.text(max_size=40),
    st.just("\N{GRINNING FACE}" * 70_000),
)
odd_values = st.one_of(
    st.none(),
    st.just(ABSENT),
    st.just(THROWS),
    st.booleans(),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
    st.just(HALF_A_CHARACTER),
    st.lists(st.integers(), max_size=3),
    st.just({}),
    st.just({"_serialized": 7}),
    st.just({"$wid": "120363000000000009@g.us"}),
    st.just({"$wid": "98765432101234@lid"}),
)
# A model whose id can't be read at all is in no collection.
keys = st.one_of(
    odd_values.filter(lambda value: value != THROWS),
    st.fixed_dictionaries(
        {},
        optional={
            "fromMe": odd_values,
            "remote": odd_values,
            "id": odd_values,
            "participant": odd_values,
        },
    ).map(lambda fields: {"$key": fields}),
)
MESSAGE_FIELDS = (
    "t", "from", "to", "author", "type", "body", "notifyName", "mimetype", "size", "filename",
    "caption", "isCaptionByUser", "duration", "quotedStanzaID", "quotedParticipant", "ack", "self",
)  # fmt: skip
messages = st.fixed_dictionaries(
    {}, optional={"id": keys} | dict.fromkeys(MESSAGE_FIELDS, odd_values)
)
CONTACT_FIELDS = ("name", "pushname", "isBusiness", "isMyContact")
contacts = st.fixed_dictionaries(
    {}, optional={"id": keys} | dict.fromkeys(CONTACT_FIELDS, odd_values)
)
CHAT_FIELDS = ("name", "formattedTitle", "unreadCount", "archive", "t")
chats = st.fixed_dictionaries({}, optional={"id": keys} | dict.fromkeys(CHAT_FIELDS, odd_values))
fuzz = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


async def next_of(events: AsyncIterator[Event], marker: str) -> list[Event]:
    """Return the events up to a usual message with this text, which is the last of them."""
    seen = []
    async with asyncio.timeout(30):
        async for event in events:
            seen.append(event)
            if event.kind == "message" and event.json.get("text") == marker:
                return seen
    raise AssertionError("the stream ended")


async def delivered(linked: Linked, fields: dict[str, Any]) -> list[Event]:
    """Send an odd message and then a usual one; return the events of the odd one."""
    async with linked.pod.stream("message") as events:
        await linked.phone.send_odd("message", ME, fields)
        marker = await linked.phone.send("15550002222", ME, "the next one")
        seen = await next_of(events, "the next one")
        while marker not in seen[-1].json["id"]:
            seen += await next_of(events, "the next one")
    return seen[:-1]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"t": ABSENT}, {"text": "message"}),
        ({"t": None}, {"text": "message"}),
        ({"t": THROWS}, {"text": "message"}),
        ({"t": 10**18}, {"text": "message"}),
        ({"from": ABSENT}, {"from": "15550001111@c.us", "text": "message"}),
        ({"body": 7}, {"type": "chat"}),
        ({"body": HUGE}, {"text": "x" * 65536}),
        ({"type": 7}, {"type": "unknown"}),
        ({"notifyName": ["a"], "author": {}}, {"text": "message"}),
        ({"mimetype": 7, "size": "1.5", "duration": "4"}, {"media": {"size": 1, "duration": 4}}),
        ({"mimetype": "a/b", "size": -1, "caption": THROWS}, {"media": {"mimeType": "a/b"}}),
        ({"quotedStanzaID": THROWS}, {"text": "message"}),
    ],
)
async def test_a_message_with_odd_fields_is_delivered(
    linked: Linked, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    [event] = await delivered(linked, fields)
    assert event.kind == "message"
    assert {name: event.json.get(name) for name in expected} == expected
    assert event.json["sentAt"]


@pytest.mark.parametrize(
    "fields",
    [
        {"id": ABSENT},
        {"id": {"$key": {"fromMe": False, "id": "A"}}},
        {"id": "x" * 1000},
        {"id": {}},
        {"isNewMsg": THROWS},
    ],
)
async def test_a_message_that_cannot_be_read_is_a_gap(
    linked: Linked, fields: dict[str, Any]
) -> None:
    assert [event.kind for event in await delivered(linked, fields)] == ["gap"]


async def test_half_a_character_does_not_lose_the_message(linked: Linked) -> None:
    """JavaScript's text may have it, Python's may not."""
    [event] = await delivered(linked, {"body": HALF_A_CHARACTER, "notifyName": HALF_A_CHARACTER})
    assert event.json["text"] == event.json["senderName"] == "\N{REPLACEMENT CHARACTER}A"


@fuzz
@given(fields=messages)
async def test_every_message_is_an_event(linked: Linked, fields: dict[str, Any]) -> None:
    kinds = [event.kind for event in await delivered(linked, fields)]
    if isinstance(fields.get("id"), dict):  # a readable id may be one that was there before
        assert kinds in (["message"], ["gap"], [])
    else:
        assert kinds in (["message"], ["gap"])


@fuzz
@given(kind=st.sampled_from(["contact", "chat"]), data=st.data())
async def test_lists_survive_odd_items(linked: Linked, kind: Any, data: st.DataObject) -> None:
    fields = data.draw(contacts if kind == "contact" else chats)
    await linked.phone.send_odd(kind, ME, fields, sender="15550007777")
    await delivered(linked, {})  # so the page has it
    for path in ("/v1/chats", "/v1/contacts"):
        listed = (await linked.pod.call("GET", f"{path}?limit=500"))["items"]
        assert "15550002222@c.us" in {item["id"] for item in listed}


async def test_nothing_was_thrown_into_the_page(linked: Linked) -> None:
    """Last of this file: what its tests have sent has stopped nothing."""
    ours = [error for error in await linked.phone.page_errors() if "__wasession" in error]
    assert ours == []
    assert await linked.pod.metric("wasession_pod_bridge_errors_total") == 0
    [event] = await delivered(linked, {})
    assert event.json["text"] == "message"


async def test_an_odd_message_at_the_start_does_not_stop_wa_js(
    start: Callable[..., Any], phone: Phone
) -> None:
    """The page has it before wa-js is there, whose own start it would end."""
    pod: Pod = await start()
    await phone.scan(await pod.qr())
    await pod.ready()
    await pod.terminate()
    await phone.send_odd("message", ME, {"t": ABSENT})
    await phone.send_odd("message", ME, {"id": ABSENT})
    await pod.start()
    await pod.ready()
    async with pod.stream("message", "0-0") as events:
        await phone.send("15550002222", ME, "the next one")
        seen = await next_of(events, "the next one")
    assert sorted(event.kind for event in seen) == ["gap", "gap", "message", "message"]
    text = {"to": "15550002222", "text": "hello"}
    sent = (await pod.call("POST", "/v1/messages", 201, json=text))["id"]
    await phone.read(sent.rpartition("_")[2])
    async with asyncio.timeout(30):  # wa-js is not fully ready at once
        while True:
            if (await pod.call("GET", f"/v1/messages/{sent}"))["ack"] == 3:
                break
            await asyncio.sleep(0.1)  # between two looks


# --- a page that does not hear --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("messages", "MsgStore"),
        ("receipts", "handleChatSimpleReceipt"),
        ("send", "addAndSendMsgToChat"),
        ("version", "WPP.isFullReady"),
    ],
)
async def test_a_page_that_does_not_hear_messages_is_a_warning(
    start: Callable[..., Any], phone: Phone, missing: Any, named: str
) -> None:
    pod: Pod = await start()
    await phone.scan(await pod.qr())
    await pod.ready()
    await phone.behave(missing=[missing], debug_global=missing != "version")
    await pod.call("POST", "/v1/restart", 202)
    report = await pod.until(
        lambda report: report.warnings != [] and report.phase == "Ready", timeout=90
    )
    [warning] = report.warnings
    assert warning.reason == Reason.MESSAGES_NOT_HEARD
    assert named in warning.message
    assert await pod.metric('wasession_pod_warning{reason="MessagesNotHeard"}') == 1
    await phone.behave(missing=[], debug_global=True)
    await pod.call("POST", "/v1/restart", 202)
    await pod.until(lambda report: report.warnings == [] and report.phase == "Ready")
