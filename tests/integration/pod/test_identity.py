"""What the browser says of itself to WhatsApp, in each of the page's contexts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from support.standin import Phone
from support.standin.identity import Context, Sighting
from wasession_pod.browser.launch import user_agent
from wasession_pod.settings import Settings

AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0"


async def until_on_disk(directory: Path, mark: bytes) -> None:
    """Wait until localStorage's files contain the mark; nothing else tells."""

    def found() -> bool:
        logs = directory.glob("session-*/Default/Local Storage/leveldb/*.log")
        return any(mark in log.read_bytes() for log in logs)

    async with asyncio.timeout(30):
        while True:
            if await asyncio.to_thread(found):
                return
            await asyncio.sleep(0.05)  # between two looks


def assert_unanimous(shown: list[Sighting]) -> None:
    """All contexts are there, and say the same: headers and scripts, documents and workers."""
    assert {one.context for one in shown} == set(get_args(Context))
    told = [one.navigator for one in shown if one.navigator is not None]
    agents = {one.headers.user_agent for one in shown} | {one.user_agent for one in told}
    languages = {one.languages for one in told}
    assert len(agents) == len(languages) == 1
    assert len({one.headers.accept_language for one in shown}) == 1
    assert len({one.brands for one in told}) == len({one.platform for one in told}) == 1
    assert len({one.locale for one in told}) == len({one.timezone for one in told}) == 1
    assert not any(one.webdriver for one in told)
    assert not any(one.automation for one in shown)


async def test_every_context_says_what_the_settings_say(
    start: Callable[..., Any], phone: Phone
) -> None:
    settings = {"user_agent": AGENT, "locale": "de-DE", "timezone": "Europe/Berlin"}
    pod = await start(**settings)
    await phone.scan(await pod.qr())
    await pod.ready()
    await pod.terminate()
    pod = await start(**settings)
    assert (await pod.ready()).restored
    shown = await phone.sightings()
    assert_unanimous(shown)
    [document] = {one.navigator for one in shown if one.context == "document" and one.navigator}
    assert (document.user_agent, document.languages) == (AGENT, ("de-DE", "de"))
    assert (document.locale, document.timezone) == ("de-DE", "Europe/Berlin")
    assert shown[0].headers.accept_language == "de-DE,de;q=0.9"


async def test_without_settings_every_context_names_the_installed_chromium(
    start: Callable[..., Any], phone: Phone
) -> None:
    pod = await start()
    await pod.qr()
    shown = await phone.sightings()
    assert_unanimous(shown)
    chromium = Settings(client_id="any", token="any").chromium
    assert shown[0].headers.user_agent == user_agent(chromium)


async def test_a_login_is_written_at_once_although_a_service_worker_runs(
    start: Callable[..., Any], phone: Phone
) -> None:
    await phone.behave(refuse_automation=False)
    pod = await start()
    code = await pod.qr()
    # With this first write Chromium's pause of up to a minute between two writes begins.
    await until_on_disk(pod.directory, b"WANoiseInfo")
    await phone.scan(code)
    await pod.ready()
    assert await pod.metric('wasession_pod_page_recycles_total{cause="LoginWriting"}') == 1
    await pod.kill()
    await pod.start()
    assert (await pod.ready()).restored
