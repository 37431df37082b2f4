"""Tables and ages as the commands print them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from wasession_cli import formatting

from .conftest import make_session

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-5, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (121, "2m1s"),
        (599, "9m59s"),
        (600, "10m"),
        (10799, "179m"),
        (10800, "3h"),
        (11100, "3h5m"),
        (28800, "8h"),
        (172799, "47h"),
        (172800, "2d"),
        (180000, "2d2h"),
        (691200, "8d"),
        (63072000, "2y"),
    ],
)
def test_ages_are_written_as_kubectl_does(seconds: int, expected: str) -> None:
    assert formatting.span(timedelta(seconds=seconds)) == expected


def test_events_are_ordered_and_counted() -> None:
    events: list[dict[str, Any]] = [
        {
            "type": "Warning",
            "reason": "OOMKilled",
            "message": "Killed.",
            "count": 3,
            "lastTimestamp": "2026-11-24T11:59:00Z",
        },
        {
            "type": "Normal",
            "reason": "Ready",
            "message": "The session is ready.",
            "eventTime": "2026-11-24T11:00:00.123456Z",
        },
        {
            "type": "Normal",
            "reason": "New",
            "series": {"count": 2, "lastObservedTime": "2026-11-24T11:30:00.000000Z"},
        },
        {"metadata": {"creationTimestamp": "2026-11-24T10:00:00Z"}},
    ]
    assert formatting.history(events, NOW)[1:] == [
        ["120m", "", "", ""],
        ["59m", "Normal", "Ready", "The session is ready."],
        ["30m", "Normal", "New", " (x2)"],
        ["60s", "Warning", "OOMKilled", "Killed. (x3)"],
    ]


def test_later_rows_are_aligned_with_the_first_ones() -> None:
    lines, widths = formatting.align([["NAME", "PHASE"], ["sales-eu", "Ready"]])
    assert lines == ["NAME       PHASE", "sales-eu   Ready"]
    assert formatting.align([["a", "Authenticating"]], widths)[0] == ["a          Authenticating"]


def test_a_missing_pod_is_explained() -> None:
    session = make_session("sales", "Pending")
    session["status"]["conditions"][0]["message"] = "The pod is being replaced."
    explanation = "session sales has no pod at the moment, it is Pending"
    assert formatting.no_pod(session) == f"{explanation}: The pod is being replaced."
    del session["status"]
    assert formatting.no_pod(session) == explanation


def test_a_session_that_is_being_deleted_says_so_before_its_status_does() -> None:
    session = make_session("sales")
    session["status"] = {"phase": "Ready"}
    session["metadata"]["deletionTimestamp"] = "2026-11-24T11:59:50Z"
    assert formatting.status_of(session).phase == "Terminating"
    assert ("Phase", "Terminating for 10s") in formatting.overview(session, NOW)


def test_the_overview_shows_when_a_session_wakes_and_its_last_backup() -> None:
    sleep = {"since": "2026-11-24T11:00:00Z", "wakeAt": "2026-11-27T11:00:00Z"}
    session = make_session(
        "sales", "Hibernated", hibernation=sleep, lastBackup="2026-11-24T03:00:00Z"
    )
    lines = dict(formatting.overview(session, NOW))
    assert lines["Wakes"] == "2026-11-27T11:00:00Z at the latest"
    assert lines["Last backup"].endswith("9h ago")
    assert "Wakes" not in dict(formatting.overview(make_session("sales"), NOW))


def test_the_overview_shows_what_the_page_runs() -> None:
    sha256 = "0123456789abcdef" * 4
    session = make_session(
        "sales",
        whatsappWebVersion="2.3000.1",
        waJS={"version": "4.7.0", "sha256": sha256},
        whatsappDocument={"sha256": sha256, "since": "2026-11-24T11:00:00Z"},
    )
    lines = dict(formatting.overview(session, NOW))
    assert lines["WhatsApp Web"] == "2.3000.1, wa-js 4.7.0"
    assert lines["Pinned document"].startswith("0123456789ab, since ")
    assert lines["Pinned document"].endswith(", 60m ago")
    session["status"]["waJS"].pop("version")
    del session["status"]["whatsappWebVersion"], session["status"]["whatsappDocument"]
    lines = dict(formatting.overview(session, NOW))
    assert lines["WhatsApp Web"] == "wa-js 0123456789ab"
    assert "Pinned document" not in lines
