"""What the page is asked for once the session is Ready, and what follows from its answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from unit.pod.fake_page import FakePage
from unit.pod.page_events import FRIEND, ack, change, message
from wasession_api.v1alpha1 import Phase
from wasession_pod.browser.bridge import Bridge
from wasession_pod.browser.errors import BrowserError, PageAway
from wasession_pod.messages import outbox as outbox_module
from wasession_pod.messages import reconciliation
from wasession_pod.messages.database import Database, DatabaseError
from wasession_pod.messages.event_store import EventStore, OutboxRow
from wasession_pod.messages.outbox import Outbox
from wasession_pod.messages.reconciliation import MARGIN, PAGE, Reconciler, lost, since
from wasession_pod.session import NotReady, Session
from wasession_pod.state.observation import PageEvent

ROW = OutboxRow("5c1f0e7a9b3d4c62", 0, 0, 0, complete_until=5000, floor=1000, login=None)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (ROW, 5000 - MARGIN),
        (replace(ROW, floor=4990), 4990),
        (replace(ROW, floor=4990.2), 4991),
        (replace(ROW, complete_until=9000), 6000 - MARGIN),
        (replace(ROW, complete_until=1000), 1000),
    ],
)
def test_since_when_the_page_is_asked(row: OutboxRow, expected: float) -> None:
    assert since(row, now=6000) == expected


def test_what_was_forgotten_is_lost() -> None:
    assert not lost(ROW, 6000)
    assert not lost(replace(ROW, floor=5000), 6000)
    assert lost(replace(ROW, floor=5001), 6000)


class FakeSession:
    """A session with an outbox and a page that answers ``recent`` from a list."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.recent: list[PageEvent] = []
        self.problem: Exception | None = None
        self.asked: list[list[Any]] = []
        self.page = FakePage(acks=[], recent=self._recent)
        self.report = SimpleNamespace(phase=Phase.RESTORING)

    async def _recent(self) -> Any:
        self.asked.append(self.page.calls[-1][1])
        if self.problem is not None:
            raise self.problem
        _since, limit, after = self.asked[-1]
        start = 0 if after is None else after["t"]
        end = start + limit
        following = {"t": end, "id": "x"} if end < len(self.recent) else None
        items = [event.model_dump() for event in self.recent[start:end]]
        return {"items": items, "next": following}

    @contextlib.contextmanager
    def ready_page(self) -> Iterator[Bridge]:
        if self.report.phase is not Phase.READY:
            raise NotReady(self.report.phase)
        yield self.page.bridge

    def become(self, phase: Phase) -> None:
        if self.report.phase is Phase.READY:
            self.outbox.hold()
        self.report.phase = phase
        self.outbox.notify()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                changed = self.outbox.changed
                if not condition():
                    await changed.wait()

    async def told(self) -> list[str]:
        """Return the texts of messages, the reasons of gaps, and the kinds of other events."""
        await self.until(lambda: self.outbox.settled)
        oldest = self.outbox.oldest
        assert oldest is not None
        events = (await self.outbox.read(oldest)).events
        data = [json.loads(event.data) for event in events]
        return [
            each.get("text") or each.get("reason") or event.kind
            for each, event in zip(data, events, strict=True)
        ]

    @property
    def caught_up(self) -> bool:
        return self.outbox._held is None


@pytest.fixture
async def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeSession]:
    monkeypatch.setattr(reconciliation, "RETRY_DELAYS", (0.001, 0.001))
    monkeypatch.setattr(reconciliation, "STORE_RETRY_DELAY", 0.001)
    monkeypatch.setattr(outbox_module, "RETRY_DELAYS", (0.001,))
    database = Database(tmp_path / "messages.sqlite")
    outbox = Outbox(database, retention=3600, maximum_bytes=2**20)
    outbox.start(None)
    while outbox.row is None:
        await outbox.changed.wait()
    session = FakeSession(outbox)
    running = asyncio.create_task(Reconciler(cast(Session, session)).run())
    yield session
    running.cancel()
    await outbox.stop(0)
    database.close()


async def test_what_came_while_nobody_looked_is_told_first(session: FakeSession) -> None:
    session.outbox.receive(message("3A02", text="live"))
    session.recent = [message("3A01", text="missed"), message("3A02", text="live")]
    session.become(Phase.READY)
    await session.until(lambda: session.caught_up)
    assert await session.told() == ["missed", "live"]
    [[asked_since, limit, after]] = session.asked
    assert (abs(asked_since - time.time()) < 60, limit, after) == (True, PAGE, None)
    assert session.outbox._watching


