"""What happens while the session loop waits, or fails under it, is neither lost nor fatal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from unit.pod import databases
from wasession_api.v1alpha1 import LastShutdown, PairingMethod, Phase, Reason
from wasession_pod.browser import processes
from wasession_pod.browser.browser import Browser
from wasession_pod.browser.errors import BrowserError
from wasession_pod.session import READY_POLL_INTERVAL, PagePrivate, Session, Stopping
from wasession_pod.settings import Settings
from wasession_pod.state.model import Action, State
from wasession_pod.state.observation import PageEvent, PageObservation
from wasession_pod.volume import snapshots
from wasession_pod.volume.volume import Login, StorageError, Volume

GOOD = PageObservation(
    injected=True,
    registered=True,
    socket_state="CONNECTED",
    mode="MAIN",
    info="NORMAL",
    me="15551234567@c.us",
)


@pytest.fixture
async def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session on an opened volume whose page is connected with a new login."""
    session = Session(Settings(client_id="sales", token="t", data_dir=tmp_path))

    async def observe() -> PageObservation:
        return GOOD

    monkeypatch.setattr(session._browser.page, "observe", observe)
    session._volume.open()
    session._volume_opened = True
    databases.login(session._volume.profile, 10)
    session._state = State(
        Phase.SYNCING,
        Reason.LOGIN_WRITING,
        session_valid=False,
        login_written=True,
        healthy_since=datetime.now(UTC) - timedelta(seconds=1),
    )
    return session


async def tick(session: Session) -> None:
    session._wake.set()
    ticking = asyncio.create_task(session._tick())
    while not ticking.done():
        session._wake.set()
        await asyncio.sleep(0.01)
    await ticking


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (PageEvent(type="page.crash"), Reason.PAGE_CRASHED),
        (PageEvent(type="browser.close"), Reason.BROWSER_CRASHED),
        (PageEvent(type="conn.logout_reason", reason="user_initiated"), Reason.LOGIN_WRITING),
    ],
)
async def test_an_event_while_the_login_is_recorded_counts(
    session: Session, monkeypatch: pytest.MonkeyPatch, event: PageEvent, reason: Reason
) -> None:
    loop, record = asyncio.get_running_loop(), session._volume.record_login

    def interrupted(*arguments: Any) -> Login:
        loop.call_soon_threadsafe(session._handle_event, event)
        handled = threading.Event()
        loop.call_soon_threadsafe(handled.set)
        assert handled.wait(10)
        return record(*arguments)

    monkeypatch.setattr(session._volume, "record_login", interrupted)
    await tick(session)
    assert session._state.reason == reason
    assert session._state.logout_reason == event.reason
    assert session._volume.login is not None


