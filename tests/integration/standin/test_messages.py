"""Messages and receipts between the page and the phones, through unmodified wa-js."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from integration.standin.conftest import ME, Client
from playwright.async_api import Error
from support.standin import Media, Phone
from support.standin.world import FIRST_GROUP

FRIEND = "15550001111"
OTHER = "15557654321"
UNKNOWN = "19999999999"


async def until_delivered(phone: Phone, message_id: str) -> None:
    """Waits until the page has told the server that it has a message."""
    async with asyncio.timeout(10):
        while True:
            if (await phone.message(message_id)).ack >= 2:
                return
            await asyncio.sleep(0.02)  # between two looks


async def test_sent_text_arrives_once_and_its_receipts_come_back(
    client: Client, phone: Phone
) -> None:
    await phone.behave(auto_delivery=False)
    await client.login(phone)
    sent = await client.send(f"{FRIEND}@c.us", "hello")
    assert (sent["ack"], sent["result"]) == (1, "OK")
    [message] = await phone.wait_messages(1)
    assert (message.sender, message.to, message.text) == (f"{ME}@c.us", f"{FRIEND}@c.us", "hello")
    assert await phone.deliver(message.id)
    await client.until("(id) => WPP.chat.getMessageById(id).then((m) => m.ack === 2)", sent["id"])
    assert await phone.read(message.id)
    assert not await phone.deliver(message.id), "an ack is never taken back"
    await client.until("(id) => WPP.chat.getMessageById(id).then((m) => m.ack === 3)", sent["id"])
    await client.until_event("chat.msg_ack_change")
    again = await client.send(f"{FRIEND}@c.us", "hello again", messageId=sent["id"])
    assert again["result"] == "OK"
    assert [message.text for message in await phone.messages()] == ["hello"], "the id was known"


async def test_sent_text_is_found_by_its_id_after_a_reload(client: Client, phone: Phone) -> None:
    await client.login(phone)
    sent = await client.send(f"{FRIEND}@c.us", "hello")
    await client.open()
    await client.ready()
    found = "(id) => WPP.chat.getMessageById(id).then((m) => [m.body, m.ack >= 1])"
    assert await client.page.evaluate(found, sent["id"]) == ["hello", True]


async def test_received_text_can_be_answered_and_marked_read(client: Client, phone: Phone) -> None:
    await client.login(phone)
    received = await phone.send(FRIEND, ME, "a question")
    await client.until_event("chat.new_message")
    await client.until("(chat) => WPP.chat.get(chat)?.unreadCount === 1", f"{FRIEND}@c.us")
    await until_delivered(phone, received)
    quoted = f"false_{FRIEND}@c.us_{received}"
    await client.send(f"{FRIEND}@c.us", "an answer", quotedMsg=quoted)
    [answer] = await phone.wait_messages(1)
    assert answer.quoted == received
    await client.page.evaluate("(chat) => WPP.chat.markIsRead(chat)", f"{FRIEND}@c.us")
    await client.send(f"{FRIEND}@c.us", "next")  # answered after what was sent before it
    assert (await phone.message(received)).ack == 3


async def test_text_to_a_page_that_is_away_waits_for_it(client: Client, phone: Phone) -> None:
    await client.login(phone)
    await client.page.goto("about:blank")
    received = await phone.send(FRIEND, ME, "missed")
    assert (await phone.message(received)).ack == 1
    await client.open()
    await client.until(
        "(id) => WPP.chat.getMessageById(id).then((m) => m.body === 'missed')",
        f"false_{FRIEND}@c.us_{received}",
    )
    await until_delivered(phone, received)


async def test_groups(client: Client, phone: Phone) -> None:
    group = await phone.create_group("Choir")
    await client.login(phone)
    assert (await client.send(group, "to all"))["result"] == "OK"
    [message] = await phone.wait_messages(1)
    assert message.to == group
    await phone.send(FRIEND, ME, "from the group", group=FIRST_GROUP)
    await client.until("(group) => WPP.chat.get(group).msgs.length === 1", FIRST_GROUP)
    script = """(group) => WPP.chat.get(group).msgs.getModelsArray()
        .map((msg) => [msg.body, String(msg.author)])"""
    assert await client.page.evaluate(script, FIRST_GROUP) == [["from the group", f"{FRIEND}@c.us"]]


async def test_two_accounts_write_to_each_other(
    new_client: Callable[[], Any], phone: Phone
) -> None:
    first, second, also_first = await new_client(), await new_client(), await new_client()
    await asyncio.gather(
        first.login(phone, ME), second.login(phone, OTHER), also_first.login(phone, ME)
    )
    sent = await first.send(f"{OTHER}@c.us", "hello")
    await second.until(
        f"() => WPP.chat.get('{ME}@c.us')?.msgs.getModelsArray()[0].body === 'hello'"
    )
    await also_first.until(
        "(id) => WPP.chat.getMessageById(id).then((m) => m.body === 'hello', () => false)",
        sent["id"],
    )
    await first.until("(id) => WPP.chat.getMessageById(id).then((m) => m.ack === 2)", sent["id"])


async def test_unknown_number_is_known_as_such(client: Client, phone: Phone) -> None:
    await client.login(phone)
    exists = "(id) => WPP.contact.queryWidExists(id).then((found) => found !== null)"
    assert await client.page.evaluate(exists, f"{FRIEND}@c.us")
    assert not await client.page.evaluate(exists, f"{UNKNOWN}@c.us")
    with pytest.raises(Error, match="no such user"):
        await client.send(f"{UNKNOWN}@c.us", "hello")


async def test_failures_of_sending(client: Client, phone: Phone) -> None:
    await client.login(phone)
    await phone.fault("send_fails", ME, seconds=60)
    assert (await client.send(f"{FRIEND}@c.us", "refused"))["result"] == "ERROR_UNKNOWN"
    await phone.heal()
    await phone.fault("silent", ME, seconds=60)
    pending = """(to) => {
      window.__sent = WPP.chat.sendTextMessage(to, 'lost').then((sent) => sent.sendMsgResult); }"""
    await client.page.evaluate(pending, f"{FRIEND}@c.us")
    await client.until(
        "(to) => WPP.chat.get(to).msgs.getModelsArray().some((m) => m.body === 'lost')",
        f"{FRIEND}@c.us",
    )
    await phone.fault("drop", ME)
    assert (await client.page.evaluate("() => window.__sent"))[
        "messageSendResult"
    ] == "ERROR_NETWORK"
    assert await phone.messages() == []


async def test_answer_can_be_late(client: Client, phone: Phone) -> None:
    await phone.behave(ack_seconds=0.5)
    await client.login(phone)
    sent = await client.send(f"{FRIEND}@c.us", "hello", waitForAck=False)
    assert sent["ack"] == 0
    await client.until("(id) => WPP.chat.getMessageById(id).then((m) => m.ack >= 1)", sent["id"])


@pytest.mark.parametrize(
    ("mime_type", "kind"),
    [
        ("image/png", "image"),
        ("video/mp4", "video"),
        ("audio/ogg", "audio"),
        ("application/pdf", "document"),
    ],
)
async def test_a_file_is_uploaded_and_sent(
    client: Client, phone: Phone, mime_type: str, kind: str
) -> None:
    await client.login(phone)
    send = """async ([to, type]) => {
      const file = new File(['content'], 'a file.bin', { type });
      const options = { type: 'auto-detect', caption: 'look', markIsRead: false };
      const sent = await WPP.chat.sendFileMessage(to, file, options);
      return [String(sent.id), sent.sendMsgResult.messageSendResult];
    }"""
    message_id, result = await client.page.evaluate(send, [f"{FRIEND}@c.us", mime_type])
    assert result == "OK"
    [message] = await phone.wait_messages(1)
    assert message.id in message_id
    assert message.media == Media(
        kind=kind,
        mime_type=mime_type,
        size=7,
        sha256=hashlib.sha256(b"content").hexdigest(),
        file_name="a file.bin",
        caption="look",
    )


async def test_a_received_file_is_described(client: Client, phone: Phone) -> None:
    await client.login(phone)
    media = Media(
        kind="video",
        mime_type="video/mp4",
        size=1000,
        file_name="a.mp4",
        caption="look",
        duration=4,
    )
    received = await phone.send(FRIEND, ME, media=media)
    await client.until_event("chat.new_message")
    read = """async (id) => {
      const msg = await WPP.chat.getMessageById(id);
      return [msg.type, msg.mimetype, msg.size, msg.filename, msg.caption, msg.duration]; }"""
    for _ in range(2):
        found = await client.page.evaluate(read, f"false_{FRIEND}@c.us_{received}")
        assert found == ["video", "video/mp4", 1000, "a.mp4", "look", 4]
        await client.open()  # and after a reload
        await client.ready()


async def test_contacts_of_the_address_book_and_others(client: Client, phone: Phone) -> None:
    await phone.add_contact("15550002222", "Ben")
    await client.login(phone)
    await phone.send("15550003333", ME, "hello")
    await client.until("() => WPP.contact.list().then((all) => all.length === 3)")
    read = """() => WPP.contact.list()
        .then((all) => all.map((c) => [String(c.id), c.name, c.pushname, c.isMyContact]))"""
    assert await client.page.evaluate(read) == [
        ["15550001111@c.us", "Ada", None, True],
        ["15550002222@c.us", "Ben", None, True],
        ["15550003333@c.us", None, "Phone 15550003333", False],
    ]
