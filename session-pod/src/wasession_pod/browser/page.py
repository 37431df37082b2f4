"""The page of WhatsApp Web: how it is opened, replaced and confined, and what it reports."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import ValidationError
from wasession_api.v1alpha1 import Presence, Reason

from wasession_pod import metrics
from wasession_pod.browser.bridge import CALL_TIMEOUT, Bridge
from wasession_pod.browser.cdp import Connection, Disconnected, ProtocolError, Session
from wasession_pod.browser.channel import Channel
from wasession_pod.browser.confinement import Confinement, origin_of
from wasession_pod.browser.errors import (
    CERTIFICATE_ERROR,
    WRONG_CREDENTIALS,
    BrowserError,
    NoAnswer,
    NotStartable,
    PageClosed,
    Unreachable,
    browser_errors,
    describe_certificate_error,
    first_line,
)
from wasession_pod.browser.launch import init_script
from wasession_pod.browser.launch_files import UsableFiles
from wasession_pod.browser.outline import outline
from wasession_pod.browser.playwright_view import PlaywrightView
from wasession_pod.browser.proxy import find_proxy_fault
from wasession_pod.browser.screencast import Screencasts, screenshot
from wasession_pod.browser.scripts import ScriptRequests
from wasession_pod.browser.tab import Tab
from wasession_pod.settings import Settings
from wasession_pod.state.observation import PageEvent, PageObservation, PageUnavailable

log = logging.getLogger(__name__)
FLUSH_TIMEOUT = 5.0  # seconds; Chromium takes some hundredths
FLUSH_POLL_INTERVAL = 0.02  # seconds
# Origins of documents that no server has sent. Others may be loaded without a request that could be
# blocked: a blob of the page, or what Chromium has prefetched for it.
EMPTY = ("about:", "chrome-error:")
# To Chromium a document that DevTools has supplied comes from a public address. Where the name of
# WhatsApp Web leads to a private one, such as that of a company's proxy, it would then need these
# permissions to connect to itself: ERR_BLOCKED_BY_LOCAL_NETWORK_ACCESS_CHECKS (seen with 156).
LOCAL_NETWORK = ("local-network-access", "local-network", "loopback-network")
COMPILE = """(script) => {
    try { new Function(script); return null; } catch (error) { return String(error); }
}"""
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
    ``page.close``, ``page.crash``, ``page.elsewhere`` and ``page.post_logout`` for what Chromium
    observes itself.
    Methods raise ``BrowserError``.
    """

    def __init__(self, settings: Settings, on_event: Callable[[PageEvent], None]) -> None:
        self.bridge = Bridge(self._current_tab, settings.answer_timeout)
        self._settings = settings
        self._on_event = on_event
        self._browser: Session | None = None
        self._files = UsableFiles()  # that the browser was started with
        self._pages: dict[str, tuple[str, str]] = {}  # session and URL of each page target
        self._tab: Tab | None = None
        self._confinement: Confinement | None = None
        self._scripts: ScriptRequests | None = None
        self._view = PlaywrightView()
        self._screencasts = Screencasts()
        self._screenshot = asyncio.Lock()  # held while one is taken, which needs a megabyte or two
        self._replacing = False
        self._opening = False
        self._refusing: set[asyncio.Task[None]] = set()

    async def attach(self, connection: Connection, files: UsableFiles) -> None:
        """Open the first page of a new browser, and close every other page that opens.

        Raises ``ProtocolError``, and ``NotStartable`` if wa-js is not JavaScript.
        """
        browser = connection.browser
        self._browser, self._files, self._pages = browser, files, {}
        browser.on("Target.attachedToTarget", self._on_page_opened)
        browser.on("Target.detachedFromTarget", self._on_page_closed)
        browser.on("Browser.downloadWillBegin", self._on_download)
        await asyncio.gather(
            browser.call("Browser.setDownloadBehavior", behavior="deny", eventsEnabled=True),
            browser.call(
                "Target.setAutoAttach",
                autoAttach=True,
                waitForDebuggerOnStart=True,  # for ``_refuse``
                flatten=True,
                filter=[{"type": "page"}],
            ),
        )
        if files.document is not None:
            await self._allow_local_network(browser)
        await self._open_tab(browser)
        self._close_others()
        if files.wa_js is not None:
            await self._require_javascript(files.wa_js.decode())

    async def _allow_local_network(self, browser: Session) -> None:
        """Let WhatsApp Web connect to private addresses; versions name the permission otherwise."""
        calls = [
            browser.call(
                "Browser.setPermission",
                permission={"name": name},
                setting="granted",
                origin=self._settings.whatsapp_url,
            )
            for name in LOCAL_NETWORK
        ]
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(answer, Disconnected):
                raise answer

    async def _require_javascript(self, wa_js: str) -> None:
        """Raise ``NotStartable`` if a script does not compile: Chromium would just ignore it."""
        error = await self._current_tab().evaluate(COMPILE, wa_js)
        if error is not None:
            message = (
                f"wa-js ({self._settings.wa_js}, waJS of the WhatsAppSessionClass) is not "
                f"JavaScript: {first_line(str(error))}. No browser starts with it."
            )
            raise NotStartable(Reason.WA_JS_INVALID, message)

    def detach(self) -> None:
        """Forget the page, because its browser is closing."""
        self._browser = self._tab = self._scripts = None

    async def goto(self) -> None:
        """Open WhatsApp Web; raise ``Unreachable`` if the network or WhatsApp is to blame."""
        timeout, failure = self._settings.initialization_timeout, None
        tab, scripts = self._current_tab(), self._scripts
        assert scripts is not None
        self._opening = True
        async with browser_errors(None):
            try:
                async with asyncio.timeout(timeout):
                    await tab.navigate(self._settings.whatsapp_url + "/")
            except TimeoutError:
                failure = f"no answer within {timeout:g} s"
            except ProtocolError as error:
                failure = describe_certificate_error(first_line(str(error)))
                if self._confinement is not None and self._confinement.wrong_credentials:
                    raise Unreachable(WRONG_CREDENTIALS) from None
                if "net::ERR_" not in failure:
                    raise
            finally:
                self._opening = False
        if failure is not None:
            fault = scripts.fault
            raise Unreachable(await self._blame(fault.message if fault else failure))
        if scripts.document_status is not None and scripts.document_status >= 400:
            raise Unreachable(f"HTTP {scripts.document_status}")

    async def _blame(self, message: str) -> str:
        """Return why the page could not be loaded, naming the proxy where that is to blame."""
        proxy = self._files.proxy
        if proxy is None or CERTIFICATE_ERROR in message:
            return message
        fault = await find_proxy_fault(proxy.address, self._settings.whatsapp_url)
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
            await self._current_tab().evaluate(
                "mark => localStorage.setItem('wasession', mark)", mark
            )
        await self._replace()
        await self._stop_service_workers()
        written = await self._wait_until_on_disk(mark.encode())
        await self.goto()
        return written

    async def observe(self) -> PageObservation | PageUnavailable:
        """Return the state of the page now, or why it can't be observed; never raise."""
        tab, scripts = self._tab, self._scripts
        if tab is not None and tab.crashed:
            return PageUnavailable.LOADING
        try:
            observed = await self.bridge.observe()
            fault = scripts.fault if scripts is not None else None
            if scripts is not None and observed.healthy:
                scripts.unwatch()
            return observed.model_copy(update={"script_fault": fault})
        except NoAnswer:
            return PageUnavailable.HUNG
        except PageClosed:
            return PageUnavailable.CLOSED
        except BrowserError:
            return PageUnavailable.LOADING

    async def screenshot(self) -> bytes:
        """Return the page as PNG."""
        async with browser_errors(CALL_TIMEOUT), self._screenshot:
            return await screenshot(self._current_tab())

    def screencast(self) -> AsyncGenerator[bytes]:
        """Return the page as a stream of JPEG; see ``Screencasts``."""
        return self._screencasts.show(self._current_tab())

    async def outline(self, *, login: bool) -> str:
        """Return what the page shows, as text; dialogs alone if it has, or may have, a login."""
        tab = self._current_tab()

        async def has_login() -> bool:
            observed = await self.observe()
            return login or (isinstance(observed, PageObservation) and observed.registered is True)

        async with self._view.attached(tab.session.connection, tab.target_id) as page:
            return await outline(page, has_login)

    def _current_tab(self) -> Tab:
        if self._tab is None:
            raise PageClosed("no page is open")
        return self._tab

    async def _replace(self) -> None:
        async with browser_errors(self._settings.answer_timeout):
            if self._browser is None:
                raise PageClosed("the browser is not running")
            old = self._tab
            await self._open_tab(self._browser)
            if old is not None:
                self._pages.pop(old.target_id, None)
                await old.close()
        self._close_others()

    async def _stop_service_workers(self) -> None:
        """Stop the workers of the pages that are closed; WhatsApp Web starts its own again."""
        async with browser_errors(self._settings.answer_timeout):
            session = self._current_tab().session
            for method in ("enable", "stopAllWorkers", "disable"):
                await session.call(f"ServiceWorker.{method}")

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

    async def _open_tab(self, browser: Session) -> None:
        """Open a tab with an empty document, set it up, and make it the current one."""
        self._replacing = True
        try:
            answer = await browser.call("Target.createTarget", url="about:blank")
            target_id = str(answer.get("targetId"))
            session_id, _ = self._pages.get(target_id, (None, None))
            if session_id is None:
                raise ProtocolError("Chromium has opened a page without attaching to it")
            tab = Tab(browser.connection.open_session(session_id), target_id)
            await self._set_up(tab)
            self._tab = tab
        finally:
            self._replacing = False

    async def _set_up(self, tab: Tab) -> None:
        """Confine a tab, add the bridge to its documents, and listen to its events."""
        session, settings, files = tab.session, self._settings, self._files
        pinned = files.document is not None
        scripts = ScriptRequests(session, tab.top_frame, bypass_service_worker=pinned)
        confinement = Confinement(
            session,
            tab.top_frame,
            settings.whatsapp_url,
            files.proxy.credentials if files.proxy is not None else None,
            files.document,
            on_blocked=lambda origin: _report_blocked("navigation", origin),
            on_document=scripts.watch,
        )
        Channel(session, tab.top_frame, lambda payload: self._on_emit(tab, payload))
        session.on("Inspector.targetCrashed", lambda _: self._on_crash(tab))
        session.on("Page.domContentEventFired", lambda _: self._on_loaded(tab))
        session.on("Page.frameNavigated", lambda event: self._on_frame(tab, event["frame"]["id"]))
        session.on(
            "Page.navigatedWithinDocument", lambda event: self._on_frame(tab, event["frameId"])
        )
        scripts.watch()
        calls = [
            tab.enable(),
            confinement.enable(),
            session.call(
                "Page.addScriptToEvaluateOnNewDocument", source=init_script(settings, files.wa_js)
            ),
        ]
        if settings.locale is not None:  # for Intl, which ignores flags without locale files
            calls.append(session.call("Emulation.setLocaleOverride", locale=settings.locale))
        if settings.presence is Presence.AVAILABLE:  # WhatsApp Web is available with the focus
            calls.append(session.call("Emulation.setFocusEmulationEnabled", enabled=True))
        await asyncio.gather(*calls, session.call("Runtime.runIfWaitingForDebugger"))
        self._confinement, self._scripts = confinement, scripts

    def _on_crash(self, tab: Tab) -> None:
        if tab is self._tab:
            self._on_event(PageEvent(type="page.crash"))

    def _on_loaded(self, tab: Tab) -> None:
        if tab is self._tab and origin_of(tab.url) == self._settings.whatsapp_url:
            reason = None if self._opening else "reload"
            self._on_event(PageEvent(type="page.load", reason=reason))

    def _on_frame(self, tab: Tab, frame: str) -> None:
        if tab is self._tab and frame == tab.top_frame:
            self._on_navigated(tab.url)

    def _on_navigated(self, url: str) -> None:
        origin = origin_of(url)
        if origin not in (self._settings.whatsapp_url, *EMPTY):
            _report_blocked("navigation", origin)
            self._on_event(PageEvent(type="page.elsewhere"))
            return
        # The page removes the marker from its URL at once: only the navigation itself shows it.
        if "post_logout=1" in url:
            code = parse_qs(urlsplit(url).query).get("logout_reason", [""])[0]
            # An unknown code is no proof that WhatsApp itself has ended the login.
            reason = LOGOUT_CODES.get(code, f"code {code}") if code else None
            self._on_event(PageEvent(type="page.post_logout", reason=reason))

    def _on_emit(self, tab: Tab, payload: str) -> None:
        if tab is not self._tab or origin_of(tab.url) != self._settings.whatsapp_url:
            return
        try:
            event = PageEvent.model_validate_json(payload[:MAXIMUM_EVENT])
        except ValidationError:
            event = PageEvent(type="chat.gap")
        self._on_event(event)

    def _on_download(self, event: dict[str, Any]) -> None:
        _report_blocked("download", origin_of(event["url"]))

    def _on_page_opened(self, event: dict[str, Any]) -> None:
        target = event["targetInfo"]
        if target["type"] != "page":  # the browser itself, for who looks at the page
            return
        self._pages[target["targetId"]] = event["sessionId"], target["url"]
        self._close_others()

    def _on_page_closed(self, event: dict[str, Any]) -> None:
        closed = event["sessionId"]
        self._pages = {target: page for target, page in self._pages.items() if page[0] != closed}
        if self._tab is not None and self._tab.session.session_id == closed:
            self._on_event(PageEvent(type="page.close"))

    def _close_others(self) -> None:
        """Close pages that WhatsApp Web has opened: they would share its cookies and storage."""
        if self._browser is None or self._tab is None or self._replacing:
            return
        for target_id in self._pages.keys() - {self._tab.target_id}:
            session_id, url = self._pages.pop(target_id)
            _report_blocked("page", origin_of(url))
            session = self._browser.connection.open_session(session_id)
            refusing = asyncio.create_task(self._refuse(Tab(session, target_id)))
            self._refusing.add(refusing)
            refusing.add_done_callback(self._refusing.discard)

    async def _refuse(self, tab: Tab) -> None:
        """Close a tab before it has loaded anything.

        The page that has opened it waits until it has started, and would do so for ever.
        """
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_paused(_: dict[str, Any]) -> None:
            if not started.done():
                started.set_result(None)

        tab.session.on("Fetch.requestPaused", on_paused)
        starting = asyncio.create_task(_start_intercepted(tab.session))
        either: set[asyncio.Future[Any]] = {starting, started}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        with contextlib.suppress(ProtocolError):
            await tab.close()


async def _start_intercepted(session: Session) -> None:
    """Let a tab that waits start, once Chromium pauses each of its requests."""
    with contextlib.suppress(ProtocolError):
        await session.call("Fetch.enable")  # one that is only sent may come too late (observed)
        await session.call("Runtime.runIfWaitingForDebugger")


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
