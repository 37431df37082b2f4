"""The bridge on a page of the stand-in with unmodified wa-js, without a session pod around it."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from integration.pod.test_odd import odd_values
from integration.standin.conftest import Client, init_script
from playwright.async_api import Error, async_playwright
from support.standin import Card, Location, Media, Phone, Poll, Running, running
from support.standin.world import FIRST_GROUP
from wasession_api.session_pod.events import PAYLOADS, EventKind
from wasession_api.session_pod.messages import IncomingMessage
from wasession_pod.browser.bridge import (
    CALL,
    CHUNK,
    Bridge,
    Listing,
    MediaBusy,
    MediaGone,
    MediaTooLarge,
    MessagePosition,
    RecentEvent,
)
from wasession_pod.browser.cdp import ProtocolError
from wasession_pod.browser.errors import BrowserError
from wasession_pod.browser.launch import BRIDGE
from wasession_pod.browser.tab import Tab
from wasession_pod.state.observation import PageEvent

ME = "15551234567"
GROUP = FIRST_GROUP
MARKER = "15550009999"  # sends the messages that tests wait for
THUMBS_UP = "\N{THUMBS UP SIGN}"
JPEG = "/9j/4AAQSkZJRgABAQ=="
T = TypeVar("T")
COLLECT = """
window.__told = [];
window.__wasessionConnect((event) => event !== 'secret' && window.__told.push(event), 'secret');
"""


class BridgePage:
    """A page with the bridge, and what the bridge has told since the page was opened."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.bridge = Bridge(lambda: cast(Tab, self), 10)

    async def evaluate(self, function: str, name: str, arguments: list[Any]) -> Any:
        """Call a function as ``Tab`` does."""
        assert function == CALL
        call = f"([name, values]) => ({function})(name, values)"
        try:
            return await self.client.page.evaluate(call, [name, arguments])
        except Error as error:
            raise ProtocolError(error.message) from None

    async def told(self) -> list[PageEvent]:
        events = await self.client.page.evaluate("() => window.__told")
        chat = [event for event in map(json.loads, events) if event["type"].startswith("chat.")]
        return [PageEvent.model_validate(e) for e in chat if e["type"] in TOLD]

    async def next(self, phone: Phone, count: int = 0) -> list[PageEvent]:
        """Return what was told before a usual message that is sent now, from ``count`` on."""
        marker = await phone.send(MARKER, ME, "the next one")
        async with asyncio.timeout(20):
            while True:
                events = await self.told()
                if any(marker in str(event.data) for event in events):
                    return [event for event in events[count:] if MARKER not in str(event.data)]
                await asyncio.sleep(0.03)  # between two looks


AT_ONCE = """() => {
  window.__setTimeout = window.setTimeout;
  window.setTimeout = (work, ms, ...rest) =>
    window.__setTimeout(work, ms === 60000 ? 0 : ms, ...rest);
}"""
CLOSED = """async (handle) => {
  try { await window.__wasession.readMedia(handle, 0, 1); return false; } catch { return true; }
}"""
TOLD = {f"chat.{kind}" for kind in EventKind}


def data(event: PageEvent | RecentEvent) -> dict[str, Any]:
    """Return an event's data after validating it, as clients get it."""
    payload = PAYLOADS[EventKind(event.type.removeprefix("chat."))]
    found: dict[str, Any] = payload.model_validate(event.data).model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    return found


@pytest.fixture(scope="module")
async def world() -> AsyncIterator[Running]:
    async with running() as world:
        world.world.behaviour.late_bundle_ms = 0
        world.world.behaviour.sync_seconds = 0
        world.world.behaviour.refuse_automation = False
        yield world


@pytest.fixture(scope="module")
def phone(world: Running) -> Phone:
    return Phone(world.url)


