"""The session and its outbox: logins, interruptions, space on the volume, warnings, the end."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from unit.pod.page_events import message
from unit.pod.test_session import GOOD
from wasession_api.v1alpha1 import Account, Phase, Reason
from wasession_pod.browser.browser import Browser
from wasession_pod.messages.database import Database
from wasession_pod.messages.event_store import EventStore, Limits
from wasession_pod.session import Session
from wasession_pod.settings import Settings
from wasession_pod.state.observation import PageEvent, PageObservation
from wasession_pod.volume.volume import Volume

FREE = shutil.disk_usage


async def until(session: Session, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            changed = session.outbox.changed
            if not condition():
                await changed.wait()


@pytest.fixture
async def session(tmp_path: Path) -> Session:
    """A session on its opened volume, before a browser is started."""
    session = Session(Settings(client_id="sales", token="t", data_dir=tmp_path))
    await session._open_volume()
    await until(session, lambda: session.outbox.settled)
    return session


def events(directory: Path) -> list[str]:
    database = Database(directory / "messages.sqlite")
    read = EventStore(database, Limits(1e9, 2**30)).read(0, 100, 2**20, time.time())[1]
    database.close()
    return [event.kind for event in read]


async def test_nothing_is_stored_before_the_volume_is_open(tmp_path: Path) -> None:
    session = Session(Settings(client_id="sales", token="t", data_dir=tmp_path))
    session._handle_event(message())
    assert not (tmp_path / "messages.sqlite").exists()
    await session._open_volume()
    session.outbox.release()
    await until(session, lambda: session.outbox.settled)
    await session._shut_down()
    assert events(tmp_path) == ["message"]


async def test_a_volume_of_another_session_gets_no_outbox(tmp_path: Path) -> None:
    owner = Volume(tmp_path, "support", "uid-1")
    owner.open()
    owner.close()
    session = Session(Settings(client_id="sales", token="t", data_dir=tmp_path))
    await session._shut_down()
    assert not (tmp_path / "messages.sqlite").exists()


async def test_a_stop_stores_what_has_come_and_releases_the_file(
    session: Session, tmp_path: Path
) -> None:
    session._handle_event(message())
    await session._shut_down()
    assert events(tmp_path) == ["message"]


async def test_a_new_login_has_no_history(session: Session, tmp_path: Path) -> None:
    first = session.outbox.row
    assert first is not None
    await asyncio.to_thread(session._volume.record_login, "15551234567@c.us")
    login = session._volume.login
    assert login is not None
    await session._shut_down()
    again = Session(Settings(client_id="sales", token="t", data_dir=tmp_path))
    await again._open_volume()
    await until(again, lambda: again.outbox.settled)
    row = again.outbox.row
    assert row is not None
    assert (row.id, row.login) == (first.id, login.since.timestamp())
    assert row.floor == first.floor, "the first login of this outbox"
    state = replace(again._state, account=None)
    again._state = state
    await asyncio.to_thread(again._volume.quarantine)
    await asyncio.to_thread(again._volume.record_login, "15557654321@c.us")
    other = again._volume.login
    assert other is not None
    again.outbox.start_login(other.since.timestamp())
    await until(again, lambda: again.outbox.settled)
    assert again.outbox.row is not None
    assert again.outbox.row.floor == other.since.timestamp()
    await again._shut_down()


@pytest.mark.parametrize(
    "event", [PageEvent(type="page.load"), PageEvent(type="page.load", reason="reload")]
)
async def test_another_document_lets_events_wait(session: Session, event: PageEvent) -> None:
    outbox = session.outbox
    outbox.caught_up(outbox.interruptions, complete=True)
    before = outbox.interruptions
    session._handle_event(event)
    assert outbox.interruptions == before + 1
    assert outbox._held == []
    await session._shut_down()


async def test_a_session_that_is_ready_no_more_lets_events_wait(session: Session) -> None:
    session._set_state(replace(session._state, phase=Phase.READY))
    outbox = session.outbox
    outbox.caught_up(outbox.interruptions, complete=True)
    session._set_state(replace(session._state, phase=Phase.READY, message="still"))
    assert outbox._held is None
    session._set_state(replace(session._state, phase=Phase.RECONNECTING))
    assert outbox._held == []
    await session._shut_down()


class Space:
    """A volume with as much free space as a test likes, plus what the outbox has given back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
        self.free = free
        self.asked: list[int] = []

        def make_room(_: EventStore, size: int, now: float) -> int:
            assert threading.current_thread() is not threading.main_thread()
            assert now
            self.asked.append(size)
            self.free += size
            return 1

        monkeypatch.setattr(EventStore, "make_room", make_room)
        monkeypatch.setattr(Volume, "free_bytes", lambda _: self.free)


async def test_the_outbox_yields_before_the_browser_closes(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Browser, "running", True)
    minimum = session._settings.minimum_free_bytes
    space = Space(monkeypatch, minimum + 1)
    await session._check_volume()
    assert space.asked == []
    space.free = minimum - 1000
    await session._check_volume()
    assert space.asked == [1000]
    assert session._state.phase is not Phase.FAILED
    await session._shut_down()


async def test_the_outbox_yields_before_a_start_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Volume(tmp_path, "sales", None).open()
    (tmp_path / "messages.sqlite").touch()
    space = Space(monkeypatch, 1000)
    monkeypatch.setattr(Volume, "_has_space", lambda _, needed: space.free >= needed)
    session = Session(Settings(client_id="sales", token="t", data_dir=tmp_path))
    await asyncio.to_thread(session._volume.make_room)
    assert space.asked == [session._settings.minimum_free_bytes - 1000]


async def test_problems_of_the_outbox_are_warnings(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Browser, "running", True)
    session.outbox.problem = "database or disk is full"
    await session._check_volume()
    assert Reason.EVENTS_NOT_STORED in [warning.reason for warning in session.report.warnings]
    session.outbox.problem = None
    await session._check_volume()
    assert Reason.EVENTS_NOT_STORED not in [warning.reason for warning in session.report.warnings]
    await session._shut_down()


async def test_a_recorded_login_is_the_outboxs(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def observe() -> PageObservation:
        return GOOD

    monkeypatch.setattr(session._browser.page, "observe", observe)
    recorded: list[float] = []
    monkeypatch.setattr(session.outbox, "start_login", recorded.append)

    account = Account(id="15551234567@c.us")
    assert await session._record_login(replace(session._state, account=account))
    login = session._volume.login
    assert login is not None
    assert recorded == [login.since.timestamp()]
    await session._shut_down()
