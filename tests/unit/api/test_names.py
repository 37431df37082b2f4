"""Names made from a session are always valid, and different for different sessions."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wasession_api import names

DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
SESSION_NAMES = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,198}[a-z0-9])?", fullmatch=True)

MADE = [("wasession-", names.object_name), ("wasession-token-", names.token_secret_name)]


def test_a_plain_name_stays_readable() -> None:
    assert names.object_name("sales-eu") == "wasession-sales-eu"


@pytest.mark.parametrize(("_", "made"), MADE)
@given(name=SESSION_NAMES)
def test_object_names_are_dns_labels(_: str, made: Callable[[str], str], name: str) -> None:
    assert DNS_LABEL.fullmatch(made(name))


@pytest.mark.parametrize(("_", "made"), MADE)
@given(one=SESSION_NAMES, other=SESSION_NAMES)
def test_object_names_differ(_: str, made: Callable[[str], str], one: str, other: str) -> None:
    assert (made(one) == made(other)) == (one == other)


@pytest.mark.parametrize(("prefix", "made"), MADE)
@given(name=SESSION_NAMES)
def test_no_session_can_have_the_name_of_anothers_objects(
    prefix: str, made: Callable[[str], str], name: str
) -> None:
    """Somebody may call a session as the objects of another one are called."""
    other = made(name).removeprefix(prefix)
    assert other == name or made(other) != made(name)


@given(SESSION_NAMES)
def test_no_session_can_mount_anothers_token(name: str) -> None:
    """A session may name Secrets with other prefixes only, and calls itself as it likes."""
    assert names.token_secret_name(name).startswith("wasession-token-")
    assert names.token_secret_name("proxy-corp") == "wasession-token-proxy-corp"


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
