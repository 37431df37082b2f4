from __future__ import annotations

import base64
from typing import Any

import pytest
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
