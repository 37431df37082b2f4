"""Since when a session is idle: by this the operator decides that it falls asleep."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData
from aiohttp.test_utils import TestClient, TestServer
from unit.pod.fake_page import FakePage
from unit.pod.page_events import message
from unit.pod.test_session_outbox import until
from wasession_api.v1alpha1 import DeliveryState, DeliveryStatus, Phase, Reason
from wasession_pod import session as session_module
from wasession_pod.api.app import application
from wasession_pod.api.uploads import Uploads
from wasession_pod.delivery.delivery import Delivery
from wasession_pod.messages.idempotency_store import IdempotencyStore
from wasession_pod.messages.outgoing import OutgoingMessage
from wasession_pod.messages.sending import MessageSender
from wasession_pod.session import Session
from wasession_pod.settings import Settings
from wasession_pod.state.observation import PageEvent

READY_AT = datetime(2026, 10, 1, 10, tzinfo=UTC)
BEARER = {"Authorization": "Bearer t"}


class Clock:
    """The session's time, which a test moves."""

    def __init__(self) -> None:
        self.now = READY_AT

    def pass_(self, **time: float) -> datetime:
        self.now += timedelta(**time)
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(session_module, "_now", lambda: clock.now)
    return clock


@pytest.fixture
async def session(tmp_path: Path, clock: Clock) -> AsyncIterator[Session]:
    """A session that is Ready, has caught up with its page, and has nothing to deliver."""
    session = Session(Settings(client_id="sales", token="t", data_dir=tmp_path))
    await session._open_volume()
    await until(session, lambda: session.outbox.settled and session.deliveries.revision is not None)
    session.outbox.release()
    become_ready(session, clock)
    yield session
    await session._shut_down()


def become_ready(session: Session, clock: Clock) -> None:
    ready = replace(
        session._state, phase=Phase.READY, reason=Reason.CONNECTED, ready_since=clock.now
    )
    session._set_state(ready)


def look(session: Session) -> datetime | None:
    """Return since when the session reports to be idle, as after a tick of its loop."""
    session._set_state(session._state)
    return session.report.idle_since


async def test_a_session_that_nobody_uses_is_idle_since_it_is_ready(
    session: Session, clock: Clock
) -> None:
    clock.pass_(seconds=59)
    assert look(session) is None
    clock.pass_(seconds=1)
    assert look(session) == READY_AT
    seq = session.report.seq
    for _ in range(100):
        clock.pass_(minutes=5)
        assert look(session) == READY_AT
    assert session.report.seq == seq


async def test_a_burst_of_messages_changes_the_report_twice(session: Session, clock: Clock) -> None:
    clock.pass_(minutes=10)
    assert look(session) == READY_AT
    seq = session.report.seq
    for _ in range(50):
        clock.pass_(seconds=20)
        session._handle_event(message())
        await until(session, lambda: session.outbox.settled)
        assert look(session) is None
    last = clock.now
    clock.pass_(minutes=1)
    assert look(session) == last
    assert session.report.seq == seq + 2


async def test_a_message_ends_it_at_once(session: Session, clock: Clock) -> None:
    clock.pass_(minutes=10)
    assert look(session) == READY_AT
    session._handle_event(message())
    assert session.report.idle_since is None


async def test_other_events_of_the_page_do_not_count(session: Session, clock: Clock) -> None:
    clock.pass_(minutes=10)
    session._handle_event(PageEvent(type="conn.socket_state"))
    session._handle_event(PageEvent(type="phone.seen", data={"at": clock.now.isoformat()}))
    assert look(session) == READY_AT


async def test_what_is_not_stored_yet_waits(session: Session, clock: Clock) -> None:
    session._handle_event(message())
    session.outbox.hold()
    session._handle_event(message())
    await until(session, lambda: session.outbox.settled)
    clock.pass_(minutes=10)
    assert look(session) is None, "the second message waits for the page"
    session.outbox.release()
    await until(session, lambda: session.outbox.settled)
    released = clock.now
    clock.pass_(minutes=1)
    assert look(session) == released


