"""Run in the session pod's image: Playwright drives Chromium and prints what it has seen."""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from pathlib import Path

from playwright.async_api import async_playwright

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-software-rasterizer")
PAGE = "<h1>Hello</h1><input type=file>"
NUMBER = "new Intl.NumberFormat().format(1234.5)"
DAY = "new Intl.DateTimeFormat('ja', {dateStyle: 'full', timeZone: 'Asia/Tokyo'}).format(0)"


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        profile = f"--user-data-dir={directory / 'profile'}"
        chromium = await asyncio.create_subprocess_exec(
            *("chromium", *FLAGS, profile, "--remote-debugging-port=0", "about:blank"),
            stderr=asyncio.subprocess.PIPE,
        )
        assert chromium.stderr is not None
        while not (url := re.search(rb"ws://\S+", await chromium.stderr.readline())):
            assert not chromium.stderr.at_eof()
        try:
            print(json.dumps(await look(url[0].decode(), directory)))
        finally:
            chromium.terminate()
            await chromium.communicate()


async def look(url: str, directory: Path) -> dict[str, object]:
    (directory / "file.odt").write_text("")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(url)
        page = await browser.contexts[0].new_page()
        await page.set_content(PAGE)
        session = await page.context.new_cdp_session(page)
        await session.send("Emulation.setLocaleOverride", {"locale": "de-DE"})
        await page.locator("input").set_input_files(directory / "file.odt")
        return {
            "screenshot": (await page.screenshot()).hex(),
            "snapshot": await page.locator("h1").aria_snapshot(),
            "number": await page.evaluate(NUMBER),
            "day": await page.evaluate(DAY),
            "type": await page.evaluate("document.querySelector('input').files[0].type"),
        }


if __name__ == "__main__":
    asyncio.run(main())
