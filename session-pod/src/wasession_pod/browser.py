"""Chromium through Playwright: launching, the page, and calls into it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.async_api import BrowserContext, Page, Playwright, ProxySettings, async_playwright
from playwright.async_api import Error as PlaywrightError
from pydantic import ValidationError

from wasession_pod.settings import Settings
from wasession_pod.snapshot import PageEvent, Snapshot

BRIDGE = Path(__file__).with_name("bridge.js")
# A second --disable-features replaces the first, so ours repeats what Playwright passes (a test compares them).
PLAYWRIGHT_DISABLED_FEATURES = (
    "AvoidUnnecessaryBeforeUnloadCheckSync", "DestroyProfileOnBrowserClose", "HttpsUpgrades",
    "HttpsFirstBalancedModeAutoEnable", "LensOverlay", "MediaRouter", "PaintHolding",
    "ThirdPartyStoragePartitioning", "AvoidCorsURLLoaderRestartOnRedirect", "TcpPortRandomizationWin",
    "OptimizationHints", "NetworkTimeServiceQuerying", "AimEnabled", "PreconnectToSearch", "msForceBrowserSignIn",
    "msEdgeUpdateLaunchServicesPreferredVersion",
)  # fmt: skip
# Measured: 164 MB of anonymous memory without these, 105 MB with them. Names that a Chromium doesn't know are ignored.
HEAVY_FEATURES = (
    "WebUIOmniboxPopup", "WebUIOmniboxAimPopup", "SpareRendererForSitePerProcess", "Translate", "GlobalMediaControls",
)  # fmt: skip
# The login stays in LevelDB, which recycle() and login_snapshot.py read; Chromium 156 can move it to SQLite.
STORAGE_FEATURES = (
    "DomStorageSqlite", "DomStorageSqliteMigration", "DomStorageSqliteNewDatabases", "IdbSqliteBackingStore",
    "IdbSqliteOnDiskRollout",
)  # fmt: skip
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--disable-software-rasterizer",
    "--disable-features=" + ",".join((*PLAYWRIGHT_DISABLED_FEATURES, *HEAVY_FEATURES, *STORAGE_FEATURES)),
    # Else Chromium deletes the page's IndexedDB, and with it the login, on a volume with less than a tenth of it free.
    "--unlimited-storage",
)
FLUSH_TIMEOUT = 5.0  # seconds; Chromium takes some hundredths
VIEWPORT_WIDTH, VIEWPORT_HEIGHT = 800, 600
LONGEST_EVENT = 2**20  # characters; a message has up to 65,536, each of which JSON may write as six


class BrowserError(Exception):
    """The browser or the page did not do what it was asked; the message is one line without page content."""


class Browser:
    """One Chromium on one profile, with one page.

    ``on_event`` is called for each event of the page, and with the types ``page.crash``, ``browser.close`` and
    ``page.post_logout`` for what Playwright sees itself.
    """

    def __init__(self, settings: Settings, on_event: Callable[[PageEvent], None]) -> None:
        self._settings = settings
        self._on_event = on_event
        self._playwright: Playwright | None = None
        self._context: BrowserContext | None = None
        self._page: Page | None = None
        self.sandboxed: bool | None = None

    async def launch(self) -> None:
        """Starts Chromium on the profile; raises ``BrowserError``."""
        settings = self._settings
        if self._playwright is None:
            self._playwright = await async_playwright().start()
        self.sandboxed = await asyncio.to_thread(sandbox_possible)
        user_agent = settings.user_agent or await asyncio.to_thread(honest_user_agent, settings.chromium)
        with one_line_errors():
            self._context = await self._playwright.chromium.launch_persistent_context(
                str(settings.profile),
                executable_path=str(settings.chromium),
                args=[*FLAGS, *settings.extra_args],
                chromium_sandbox=self.sandboxed,
                headless=True,
                # Playwright's own handlers would kill Chromium before it has written its profile.
                handle_sigterm=False,
                handle_sigint=False,
                handle_sighup=False,
                viewport={"width": VIEWPORT_WIDTH, "height": VIEWPORT_HEIGHT},
                user_agent=user_agent,
                locale=settings.locale,
                timezone_id=settings.timezone,
                proxy=_proxy(settings),
                accept_downloads=False,
                timeout=settings.initialization_timeout * 1000,
            )
            await self._context.expose_binding("__wasessionEmit", self._emitted)
            await self._context.add_init_script(init_script(settings))
        self._context.on("close", lambda _: self._on_event(PageEvent(type="browser.close")))
        self._watch(self._context.pages[0] if self._context.pages else await self._context.new_page())

    async def goto(self) -> None:
        """Opens WhatsApp Web; raises ``BrowserError`` when it can't be reached."""
        with one_line_errors():
            await self._open_page.goto(
                self._settings.whatsapp_url + "/",
                wait_until="domcontentloaded",
                timeout=self._settings.initialization_timeout * 1000,
            )

    async def recycle(self) -> bool:
        """Changes to a new page in a way that makes Chromium write the login; says whether it has.

        WhatsApp Web keeps its keys in localStorage, which Chromium holds in memory for up to a minute and writes at once
        when an origin's last page is closed. A mark that is stored along with them and then found on the disk is the proof;
        the new page opens WhatsApp Web only after that, because a page of the origin would keep the memory alive.
        """
        mark = secrets.token_hex(16)
        with one_line_errors():
            await self._open_page.evaluate("mark => localStorage.setItem('wasession', mark)", mark)
            old, new = self._open_page, await self._browser.new_page()
            self._watch(new)
            await old.close()
        written = await self._on_disk(mark.encode())
        await self.goto()
        return written

    async def snapshot(self) -> Snapshot | None:
        """What the page says now; None when it can't say, as during a navigation."""
        try:
            async with asyncio.timeout(10):
                return Snapshot.model_validate(await self._open_page.evaluate("() => window.__wasession.snapshot()"))
        except (BrowserError, PlaywrightError, TimeoutError, ValidationError):
            return None

    async def call(self, function: str, *arguments: object, timeout: float | None = 30) -> Any:
        """Calls one of the bridge's functions; raises ``BrowserError``, also after ``timeout`` seconds."""
        script = "([name, values]) => window.__wasession[name](...values)"
        with one_line_errors():
            async with asyncio.timeout(timeout):
                return await self._open_page.evaluate(script, [function, list(arguments)])

    async def call_with_file(self, function: str, file: Path, *arguments: object) -> Any:
        """Like ``call`` without a timeout; the function's first argument is a ``File`` of the file on the disk.

        Chromium opens the file by its path, so none of it goes through the protocol: 16 MB take 20 ms instead of 4 s as
        base64. The page reads it as late as it likes: the file must stay until the call has ended.
        """
        with one_line_errors():
            field = await self._open_page.evaluate_handle(
                "() => Object.assign(document.createElement('input'), {type: 'file'})"
            )
            element = field.as_element()
            assert element is not None
            try:
                await element.set_input_files(file)
                script = "(field, [name, values]) => window.__wasession[name](field.files[0], ...values)"
                return await element.evaluate(script, [function, list(arguments)])
            finally:
                with contextlib.suppress(PlaywrightError):
                    await element.dispose()

    async def screenshot(self) -> bytes:
        """The page as PNG; raises ``BrowserError``."""
        with one_line_errors():
            return await self._open_page.screenshot()

    async def close(self, timeout: float) -> bool:
        """Closes Chromium, which writes its profile; False when that took more than ``timeout`` seconds."""
        context, self._context, self._page = self._context, None, None
        if context is None:
            return True
        try:
            async with asyncio.timeout(timeout):
                await context.close()
        except (PlaywrightError, TimeoutError):
            return False
        return True

    async def quit(self) -> None:
        """Ends Playwright's driver. The browser is closed first, by ``close``."""
        if self._playwright is not None:
            await self._playwright.stop()
            self._playwright = None

    async def _on_disk(self, mark: bytes) -> bool:
        """Waits until the mark is in the files that hold localStorage; False after ``FLUSH_TIMEOUT``."""
        directory = self._settings.profile / "Default" / "Local Storage" / "leveldb"
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT):
                while not await asyncio.to_thread(_contains, directory, mark):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        except TimeoutError:
            return False
        return True

    @property
    def _browser(self) -> BrowserContext:
        if self._context is None:
            raise BrowserError("the browser is not running")
        return self._context

    @property
    def _open_page(self) -> Page:
        if self._page is None:
            raise BrowserError("no page is open")
        return self._page

    def _watch(self, page: Page) -> None:
        self._page = page
        page.on("crash", lambda _: self._on_event(PageEvent(type="page.crash")))

        def navigated(frame: Any) -> None:
            # The page strips the marker at once: only the navigation itself shows it.
            if frame is page.main_frame and "post_logout=1" in frame.url:
                self._on_event(PageEvent(type="page.post_logout"))

        page.on("framenavigated", navigated)

    def _emitted(self, source: Any, payload: object) -> None:
        page = self._page
        if page is None or source["frame"] is not page.main_frame or not isinstance(payload, str):
            return
        with contextlib.suppress(ValidationError):
            self._on_event(PageEvent.model_validate_json(payload[:LONGEST_EVENT]))


