"""docs/status.md explains every phase, condition and reason, and no other."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

import pytest
from wasession_api import names
from wasession_api.v1alpha1 import ConditionType, Phase, Reason, account_status
from wasession_operator.plan.pod import UNEXPECTED_REASONS

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "status.md").read_text()


def section(title: str) -> str:
    return re.split(r"\n## ", DOCUMENT.partition(f"## {title}\n")[2])[0]


def rows(title: str) -> dict[str, list[str]]:
    """Return the cells of a section's tables, by the name in their first column."""
    lines = [
        line.strip("|").split(" | ")
        for line in section(title).splitlines()
        if line.startswith("| `")
    ]
    return {match[1]: cells for cells in lines if (match := re.search(r"`([^`]+)`", cells[0]))}


@pytest.mark.parametrize(
    ("title", "values"), [("Phases", Phase), ("Conditions", ConditionType), ("Reasons", Reason)]
)
def test_every_name_is_explained(title: str, values: type[StrEnum]) -> None:
    assert set(rows(title)) == set(values)


@pytest.mark.parametrize("phase", list(Phase))
def test_a_phase_has_its_account_status(phase: Phase) -> None:
    assert rows("Phases")[phase][1].strip(" `") == account_status(phase)


@pytest.mark.parametrize("reason", list(Reason))
def test_a_reason_says_what_to_do(reason: Reason) -> None:
    assert all(cell.strip() for cell in rows("Reasons")[reason])
    assert len(rows("Reasons")[reason]) == 3


def test_reasons_that_need_attention_are_marked() -> None:
    by_pod = section("Reasons").partition("### Set by the operator")[0]
    marked = set(re.findall(r"^\| `(\w+)` \*", by_pod, re.MULTILINE))
    reported = set(re.findall(r"^\| `(\w+)`", by_pod, re.MULTILINE))
    assert marked == reported & UNEXPECTED_REASONS


def test_every_annotation_that_a_person_may_set_is_explained() -> None:
    settable = {
        names.ANNOTATION_RESTART,
        names.ANNOTATION_LOGOUT,
        names.ANNOTATION_WAKE,
        names.ANNOTATION_ROTATE_TOKEN,
        names.ANNOTATION_ACCEPT_UPDATE,
        names.ANNOTATION_ACCEPT_DATA_LOSS,
        names.ANNOTATION_EXPECTS_LOGIN,
    }
    assert {row.partition(":")[0] for row in rows("Annotations")} == settable
