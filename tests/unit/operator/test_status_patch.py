"""What of a status is written, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.operator.situations import NOW, SETTINGS, VALID, facts, pod, report, session
from wasession_api.v1alpha1 import Phase, Restarts, Status
from wasession_operator.plan import plan
from wasession_operator.status_patch import EVERY, URGENT_EVERY, merge_patch, pause

JSON = st.recursive(
    st.one_of(st.integers(), st.text(max_size=3), st.lists(st.integers(), max_size=2)),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
STATUSES = st.dictionaries(st.sampled_from("xyz"), JSON, max_size=3)


def apply(stored: object, patch: object) -> object:
    """A merge patch, as RFC 7396 has it."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(stored) if isinstance(stored, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = apply(merged.get(name), value)
    return merged


@given(STATUSES, STATUSES)
def test_the_patch_makes_one_of_the_other(stored: dict[str, object], after: dict[str, object]) -> None:
    """Inner objects of the status have one level, but for lists, which are written whole."""
    patch = merge_patch(stored, after)
    shallow = all(not isinstance(v, dict) or all(not isinstance(w, dict) for w in v.values()) for v in stored.values())
    if shallow:
        assert apply(stored, patch) == after
    assert bool(patch) == (stored != after)


@pytest.mark.parametrize(
    ("change", "seconds"),
    [
        ({"phase": Phase.READY}, URGENT_EVERY),
        ({"session_valid": True}, URGENT_EVERY),
        ({"restarts": Restarts(count=1)}, URGENT_EVERY),
        ({"observed_generation": 4}, URGENT_EVERY),
        ({"node_name": "node-2"}, EVERY),
        ({"last_connected": NOW}, EVERY),
    ],
)
def test_what_nobody_waits_for_is_written_together(change: dict[str, object], seconds: float) -> None:
    before = Status(phase=Phase.PENDING, observed_generation=3)
    assert pause(before, before.model_copy(update=change)) == seconds


def test_a_condition_is_waited_for() -> None:
    before = plan(session(VALID), facts(report=report(session_valid=True)), SETTINGS).status
    warned = report(session_valid=True, seq=2, warnings=[{"reason": "VolumeLow", "message": "Nearly full."}])
    after = plan(session(before), facts(report=warned), SETTINGS).status
    assert after.phase is before.phase
    assert pause(before, after) == URGENT_EVERY


def test_a_pod_that_is_well_is_told_with_the_phase_that_follows() -> None:
    before = plan(session(), facts(pod=pod(ready=False)), SETTINGS).status
    after = plan(session(before), facts(), SETTINGS).status
    assert after.phase is before.phase
    assert merge_patch(before.dump(), after.dump())
    assert pause(before, after) == EVERY
    assert pause(after, before) == URGENT_EVERY, "one that is not well any more is told at once"
