"""Playwright on a page of a Chromium over the pipe: on demand, and without a trace."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from integration.pod.bare_page import (
    DOCUMENT,
    PATIENCE,
    SURROUNDINGS,
    Opened,
    bare_browser,
    open_page,
    until,
)
from wasession_pod.browser import launch, playwright_relay, playwright_view, processes
from wasession_pod.browser.cdp import Connection
from wasession_pod.browser.chromium import Chromium
from wasession_pod.browser.errors import BrowserError, NoAnswer, PageClosed
from wasession_pod.browser.playwright_relay import Relay, relaying
from wasession_pod.browser.playwright_view import PlaywrightView

LOAD_WORKER = """new Promise((resolve) => {
    const script = URL.createObjectURL(new Blob(["postMessage('loaded')"]));
    new Worker(script).onmessage = ({data}) => resolve(data);
})"""
DOWNLOAD = "Object.assign(document.createElement('a'), {href: 'data:,x', download: 'x'}).click()"


@pytest.fixture
async def browser(tmp_path: Path, chromium: Path) -> AsyncIterator[Chromium]:
    async with bare_browser(tmp_path, chromium) as process:
        yield process


@pytest.fixture
def connection(browser: Chromium) -> Connection:
    return browser.connection


@pytest.fixture
async def page(connection: Connection) -> Opened:
    return await open_page(connection)


@pytest.fixture
async def view(browser: Chromium) -> AsyncIterator[PlaywrightView]:
    view = PlaywrightView()
    yield view
    await view.close()
    assert not drivers()


def drivers() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if processes.kind(child) == processes.DRIVER]


async def snapshot(view: PlaywrightView, page: Opened) -> str:
    async with view.attached(page.connection, page.target_id) as attached:
        return await attached.locator("body").aria_snapshot()


async def download_is_denied(connection: Connection, page: Opened) -> bool:
    states: asyncio.Queue[str] = asyncio.Queue()
    connection.browser.on(
        "Browser.downloadProgress", lambda event: states.put_nowait(event["state"])
    )
    await page.evaluate(DOWNLOAD)
    async with asyncio.timeout(PATIENCE):
        while (state := await states.get()) == "inProgress":
            pass
    return state == "canceled"


# --- the driver -----------------------------------------------------------------------------------


async def test_users_share_one_driver_that_stays_for_the_next(
    view: PlaywrightView, page: Opened
) -> None:
    assert not drivers()
    snapshots = await asyncio.gather(*(snapshot(view, page) for _ in range(3)))
    assert snapshots == ['- heading "A new dialog" [level=1]\n- button "Continue"'] * 3
    [driver] = drivers()
    async with view.attached(page.connection, page.target_id) as attached:
        assert attached.url == DOCUMENT
        assert (await attached.screenshot()).startswith(b"\x89PNG")
    assert drivers() == [driver]


async def test_it_shows_one_page_and_no_other(
    view: PlaywrightView, connection: Connection, page: Opened
) -> None:
    await open_page(connection)
    async with view.attached(page.connection, page.target_id) as attached:
        assert attached.context.pages == [attached]
        await open_page(connection)
        assert await attached.title() == "Notice"
        assert attached.context.pages == [attached]


async def test_another_page_gets_a_driver_of_its_own(
    view: PlaywrightView, connection: Connection, page: Opened
) -> None:
    await snapshot(view, page)
    [first] = drivers()
    other = await open_page(connection, "data:text/html,other")
    assert await snapshot(view, other) == "- text: other"
    [second] = drivers()
    assert second != first


async def test_it_changes_nothing_and_leaves_nothing_behind(
    view: PlaywrightView,
    connection: Connection,
    page: Opened,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(playwright_view, "IDLE_TIME", 0.0)
    front = await open_page(connection)  # which takes the focus
    before = await page.evaluate(SURROUNDINGS)
    assert before.startswith("false,")
    async with view.attached(page.connection, page.target_id):
        assert await page.evaluate(SURROUNDINGS) == before
        assert await page.evaluate(LOAD_WORKER) == "loaded"
        assert await download_is_denied(connection, page)
    await until(lambda: not drivers())
    assert await page.evaluate(SURROUNDINGS) == before
    assert await page.evaluate(LOAD_WORKER) == "loaded"
    assert await download_is_denied(connection, page)
    assert (await front.evaluate(SURROUNDINGS)).startswith("true,")
    await open_page(connection)


async def test_the_environment_of_the_driver_is_its_own(
    view: PlaywrightView, page: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NODE_OPTIONS", raising=False)
    await snapshot(view, page)
    [driver] = drivers()
    environment = launch.browser_environment(None)
    for name, value in launch.DRIVER_ENVIRONMENT.items():
        assert driver.environ()[name] == value
    assert "NODE_OPTIONS" not in environment


# --- a driver that fails --------------------------------------------------------------------------


async def test_a_driver_that_hangs_does_not_hold_up_the_page(
    view: PlaywrightView,
    connection: Connection,
    page: Opened,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(playwright_view, "IDLE_TIME", 10 * PATIENCE)  # so that it does not leave
    monkeypatch.setattr(playwright_view, "STOP_TIMEOUT", 0.1)
    page.session.on(
        "Page.javascriptDialogOpening",
        lambda _: page.session.post("Page.handleJavaScriptDialog", accept=False),
    )
    await snapshot(view, page)
    [driver] = drivers()
    driver.send_signal(signal.SIGSTOP)
    assert await page.evaluate(LOAD_WORKER) == "loaded"
    assert await page.evaluate("confirm('Continue?')") is False
    await open_page(connection)
    monkeypatch.setattr(playwright_view, "USE_TIMEOUT", 0.1)
    with pytest.raises(NoAnswer):
        await snapshot(view, page)
    await until(lambda: not drivers())
    assert await page.evaluate(LOAD_WORKER) == "loaded"
    monkeypatch.setattr(playwright_view, "USE_TIMEOUT", PATIENCE)
    assert "A new dialog" in await snapshot(view, page)


async def test_a_driver_that_is_killed_does_not_hold_up_the_page(
    view: PlaywrightView, page: Opened
) -> None:
    async with view.attached(page.connection, page.target_id):
        [driver] = drivers()
    with pytest.raises(PageClosed):  # noqa: PT012
        async with view.attached(page.connection, page.target_id) as attached:
            driver.kill()
            await attached.wait_for_selector("nothing")
    assert await page.evaluate(LOAD_WORKER) == "loaded"
    assert "A new dialog" in await snapshot(view, page)


@pytest.mark.parametrize(
    "script", [None, "exit 1", "echo nonsense; kill -STOP $$"], ids=["missing", "exits", "hangs"]
)
async def test_a_driver_that_does_not_start(
    view: PlaywrightView,
    page: Opened,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str | None,
) -> None:
    monkeypatch.setattr(playwright_view, "USE_TIMEOUT", 5.0 if script else PATIENCE)
    program = tmp_path / "node"
    if script is not None:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PLAYWRIGHT_NODEJS_PATH", str(program))
        with pytest.raises(BrowserError):
            await snapshot(view, page)
    await until(lambda: not drivers())
    monkeypatch.setattr(playwright_view, "USE_TIMEOUT", PATIENCE)
    assert "A new dialog" in await snapshot(view, page)


async def test_the_last_user_of_a_driver_that_starts_may_leave(
    view: PlaywrightView, page: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playwright_view, "IDLE_TIME", 0.0)
    user = asyncio.create_task(snapshot(view, page))
    await until(drivers)
    user.cancel()
    await until(lambda: not drivers())


# --- a page or a Chromium that ends ---------------------------------------------------------------


async def test_a_page_that_closes_meanwhile(
    view: PlaywrightView, connection: Connection, page: Opened
) -> None:
    with pytest.raises(PageClosed):  # noqa: PT012
        async with view.attached(page.connection, page.target_id) as attached:
            await connection.browser.call("Target.closeTarget", targetId=page.target_id)
            await attached.wait_for_selector("nothing")
    with pytest.raises(PageClosed):
        await snapshot(view, page)
    await until(lambda: not drivers())


async def test_a_page_that_has_crashed(view: PlaywrightView, page: Opened) -> None:
    crashed = asyncio.Event()
    page.session.on("Inspector.targetCrashed", lambda _: crashed.set())
    await page.session.call("Inspector.enable")
    page.session.post("Page.crash")
    async with asyncio.timeout(PATIENCE):
        await crashed.wait()
    with pytest.raises(PageClosed):
        await snapshot(view, page)


async def test_a_chromium_that_exits_meanwhile(
    view: PlaywrightView, browser: Chromium, page: Opened
) -> None:
    with pytest.raises(PageClosed):  # noqa: PT012
        async with view.attached(page.connection, page.target_id) as attached:
            await browser.kill()
            await attached.wait_for_selector("nothing")
    with pytest.raises(PageClosed):
        await snapshot(view, page)
    await until(lambda: not drivers())


# --- the relay ------------------------------------------------------------------------------------


class Client:
    """A client of the relay that is not Playwright."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []
        self._calls = 0

    async def call(self, method: str, session_id: str | None = None, **params: Any) -> Any:
        """Return the response to a call."""
        self._calls += 1
        message = {"id": self._calls, "method": method, "params": params}
        await self.socket.send_json(message | ({"sessionId": session_id} if session_id else {}))
        async with asyncio.timeout(PATIENCE):
            while "id" not in (answer := await self.socket.receive_json()):
                self.events.append(answer)
        assert answer["id"] == self._calls
        assert answer.get("sessionId") == session_id
        return answer

    async def attach(self) -> str:
        """Attach to the page; return the session's ID."""
        await self.call("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True)
        [event] = self.events
        assert event["method"] == "Target.attachedToTarget"
        session_id: str = event["params"]["sessionId"]
        return session_id


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


@pytest.fixture
async def relay(connection: Connection, page: Opened) -> AsyncIterator[Relay]:
    async with relaying(connection, page.target_id) as relay:
        yield relay


@pytest.fixture
async def client(http: aiohttp.ClientSession, relay: Relay) -> AsyncIterator[Client]:
    async with http.ws_connect(relay.url) as socket:
        yield Client(socket)


async def refusal(http: aiohttp.ClientSession, url: str) -> int:
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        await http.ws_connect(url)
    return error.value.status


async def test_nobody_is_served_without_the_path(http: aiohttp.ClientSession, relay: Relay) -> None:
    base, _, secret = relay.url.rpartition("/")
    for path in ("", "/", "/json/version", "/%ff", f"/{secret[:-1]}", f"/{secret}/"):
        assert await refusal(http, base + path) == 404
    assert not relay.ended.is_set()
    await Client(await http.ws_connect(relay.url)).attach()


async def test_a_second_client_is_refused(
    http: aiohttp.ClientSession, relay: Relay, client: Client
) -> None:
    await client.attach()
    assert await refusal(http, relay.url) == 409
    assert "result" in await client.call("Browser.getVersion")


@pytest.mark.parametrize(
    "method", ["Browser.close", "Target.createTarget", "Target.closeTarget", "Fetch.enable"]
)
async def test_what_is_not_allowed_is_answered_and_not_done(
    client: Client, connection: Connection, page: Opened, method: str
) -> None:
    session_id = await client.attach()
    for session in (None, session_id):
        answer = await client.call(method, session, targetId=page.target_id, url="about:blank")
        assert "not allowed" in answer["error"]["message"]
    targets = (await connection.browser.call("Target.getTargets"))["targetInfos"]
    assert [target["targetId"] for target in targets] == [page.target_id]


async def test_sessions_of_others_are_neither_heard_nor_called(
    client: Client, connection: Connection, page: Opened
) -> None:
    other = await open_page(connection)
    await client.attach()
    await other.session.call("Runtime.enable")
    await other.evaluate("console.log('secret')")
    for session_id in (page.session.session_id, other.session.session_id):
        answer = await client.call("Runtime.evaluate", session_id, expression="1")
        assert answer["error"]["code"] == -32001
    assert [event["method"] for event in client.events] == ["Target.attachedToTarget"]


async def test_the_client_is_told_that_the_page_has_closed(
    client: Client, connection: Connection, relay: Relay, page: Opened
) -> None:
    await client.attach()
    await connection.browser.call("Target.closeTarget", targetId=page.target_id)
    events = [await client.socket.receive_json(timeout=PATIENCE) for _ in range(2)]
    assert [event["method"] for event in events] == [
        "Inspector.detached",
        "Target.detachedFromTarget",
    ]
    assert relay.ended.is_set()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"id": 1, "method": 2}', "x" * 2**25])
