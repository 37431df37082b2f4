"""The outbox's tables: numbers, limits, logins, and what is forgotten."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.pod.page_events import FRIEND, ack, change, message
from unit.pod.small_volume import resize, small_volume
from wasession_api.session_pod.events import GapReason
from wasession_pod.messages import event_store, intake
from wasession_pod.messages.database import Database, DatabaseError
from wasession_pod.messages.event_store import EventStore, Limits
from wasession_pod.messages.intake import OVERHEAD, Entry, Item, Login, OwnMessage
from wasession_pod.state.observation import PageEvent

NOW = 1_000_000.0
DAY = 86400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "messages.sqlite"


def store_of(path: Path, retention: float = 7 * DAY, maximum: int = 2**20) -> EventStore:
    return EventStore(Database(path), Limits(retention, maximum))


def entry(event: PageEvent) -> Entry:
    read = intake.read(event)
    assert isinstance(read, Entry)
    return read


def messages(*numbers: int, size: int = 1000) -> list[Item]:
    return [entry(message(f"3A{number:04}", text="x" * size)) for number in numbers]


def numbers(store: EventStore, after: int = 0) -> list[int]:
    return [event.number for event in store.read(after, 10_000, 2**30, NOW)[1]]


def test_numbers_go_on_and_the_outbox_keeps_its_name(path: Path) -> None:
    first = store_of(path)
    commit = first.commit(messages(1, 2), NOW)
    assert (commit.before, [event.number for event in commit.events]) == (0, [1, 2])
    first._database.close()
    again = store_of(path).commit(messages(2, 3), NOW)
    assert (again.before, [event.number for event in again.events]) == (2, [3])
    assert again.outbox.id == commit.outbox.id


def test_another_outbox_has_another_name(tmp_path: Path) -> None:
    names = {store_of(tmp_path / str(number)).load(NOW).id for number in range(10)}
    assert len(names) == 10


def test_numbers_of_deleted_events_are_not_given_again(path: Path) -> None:
    store = store_of(path, retention=60)
    store.commit(messages(1, 2), NOW)
    commit = store.commit(messages(3), NOW + 120)
    assert (commit.expired, commit.outbox.expired, numbers(store)) == (2, 2, [3])
    assert store.commit([], NOW + 240).outbox.expired == 3
    assert [event.number for event in store.commit(messages(4), NOW + 240).events] == [4]


def test_the_oldest_events_are_deleted_beyond_the_bytes(path: Path) -> None:
    store = store_of(path, maximum=10_000)
    for number in range(100):
        commit = store.commit(messages(number), NOW + number)
    assert commit.outbox.bytes <= 10_000
    assert commit.outbox.bytes == sum(event.size for event in store.read(0, 1000, 2**30, NOW)[1])
    assert numbers(store) == list(range(commit.outbox.expired + 1, 101))
    assert 5 < len(numbers(store)) < 10
    assert commit.oldest_at == NOW + commit.outbox.expired


def test_an_event_that_is_too_large_alone_does_not_stay(path: Path) -> None:
    store = store_of(path, maximum=100)
    commit = store.commit(messages(1), NOW)
    assert len(commit.events) == 1, "it is told"
    assert (numbers(store), commit.outbox.bytes, commit.oldest_at) == ([], 0, None)


def test_what_is_deleted_is_still_no_news(path: Path) -> None:
    store = store_of(path, maximum=100)
    store.commit(messages(1), NOW)
    assert not store.commit(messages(1), NOW).events


def test_a_read_is_bounded_by_events_and_bytes(path: Path) -> None:
    store = store_of(path)
    store.commit(messages(*range(20)), NOW)
    assert [event.number for event in store.read(5, 3, 2**20, NOW)[1]] == [6, 7, 8]
    size = store.read(0, 1, 0, NOW)[1][0].size
    assert len(store.read(0, 100, 3 * size, NOW)[1]) == 3
    assert len(store.read(0, 100, 1, NOW)[1]) == 1, "never none"
    assert store.read(20, 100, 2**20, NOW)[1] == []


def test_sent_messages_are_awaited_until_read(path: Path) -> None:
    store = store_of(path)
    ids = [f"true_{FRIEND}_3E{number}" for number in range(3)]
    store.commit([OwnMessage(name) for name in ids], NOW)
    assert sorted(store.awaited_acks()) == ids
    store.commit([entry(ack(2, "3E0")), entry(ack(3, "3E1"))], NOW)
    store._database.close()
    store = store_of(path)
    assert sorted(store.awaited_acks()) == [ids[0], ids[2]]
    echo = store.commit([entry(message("3E2", fromMe=True))], NOW)
    assert not echo.events, "the session's own message"
    many = [OwnMessage(f"true_{FRIEND}_4E{number}") for number in range(600)]
    for number, own in enumerate(many):
        store.commit([own], NOW + 1 + number)
    assert store.awaited_acks() == [own.message_id for own in reversed(many[100:])]


def test_a_new_login_has_no_history(path: Path) -> None:
    store = store_of(path)
    assert store.commit([Login(NOW - 50 * DAY)], NOW).outbox.floor == NOW, "a new outbox"
    assert store.commit([], NOW + 10, complete_until=NOW + 10).outbox.complete_until == NOW + 10
    store.commit([OwnMessage(f"true_{FRIEND}_3E")], NOW)
    same = store.commit([Login(NOW - 50 * DAY)], NOW + 20).outbox
    assert (same.complete_until, same.floor) == (NOW + 10, NOW)
    other = store.commit([Login(NOW + 30)], NOW + 40).outbox
    assert (other.complete_until, other.floor, other.login) == (NOW + 30, NOW + 30, NOW + 30)
    assert store.awaited_acks() == []


def test_complete_until_never_goes_back(path: Path) -> None:
    store = store_of(path)
    store.commit([], NOW, complete_until=NOW + 10)
    assert store.commit([], NOW, complete_until=NOW + 5).outbox.complete_until == NOW + 10


def test_forgotten_facts_raise_the_floor(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(path, retention=60)
    store.commit(messages(1), NOW)
    kept = store.commit([], NOW + 1.5 * DAY, complete_until=NOW + 1.5 * DAY).outbox
    assert kept.floor == NOW
    assert not store.commit(messages(1), NOW + 1.5 * DAY).events
    later = store.commit([], NOW + 3 * DAY, complete_until=NOW + 3 * DAY).outbox
    assert later.floor == NOW + DAY
    assert store.commit(messages(1), NOW + 3 * DAY).events, "it is forgotten"
    monkeypatch.setattr(event_store, "MAXIMUM_FACTS", 5)
    for number in range(10):
        store.commit(messages(100 + number), NOW + 4 * DAY + number)
    crowded = store.commit([], NOW + 5 * DAY, complete_until=NOW + 5 * DAY).outbox
    assert crowded.floor == NOW + 4 * DAY + 4, "the five latest are known"
    assert not store.commit(messages(105, 109), NOW + 5 * DAY).events
    assert store.commit(messages(104), NOW + 5 * DAY).events


def test_room_is_made_on_the_volume(path: Path) -> None:
    store = store_of(path, maximum=8 * 2**20)
    store.commit(messages(*range(2000), size=2000), NOW)
    store._database.give_back_space()
    before = sum(file.stat().st_size for file in path.parent.iterdir())
    deleted = store.make_room(2 * 2**20, NOW)
    after = sum(file.stat().st_size for file in path.parent.iterdir())
    assert 900 < deleted < 1200
    assert numbers(store)[0] == deleted + 1
    assert before - after >= 1.9 * 2**20
    assert store.make_room(2**30, NOW) == 2000 - deleted, "all that is left"
    assert store.make_room(2**30, NOW) == 0
    assert [event.number for event in store.commit(messages(9999), NOW).events] == [2001]


def fill(store: EventStore) -> int:
    """Store events until the volume is full; return how many there are."""
    for committed in range(10_000):
        try:
            store.commit(messages(committed, size=10_000), NOW)
        except DatabaseError:
            return committed
    raise AssertionError("the volume is not small")


def test_a_full_volume_keeps_what_there_is_and_takes_no_more(tmp_path: Path) -> None:
    with small_volume(tmp_path / "small", "2m") as directory:
        path = directory / "messages.sqlite"
        store = store_of(path, maximum=2**30)
        committed = fill(store)
        assert committed > 30
        assert numbers(store) == list(range(1, committed + 1))
        with pytest.raises(DatabaseError, match="full"):
            store.commit(messages(committed, size=500_000), NOW)
        resize(directory, "8m")
        again = store.commit(messages(committed, size=500_000), NOW)
        assert [event.number for event in again.events] == [committed + 1], "it was no fact yet"
        store._database.close()
        assert numbers(store_of(path)) == list(range(1, committed + 2))


def test_deleting_takes_little_space_itself(tmp_path: Path) -> None:
    with small_volume(tmp_path / "small", "8m") as directory:
        store = store_of(directory / "messages.sqlite", maximum=2**30)
        committed = fill(store)
        resize(directory, "9m")
        assert store.make_room(4 * 2**20, NOW) > 200
        assert shutil.disk_usage(directory).free > 4 * 2**20
        store.commit(messages(committed, size=10_000), NOW)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), st.lists(st.integers(0, 12), max_size=4)),
        st.tuples(st.just("wait"), st.integers(1, 40)),
        st.tuples(st.just("room"), st.integers(1, 4000)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=40)
@given(steps=STEPS)
def test_cursors_deduplication_and_expiry(
    steps: list[tuple[str, object]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever happens: numbers are given once, in order; what is deleted is the oldest; each
    message is told once; a reader at any position gets all that is kept after it.
    """
    path = tmp_path_factory.mktemp("outbox") / "messages.sqlite"
    store = store_of(path, retention=60, maximum=5 * (1000 + OVERHEAD))
    now, told = NOW, dict[int, str]()  # the data of each event, by number
    for step, argument in steps:
        match step, argument:
            case "commit", list():
                commit = store.commit(messages(*argument), now)
                assert commit.before == max(told, default=0)
                for event in commit.events:
                    assert event.number == max(told, default=0) + 1
                    assert event.data not in told.values(), "told once"
                    told[event.number] = event.data
                assert commit.outbox.bytes <= 5 * (1000 + OVERHEAD)
            case "wait", int():
                now += argument
            case "room", int():
                store.make_room(argument, now)
            case _:
                store._database.close()
                store = store_of(path, retention=60, maximum=5 * (1000 + OVERHEAD))
        outbox, events = store.read(0, 1000, 2**30, now)
        assert [event.number for event in events] == list(
            range(outbox.expired + 1, outbox.last + 1)
        )
        assert outbox.last == max(told, default=0)
        assert outbox.bytes == sum(event.size for event in events)
        assert all(told[event.number] == event.data for event in events)
        for position in range(outbox.expired, outbox.last):
            after = store.read(position, 1000, 2**30, now)[1]
            assert [event.number for event in after] == list(range(position + 1, outbox.last + 1))
    store._database.close()


def test_what_is_true_for_longer_than_known_outdates_more(path: Path) -> None:
    store = store_of(path)
    reactions = [(0, "👍"), (2, "👍"), (1, "❤"), (3, "❤")]
    changes = [entry(change("reaction", at, emoji=emoji)) for at, emoji in reactions]
    events = store.commit(changes, NOW).events
    assert [json.loads(event.data)["emoji"] for event in events] == ["👍", "❤"]
    assert not store.commit(changes, NOW).events


def test_a_gap_is_told_each_time(path: Path) -> None:
    store = store_of(path)
    gaps = [intake.gap(GapReason.UNREADABLE)] * 2
    assert [event.kind for event in store.commit(gaps, NOW).events] == ["gap", "gap"]
