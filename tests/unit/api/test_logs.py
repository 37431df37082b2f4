"""All programs log with the same keys."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
from wasession_api import logs


@pytest.fixture(autouse=True)
def root() -> Iterator[None]:
    """Give the root logger its handlers back."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_the_fields_of_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(namespace="ns", session="sales", uid=None)
    logging.getLogger("a").warning("%s is away", "it", extra={"error": "e", "session": "other"})
    entry = json.loads(capsys.readouterr().out)
    assert entry.pop("time").endswith("+00:00")
    assert entry == {
        "level": "warning",
        "logger": "a",
        "message": "it is away",
        "namespace": "ns",
        "session": "other",
        "error": "e",
    }


def test_text_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(text=True)
    logging.getLogger("a").warning("it is away")
    assert capsys.readouterr().out.endswith("WARNING  a: it is away\n")
