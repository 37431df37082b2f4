"""What a feed does: a stream for all listeners, pages for those who come back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Any

import pytest
from wasession_api.base import Model
from wasession_api.http.sse import EventTooLarge, Pace, ServerSentEvent
from wasession_api.session_pod.events import Event, EventPage
from wasession_api.session_pod.report import Report
from wasession_gateway import pods as pods_module
from wasession_gateway.events import CaughtUp, Message, MessagesMissed
from wasession_gateway.pods import NoEvents, Unreachable
from wasession_gateway.session import Session, read_session
from wasession_gateway.session_feed import SessionFeed

OUTBOX = "0123456789abcdef"
NOW = "2026-10-01T10:00:00Z"


def session(pod: str | None = "pod") -> Session:
    metadata = {"name": "sales", "uid": "u", "resourceVersion": "1", "creationTimestamp": NOW}
    status = {"podName": pod} if pod else {}
    return read_session({"metadata": metadata, "spec": {"owner": "alice"}, "status": status})


def message(number: int) -> dict[str, Any]:
    ids = {"id": f"false_1@c.us_{number}", "chatId": "1@c.us", "from": "1@c.us"}
    return {**ids, "fromMe": False, "type": "chat", "text": str(number), "sentAt": NOW}


class Pod:
    """A pod with an outbox, in place of ``Pods``."""

    def __init__(self) -> None:
        self.outbox = OUTBOX
        self.kept: list[tuple[str, dict[str, Any]]] = []
        self.began_after: list[str | None] = []  # the streams
        self.pages = 0
        self.faults: list[Exception] = []  # of the next pages
        self.stream_faults: list[Exception] = []  # the stream ends with these, at the next event
        self.changed = asyncio.Condition()

    async def happens(self, kind: str = "message", data: dict[str, Any] | None = None) -> None:
        async with self.changed:
            number = len(self.kept) + 1
            self.kept.append((kind, data if data is not None else message(number)))
            self.changed.notify_all()

    async def client(self, _: object) -> Any:
        return Stream(self)

    def forget(self, _: str) -> None:
        pass

    async def events(self, _: Session, after: str, limit: int) -> tuple[EventPage, int]:
        self.pages += 1
        if self.faults:
            raise self.faults.pop(0)
        start = int(after.partition("-")[2])
        items = [
            Event.model_validate(
                {"id": f"{self.outbox}-{start + place}", "kind": kind, "time": NOW, "data": data}
            )
            for place, (kind, data) in enumerate(self.kept[start : start + limit], 1)
        ]
        following = start + len(items)
        page = EventPage(
            items=items, next=f"{self.outbox}-{following}", more=following < len(self.kept)
        )
        return page, 100


class Stream:
    def __init__(self, pod: Pod) -> None:
        self.pod = pod

    async def events(self, last_id: str | None, pace: Pace) -> AsyncGenerator[ServerSentEvent]:
        self.pod.began_after.append(last_id)
        place = int(last_id.partition("-")[2]) if last_id else len(self.pod.kept)
        report = {"clientId": "x", "startedAt": NOW, "seq": 1, "phase": "Ready", "reason": "Ready"}
        state = Report.model_validate(report).model_dump_json(by_alias=True)
        yield ServerSentEvent("state", state, f"{self.pod.outbox}-{place}")
        while True:
            async with self.pod.changed:
                while len(self.pod.kept) <= place:
                    await self.pod.changed.wait()
            if self.pod.stream_faults:
                raise self.pod.stream_faults.pop(0)
            kind, data = self.pod.kept[place]
            place += 1
            yield ServerSentEvent(kind, json.dumps(data), f"{self.pod.outbox}-{place}")


class Listeners:
    """The namespace's part: what was delivered to whom."""

    def __init__(self, *sids: str) -> None:
        self.sids = set(sids)
        self.readers = {sid: asyncio.Event() for sid in sids}
        self.got: dict[str, list[Model]] = {sid: [] for sid in sids}
        self.reports = 0
        self._changed = asyncio.Condition()
        for reader in self.readers.values():
            reader.set()

    def listeners(self, _: str) -> set[str]:
        return self.sids

    def listens(self, sid: str, _: str) -> bool:
        return sid in self.sids

    async def deliver(self, event: Model, sids: Iterable[str]) -> None:
        for sid in sids:
            self.got[sid].append(event)
        async with self._changed:
            self._changed.notify_all()

    def packets_at_once(self, _: str) -> int:
        return 3

    async def read_all(self, sid: str) -> None:
        await self.readers[sid].wait()

    async def take_report(self, *_: object) -> None:
        self.reports += 1

    def texts(self, sid: str) -> list[str | None]:
        return [event.text for event in self.got[sid] if isinstance(event, Message)]

    async def until(self, sid: str, kind: type[Model], count: int = 1) -> None:
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(
                lambda: sum(isinstance(event, kind) for event in self.got[sid]) >= count
            )


