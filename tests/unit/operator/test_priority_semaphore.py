"""A few at a time, the most urgent first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from wasession_operator.priority_semaphore import PrioritySemaphore

A, B, C, D = (("ns", name) for name in "abcd")


def test_grants_nothing_before_it_opens() -> None:
    enqueued: list[tuple[str, str]] = []
    semaphore = PrioritySemaphore(2, enqueued.append)
    assert [semaphore.request(key, urgency) for key, urgency in ((A, 3), (B, 1), (C, 2))] == [
        False,
        False,
        False,
    ]
    semaphore.open()
    assert [semaphore.is_held(key) for key in (A, B, C)] == [False, True, True]
    assert list(dict.fromkeys(enqueued)) == [B, C, A], "the holders first"


def test_opening_enqueues_adopted_keys_too() -> None:
    enqueued: list[tuple[str, str]] = []
    semaphore = PrioritySemaphore(1, enqueued.append)
    semaphore.adopt(A)
    semaphore.open()
    assert enqueued == [A]


def test_a_released_permit_goes_to_the_most_urgent() -> None:
    enqueued: list[tuple[str, str]] = []
    semaphore = PrioritySemaphore(1, enqueued.append)
    semaphore.open()
    assert semaphore.request(A)
    assert semaphore.request(A), "it holds it still"
    assert not semaphore.request(B, 2)
    assert not semaphore.request(C, 1)
    semaphore.release(A)
    assert enqueued[-1] == C
    assert not semaphore.is_held(B)
    semaphore.release(C)
    assert semaphore.is_held(B)


def test_a_key_that_requests_is_not_enqueued_as_well() -> None:
    """It would request again and again when something else keeps it from using its permit."""
    enqueued: list[tuple[str, str]] = []
    semaphore = PrioritySemaphore(1, enqueued.append)
    semaphore.open()
    assert semaphore.request(A)
    assert enqueued == []


def test_adopted_keys_count_towards_the_limit() -> None:
    semaphore = PrioritySemaphore(1, lambda _: None)
    semaphore.open()
    semaphore.adopt(A)
    semaphore.adopt(B)
    assert not semaphore.request(C)
    semaphore.release(A)
    assert not semaphore.is_held(C), "two held permits"
    semaphore.release(B)
    assert semaphore.is_held(C)


def test_a_released_request_is_skipped() -> None:
    semaphore = PrioritySemaphore(1, lambda _: None)
    semaphore.open()
    semaphore.request(A)
    semaphore.request(B, 1)
    semaphore.request(C, 2)
    semaphore.release(B)
    semaphore.release(A)
    assert semaphore.is_held(C)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["request", "release"]), st.sampled_from([A, B, C, D]), st.integers(0, 3)
    )
)


@given(st.integers(1, 3), STEPS)
def test_never_too_many_and_never_idle(
    limit: int, steps: list[tuple[str, tuple[str, str], int]]
) -> None:
    semaphore, wanting = PrioritySemaphore(limit, lambda _: None), set()
    semaphore.open()
    for step, key, urgency in steps:
        if step == "request":
            semaphore.request(key, urgency)
            wanting.add(key)
        else:
            semaphore.release(key)
            wanting.discard(key)
        holding = {key for key in (A, B, C, D) if semaphore.is_held(key)}
        assert holding <= wanting
        assert len(holding) == min(limit, len(wanting))


def test_grants_nothing_while_it_is_blocked() -> None:
    enqueued: list[tuple[str, str]] = []
    semaphore = PrioritySemaphore(2, enqueued.append)
    semaphore.open()
    assert semaphore.request(A)
    assert semaphore.block(A)
    assert not semaphore.block(A), "only the first time is news"
    assert not semaphore.request(B)
    semaphore.block(C)
    semaphore.unblock(A)
    assert not semaphore.is_held(B)
    enqueued.clear()
    semaphore.release(C)
    assert semaphore.is_held(B)
    assert B in enqueued
    assert semaphore.blockers == 0


def test_a_holder_is_enqueued_when_another_no_longer_blocks() -> None:
    """It received its permit before the other one blocked, and has not used it yet."""
    enqueued: list[tuple[str, str]] = []
    semaphore = PrioritySemaphore(2, enqueued.append)
    semaphore.open()
    assert semaphore.request(A)
    assert semaphore.request(B)
    semaphore.block(A)
    enqueued.clear()
    semaphore.unblock(A)
    assert enqueued == [B]
