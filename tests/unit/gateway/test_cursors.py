"""Nothing twice, nothing lost: a stream that all clients share, and pages for single ones."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wasession_api.session_pod.events import EventId
from wasession_gateway.cursors import Cursors

OUTBOX, OTHER = "0" * 16, "1" * 16
PAGE = 3


def ids(*numbers: int, outbox: str = OUTBOX) -> list[EventId]:
    return [EventId(outbox, number) for number in numbers]


# --- single cases ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("5c1f0e7a9b3d4c62-1042", EventId("5c1f0e7a9b3d4c62", 1042)),
        ("5c1f0e7a-0", EventId("5c1f0e7a", 0)),
        (None, None),
        ("", None),
        ("17", None),
        ("5c1f0e7a9b3d4c62-", None),
        ("5C1F0E7A9B3D4C62-1", None),
        ("5c1f0e7a9b3d4c62-1\n", None),
        ("5c1f0e7a9b3d4c62-1234567890123456789", None),
    ],
)
def test_ids(text: str | None, parsed: EventId | None) -> None:
    assert EventId.parse(text) == parsed
    if parsed is not None:
        assert str(parsed) == text


def test_others_get_what_the_stream_has() -> None:
    cursors = Cursors()
    cursors.hold("late")
    for event_id in ids(1, 2):
        assert cursors.advance(event_id, {"one", "two", "late"}) == {"one", "two"}
    assert cursors.advance(None, {"one", "late"}) == {"one"}
    assert cursors.position == EventId(OUTBOX, 2)


def test_nobody_joins_before_the_stream_has_begun() -> None:
    cursors = Cursors()
    cursors.hold("late")
    assert not cursors.join("late", EventId(OUTBOX, 7))
    cursors.advance(EventId(OUTBOX, 7), set())
    assert cursors.join("late", EventId(OUTBOX, 7))


def test_nobody_joins_behind_the_stream_or_in_another_outbox() -> None:
    cursors = Cursors()
    cursors.hold("late")
    cursors.advance(EventId(OUTBOX, 7), set())
    assert not cursors.join("late", EventId(OUTBOX, 6))
    assert not cursors.join("late", EventId(OTHER, 9))
    assert cursors.is_held("late")


def test_what_pages_had_does_not_come_again() -> None:
    cursors = Cursors()
    cursors.hold("late")
    cursors.advance(EventId(OUTBOX, 7), set())
    assert cursors.join("late", EventId(OUTBOX, 9))
    for number, receives in ((8, False), (9, False), (9, False), (10, True), (10, True)):
        assert cursors.advance(EventId(OUTBOX, number), {"late"}) == (
            {"late"} if receives else set()
        ), number


def test_a_gap_may_have_the_id_at_which_a_client_has_joined() -> None:
    cursors = Cursors()
    cursors.hold("late")
    cursors.advance(EventId(OUTBOX, 7), set())
    assert cursors.join("late", EventId(OUTBOX, 7))
    assert cursors.advance(EventId(OUTBOX, 7), {"late", "other"}) == {"other"}


def test_an_older_state_of_the_outbox_is_another_outbox() -> None:
    """A volume was restored: its outbox gives the same numbers to other events."""
    cursors = Cursors()
    cursors.hold("late")
    cursors.advance(EventId(OUTBOX, 100), set())
    assert cursors.join("late", EventId(OUTBOX, 100))
    assert cursors.advance(EventId(OUTBOX, 0), {"late"}) == {"late"}
    assert cursors.advance(EventId(OUTBOX, 61), {"late"}) == {"late"}


def test_who_has_left_is_forgotten() -> None:
    cursors = Cursors()
    for client, last in (("one", None), ("two", 9)):
        cursors.hold(client)
        if last is not None:
            cursors.advance(EventId(OUTBOX, 7), set())
            assert cursors.join(client, EventId(OUTBOX, last))
        cursors.release(client)
        assert cursors.advance(EventId(OUTBOX, 8), {client}) == {client}


# --- all of them together -------------------------------------------------------------------------


@dataclass
class Reader:
    """A client: what it has had, over all of its connections."""

    name: str
    had: list[EventId] = field(default_factory=list)
    since: EventId | None = None  # at first
    cursor: EventId | None = None  # of the next page, while it catches up
    page: list[EventId] | None = None  # that is on its way
    connected: bool = False

    @property
    def last(self) -> EventId | None:
        return self.had[-1] if self.had else self.since


class World:
    """A pod, the gateway's stream and two clients.

    Events are read from the outbox, and arrive, at different times: a page and the stream may each
    be behind the other. The outbox may be replaced at any time; a reader of the former one is told
    so by a gap, which has the ID before the first event.
    """

    def __init__(self) -> None:
        self.history: list[EventId] = []  # all events, of all outboxes
        self.outbox, self.number = 0, 0
        self.streamed = 0  # how much of the history the stream has passed
        self.cursors = Cursors()
        self.readers = [Reader("one"), Reader("two")]

    def do(self, action: str, number: int) -> None:
        reader = self.readers[number % 2]
        match action:
            case "happen":
                for _ in range(number):
                    self.number += 1
                    self.history.append(self.event_id())
            case "replace" if self.number > 3:
                self.outbox, self.number = self.outbox + 1, 0
                self.history.append(self.event_id())
            case "begin" if self.cursors.position is None:
                self.streamed = len(self.history)
                self.cursors.advance(self.latest, set())
            case "stream" if self.cursors.position is not None:
                self.stream(number)
            case "connect":
                self.connect(reader)
            case "disconnect":
                self.disconnect(reader)
            case "read" if reader.cursor is not None and reader.page is None:
                reader.page = self.following(reader.cursor)[:PAGE]
            case "send" if reader.cursor is not None and reader.page is not None:
                self.send(reader, reader.cursor, reader.page)

    def event_id(self) -> EventId:
        return EventId(f"{self.outbox:016x}", self.number)

    @property
    def latest(self) -> EventId:
        return self.history[-1] if self.history else self.event_id()

    def stream(self, count: int) -> None:
        connected = {reader.name for reader in self.readers if reader.connected}
        for event_id in self.history[self.streamed :][:count]:
            self.streamed += 1
            receivers = self.cursors.advance(event_id, connected)
            for reader in self.readers:
                if reader.name in receivers:
                    reader.had.append(event_id)

    def following(self, cursor: EventId) -> list[EventId]:
        """Return what a cursor of any outbox has not had, as the pod would."""
        outbox = self.event_id().outbox
        after = cursor.number if cursor.outbox == outbox else -1
        return [one for one in self.history if one.outbox == outbox and one.number > after]

    def connect(self, reader: Reader) -> None:
        """Come back after the last event, or for the first time after the latest."""
        self.disconnect(reader)
        if reader.last is None:
            reader.since = self.latest
        reader.connected, reader.cursor = True, reader.last
        self.cursors.hold(reader.name)

    def disconnect(self, reader: Reader) -> None:
        reader.connected, reader.cursor, reader.page = False, None, None
        self.cursors.release(reader.name)

    def send(self, reader: Reader, cursor: EventId, page: list[EventId]) -> None:
        reader.had += page
        last = page[-1] if page else cursor
        reader.page = None
        reader.cursor = None if self.cursors.join(reader.name, last) else last

    def settle(self) -> None:
        """Let everything arrive: then everybody who is connected has everything."""
        self.do("begin", 0)
        self.stream(len(self.history))
        for number, reader in enumerate(self.readers):
            if reader.connected:
                for _ in self.history:
                    self.do("read", number)
                    self.do("send", number)
                assert reader.cursor is None or not self.history, "it goes on with the stream"
                assert reader.last == self.latest

    def check(self) -> None:
        order = {event_id: number for number, event_id in enumerate(self.history)}
        for reader in self.readers:
            places = [order[event_id] for event_id in reader.had]
            assert places == sorted(set(places)), "nothing twice, and in order"
            # What a client had not read of an outbox that was replaced is gone with it.
            assert reader.since is not None or not reader.had
            before = reader.since
            for event_id in reader.had:
                assert before is not None
                same = event_id.outbox == before.outbox
                assert event_id.number == (before.number + 1 if same else 0), "nothing lost"
                before = event_id


OFTEN = ("happen", "stream", "read", "send")
ACTIONS = (*OFTEN, *OFTEN, "begin", "connect", "disconnect", "replace")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 3)), min_size=30, max_size=80))
def test_nothing_twice_and_nothing_lost(steps: list[tuple[str, int]]) -> None:
    world = World()
    for action, number in steps:
        world.do(action, number)
    world.settle()
    world.check()