async def test_a_ready_page_is_observed_when_it_tells_something_or_may_hang(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tick(session)
    assert session._state.phase is Phase.READY
    monkeypatch.setattr(session, "_poll_delay", lambda: 0)
    observed: list[PageObservation] = []

    async def observe() -> PageObservation:
        observed.append(GOOD)
        return GOOD

    monkeypatch.setattr(session._browser.page, "observe", observe)
    session._wake.clear()
    await session._tick()
    assert not observed
    session._handle_event(PageEvent(type="conn.socket_state"))
    await session._tick()
    assert len(observed) == 1
    session._observed_at -= READY_POLL_INTERVAL
    await session._tick()
    assert len(observed) == 2
    session._state = replace(session._state, phase=Phase.SYNCING)
    await session._tick()
    assert len(observed) == 3


async def test_the_loop_never_waits_for_the_disk(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tick(session)
    assert session._state.phase is Phase.READY
    session._state = replace(session._state, phone_last_seen=None)
    synced: list[threading.Thread] = []
    fsync = os.fsync

    def recorded(file: int) -> None:
        synced.append(threading.current_thread())
        fsync(file)

    monkeypatch.setattr(os, "fsync", recorded)
    seen = datetime.now(UTC)
    session._handle_event(PageEvent(type="phone.seen", data={"at": seen.isoformat()}))
    await tick(session)
    await session.note_logout("request-1")
    login = session._volume.login
    assert login is not None
    assert login.phone_last_seen == seen
    assert synced
    assert threading.main_thread() not in synced


async def test_a_disk_that_fails_does_not_end_the_process(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tick(session)

    def broken(*_: Any) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(snapshots, "list_snapshots", broken)
    await session._take_snapshot()
    monkeypatch.setattr(shutil, "disk_usage", broken)
    monkeypatch.setattr(Browser, "running", True)
    await session._check_volume()
    assert session._state.phase is Phase.FAILED
    assert session._state.session_valid


def test_a_process_that_ends_while_it_is_measured_counts_nothing() -> None:
    class Sandboxed(psutil.Process):
        def memory_full_info(self) -> Any:
            raise psutil.AccessDenied(self.pid)

        def memory_info(self) -> Any:
            raise psutil.NoSuchProcess(self.pid)

    assert processes._pss(Sandboxed()) == 0


async def test_a_login_that_cannot_be_recorded_is_tried_again_later(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise StorageError(Reason.VOLUME_FULL, "the volume can't be used: Disk quota exceeded")

    monkeypatch.setattr(session._volume, "record_login", broken)
    ticking = asyncio.create_task(session._tick())
    async with asyncio.timeout(10):
        while session._state.phase is not Phase.FAILED:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert session._poll_delay() > 0.5
    done, _ = await asyncio.wait({ticking}, timeout=0.5)
    assert not done, "the tick waits until the next attempt is due"
    assert session._state.session_valid is False
    await tick(session)
    ticking.cancel()


async def test_a_page_that_does_not_let_its_login_be_written_is_tried_with_a_backoff(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused() -> bool:
        raise BrowserError("QuotaExceededError")

    monkeypatch.setattr(session._browser.page, "recycle", refused)
    for attempt in range(1, 4):
        await session._execute(Action.RECYCLE_PAGE)
        assert session._state.write_failures == attempt
        assert not session._state.login_written
    assert session._state.next_write_at is not None
    assert session._state.next_write_at > datetime.now(UTC)
    assert session._state.reason == Reason.LOGIN_NOT_WRITTEN


async def test_the_volume_of_another_session_is_left_alone_at_the_end(tmp_path: Path) -> None:
    owner = Volume(tmp_path, "support", "uid-1")
    owner.open()
    owner.close()
    before = (tmp_path / "run.json").read_bytes()
    session = Session(Settings(client_id="sales", token="t", data_dir=tmp_path))
    with pytest.raises(StorageError):
        await session._open_volume()
    await session._shut_down()
    assert (tmp_path / "run.json").read_bytes() == before
    Volume(tmp_path, "support", "uid-1").open()  # unlocked


@pytest.mark.parametrize(("record", "valid"), [(None, False), ("", None), ('{"account": 1}', None)])
async def test_only_a_volume_without_a_login_proves_that_there_is_none(
    tmp_path: Path, record: str | None, valid: bool | None
) -> None:
    volume = Volume(tmp_path, "sales", None)
    volume.open()
    volume.close()
    if record is not None:
        (tmp_path / "login.json").write_text(record)
    session = Session(Settings(client_id="sales", token="t", data_dir=tmp_path))
    await session._open_volume()
    assert session.report.session_valid is valid


async def test_the_loop_never_reads_the_volume_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: set[threading.Thread] = set()
    for name in ("_read", "check_space", "make_room", "free_bytes", "snapshot"):
        original = getattr(Volume, name)
        read = original.fget if isinstance(original, property) else original

        def recorded(*given: Any, read: Any = read, **options: Any) -> Any:
            readers.add(threading.current_thread())
            return read(*given, **options)

        replacement = property(recorded) if isinstance(original, property) else recorded
        monkeypatch.setattr(Volume, name, replacement)
    session = Session(Settings(client_id="sales", token="t", data_dir=tmp_path))

    async def nothing(*_: Any) -> None:
        return

    for name in ("prepare", "launch", "close"):
        monkeypatch.setattr(session._browser, name, nothing)
    monkeypatch.setattr(session._browser.page, "goto", nothing)
    await session._start_browser()
    await session._fall_back("a test says so", set())
    await session._quarantine_profile()
    assert readers
    assert threading.main_thread() not in readers


async def test_a_stop_while_the_volume_opens_releases_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, go_on = threading.Event(), threading.Event()
    opened = Volume.open

    def slow(volume: Volume) -> LastShutdown | None:
        opening.set()
        assert go_on.wait(10)
        return opened(volume)

    session = Session(Settings(client_id="sales", token="t", data_dir=tmp_path))
    monkeypatch.setattr(Volume, "open", slow)
    running = asyncio.create_task(session.run())
    await asyncio.to_thread(opening.wait, 10)
    session.stop()
    asyncio.get_running_loop().call_later(0.1, go_on.set)
    await running
    monkeypatch.undo()
    last_shutdown = Volume(tmp_path, "sales", None).open()  # unlocked
    assert last_shutdown is not None
    assert last_shutdown.graceful


@pytest.mark.parametrize("disk", ["well", "failing"])
async def test_who_is_displaced_closes_the_browser_whatever_the_disk_does(
    session: Session, monkeypatch: pytest.MonkeyPatch, disk: str
) -> None:
    closed = []

    async def close(timeout: float) -> bool:
        closed.append(session._volume.is_displaced(None))
        return True

    def fail(restart: str | None) -> None:
        raise StorageError(Reason.VOLUME_FULL, "it is full")

    async def observe() -> PageObservation:
        return GOOD.model_copy(update={"socket_state": "CONFLICT"})

    monkeypatch.setattr(session._browser, "close", close)
    monkeypatch.setattr(session._browser.page, "observe", observe)
    if disk == "failing":
        monkeypatch.setattr(session._volume, "record_displacement", fail)
    await tick(session)
    assert session.report.reason == Reason.LOGIN_IN_USE_ELSEWHERE
    assert closed == [disk == "well"], "noted before the browser is closed"
    await tick(session)
    assert len(closed) == 1


async def test_a_restart_counts_although_an_observation_was_under_way(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = stub_browser(session, monkeypatch)

    async def observe() -> PageObservation:
        if not launched:
            session.restart()
            return GOOD.model_copy(update={"socket_state": "CONFLICT"})
        return GOOD

    monkeypatch.setattr(session._browser.page, "observe", observe)
    await tick(session)
    assert not launched
    await tick(session)
    assert launched
    assert session.report.reason != Reason.LOGIN_IN_USE_ELSEWHERE


@pytest.mark.parametrize("later", [None, "second"])
async def test_a_person_ends_a_displacement_once_and_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: str | None
) -> None:
    """The annotation with the request may be removed, as when a manifest is replaced."""
    volume = Volume(tmp_path, "sales", None)
    volume.open()
    volume.record_displacement("first")
    volume.close()
    for restart, starts in (("first", False), ("second", True), (later, True)):
        settings = Settings(client_id="sales", token="t", data_dir=tmp_path, restart=restart)
        session = Session(settings)
        launched = stub_browser(session, monkeypatch)
        await session._start_browser()
        assert bool(launched) is starts, restart
        session._volume.close()


def stub_browser(session: Session, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replace the browser by nothing; return the profiles that it is launched with."""
    launched: list[Path] = []

    async def nothing(*_: Any) -> None:
        return

    async def launch(profile: Path) -> None:
        launched.append(profile)

    for name in ("prepare", "close"):
        monkeypatch.setattr(session._browser, name, nothing)
    monkeypatch.setattr(session._browser.page, "goto", nothing)
    monkeypatch.setattr(session._browser, "launch", launch)
    return launched


async def test_a_logout_is_refused_once_the_session_stops(session: Session) -> None:
    await tick(session)
    session.stop()
    with pytest.raises(Stopping, match="shutting down"):
        await session.logout()


async def test_a_browser_has_less_time_to_close_after_a_logout(session: Session) -> None:
    assert session._time_to_close() == 30
    session.stop()
    assert session._time_to_close() == 30
    assert session._stop_requested_at is not None
    session._stop_requested_at -= 30
    assert session._time_to_close() == pytest.approx(10, abs=1)


@pytest.mark.parametrize(
    ("after", "private"),
    [(Phase.STARTING, False), (Phase.AUTHENTICATING, True), (Phase.READY, True)],
)
async def test_what_the_page_shows_may_be_private_by_the_time_that_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: Phase, private: bool
) -> None:
    session = Session(
        Settings(
            client_id="sales",
            token="t",
            data_dir=tmp_path,
            pairing_method=PairingMethod.PAIRING_CODE,
            phone_number="15551234567",
        )
    )

    async def outline(*, login: bool) -> str:
        assert login, "the volume has not been read: it may hold one"
        session._state = replace(session._state, phase=after)
        return "- text: something"

    monkeypatch.setattr(session._browser.page, "outline", outline)
    with pytest.raises(PagePrivate) if private else contextlib.nullcontext():
        assert await session.outline() == "- text: something"