async def test_what_is_no_call_ends_the_relay(relay: Relay, client: Client, text: str) -> None:
    with contextlib.suppress(ConnectionError):  # a text that is too long is not read to its end
        await client.socket.send_str(text)
    async with asyncio.timeout(PATIENCE):
        await relay.ended.wait()


async def test_a_client_that_does_not_read_ends_the_relay(
    client: Client, relay: Relay, page: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = await client.attach()
    await client.call("Runtime.enable", session_id)
    monkeypatch.setattr(playwright_relay, "MAXIMUM_UNREAD", 2**20)
    await page.evaluate("for (let i = 0; i < 2000; i++) console.log('x'.repeat(10000))")
    async with asyncio.timeout(PATIENCE):
        await relay.ended.wait()


async def test_closing_the_relay_ends_what_the_client_has_set(
    http: aiohttp.ClientSession, connection: Connection, page: Opened
) -> None:
    script = "window.set = true"
    async with relaying(connection, page.target_id) as relay, http.ws_connect(relay.url) as socket:
        client = Client(socket)
        session_id = await client.attach()
        await client.call("Page.enable", session_id)
        await client.call("Page.addScriptToEvaluateOnNewDocument", session_id, source=script)
    loaded = asyncio.Event()
    page.session.on("Page.loadEventFired", lambda _: loaded.set())
    await page.session.call("Page.reload")
    async with asyncio.timeout(PATIENCE):
        await loaded.wait()
    assert await page.evaluate("window.set") is None
