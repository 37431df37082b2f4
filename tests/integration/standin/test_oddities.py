"""What a client must live with: odd fields, missing modules, pages that reload themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from integration.standin.conftest import ME, Client
from playwright.async_api import Error
from support.standin import Phone
from support.standin.world import MissingMe

FRIEND = "15550001111"


async def until(condition: Callable[[], Any]) -> None:
    """Waits for something that the server knows."""
    async with asyncio.timeout(20):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.02)  # between two looks


@pytest.mark.parametrize(
    ("fields", "read", "expected"),
    [
        ({"t": None}, "m.t", None),
        ({"t": {"$absent": True}}, "m.t === undefined", True),
        ({"from": {"$wid": "1@lid"}}, "m.from.isLid()", True),
        ({"body": 7}, "m.body", 7),
        ({"id": {"$key": {"fromMe": False, "id": "X"}}}, "[m.id.id, m.id.remote]", ["X", None]),
        ({"id": {"$absent": True}}, "m.id === undefined", True),
        ({"type": {"$throws": "ow"}}, "thrown(() => m.type)", "ow"),
    ],
)  # fmt: skip
async def test_messages_have_odd_fields(
    client: Client, phone: Phone, fields: dict[str, Any], read: str, expected: object
) -> None:
    await client.login(phone)
    odd = await phone.send_odd("message", ME, fields)
    await client.until("() => WPP.whatsapp.MsgStore.length === 1")
    thrown = "const thrown = (read) => { try { return read(); } catch (e) { return e.message; } };"
    script = f"() => {{ {thrown} return WPP.whatsapp.MsgStore.map((m) => {read})[0]; }}"
    assert await client.page.evaluate(script) == expected

    async def received() -> bool:
        return (await phone.message(odd)).ack == 2

    await until(received)


@pytest.mark.parametrize("kind", ["contact", "chat"])
async def test_contacts_and_chats_have_odd_fields(client: Client, phone: Phone, kind: str) -> None:
    await client.login(phone)
    await phone.send_odd(kind, ME, {"name": [1]}, sender="15550009999")  # type: ignore[arg-type]
    store = f"WPP.whatsapp.{kind.title()}Store"
    await client.until(f"() => {store}.get('15550009999@c.us')?.name[0] === 1")


async def test_what_listeners_throw_into_the_page_is_known(client: Client, phone: Phone) -> None:
    await client.login(phone)
    await client.page.evaluate(
        "() => WPP.whatsapp.MsgStore.on('add', () => { throw new Error('of a listener') })"
    )
    await phone.send(FRIEND, ME, "hello")

    async def told() -> list[str]:
        return await phone.page_errors()

    await until(told)
    [error] = await phone.page_errors()
    assert "of a listener" in error


async def test_page_with_the_focus_shows_the_account_as_online(
    client: Client, phone: Phone
) -> None:
    await client.login(phone)  # Playwright gives each page the focus

    async def shown() -> list[bool]:
        return await phone.presences(ME)

    await until(shown)
    assert await phone.presences(ME) == [True]
    await client.page.evaluate("() => WPP.conn.markUnavailable()")

    async def hidden() -> bool:
        return (await phone.devices(ME))[0].available is False

    await until(hidden)
    await phone.fault("drop", ME)
    await client.until_snapshot(state="CONNECTED", info="NORMAL")
    await until(hidden)
    assert (await phone.presences(ME))[-2:] == [False, False], "it says so after each login"


async def test_groups_without_a_chat_can_be_asked_for(client: Client, phone: Phone) -> None:
    group = await phone.create_group("Far away", loaded=False)
    await client.login(phone)
    assert await client.page.evaluate("(id) => WPP.chat.get(id) === undefined", group)
    find = """(id) => WPP.whatsapp.GroupMetadataStore.find(WPP.util.createWid(id))
        .then((group) => group.subject, (error) => error.message)"""
    assert await client.page.evaluate(find, group) == "Far away"
    assert await client.page.evaluate(find, "120363999999999999@g.us") == "item-not-found"
    assert (await client.send(group, "to all"))["result"] == "OK"


async def test_page_can_reload_itself_for_ever(client: Client, phone: Phone) -> None:
    await phone.behave(reload_ms=1500)
    await client.page.goto(client.url)

    async def thrice() -> bool:
        return len(client.visited) >= 3

    await until(thrice)


@pytest.mark.parametrize(
    ("missing", "getter"),
    [
        ("phone", "WPP.conn.getMyUserWid()"),
        ("lid", "require('WAWebUserPrefsMeUser').getMaybeMeLidUser()"),
        ("device", "require('WAWebUserPrefsMeUser').getMaybeMeDevicePn()"),
        ("conn", "require('WAWebConnModel').Conn.wid"),
    ],
)
async def test_the_own_id_may_be_unknown(
    client: Client, phone: Phone, missing: MissingMe, getter: str
) -> None:
    await client.login(phone)
    assert await client.page.evaluate(f"() => String({getter}).includes('{ME}')")
    await phone.behave(missing_me=[missing])
    await client.open()
    await client.ready()
    assert await client.page.evaluate(f"() => {getter} ?? null") is None
    await phone.send(FRIEND, ME, "the page works all the same")
    await client.until("() => WPP.whatsapp.MsgStore.length === 1")


async def test_modules_may_be_missing(client: Client, phone: Phone) -> None:
    await client.login(phone)
    await phone.behave(missing=["messages", "receipts", "send"])
    await client.open()
    await client.ready()
    assert await client.page.evaluate("() => WPP.whatsapp.MsgStore === undefined")
    assert await client.page.evaluate(
        "() => WPP.whatsapp.functions.addAndSendMsgToChat === undefined"
    )
    with pytest.raises(Error, match="unknown module"):
        await client.page.evaluate("() => require('WAWebHandleDirectChatReceipt')")
    assert await client.page.evaluate("() => WPP.isFullReady")


async def test_wa_js_may_never_be_ready(client: Client, phone: Phone) -> None:
    await client.login(phone)
    await phone.behave(missing=["version"], debug_global=False)
    await client.page.reload()
    await client.until("() => WPP.isInjected")
    await client.ready()
    assert await client.page.evaluate("() => [WPP.isReady, WPP.isFullReady]") == [False, False]
