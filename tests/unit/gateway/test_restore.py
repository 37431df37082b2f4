"""How restore-session proceeds, and when it has its answer."""

from __future__ import annotations

from typing import Any

import pytest
from wasession_api.v1alpha1 import Phase, Status
from wasession_gateway.restore import Step, first_step, outcome, timed_out
from wasession_gateway.session import Session


def session(phase: Phase, pod: str | None = "1", **more: Any) -> Session:
    return Session(
        name="s",
        uid="u",
        version="1",
        owner="o",
        client_id="s",
        created_at="2026-10-01T10:00:00Z",
        status=Status(phase=phase, pod_uid=pod),
        **more,
    )


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (session(Phase.READY), Step.WAIT),
        (session(Phase.SUSPENDED, suspended=True), Step.RESUME),
        (session(Phase.FAILED, suspended=True), Step.RESUME),
        (session(Phase.HIBERNATED), Step.WAKE),
        (session(Phase.HIBERNATED, suspended=True), Step.RESUME),
        (session(Phase.FAILED), Step.RESTART),
        (session(Phase.CONFLICT), Step.RESTART),
        (session(Phase.RECONNECTING), Step.WAIT),
        (session(Phase.RESTORING), Step.WAIT),
        (session(Phase.LOGGED_OUT), Step.WAIT),
    ],
)
def test_first_step(now: Session, expected: Step) -> None:
    assert first_step(now) is expected


@pytest.mark.parametrize(
    ("now", "step", "ready"),
    [
        (session(Phase.READY), Step.WAIT, True),
        (session(Phase.READY, pod="2"), Step.RESTART, True),
        (session(Phase.HIBERNATED), Step.WAKE, None),
        (session(Phase.RESTORING), Step.WAIT, None),
        (session(Phase.RECONNECTING), Step.WAIT, None),
        (session(Phase.SUSPENDED), Step.RESUME, None),
        (session(Phase.FAILED), Step.RESTART, None),
        (session(Phase.FAILED, pod=None), Step.RESTART, None),
        (session(Phase.CONFLICT), Step.RESTART, None),
        (session(Phase.FAILED, pod="2"), Step.RESTART, False),
        (session(Phase.FAILED), Step.WAIT, False),
        (session(Phase.AUTHENTICATING), Step.WAIT, False),
        (session(Phase.PASSKEY_REQUIRED), Step.RESUME, False),
        (session(Phase.LOGGED_OUT, pod="2"), Step.RESTART, False),
        (session(Phase.READY, deleting=True), Step.WAIT, False),
        (None, Step.WAIT, False),
    ],
)
def test_outcome(now: Session | None, step: Step, ready: bool | None) -> None:
    result = outcome(now, step, pod_before="1")
    assert (result.ready if result is not None else None) is ready
    assert result is None or result.final


def test_the_time_is_up() -> None:
    assert not timed_out(session(Phase.RESTORING)).final
    assert timed_out(None).final
