"""A screencast of a page: what it shows, at whose pace, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from integration.pod.bare_page import (
    PATIENCE,
    SURROUNDINGS,
    Opened,
    bare_browser,
    open_page,
    until,
)
from wasession_pod.browser import screencast
from wasession_pod.browser.cdp import Connection
from wasession_pod.browser.chromium import Chromium
from wasession_pod.browser.errors import PageClosed
from wasession_pod.browser.screencast import Screencasts
from wasession_pod.browser.tab import Tab

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG"
# ``flash`` changes the page with each frame for a time in ms, and at last makes it green.
DOCUMENT = """data:text/html,<body style="background:blue"><script>
function flash(duration) {
    const end = performance.now() + duration;
    let count = 0;
    (function next() {
        const over = performance.now() > end;
        document.body.style.background = over ? "lime" : count++ & 1 ? "red" : "black";
        if (!over) requestAnimationFrame(next);
    })();
}
</script>"""
COLOR = """(async () => {
    const picture = new Image();
    picture.src = "data:image;base64,%s";
    await picture.decode();
    const context = new OffscreenCanvas(1, 1).getContext("2d");
    context.drawImage(picture, 0, 0);
    return [...context.getImageData(0, 0, 1, 1).data].map((part) => part > 127 ? 1 : 0).join("");
})()"""
BLUE, LIME = "0011", "0101"


@pytest.fixture
async def browser(tmp_path: Path, chromium: Path) -> AsyncIterator[Chromium]:
    async with bare_browser(tmp_path, chromium) as process:
        yield process


@pytest.fixture
async def page(browser: Chromium) -> Opened:
    return await open_page(browser.connection, DOCUMENT)


@pytest.fixture
async def tab(page: Opened) -> Tab:
    tab = Tab(page.session, page.target_id)
    await tab.enable()
    return tab


class Viewer:
    """Somebody who looks at a tab."""

    def __init__(self, pictures: AsyncGenerator[bytes]) -> None:
        self._pictures = pictures

    async def next(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            picture = await anext(self._pictures)
        assert picture.startswith(JPEG)
        return picture

    async def last(self) -> None:
        """Look until the end, and raise what it is."""
        while True:
            await self.next()

    async def leave(self) -> None:
        await self._pictures.aclose()


@pytest.fixture
async def look(tab: Tab) -> AsyncIterator[Any]:
    screencasts = Screencasts()
    async with contextlib.AsyncExitStack() as stack:

        def begin(at: Tab = tab) -> Viewer:
            viewer = Viewer(screencasts.show(at))
            stack.push_async_callback(viewer.leave)
            return viewer

        yield begin


async def color(page: Opened, picture: bytes) -> str:
    """Return the color of a picture; another page's JavaScript decodes it."""
    return str(await page.evaluate(COLOR % base64.b64encode(picture).decode()))


async def until_lime(page: Opened, take: Callable[[], Awaitable[bytes]]) -> None:
    """Take pictures until one is lime: what a page shows follows its style by a frame or two."""
    async with asyncio.timeout(PATIENCE):
        while await color(page, await take()) != LIME:
            pass


