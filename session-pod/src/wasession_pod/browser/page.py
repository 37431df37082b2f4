"""The page of WhatsApp Web: how it is opened, replaced and confined, and what it reports."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.async_api import BrowserContext, Frame, Page
from playwright.async_api import Error as PlaywrightError
from pydantic import ValidationError

from wasession_pod import metrics
from wasession_pod.browser.bridge import CALL_TIMEOUT, Bridge
from wasession_pod.browser.confinement import Confinement, confine, origin_of
from wasession_pod.browser.errors import (
    CERTIFICATE_ERROR,
    WRONG_CREDENTIALS,
    BrowserError,
    NoAnswer,
    PageClosed,
    Unreachable,
    browser_errors,
    describe_certificate_error,
    first_line,
)
from wasession_pod.browser.launch import init_script
from wasession_pod.browser.proxy import Proxy, find_proxy_fault
from wasession_pod.browser.scripts import ScriptRequests
from wasession_pod.settings import Settings
from wasession_pod.state.observation import PageEvent, PageObservation, PageUnavailable

log = logging.getLogger(__name__)
DRIVER_GRACE = 5.0  # seconds that the driver has beyond a timeout that it is to enforce itself
FLUSH_TIMEOUT = 5.0  # seconds; Chromium takes some hundredths
FLUSH_POLL_INTERVAL = 0.02  # seconds
MAXIMUM_EVENT = 2**20  # characters; a message has up to 65,536, each up to six in JSON
# LOGOUT_REASON_CODE of wa-js 4.6.0, by the names of its LogoutReason where that has one.
LOGOUT_CODES = {
    "0": "client_fatal",
    "1": "syncd_failure",
    "2": "history_sync_timeout",
    "3": "account_locked",
}


class WhatsAppPage:
    """The one page of the browser.

    ``on_event`` is called for each event of the page, and with the types ``page.load``,
    ``page.crash``, ``page.elsewhere`` and ``page.post_logout`` for what Playwright observes itself.
    Methods raise ``BrowserError``.
    """

    def __init__(self, settings: Settings, on_event: Callable[[PageEvent], None]) -> None:
        self.bridge = Bridge(self._current_page, settings.answer_timeout)
        self._settings = settings
        self._on_event = on_event
        self._context: BrowserContext | None = None
        self._page: Page | None = None
        self._crashed = False
        self._proxy: Proxy | None = None
        self._confinement: Confinement | None = None
        self._scripts = ScriptRequests()
        self._replacing = False
        self._opening = False
        self._closing: set[asyncio.Future[None]] = set()

    async def attach(self, context: BrowserContext, proxy: Proxy | None) -> None:
        """Take over the first page of a new browser, and close every other page that opens.

        Raises Playwright's errors.
        """
        self._context, self._proxy = context, proxy
        first = context.pages[0] if context.pages else await context.new_page()
        await asyncio.gather(
            context.expose_binding("__wasessionEmit", self._on_emit),
            context.add_init_script(init_script(self._settings)),
            self._adopt(first),
        )
        context.on("page", lambda _: self._close_others())

    def detach(self) -> None:
        """Forget the page, because its browser is closing."""
        self._context = self._page = None

    async def goto(self) -> None:
        """Open WhatsApp Web; raise ``Unreachable`` if the network or WhatsApp is to blame."""
        timeout = self._settings.initialization_timeout
        self._opening, failure = True, None
        async with browser_errors(timeout + DRIVER_GRACE):
            try:
                response = await self._current_page().goto(
                    self._settings.whatsapp_url + "/",
                    wait_until="domcontentloaded",
                    timeout=timeout * 1000,
                )
            except PlaywrightError as error:
                failure = describe_certificate_error(first_line(error.message))
                if self._confinement is not None and self._confinement.wrong_credentials:
                    raise Unreachable(WRONG_CREDENTIALS) from None
                if "net::ERR_" not in failure and not failure.startswith("Timeout "):
                    raise
            finally:
                self._opening = False
        if failure is not None:
            fault = self._scripts.fault
            raise Unreachable(await self._blame(fault.message if fault else failure))
        if response is not None and response.status >= 400:
            raise Unreachable(f"HTTP {response.status}")

    async def _blame(self, message: str) -> str:
        """Return why the page could not be loaded, naming the proxy where that is to blame."""
        if self._proxy is None or CERTIFICATE_ERROR in message:
            return message
        fault = await find_proxy_fault(self._proxy.address, self._settings.whatsapp_url)
        return message if fault is None else f"{fault} ({message})"

    async def reload(self) -> None:
        """Open WhatsApp Web in a new page, even if the old one hangs; raise like ``goto``."""
        await self._replace()
        await self.goto()

    async def recycle(self) -> bool:
        """Make Chromium write the login by replacing the page; return whether it has.

        WhatsApp Web stores its keys in localStorage, which Chromium holds in memory for up to a
        minute but writes at once when the last page of an origin closes and its service worker
        stops. The proof is a mark that is stored along with the keys and then appears on disk. The
        new page opens WhatsApp Web only afterwards, because a page of the origin would hold the
        data in memory.
        """
        mark = secrets.token_hex(16)
        async with browser_errors(self._settings.answer_timeout):
            await self._current_page().evaluate(
                "mark => localStorage.setItem('wasession', mark)", mark
            )
        await self._replace()
        await self._stop_service_workers()
        written = await self._wait_until_on_disk(mark.encode())
        await self.goto()
        return written

    async def observe(self) -> PageObservation | PageUnavailable:
        """Return the state of the page now, or why it can't be observed; never raise."""
        if self._crashed:
            return PageUnavailable.LOADING
        try:
            observed = await self.bridge.observe()
            return observed.model_copy(update={"script_fault": self._scripts.fault})
        except NoAnswer:
            return PageUnavailable.HUNG
        except PageClosed:
            return PageUnavailable.CLOSED
        except BrowserError:
            return PageUnavailable.LOADING

    async def screenshot(self) -> bytes:
        """Return the page as PNG."""
        async with browser_errors(CALL_TIMEOUT):
            return await self._current_page().screenshot()

    def _current_page(self) -> Page:
        if self._page is None:
            raise PageClosed("no page is open")
        return self._page

    async def _replace(self) -> None:
        async with browser_errors(self._settings.answer_timeout):
            if self._context is None:
                raise PageClosed("the browser is not running")
            old = self._page
            self._replacing = True
            try:
                await self._adopt(await self._context.new_page())
            finally:
                self._replacing = False
            if old is not None:
                await old.close()
        self._close_others()

    async def _stop_service_workers(self) -> None:
        """Stop the workers of the pages that are closed; WhatsApp Web starts its own again."""
        async with browser_errors(self._settings.answer_timeout):
            page = self._current_page()
            session = await page.context.new_cdp_session(page)
            await session.send("ServiceWorker.enable")
            await session.send("ServiceWorker.stopAllWorkers")
            await session.detach()

    async def _wait_until_on_disk(self, mark: bytes) -> bool:
        """Wait for the mark in localStorage's files; return False after ``FLUSH_TIMEOUT``."""
        directory = self._settings.profile / "Default" / "Local Storage" / "leveldb"
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT):
                while not await asyncio.to_thread(_logs_contain, directory, mark):  # noqa: ASYNC110
                    await asyncio.sleep(FLUSH_POLL_INTERVAL)
        except TimeoutError:
            return False
        return True

    async def _adopt(self, page: Page) -> None:
        """Confine a page, make it the current one and listen to its events."""
        if self._settings.locale is not None:  # for Intl, which ignores flags without locale files
            session = await page.context.new_cdp_session(page)
            await session.send("Emulation.setLocaleOverride", {"locale": self._settings.locale})
        self._confinement = await confine(
            page,
            self._settings.whatsapp_url,
            self._proxy.credentials if self._proxy is not None else None,
            lambda origin: _report_blocked("navigation", origin),
        )
        self._page, self._crashed = page, False
        self._scripts = ScriptRequests()
        self._scripts.follow(page)
        page.on("crash", self._on_crash)
        page.on("framenavigated", self._on_navigated)
        page.on("domcontentloaded", self._on_loaded)
        page.on("download", lambda download: _report_blocked("download", origin_of(download.url)))

    def _on_crash(self, page: Page) -> None:
        if page is self._page:
            self._crashed = True
            self._on_event(PageEvent(type="page.crash"))

    def _on_loaded(self, page: Page) -> None:
        if page is self._page and page.url.startswith(self._settings.whatsapp_url):
            reason = None if self._opening else "reload"
            self._on_event(PageEvent(type="page.load", reason=reason))

    def _on_navigated(self, frame: Frame) -> None:
        if frame.parent_frame is not None:
            return
        if frame.url.startswith("blob:"):  # loaded without a request that could be blocked
            _report_blocked("navigation", origin_of(frame.url))
            self._on_event(PageEvent(type="page.elsewhere"))
        # The page removes the marker from its URL at once: only the navigation itself shows it.
        if "post_logout=1" in frame.url:
            code = parse_qs(urlsplit(frame.url).query).get("logout_reason", [""])[0]
            # An unknown code is no proof that WhatsApp itself has ended the login.
            reason = LOGOUT_CODES.get(code, f"code {code}") if code else None
            self._on_event(PageEvent(type="page.post_logout", reason=reason))

    def _on_emit(self, source: Any, payload: object) -> None:
        page = self._page
        if page is None or source["frame"] is not page.main_frame or not isinstance(payload, str):
            return  # Playwright exposes the binding to every frame of every page
        try:
            event = PageEvent.model_validate_json(payload[:MAXIMUM_EVENT])
        except ValidationError:
            event = PageEvent(type="chat.gap")
        self._on_event(event)

    def _close_others(self) -> None:
        """Close pages that WhatsApp Web has opened: they would share its cookies and storage."""
        if self._context is None or self._replacing:
            return
        for page in self._context.pages:
            if page is not self._page and not page.is_closed():
                _report_blocked("page", origin_of(page.url))
                closing = asyncio.ensure_future(page.close())
                self._closing.add(closing)
                closing.add_done_callback(self._on_other_closed)

    def _on_other_closed(self, closing: asyncio.Future[None]) -> None:
        self._closing.discard(closing)
        if not closing.cancelled():
            closing.exception()  # retrieved to ignore it: the page or the browser closed first


def _report_blocked(kind: str, origin: str) -> None:
    metrics.REFUSED.labels(kind).inc()
    log.warning("blocked a request by the page", extra={"kind": kind, "origin": origin})


def _logs_contain(directory: Path, mark: bytes) -> bool:
    """Whether a log of LevelDB contains the mark: new writes are in the log, uncompressed."""
    for path in directory.glob("*.log"):
        with contextlib.suppress(FileNotFoundError):  # replaced by a compaction
            if mark in path.read_bytes():
                return True
    return False
