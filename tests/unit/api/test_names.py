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


@given(st.text(max_size=300))
def test_label_values_are_valid(text: str) -> None:
    assert LABEL_VALUE.fullmatch(names.label_value(text))
