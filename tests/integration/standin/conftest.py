"""Real Chromium on the stand-in, with unmodified wa-js, as a session pod uses them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.async_api import Browser, BrowserContext, Error, Page, Playwright, async_playwright
from support.standin import Phone, Running, running

BRIDGE = Path(__file__).parents[3] / "session-pod" / "bridge"
WA_JS = BRIDGE / "node_modules" / "@wppconnect" / "wa-js" / "dist" / "wppconnect-wa.js"
ME = "15551234567"
PATIENCE = 60.0  # seconds
EVENTS = (
    "conn.auth_code_change", "conn.authenticated", "conn.main_loaded", "conn.main_ready",
    "conn.qrcode_idle", "conn.require_auth", "conn.logout", "conn.logout_reason",
    "conn.needs_update", "conn.stream_mode_changed", "conn.stream_info_changed",
    "conn.backend_event", "conn.link_code_change", "conn.link_code_expired", "chat.new_message",
    "chat.msg_ack_change",
)  # fmt: skip
SNAPSHOT = """() => {
  const { state } = require('WAWebSocketModel').Socket;
  const { mode, info } = WPP.conn.getStreamData();
  const me = WPP.conn.getMyUserWid();
  return { state, mode, info, registered: WPP.conn.isRegistered(), me: me ? String(me) : null };
}"""
LOGGED_IN = """() => {
  const { mode, info } = WPP.conn.getStreamData();
  const { state } = require('WAWebSocketModel').Socket;
  return WPP.conn.isRegistered() && mode === 'MAIN' && info === 'NORMAL' && state === 'CONNECTED';
}"""

Launch = Callable[..., AbstractAsyncContextManager[BrowserContext]]


def wa_js() -> str:
    if not WA_JS.exists():
        pytest.fail(f"wa-js is not installed: run `npm ci --ignore-scripts` in {BRIDGE}")
    return WA_JS.read_text()


def init_script() -> str:
    """wa-js as the session pod injects it, and a list of its events for the tests."""
    config = {
        "disableGoogleAnalytics": True,
        "linkPreviewApiServers": [],
        "deviceName": False,
        "poweredBy": "-",
    }
    record = """WPP.on(name, (...values) => {
      window.__events.push([name, ...values.map((value) => String(value?.fullCode ?? value))]);
    })"""
    return (
        "if (window.top === window && location.origin !== 'null') {\n"
        f"window.WPPConfig = {json.dumps(config)};\n{wa_js()}\n"
        f"window.__events = []; for (const name of {json.dumps(EVENTS)}) {record}; }}"
    )


class Client:
    """One page with wa-js, seen through wa-js."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.visited: list[str] = []
        self.errors: list[str] = []
        page.on("framenavigated", lambda frame: self.visited.append(frame.url))
        page.on("pageerror", lambda error: self.errors.append(error.message))

    async def open(self) -> None:
        await self.page.goto(self.url + "/", wait_until="domcontentloaded")
        await self.until("() => WPP.isFullReady")

    async def until(self, condition: str, argument: Any = None) -> None:
        """Wait for a condition on the page, which may be async.

        What the page says instead is in the failure. Not with ``wait_for_function``: that one takes
        a promise for true.
        """
        last: object = None
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        last = await self.page.evaluate(condition, argument)
                    except Error as error:  # as during a navigation
                        last = error.message
                    else:
                        if last:
                            return
                    await asyncio.sleep(0.03)  # between two looks
        except TimeoutError:
            said = await self.page.evaluate(
                "() => [window.__events.slice(-12), document.body.innerText]"
            )
            pytest.fail(
                f"{condition} of {argument}: {last}; {await self.snapshot()}, {said}, {self.errors}"
            )

    async def until_snapshot(self, **expected: Any) -> None:
        condition = f"""(expected) => {{
            const now = ({SNAPSHOT})();
            return Object.entries(expected).every(([name, value]) => now[name] === value); }}"""
        await self.until(condition, expected)

    async def until_event(self, name: str, *values: str) -> None:
        condition = """([name, values]) => window.__events.some(([seen, ...rest]) =>
            seen === name && values.every((value, index) => rest[index] === value))"""
        await self.until(condition, [name, list(values)])

    async def snapshot(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.page.evaluate(SNAPSHOT)
        return found

    async def events(self) -> list[list[str]]:
        found: list[list[str]] = await self.page.evaluate("() => window.__events")
        return found

    async def names(self) -> set[str]:
        return {event[0] for event in await self.events()}

    async def qr(self) -> str:
        """The QR's text as wa-js tells it."""
        await self.until("async () => (window.__code = await WPP.conn.getAuthCode())?.fullCode")
        code: str = await self.page.evaluate("() => window.__code.fullCode")
        return code

    async def ready(self) -> None:
        await self.until(LOGGED_IN)

    async def login(self, phone: Phone, number: str = ME) -> str:
        """From the QR to MAIN; returns the linked device's id."""
        await self.open()
        device = await phone.scan(await self.qr(), number)
        await self.ready()
        return device

    async def send(self, to: str, text: str, **options: Any) -> dict[str, Any]:
        script = """async ([to, text, options]) => {
          const sent = await WPP.chat.sendTextMessage(to, text, {
            createChat: true, linkPreview: false, detectMentioned: false, markIsRead: false,
            ...options });
          const result = await sent.sendMsgResult;
          return { id: String(sent.id), ack: sent.ack, result: result && result.messageSendResult };
        }"""
        sent: dict[str, Any] = await self.page.evaluate(script, [to, text, options])
        return sent


@pytest.fixture(scope="session")
async def playwright() -> AsyncIterator[Playwright]:
    async with async_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="session")
