"""Scripts that come from a host of their own, or don't; also those of a real document."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest
from integration.standin.conftest import Client, Launch
from support.documents import SCRIPT_HOST, real_page, trust
from support.standin import Phone, Running, running

Wrong = Literal["missing", "hanging", "html", "reset"]
WRONG: list[Wrong] = ["missing", "hanging", "html", "reset"]


@pytest.fixture
async def world() -> AsyncIterator[Running]:
    async with running(scripts=True) as world:
        world.world.behaviour.refuse_automation = False
        yield world


async def test_scripts_come_from_their_own_host(
    client: Client, phone: Phone, world: Running
) -> None:
    await client.login(phone)
    origins = "() => [...new Set([...document.scripts].map((s) => s.src && new URL(s.src).port))]"
    assert str(world.script_port) in await client.page.evaluate(origins)


async def test_a_page_of_thousands_of_modules_links_as_any_other(
    client: Client, phone: Phone
) -> None:
    """The real page has 13,000; the benchmark of the session pod has as many."""
    await phone.behave(modules=2_000)
    await client.login(phone)
    count = """() => Object.values(require('__debug').modulesMap)
      .filter(({ id, done }) => id.startsWith('Generated') && done).length"""
    assert await client.page.evaluate(count) >= 0.6 * 2_000


@pytest.mark.parametrize("wrong", WRONG)
async def test_without_its_scripts_the_page_does_nothing_until_they_are_back(
    client: Client, phone: Phone, wrong: Wrong
) -> None:
    await phone.behave(scripts=wrong)
    failed = asyncio.Event()
    client.page.on("requestfailed", lambda request: failed.set())
    client.page.on("response", lambda r: failed.set() if "static.localhost" in r.url else None)
    client.page.on("request", lambda r: failed.set() if wrong == "hanging" else None)
    await client.page.goto(client.url, wait_until="commit")
    await asyncio.wait_for(failed.wait(), 20)
    assert await client.page.evaluate("() => [typeof WPP, WPP.isInjected]") == ["object", False]
    await phone.behave(scripts="served")
    await client.login(phone)


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_real_document_asks_the_real_script_host(
    launch: Launch, tmp_path: Path, wrong: Wrong
) -> None:
    async with real_page(tmp_path) as served:
        await Phone(served.standin.url, trust(tmp_path)).behave(scripts=wrong)
        async with launch(*served.flags) as context:
            page = context.pages[0]
            async with page.expect_request(lambda request: SCRIPT_HOST in request.url):
                await page.goto(served.url + "/", wait_until="commit")
            await page.wait_for_function("() => window.__d_stub !== undefined")
            assert await page.evaluate("() => [WPP.isInjected, typeof require]") == [
                False,
                "undefined",
            ]
