"""What of a status is written, and how long that may wait."""

from __future__ import annotations

import pytest
from unit.operator.situations import NOW, SETTINGS, VALID, facts, plan, pod, pvc, report, session
from wasession_api.v1alpha1 import Phase, Restarts, Status
from wasession_operator.status_patch import (
    DEBOUNCE_DETAILS,
    DEBOUNCE_PROGRESS,
    DEBOUNCE_START,
    changed_fields,
    debounce,
)


def test_which_fields_differ() -> None:
    assert changed_fields({"a": 1, "b": {"c": 1}}, {"a": 1, "b": {"c": 2}, "d": 3}) == ["b", "d"]
    assert changed_fields({"a": 1, "b": 1}, {"a": 1}) == ["b"]
    assert changed_fields({"a": 1}, {"a": 1}) == []


@pytest.mark.parametrize(
    ("change", "seconds"),
    [
        ({"phase": Phase.READY}, 0.0),
        ({"phase": Phase.AUTHENTICATING}, 0.0),
        ({"phase": Phase.FAILED}, 0.0),
        ({"phase": Phase.STARTING}, DEBOUNCE_START),
        ({"phase": Phase.RESTORING, "pvc_uid": "pvc-uid"}, 0.0),
        ({"session_valid": True}, 0.0),
        ({"restarts": Restarts(count=1)}, 0.0),
        ({"observed_generation": 4}, 0.0),
        ({"node_name": "node-2"}, DEBOUNCE_PROGRESS),
        ({"last_connected": NOW}, DEBOUNCE_DETAILS),
    ],
)
def test_what_nobody_awaits_is_debounced(change: dict[str, object], seconds: float) -> None:
    before = Status(phase=Phase.PENDING, observed_generation=3)
    assert debounce(before, before.model_copy(update=change)) == seconds


def test_the_first_phase_is_written_at_once() -> None:
    assert debounce(Status(), Status(phase=Phase.PENDING)) == 0.0
    assert debounce(Status(phase=Phase.READY), Status(phase=Phase.STARTING)) == 0.0


def test_a_condition_is_written_at_once() -> None:
    before = plan(session(VALID), facts(report=report(session_valid=True)), SETTINGS).status
    warned = report(
        session_valid=True, seq=2, warnings=[{"reason": "VolumeLow", "message": "Nearly full."}]
    )
    after = plan(session(before), facts(report=warned), SETTINGS).status
    assert after.phase is before.phase
    assert debounce(before, after) == 0.0


def test_a_pod_that_becomes_ready_is_written_with_the_phase_that_follows() -> None:
    before = plan(session(), facts(pod=pod(ready=False)), SETTINGS).status
    after = plan(session(before), facts(), SETTINGS).status
    assert after.phase is before.phase
    assert changed_fields(before.dump(), after.dump())
    assert debounce(before, after) == DEBOUNCE_PROGRESS
    assert debounce(after, before) == 0.0, "one that stops being ready is written at once"


def test_messages_alone_are_written_with_what_follows() -> None:
    claim = pvc("Pending")
    before = plan(session(), facts(pod=pod(ready=False), pvc=claim), SETTINGS).status
    claim["spec"]["storageClassName"] = "fast"
    after = plan(session(before), facts(pod=pod(ready=False), pvc=claim), SETTINGS).status
    assert changed_fields(before.dump(), after.dump()) == ["conditions"]
    assert debounce(before, after) == DEBOUNCE_PROGRESS
    bound = plan(session(after), facts(pod=pod(ready=False)), SETTINGS).status
    assert debounce(after, bound) == DEBOUNCE_PROGRESS, (
        "and so is a bound volume while the pod is not ready"
    )


def test_why_a_pod_is_terminated_is_written_at_once() -> None:
    """The operator relies on it, even if the pod was not ready before."""
    before = plan(session(VALID), facts(pod=pod(ready=False)), SETTINGS).status
    asked = session(before, annotations={"restart": "1"})
    assert debounce(before, plan(asked, facts(pod=pod(ready=False)), SETTINGS).status) == 0.0