@pytest.fixture(scope="module")
async def page(world: Running, phone: Phone, chromium: Path) -> AsyncIterator[BridgePage]:
    """One page for the module; each test has a friend of its own."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=str(chromium), chromium_sandbox=False
        )
        context = await browser.new_context()
        bridge = BRIDGE.read_text()
        await context.add_init_script(
            f"{init_script()}\nif (window.top === window && window.WPP) {{ {bridge}\n{COLLECT} }}"
        )
        page = BridgePage(Client(await context.new_page(), world.url))
        await page.client.login(phone)
        await reopen(page)
        yield page
        await browser.close()


async def reopen(page: BridgePage) -> None:
    await page.client.open()
    await page.client.ready()
    await page.client.until("() => window.__wasession.observe().unheard.length === 0")


@pytest.fixture
def friend() -> str:
    return f"1555{secrets.randbelow(10**7):07}"


@pytest.fixture
async def before(page: BridgePage) -> int:
    """How much the page had told before the test."""
    return len(await page.told())


# --- messages -------------------------------------------------------------------------------------


async def test_what_messages_have(page: BridgePage, phone: Phone, friend: str, before: int) -> None:
    ada, ben = Card(name="Ada", vcard="BEGIN:VCARD\nFN:Ada"), Card(name="Ben", vcard="BEGIN:VCARD")
    place = Location(latitude=1.5, longitude=-2, name="Here", address="Street 1")
    sticker = Media(kind="sticker", mime_type="image/webp", size=9)
    voice = Media(kind="ptt", mime_type="audio/ogg; codecs=opus", size=9, duration=4)
    image = Media(kind="image", mime_type="image/jpeg", size=9, caption="look", thumbnail=JPEG)
    text = await phone.send(friend, ME, "hi @15551234567", mentions=[f"{ME}@c.us"], forwarded=True)
    await phone.send(friend, ME, "an answer", quoted=text)
    await phone.send(friend, ME, location=place)
    await phone.send(friend, ME, location=place.model_copy(update={"live": True}))
    await phone.send(friend, ME, contacts=[ada])
    await phone.send(friend, ME, contacts=[ada, ben])
    await phone.send(friend, ME, poll=Poll(question="When?", options=["a", "b"], multiple=True))
    await phone.send(friend, ME, media=sticker)
    await phone.send(friend, ME, media=voice)
    await phone.send(friend, ME, media=image, view_once=True)
    found = [data(event) for event in await page.next(phone, before)]
    here = {"latitude": 1.5, "longitude": -2.0, "name": "Here", "address": "Street 1"}
    expected: list[dict[str, Any]] = [
        {"type": "chat", "text": "hi @15551234567", "mentions": [f"{ME}@c.us"], "forwarded": True},
        {
            "type": "chat",
            "text": "an answer",
            "replyTo": f"false_{friend}@c.us_{text}",
            "quoted": {"from": f"{friend}@c.us", "type": "chat", "text": "hi @15551234567"},
        },
        {"type": "location", "location": here | {"live": False}},
        {"type": "location", "location": here | {"live": True}},
        {"type": "vcard", "contacts": [ada.model_dump()]},
        {"type": "multi_vcard", "contacts": [ada.model_dump(), ben.model_dump()]},
        {
            "type": "poll_creation",
            "poll": {"question": "When?", "options": ["a", "b"], "multiple": True},
        },
        {"type": "sticker", "media": {"mimeType": "image/webp", "size": 9}},
        {
            "type": "ptt",
            "media": {"mimeType": "audio/ogg; codecs=opus", "size": 9, "duration": 4.0},
        },
        {
            "type": "image",
            "text": "look",
            "media": {"mimeType": "image/jpeg", "size": 9, "thumbnail": JPEG},
            "viewOnce": True,
        },
    ]
    common = {"id", "chatId", "from", "phoneNumber", "fromMe", "senderName", "sentAt"}
    absent = {"forwarded": False, "viewOnce": False}
    assert [{k: v for k, v in one.items() if k not in common} for one in found] == [
        absent | one for one in expected
    ]


async def test_changes_of_messages(
    page: BridgePage, phone: Phone, friend: str, before: int
) -> None:
    chat = f"{friend}@c.us"
    one, two = await phone.send(friend, ME, "one"), await phone.send(friend, ME, "two")
    poll = await phone.send(friend, ME, poll=Poll(question="When?", options=["a", "b"]))
    await phone.edit(one, "forged", by="15550002222@c.us")
    await phone.delete(one, by=f"{ME}@c.us")
    await phone.edit(one, "one, edited")
    await phone.delete(two)
    await phone.react(one, chat, THUMBS_UP)
    await phone.react(one, chat, "")
    await phone.react(one, f"{ME}@c.us", THUMBS_UP)
    await phone.vote(poll, chat, ["a", "b"])
    events = (await page.next(phone, before))[3:]
    found = [(event.type, data(event)) for event in events]
    fields = ("id", "from", "phoneNumber", "fromMe", "text", "emoji", "options")
    theirs = {"from": chat, "phoneNumber": friend, "fromMe": False}
    ours = {"from": f"{ME}@c.us", "phoneNumber": ME, "fromMe": True}
    ids = {name: f"false_{chat}_{name}" for name in (one, two, poll)}
    assert [
        (kind, {name: values[name] for name in fields if name in values}) for kind, values in found
    ] == [
        ("chat.edit", {"id": ids[one], "text": "one, edited"} | theirs),
        ("chat.deletion", {"id": ids[two]} | theirs),
        ("chat.reaction", {"id": ids[one], "emoji": THUMBS_UP} | theirs),
        ("chat.reaction", {"id": ids[one]} | theirs),
        ("chat.reaction", {"id": ids[one], "emoji": THUMBS_UP} | ours),
        ("chat.vote", {"id": ids[poll], "options": ["a", "b"]} | theirs),
    ]
    assert {values["chatId"] for _, values in found} == {chat}


async def test_changes_in_a_group(page: BridgePage, phone: Phone, friend: str, before: int) -> None:
    chat, other = f"{friend}@c.us", "15550002222@c.us"
    sent = await phone.send(friend, ME, "to all", group=GROUP)
    await phone.react(sent, other, THUMBS_UP)
    await phone.delete(sent, by=other)
    await phone.delete(sent, by=other, admin=True)
    for action in ("add", "join", "remove", "leave", "promote", "demote"):
        await phone.change_members(GROUP, action, other, [other, chat])
    await phone.change_members(GROUP, "subject", other, [])
    message, reaction, deletion, *changes = map(data, await page.next(phone, before))
    assert {message["id"], reaction["id"], deletion["id"]} == {f"false_{GROUP}_{sent}_{chat}"}
    assert (reaction["from"], deletion["from"]) == (other, other)
    # Who is among the removed has left.
    actions = ["add", "join", "leave", "leave", "promote", "demote"]
    told = [change["action"] for change in changes]
    assert told[:3] + told[-2:] == actions[:3] + actions[-2:]
    assert (changes[0]["by"], changes[0]["participants"]) == (other, [other, chat])


async def test_calls(page: BridgePage, phone: Phone, friend: str, before: int) -> None:
    call = await phone.call(friend, ME, video=True)
    [event] = await page.next(phone, before)
    found = data(event)
    assert found.pop("at")
    assert found == {
        "id": call,
        "from": f"{friend}@c.us",
        "phoneNumber": friend,
        "video": True,
        "group": False,
    }


# --- what the page's database has -----------------------------------------------------------------


async def pages(
    read: Callable[[MessagePosition | None], Awaitable[Listing[T, MessagePosition]]],
) -> list[T]:
    items: list[T] = []
    position: MessagePosition | None = None
    while True:
        listing = await read(position)
        items += listing.items
        position = listing.next
        if position is None:
            return items


async def test_what_came_while_no_page_was_open(
    page: BridgePage, phone: Phone, friend: str
) -> None:
    chat = f"{friend}@c.us"
    earlier = await phone.send(friend, ME, "from before", at=int(time.time()) - 3600)
    await page.next(phone)
    since = time.time() - 60
    await page.client.page.goto("about:blank")
    one, two = await phone.send(friend, ME, "one"), await phone.send(friend, ME, "two")
    poll = await phone.send(friend, ME, poll=Poll(question="When?", options=["a", "b"]))
    await phone.edit(one, "one, edited")
    await phone.delete(two)
    await phone.react(one, chat, THUMBS_UP)
    await phone.vote(poll, chat, ["b"])
    await reopen(page)
    await page.next(phone)
    for limit in (1, 2, 100):
        events = await pages(partial(page.bridge.recent, since, limit))
        ours = [(event.type, data(event)) for event in events if chat in str(event.data)]
        assert [
            (kind, values["id"].rpartition("_")[2], values.get("text")) for kind, values in ours
        ] == [
            ("chat.message", one, "one, edited"),
            ("chat.edit", one, "one, edited"),
            ("chat.reaction", one, None),
            ("chat.deletion", two, None),
            ("chat.message", poll, None),
            ("chat.vote", poll, None),
        ], limit
    everything = await pages(partial(page.bridge.recent, 0, 100))
    assert earlier in str([event.data for event in everything])
    assert (await page.bridge.recent(time.time() + 60, 100, None)).items == []


async def test_what_happened_to_older_messages_while_no_page_was_open(
    page: BridgePage, phone: Phone, friend: str
) -> None:
    """The page learns of it before wa-js is there, and ``recent`` does not look so far back."""
    chat, earlier = f"{friend}@c.us", int(time.time()) - 3600
    one = await phone.send(friend, ME, "one", at=earlier)
    two = await phone.send(friend, ME, "two", at=earlier)
    poll = await phone.send(friend, ME, poll=Poll(question="When?", options=["a", "b"]), at=earlier)
    await page.next(phone)
    await page.client.page.goto("about:blank")
    await phone.edit(one, "edited")
    await phone.delete(two)
    await phone.react(one, chat, THUMBS_UP)
    await phone.vote(poll, chat, ["b"])
    await phone.change_members(GROUP, "add", chat, ["15550002222@c.us"])
    await reopen(page)
    events = await page.next(phone)
    assert sorted(event.type for event in events if chat in str(event.data)) == [
        "chat.deletion", "chat.edit", "chat.group", "chat.reaction", "chat.vote",
    ]  # fmt: skip


async def test_live_and_stored_changes_are_the_same(
    page: BridgePage, phone: Phone, friend: str, before: int
) -> None:
    """So each is told once, by what it says."""
    chat, since = f"{friend}@c.us", time.time() - 60
    one, two = await phone.send(friend, ME, "one"), await phone.send(friend, ME, "two")
    await phone.edit(one, "edited")
    await phone.delete(two)
    await phone.react(one, chat, THUMBS_UP)
    live = {(e.type, json.dumps(e.data)) for e in (await page.next(phone, before))[2:]}
    stored = await pages(partial(page.bridge.recent, since, 100))
    found = {(e.type, json.dumps(e.data)) for e in stored if chat in str(e.data)}
    assert live == {one for one in found if one[0] != "chat.message"}


async def test_history_in_pages(page: BridgePage, phone: Phone, friend: str) -> None:
    chat = f"{friend}@c.us"
    ids = [await phone.send(friend, ME, f"text {number}") for number in range(12)]
    await page.next(phone)
    for reload in (False, True):
        if reload:
            await reopen(page)
        for limit in (1, 5, 12, 50):
            found = await pages(partial(page.bridge.history, chat, limit))
            assert [one.id.rpartition("_")[2] for one in found] == ids[::-1], (reload, limit)
    assert all(one.ack == 1 and not one.from_me for one in found)
    nothing = await page.bridge.history("15550008888@c.us", 5, None)
    assert (nothing.items, nothing.next) == ([], None)
    gone = MessagePosition(id=f"false_{chat}_GONE", t=int(time.time()) + 60)
    assert len((await page.bridge.history(chat, 5, gone)).items) == 5


async def test_history_of_somebody_with_two_chats(page: BridgePage, phone: Phone) -> None:
    number = f"1555{secrets.randbelow(10**7):07}"
    await phone.add_person(number)
    texts = []
    for index in range(6):
        await phone.send(number, ME, f"text {index}", as_lid=index % 2 == 1)
        texts.append(f"text {index}")
    await page.next(phone)
    for chat in (f"{number}@c.us", f"9{number}@lid"):
        found = await pages(partial(page.bridge.history, chat, 2))
        assert sorted(one.text or "" for one in found) == texts
        assert {one.phone_number for one in found} == {number}


# --- files ----------------------------------------------------------------------------------------


async def receive(page: BridgePage, phone: Phone, friend: str, content: bytes | None) -> str:
    media = Media(kind="document", mime_type="text/plain", file_name="a.txt", size=10)
    sent = await phone.send(friend, ME, media=media, content=content)
    await page.next(phone)
    return f"false_{friend}@c.us_{sent}"


async def test_a_file_is_read_in_parts(page: BridgePage, phone: Phone, friend: str) -> None:
    content = secrets.token_bytes(2 * CHUNK + 5)
    message_id = await receive(page, phone, friend, content)
    media = await page.bridge.open_media(message_id)
    assert media is not None
    assert (media.size, media.mime_type) == (len(content), "text/plain")
    parts = [
        await page.bridge.read_media(media.handle, offset, 10 * CHUNK)
        for offset in range(0, len(content), CHUNK)
    ]
    assert b"".join(parts) == content
    assert await page.bridge.read_media(media.handle, 7, 3) == content[7:10]
    assert await page.bridge.read_media(media.handle, len(content), 3) == b""
    await page.bridge.close_media(media.handle)
    await page.bridge.close_media(media.handle)
    with pytest.raises(BrowserError, match="not open"):
        await page.bridge.read_media(media.handle, 0, 1)


async def test_files_that_are_not_there(page: BridgePage, phone: Phone, friend: str) -> None:
    text = await phone.send(friend, ME, "no file")
    message_id = await receive(page, phone, friend, b"a document")
    assert await page.bridge.open_media(f"false_{friend}@c.us_{text}") is None
    assert await page.bridge.open_media(f"false_{friend}@c.us_3A00000000") is None
    with pytest.raises(MediaTooLarge):
        await page.bridge.open_media(message_id, largest=9)
    await phone.expire_file(message_id.rpartition("_")[2])
    with pytest.raises(MediaGone):
        await page.bridge.open_media(message_id)
    with pytest.raises(MediaGone):
        await page.bridge.open_media(await receive(page, phone, friend, None))


async def test_what_may_be_viewed_once_has_no_file(
    page: BridgePage, phone: Phone, friend: str
) -> None:
    media = Media(kind="image", mime_type="image/jpeg")
    sent = await phone.send(friend, ME, media=media, content=b"secret", view_once=True)
    await page.next(phone)
    assert await page.bridge.open_media(f"false_{friend}@c.us_{sent}") is None


async def test_few_files_are_open_and_not_for_long(
    page: BridgePage, phone: Phone, friend: str
) -> None:
    message_id = await receive(page, phone, friend, b"a document")
    opened = [await page.bridge.open_media(message_id) for _ in range(4)]
    with pytest.raises(MediaBusy):
        await page.bridge.open_media(message_id)
    for media in opened:
        assert media is not None
        await page.bridge.close_media(media.handle)
    await page.client.page.evaluate(AT_ONCE)
    try:
        media = await page.bridge.open_media(message_id)
        assert media is not None
        await page.client.until(CLOSED, media.handle)
    finally:
        await page.client.page.evaluate("() => { window.setTimeout = window.__setTimeout; }")


# --- whatever the page's models hold --------------------------------------------------------------

NAMES: Mapping[Any, tuple[str, ...]] = {
    "edit": ("body", "caption", "latestEditSenderTimestampMs", "id", "author"),
    "deletion": ("revokeMsgKey", "newMsgKey", "subtype", "sender", "revokeTimestamp"),
    "reaction": ("parentMsgKey", "senderUserJid", "reactionText", "timestamp", "msgKey"),
    "vote": ("parentMsgKey", "sender", "senderTimestampMs", "selectedOptionLocalIds"),
    "call": ("peerJid", "isVideo", "isGroup", "offerTime"),
    "group": ("chatId", "author", "ts", "actionType", "participants", "isInvite", "reason"),
    "message": (
        "lat", "lng", "loc", "isLive", "vcardList", "pollName", "pollOptions", "mentionedJidList",
        "isForwarded", "isViewOnce", "quotedMsg", "quotedStanzaID", "thumbnail", "hasReaction",
    ),
}  # fmt: skip


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(kind=st.sampled_from(list(NAMES)), data_=st.data())
async def test_whatever_happens_is_valid_or_a_gap(
    page: BridgePage, phone: Phone, kind: Any, data_: st.DataObject
) -> None:
    before = len(await page.told())
    optional = dict.fromkeys(NAMES[kind], odd_values)
    fields = data_.draw(st.fixed_dictionaries({}, optional=optional))
    if kind == "message":
        fields["type"] = data_.draw(
            st.sampled_from(["location", "vcard", "multi_vcard", "poll_creation", "revoked"])
        )
    await phone.send_odd(kind, ME, fields, sender=f"1555{secrets.randbelow(10**7):07}")
    for event in await page.next(phone, before):
        if event.type != "chat.gap":
            data(event)


async def test_nothing_was_thrown_into_the_page(page: BridgePage, phone: Phone) -> None:
    """Last of this file."""
    ours = [error for error in await phone.page_errors() if "__wasession" in error]
    assert ours == []
    [event] = (await page.told())[-1:]
    assert IncomingMessage.model_validate(event.data).text == "the next one"
