"""People have two ids, a phone number and a LID, and WhatsApp may change from one to the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import quote

import pytest
from integration.pod.conftest import Pod
from support.standin import Phone
from support.standin.world import FIRST_GROUP

Start = Callable[..., Awaitable[Pod]]
ME = "15551234567"
ADA, BEN, CLEO = "15550001111", "15550002222", "15550003333"


async def linked(start: Start, phone: Phone) -> Pod:
    pod = await start()
    await phone.scan(await pod.qr())
    await pod.ready()
    return pod


async def test_messages_name_the_phone_number_behind_a_lid(start: Start, phone: Phone) -> None:
    pod = await linked(start, phone)
    lid, stranger = await phone.add_person(BEN), await phone.add_person(None)
    async with pod.stream("message") as events:
        await phone.send(BEN, ME, "as a LID", as_lid=True)
        await phone.send(BEN, ME, "in a group", group=FIRST_GROUP, as_lid=True)
        await phone.send(stranger, ME, "of a stranger")
        await phone.send(BEN, ME, "by phone number")
        direct, group, unknown, plain = [(await anext(events)).json for _ in range(4)]
    assert (direct["chatId"], direct["from"], direct["phoneNumber"]) == (lid, lid, BEN)
    assert (group["chatId"], group["from"], group["phoneNumber"]) == (FIRST_GROUP, lid, BEN)
    assert (unknown["from"], "phoneNumber" in unknown) == (stranger, False)
    assert (plain["from"], plain["phoneNumber"]) == (f"{BEN}@c.us", BEN)


async def test_a_person_is_listed_once(start: Start, phone: Phone) -> None:
    lid = await phone.add_person(BEN, "Ben")
    stranger = await phone.add_person(None, "Nobody knows")
    pod = await linked(start, phone)
    async with pod.stream("message") as events:
        await phone.send(BEN, ME, "by phone number")
        await phone.send(BEN, ME, "as a LID", as_lid=True)
        await anext(events), await anext(events)
    chats = (await pod.call("GET", "/v1/chats"))["items"]
    [ben] = [chat for chat in chats if chat.get("phoneNumber") == BEN]
    assert (ben["id"] in (lid, f"{BEN}@c.us"), ben["unreadCount"], ben["name"]) == (True, 2, "Ben")
    [nobody] = [chat for chat in chats if chat["id"] == stranger]
    assert "phoneNumber" not in nobody
    contacts = (await pod.call("GET", "/v1/contacts"))["items"]
    [ben] = [contact for contact in contacts if contact.get("phoneNumber") == BEN]
    assert (ben["id"], ben["lid"], ben["name"]) == (f"{BEN}@c.us", lid, "Ben")
    [nobody] = [contact for contact in contacts if contact["id"] == stranger]
    assert (nobody["lid"], "phoneNumber" in nobody) == (stranger, False)
    parts, more = [], ""
    for _ in range(len(contacts)):
        part = await pod.call("GET", f"/v1/contacts?limit=1{more}")
        parts += part["items"]
        more = f"&continue={part.get('continue')}"
    assert parts == contacts


async def test_each_id_leads_to_the_other(start: Start, phone: Phone) -> None:
    lid = await phone.add_person(BEN, "Ben")
    pod = await linked(start, phone)
    later = await phone.add_person(CLEO)  # the page must ask for her
    for name, number, expected in (
        (BEN, BEN, lid),
        (f"+{BEN}", BEN, lid),
        (f"{BEN}@c.us", BEN, lid),
        (lid, BEN, lid),
        (CLEO, CLEO, later),
    ):
        person = await pod.call("GET", f"/v1/contacts/{quote(name)}")
        assert (person["id"], person["phoneNumber"], person["lid"]) == (
            f"{number}@c.us",
            number,
            expected,
        )
    person = await pod.call("GET", f"/v1/contacts/{ADA}")
    assert (person["phoneNumber"], "lid" in person) == (ADA, False)
    await pod.call("GET", "/v1/contacts/19999999999", 404)
    await pod.call("GET", "/v1/contacts/1@g.us", 422)


@pytest.mark.parametrize("reload", [False, True], ids=["at-once", "after-a-restart"])
async def test_a_message_keeps_its_id_when_whatsapp_renames_it(
    start: Start, phone: Phone, reload: bool
) -> None:
    await phone.behave(lid_keys=True, auto_delivery=False)
    await phone.add_person(BEN, listed=["lid"])
    pod = await linked(start, phone)
    text = {"to": BEN, "text": "hello"}
    async with pod.stream("ack,message") as events:
        sent = await pod.call(
            "POST", "/v1/messages", 201, json=text, headers={"Idempotency-Key": "one"}
        )
        assert sent["id"].startswith(f"true_{BEN}@c.us_")
        if reload:
            await pod.call("POST", "/v1/restart", 202)
            await pod.until(lambda report: report.phase != "Ready")
            await pod.ready()
        await phone.read(sent["id"].rpartition("_")[2])
        async with asyncio.timeout(30):
            async for event in events:
                assert event.kind != "message", "it is the session's own"
                if event.kind == "ack":
                    assert event.json["id"] == sent["id"]
                    if event.json["ack"] == 3:
                        break
    status = await pod.call("GET", f"/v1/messages/{sent['id']}")
    assert (status["id"], status["ack"], status["phoneNumber"]) == (sent["id"], 3, ME)
    answer = await pod.call("POST", "/v1/messages", 201, json=text | {"replyTo": sent["id"]})
    assert answer["ack"] >= 1
    assert [message.text for message in await phone.messages()] == ["hello", "hello"]


async def test_a_group_without_a_chat_is_looked_up(start: Start, phone: Phone) -> None:
    group = await phone.create_group("Far away", loaded=False)
    pod = await linked(start, phone)
    sent = await pod.call("POST", "/v1/messages", 201, json={"to": group, "text": "to all"})
    assert sent["to"] == group
    later = await phone.create_group("Made later", loaded=False)
    await pod.call("POST", "/v1/messages", 201, json={"to": later, "text": "to all"})
    nowhere = {"to": "120363999999999999@g.us", "text": "to nobody"}
    await pod.call("POST", "/v1/messages", 404, json=nowhere)
    assert [message.to for message in await phone.messages()] == [group, later]
