"""What the page keeps, what happens to messages, and files, through unmodified wa-js."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

import pytest
from integration.standin.conftest import ME, Client
from integration.standin.test_oddities import until
from support.standin import Card, Location, Media, Phone, Poll
from support.standin.world import FIRST_GROUP

FRIEND = "15550001111"
CHAT = f"{FRIEND}@c.us"
JPEG = "/9j/4AAQSkZJRgABAQ=="


async def stored(client: Client, phone: Phone, *message_ids: str) -> None:
    """Wait until the page has confirmed messages."""
    for message_id in message_ids:

        async def confirmed(message_id: str = message_id) -> bool:
            return (await phone.message(message_id)).ack == 2

        await until(confirmed)


def key(message_id: str, chat: str = CHAT) -> str:
    return f"false_{chat}_{message_id}"


async def texts(client: Client, **options: Any) -> list[str]:
    read = """([chat, options]) => WPP.chat.getMessages(chat, options)
        .then((found) => found.map((msg) => msg.body))"""
    found: list[str] = await client.page.evaluate(read, [CHAT, options])
    return found


async def test_messages_stay_in_order_over_reloads(client: Client, phone: Phone) -> None:
    await client.login(phone)
    ids = [await phone.send(FRIEND, ME, f"text {number}") for number in range(5)]
    await phone.send("15550002222", ME, "of a stranger")
    await stored(client, phone, *ids)
    await client.send(CHAT, "an answer")
    await client.open()
    await client.ready()
    assert await texts(client, count=3, id=key(ids[4])) == ["text 1", "text 2", "text 3"]
    assert await texts(client, count=9, id=key(ids[1]), direction="after") == [
        "text 2", "text 3", "text 4", "an answer",
    ]  # fmt: skip
    assert await texts(client, count=3, id=key("UNKNOWN")) == []
    last = "(chat) => String(WPP.chat.get(chat).lastReceivedKey)"
    assert (await client.page.evaluate(last, CHAT)).startswith(f"true_{CHAT}")
    assert await client.page.evaluate(last, "15550002222@c.us"), "strangers' chats are there too"


@pytest.mark.parametrize(("confirm", "lost"), [("stored", False), ("received", True)])
async def test_page_that_dies_before_it_has_stored(
    client: Client, phone: Phone, confirm: Literal["stored", "received"], lost: bool
) -> None:
    await client.login(phone)
    await phone.behave(confirm=confirm, store_seconds=60)
    await client.open()
    await client.ready()
    sent = await phone.send(FRIEND, ME, "in flight")
    if lost:
        await stored(client, phone, sent)  # so the server believes
    await phone.behave(store_seconds=0)
    await client.open()
    await client.ready()
    next_one = await phone.send(FRIEND, ME, "the next one")
    await stored(client, phone, next_one)
    found = await texts(client, count=9, id=key(next_one))
    assert found == ([] if lost else ["in flight"])


async def test_stored_message_that_was_not_confirmed_is_not_shown_again(
    client: Client, phone: Phone
) -> None:
    await client.login(phone)
    await phone.behave(confirm="never")
    await client.open()
    await client.ready()
    sent = await phone.send(FRIEND, ME, "hello")
    await client.until("() => WPP.whatsapp.MsgStore.length === 1")
    await phone.behave(confirm="stored")
    await client.open()
    await client.ready()
    await stored(client, phone, sent)
    assert await client.page.evaluate("() => WPP.whatsapp.MsgStore.length") == 0
    read = "(id) => WPP.chat.getMessageById(id).then((msg) => msg.body)"
    assert await client.page.evaluate(read, key(sent)) == "hello"


async def test_kinds_of_messages(client: Client, phone: Phone) -> None:
    await client.login(phone)
    ada, ben = Card(name="Ada", vcard="BEGIN:VCARD\nFN:Ada"), Card(name="Ben", vcard="BEGIN:VCARD")
    place = Location(latitude=1.5, longitude=-2, name="Here", address="Street 1", live=True)
    ids = [
        await phone.send(FRIEND, ME, location=place),
        await phone.send(FRIEND, ME, contacts=[ada]),
        await phone.send(FRIEND, ME, contacts=[ada, ben]),
        await phone.send(FRIEND, ME, poll=Poll(question="When?", options=["now", "later"])),
        await phone.send(FRIEND, ME, "@15551234567 look", mentions=[f"{ME}@c.us"], forwarded=True),
    ]
    ids.append(await phone.send(FRIEND, ME, "why?", quoted=ids[4]))
    await stored(client, phone, *ids)
    read = """(ids) => WPP.chat.getMessageById(ids).then((found) => found.map((m) => ({
      type: m.type, lat: m.lat, lng: m.lng, loc: m.loc, live: m.isLive, name: m.vcardFormattedName,
      cards: m.vcardList?.map((card) => card.displayName), poll: m.pollName,
      options: m.pollOptions?.map((option) => option.name), many: m.pollSelectableOptionsCount,
      mentions: m.mentionedJidList?.map(String), forwarded: m.isForwarded,
      quoted: m.quotedMsg?.body })))"""
    expected = [
        {"type": "location", "lat": 1.5, "lng": -2, "loc": "Here\nStreet 1", "live": True},
        {"type": "vcard", "name": "Ada"},
        {"type": "multi_vcard", "cards": ["Ada", "Ben"]},
        {"type": "poll_creation", "poll": "When?", "options": ["now", "later"], "many": 1},
        {"type": "chat", "mentions": [f"{ME}@c.us"], "forwarded": True},
        {"type": "chat", "quoted": "@15551234567 look"},
    ]
    for _ in range(2):
        found = await client.page.evaluate(read, [key(one) for one in ids])
        present = [{k: v for k, v in one.items() if v is not None} for one in found]
        assert present == expected
        await client.open()  # and after a reload
        await client.ready()


# --- what happens to messages ---------------------------------------------------------------------

LISTEN = """(name) => WPP.on(name, (event) => {
  (window.__heard ||= []).push([name, JSON.parse(JSON.stringify(event, (_, value) =>
    typeof value === 'object' && value?.remote ? String(value) : value))]); })"""


async def heard(client: Client, name: str) -> Any:
    await client.until("(name) => window.__heard?.some(([kind]) => kind === name)", name)
    return await client.page.evaluate(
        "(name) => window.__heard.filter(([kind]) => kind === name).map(([, event]) => event)", name
    )


async def test_wa_js_hears_what_happens(client: Client, phone: Phone) -> None:
    await client.login(phone)
    await client.open()  # wa-js hears some of it only on a page that has had a login from its start
    await client.ready()
    names = ["chat.new_reaction", "chat.poll_response", "call.incoming_call"]
    for name in [*names, "group.participant_changed"]:
        await client.page.evaluate(LISTEN, name)
    poll = await phone.send(FRIEND, ME, poll=Poll(question="When?", options=["now", "later"]))
    await phone.react(poll, CHAT, "\N{THUMBS UP SIGN}")
    await phone.vote(poll, CHAT, ["later"])
    await phone.call(FRIEND, ME, video=True)
    await phone.change_members(FIRST_GROUP, "join", CHAT, ["15550002222@c.us"])
    [reaction] = await heard(client, "chat.new_reaction")
    assert (reaction["msgId"], reaction["reactionText"]) == (key(poll), "\N{THUMBS UP SIGN}")
    [vote] = await heard(client, "chat.poll_response")
    assert [option["name"] for option in vote["selectedOptions"] if option] == ["later"]
    [call] = await heard(client, "call.incoming_call")
    assert (call["isVideo"], call["isGroup"]) == (True, False)
    [change] = await heard(client, "group.participant_changed")
    assert (change["action"], change["participants"]) == ("join", ["15550002222@c.us"])


async def test_edits_and_deletions_count_only_from_who_may(client: Client, phone: Phone) -> None:
    await client.login(phone)
    one, two = await phone.send(FRIEND, ME, "one"), await phone.send(FRIEND, ME, "two")
    three = await phone.send(FRIEND, ME, "three", group=FIRST_GROUP)
    await phone.edit(one, "forged", by="15550002222@c.us")
    await phone.edit(one, "one, edited")
    await phone.delete(two, by=f"{ME}@c.us")
    await phone.delete(three, by="15550002222@c.us")
    last = await phone.send(FRIEND, ME, "last")
    await stored(client, phone, last)
    read = """(ids) => WPP.chat.getMessageById(ids).then((found) =>
        found.map((m) => [m.type, m.body]))"""
    in_group = f"false_{FIRST_GROUP}_{three}_{CHAT}"
    ids = [key(one), key(two), in_group]
    assert await client.page.evaluate(read, ids) == [
        ["chat", "one, edited"], ["chat", "two"], ["chat", "three"],
    ]  # fmt: skip
    await phone.delete(two)
    await phone.delete(three, by="15550002222@c.us", admin=True)
    last = await phone.send(FRIEND, ME, "last again")
    await stored(client, phone, last)
    for _ in range(2):
        kinds = [kind for kind, _ in await client.page.evaluate(read, ids)]
        assert kinds == ["chat", "revoked", "revoked"]
        await client.open()
        await client.ready()


async def test_reactions_and_votes_are_kept(client: Client, phone: Phone) -> None:
    await client.login(phone)
    poll = await phone.send(FRIEND, ME, poll=Poll(question="When?", options=["now", "later"]))
    await phone.react(poll, CHAT, "\N{THUMBS UP SIGN}")
    await phone.react(poll, f"{ME}@c.us", "\N{PARTY POPPER}")
    await phone.react(poll, CHAT, "")
    await phone.vote(poll, CHAT, ["now"])
    await phone.vote(poll, CHAT, ["later"])
    last = await phone.send(FRIEND, ME, "last")
    await stored(client, phone, last)
    await client.open()
    await client.ready()
    reactions = """(id) => WPP.chat.getReactions(id).then(({ reactionByMe, reactions }) =>
        [reactionByMe.reactionText, reactions.map((one) => one.aggregateEmoji)])"""
    votes = """(id) => WPP.chat.getVotes(id).then(({ votes }) => votes.map(({ selectedOptions }) =>
        selectedOptions.filter(Boolean).map((option) => option.name)))"""
    emoji = "\N{PARTY POPPER}"
    assert await client.page.evaluate(reactions, key(poll)) == [emoji, [emoji]]
    assert await client.page.evaluate(votes, key(poll)) == [["later"]]


# --- files ----------------------------------------------------------------------------------------

DOWNLOAD = """(id) => WPP.chat.downloadMedia(id).then((blob) => blob.text(),
    (error) => error.code || error.message)"""


async def test_a_file_is_downloaded_and_decrypted(client: Client, phone: Phone) -> None:
    await client.login(phone)
    media = Media(kind="image", mime_type="image/jpeg", thumbnail=JPEG)
    sent = await phone.send(FRIEND, ME, media=media, content=b"a picture")
    await stored(client, phone, sent)
    for _ in range(2):
        assert await client.page.evaluate(DOWNLOAD, key(sent)) == "a picture"
        await client.open()  # and after a reload
        await client.ready()
    await phone.expire_file(sent)
    await client.open()
    await client.ready()
    assert await client.page.evaluate(DOWNLOAD, key(sent)) == "media_not_found"
    described = await phone.send(FRIEND, ME, media=Media(kind="video", mime_type="video/mp4"))
    await stored(client, phone, described)
    assert await client.page.evaluate(DOWNLOAD, key(described)) == "media_not_found"


async def test_what_was_tampered_with_is_not_shown(
    client: Client, phone: Phone, world: Any
) -> None:
    await client.login(phone)
    media = Media(kind="document", mime_type="text/plain")
    sent = await phone.send(FRIEND, ME, media=media, content=b"a document")
    await stored(client, phone, sent)
    [name] = world.world._files
    world.world._files[name] = bytes(32)
    assert "another hash" in await client.page.evaluate(DOWNLOAD, key(sent))


async def test_a_sent_file_can_be_downloaded_by_both_sides(
    new_client: Callable[[], Any], phone: Phone
) -> None:
    sender, recipient = await new_client(), await new_client()
    await asyncio.gather(sender.login(phone, ME), recipient.login(phone, FRIEND))
    send = """async (to) => {
      const file = new File(['content'], 'a.txt', { type: 'text/plain' });
      const options = { type: 'document', markIsRead: false };
      return String((await WPP.chat.sendFileMessage(to, file, options)).id); }"""
    message_id = await sender.page.evaluate(send, CHAT)
    received = message_id.replace(f"true_{CHAT}", f"false_{ME}@c.us")
    await recipient.until(
        "(id) => WPP.chat.getMessageById(id).then(() => true, () => false)", received
    )
    assert await sender.page.evaluate(DOWNLOAD, message_id) == "content"
    assert await recipient.page.evaluate(DOWNLOAD, received) == "content"
