"""``make screenshots``: the console's images in docs/images, taken in a real Chromium."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Literal, NamedTuple

from integration.gateway.console import OTHERS, READY, PairingPod, Tab, put, waiting
from integration.gateway.fakes import ApiServer, serving
from integration.gateway.replica import Replica
from playwright.async_api import Browser, ViewportSize, async_playwright
from support.cluster import host
from support.loopback import pod_address

IMAGES = Path(__file__).parents[3] / "docs" / "images"
CODE = "2@" + ",".join(["Rm9yIHBpY3R1cmVzIG9ubHk" * 3, "a" * 44, "b" * 44, "c" * 44])
SIZES: dict[str, ViewportSize] = {
    "desktop": {"width": 1120, "height": 720},
    "phone": {"width": 390, "height": 760},
}


class Screenshot(NamedTuple):
    """The console's page of ``session`` (the list when empty)."""

    page: str
    session: str
    size: str
    scheme: Literal["light", "dark"]

    @property
    def path(self) -> Path:
        return IMAGES / f"console-{self.page}-{self.size}-{self.scheme}.png"


SCREENSHOTS = [
    Screenshot("sessions", "", "desktop", "light"),
    Screenshot("link", "new-phone", "desktop", "light"),
    Screenshot("ready", "sales-eu", "desktop", "dark"),
    Screenshot("sessions", "", "phone", "dark"),
    Screenshot("link", "new-phone", "phone", "light"),
]


async def main() -> None:
    host.ensure("browser")
    IMAGES.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        api = ApiServer()
        api.port = await stack.enter_async_context(serving(api.app, "127.0.0.1"))
        for name, state in {"sales-eu": READY, **OTHERS}.items():
            await put(api, name, state)
        pod = PairingPod(await put(api, "new-phone", waiting(seconds=600)))
        api.add_pod("new-phone", pod_address(9))
        await stack.enter_async_context(serving(pod.app, pod_address(9), 8080))
        replica = await Replica(api).start()
        stack.push_async_callback(replica.stop)
        playwright = await stack.enter_async_context(async_playwright())
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        stack.push_async_callback(browser.close)
        for screenshot in SCREENSHOTS:
            await pod.offers(CODE, 1)
            await take(browser, replica, screenshot)


async def take(browser: Browser, replica: Replica, screenshot: Screenshot) -> None:
    context = await browser.new_context(
        viewport=SIZES[screenshot.size], color_scheme=screenshot.scheme, reduced_motion="reduce"
    )
    tab = Tab(await context.new_page(), replica)
    await tab.sign_in()
    await tab.page.get_by_role("link", name="sales-eu").wait_for()
    if screenshot.session:
        await tab.go(screenshot.session)
    if screenshot.page == "link":
        await tab.page.get_by_text("New code in").wait_for()
    await tab.page.screenshot(path=screenshot.path)
    await context.close()


if __name__ == "__main__":
    asyncio.run(main())
