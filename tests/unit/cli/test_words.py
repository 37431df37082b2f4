"""What the commands say: tables, ages, advice, and the QR's half blocks."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import segno
from hypothesis import given
from hypothesis import strategies as st
from wasession_api.v1alpha1 import Condition, Phase, Reason, Status
from wasession_cli import formatting as words
from wasession_cli import qr

STATUS = Path(__file__).parents[3] / "docs" / "status.md"
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
MODULES = {" ": (False, False), "▀": (True, False), "▄": (False, True), "█": (True, True)}


def status(phase: Phase, *conditions: tuple[str, str, str]) -> Status:
    found = [
        Condition(type=kind, status=truth, reason=reason, last_transition_time=NOW)
        for kind, truth, reason in conditions
    ]
    return Status(
        phase=phase, conditions=found, pod_name="wasession-sales", pvc_name="wasession-sales"
    )


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (121, "2m1s"), (599, "9m59s"), (600, "10m"), (10799, "179m"),
        (10800, "3h"), (11100, "3h5m"), (28800, "8h"), (172799, "47h"), (172800, "2d"), (180000, "2d2h"), (691200, "8d"),
        (63072000, "2y"),
    ],
)  # fmt: skip
def test_ages_are_written_as_kubectl_does(seconds: int, expected: str) -> None:
    assert words.span(timedelta(seconds=seconds)) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (status(Phase.READY, ("Ready", "True", "Connected")), "kubectl wasession send sales"),
        (
            status(Phase.AUTHENTICATING, ("Ready", "False", "WaitingForScan")),
            "kubectl wasession qr sales",
        ),
        (
            status(Phase.LOGGED_OUT, ("Ready", "False", "LoggedOutByPhone")),
            "kubectl wasession qr sales",
        ),
        (
            status(Phase.FAILED, ("Degraded", "True", "PairingExpired")),
            "kubectl wasession qr sales",
        ),
        (
            status(Phase.FAILED, ("Degraded", "True", "SomethingNew")),
            "kubectl wasession restart sales",
        ),
        (
            status(Phase.PASSKEY_REQUIRED, ("Ready", "False", "PasskeyRequired")),
            "Confirm the passkey",
        ),
        (status(Phase.CONFLICT, ("Ready", "False", "OpenedElsewhere")), "spec.whatsapp.takeover"),
        (
            status(Phase.READY, ("Progressing", "False", "UpdatePending")),
            "kubectl wasession restart sales",
        ),
        (status(Phase.STARTING, ("Ready", "False", "PodNotReady")), "goes on by itself"),
        (
            status(Phase.STARTING, ("Degraded", "True", "PodNotReady")),
            "kubectl describe pod wasession-sales",
        ),
        (
            status(Phase.SUSPENDED, ("Ready", "False", "Suspended")),
            "kubectl wasession resume sales",
        ),
        (
            status(Phase.SUSPENDED, ("Degraded", "True", "MemoryLow")),
            "kubectl wasession resume sales",
        ),
        (
            status(
                Phase.READY, ("Ready", "True", "Connected"), ("Degraded", "True", "PhoneOffline")
            ),
            "14 days",
        ),
        (
            status(
                Phase.READY, ("Ready", "True", "Connected"), ("Degraded", "False", "AsExpected")
            ),
            "send sales",
        ),
        (
            status(Phase.PENDING, ("Degraded", "True", "Unschedulable")),
            "kubectl describe pod wasession-sales",
        ),
        (
            status(Phase.PENDING, ("Degraded", "True", "VolumePending")),
            "kubectl describe pvc wasession-sales",
        ),
        (status(Phase.STARTING, ("Ready", "False", "BrowserStarting")), "goes on by itself"),
        (status(Phase.TERMINATING, ("Ready", "False", "Terminating")), "being deleted"),
        (Status(), "goes on by itself"),
    ],
)
def test_advice(found: Status, expected: str) -> None:
    assert expected in words.advice("sales", found)


def test_advice_names_reasons_that_exist_and_keeps_no_placeholder() -> None:
    for reason in words.BY_REASON:
        assert reason in set(Reason)
        assert "{" not in words.advice("sales", status(Phase.FAILED, ("Degraded", "True", reason)))


def test_advice_has_a_word_on_all_that_the_docs_say_needs_somebody() -> None:
    rows = re.findall(r"^\| `(\w+)` \* \| .*? \| (.*) \|$", STATUS.read_text(), re.MULTILINE)
    assert len(rows) > 40
    wanted = {reason for reason, todo in rows if todo != "nothing"}
    assert wanted - set(words.BY_REASON) == set()


def test_events_are_told_in_their_order_and_with_their_number() -> None:
    events: list[dict[str, Any]] = [
        {"type": "Warning", "reason": "OOMKilled", "message": "Killed.", "count": 3, "lastTimestamp": "2026-11-24T11:59:00Z"},
        {"type": "Normal", "reason": "Ready", "message": "The session is ready.", "eventTime": "2026-11-24T11:00:00.123456Z"},
        {"type": "Normal", "reason": "New", "series": {"count": 2, "lastObservedTime": "2026-11-24T11:30:00.000000Z"}},
        {"metadata": {"creationTimestamp": "2026-11-24T10:00:00Z"}},
    ]  # fmt: skip
    assert words.history(events, NOW)[1:] == [
        ["120m", "", "", ""],
        ["59m", "Normal", "Ready", "The session is ready."],
        ["30m", "Normal", "New", " (x2)"],
        ["60s", "Warning", "OOMKilled", "Killed. (x3)"],
    ]


def test_later_rows_stand_under_the_first_ones() -> None:
    lines, widths = words.align([["NAME", "PHASE"], ["sales-eu", "Ready"]])
    assert lines == ["NAME       PHASE", "sales-eu   Ready"]
    assert words.align([["a", "Authenticating"]], widths)[0] == ["a          Authenticating"]


# --- the QR ---------------------------------------------------------------------------------------


PRINTABLE = st.text(
    st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1, max_size=400
)


@given(PRINTABLE, st.sampled_from([1, 2, 4]), st.booleans())
def test_half_blocks_are_the_modules(code: str, zone: int, colors: bool) -> None:
    lines = [
        line.removeprefix(qr.COLORS).removesuffix(qr.RESET)
        for line in qr.half_blocks(qr.matrix(code), zone, colors=colors)
    ]
    rows = [
        [MODULES[character][half] == colors for character in line]
        for line in lines
        for half in (0, 1)
    ]
    expected = [
        [bool(module) for module in row]
        for row in segno.make_qr(code, error="l").matrix_iter(border=zone)
    ]
    assert rows[: len(expected)] == expected
    assert not any(any(row) for row in rows[len(expected) :]), "a last half line is light"


@pytest.mark.parametrize(
    ("columns", "lines", "zone"),
    [
        (100, 50, 4),
        (65, 33, 4),
        (64, 50, 2),
        (100, 32, 2),
        (61, 31, 2),
        (59, 30, 1),
        (58, 50, None),
        (100, 29, None),
    ],
)
def test_the_widest_quiet_zone_that_fits(columns: int, lines: int, zone: int | None) -> None:
    assert qr.quiet_zone(57, columns, lines) == zone
