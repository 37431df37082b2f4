"""LIDs: ids that hide phone numbers, through unmodified wa-js."""

from __future__ import annotations

from typing import Any

from integration.standin.conftest import ME, Client
from support.standin import Phone, Running
from support.standin.world import FIRST_GROUP

FRIEND = "15550001111"
ENTRY = """async (id) => {
  const { lid, phoneNumber } = await WPP.contact.getPnLidEntry(id);
  return [lid?._serialized ?? null, phoneNumber?._serialized ?? null];
}"""


async def entry(client: Client, wid: str) -> Any:
    return await client.page.evaluate(ENTRY, wid)


async def test_lid_and_phone_number_lead_to_each_other(client: Client, phone: Phone) -> None:
    lid = await phone.add_person(FRIEND, "Ada")
    await client.login(phone)
    assert await entry(client, lid) == [lid, f"{FRIEND}@c.us"]
    assert await entry(client, f"{FRIEND}@c.us") == [lid, f"{FRIEND}@c.us"]
    later = await phone.add_person("15550002222")
    assert await entry(client, "15550002222@c.us") == [later, "15550002222@c.us"], "it has asked"


async def test_people_are_listed_under_both_ids(client: Client, phone: Phone) -> None:
    lid = await phone.add_person(FRIEND, "Ada")
    stranger = await phone.add_person(None, "Nobody knows")
    await client.login(phone)
    ids = "() => WPP.contact.list().then((all) => all.map((one) => String(one.id)))"
    assert {lid, stranger, f"{FRIEND}@c.us"} <= set(await client.page.evaluate(ids))
    ids = """() => WPP.chat.list({ ignoreGroupMetadata: true })
        .then((all) => all.map((chat) => String(chat.id)))"""
    assert {lid, stranger, f"{FRIEND}@c.us"} <= set(await client.page.evaluate(ids))
    assert await entry(client, stranger) == [stranger, None]


async def test_messages_come_from_lids(client: Client, phone: Phone) -> None:
    await client.login(phone)
    lid = await phone.add_person(FRIEND)
    stranger = await phone.add_person(None)
    await phone.send(FRIEND, ME, "as a LID", as_lid=True)
    await phone.send(stranger, ME, "without a number")
    await phone.send(FRIEND, ME, "in a group", group=FIRST_GROUP, as_lid=True)
    await client.until("() => WPP.whatsapp.MsgStore.length === 3")
    read = """() => WPP.whatsapp.MsgStore
        .map((msg) => [String(msg.from), msg.author ? String(msg.author) : null])"""
    assert await client.page.evaluate(read) == [[lid, None], [stranger, None], [FIRST_GROUP, lid]]
    assert await entry(client, lid) == [lid, f"{FRIEND}@c.us"], "the message has told it"


async def test_a_text_to_a_lid_reaches_the_phone_behind_it(client: Client, phone: Phone) -> None:
    lid = await phone.add_person(FRIEND)
    await client.login(phone)
    assert (await client.send(lid, "hello"))["result"] == "OK"
    [message] = await phone.wait_messages(1)
    assert (message.to, message.ack) == (lid, 2)


async def test_a_sent_message_is_named_by_the_lid(
    client: Client, phone: Phone, world: Running
) -> None:
    await phone.behave(lid_keys=True, auto_delivery=False)
    lid = await phone.add_person(FRIEND, listed=["lid"])
    await client.login(phone)
    sent = await client.send(f"{FRIEND}@c.us", "hello")
    [message] = await phone.wait_messages(1)
    assert message.to == f"{FRIEND}@c.us"
    known = "(id) => WPP.chat.getMessageById(id).then((m) => m.ack, () => null)"
    assert await client.page.evaluate(known, f"true_{FRIEND}@c.us_{message.id}") is None
    assert await client.page.evaluate(known, f"true_{lid}_{message.id}") == 1
    assert sent["result"] == "OK"
    await phone.read(message.id)
    await client.until(
        f"(id) => ({known})(id).then((ack) => ack === 3)", f"true_{lid}_{message.id}"
    )
    await client.open()
    await client.ready()
    assert await client.page.evaluate(known, f"true_{lid}_{message.id}") == 3
