from __future__ import annotations

import base64
from typing import Any

import pytest
from wasession_api.session_pod.token_derivation import derive_token, derive_tokens, namespace_key
from wasession_api.session_pod.tokens import tokens

ONE, TWO = "1" * 32, "2" * 43


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ({"token": encoded(ONE)}, [ONE]),
        ({"token": encoded(TWO), "previousToken": encoded(ONE)}, [TWO, ONE]),
        ({"token": encoded(f"{ONE}\n"), "previousToken": encoded(ONE)}, [ONE]),
        ({"token": encoded(TWO), "previousToken": encoded("short")}, [TWO]),
        ({"token": encoded(TWO), "previousToken": "no base64"}, [TWO]),
        ({"token": encoded(TWO), "previousToken": None}, [TWO]),
        ({"token": "", "previousToken": encoded(ONE)}, []),
        ({"token": encoded("a line\nbreak" * 4)}, []),
        ({"token": encoded("ü" * 32)}, []),
        ({"token": 7}, []),
        ({}, []),
        (None, []),
    ],
)
def test_tokens(data: Any, found: list[str]) -> None:
    assert tokens({"data": data}) == found


def test_a_secret_without_data() -> None:
    assert tokens({}) == []


MASTER_KEY = bytes(range(32))


def test_operator_and_gateway_derive_the_same_token_in_every_version() -> None:
    """A running pod knows the token that an older operator has derived."""
    key = namespace_key(MASTER_KEY, "sales")
    assert derive_token(key, "uid-1", 0) == "JxqSiwpu8XzHnT5jIXxPpOlD7NEOSPNFQmDr65V5iZc"


def test_no_token_is_that_of_another_namespace_session_or_epoch() -> None:
    keys = [namespace_key(MASTER_KEY, name) for name in ("sales", "sales2", "", "session/uid-1")]
    derived = [derive_token(key, uid, epoch) for key in keys for uid in "ab" for epoch in range(3)]
    assert len({*derived}) == len(derived)


def test_the_previous_token_counts_too() -> None:
    key = namespace_key(MASTER_KEY, "sales")
    assert derive_tokens(key, "a", 0) == [derive_token(key, "a", 0)]
    assert derive_tokens(key, "a", 2) == [derive_token(key, "a", epoch) for epoch in (2, 1)]
