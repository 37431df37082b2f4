"""What counts of a run, and what the table says of it."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from bench.density.report import picture, table
from bench.density.results import End, Faults, Results, Round, Run, Swap, Usage


def a_round(sessions: int, slow: int = 0, swapped: float = 0) -> Round:
    """Return a round in which some of the sessions were slow; each has 200 MiB."""
    resident = 200 * sessions - swapped - 20
    return Round(
        ready_seconds=5,
        milliseconds=[100.0] * (sessions - slow) + [5000.0] * slow,
        usage=Usage(
            anonymous=resident, shared=20, swapped=swapped, compressed=0, files=300, kernel=10
        ),
        faults=Faults(major=30 * sessions, swap_reads=10, zswap_reads=0),
    )


def a_run(
    *rounds: Round, contender: str = "session pod", swap: Swap = "none", end: End = "slow"
) -> Run:
    return Run(
        contender=contender,
        limit_mib=2048,
        swap=swap,
        modules=0,
        rounds=list(rounds),
        end=end,
        other_chromium=0,
    )


@pytest.mark.parametrize(
    ("sessions", "slow", "good"),
    [(1, 0, True), (1, 1, False), (10, 1, False), (40, 2, True), (40, 3, False)],
)
def test_a_round_is_good_while_its_95th_percentile_is(sessions: int, slow: int, good: bool) -> None:
    assert a_round(sessions, slow).good is good


def test_the_last_good_round_counts() -> None:
    assert a_run(a_round(1), a_round(2), a_round(3, slow=3)).sessions == 2


def test_a_killed_session_does_not_count() -> None:
    assert a_run(a_round(1), a_round(2), end="OOM kill").sessions == 2


def test_a_node_may_hold_none() -> None:
    run = a_run(end="not Ready")
    assert run.sessions == 0
    assert "| 0 | - | - | - / - | - / - | - | not Ready |" in table(Results(runs=[run]))


def test_the_table_has_a_row_for_each_contender_on_each_node() -> None:
    swapping = [a_round(1), a_round(2), a_round(3), a_round(4, swapped=200)]
    found = Results(
        conditions={"swap file": "on a disk"},
        runs=[
            a_run(*swapping, swap="file", end="OOM kill"),
            a_run(a_round(1), a_round(2), a_round(3, slow=3)),
            a_run(a_round(1), contender="whatsapp-web.js", end="not Ready"),
        ],
    )
    page = "2 GiB, the stand-in's own page"
    assert table(found).splitlines()[2:] == [
        f"| {page} | no swap | session pod | 2 | 200 | 0 % | 100 / 100 | 100 / 100 | 30 | slow |",
        f"| {page} | no swap | whatsapp-web.js | 1 | 200 | 0 % | 100 / 100 | 100 / 100 | 30 "
        "| not Ready |",
        f"| {page} | swap file | session pod | 4 | 200 | 25 % | 100 / 100 | 100 / 100 | 30 "
        "| OOM kill |",
        "",
        "swap file on a disk",
    ]


def test_repeated_runs_are_one_row_with_their_span() -> None:
    found = Results(runs=[a_run(a_round(1)), a_run(a_round(1), a_round(2), a_round(3))])
    assert "| 2 (1 to 3) |" in table(found)
    assert len(table(found).splitlines()) == 4


def test_the_picture_has_a_bar_for_each_row() -> None:
    found = Results(runs=[a_run(a_round(1)), a_run(a_round(1), contender="whatsapp-web.js")])
    text = "".join(ElementTree.fromstring(picture(found)).itertext())  # noqa: S314
    assert "no swap: session pod" in text
    assert "no swap: whatsapp-web.js" in text
