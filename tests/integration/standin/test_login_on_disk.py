"""What of a login is on the disk: why a session pod recycles its page after the first login."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from integration.standin.conftest import ME, Client, Launch, kill_chromium
from support.standin import Phone, Running


async def on_disk(profile: Path, mark: bytes) -> None:
    """Wait until Chromium has written this to localStorage's files; nothing else tells."""
    directory = profile / "Default" / "Local Storage" / "leveldb"
    async with asyncio.timeout(30):
        while True:
            for path in directory.glob("*.log"):
                with contextlib.suppress(FileNotFoundError):
                    if mark in path.read_bytes():
                        return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("recycle", [False, True], ids=["killed", "recycled-then-killed"])
async def test_sigkill_soon_after_the_scan(
    launch: Launch, world: Running, phone: Phone, tmp_path: Path, recycle: bool
) -> None:
    profile = tmp_path / "profile"
    async with launch() as context:
        page = context.pages[0]
        client = Client(page, world.url)
        await client.open()
        code = await client.qr()
        # With this first write Chromium's pause of up to a minute between two writes begins.
        await on_disk(profile, b"WANoiseInfo")
        await phone.scan(code)
        await client.ready()
        if recycle:
            blank = await context.new_page()
            await page.close()
            # A service worker that still runs keeps localStorage in memory as a page does.
            cdp = await context.new_cdp_session(blank)
            await cdp.send("ServiceWorker.enable")
            await cdp.send("ServiceWorker.stopAllWorkers")
            await on_disk(profile, b"last-wid-md")
            client = Client(blank, world.url)
            await client.open()
            await client.ready()
        kill_chromium(profile)
    assert len(await phone.devices(ME)) == 1, "the phone knows the device in any case"
    async with launch() as context:
        client = Client(context.pages[0], world.url)
        await client.open()
        if recycle:
            await client.ready()
        else:
            await client.until_snapshot(mode="QR", state="UNPAIRED", registered=False)


async def test_closed_browser_keeps_the_login(launch: Launch, world: Running, phone: Phone) -> None:
    async with launch() as context:
        await Client(context.pages[0], world.url).login(phone)
    async with launch() as context:
        client = Client(context.pages[0], world.url)
        await client.open()
        await client.ready()
