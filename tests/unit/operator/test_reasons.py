"""Every phase, condition and reason of the API is set by the operator or the session pod."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from wasession_api.v1alpha1 import ConditionType, Phase, Reason

ROOT = Path(__file__).parents[3]
# Sets of reasons to compare with do not set any.
COMPARED = re.compile(
    r"^((EXPECTED|TERMINATION|FATAL|STALLING)_REASONS|REQUESTED|DISCONNECTS) = \{[^}]*\}",
    re.MULTILINE,
)
SOURCES = [
    COMPARED.sub("", path.read_text())
    for package in ("operator/src", "session-pod/src")
    for path in sorted((ROOT / package).rglob("*.py"))
]


def is_set(enum: str, member: str) -> bool:
    return any(re.search(rf"\b{enum}\.{member}\b", source) for source in SOURCES)


@pytest.mark.parametrize("reason", list(Reason))
def test_a_reason(reason: Reason) -> None:
    assert is_set("Reason", reason.name)


@pytest.mark.parametrize("phase", list(Phase))
def test_a_phase(phase: Phase) -> None:
    assert is_set("Phase", phase.name)


@pytest.mark.parametrize("kind", list(ConditionType))
def test_a_condition(kind: ConditionType) -> None:
    assert is_set("ConditionType", kind.name)
