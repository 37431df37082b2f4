"""From events of the page to entries of the outbox, and which of them are news."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.pod.page_events import AT, FRIEND, GROUP, ack, change, message
from wasession_api.session_pod.events import EventKind
from wasession_pod.messages import intake
from wasession_pod.messages.intake import MAXIMUM_DATA, Entry, Fact, OwnMessage, Unreadable
from wasession_pod.state.observation import PageEvent

CALL = {"id": "call-1", "from": FRIEND, "at": AT}
CHANGE = {"chatId": GROUP, "action": "add", "participants": ["1@lid", "2@lid"], "at": AT}


KNOWN: dict[str, Any] = {"from": "1@lid", "emoji": "👍", "phoneNumber": "15550001111"}


def entry(event: PageEvent) -> Entry:
    read = intake.read(event)
    assert isinstance(read, Entry)
    return read


def fact(event: PageEvent) -> Fact:
    found = entry(event).fact
    assert found is not None
    return found


def told(events: Iterable[PageEvent]) -> list[bool]:
    """Return for each event in turn whether it is told."""
    known: dict[bytes, tuple[float, bytes]] = {}
    results = []
    for each in map(fact, events):
        results.append(each.is_news(known.get(each.key)))
        if results[-1] or each.rank > known[each.key][0]:
            known[each.key] = each.rank, each.value
    return results


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (message(), EventKind.MESSAGE),
        (message(text="x" * 100_000, newer=[1]), EventKind.MESSAGE),
        (change("edit", text="b"), EventKind.EDIT),
        (change("deletion"), EventKind.DELETION),
        (change("reaction", emoji="👍"), EventKind.REACTION),
        (change("vote", options=["yes"]), EventKind.VOTE),
        (ack(2), EventKind.ACK),
        (PageEvent(type="chat.call", data=CALL), EventKind.CALL),
        (PageEvent(type="chat.group", data=CHANGE), EventKind.GROUP),
    ],
)
def test_each_kind_has_an_entry(event: PageEvent, kind: EventKind) -> None:
    assert entry(event).kind is kind
    assert json.loads(entry(event).data)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (message(sentAt="never"), Unreadable("message", ("sentAt",))),
        (message(text=7, sentAt="secret"), Unreadable("message", ("sentAt", "text"))),
        (ack(99), Unreadable("ack", ("ack",))),
        (change("vote", options=7), Unreadable("vote", ("options",))),
        (PageEvent(type="chat.message"), Unreadable("message", ("",))),
        (PageEvent(type="chat.gap", reason="message"), Unreadable("message")),
        (PageEvent(type="chat.gap", reason="of the page's choice"), Unreadable("event")),
        (PageEvent(type="chat.gap"), Unreadable("event")),
        (PageEvent(type="conn.online", data=message().data), None),
        (PageEvent(type="chat.state", data={}), None),
    ],
)
def test_what_is_not_valid_is_a_gap(event: PageEvent, expected: Unreadable | None) -> None:
    assert intake.read(event) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (message(), message(text="another text", senderName="another name")),
        (message(), message(chat="123456789012345@lid")),
        (ack(2), ack(2, chat="123456789012345@lid")),
        (ack(2), ack(2, at="2026-01-02T00:00:00.000Z")),
        (change("edit", 1, text="b"), change("edit", 2, text="b")),
        (change("deletion", 1), change("deletion", 2)),
        (
            change("reaction", 1, emoji="👍", phoneNumber="15550001111"),
            change("reaction", 1, "3A00", **KNOWN),
        ),
        (change("vote", options=["a", "b"]), change("vote", options=["b", "a"])),
    ],
)
def test_a_fact_is_told_once(one: PageEvent, other: PageEvent) -> None:
    assert told([one, other, one, other]) == [True, False, False, False]


@pytest.mark.parametrize(
    "events",
    [
        [message("3A00"), message("3A01"), message("3A00", fromMe=True)],
        [message("3A00"), message("3A00", GROUP), message("3A00", "120363000000000002@g.us")],
        [ack(1), ack(2), ack(3), ack(4)],
        [ack(1), ack(1, participant="1@lid"), ack(1, participant="2@lid"), ack(1, "3F")],
        [change("edit", 1, text="b"), change("edit", 2, text="c"), change("edit", 3, text="b")],
        [
            change("reaction", 1, emoji="👍"),
            change("reaction", 2),
            change("reaction", 3, emoji="👍"),
        ],
        [change("reaction", emoji="👍"), change("reaction", emoji="👍", fromMe=True)],
        [change("reaction", emoji="👍"), change("reaction", emoji="👍", stanza="3A01")],
        [change("vote", 1, options=["a"]), change("vote", 2, options=[])],
        [PageEvent(type="chat.call", data=CALL | {"id": str(number)}) for number in range(2)],
        [
            PageEvent(type="chat.group", data=CHANGE),
            PageEvent(type="chat.group", data=CHANGE | {"action": "remove"}),
            PageEvent(type="chat.group", data=CHANGE | {"at": "2026-01-02T00:00:00Z"}),
        ],
    ],
)
def test_what_differs_is_told_each_time(events: list[PageEvent]) -> None:
    assert told(events) == [True] * len(events)


def test_outdated_facts_are_not_told() -> None:
    edits = [change("edit", 2, text="c"), change("edit", 1, text="b"), change("edit", 2, text="c")]
    assert told(edits) == [True, False, False]
    assert told([ack(3), ack(2), ack(1)]) == [True, False, False]


def test_a_message_of_this_session_is_no_news() -> None:
    own = OwnMessage(f"true_{FRIEND}_3EB0").fact
    echo = fact(message("3EB0", "123456789012345@lid", fromMe=True))
    assert own.key == echo.key
    assert not echo.is_news((own.rank, own.value))


@pytest.mark.parametrize(
    ("event", "settled"),
    [
        (ack(2), None),
        (ack(3), f"true_{FRIEND}_3E"),
        (ack(4), f"true_{FRIEND}_3E"),
        (ack(3, chat=GROUP, participant="1@lid"), None),
        (message(), None),
    ],
)
def test_acks_are_awaited_until_read(event: PageEvent, settled: str | None) -> None:
    assert entry(event).last_ack_of == settled


def test_an_event_fits_a_stream() -> None:
    cards = [{"vcard": str(number) * 16_000} for number in range(200)]
    small = entry(message(contacts=cards))
    assert small.size <= MAXIMUM_DATA
    assert 20 < len(json.loads(small.data)["contacts"]) < 200
    assert entry(message(text="\x00" * 65536)).size < MAXIMUM_DATA
    huge = message(mentions=["1" * 5000] * 200)
    assert intake.read(huge) == Unreadable("message")


def reaction(second: int, fields: dict[str, Any]) -> PageEvent:
    return change("reaction", second, "3A00", **fields)


CHANGES = st.builds(
    lambda second, text, person: reaction(second, {"emoji": text, "from": person}),
    st.integers(0, 3),
    st.sampled_from([None, "👍", "❤"]),
    st.sampled_from(["1@lid", "2@lid"]),
)
MESSAGES = st.builds(
    message, st.sampled_from(["3A00", "3A01", "3A02"]), st.sampled_from([FRIEND, GROUP])
)
ACKS = st.builds(ack, st.integers(-1, 4), st.sampled_from(["3E", "3F"]))
EVENTS = st.lists(st.one_of(CHANGES, MESSAGES, ACKS), max_size=20)


@given(EVENTS, st.integers(0, 20))
def test_a_page_that_shows_the_same_again_is_told_nothing_twice(
    events: list[PageEvent], resumed: int
) -> None:
    """Replaying everything in order adds nothing, but changes of one moment may flip again."""
    again = [*events, *events[resumed:]]
    results = told(again)[len(events) :]
    for event, news in zip(again[len(events) :], results, strict=True):
        assert not news or event.type == "chat.reaction"


@given(EVENTS)
def test_the_latest_state_is_always_told(events: list[PageEvent]) -> None:
    """What is told last for each fact is what an event of the highest rank has."""
    last: dict[bytes, Fact] = {}
    for event, news in zip(events, told(events), strict=True):
        if news:
            last[fact(event).key] = fact(event)
    facts = list(map(fact, events))
    for key, told_last in last.items():
        highest = max(each.rank for each in facts if each.key == key)
        values = {each.value for each in facts if (each.key, each.rank) == (key, highest)}
        assert told_last.value in values


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8) | st.integers(), max_size=6))
def test_no_data_of_the_page_raises(data: dict[str, Any]) -> None:
    for kind in intake.KINDS:
        read = intake.read(PageEvent(type=kind, data=message().data | data))  # type: ignore[operator]
        assert isinstance(read, Entry | Unreadable)
