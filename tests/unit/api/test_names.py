"""Names made from a session are always valid, and different for different sessions."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from wasession_api import names

DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
SESSION_NAMES = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,198}[a-z0-9])?", fullmatch=True)


def test_a_plain_name_stays_readable() -> None:
    assert names.object_name("sales-eu") == "wasession-sales-eu"


@given(SESSION_NAMES)
def test_object_names_are_dns_labels(name: str) -> None:
    assert DNS_LABEL.fullmatch(names.object_name(name))


@given(SESSION_NAMES, SESSION_NAMES)
def test_object_names_differ(one: str, other: str) -> None:
    assert (names.object_name(one) == names.object_name(other)) == (one == other)


@given(SESSION_NAMES)
def test_no_session_can_have_the_name_of_anothers_objects(name: str) -> None:
    """Somebody may call a session as the objects of another one are called."""
    other = names.object_name(name).removeprefix("wasession-")
    assert other == name or names.object_name(other) != names.object_name(name)


def test_a_name_with_a_hash_is_hashed_again() -> None:
    assert names.object_name("a.b") == "wasession-a-b--2e7336dc8e"
    assert names.object_name("a-b--2e7336dc8e") != "wasession-a-b--2e7336dc8e"
    assert names.object_name("a--b") == "wasession-a--b"


@given(st.text(max_size=1000), st.text(max_size=1000))
def test_requests_are_told_apart_and_bounded(one: str, other: str) -> None:
    assert (names.request_id(one) == names.request_id(other)) == (one == other)
    assert len(names.request_id(one)) <= 128


def test_a_large_request_is_hashed() -> None:
    assert names.request_id("2026-01-02T03:04:05Z") == "2026-01-02T03:04:05Z"
    assert len(names.request_id("x" * 100_000)) < 128


@given(st.text(max_size=300))
def test_label_values_are_valid(text: str) -> None:
    assert LABEL_VALUE.fullmatch(names.label_value(text))