def cursor(number: int) -> str:
    return f"{OUTBOX}-{number}"


@pytest.fixture
def pod(monkeypatch: pytest.MonkeyPatch) -> Pod:
    monkeypatch.setattr(pods_module, "RETRY_FIRST", 0.001)
    return Pod()


class Feeds:
    """Makes feeds, and closes them."""

    def __init__(self, pod: Pod) -> None:
        self._pods: Any = pod
        self._feeds: list[SessionFeed] = []

    def __call__(self, clients: Listeners, pod: str | None = "pod") -> SessionFeed:
        self._feeds.append(SessionFeed(self._pods, session(pod), clients))
        return self._feeds[-1]

    def close(self) -> None:
        for feed in self._feeds:
            feed.close()


@pytest.fixture
async def make(pod: Pod) -> AsyncIterator[Feeds]:
    feeds = Feeds(pod)
    yield feeds
    feeds.close()


async def test_what_was_missed_comes_first_then_what_happens(pod: Pod, make: Feeds) -> None:
    clients = Listeners("back", "other")
    for _ in range(8):
        await pod.happens()
    feed = make(clients)
    feed.catch_up("back", cursor(3), asyncio.Lock())
    await clients.until("back", CaughtUp)
    await pod.happens()
    await clients.until("other", Message)
    assert clients.texts("back") == ["4", "5", "6", "7", "8", "9"]
    assert [event.event_id for event in clients.got["back"] if isinstance(event, CaughtUp)] == [
        cursor(8)
    ]
    assert clients.texts("other") == ["9"]
    assert pod.began_after == [None], "one stream for both"


async def test_a_client_that_missed_nothing_is_told_so(pod: Pod, make: Feeds) -> None:
    clients = Listeners("back")
    feed = make(clients)
    feed.catch_up("back", cursor(0), asyncio.Lock())
    await clients.until("back", CaughtUp)
    assert len(clients.got["back"]) == 1


async def test_others_are_told_from_where_on_they_have_all(pod: Pod, make: Feeds) -> None:
    clients = Listeners("first", "second")
    await pod.happens()
    feed = make(clients)
    await feed.greet("first")
    assert clients.got["first"] == [], "it is not known yet"
    await clients.until("first", CaughtUp)
    await clients.until("second", CaughtUp)
    await feed.greet("second")
    told = [event.event_id for event in clients.got["second"] if isinstance(event, CaughtUp)]
    assert told == [cursor(1), cursor(1)]


async def test_a_slow_client_gets_a_page_at_a_time(pod: Pod, make: Feeds) -> None:
    clients = Listeners("slow", "quick")
    for _ in range(9):
        await pod.happens()
    clients.readers["slow"].clear()
    feed = make(clients)
    for sid in ("slow", "quick"):
        feed.catch_up(sid, cursor(0), asyncio.Lock())
    await clients.until("quick", CaughtUp)
    await pod.happens()
    await clients.until("quick", Message, 10)
    assert clients.texts("slow") == ["1", "2", "3"]
    clients.readers["slow"].set()
    await clients.until("slow", CaughtUp)
    assert clients.texts("slow") == clients.texts("quick")


async def test_a_client_is_sent_the_pages_of_one_session_at_a_time(pod: Pod, make: Feeds) -> None:
    clients, turn = Listeners("slow"), asyncio.Lock()
    for _ in range(9):
        await pod.happens()
    clients.readers["slow"].clear()
    for _ in range(5):
        make(clients).catch_up("slow", cursor(0), turn)
    await clients.until("slow", Message, 3)
    await asyncio.sleep(0)
    assert pod.pages == 1
    clients.readers["slow"].set()
    await clients.until("slow", CaughtUp, 5)
    assert len(clients.texts("slow")) == 45


async def test_a_pod_that_is_away_is_asked_again(pod: Pod, make: Feeds) -> None:
    clients = Listeners("back")
    await pod.happens()
    pod.faults = [Unreachable("away"), Unreachable("away")]
    make(clients).catch_up("back", cursor(0), asyncio.Lock())
    await clients.until("back", CaughtUp)
    assert clients.texts("back") == ["1"]


async def test_pods_are_asked_only_while_their_stream_is_open(pod: Pod, make: Feeds) -> None:
    clients = Listeners("back")
    await pod.happens()
    feed = make(clients, pod=None)
    feed.catch_up("back", cursor(0), asyncio.Lock())
    await asyncio.sleep(0)
    assert (pod.pages, pod.began_after) == (0, [])
    feed.update(session())
    await clients.until("back", CaughtUp)
    assert clients.texts("back") == ["1"]


