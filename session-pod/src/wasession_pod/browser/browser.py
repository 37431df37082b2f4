"""Chromium through Playwright: launching, the page, and calls into it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import re
import secrets
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psutil
from playwright.async_api import BrowserContext, Page, Playwright, async_playwright
from playwright.async_api import Error as PlaywrightError
from pydantic import ValidationError
from wasession_api.v1alpha1 import Reason

from wasession_pod import metrics
from wasession_pod.browser import processes
from wasession_pod.browser.confinement import Confinement, confine, origin_of
from wasession_pod.settings import Settings
from wasession_pod.state.observation import PageEvent, PageObservation, PageUnavailable

log = logging.getLogger(__name__)
BRIDGE = Path(__file__).with_name("bridge.js")
# A second --disable-features or --enable-features replaces the first: ours repeat Playwright's (a
# test compares them).
PLAYWRIGHT_ENABLED_FEATURES = ("CDPScreenshotNewSurface", "SkipListAccountsWithoutGaiaCookies")
PLAYWRIGHT_DISABLED_FEATURES = (
    "AvoidUnnecessaryBeforeUnloadCheckSync", "DestroyProfileOnBrowserClose", "HttpsUpgrades",
    "HttpsFirstBalancedModeAutoEnable", "LensOverlay", "MediaRouter", "PaintHolding",
    "ThirdPartyStoragePartitioning", "AvoidCorsURLLoaderRestartOnRedirect", "TcpPortRandomizationWin",
    "OptimizationHints", "NetworkTimeServiceQuerying", "AimEnabled", "PreconnectToSearch", "msForceBrowserSignIn",
    "msEdgeUpdateLaunchServicesPreferredVersion",
)  # fmt: skip
# Measured: 164 MB of anonymous memory without these, 105 MB with them. Names that a Chromium
# doesn't know are ignored.
HEAVY_FEATURES = (
    "WebUIOmniboxPopup", "WebUIOmniboxAimPopup", "SpareRendererForSitePerProcess", "Translate", "GlobalMediaControls",
)  # fmt: skip
# The login stays in LevelDB, which recycle() and login_snapshot.py read; Chromium 156 can move it
# to SQLite.
STORAGE_FEATURES = (
    "DomStorageSqlite", "DomStorageSqliteMigration", "DomStorageSqliteNewDatabases", "IdbSqliteBackingStore",
    "IdbSqliteOnDiskRollout",
)  # fmt: skip
# Playwright gives its driver this process's environment. Measured: 73 MB of anonymous memory
# without these, 54 with them.
DRIVER_ENVIRONMENT = {
    "NODE_OPTIONS": "--max-semi-space-size=1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
}
# The network service in the browser's process, as on Android: 16 MB less. It keeps no part of a
# login.
ENABLED_FEATURES = ("NetworkServiceInProcess2",)
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--disable-software-rasterizer",
    "--enable-features=" + ",".join((*PLAYWRIGHT_ENABLED_FEATURES, *ENABLED_FEATURES)),
    "--disable-features="
    + ",".join((*PLAYWRIGHT_DISABLED_FEATURES, *HEAVY_FEATURES, *STORAGE_FEATURES)),
    # Else Chromium deletes the page's IndexedDB, and with it the login, on a volume with less than
    # a tenth of it free.
    "--unlimited-storage",
)
FLUSH_TIMEOUT = 5.0  # seconds; Chromium takes some hundredths
CALL_TIMEOUT = 30.0  # seconds for what a page asks WhatsApp for
VERSION_TIMEOUT = 30.0  # seconds for Chromium to say its version, which takes some hundredths
DRIVER_TIMEOUT = (
    5.0  # seconds that Playwright's driver has beyond a limit that it is to keep itself
)
WRONG_CREDENTIALS = "the proxy does not accept the username and password"
PROXY_ERRORS = (
    "ERR_PROXY",
    "ERR_TUNNEL",
    "ERR_SOCKS",
    "ERR_NO_SUPPORTED_PROXIES",
    "ERR_INVALID_AUTH",
    "HTTP 407",
    WRONG_CREDENTIALS,
)
# LOGOUT_REASON_CODE of wa-js 4.6.0, in the words of its LogoutReason where that has one.
LOGOUT_CODES = {
    "0": "client_fatal",
    "1": "syncd_failure",
    "2": "history_sync_timeout",
    "3": "account_locked",
}
VIEWPORT_WIDTH, VIEWPORT_HEIGHT = 800, 600
LONGEST_EVENT = 2**20  # characters; a message has up to 65,536, each of which JSON may write as six


class BrowserError(Exception):
    """The browser or the page did not do what it was asked; the message is one line without page content."""


class Unreachable(BrowserError):
    """WhatsApp Web can't be opened, and the browser is not to blame."""

    @property
    def reason(self) -> Reason:
        proxy = any(word in str(self) for word in PROXY_ERRORS)
        return Reason.PROXY_FAILED if proxy else Reason.WHATSAPP_UNREACHABLE


