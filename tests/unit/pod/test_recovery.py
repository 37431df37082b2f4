"""The steps of a recovery, their order and their delays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wasession_pod.state.recovery import LIMITS, Backoff, Outage, Step, begin_step, escalate

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECOND = timedelta(seconds=1)
BACKOFF = Backoff(initial=2 * SECOND, maximum=300 * SECOND)
CAUSE = "PageCrashed"


def escalate_and_begin(outage: Outage | None, step: Step, now: datetime = NOW) -> Outage:
    """Escalate, and begin the step."""
    outage = escalate(outage, CAUSE, step, now, BACKOFF)
    assert outage.due is not None
    return begin_step(outage)


@pytest.mark.parametrize(
    ("tries", "seconds"), [(0, 2), (1, 4), (2, 8), (7, 256), (8, 300), (1000, 300)]
)
def test_delays_double_up_to_the_maximum(tries: int, seconds: int) -> None:
    assert BACKOFF.delay(tries) == timedelta(seconds=seconds)


def test_jitter_moves_every_delay() -> None:
    slower = Backoff(BACKOFF.initial, BACKOFF.maximum, jitter=1.2)
    assert slower.delay(0) == timedelta(seconds=2.4)
    assert slower.delay(99) == timedelta(seconds=360)


def test_steps_escalate_up_to_exit() -> None:
    outage, steps = None, []
    while outage is None or outage.step is not Step.EXIT:
        outage = escalate_and_begin(outage, Step.RELOAD)
        steps.append(outage.step)
    assert steps == [Step.RELOAD] * LIMITS[Step.RELOAD] + [Step.RESTART] * LIMITS[Step.RESTART] + [
        Step.EXIT
    ]


@pytest.mark.parametrize("step", [Step.START, Step.OPEN])
def test_a_problem_outside_the_pod_never_ends_the_process(step: Step) -> None:
    outage = None
    for _ in range(100):
        outage = escalate_and_begin(outage, step)
        assert outage.step is step


def test_a_page_may_first_reconnect_by_itself() -> None:
    outage = escalate(None, "ConnectionLost", Step.RELOAD, NOW, BACKOFF, page_first=True)
    assert outage.due == NOW + timedelta(seconds=2 + 4 + 8 + 16 + 32)
    assert (
        escalate(outage, "ConnectionLost", Step.RELOAD, NOW + SECOND, BACKOFF, page_first=True)
        == outage
    )


def test_a_worse_problem_comes_sooner() -> None:
    waiting = escalate(None, "ConnectionLost", Step.RELOAD, NOW, BACKOFF, page_first=True)
    hung = escalate(waiting, "PageHung", Step.RELOAD, NOW, BACKOFF)
    assert (hung.cause, hung.step, hung.due) == ("PageHung", Step.RELOAD, NOW + 2 * SECOND)
    gone = escalate(hung, "BrowserCrashed", Step.RESTART, NOW + SECOND, BACKOFF)
    assert (gone.cause, gone.step, gone.due) == ("BrowserCrashed", Step.RESTART, NOW + 2 * SECOND)


def test_a_problem_outside_the_pod_resets_the_steps() -> None:
    outage = escalate_and_begin(escalate_and_begin(None, Step.RESTART), Step.OPEN)
    assert (outage.step, outage.attempts, outage.total_attempts) == (Step.OPEN, 1, 2)
    outage = escalate_and_begin(outage, Step.RELOAD)
    assert (outage.step, outage.attempts, outage.total_attempts) == (Step.RELOAD, 1, 3)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([s for s in Step if s is not Step.EXIT]), st.booleans(), st.booleans()
        )
    )
)
def test_invariants(signs: list[tuple[Step, bool, bool]]) -> None:
    outage, now = None, NOW
    for asked, page_first, do in signs:
        before = outage
        outage = escalate(before, CAUSE, asked, now, BACKOFF, page_first=page_first)
        assert outage.due is not None, "every problem is followed by a step"
        assert outage.due <= now + max(BACKOFF.maximum, BACKOFF.page_patience)
        if outage.step not in (Step.START, Step.OPEN):
            assert outage.step >= asked or asked is Step.START or asked is Step.OPEN
        if before is not None and before.due is not None:
            assert outage.due <= before.due, "a further sign never makes it later"
        if do:
            now = outage.due
            outage = begin_step(outage)
