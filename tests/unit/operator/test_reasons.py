"""Every reason is said by somebody: a word that nobody says is not in the API."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from wasession_api.v1alpha1 import ConditionType, Phase, Reason

ROOT = Path(__file__).parents[3]
# What only sorts the reasons says none of them.
SORTED = re.compile(
    r"^(USUAL|ENDINGS|TROUBLES|REQUESTED|DISCONNECTS)\b.*?^[})]", re.MULTILINE | re.DOTALL
)
SOURCES = [
    SORTED.sub("", path.read_text())
    for package in ("operator/src", "session-pod/src")
    for path in sorted((ROOT / package).rglob("*.py"))
]


def is_said(enum: str, member: str) -> bool:
    return any(re.search(rf"\b{enum}\.{member}\b", source) for source in SOURCES)


@pytest.mark.parametrize("reason", list(Reason))
def test_a_reason(reason: Reason) -> None:
    assert is_said("Reason", reason.name)


@pytest.mark.parametrize("phase", list(Phase))
def test_a_phase(phase: Phase) -> None:
    assert is_said("Phase", phase.name)


@pytest.mark.parametrize("kind", list(ConditionType))
def test_a_condition(kind: ConditionType) -> None:
    assert is_said("ConditionType", kind.name)