@pytest.mark.parametrize("fault", [NoEvents("status 422"), KeyError("a bug")])
async def test_a_client_that_cannot_get_what_it_missed_goes_on(
    pod: Pod, make: Feeds, fault: Exception
) -> None:
    clients = Listeners("back")
    for _ in range(2):
        await pod.happens()
    pod.faults = [fault]
    make(clients).catch_up("back", cursor(0), asyncio.Lock())
    await clients.until("back", CaughtUp)
    [missed, caught_up] = clients.got["back"]
    assert isinstance(missed, MessagesMissed)
    assert missed.reason == "Incomplete"
    assert isinstance(caught_up, CaughtUp)
    assert caught_up.event_id == cursor(2)
    await pod.happens()
    await clients.until("back", Message)
    assert clients.texts("back") == ["3"]


async def test_a_page_without_a_cursor_is_none(pod: Pod, make: Feeds) -> None:
    clients = Listeners("back")
    pod.outbox = "not-one"
    make(clients).catch_up("back", cursor(0), asyncio.Lock())
    await clients.until("back", MessagesMissed)
    await pod.happens()
    await clients.until("back", Message)


async def test_the_stream_resumes_after_the_last_event(pod: Pod, make: Feeds) -> None:
    clients = Listeners("one")
    await pod.happens()
    feed = make(clients)
    await clients.until("one", CaughtUp)
    await pod.happens()
    await clients.until("one", Message)
    pod.stream_faults = [OSError("reset")]
    await pod.happens()
    await clients.until("one", Message, 2)
    feed.update(session(pod=None))  # as while the session is suspended
    await pod.happens()
    feed.update(session())
    await clients.until("one", Message, 3)
    assert clients.texts("one") == ["2", "3", "4"]
    assert pod.began_after == [None, cursor(2), cursor(3)]


async def test_an_event_that_cannot_be_read_is_a_gap_and_ends_nothing(
    pod: Pod, make: Feeds
) -> None:
    clients = Listeners("live", "back")
    await pod.happens("message", {"id": "nonsense"})
    feed = make(clients)
    feed.catch_up("back", cursor(0), asyncio.Lock())
    await clients.until("back", CaughtUp)
    await pod.happens("edit", {})
    await pod.happens("something-new", {"id": 7})
    await pod.happens()
    await clients.until("live", Message)
    await clients.until("back", Message)
    missed = [event for event in clients.got["back"] if isinstance(event, MessagesMissed)]
    assert [(event.reason, event.event_id) for event in missed] == [
        ("Unreadable", cursor(1)),
        ("Unreadable", cursor(2)),
    ]
    assert pod.began_after == [None]


async def test_an_event_that_is_too_large_is_a_gap_and_comes_once(pod: Pod, make: Feeds) -> None:
    clients = Listeners("live")
    make(clients)
    await clients.until("live", CaughtUp)
    pod.stream_faults = [EventTooLarge("too large", cursor(1))]
    await pod.happens()
    await pod.happens()
    await clients.until("live", Message)
    assert clients.texts("live") == ["2"]
    [missed] = [event for event in clients.got["live"] if isinstance(event, MessagesMissed)]
    assert (missed.reason, missed.event_id) == ("Unreadable", cursor(1))
    assert pod.began_after == [None, cursor(1)]


async def test_who_leaves_gets_nothing_more(pod: Pod, make: Feeds) -> None:
    clients = Listeners("leaving", "expelled", "other")
    for _ in range(9):
        await pod.happens()
    for sid in ("leaving", "expelled"):
        clients.readers[sid].clear()
    feed = make(clients)
    for sid in ("leaving", "expelled"):
        feed.catch_up(sid, cursor(0), asyncio.Lock())
        await clients.until(sid, Message, 3)
    feed.drop("leaving")
    clients.sids -= {"leaving", "expelled"}
    for sid in ("leaving", "expelled"):
        clients.readers[sid].set()
    await clients.until("other", CaughtUp)
    await pod.happens()
    await clients.until("other", Message)
    assert len(clients.texts("leaving")) == len(clients.texts("expelled")) == 3


async def test_a_client_may_start_over(pod: Pod, make: Feeds) -> None:
    clients = Listeners("back")
    for _ in range(4):
        await pod.happens()
    feed, turn = make(clients), asyncio.Lock()
    feed.catch_up("back", cursor(3), turn)
    await clients.until("back", CaughtUp)
    feed.catch_up("back", cursor(2), turn)
    await clients.until("back", CaughtUp, 2)
    assert clients.texts("back") == ["4", "3", "4"]


async def test_states_are_passed_on_but_are_no_events(pod: Pod, make: Feeds) -> None:
    clients = Listeners("one")
    make(clients)
    await clients.until("one", CaughtUp)
    await pod.happens()
    await clients.until("one", Message)
    assert clients.reports == 1
    assert [type(event) for event in clients.got["one"]] == [CaughtUp, Message]