@contextlib.contextmanager
def one_line_errors() -> Any:
    """Turns Playwright's errors into ``BrowserError`` with one line: the rest may hold page content."""
    try:
        yield
    except PlaywrightError as error:
        raise BrowserError(first_line(error.message)) from None
    except TimeoutError:
        raise BrowserError("the page did not answer in time") from None


def first_line(message: str) -> str:
    """The error's own words: the first line, without the call's name, at most 200 characters."""
    lines = message.strip().splitlines() or [""]
    return re.sub(r"^[A-Za-z]+\.[A-Za-z_]+: ", "", lines[0])[:200]


def init_script(settings: Settings) -> str:
    """One script, so that its parts run in order: guard, wa-js's configuration, wa-js, bridge."""
    config = {
        "disableGoogleAnalytics": True,  # wa-js reports to it unless told otherwise
        "linkPreviewApiServers": [],
        "deviceName": settings.device_name or False,
        "poweredBy": "-",
    }
    return (
        f"if (window.top === window && location.origin === {json.dumps(settings.whatsapp_url)}) {{\n"
        f"window.WPPConfig = {json.dumps(config)};\n{settings.wa_js.read_text()}\n{BRIDGE.read_text()}\n}}"
    )


def honest_user_agent(chromium: Path) -> str:
    """The installed Chromium's user agent without the word Headless, which WhatsApp Web refuses."""
    done = subprocess.run([str(chromium), "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"(\d+)\.\d+\.\d+", done.stdout)
    major = match.group(1) if match else "0"
    return f"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{major}.0.0.0 Safari/537.36"


def _contains(directory: Path, mark: bytes) -> bool:
    """Whether one of LevelDB's files holds the mark; a fresh write is in the log, which is not compressed."""
    for path in directory.glob("*.log"):
        with contextlib.suppress(FileNotFoundError):  # replaced by a compaction meanwhile
            if mark in path.read_bytes():
                return True
    return False


def sandbox_possible() -> bool:
    """Whether Chromium's sandbox can work: this user may make the namespaces that it needs, and isn't root."""
    command = ["unshare", "--user", "--pid", "--net", "--fork", "true"]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0 and os.geteuid() != 0


def _proxy(settings: Settings) -> ProxySettings | None:
    if settings.proxy_server is None:
        return None
    proxy = ProxySettings(server=settings.proxy_server)
    if settings.proxy_username is not None:
        proxy["username"] = settings.proxy_username
    if settings.proxy_password is not None:
        proxy["password"] = settings.proxy_password.get_secret_value()
    return proxy