def events_of(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets the methods of all events from now on."""
    heard: list[str] = []
    dispatch = connection._dispatch

    def listen(session_id: object, method: str, params: object) -> None:
        heard.append(method)
        dispatch(session_id, method, params)

    monkeypatch.setattr(connection, "_dispatch", listen)
    return heard


# --- what it shows --------------------------------------------------------------------------------


async def test_a_screenshot(tab: Tab, page: Opened, look: Any) -> None:
    viewer = look()
    await viewer.next()
    assert await color(page, await screencast.screenshot(tab)) == BLUE
    await page.evaluate("document.body.style.background = 'lime'")
    await until_lime(page, lambda: screencast.screenshot(tab))
    await until_lime(page, viewer.next)  # it ends nobody's screencast


async def test_the_page_now_and_after_each_change(page: Opened, look: Any) -> None:
    viewer = look()
    first = await viewer.next()
    assert await color(page, first) == BLUE
    await page.evaluate("document.body.style.background = 'lime'")
    await until_lime(page, viewer.next)
    assert len(first) < 20_000


async def test_of_a_fast_change_few_pictures_and_the_last_one(
    page: Opened, look: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chromium drops pictures while two are not acknowledged, and with them the last."""
    monkeypatch.setattr(screencast, "HEARTBEAT", PATIENCE)
    viewer, loop = look(), asyncio.get_running_loop()
    await viewer.next()
    begun, count = loop.time(), 0
    await page.evaluate("flash(2000)")
    while await color(page, await viewer.next()) != LIME:
        count += 1
    assert 2 < count <= (loop.time() - begun) / screencast.INTERVAL + 1


async def test_a_page_that_does_not_change_is_shown_again_now_and_then(
    look: Any, page: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = look()
    first = await viewer.next()
    heard = events_of(page.connection, monkeypatch)
    monkeypatch.setattr(screencast, "HEARTBEAT", 0.1)
    assert [await viewer.next() for _ in range(3)][-2:] == [first] * 2
    assert heard.count("Page.screencastFrame") <= 1, "they are repeated, not captured again"


async def test_it_ends_by_itself(look: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screencast, "DURATION", 1.0)
    viewer = look()
    await viewer.next()
    with pytest.raises(StopAsyncIteration):
        await viewer.last()


async def test_a_page_that_hangs_is_shown_as_it_was(
    tab: Tab, page: Opened, look: Any, browser: Chromium
) -> None:
    page.session.post("Runtime.evaluate", expression="for (;;);")
    assert (await screencast.screenshot(tab)).startswith(PNG)
    viewer = look()
    hung = await viewer.next()
    await tab.close()
    with pytest.raises(PageClosed):
        await viewer.next()
    assert await color(await open_page(browser.connection), hung) == BLUE


# --- a viewer who is slow, or leaves --------------------------------------------------------------


async def test_chromium_waits_for_a_viewer_who_does_not_read(
    page: Opened, look: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = look()
    await viewer.next()
    heard = events_of(page.connection, monkeypatch)
    await page.evaluate("flash(1500)")
    assert await page.evaluate("new Promise((resolve) => setTimeout(resolve, 2000, 'over'))")
    assert 1 <= heard.count("Page.screencastFrame") < screencast.MAXIMUM_UNREAD
    while await color(page, await viewer.next()) != LIME:
        pass


async def test_the_last_viewer_sees_it(tab: Tab, page: Opened, look: Any) -> None:
    first = look()
    await first.next()
    second = look()
    await second.next()
    with pytest.raises(PageClosed, match="somebody else"):
        await first.last()
    await page.evaluate("document.body.style.background = 'lime'")
    assert await color(page, await second.next()) == LIME


async def test_it_changes_nothing_and_leaves_nothing_behind(
    page: Opened, tab: Tab, look: Any, browser: Chromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = browser.connection
    front = await open_page(connection)  # which takes the focus
    before = await page.evaluate(SURROUNDINGS)
    assert before.startswith("false,")
    sessions = set(connection._sessions)
    heard = events_of(connection, monkeypatch)
    for _ in range(3):
        viewer = look()
        await viewer.next()
        assert await page.evaluate(SURROUNDINGS) == before
        assert (await front.evaluate(SURROUNDINGS)).startswith("true,")
        await viewer.leave()
    await until(lambda: heard.count("Target.detachedFromTarget") == 3)
    heard.clear()
    await page.evaluate("flash(300)")
    assert await page.evaluate("new Promise((resolve) => setTimeout(resolve, 500, 'over'))")
    assert heard == [], "nothing is captured any more"
    assert await page.evaluate(SURROUNDINGS) == before
    assert (await front.evaluate(SURROUNDINGS)).startswith("true,")
    assert set(connection._sessions) == sessions
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, screencast._Screencast)]
    assert tab.session.ended._callbacks in (None, [])


# --- a page or a Chromium that ends ---------------------------------------------------------------


async def test_a_page_that_crashes(page: Opened, look: Any) -> None:
    viewer = look()
    await viewer.next()
    page.session.post("Page.crash")
    with pytest.raises(PageClosed):
        await viewer.last()
    with pytest.raises(PageClosed):
        await look().next()


async def test_a_chromium_that_exits(look: Any, browser: Chromium) -> None:
    viewer = look()
    await viewer.next()
    await browser.kill()
    with pytest.raises(PageClosed):
        await viewer.last()
    await until(lambda: browser.connection.closed.done())
    with pytest.raises(PageClosed):
        await look().next()