async def test_a_page_is_asked_after_each_interruption_and_not_otherwise(
    session: FakeSession,
) -> None:
    session.become(Phase.READY)
    await session.until(lambda: session.caught_up)
    session.outbox.receive(message("3A01", text="live"))
    assert await session.told() == ["live"]
    session.outbox.notify()
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(session.asked) == 1
    session.become(Phase.RECONNECTING)
    session.recent = [message("3A01", text="live"), change("edit", text="edited")]
    session.become(Phase.READY)
    await session.until(lambda: session.caught_up)
    assert await session.told() == ["live", "edited"]
    assert len(session.asked) == 2


async def test_a_long_answer_comes_in_pages(session: FakeSession) -> None:
    session.recent = [message(f"3A{number:04}", text=str(number)) for number in range(450)]
    session.become(Phase.READY)
    await session.until(lambda: session.caught_up)
    assert await session.told() == [str(number) for number in range(450)]
    assert [after and after["t"] for _, _, after in session.asked] == [None, 200, 400]


async def test_awaited_acks_are_asked_for(session: FakeSession) -> None:
    await session.outbox.expect(f"true_{FRIEND}_3E")
    session.page.answers["acks"] = [ack(2).data]
    session.become(Phase.READY)
    await session.until(lambda: session.caught_up)
    assert await session.told() == ["ack"]
    assert ("acks", [[f"true_{FRIEND}_3E"]]) in session.page.calls
    assert session.outbox.store.awaited_acks() == [f"true_{FRIEND}_3E"]


async def test_a_page_that_cannot_answer_is_a_gap_and_asked_again_at_the_next_ready(
    session: FakeSession, caplog: pytest.LogCaptureFixture
) -> None:
    session.problem = BrowserError("the page's answer to recent is not valid")
    session.outbox.receive(message("3A02", text="live"))
    session.become(Phase.READY)
    await session.until(lambda: session.caught_up)
    assert await session.told() == ["Incomplete", "live"]
    assert len(session.asked) == 3
    assert not session.outbox._watching
    assert "nobody looked" in caplog.text
    session.problem, session.recent = None, [message("3A01", text="missed")]
    session.become(Phase.RECONNECTING)
    session.become(Phase.READY)
    await session.until(lambda: session.caught_up)
    assert await session.told() == ["Incomplete", "live", "missed"]
    assert session.outbox._watching


async def test_a_page_that_is_away_for_a_moment_is_no_gap(session: FakeSession) -> None:
    async def load() -> Any:
        session.page.answers["recent"] = session._recent
        raise PageAway("WhatsApp Web is loading")

    session.page.answers["recent"] = load
    session.recent = [message("3A01", text="missed")]
    session.become(Phase.READY)
    await session.until(lambda: session.caught_up)
    assert await session.told() == ["missed"]


async def test_a_session_that_is_lost_meanwhile_is_no_gap(session: FakeSession) -> None:
    reached = asyncio.Event()

    async def lose() -> Any:
        session.asked.append([])
        session.become(Phase.RECONNECTING)
        reached.set()
        raise PageAway("WhatsApp Web is loading")

    session.page.answers["recent"] = lose
    session.outbox.receive(message("3A02", text="live"))
    session.become(Phase.READY)
    await reached.wait()
    for _ in range(5):
        await asyncio.sleep(0.002)
    assert len(session.asked) == 1
    assert not session.caught_up
    session.page.answers["recent"] = session._recent
    session.become(Phase.READY)
    await session.until(lambda: session.caught_up)
    assert await session.told() == ["live"]


async def test_a_volume_that_fails_meanwhile_is_waited_for(
    session: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, failures = EventStore.commit, [0]

    def fail(*arguments: Any) -> Any:
        failures[0] += 1
        if failures[0] < 6:
            raise DatabaseError("database or disk is full")
        return commit(*arguments)

    monkeypatch.setattr(EventStore, "commit", fail)
    session.recent = [message("3A01", text="missed")]
    session.become(Phase.READY)
    await session.until(lambda: session.caught_up)
    assert await session.told() == ["missed"]


async def test_what_nobody_can_know_any_more_is_a_gap(session: FakeSession) -> None:
    assert session.outbox.row is not None
    session.outbox.row = replace(session.outbox.row, floor=time.time() + 100)
    session.become(Phase.READY)
    await session.until(lambda: session.caught_up)
    assert await session.told() == ["Incomplete"]


async def test_a_page_without_an_end_is_a_gap(
    session: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciliation, "MAXIMUM_PAGES", 3)
    session.page.answers["recent"] = {"items": [], "next": {"t": 1, "id": "x"}}
    session.become(Phase.READY)
    await session.until(lambda: session.caught_up)
    assert await session.told() == ["Incomplete"]


async def test_overflow_asks_the_page_again(session: FakeSession) -> None:
    session.become(Phase.READY)
    await session.until(lambda: session.caught_up and session.outbox.settled)
    session.recent = [message("3A01", text="missed")]
    session.outbox._overflow()
    session.outbox.receive(message("3A02", text="live"))
    await session.until(lambda: len(session.asked) == 2)
    assert await session.told() == ["live", "Incomplete", "missed"]