async def browser(playwright: Playwright, chromium: Path) -> AsyncIterator[Browser]:
    browser = await playwright.chromium.launch(
        executable_path=str(chromium), chromium_sandbox=False
    )
    yield browser
    await browser.close()


@pytest.fixture
async def world() -> AsyncIterator[Running]:
    async with running() as world:
        # This saves each test some time; those that are about it set it themselves.
        world.world.behaviour.late_bundle_ms = 0
        world.world.behaviour.sync_seconds = 0
        world.world.behaviour.refuse_automation = False  # Playwright's Chromium says Headless
        yield world


@pytest.fixture
def phone(world: Running) -> Phone:
    return Phone(world.url)


@pytest.fixture
async def new_client(browser: Browser, world: Running) -> AsyncIterator[Callable[[], Any]]:
    """Makes pages that know nothing of each other; each has its own storage."""
    contexts: list[BrowserContext] = []

    async def make() -> Client:
        context = await browser.new_context()
        contexts.append(context)
        await context.add_init_script(init_script())
        return Client(await context.new_page(), world.url)

    yield make
    for context in contexts:
        await context.close()


@pytest.fixture
async def client(new_client: Callable[[], Any]) -> Client:
    made: Client = await new_client()
    return made


@pytest.fixture
def launch(playwright: Playwright, tmp_path: Path, chromium: Path) -> Launch:
    """Chromium with a profile on disk, the same one each time."""

    @contextlib.asynccontextmanager
    async def start(
        *flags: str, ignore_default_args: list[str] | None = None
    ) -> AsyncIterator[BrowserContext]:
        context = await playwright.chromium.launch_persistent_context(
            str(tmp_path / "profile"),
            executable_path=str(chromium),
            chromium_sandbox=False,
            args=["--disable-gpu", *flags],
            ignore_default_args=ignore_default_args,
        )
        await context.add_init_script(init_script())
        try:
            yield context
        finally:
            with contextlib.suppress(Error):  # killed meanwhile
                await context.close()

    return start


def kill_chromium(profile: Path) -> None:
    """SIGKILL to the browser that runs on this profile, and to all its children."""
    mine = f"--user-data-dir={profile}"
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if mine in command and not any(argument.startswith("--type=") for argument in command):
            family = [process, *process.children(recursive=True)]
            for member in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.send_signal(signal.SIGKILL)
            psutil.wait_procs(family, timeout=10)
            return
    pytest.fail(f"no Chromium runs on {profile}")