class Browser:
    """One Chromium on one profile, with one page.

    ``on_event`` is called for each event of the page, and with the types ``page.crash``,
    ``browser.close`` and ``page.post_logout`` for what Playwright sees itself.
    """

    def __init__(self, settings: Settings, on_event: Callable[[PageEvent], None]) -> None:
        for name, value in DRIVER_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self._settings = settings
        self._on_event = on_event
        self._playwright: Playwright | None = None
        self._context: BrowserContext | None = None
        self._page: Page | None = None
        self._crashed = False
        self._confinement: Confinement | None = None
        self._changing_page = False
        self._closing: set[asyncio.Future[None]] = set()
        self._processes: list[psutil.Process] = []  # they outlive a driver that is killed
        self.sandboxed: bool | None = None

    async def prepare(self) -> tuple[Playwright, bool, str]:
        """What ``launch`` needs before anything of the profile: the driver, whether the sandbox can work, the user agent.

        The driver takes a third of a second, which the caller may spend otherwise. Raises
        ``BrowserError``.
        """
        settings = self._settings
        async with within(settings.initialization_timeout + DRIVER_TIMEOUT):
            return await asyncio.gather(
                self._driver(),
                asyncio.to_thread(sandbox_possible),
                asyncio.to_thread(
                    lambda: settings.user_agent or honest_user_agent(settings.chromium)
                ),
            )

    async def launch(self, profile: Path) -> None:
        """Starts Chromium on a profile; raises ``BrowserError``."""
        settings = self._settings
        limit = settings.initialization_timeout
        playwright, self.sandboxed, user_agent = await self.prepare()
        async with within(limit + DRIVER_TIMEOUT):
            self._context = await playwright.chromium.launch_persistent_context(
                str(profile),
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
                proxy={"server": settings.proxy_address}
                if settings.proxy_address
                else None,  # the rest: see confine
                accept_downloads=False,
                timeout=limit * 1000,
            )
            self._context.on("close", self._closed)
            await asyncio.gather(
                self._context.expose_binding("__wasessionEmit", self._emitted),
                self._context.add_init_script(init_script(settings)),
                self._watch(
                    self._context.pages[0]
                    if self._context.pages
                    else await self._context.new_page()
                ),
            )
            self._context.on("page", lambda _: self._close_others())
        self._processes = await asyncio.to_thread(processes.family)

    async def _driver(self) -> Playwright:
        if self._playwright is None:
            self._playwright = await async_playwright().start()
        return self._playwright

    @property
    def running(self) -> bool:
        return self._context is not None

    async def goto(self) -> None:
        """Opens WhatsApp Web; raises ``Unreachable`` when the network or WhatsApp is to blame, else ``BrowserError``."""
        limit = self._settings.initialization_timeout
        async with within(limit + DRIVER_TIMEOUT):
            try:
                answer = await self._open_page.goto(
                    self._settings.whatsapp_url + "/",
                    wait_until="domcontentloaded",
                    timeout=limit * 1000,
                )
            except PlaywrightError as error:
                words = first_line(error.message)
                if self._confinement is not None and self._confinement.wrong_credentials:
                    raise Unreachable(WRONG_CREDENTIALS) from None
                if "net::ERR_" in words or words.startswith("Timeout "):
                    raise Unreachable(words) from None
                raise
        if answer is not None and answer.status >= 400:
            raise Unreachable(f"HTTP {answer.status}")

    async def recycle(self) -> bool:
        """Changes to a new page in a way that makes Chromium write the login; says whether it has.

        WhatsApp Web keeps its keys in localStorage, which Chromium holds in memory for up to a
        minute and writes at once when an origin's last page is closed. A mark that is stored along
        with them and then found on the disk is the proof; the new page opens WhatsApp Web only
        after that, because a page of the origin would keep the memory alive.
        """
        mark = secrets.token_hex(16)
        async with within(self._settings.answer_timeout):
            await self._open_page.evaluate("mark => localStorage.setItem('wasession', mark)", mark)
        await self._change_page()
        written = await self._on_disk(mark.encode())
        await self.goto()
        return written

    async def reload(self) -> None:
        """Opens WhatsApp Web in a new page, which also replaces one that hangs or has crashed; raises like ``goto``."""
        await self._change_page()
        await self.goto()

    async def snapshot(self) -> PageObservation | PageUnavailable:
        """What the page says now, or why it says nothing."""
        if self._crashed:
            return PageUnavailable.LOADING
        try:
            async with asyncio.timeout(self._settings.answer_timeout):
                return PageObservation.model_validate(
                    await self._open_page.evaluate("() => window.__wasession.snapshot()")
                )
        except TimeoutError:
            return PageUnavailable.HUNG
        except BrowserError:
            return PageUnavailable.CLOSED
        except ValidationError:
            return PageUnavailable.LOADING
        except PlaywrightError as error:
            return PageUnavailable.CLOSED if is_closed(error) else PageUnavailable.LOADING

    async def call(
        self, function: str, *arguments: object, timeout: float | None = CALL_TIMEOUT
    ) -> Any:
        """Calls one of the bridge's functions; raises ``BrowserError``, also after ``timeout`` seconds."""
        script = "([name, values]) => window.__wasession[name](...values)"
        async with within(timeout):
            return await self._open_page.evaluate(script, [function, list(arguments)])

    async def call_with_file(self, function: str, file: Path, *arguments: object) -> Any:
        """Like ``call`` without a timeout; the function's first argument is a ``File`` of the file on the disk.

        Chromium opens the file by its path, so none of it goes through the protocol: 16 MB take 20
        ms instead of 4 s as base64. The page reads it as late as it likes: the file must stay until
        the call has ended.
        """
        async with within(None):
            field = await self._open_page.evaluate_handle(
                "() => Object.assign(document.createElement('input'), {type: 'file'})"
            )
            element = field.as_element()
            assert element is not None
            try:
                await element.set_input_files(file)
                script = (
                    "(field, [name, values]) => window.__wasession[name](field.files[0], ...values)"
                )
                return await element.evaluate(script, [function, list(arguments)])
            finally:
                with contextlib.suppress(PlaywrightError):
                    await element.dispose()

    async def screenshot(self) -> bytes:
        """The page as PNG; raises ``BrowserError``."""
        async with within(CALL_TIMEOUT):
            return await self._open_page.screenshot()

    async def close(self, timeout: float) -> bool:
        """Closes Chromium, which writes its profile; False when that was not possible within ``timeout`` seconds.

        A browser that can't be closed is ended with its driver, so that the next ``launch`` begins
        anew.
        """
        context, self._context, self._page = self._context, None, None
        if context is None:
            return True
        try:
            async with asyncio.timeout(timeout):
                await context.close()
        except (PlaywrightError, TimeoutError):
            await self.quit()
            return False
        return True

    async def quit(self) -> None:
        """Ends Playwright's driver, and whatever of the browser is still there. The browser is closed first, by ``close``."""
        playwright, self._playwright = self._playwright, None
        if playwright is None:
            return
        left = list({*self._processes, *await asyncio.to_thread(processes.family)})
        with contextlib.suppress(PlaywrightError, TimeoutError):
            async with asyncio.timeout(DRIVER_TIMEOUT):
                await playwright.stop()
        await asyncio.to_thread(processes.end, left)

    async def _change_page(self) -> None:
        async with within(self._settings.answer_timeout):
            old = self._page
            self._changing_page = True
            try:
                await self._watch(await self._browser.new_page())
            finally:
                self._changing_page = False
            if old is not None:
                await old.close()
        self._close_others()

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

    def _closed(self, context: BrowserContext) -> None:
        if context is self._context:
            self._on_event(PageEvent(type="browser.close"))

    def _close_others(self) -> None:
        """WhatsApp Web needs one page. What it opens besides is closed: another page would have its cookies and storage."""
        if self._context is None or self._changing_page:
            return
        for page in self._context.pages:
            if page is not self._page and not page.is_closed():
                self._refused("page", origin_of(page.url))
                closing = asyncio.ensure_future(page.close())
                self._closing.add(closing)
                closing.add_done_callback(self._closed_other)

    def _closed_other(self, closing: asyncio.Future[None]) -> None:
        self._closing.discard(closing)
        if not closing.cancelled():
            closing.exception()  # it has closed itself, or the browser has

    def _refused(self, kind: str, where: str) -> None:
        metrics.REFUSED.labels(kind).inc()
        log.warning("refused", extra={"kind": kind, "where": where})

    async def _watch(self, page: Page) -> None:
        settings = self._settings
        self._confinement = await confine(
            page,
            settings.whatsapp_url,
            settings.proxy_credentials,
            lambda where: self._refused("navigation", where),
        )
        self._page, self._crashed = page, False

        def crashed(_: Page) -> None:
            if page is self._page:
                self._crashed = True
                self._on_event(PageEvent(type="page.crash"))

        def navigated(frame: Any) -> None:
            if frame is not page.main_frame:
                return
            if frame.url.startswith("blob:"):  # the page's own, which no request is made for
                self._refused("navigation", origin_of(frame.url))
                self._on_event(PageEvent(type="page.elsewhere"))
            # The page strips the marker at once: only the navigation itself shows it.
            if "post_logout=1" in frame.url:
                code = parse_qs(urlsplit(frame.url).query).get("logout_reason", [""])[0]
                self._on_event(PageEvent(type="page.post_logout", reason=LOGOUT_CODES.get(code)))

        page.on("crash", crashed)
        page.on("framenavigated", navigated)
        page.on("download", lambda download: self._refused("download", origin_of(download.url)))

    def _emitted(self, source: Any, payload: object) -> None:
        page = self._page
        if page is None or source["frame"] is not page.main_frame or not isinstance(payload, str):
            return  # every frame of every page has the binding
        with contextlib.suppress(ValidationError):
            self._on_event(PageEvent.model_validate_json(payload[:LONGEST_EVENT]))


