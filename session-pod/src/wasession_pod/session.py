"""The session loop: observe the page, decide what follows, act on it, and publish the report."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from wasession_api import tracing
from wasession_api.session_pod.backup import BackupOrder, Restoration
from wasession_api.session_pod.link_code import LinkCode
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import AuthState, LastShutdown, PairingMethod, Phase, Reason

from wasession_pod import cgroup, metrics
from wasession_pod.backup import Backups, NoLogin
from wasession_pod.browser import launch_files, processes
from wasession_pod.browser.bridge import Bridge, IssuedCode
from wasession_pod.browser.browser import Browser
from wasession_pod.browser.errors import BrowserError, NotStartable, Unreachable
from wasession_pod.delivery.deliveries import Deliveries
from wasession_pod.messages.database import Database, DatabaseError
from wasession_pod.messages.outbox import Outbox
from wasession_pod.settings import Settings
from wasession_pod.start import begin_start
from wasession_pod.state import transitions
from wasession_pod.state.memory_pressure import Memory
from wasession_pod.state.model import Action, Policy, State, initial
from wasession_pod.state.observation import (
    PageEvent,
    PageObservation,
    PageUnavailable,
    PhoneActivity,
)
from wasession_pod.state.recovery import Backoff, Step
from wasession_pod.state.report import build_report
from wasession_pod.volume.snapshots import Part, SnapshotError
from wasession_pod.volume.volume import Repair, StorageError, Volume

log = logging.getLogger(__name__)
POLL_INTERVAL = 5.0  # seconds between two ticks when no event calls for one
# Seconds between observations of a Ready page that sends no events: it may hang.
READY_POLL_INTERVAL = 30.0
FAST_POLL_INTERVAL = 0.3  # seconds, while a healthy page becomes Ready without an event
# Seconds between measuring each process's memory, which takes about 50 ms.
MEASURE_INTERVAL = 30.0
LIVENESS_MARGIN = 60.0  # seconds that a tick may take beyond the timeouts of what it does
SUSPECT_AFTER = 2  # failed launches in a row, until the profile is suspect
# BackendEventBus's events at the end of a login, and the logout reason that each implies.
LOGOUT_EVENTS = {
    "starting_logout": transitions.LOGOUT,
    "logout": transitions.LOGOUT,
    "storage_initialization_error": "web_fail_storage_initialization",
}
# A stop takes at most this many seconds longer than the shutdown timeout; the operator's grace
# period is as long. Of these, the last are for the snapshot once the browser has closed.
STOP_GRACE, SNAPSHOT_TIME = 15.0, 5.0
# Reasons of a start, or of a requested restart, whose steps do not count as a recovery.
EXPECTED_START = {Reason.BROWSER_STARTING, Reason.LOGIN_RESTORING}


class NotReady(Exception):
    """The session is not Ready; ``phase`` tells what it is instead."""

    def __init__(self, phase: Phase) -> None:
        super().__init__(f"the session is {phase}, not Ready")
        self.phase = phase


class LiveViewOff(Exception):
    """Nobody may look at the page of this session."""

    def __init__(self) -> None:
        super().__init__(
            "nobody may look at the page of this session: spec.browser.liveView is off"
        )


class PagePrivate(Exception):
    """The page may show what is not for others; the message says what."""


class Stopping(Exception):
    """The session is shutting down, so that a logout could not be confirmed any more."""

    def __init__(self) -> None:
        super().__init__("the session is shutting down and does not start a logout")


class RecoveryExhausted(Exception):
    """No step inside this process brought the session back; the message has the last problem."""


class Session:
    """One login. ``run`` holds it until ``stop``; the other methods serve the HTTP API."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.database = Database(settings.data_dir / "messages.sqlite")
        self.outbox = Outbox(
            self.database,
            retention=settings.event_retention,
            maximum_bytes=settings.event_maximum_bytes,
        )
        self.deliveries = Deliveries(
            self.database, self.outbox, settings, lambda: self._set_state(self._state)
        )
        self._volume = Volume(
            settings.data_dir,
            settings.client_id,
            settings.session_uid,
            settings.minimum_free_bytes,
            settings.owner,
            settings.previous_owners,
            self._delete_old_events,
        )
        self._backups = Backups(self._volume, self.database, lambda: self._set_state(self._state))
        self._browser = Browser(settings, self._handle_event)
        self._policy = Policy(
            initialization_timeout=timedelta(seconds=settings.initialization_timeout),
            max_rounds=settings.max_rounds,
            method=settings.pairing_method,
            takeover=settings.takeover,
            backoff=Backoff(
                timedelta(seconds=settings.reconnect_initial_delay),
                timedelta(seconds=settings.reconnect_max_delay),
                random.uniform(0.8, 1.2),  # noqa: S311
            ),
            pinned=settings.document is not None,
        )
        self._state = initial(has_login=None, restoring=settings.restoring, now=_now())
        self._last_shutdown: LastShutdown | None = None
        self._volume_opened = False  # and its login read
        self._fulfilled_logout: str | None = None  # as on the volume
        self._restoration: Restoration | None = None  # as on the volume
        self._login_id: str | None = None  # of the login on the volume
        self._profile_lock = asyncio.Lock()  # held while a profile moves, which must finish
        self._snapshot_at: datetime | None = None  # of the last snapshot or attempt
        self._snapshot_task: asyncio.Task[None] | None = None  # reads the profile
        self._failed_launches = 0  # in a row
        self._phone_unrecorded = False  # its latest activity
        self._restart_requested = False
        self._pending_calls = 0  # calls of the HTTP API that the page has not answered yet
        self._uses = 0  # of the account, by the HTTP API, that have not ended yet
        self._used_at: datetime | None = None
        self._link_code: str | None = None
        self._wake = asyncio.Event()
        self._stop_requested_at: float | None = None  # monotonic
        self._logouts = 0  # that wait for WhatsApp
        self._stopping = asyncio.Event()
        self._ticked_at = time.monotonic()
        self._observed_at = self._measured_at = -math.inf
        self._process_memory: Counter[str] = Counter()  # bytes by kind of process
        self._oom_kills = cgroup.oom_kills()
        self._started_at = _now()
        self._phase_since = time.monotonic()
        self._start = begin_start(settings.traceparent)
        self._start.observe(self._state.phase, self._state.reason)
        self._seq = 0
        self._changed = asyncio.Event()  # set, and then replaced, at each change of the report
        self.report = self._build_report()

    # --- for the HTTP API -------------------------------------------------------------------------

    @property
    def link_code(self) -> LinkCode | None:
        """The code that links a phone now; None when there is none."""
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
        """Yield the report now and at each change; None after ``heartbeat`` seconds without one."""
        seq = -1
        while True:
            changed = self._changed
            if self.report.seq != seq:
                seq = self.report.seq
                yield self.report
                continue  # it may have changed while the reader was busy
            try:
                async with asyncio.timeout(heartbeat):
                    await changed.wait()
            except TimeoutError:
                yield None

    @contextlib.contextmanager
    def ready_page(self) -> Iterator[Bridge]:
        """Yield the bridge to the page of a Ready session. Raises ``NotReady``.

        The page is not replaced for lack of memory meanwhile.
        """
        self._require_ready()
        self._pending_calls += 1
        try:
            with self.in_use():
                yield self._browser.page.bridge
        finally:
            self._pending_calls -= 1

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Note that the account is used while the block runs: the session is not idle."""
        self._uses += 1
        self._note_use()
        try:
            yield
        finally:
            self._uses -= 1
            self._note_use()

    @property
    def holds_volume(self) -> bool:
        """Whether this process holds the volume; until then nothing on it may be opened."""
        return self._volume_opened

    async def renew_code(self) -> None:
        """Request a new link code, also after the last round. Raises ``BrowserError``."""
        self._set_state(transitions.code_requested(self._state))
        await self._renew_code()

    async def logout(self, request: str | None = None) -> None:
        """Ask WhatsApp to end the login and wait until it has.

        The volume records a ``request`` first, and as fulfilled once the login has ended. Raises
        ``NotReady``, ``Stopping``, ``BrowserError``, ``StorageError``, and ``TimeoutError``
        without a confirmation. The session does not stop meanwhile.
        """
        if self._stop_requested_at is not None:
            raise Stopping
        self._require_ready()
        self._logouts += 1
        try:
            await self._logout(request)
        finally:
            self._logouts -= 1
            if self._stop_requested_at is not None and not self._logouts:
                self._stop_now()

    async def _logout(self, request: str | None) -> None:
        if request is not None:
            await asyncio.to_thread(self._volume.record_logout, request, done=False)
        self._set_state(transitions.logout_requested(self._state, True))
        try:
            await self._browser.page.bridge.logout()
            async with asyncio.timeout(self._settings.logout_timeout):
                async for report in self.reports(self._settings.logout_timeout):
                    if report is not None and not report.session_valid:
                        break
            if request is not None:
                await self.note_logout(request)
        finally:
            self._set_state(transitions.logout_requested(self._state, False))

    async def note_logout(self, request: str) -> None:
        """Record that a logout is fulfilled. Raises ``NotReady`` and ``StorageError``."""
        if not self._volume_opened:
            raise NotReady(self._state.phase)
        await asyncio.to_thread(self._volume.record_logout, request, done=True)
        self._fulfilled_logout = request
        self._set_state(self._state)

    def back_up(self, order: BackupOrder) -> None:
        """Copy the login to the store, in the background.

        Raises ``NotReady`` before the volume is open, ``NoLogin``, and ``BackupRunning``.
        """
        if not self._volume_opened:
            raise NotReady(self._state.phase)
        if not self._state.session_valid:
            raise NoLogin
        self._backups.request(order)
        self._wake.set()

    def restart(self) -> None:
        """Restart the browser at the next tick."""
        self._set_state(transitions.restart_requested(self._state))
        self._restart_requested = True
        self._wake.set()

    async def screenshot(self) -> bytes:
        """Return the page as PNG. Raises ``LiveViewOff`` and ``BrowserError``."""
        self._require_live_view()
        return await self._browser.page.screenshot()

    async def screencast(self) -> AsyncGenerator[bytes]:
        """Yield the page as JPEG, for some minutes. Raises ``LiveViewOff`` and ``BrowserError``.

        It ends when the page closes, and when somebody else begins to look. Looking does not count
        as use: an idle session may still fall asleep.
        """
        self._require_live_view()
        log.info("screencast of the page begun")
        try:
            async with contextlib.aclosing(self._browser.page.screencast()) as pictures:
                async for picture in pictures:
                    yield picture
        finally:
            log.info("screencast of the page ended")

    def _require_live_view(self) -> None:
        if not self._settings.live_view:
            raise LiveViewOff

    async def outline(self) -> str:
        """Return what the page shows, as text. Raises ``PagePrivate`` and ``BrowserError``."""
        self._require_presentable()
        outline = await self._browser.page.outline(login=self._state.session_valid is not False)
        self._require_presentable()  # the page may have changed meanwhile
        return outline

    def _require_presentable(self) -> None:
        phase = self._state.phase
        if phase is Phase.READY:
            raise PagePrivate("the session is Ready: its page shows chats")
        by_phone = self._settings.pairing_method is PairingMethod.PAIRING_CODE
        if by_phone and (phase is Phase.AUTHENTICATING or self._link_code is not None):
            raise PagePrivate("the page may show the pairing code, which GET /v1/pairing has")

    def stop(self) -> None:
        """Let ``run`` shut the session down.

        A logout in progress may end first, as long as the browser has time to close afterwards.
        """
        if self._stop_requested_at is None:
            self._stop_requested_at = time.monotonic()
        if self._logouts:
            log.info("stopping once the logout in progress has ended")
            loop = asyncio.get_running_loop()
            loop.call_later(self._settings.shutdown_timeout, self._stop_now)
        else:
            self._stop_now()

    def _stop_now(self) -> None:
        self._stopping.set()
        self._wake.set()

    @property
    def alive(self) -> bool:
        """Whether the loop still ticks. False is a bug that only a new process recovers from."""
        settings = self._settings
        longest_tick = max(2 * settings.initialization_timeout, settings.shutdown_timeout)
        return time.monotonic() - self._ticked_at < longest_tick + LIVENESS_MARGIN

    # --- the loop ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Hold the session until ``stop``, then shut down. Raises ``RecoveryExhausted``."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            with tracing.working_for(self._start.span):
                await self._unless_stopped(stopping, self._execute(Step.START))
            while not stopping.done():
                await self._unless_stopped(stopping, self._tick())
        finally:
            stopping.cancel()
            self._start.end()
            await self._shut_down()

    async def _unless_stopped(
        self, stopping: asyncio.Future[Any], work: Coroutine[Any, Any, None]
    ) -> None:
        """Await ``work``, or cancel it when the session stops; never while a profile moves."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            async with self._profile_lock:
                task.cancel()
        finally:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _shut_down(self) -> None:
        """Close the browser, snapshot a login that was Ready, and release the volume."""
        ready, now = self._state.phase is Phase.READY, time.time()
        self._backups.stop()
        graceful = await self._browser.close(self._time_to_close())
        await self._await_snapshot()
        await self._backups.close()
        await self.deliveries.close()
        await self.outbox.stop(now)
        await asyncio.to_thread(self.database.close)
        if self._volume_opened:
            await self._record_phone()
        if graceful:
            if self._volume_opened:  # else it may be another session's
                await asyncio.to_thread(self._volume.record_graceful_close)
            if ready:
                await self._take_snapshot()
            self._volume.close()
        log.info("session stopped", extra={"graceful": graceful})

    def _time_to_close(self) -> float:
        """Return the seconds that the browser may take to close, within the grace period."""
        allowed = self._settings.shutdown_timeout
        if self._stop_requested_at is None:
            return allowed
        waited = time.monotonic() - self._stop_requested_at
        return min(allowed, max(allowed + STOP_GRACE - SNAPSHOT_TIME - waited, SNAPSHOT_TIME))

    async def _tick(self) -> None:
        """Observe the page, act on what follows, and wait until the next observation is due."""
        self._ticked_at = time.monotonic()
        woken = self._wake.is_set()
        self._wake.clear()
        if self._restart_requested:
            self._restart_requested = False
            # An observation that was under way may have made it stand down since.
            self._set_state(transitions.restart_requested(self._state))
            if self._volume_opened:
                with contextlib.suppress(StorageError):  # at worst, its next process stands down
                    await asyncio.to_thread(self._volume.clear_displacement)
            await self._execute(Step.RESTART)
        self._begin_backup()
        await self._check_volume()
        await self._check_launch_files()
        await self._record_phone()
        await self._measure_memory()
        observed = await self._observe() if woken or self._observation_due() else None
        before = self._state
        state, actions = before, list[Action | Step]()
        if observed is not None:
            state, actions = transitions.decide(before, observed, _now(), self._policy)
        if not actions:
            state, actions = transitions.relieve_memory(state, _now(), busy=self._pending_calls > 0)
        recording = Action.RECORD_LOGIN in actions
        if recording and not await self._record_login(state):
            state, actions = self._state, []  # which says when to try again
        elif recording and self._state is not before:
            return  # an event has changed the state meanwhile: decide again
        self._set_state(state)
        for action in actions:
            await self._execute(action)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._poll_delay()):
                await self._wake.wait()

    def _observation_due(self) -> bool:
        """Return whether to observe the page although it has sent no event."""
        if self._state.phase is not Phase.READY or self._state.outage is not None:
            return True
        return time.monotonic() - self._observed_at >= READY_POLL_INTERVAL

    async def _observe(self) -> PageObservation | PageUnavailable:
        self._observed_at = time.monotonic()
        if transitions.browser_due(self._state, _now()):
            return PageUnavailable.CLOSED
        return await self._browser.page.observe()

    def _poll_delay(self) -> float:
        """Return the seconds until the next tick when no event calls for one."""
        state = self._state
        if state.healthy_since is not None and state.phase is not Phase.READY:
            return FAST_POLL_INTERVAL
        if state.outage is None or state.outage.due is None:
            return POLL_INTERVAL
        return min(max((state.outage.due - _now()).total_seconds(), 0), POLL_INTERVAL)

    async def _execute(self, action: Action | Step) -> None:
        """Execute an action and turn its failure into a new state.

        Raises ``RecoveryExhausted`` for ``Step.EXIT``.
        """
        self._ticked_at = time.monotonic()
        if isinstance(action, Step) and self._state.reason not in EXPECTED_START:
            log.info(
                "recovery step started", extra={"step": action.name, "cause": self._state.reason}
            )
            metrics.RECOVERIES.labels(action.name.lower(), self._state.reason).inc()
        try:
            match action:
                case Step():
                    await self._take_step(action)
                case Action.RECYCLE_PAGE:
                    await self._recycle_page()
                case Action.CONFIRM_REPAIR:
                    await asyncio.to_thread(self._volume.clear_repair)
                case Action.QUARANTINE_PROFILE:
                    await self._quarantine_profile()
                    await self._start_browser()
                case Action.FALL_BACK:
                    async with self._profile_lock:
                        await self._close_browser()
                    await self._fall_back(self._state.message, set(Part))
                    await self._start_browser()
                case Action.FETCH_CODE:
                    await self._fetch_code()
                case Action.RENEW_CODE:
                    await self._renew_code()
                case Action.TAKE_OVER:
                    await self._browser.page.bridge.take_over()
                case Action.STAND_DOWN:
                    await self._stand_down()
        except StorageError as error:
            self._not_startable(error.reason, str(error))
        except NotStartable as error:
            self._not_startable(error.reason, str(error))
        except Unreachable as error:
            reason, message = error.reason, str(error)
            self._set_state(
                transitions.unreachable(self._state, reason, message, _now(), self._policy)
            )
        except BrowserError as error:
            log.warning(
                "action failed; retrying on the next tick",
                extra={"action": action.name, "error": str(error)},
            )
            self._action_failed(action, str(error))

    async def _take_step(self, step: Step) -> None:
        match step:
            case Step.START | Step.RESTART:
                await self._start_browser()
            case Step.OPEN:
                await self._browser.page.goto()
                self._set_state(transitions.page_opening(self._state, _now()))
            case Step.RELOAD:
                self._link_code = None
                await self._browser.page.reload()
                self._set_state(transitions.page_opening(self._state, _now()))
            case Step.EXIT:
                raise RecoveryExhausted(f"{self._state.reason}: {self._state.message}")

    def _action_failed(self, action: Action | Step, error: str) -> None:
        """Update the state after the browser failed to execute an action."""
        match action:
            case Action.FETCH_CODE:
                self._set_state(transitions.code_failed(self._state, error, _now(), self._policy))
                return
            case Step.RELOAD | Action.RECYCLE_PAGE:
                reason, message = Reason.BROWSER_HUNG, f"Chromium did not open a page: {error}"
            case Step() | Action.QUARANTINE_PROFILE | Action.FALL_BACK:
                reason, message = Reason.BROWSER_FAILED, f"Chromium did not start: {error}"
            case _:
                return
        self._set_state(
            transitions.failed(self._state, reason, message, Step.RESTART, _now(), self._policy)
        )
        if action is Action.RECYCLE_PAGE:
            self._set_state(transitions.login_not_written(self._state, _now(), self._policy))

    def _not_startable(self, reason: Reason, message: str) -> None:
        self._set_state(
            transitions.not_startable(self._state, reason, message, _now(), self._policy)
        )

    # --- the browser and its profile --------------------------------------------------------------

    async def _start_browser(self) -> None:
        """Start another browser and open WhatsApp Web; first open the volume if it is not yet.

        Raises ``StorageError`` and ``BrowserError``.
        """
        self._link_code = None
        hung = self._state.reason == Reason.BROWSER_HUNG
        await self._browser.close(
            self._settings.answer_timeout if hung else self._settings.shutdown_timeout
        )
        if not self._volume_opened:
            with tracing.child("open volume"):
                await self._open_volume()
        if self._state.stood_down:
            return
        await asyncio.to_thread(self._volume.make_room)
        warning = await asyncio.to_thread(self._volume.check_space)
        self._set_state(transitions.volume_checked(self._state, warning))
        await self._await_snapshot()
        damage, _ = await asyncio.gather(
            asyncio.to_thread(self._volume.find_damage), self._browser.prepare()
        )
        if damage:
            await self._fall_back("; ".join(damage.values()), damage)
        await asyncio.to_thread(self._volume.prepare_profile)
        try:
            with tracing.child("launch browser"):
                await self._browser.launch(self._settings.profile)
        except NotStartable:
            raise
        except BrowserError as error:
            self._failed_launches += 1
            if self._failed_launches == SUSPECT_AFTER:
                await self._replace_profile_if_at_fault(str(error))
            raise
        self._failed_launches = 0
        self._ticked_at = time.monotonic()
        with tracing.child("open page"):
            await self._browser.page.goto()
        self._set_state(transitions.page_opening(self._state, _now()))

    async def _open_volume(self) -> None:
        """Open the volume and start from the login that it holds. Raises ``StorageError``.

        A stop waits until the volume is open, so that it is released afterwards.
        """
        async with self._profile_lock:
            try:
                self._last_shutdown = await asyncio.to_thread(self._volume.open)
            except StorageError:
                # A volume that is full, read-only or in use may well hold the login.
                if await asyncio.to_thread(self._volume.peek_login) is not None:
                    self._set_state(transitions.login_present(self._state))
                raise
            content = await asyncio.to_thread(self._volume.read)
            restart = self._settings.restart
            is_displaced = await asyncio.to_thread(self._volume.is_displaced, restart)
            if not is_displaced:  # it would count again once the pod is told of no request
                await asyncio.to_thread(self._volume.clear_displacement)
            self._volume_opened = True
        login, snapshot = content.login, content.snapshot
        self.outbox.start(None if login is None else login.since.timestamp())
        self.deliveries.start()
        if snapshot is not None:
            self._snapshot_at = snapshot.taken_at
            metrics.SNAPSHOT.set(snapshot.taken_at.timestamp())
        self._fulfilled_logout, self._restoration = content.fulfilled_logout, content.restoration
        self._login_id = None if login is None else login.id
        self._set_state(
            initial(
                has_login=content.has_login,
                restoring=self._settings.restoring,
                now=_now(),
                account=None if login is None else login.account,
                phone_last_seen=None if login is None else login.phone_last_seen or login.since,
            )
        )
        self._profile_selected(content.repair, can_fall_back=content.can_fall_back)
        if is_displaced:
            self._set_state(transitions.stand_down(self._state))

    async def _record_login(self, state: State) -> bool:
        """Record a new login on the volume before publishing it as valid; return whether it was."""
        assert state.account is not None
        try:
            login = await asyncio.to_thread(
                self._volume.record_login, state.account.id, state.phone_last_seen
            )
        except StorageError as error:
            self._not_startable(error.reason, str(error))
            return False
        self._snapshot_at, self._login_id = None, login.id
        self.outbox.start_login(login.since.timestamp())
        return True

    async def _replace_profile_if_at_fault(self, error: str) -> None:
        """Replace the profile if Chromium starts on an empty one; keep its login if undamaged."""
        with tempfile.TemporaryDirectory(prefix="profile-", ignore_cleanup_errors=True) as empty:
            try:
                await self._browser.launch(Path(empty))
            except BrowserError:
                return
            await self._browser.close(self._settings.shutdown_timeout)
        intact = await asyncio.to_thread(self._volume.has_intact_login)
        await self._fall_back(
            f"Chromium does not start on it: {error}", () if intact else set(Part)
        )

    async def _close_browser(self) -> None:
        """Close the browser and wait for a snapshot in progress, so that the profile can move."""
        await self._browser.close(self._time_to_close())
        await self._await_snapshot()

    async def _stand_down(self) -> None:
        """Stop the browser, and note on the volume that no other one is to start by itself."""
        log.warning("another browser has the login; stopping this one until a restart is requested")
        async with self._profile_lock:
            try:
                await asyncio.to_thread(self._volume.record_displacement, self._settings.restart)
            except StorageError as error:
                log.warning(
                    "cannot note on the volume that another browser has the login; "
                    "the next process takes it over",
                    extra={"error": str(error)},
                )
            await self._close_browser()

    async def _quarantine_profile(self) -> None:
        """Quarantine the profile of an ended login, together with its snapshots."""
        async with self._profile_lock:
            await self._close_browser()
            path = await asyncio.to_thread(self._volume.quarantine)
            content = await asyncio.to_thread(self._volume.read)
            self._fulfilled_logout = content.fulfilled_logout
            self._restoration, self._login_id = content.restoration, None
        log.info("the login has ended; profile quarantined", extra={"quarantined_as": path.name})

    async def _fall_back(self, because: str, damaged: Collection[Part]) -> None:
        """Quarantine a damaged profile and replace it, unless every replacement has been tried."""
        async with self._profile_lock:
            repair = await asyncio.to_thread(self._volume.replace_profile, because, damaged)
            can_fall_back = (await asyncio.to_thread(self._volume.read)).can_fall_back
        if repair is not None:
            log.warning(
                "profile damaged; quarantined and replaced",
                extra={
                    "because": because,
                    "source": repair.source,
                    "quarantined_as": repair.quarantined_as,
                },
            )
        self._profile_selected(repair, can_fall_back=can_fall_back)

    def _profile_selected(self, repair: Repair | None, *, can_fall_back: bool) -> None:
        message = repair.message if repair else None
        self._set_state(
            transitions.profile_selected(self._state, message, can_fall_back=can_fall_back)
        )

    async def _recycle_page(self) -> None:
        """Replace the page, which makes Chromium write the login to disk."""
        metrics.RECYCLES.labels(self._state.reason).inc()
        if not await self._browser.page.recycle():
            log.warning("Chromium did not write the login to disk; a new login is written again")
            self._set_state(transitions.login_not_written(self._state, _now(), self._policy))

    # --- the volume and the memory ----------------------------------------------------------------

    async def _check_volume(self) -> None:
        """Close the browser before the volume is full, and take a snapshot when one is due.

        WhatsApp Web ends its login when it cannot store data.
        """
        if not self._browser.running:
            return
        try:
            free = await asyncio.to_thread(self._volume.free_bytes)
            if (lacking := self._settings.minimum_free_bytes - free) > 0:
                await self.outbox.make_room(lacking)
            warning = await asyncio.to_thread(self._volume.check_space, running=True)
            metrics.VOLUME_FREE.set(await asyncio.to_thread(self._volume.free_bytes))
        except StorageError as error:
            async with self._profile_lock:
                await self._browser.close(self._settings.shutdown_timeout)
            self._not_startable(error.reason, str(error))
            return
        self._set_state(transitions.volume_checked(self._state, warning))
        self._set_state(transitions.outbox_checked(self._state, self.outbox.warning))
        interval = timedelta(seconds=self._settings.snapshot_interval)
        due = self._snapshot_at is None or _now() - self._snapshot_at >= interval
        if due and not self._reads_profile and self._state.phase is Phase.READY:
            self._snapshot_at = _now()
            self._snapshot_task = asyncio.create_task(self._take_snapshot())

    def _begin_backup(self) -> None:
        """Make the archive that is due, if no snapshot is in progress."""
        if self._backups.due and not self._reads_profile:
            self._snapshot_at = _now()  # it comes with a snapshot
            self._snapshot_task = asyncio.create_task(self._backups.take())

    @property
    def _reads_profile(self) -> bool:
        """Whether a snapshot or an archive is in progress, so that the profile must not move."""
        return self._snapshot_task is not None and not self._snapshot_task.done()

    def _delete_old_events(self, size: int) -> None:
        """Delete events of about ``size`` bytes on a volume that no session runs on yet."""
        with contextlib.suppress(DatabaseError):
            if self.database.exists:
                self.outbox.store.make_room(size, time.time())

    async def _check_launch_files(self) -> None:
        """Warn when files have changed that the browser was started with.

        If no browser could be started with them, start one as soon as they have changed.
        """
        settings, started = self._settings, self._browser.files
        mounted = (
            settings.proxy_directory,
            settings.ca_bundle,
            settings.wa_js_sha256,
            settings.document,
        )
        if all(file is None for file in mounted):
            return
        current = await asyncio.to_thread(launch_files.read, settings)
        changes = launch_files.changes(started, current) if self._browser.running else ()
        self._set_state(transitions.launch_files_checked(self._state, changes))
        if self._state.reason in launch_files.REASONS and current != started:
            self._set_state(transitions.start_due(self._state, _now()))

    async def _take_snapshot(self) -> None:
        """Take a snapshot of the login and delete quarantined profiles past their retention."""
        try:
            manifest = await asyncio.to_thread(self._volume.take_snapshot)
            metrics.SNAPSHOT.set(manifest.taken_at.timestamp())
            retention = timedelta(seconds=self._settings.quarantine_retention)
            for name in await asyncio.to_thread(self._volume.purge_quarantine, retention):
                log.info("quarantined profile deleted after its retention", extra={"profile": name})
        except (SnapshotError, StorageError) as error:
            log.warning(
                "snapshot of the login failed; the previous one stays in place",
                extra={"error": str(error)},
            )

    async def _await_snapshot(self) -> None:
        """Wait for a snapshot or an archive in progress, which goes on if the caller does not."""
        if self._snapshot_task is not None:
            await asyncio.shield(self._snapshot_task)

    async def measure_processes(self) -> None:
        """Measure each process's memory, at most every ``MEASURE_INTERVAL`` seconds."""
        if time.monotonic() - self._measured_at >= MEASURE_INTERVAL:
            self._measured_at = time.monotonic()
            self._process_memory = await asyncio.to_thread(processes.memory)
            metrics.set_process_memory(self._process_memory)

    async def _measure_memory(self) -> None:
        """Measure the memory usage: the container's, unless the settings have a limit."""
        limit = self._settings.memory_limit_bytes
        if limit is None:
            memory = cgroup.read_memory()
        else:
            await self.measure_processes()
            memory = Memory(self._process_memory.total(), limit)
        metrics.set_memory(memory)
        self._set_state(transitions.memory_measured(self._state, memory))

    # --- link codes -------------------------------------------------------------------------------

    async def _fetch_code(self) -> None:
        """Fetch the page's link code. Raises ``BrowserError``."""
        pairing = self._state.phase is Phase.AUTHENTICATING
        bridge, phone_number = self._browser.page.bridge, self._settings.phone_number
        if self._settings.pairing_method is PairingMethod.PAIRING_CODE:
            if self._link_code is not None and pairing and not self._state.renewing_code:
                return  # each request issues another pairing code
            assert phone_number is not None  # the settings require it with this method
            issued: IssuedCode | None = await bridge.pairing_code(phone_number)
        else:
            issued = await bridge.qr()
        if issued is None:
            return
        if issued.code == self._link_code and self._state.phase is Phase.AUTHENTICATING:
            return
        self._link_code = issued.code
        expires_at = _now() + timedelta(milliseconds=issued.ttl_ms)
        self._set_state(transitions.code_issued(self._state, expires_at, self._policy))

    async def _renew_code(self) -> None:
        """Make the page issue a new link code. Raises ``BrowserError``."""
        self._link_code = None
        by_phone = self._settings.pairing_method is PairingMethod.PAIRING_CODE
        if not by_phone or self._state.auth_state is AuthState.UNPAIRED_IDLE:
            await self._browser.page.bridge.refresh_qr()
        self._wake.set()

    # --- events of the page and the browser -------------------------------------------------------

    def _handle_event(self, event: PageEvent) -> None:
        if self.outbox.receive(event):
            self._note_use()
            return
        match event.type:
            case "conn.logout_reason" | "page.post_logout":
                self._set_state(transitions.logout_signal(self._state, event.reason))
            case "conn.backend_event" if event.reason in LOGOUT_EVENTS:
                reason = LOGOUT_EVENTS[event.reason]
                self._set_state(transitions.logout_signal(self._state, reason))
            case "page.crash":
                message = "The page has crashed. Opening a fresh one."
                self._handle_crash(Reason.PAGE_CRASHED, message, Step.RELOAD)
            case "page.elsewhere":
                message = "The page has navigated away from WhatsApp Web. Opening a fresh one."
                self._handle_crash(Reason.PAGE_CRASHED, message, Step.RELOAD)
            case "browser.close" if not self._stopping.is_set():
                message = "The browser has crashed. Restarting it."
                self._handle_crash(Reason.BROWSER_CRASHED, message, Step.RESTART)
            case "page.load":
                metrics.PAGE_LOADS.inc()
                self.outbox.hold()
                if event.reason == "reload":
                    self._set_state(transitions.page_reloaded(self._state, _now()))
            case "bridge.error":
                metrics.BRIDGE_ERRORS.inc()
                log.warning("a listener in the page failed", extra={"listener": event.reason})
            case "phone.seen" if self._state.session_valid:
                self._phone_seen(event)
        self._wake.set()

    def _handle_crash(self, reason: Reason, message: str, step: Step) -> None:
        before, self._oom_kills = self._oom_kills, cgroup.oom_kills()
        if self._oom_kills > before:
            reason = Reason.OOM_KILLED
            message = f"The kernel's OOM killer has killed a process of the browser. {message}"
        self._set_state(
            transitions.failed(self._state, reason, message, step, _now(), self._policy)
        )

    def _phone_seen(self, event: PageEvent) -> None:
        try:
            at = PhoneActivity.model_validate(event.data).at
        except ValidationError:
            return
        before = self._state.phone_last_seen
        self._set_state(transitions.phone_seen(self._state, min(_now(), at)))
        if self._state.phone_last_seen != before:
            self._phone_unrecorded = True

    async def _record_phone(self) -> None:
        """Record the phone's last activity on the volume, if that has changed."""
        at = self._state.phone_last_seen
        if not self._phone_unrecorded or at is None:
            return
        self._phone_unrecorded = False
        try:
            await asyncio.to_thread(self._volume.record_phone_seen, at)
        except StorageError as error:
            log.warning(
                "cannot record the phone's activity on the volume; the next activity replaces it",
                extra={"error": str(error)},
            )

    # --- the state and its report -----------------------------------------------------------------

    def _require_ready(self) -> None:
        if self._state.phase is not Phase.READY:
            raise NotReady(self._state.phase)

    def _note_use(self) -> None:
        """Note that the account is used now; an idle session is not any more, at once."""
        self._used_at = _now()
        if self.report.idle_since is not None:
            self._set_state(self._state)

    @property
    def _is_in_use(self) -> bool:
        """Whether a send, a read or a transfer is under way, or an event still to be delivered."""
        return self._uses > 0 or not self.outbox.is_quiet or self.deliveries.is_pending

    def _set_state(self, state: State) -> None:
        """Adopt a state, and publish the report if it changes."""
        now = time.monotonic()
        metrics.PHASE_SECONDS.labels(self._state.phase).inc(now - self._phase_since)
        self._phase_since = now
        before, self._state = self._state, state
        if state.phase is not before.phase or state.reason != before.reason:
            log.info("phase changed", extra={"phase": state.phase, "reason": state.reason})
        self._start.observe(state.phase, state.reason)
        if before.phase is Phase.READY and state.phase is not Phase.READY:
            metrics.DISCONNECTS.labels(state.reason).inc()
            self.outbox.hold()
        if transitions.page_recovered(before, state):
            metrics.RECOVERIES.labels("page", before.reason).inc()
        if self._is_in_use:
            self._used_at = _now()
        if self._build_report() != self.report:
            self._seq += 1
            self.report = self._build_report()
            self._changed.set()
            self._changed = asyncio.Event()
            self.outbox.notify()

    def _build_report(self) -> Report:
        return build_report(
            self._state,
            client_id=self._settings.client_id,
            session_uid=self._settings.session_uid,
            started_at=self._started_at,
            seq=self._seq,
            now=_now(),
            last_shutdown=self._last_shutdown,
            method=self._settings.pairing_method,
            sandboxed=self._browser.sandboxed,
            wa_js=self._browser.wa_js,
            document_sha256=self._settings.document_sha256,
            fulfilled_logout=self._fulfilled_logout,
            delivery_revision=self.deliveries.revision,
            deliveries=self.deliveries.statuses,
            backup=self._backups.report,
            restoration=self._restoration,
            login_id=self._login_id,
            used_at=self._used_at,
        )


def _now() -> datetime:
    return datetime.now(UTC)
