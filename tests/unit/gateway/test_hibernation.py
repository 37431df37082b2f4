"""Which sessions sleep, which are worth waiting for, and what is said when the time is up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from wasession_api import names
from wasession_api.v1alpha1 import Phase, RequestStatus, Status
from wasession_gateway.hibernation import (
    ON_THE_WAY,
    becomes_ready,
    is_asleep,
    is_requested,
    still_waking,
)
from wasession_gateway.session import Session, read_session

AT = datetime(2026, 10, 1, 10, tzinfo=UTC)
DONE, PENDING = (RequestStatus(request="w1", at=AT, done=done) for done in (True, False))


def session(phase: Phase, wake: RequestStatus | None = None, **more: Any) -> Session:
    return Session(
        name="s",
        uid="u",
        version="1",
        owner="o",
        client_id="s",
        created_at="2026-10-01T10:00:00Z",
        status=Status(phase=phase, wake=wake),
        **more,
    )


@pytest.mark.parametrize(
    ("annotation", "wake", "requested"),
    [
        (None, None, False),
        ("w1", None, True),
        ("w1", PENDING, True),
        ("w1", DONE, False),
        ("w2", DONE, True),
        (None, PENDING, True),
        (None, DONE, False),
    ],
)
def test_a_wake_up_is_requested_once(
    annotation: str | None, wake: RequestStatus | None, requested: bool
) -> None:
    assert is_requested(session(Phase.HIBERNATED, wake, wake_request=annotation)) is requested


def test_a_long_request_is_the_one_of_the_status() -> None:
    value = "x" * 1000
    wake = {"request": names.request_id(value), "at": "2026-10-01T10:00:00Z", "done": True}
    metadata = {
        "name": "sales",
        "uid": "u",
        "resourceVersion": "1",
        "creationTimestamp": "2026-10-01T10:00:00Z",
        "annotations": {names.ANNOTATION_WAKE: value},
    }
    read = read_session({"metadata": metadata, "status": {"phase": "Hibernated", "wake": wake}})
    assert is_asleep(read)
    assert not is_requested(read)


@pytest.mark.parametrize("phase", Phase)
def test_what_is_worth_waiting_for(phase: Phase) -> None:
    asleep = phase is Phase.HIBERNATED
    assert becomes_ready(session(phase)) is asleep
    assert becomes_ready(session(phase, DONE, wake_request="w1")) is asleep
    assert becomes_ready(session(phase, PENDING)) is (phase in ON_THE_WAY)
    assert not becomes_ready(session(phase, PENDING, suspended=True))
    assert not becomes_ready(session(phase, PENDING, deleting=True))


def test_who_has_waited_is_told_how_long_it_takes() -> None:
    asked_at, now = AT + timedelta(seconds=30), AT + timedelta(seconds=90)
    for wake, seconds in ((None, 60), (DONE, 60), (PENDING, 90)):
        problem = still_waking(session(Phase.RESTORING, wake), asked_at, now)
        assert problem.status == 503
        assert f"has been waking up for {seconds} s: nothing was done" in problem.detail
        assert problem.headers["Retry-After"]