@contextlib.asynccontextmanager
async def within(seconds: float | None) -> AsyncIterator[None]:
    """Turns Playwright's errors, and no answer in time, into ``BrowserError`` with one line: the rest may hold page content.

    Playwright's own limits are kept by its driver, which may hang itself.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except PlaywrightError as error:
        raise BrowserError(first_line(error.message)) from None
    except TimeoutError:
        raise BrowserError(f"no answer within {seconds or 0:g} s") from None


def is_closed(error: PlaywrightError) -> bool:
    """Whether page, browser or driver has ended, as far as Playwright's words tell."""
    return "has been closed" in error.message or "Connection closed" in error.message


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


@functools.cache
def honest_user_agent(chromium: Path) -> str:
    """The installed Chromium's user agent without the word Headless, which WhatsApp Web refuses; raises ``BrowserError``."""
    try:
        done = subprocess.run(
            [str(chromium), "--version"],
            capture_output=True,
            text=True,
            check=False,
            timeout=VERSION_TIMEOUT,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise BrowserError(
            f"Chromium can't be asked for its version: {first_line(str(error))}"
        ) from None
    match = re.search(r"(\d+)\.\d+\.\d+", done.stdout)
    if match is None:
        raise BrowserError(f"{chromium} does not say its version")
    return f"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{match[1]}.0.0.0 Safari/537.36"


def _contains(directory: Path, mark: bytes) -> bool:
    """Whether one of LevelDB's files holds the mark; a fresh write is in the log, which is not compressed."""
    for path in directory.glob("*.log"):
        with contextlib.suppress(FileNotFoundError):  # replaced by a compaction meanwhile
            if mark in path.read_bytes():
                return True
    return False


@functools.cache
def sandbox_possible() -> bool:
    """Whether Chromium's sandbox can work: this user may make the namespaces that it needs, and isn't root."""
    if os.geteuid() == 0:
        return False
    command = ["unshare", "--user", "--pid", "--net", "--fork", "true"]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
