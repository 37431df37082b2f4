"""The session loop: looks at the page, asks ``state`` what that means, does what follows, and tells who listens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from wasession_api.session_pod.link_code import LinkCode
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import AuthState, LastShutdown, PairingMethod, Phase, Reason

from wasession_pod import metrics
from wasession_pod.browser import processes
from wasession_pod.browser.browser import Browser, BrowserError, Unreachable
from wasession_pod.events import EventBuffer
from wasession_pod.settings import Settings
from wasession_pod.state import memory_pressure as memory
from wasession_pod.state import transitions as states
from wasession_pod.state.observation import PageEvent, PageLinkCode, PageUnavailable, PhoneActivity
from wasession_pod.state.recovery import Backoff, Step
from wasession_pod.state.transitions import Action, Policy, State
from wasession_pod.volume.snapshots import Part, SnapshotError
from wasession_pod.volume.volume import Repair, StorageError, Volume

log = logging.getLogger(__name__)
LOOK_EVERY = 5.0  # seconds between looks at the page when no event calls for one
LOOK_SOON = 0.3  # while something is expected to change without an event
# BackendEventBus's events that come with the end of a login, and the reason that each of them
# gives.
LOGOUT_EVENTS = {
    "starting_logout": states.LOGOUT,
    "logout": states.LOGOUT,
    "storage_initialization_error": "web_fail_storage_initialization",
}
MEASURE_EVERY = 30.0  # seconds between looks at the memory of each process, which take some 50 ms
NO_TROUBLE = {
    Reason.BROWSER_STARTING,
    Reason.LOGIN_RESTORING,
}  # a start, or a restart that somebody asked for
LAUNCHES = 2  # so many failed ones in a row make the profile suspect
LIVE_MARGIN = 60.0  # seconds that a turn of the loop may take beyond the limits of what it does


class NotReady(Exception):
    """The session is not Ready; ``phase`` says where it is."""

    def __init__(self, phase: Phase) -> None:
        super().__init__(f"the session is {phase}, not Ready")
        self.phase = phase


class GaveUp(Exception):
    """Nothing that can be done inside this process brings the session back; the message says what was wrong."""


class Session:
    """One login. ``run`` holds it until ``stop`` is called; the other methods serve the HTTP API."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._volume = Volume(
            settings.data_dir, settings.client_id, settings.session_uid, settings.minimum_free_bytes
        )
        self._browser = Browser(settings, self._on_event)
        self._policy = Policy(
            initialization=timedelta(seconds=settings.initialization_timeout),
            max_rounds=settings.max_rounds,
            method=settings.pairing_method,
            takeover=settings.takeover,
            backoff=Backoff(
                timedelta(seconds=settings.reconnect_initial_delay),
                timedelta(seconds=settings.reconnect_max_delay),
                random.uniform(0.8, 1.2),  # noqa: S311
            ),
        )
        self._state = states.initial(has_login=False, restoring=settings.restoring, now=_now())
        self._last_shutdown: LastShutdown | None = None
        self._snapshot_at: datetime | None = None  # the last one, or the last try
        self._snapshotting: asyncio.Task[None] | None = None
        self._failed_launches = 0  # in a row
        self._started_at = _now()
        self._seq = 0
        self._changed = asyncio.Event()  # another one after each change
        self._look = asyncio.Event()
        self._stopping = asyncio.Event()
        self._restart_wanted = False
        self._undisturbed = asyncio.Lock()  # held while a profile is moved
        self._opened = False  # the volume
        self._turned_at = time.monotonic()
        self._measured_at = -math.inf
        self._used: Counter[str] = Counter()  # bytes, by kind of process
        self._phase_since = time.monotonic()
        self._oom_kills = memory.kills()
        self._calls = 0  # of the HTTP API, that the page has not answered yet
        self._link_code: str | None = None
        self.events = EventBuffer(self._started_at)
        self.report = self._report()

    # --- for the HTTP API -------------------------------------------------------------------------

    @property
    def link_code(self) -> LinkCode | None:
        """The code that a phone can use now; None when there is none."""
        state = self._state
        if (
            self._link_code is None
            or state.phase is not Phase.AUTHENTICATING
            or state.code_expires_at is None
        ):
            return None
        return LinkCode(
            code=self._link_code,
            method=self._settings.pairing_method,
            attempt=state.round,
            expires_at=state.code_expires_at,
        )

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

    async def call(
        self,
        function: str,
        *arguments: object,
        file: Path | None = None,
        timeout: float | None = 30,
    ) -> Any:
        """Calls one of the bridge's functions on a Ready session; raises ``NotReady`` or ``BrowserError``.

        With a ``file`` there is no timeout (see ``Browser.call_with_file``).
        """
        self._require_ready()
        self._calls += 1
        try:
            if file is not None:
                return await self._browser.call_with_file(function, file, *arguments)
            return await self._browser.call(function, *arguments, timeout=timeout)
        finally:
            self._calls -= 1

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
        self._change(states.logout_requested(self._state, True))
        try:
            await self._browser.call("logout")
            async with asyncio.timeout(self._settings.logout_timeout):
                async for report in self.reports(self._settings.logout_timeout):
                    if report is not None and not report.session_valid:
                        return
        finally:
            self._change(states.logout_requested(self._state, False))

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

    @property
    def alive(self) -> bool:
        """Whether the loop still turns. False is a fault of this program, which only a new process can mend."""
        settings = self._settings
        longest = max(2 * settings.initialization_timeout, settings.shutdown_timeout) + LIVE_MARGIN
        return time.monotonic() - self._turned_at < longest

    # --- the loop ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Holds the session until ``stop``; then closes the browser gracefully. Raises ``GaveUp``."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await self._until(stopping, self._do(Step.START))
            while not stopping.done():
                await self._until(stopping, self._turn())
        finally:
            stopping.cancel()
            good = self._state.phase is Phase.READY
            closed = await self._browser.close(self._settings.shutdown_timeout)
            await self._browser.quit()
            await self._settle_snapshot()
            if closed and self._volume.opened:
                self._volume.closed_gracefully()
                if good:
                    await self._take_snapshot()
                self._volume.close()
            log.info("stopped", extra={"graceful": closed})

    async def _until(self, stopping: asyncio.Future[Any], work: Coroutine[Any, Any, None]) -> None:
        """Does some work, which ends early when the session is to stop."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            async with self._undisturbed:
                task.cancel()
        finally:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _turn(self) -> None:
        """Looks at the page, does what follows, and waits until there is something to look at again."""
        self._turned_at = time.monotonic()
        self._look.clear()
        if self._restart_wanted:
            self._restart_wanted = False
            await self._do(Step.RESTART)
        await self._watch_volume()
        await self._watch_memory()
        seen = (
            PageUnavailable.CLOSED
            if states.browser_due(self._state, _now())
            else await self._browser.snapshot()
        )
        state, actions = states.step(self._state, seen, _now(), self._policy)
        if not actions:
            state, actions = states.relieve(state, _now(), busy=self._calls > 0)
        if Action.KEEP_LOGIN in actions and not await self._keep_login(state):
            return
        self._change(state)
        for action in actions:
            await self._do(action)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pause()):
                await self._look.wait()

    def _pause(self) -> float:
        """Seconds until the next look, when no event calls for one."""
        state = self._state
        if state.good_since is not None and state.phase is not Phase.READY:
            return LOOK_SOON
        if state.outage is None or state.outage.due is None:
            return LOOK_EVERY
        return min(max((state.outage.due - _now()).total_seconds(), 0), LOOK_EVERY)

    async def _do(self, action: Action | Step) -> None:
        self._turned_at = time.monotonic()
        if isinstance(action, Step) and self._state.reason not in NO_TROUBLE:
            log.info("recovery", extra={"step": action.name, "cause": self._state.reason})
            metrics.RECOVERIES.labels(action.name.lower(), self._state.reason).inc()
        try:
            match action:
                case Step.START | Step.RESTART:
                    await self._start_browser()
                case Step.OPEN:
                    await self._browser.goto()
                    self._change(states.page_opening(self._state, _now()))
                case Step.RELOAD:
                    self._link_code = None
                    await self._browser.reload()
                    self._change(states.page_opening(self._state, _now()))
                case Step.EXIT:
                    raise GaveUp(f"{self._state.reason}: {self._state.message}")
                case Action.RECYCLE:
                    await self._recycle()
                case Action.END_TRIAL:
                    self._volume.clear_repair()
                case Action.SET_ASIDE | Action.FALL_BACK:
                    await self._replace_profile(action)
                    await self._start_browser()
                case Action.FETCH_CODE:
                    await self._fetch_code()
                case Action.RENEW_CODE:
                    await self._renew_code()
                case Action.TAKE_OVER:
                    await self._browser.call("takeover")
        except StorageError as error:
            self._change(
                states.volume_unusable(self._state, error.reason, str(error), _now(), self._policy)
            )
        except Unreachable as error:
            self._change(
                states.unreachable(self._state, error.reason, str(error), _now(), self._policy)
            )
        except BrowserError as error:
            log.warning("not done", extra={"action": action.name, "error": str(error)})
            self._not_done(action, str(error))

    def _not_done(self, action: Action | Step, error: str) -> None:
        """What a failed action means."""
        match action:
            case Step.START | Step.RESTART | Step.OPEN | Action.SET_ASIDE | Action.FALL_BACK:
                reason, message, needed = (
                    Reason.BROWSER_FAILED,
                    f"Chromium did not start: {error}",
                    Step.RESTART,
                )
            case Step.RELOAD | Action.RECYCLE:
                reason, message, needed = (
                    Reason.BROWSER_HUNG,
                    f"Chromium did not open a page: {error}",
                    Step.RESTART,
                )
            case Action.FETCH_CODE:
                self._change(states.code_refused(self._state, error, _now(), self._policy))
                return
            case _:
                return
        self._change(states.failed(self._state, reason, message, needed, _now(), self._policy))

    async def _start_browser(self) -> None:
        """Another browser, with WhatsApp Web in it; takes the volume first when that has not worked before."""
        self._link_code = None
        hangs = self._state.reason == Reason.BROWSER_HUNG
        await self._browser.close(
            self._settings.answer_timeout if hangs else self._settings.shutdown_timeout
        )
        if not self._opened:
            self._last_shutdown = self._volume.open()
            login, snapshot = self._volume.login, self._volume.snapshot
            if snapshot is not None:
                self._snapshot_at = snapshot.taken_at
                metrics.SNAPSHOT.set(snapshot.taken_at.timestamp())
            self._opened = True
            self._change(
                states.initial(
                    has_login=login is not None,
                    restoring=self._settings.restoring,
                    now=_now(),
                    phone_last_seen=None if login is None else login.phone_last_seen or login.since,
                )
            )
            self._know_profile(self._volume.repair)
        self._change(states.volume_watched(self._state, self._volume.check_space()))
        await self._settle_snapshot()
        damage, _ = await asyncio.gather(
            asyncio.to_thread(self._volume.find_damage), self._browser.prepare()
        )
        if damage:
            await self._fall_back("; ".join(damage.values()), damage)
        await asyncio.to_thread(self._volume.prepare_profile)
        try:
            await self._browser.launch(self._settings.profile)
        except BrowserError as error:
            self._failed_launches += 1
            if self._failed_launches == LAUNCHES:
                await self._blame_profile(str(error))
            raise
        self._failed_launches = 0
        self._turned_at = time.monotonic()
        await self._browser.goto()
        self._change(states.page_opening(self._state, _now()))

    async def _keep_login(self, state: State) -> bool:
        """Notes a new login on the volume, before anybody is told that it is valid; False when that was not possible."""
        assert state.account is not None
        try:
            await asyncio.to_thread(
                self._volume.record_login, state.account.id, state.phone_last_seen
            )
        except StorageError as error:
            self._change(
                states.volume_unusable(self._state, error.reason, str(error), _now(), self._policy)
            )
            return False
        self._snapshot_at = None
        return True

    async def _blame_profile(self, error: str) -> None:
        """Chromium does not start: when it does on an empty profile, ours is to blame, and its login moves to a new one."""
        with tempfile.TemporaryDirectory(prefix="profile-") as empty:
            try:
                await self._browser.launch(Path(empty))
            except BrowserError:
                return
            await self._browser.close(self._settings.shutdown_timeout)
        whole = self._volume.login is not None and not await asyncio.to_thread(self._volume.find_damage)
        await self._fall_back(f"Chromium does not start on it: {error}", () if whole else set(Part))

    async def _replace_profile(self, action: Action) -> None:
        """Moves the profile aside: of an ended login with all that belongs to it, else for the last good one."""
        async with self._undisturbed:
            await self._browser.close(self._settings.shutdown_timeout)
            await self._settle_snapshot()
            if action is Action.SET_ASIDE:
                log.info(
                    "login ended, profile moved aside", extra={"to": self._volume.quarantine().name}
                )
                return
        await self._fall_back(self._state.message, set(Part))

    async def _fall_back(self, because: str, damaged: Collection[Part]) -> None:
        """Puts another profile in the damaged one's place, where there is one that was not tried yet."""
        async with self._undisturbed:
            repair = await asyncio.to_thread(self._volume.replace_profile, because, damaged)
        if repair is not None:
            log.warning(
                "profile replaced",
                extra={"because": because, "source": repair.source, "quarantined_as": repair.quarantined_as},
            )
        self._know_profile(repair)

    def _know_profile(self, repair: Repair | None) -> None:
        words = repair.message if repair else None
        self._change(
            states.profile_known(self._state, words, can_fall_back=self._volume.can_fall_back)
        )

    async def _watch_volume(self) -> None:
        """Closes a browser that will soon be unable to store: WhatsApp Web ends its login then. Takes snapshots when due."""
        if not self._browser.running:
            return
        try:
            notice = await asyncio.to_thread(self._volume.check_space, running=True)
        except StorageError as error:
            async with self._undisturbed:
                await self._browser.close(self._settings.shutdown_timeout)
            self._change(
                states.volume_unusable(self._state, error.reason, str(error), _now(), self._policy)
            )
            return
        self._change(states.volume_watched(self._state, notice))
        metrics.VOLUME_FREE.set(self._volume.free_bytes)
        interval = timedelta(seconds=self._settings.snapshot_interval)
        due = self._snapshot_at is None or _now() - self._snapshot_at >= interval
        if (
            due
            and self._state.phase is Phase.READY
            and (self._snapshotting is None or self._snapshotting.done())
        ):
            self._snapshot_at = _now()
            self._snapshotting = asyncio.create_task(self._take_snapshot())

    async def _take_snapshot(self) -> None:
        try:
            manifest = await asyncio.to_thread(self._volume.take_snapshot)
            metrics.SNAPSHOT.set(manifest.taken_at.timestamp())
            keep = timedelta(seconds=self._settings.aside_keep)
            for name in await asyncio.to_thread(self._volume.purge_quarantine, keep):
                log.info("removed what was moved aside long ago", extra={"profile": name})
        except (SnapshotError, StorageError) as error:
            log.warning("no snapshot", extra={"error": str(error)})

    async def _settle_snapshot(self) -> None:
        """Waits for the end of a snapshot that is under way."""
        if self._snapshotting is not None:
            await self._snapshotting

    async def _watch_memory(self) -> None:
        """Notes what is used of the memory that may be, and now and then what each process uses."""
        if time.monotonic() - self._measured_at >= MEASURE_EVERY:
            self._measured_at = time.monotonic()
            self._used = await asyncio.to_thread(processes.memory)
        allowed = self._settings.memory_limit_bytes
        found = (
            memory.of_container() if allowed is None else memory.Memory(self._used.total(), allowed)
        )
        metrics.show_memory(self._used, found)
        self._change(states.memory_seen(self._state, found))

    async def _recycle(self) -> None:
        metrics.RECYCLES.labels(self._state.reason).inc()
        if not await self._browser.recycle():
            log.warning("Chromium has not written the login; the page is changed again")
            self._change(states.not_durable(self._state))

    async def _fetch_code(self) -> None:
        if self._settings.pairing_method is PairingMethod.PAIRING_CODE:
            if (
                self._link_code is not None
                and not self._state.renewing
                and self._state.phase is Phase.AUTHENTICATING
            ):
                return
            answer = await self._browser.call("pairingCode", self._settings.phone_number)
        else:
            answer = await self._browser.call("qr")
        if answer is None:
            return
        try:
            issued = PageLinkCode.model_validate(answer)
        except ValidationError:
            raise BrowserError("the page's code could not be understood") from None
        if issued.code == self._link_code and self._state.phase is Phase.AUTHENTICATING:
            return
        self._link_code = issued.code
        self._change(
            states.code_offered(
                self._state, _now() + timedelta(milliseconds=issued.ttl_ms), self._policy
            )
        )

    async def _renew_code(self) -> None:
        self._link_code = None
        by_phone = self._settings.pairing_method is PairingMethod.PAIRING_CODE
        if not by_phone or self._state.auth_state is AuthState.UNPAIRED_IDLE:
            await self._browser.call("refreshQR")
        self._look.set()

    def _on_event(self, event: PageEvent) -> None:
        if self.events.record(event):
            return
        match event.type:
            case "conn.logout_reason" | "page.post_logout":
                self._change(states.logout_signal(self._state, event.reason))
            case "conn.backend_event" if event.reason in LOGOUT_EVENTS:
                self._change(states.logout_signal(self._state, LOGOUT_EVENTS[event.reason]))
            case "page.crash":
                self._crashed(
                    Reason.PAGE_CRASHED, "The page has crashed. It is opened anew.", Step.RELOAD
                )
            case "page.elsewhere":
                self._crashed(
                    Reason.PAGE_CRASHED,
                    "The page has left WhatsApp Web. It is opened anew.",
                    Step.RELOAD,
                )
            case "browser.close" if not self._stopping.is_set():
                self._crashed(
                    Reason.BROWSER_CRASHED,
                    "The browser has crashed. It is started again.",
                    Step.RESTART,
                )
            case "phone.seen" if self._state.session_valid:
                with contextlib.suppress(ValidationError):
                    at = PhoneActivity.model_validate(event.data).at
                    before = self._state.phone_last_seen
                    self._change(states.phone_seen(self._state, min(_now(), at)))
                    if self._state.phone_last_seen != before:
                        self._keep_phone_seen()
        self._look.set()

    def _crashed(self, reason: Reason, message: str, step: Step) -> None:
        before, self._oom_kills = self._oom_kills, memory.kills()
        if self._oom_kills > before:
            reason = Reason.OOM_KILLED
            message = (
                f"For lack of memory the kernel has killed a process of the browser. {message}"
            )
        self._change(states.failed(self._state, reason, message, step, _now(), self._policy))

    def _keep_phone_seen(self) -> None:
        try:
            if self._state.phone_last_seen is not None:
                self._volume.record_phone_seen(self._state.phone_last_seen)
        except StorageError as error:  # the next sign of life comes within the hour
            log.warning("sign of life not kept", extra={"error": str(error)})

    # --- small things -----------------------------------------------------------------------------

    def _require_ready(self) -> None:
        if self._state.phase is not Phase.READY:
            raise NotReady(self._state.phase)

    def _change(self, state: State) -> None:
        """Takes the new state, and tells who listens when others can see a difference."""
        now = time.monotonic()
        metrics.PHASE_SECONDS.labels(self._state.phase).inc(now - self._phase_since)
        self._phase_since = now
        before, self._state = self._state, state
        if state.phase is not before.phase or state.reason != before.reason:
            log.info("phase", extra={"phase": state.phase, "reason": state.reason})
        if before.phase is Phase.READY and state.phase is not Phase.READY:
            metrics.DISCONNECTS.labels(state.reason).inc()
        if states.mended_itself(before, state):
            metrics.RECOVERIES.labels("page", before.reason).inc()
        if self._report() != self.report:
            self._seq += 1
            self.report = self._report()
            self._changed.set()
            self._changed = asyncio.Event()
            self.events.notify()

    def _report(self) -> Report:
        return states.report(
            self._state,
            client_id=self._settings.client_id,
            session_uid=self._settings.session_uid,
            started_at=self._started_at,
            seq=self._seq,
            now=_now(),
            last_shutdown=self._last_shutdown,
            method=self._settings.pairing_method,
            sandboxed=self._browser.sandboxed,
        )


def _now() -> datetime:
    return datetime.now(UTC)
