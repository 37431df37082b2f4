"""A few at a time, the most urgent first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from wasession_operator.priority_semaphore import Turns

A, B, C, D = (("ns", name) for name in "abcd")


def test_nobody_gets_a_turn_before_it_is_known_who_wants_one() -> None:
    called: list[tuple[str, str]] = []
    turns = Turns(2, called.append)
    assert [turns.ask(key, urgency) for key, urgency in ((A, 3), (B, 1), (C, 2))] == [
        False,
        False,
        False,
    ]
    turns.open()
    assert [turns.has(key) for key in (A, B, C)] == [False, True, True]
    assert list(dict.fromkeys(called)) == [B, C, A], "the ones with a turn first"


def test_who_was_at_it_before_is_called_too() -> None:
    called: list[tuple[str, str]] = []
    turns = Turns(1, called.append)
    turns.take(A)
    turns.open()
    assert called == [A]


def test_a_turn_that_is_given_back_goes_to_the_next() -> None:
    called: list[tuple[str, str]] = []
    turns = Turns(1, called.append)
    turns.open()
    assert turns.ask(A)
    assert turns.ask(A), "it has it still"
    assert not turns.ask(B, 2)
    assert not turns.ask(C, 1)
    turns.leave(A)
    assert called[-1] == C
    assert not turns.has(B)
    turns.leave(C)
    assert turns.has(B)


def test_who_asks_is_not_called_besides() -> None:
    """It would be woken to ask again, and so on, when something else keeps it from using its turn."""
    called: list[tuple[str, str]] = []
    turns = Turns(1, called.append)
    turns.open()
    assert turns.ask(A)
    assert called == []


def test_who_is_at_it_already_counts() -> None:
    turns = Turns(1, lambda _: None)
    turns.open()
    turns.take(A)
    turns.take(B)
    assert not turns.ask(C)
    turns.leave(A)
    assert not turns.has(C), "two were at it"
    turns.leave(B)
    assert turns.has(C)


def test_who_waits_no_longer_is_passed_over() -> None:
    turns = Turns(1, lambda _: None)
    turns.open()
    turns.ask(A)
    turns.ask(B, 1)
    turns.ask(C, 2)
    turns.leave(B)
    turns.leave(A)
    assert turns.has(C)


STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "leave"]), st.sampled_from([A, B, C, D]), st.integers(0, 3))
)


@given(st.integers(1, 3), STEPS)
def test_never_too_many_and_never_idle(
    limit: int, steps: list[tuple[str, tuple[str, str], int]]
) -> None:
    turns, wanting = Turns(limit, lambda _: None), set()
    turns.open()
    for step, key, urgency in steps:
        if step == "ask":
            turns.ask(key, urgency)
            wanting.add(key)
        else:
            turns.leave(key)
            wanting.discard(key)
        having = {key for key in (A, B, C, D) if turns.has(key)}
        assert having <= wanting
        assert len(having) == min(limit, len(wanting))