class Destination:
    """A webhook as far as idleness depends on it."""

    def __init__(self, state: DeliveryState, pending: int) -> None:
        self.pending, self.kept = pending, None
        self.status = DeliveryStatus(name="crm", state=state, since=READY_AT)


@pytest.mark.parametrize(
    ("state", "pending", "is_idle"),
    [
        (DeliveryState.DELIVERING, 0, True),
        (DeliveryState.DELIVERING, 1, False),
        (DeliveryState.FAILING, 0, True),
        (DeliveryState.FAILING, 1, False),
        (DeliveryState.PAUSED, 1, True),
        (DeliveryState.GONE, 1, True),
    ],
)
async def test_a_session_with_something_to_deliver_is_not_idle(
    session: Session,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    state: DeliveryState,
    pending: int,
    is_idle: bool,
) -> None:
    destination: Any = Destination(state, pending)
    deliveries: dict[str, Delivery] = {"crm": destination}
    monkeypatch.setattr(session.deliveries, "_deliveries", deliveries)
    clock.pass_(minutes=10)
    assert (look(session) is not None) is is_idle
    delivered = clock.now
    destination.pending = 0
    clock.pass_(minutes=1)
    assert look(session) == (READY_AT if is_idle else delivered)


async def test_deliveries_that_are_not_known_yet_may_wait(
    session: Session, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session.deliveries, "_configuration", None)
    clock.pass_(minutes=10)
    assert look(session) is None


async def test_it_counts_from_the_last_time_that_the_session_became_ready(
    session: Session, clock: Clock
) -> None:
    clock.pass_(minutes=10)
    assert look(session) == READY_AT
    session._set_state(replace(session._state, phase=Phase.RECONNECTING, ready_since=None))
    assert session.report.idle_since is None
    session.outbox.release()
    again = clock.pass_(hours=1)
    become_ready(session, clock)
    assert session.report.idle_since is None
    clock.pass_(minutes=1)
    assert look(session) == again


async def test_requests_that_use_the_account_count_until_they_end(
    session: Session, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def chats() -> Any:
        begun.set()
        await go_on.wait()
        return {"items": [], "next": None}

    show(session, monkeypatch, chats=chats)
    async with served(session) as client:
        clock.pass_(minutes=10)
        for path in ("/livez", "/metrics", "/v1/state", "/v1/deliveries"):
            await client.get(path, headers=BEARER)
        assert look(session) == READY_AT
        listing = asyncio.create_task(client.get("/v1/chats", headers=BEARER))
        await begun.wait()
        assert session.report.idle_since is None
        clock.pass_(minutes=10)
        assert look(session) is None
        go_on.set()
        assert (await listing).status == 200
        ended = clock.now
        clock.pass_(minutes=1)
        assert look(session) == ended


async def test_an_upload_counts(
    session: Session, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def receive(*_: object) -> OutgoingMessage:
        begun.set()
        await go_on.wait()
        raise ConnectionError

    monkeypatch.setattr(Uploads, "receive", receive)
    show(session, monkeypatch)
    form = FormData({"to": "15550001111"}, default_to_multipart=True)
    async with served(session) as client:
        clock.pass_(minutes=10)
        assert look(session) == READY_AT
        sending = asyncio.create_task(client.post("/v1/messages", data=form, headers=BEARER))
        await begun.wait()
        clock.pass_(minutes=10)
        assert look(session) is None
        go_on.set()
        await sending


def show(session: Session, monkeypatch: pytest.MonkeyPatch, **answers: Any) -> None:
    """Give the session a page that has nothing to catch up with, and these answers."""
    page = FakePage(recent={"items": [], "next": None}, acks=[], **answers)
    monkeypatch.setattr(session._browser.page, "bridge", page.bridge)


@contextlib.asynccontextmanager
async def served(session: Session) -> AsyncIterator[TestClient[Any, Any]]:
    """Serve the session's API, which first catches up with the page."""
    sender = MessageSender(session, IdempotencyStore(session.database), 60)
    server = TestServer(application(session, sender, session._settings))
    async with TestClient(server) as client:
        await until(session, lambda: session.outbox._watching and session.outbox.settled)
        yield client
