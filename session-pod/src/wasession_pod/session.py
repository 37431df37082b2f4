"""The session loop: looks at the page, asks ``state`` what that means, does what follows, and tells who listens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from wasession_api.report import Report
from wasession_api.v1alpha1 import LastShutdown, PairingMethod, Phase, Reason

from wasession_pod import state as states
from wasession_pod.browser import Browser, BrowserError
from wasession_pod.feed import Feed
from wasession_pod.settings import Settings
from wasession_pod.snapshot import PageEvent, PairingOffer
from wasession_pod.state import Action, Policy, State
from wasession_pod.storage import StorageError, Volume

log = logging.getLogger(__name__)
LOOK_EVERY = 5.0  # seconds between looks at the page when no event calls for one
LOOK_SOON = 0.3  # while something is expected to change without an event
LOGOUT_BACKEND_EVENTS = {"starting_logout", "logout"}


class NotReady(Exception):
    """The session is not Ready; ``phase`` says where it is."""

    def __init__(self, phase: Phase) -> None:
        super().__init__(f"the session is {phase}, not Ready")
        self.phase = phase


class Session:
    """One login. ``run`` holds it until ``stop`` is called; the other methods serve the HTTP API."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._volume = Volume(settings.data_dir, settings.client_id, settings.session_uid, settings.minimum_free_bytes)
        self._browser = Browser(settings, self._on_event)
        self._policy = Policy(
            initialization=timedelta(seconds=settings.initialization_timeout),
            max_rounds=settings.max_rounds,
            method=settings.pairing_method,
            takeover=settings.takeover,
        )
        self._state = states.initial(has_login=False, restoring=settings.restoring, now=_now())
        self._last_shutdown: LastShutdown | None = None
        self._started_at = _now()
        self._seq = 0
        self._changed = asyncio.Event()  # another one after each change
        self._look = asyncio.Event()
        self._stopping = asyncio.Event()
        self._restart_wanted = False
        self._crashed = False
        self._offer: PairingOffer | None = None
        self._failures = 0
        self.feed = Feed(self._started_at)
        self.report = self._report()

    # --- for the HTTP API ---------------------------------------------------------------------------------------------

    @property
    def offer(self) -> PairingOffer | None:
        """The code that a phone can use now."""
        return self._offer if self._state.phase is Phase.AUTHENTICATING else None

    async def reports(self, heartbeat: float) -> AsyncIterator[Report | None]:
        """The report now and at every change; None after ``heartbeat`` seconds without one."""
        told = -1
        while True:
            changed = self._changed
            if self.report.seq != told:
                told = self.report.seq
                yield self.report
                continue  # it may have changed while the reader was busy
            try:
                async with asyncio.timeout(heartbeat):
                    await changed.wait()
            except TimeoutError:
                yield None

    async def call(self, function: str, *arguments: object, file: Path | None = None, timeout: float | None = 30) -> Any:
        """Calls one of the bridge's functions on a Ready session; raises ``NotReady`` or ``BrowserError``.

        With a ``file`` there is no timeout (see ``Browser.call_with_file``).
        """
        self._require_ready()
        if file is not None:
            return await self._browser.call_with_file(function, file, *arguments)
        return await self._browser.call(function, *arguments, timeout=timeout)

    @property
    def holds_volume(self) -> bool:
        """Whether the volume is this session's now; before that nothing may be opened on it."""
        return self._volume.opened

    async def renew_code(self) -> None:
        """A new QR or pairing code, also after the last round."""
        self._change(states.first_round(self._state))
        await self._renew_code()

    async def logout(self) -> None:
        """Asks WhatsApp to end the login and waits for the proof; ``TimeoutError`` when that doesn't come."""
        self._require_ready()
        await self._browser.call("logout")
        async with asyncio.timeout(self._settings.logout_timeout):
            async for report in self.reports(self._settings.logout_timeout):
                if report is not None and not report.session_valid:
                    return

    def restart(self) -> None:
        """Restarts the browser."""
        self._change(states.restarting(self._state))
        self._restart_wanted = True
        self._look.set()

    async def screenshot(self) -> bytes:
        return await self._browser.screenshot()

    def stop(self) -> None:
        self._stopping.set()
        self._look.set()

    # --- the loop -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Holds the session until ``stop``; then closes the browser gracefully."""
        try:
            if await self._take_volume():
                while not self._stopping.is_set():
                    await self._hold_browser()
                    self._restart_wanted = False
                    if self._crashed:
                        self._crashed = False
                        await self._pause()
        finally:
            closed = await self._browser.close(self._settings.shutdown_timeout)
            await self._browser.quit()
            if closed and self._volume.opened:
                self._volume.close()
            log.info("stopped", extra={"graceful": closed})

    async def _take_volume(self) -> bool:
        """Waits for a volume that can be used; False when told to stop meanwhile."""
        while not self._stopping.is_set():
            try:
                self._last_shutdown = self._volume.open()
            except StorageError as error:
                self._change(states.volume_unusable(self._state, error.reason, str(error)))
                await self._pause()
                continue
            has_login = self._volume.login is not None
            self._change(states.initial(has_login=has_login, restoring=self._settings.restoring, now=_now()))
            return True
        return False

    async def _hold_browser(self) -> None:
        """One browser's life, from its launch until it has to be another one."""
        try:
            self._volume.check_space()
            await self._browser.launch()
            self._change(states.browser_started(self._state, _now()))
        except StorageError as error:
            self._change(states.volume_unusable(self._state, error.reason, str(error)))
            await self._pause()
            return
        except BrowserError as error:
            self._change(states.browser_gone(self._state, Reason.BROWSER_FAILED, f"Chromium did not start: {error}", _now()))
            await self._pause()
            return
        try:
            if await self._open_page(self._browser.goto):
                await self._watch_page()
        finally:
            self._offer = None
            await self._browser.close(self._settings.shutdown_timeout)

    async def _open_page(self, opening: Callable[[], Awaitable[None]]) -> bool:
        """Opens the page, again and again while WhatsApp can't be reached; False when told to stop or restart."""
        while not self._stopping.is_set() and not self._restart_wanted:
            try:
                await opening()
            except BrowserError as error:
                self._change(states.unreachable(self._state, str(error), _now()))
                opening = self._browser.goto
                await self._pause()
                continue
            if self._state.waiting_since is None:
                self._change(states.browser_started(self._state, _now()))
            return True
        return False

    async def _watch_page(self) -> None:
        while not self._stopping.is_set() and not self._restart_wanted:
            self._look.clear()
            state, actions = states.step(self._state, await self._browser.snapshot(), _now(), self._policy)
            self._change(state)
            for action in actions:
                await self._do(action)
            if state.phase is Phase.READY:
                self._failures = 0
            soon = state.good_since is not None and state.phase is not Phase.READY
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SOON if soon else LOOK_EVERY):
                    await self._look.wait()

    async def _do(self, action: Action) -> None:
        try:
            match action:
                case Action.RECYCLE:
                    await self._open_page(self._recycle)
                case Action.KEEP_LOGIN:
                    assert self._state.account is not None
                    self._volume.keep_login(self._state.account.id)
                case Action.SET_ASIDE:
                    self._restart_wanted = True
                    await self._browser.close(self._settings.shutdown_timeout)
                    log.info("login ended, profile moved aside", extra={"to": self._volume.set_aside().name})
                case Action.RESTART_BROWSER:
                    await self._pause()
                    self._restart_wanted = True
                case Action.FETCH_CODE:
                    await self._fetch_code()
                case Action.RENEW_CODE:
                    await self._renew_code()
                case Action.TAKE_OVER:
                    await self._browser.call("takeover")
        except BrowserError as error:
            log.warning("page did not do as asked", extra={"action": action.name, "error": str(error)})

    async def _recycle(self) -> None:
        if not await self._browser.recycle():
            log.warning("Chromium has not written the login; the page is changed again")
            self._change(states.not_durable(self._state))

    async def _fetch_code(self) -> None:
        if self._settings.pairing_method is PairingMethod.PAIRING_CODE:
            if self._offer is not None and not self._state.renewing:
                return
            answer = await self._browser.call("pairingCode", self._settings.phone_number)
        else:
            answer = await self._browser.call("qr")
        if answer is None:
            return
        try:
            offer = PairingOffer.model_validate(answer)
        except ValidationError:
            raise BrowserError("the page's code could not be understood") from None
        if self._offer is not None and offer.code == self._offer.code:
            return
        self._offer = offer
        self._change(states.code_offered(self._state, _now() + timedelta(milliseconds=offer.ttl_ms)))

    async def _renew_code(self) -> None:
        self._offer = None
        await self._browser.call("refreshQR")
        self._look.set()

    def _on_event(self, event: PageEvent) -> None:
        if self.feed.take(event):
            return
        match event.type:
            case "conn.logout_reason" | "page.post_logout":
                self._change(states.logout_signal(self._state, event.reason))
            case "conn.backend_event" if event.reason in LOGOUT_BACKEND_EVENTS:
                self._change(states.logout_signal(self._state, None))
            case "page.crash" | "browser.close" if not self._stopping.is_set() and not self._restart_wanted:
                what = "page" if event.type == "page.crash" else "browser"
                reason = Reason.PAGE_CRASHED if event.type == "page.crash" else Reason.BROWSER_CRASHED
                message = f"The {what} has crashed. The browser is restarted."
                self._change(states.browser_gone(self._state, reason, message, _now()))
                self._restart_wanted = self._crashed = True
        self._look.set()

    # --- small things -------------------------------------------------------------------------------------------------

    def _require_ready(self) -> None:
        if self._state.phase is not Phase.READY:
            raise NotReady(self._state.phase)

    async def _pause(self) -> None:
        """Waits before the next try: twice as long each time, with jitter; ends at once when told to stop."""
        delay = min(self._settings.reconnect_initial_delay * 2**self._failures, self._settings.reconnect_max_delay)
        self._failures += 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay * random.uniform(0.8, 1.2)):  # noqa: S311
                await self._stopping.wait()

    def _change(self, state: State) -> None:
        """Takes the new state, and tells who listens when others can see a difference."""
        before, self._state = self._state, state
        if state.phase is not before.phase or state.reason != before.reason:
            log.info("phase", extra={"phase": state.phase, "reason": state.reason})
        if self._report() != self.report:
            self._seq += 1
            self.report = self._report()
            self._changed.set()
            self._changed = asyncio.Event()
            self.feed.wake()

    def _report(self) -> Report:
        return states.report(
            self._state,
            client_id=self._settings.client_id,
            session_uid=self._settings.session_uid,
            started_at=self._started_at,
            seq=self._seq,
            last_shutdown=self._last_shutdown,
            method=self._settings.pairing_method,
            sandboxed=self._browser.sandboxed,
        )


def _now() -> datetime:
    return datetime.now(UTC)
