"""What of a status is written, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.operator.situations import NOW, SETTINGS, VALID, facts, pod, pvc, report, session
from wasession_api.v1alpha1 import Phase, Restarts, Status
from wasession_operator.plan import plan
from wasession_operator.status_patch import LATER, PASSING, delay, merge_patch

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
def test_the_patch_makes_one_of_the_other(
    stored: dict[str, object], after: dict[str, object]
) -> None:
    """Inner objects of the status have one level, but for lists, which are written whole."""
    patch = merge_patch(stored, after)
    shallow = all(
        not isinstance(v, dict) or all(not isinstance(w, dict) for w in v.values())
        for v in stored.values()
    )
    if shallow:
        assert apply(stored, patch) == after
    assert bool(patch) == (stored != after)


@pytest.mark.parametrize(
    ("change", "seconds"),
    [
        ({"phase": Phase.READY}, 0.0),
        ({"session_valid": True}, 0.0),
        ({"restarts": Restarts(count=1)}, 0.0),
        ({"observed_generation": 4}, 0.0),
        ({"node_name": "node-2"}, PASSING),
        ({"last_connected": NOW}, LATER),
    ],
)
def test_what_nobody_waits_for_is_written_together(
    change: dict[str, object], seconds: float
) -> None:
    before = Status(phase=Phase.PENDING, observed_generation=3)
    assert delay(before, before.model_copy(update=change)) == seconds


def test_a_condition_is_waited_for() -> None:
    before = plan(session(VALID), facts(report=report(session_valid=True)), SETTINGS).status
    warned = report(
        session_valid=True, seq=2, warnings=[{"reason": "VolumeLow", "message": "Nearly full."}]
    )
    after = plan(session(before), facts(report=warned), SETTINGS).status
    assert after.phase is before.phase
    assert delay(before, after) == 0.0


def test_a_pod_that_is_well_is_told_with_the_phase_that_follows() -> None:
    before = plan(session(), facts(pod=pod(ready=False)), SETTINGS).status
    after = plan(session(before), facts(), SETTINGS).status
    assert after.phase is before.phase
    assert merge_patch(before.dump(), after.dump())
    assert delay(before, after) == PASSING
    assert delay(after, before) == 0.0, "one that is not well any more is told at once"


def test_words_alone_wait_for_what_comes_with_them() -> None:
    claim = pvc("Pending")
    before = plan(session(), facts(pod=pod(ready=False), pvc=claim), SETTINGS).status
    claim["spec"]["storageClassName"] = "fast"
    after = plan(session(before), facts(pod=pod(ready=False), pvc=claim), SETTINGS).status
    assert merge_patch(before.dump(), after.dump()).keys() == {"conditions"}
    assert delay(before, after) == PASSING
    bound = plan(session(after), facts(pod=pod(ready=False)), SETTINGS).status
    assert delay(after, bound) == PASSING, (
        "and so does a volume that is well, as long as the pod is not"
    )


def test_why_a_pod_has_to_end_is_told_at_once() -> None:
    """The operator relies on it, also where the pod was not well before."""
    before = plan(session(VALID), facts(pod=pod(ready=False)), SETTINGS).status
    asked = session(before, annotations={"restart": "1"})
    assert delay(before, plan(asked, facts(pod=pod(ready=False)), SETTINGS).status) == 0.0
