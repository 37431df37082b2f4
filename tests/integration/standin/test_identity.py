"""What browsers say of themselves in each context, and the refusal of automated ones."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, get_args

import pytest
from integration.standin.conftest import ME, Client, Launch
from support.standin import Phone, PhoneError, Running
from support.standin.identity import Context, Sighting

CONTEXTS: tuple[Context, ...] = get_args(Context)
HONEST = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0"
FLAGS = (f"--user-agent={HONEST}", "--disable-blink-features=AutomationControlled")


async def sightings_of(phone: Phone) -> dict[str, list[Sighting]]:
    """By context; they are complete when the page is logged in."""
    shown = await phone.sightings()
    return {context: [one for one in shown if one.context == context] for context in CONTEXTS}


async def test_every_context_is_seen_with_its_headers_and_its_navigator(
    client: Client, phone: Phone
) -> None:
    await client.login(phone)
    shown = await sightings_of(phone)
    for context in CONTEXTS:
        assert shown[context], context
        assert all("Headless" in (one.headers.user_agent or "") for one in shown[context])
        told = [one.navigator for one in shown[context] if one.navigator is not None]
        assert len(told) == (0 if context == "websocket" else 1), context
        assert all(navigator.languages for navigator in told)
    assert len({one.browser for one in await phone.sightings()}) == 1
    [document] = [one.navigator for one in shown["document"] if one.navigator is not None]
    assert document.webdriver is True
    assert document.brands is not None
    assert document.full_versions is not None


async def test_a_service_worker_that_runs_already_is_asked_again(
    client: Client, phone: Phone, world: Running
) -> None:
    await client.login(phone)
    world.browsers.forget()
    await client.open()
    await client.ready()
    shown = await sightings_of(phone)
    assert [one for one in shown["service_worker"] if one.navigator is not None]


async def test_each_browser_has_its_own_entry(new_client: Callable[[], Any], phone: Phone) -> None:
    first, second = await new_client(), await new_client()
    await asyncio.gather(first.login(phone), second.login(phone))
    assert len({one.browser for one in await phone.sightings()}) == 2


async def test_automated_browser_can_neither_link_nor_restore(client: Client, phone: Phone) -> None:
    await client.login(phone)
    await phone.behave(refuse_automation=True)
    await client.page.reload()
    await client.until("() => WPP.isInjected")
    await client.until_snapshot(state="OPENING", mode="SYNCING", registered=True)
    [device] = await phone.devices(ME)
    assert not device.online
    await phone.behave(refuse_automation=False)
    await client.open()
    await client.ready()


async def test_page_that_says_headless_is_not_linked(client: Client, phone: Phone) -> None:
    await phone.behave(refuse_automation=True)
    await client.open()
    with pytest.raises(PhoneError, match="says Headless") as error:
        await phone.scan(await client.qr())
    assert error.value.status == 403


async def test_a_user_agent_of_the_page_alone_is_not_enough(
    launch: Launch, world: Running, phone: Phone
) -> None:
    await phone.behave(refuse_automation=True)
    async with launch("--disable-blink-features=AutomationControlled") as context:
        client = Client(context.pages[0], world.url)
        cdp = await context.new_cdp_session(client.page)
        await cdp.send("Emulation.setUserAgentOverride", {"userAgent": HONEST})
        await client.open()
        with pytest.raises(PhoneError, match="worker says Headless"):
            await phone.scan(await client.qr())


async def test_flags_at_launch_hold_for_every_context(
    launch: Launch, world: Running, phone: Phone
) -> None:
    await phone.behave(refuse_automation=True)
    async with launch(*FLAGS) as context:
        client = Client(context.pages[0], world.url)
        await client.login(phone)
        await client.open()
        await client.ready()
    shown = await phone.sightings()
    assert {one.headers.user_agent for one in shown} == {HONEST}
    assert {one.navigator.user_agent for one in shown if one.navigator} == {HONEST}
    assert not any(one.navigator.webdriver for one in shown if one.navigator)
    brands = {one.navigator.brands for one in shown if one.navigator}
    hints = {one.headers.sec_ch_ua for one in shown} - {None}
    [named], [header] = brands, hints  # workers send no such header
    assert named is not None
    assert header is not None
    assert re.findall(r'"([^"]*)";v="([^"]*)"', header) == [
        tuple(one.rsplit(" ", 1)) for one in named
    ]
