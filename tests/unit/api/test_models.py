"""Durations, defaults and what is read from others."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from wasession_api.base import format_duration, parse_duration
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import AccountStatus, Phase, Spec, account_status


@given(st.integers(0, 10**8))
def test_durations_come_back_as_they_went(seconds: int) -> None:
    assert parse_duration(format_duration(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "2", "m", "1.5h", "-1s", "1s2m", "2 m", "1h 2m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_a_spec_is_complete_by_its_defaults() -> None:
    spec = Spec.model_validate({})
    assert spec.timeouts.initialization == timedelta(minutes=2)
    assert Spec.model_validate(spec.dump()) == spec


def test_an_amount_may_be_a_number() -> None:
    spec = Spec.model_validate({"browser": {"resources": {"limits": {"cpu": 1}}}})
    assert spec.browser.resources.limits["cpu"] == "1"


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_has_an_account_status(phase: Phase) -> None:
    expected = {
        Phase.READY: AccountStatus.READY,
        Phase.AUTHENTICATING: AccountStatus.AUTHENTICATING,
        Phase.STARTING: AccountStatus.ACTIVE,
        Phase.RESTORING: AccountStatus.ACTIVE,
        Phase.SYNCING: AccountStatus.ACTIVE,
    }
    assert account_status(phase) is expected.get(phase, AccountStatus.DISCONNECTED)


def test_a_report_of_a_newer_pod_is_understood() -> None:
    fields = {
        "clientId": "a",
        "startedAt": "2026-01-02T03:04:05Z",
        "seq": 1,
        "phase": "Ready",
        "reason": "New",
    }
    assert Report.model_validate(
        fields | {"somethingNew": 1, "message": "x" * 5000}
    ).message.endswith("…")
    with pytest.raises(ValidationError):
        Report.model_validate(fields | {"phase": "NoPhase"})


def test_a_report_warns_in_words_that_may_be_new() -> None:
    fields = {
        "clientId": "a",
        "startedAt": "2026-01-02T03:04:05Z",
        "seq": 1,
        "phase": "Ready",
        "reason": "Connected",
    }
    assert Report.model_validate(fields).warnings == []
    warned = Report.model_validate(
        fields | {"warnings": [{"reason": "Tomorrow", "message": "m", "level": 3}]}
    )
    assert warned.dump()["warnings"] == [{"reason": "Tomorrow", "message": "m"}]
