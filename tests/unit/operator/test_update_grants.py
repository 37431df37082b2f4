"""The shard that leads a scope grants updates within the limit, whatever the shards request."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json
from wasession_operator.sharding.update_grants import (
    UpdateNotes,
    grant,
    parse_notes,
)

ANNOTATIONS_MAX = 256 * 2**10  # bytes that the API server accepts
SESSIONS = [f"ns/{letter}" for letter in "abcdef"]
requested = st.dictionaries(st.sampled_from(SESSIONS), st.integers(0, 9), max_size=6).map(
    lambda chosen: {session: f"{session}-{number}" for session, number in chosen.items()}
)


@given(
    st.integers(1, 3),
    requested,
    st.sets(st.sampled_from(SESSIONS)),
    st.sets(st.sampled_from(SESSIONS)),
    st.booleans(),
)
def test_never_more_than_the_limit(
    limit: int, requests: dict[str, str], before: set[str], updating: set[str], halted: bool
) -> None:
    """What is under way goes on; nothing else is granted beyond the limit, or while halted."""
    granted = [requests[session] for session in sorted(before & requests.keys())][:limit]
    after = grant(limit, requests, granted, updating, halted=halted)
    sessions = {session for session, request in requests.items() if request in after}
    under_way = {s for s, r in requests.items() if r in granted} | (updating & requests.keys())
    assert under_way <= sessions
    new = sessions - under_way
    assert not (halted and new)
    assert len(new) <= max(limit - len(under_way | updating), 0)
    if not halted and len(under_way | updating) < limit:
        assert len(sessions | updating) == min(limit, len(requests.keys() | updating))


def test_an_outdated_grant_fits_no_request() -> None:
    assert grant(1, {"ns/a": "new", "ns/b": "other"}, ["old"], [], halted=False) == ("new",)


def test_notes_are_read_as_they_were_written() -> None:
    notes = UpdateNotes({"class/gold": {"ns/a": "1"}}, {"class/gold": ("1",)})
    assert parse_notes(notes.dump()) == notes
    assert UpdateNotes().dump() == ""
    assert parse_notes("") == UpdateNotes()


@pytest.mark.parametrize(
    ("scopes", "sessions", "text"),
    [(5000, 1, "owner"), (1, 5000, "owner"), (300, 1, "\N{SNOWMAN}" * 253), (300, 1, '"' * 253)],
)
def test_an_annotation_has_a_limit(scopes: int, sessions: int, text: str) -> None:
    """However many owners change their sessions at once, and whatever they are called."""
    requests = {
        f"owner/ns/{number:05}{text}": {f"ns/{n:05}": f"{n}" for n in range(sessions)}
        for number in range(scopes)
    }
    grants = {scope: tuple(by_session.values()) for scope, by_session in requests.items()}
    annotation = UpdateNotes(requests, grants).dump()
    assert len(annotation.encode()) < ANNOTATIONS_MAX / 2
    notes = parse_notes(annotation)
    first = next(iter(requests))
    assert notes.requests[first]["ns/00000"] == "0", "the first ones are noted"
    assert notes.grants[first][0] == "0"
    assert len(notes.requests) >= min(scopes, 30)
    assert UpdateNotes(notes.requests, notes.grants).dump() == annotation


def test_as_many_sessions_of_a_rollout_are_noted_as_there_is_room_for() -> None:
    """The others follow when these have begun."""
    sessions = tuple(f"{'ns' * 30}/{number:04}{'x' * 40}" for number in range(1000))
    annotation = UpdateNotes(admitted={"gold": ("b", *sessions)}).dump()
    assert len(annotation.encode()) < ANNOTATIONS_MAX / 2
    revision, *noted = parse_notes(annotation).admitted["gold"]
    assert revision == "b"
    assert len(noted) > 100
    assert tuple(noted) == sessions[: len(noted)]


@pytest.mark.parametrize(
    "annotation",
    ["{", "[]", "null", "1", '{"requests": 1}', '{"requests": {}, "grants": {"a": 1}}'],
)
def test_what_somebody_has_edited_says_nothing(annotation: str) -> None:
    assert parse_notes(annotation) == UpdateNotes()


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_any_json_is_read(payload: Any) -> None:
    assert parse_notes(to_json({"requests": payload, "grants": payload}).decode()) is not None
