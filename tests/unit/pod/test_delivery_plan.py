"""Webhooks: what is delivered next, and what becomes of an event that fails."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wasession_pod.delivery.plan import (
    AWAY_AFTER,
    LONGEST_DELAY,
    REJECTIONS,
    Outcome,
    Progress,
    Queued,
    begin,
    choose,
    delay,
    end,
    reopen,
    rewind,
    skip,
)

HOUR = 3600.0
START = Progress(reached=0)
MOST = 4  # at the same time


def queue(*chats: str, first: int = 1) -> list[Queued]:
    return [Queued(number, chat) for number, chat in enumerate(chats, first)]


def attempt(
    progress: Progress, event: Queued, outcome: Outcome, now: float = 0.0, wish: float = 0.0
) -> Progress:
    flying = begin(progress, [event])
    return end(flying, event, outcome, now, longest_try=72 * HOUR, wish=wish).progress


def numbers(progress: Progress, events: list[Queued], now: float = 0.0) -> list[int]:
    return [event.number for event in choose(progress, events, now, MOST).events]


# --- one after the other --------------------------------------------------------------------------


def test_chats_side_by_side_and_the_events_of_each_in_order() -> None:
    events = queue("a", "a", "b", "c", "b", "d", "e")
    assert numbers(START, events) == [1, 3, 4, 6]
    flying = begin(START, [events[0], events[2]])
    assert numbers(flying, events) == [4, 6]
    assert numbers(attempt(START, events[0], Outcome.DELIVERED), events) == [2, 3, 4, 6]


def test_a_failing_event_holds_up_its_own_chat_alone() -> None:
    events = queue("a", "a", "b")
    failed = attempt(START, events[0], Outcome.FAILED)
    found = choose(failed, events, 0.5, MOST)
    assert [event.number for event in found.events] == [3]
    assert found.wake_at == delay(0)
    assert numbers(failed, events, now=delay(0)) == [1, 3]


def test_what_is_settled_without_a_gap_is_one_number() -> None:
    events = queue("a", "b", "c")
    progress = attempt(START, events[2], Outcome.DELIVERED)
    progress = attempt(progress, events[1], Outcome.DELIVERED)
    assert (progress.settled_to, progress.reached, progress.open) == (0, 3, frozenset({1}))
    progress = attempt(progress, events[0], Outcome.DELIVERED)
    assert (progress.settled_to, progress.reached, progress.open) == (3, 3, frozenset())
    assert skip(progress, [5, 4]).settled_to == 5


def test_progress_stays_small_however_long_a_chat_is_held_up() -> None:
    progress = attempt(START, Queued(1, "a"), Outcome.FAILED)
    for number in range(2, 1000):
        progress = attempt(progress, Queued(number, "b"), Outcome.DELIVERED)
    assert (progress.settled_to, progress.reached, progress.open) == (0, 999, frozenset({1}))


# --- failures -------------------------------------------------------------------------------------


def test_delays_double_up_to_five_minutes() -> None:
    assert [delay(attempts) for attempts in range(4)] == [1, 2, 4, 8]
    assert delay(10**6) == LONGEST_DELAY


def test_an_event_that_the_receiver_rejects_is_dead_after_some_attempts() -> None:
    [event, _] = queue("a", "a")
    progress, now = START, 0.0
    for _ in range(REJECTIONS - 1):
        now += LONGEST_DELAY
        ended = end(begin(progress, [event]), event, Outcome.REJECTED, now, longest_try=72 * HOUR)
        assert not ended.is_dead
        progress = ended.progress
    ended = end(begin(progress, [event]), event, Outcome.REJECTED, now, longest_try=72 * HOUR)
    assert ended.is_dead
    assert ended.progress.settled_to == 1
    assert ended.progress.troubles == {}


def test_an_event_that_only_fails_is_tried_for_as_long_as_the_webhook_says() -> None:
    [event] = queue("a")
    progress = attempt(START, event, Outcome.FAILED, now=0)
    for _ in range(100):
        progress = attempt(progress, event, Outcome.FAILED, now=71 * HOUR)
    assert progress.settled_to == 0
    ended = end(begin(progress, [event]), event, Outcome.FAILED, 72 * HOUR, longest_try=72 * HOUR)
    assert ended.is_dead


def test_a_receiver_that_is_away_is_tried_with_one_event_at_a_time() -> None:
    events = queue("a", "b", "c", "d", "e")
    progress = START
    for event in events[:AWAY_AFTER]:
        progress = attempt(progress, event, Outcome.FAILED)
    assert progress.is_away
    assert choose(progress, events, 0, MOST) == ([], progress.quiet_until)
    assert numbers(progress, events, now=progress.quiet_until) == [1]


def test_once_it_is_back_nothing_waits_any_longer() -> None:
    events = queue("a", "b", "c", "d", "e")
    progress = START
    for _ in range(12):
        progress = attempt(progress, events[0], Outcome.FAILED)
    progress = attempt(progress, events[1], Outcome.DELIVERED, now=10)
    assert numbers(progress, events, now=10) == [1, 3, 4, 5]


def test_retry_after_is_heeded_for_an_hour_at_most() -> None:
    events = queue("a", "b")
    assert attempt(START, events[0], Outcome.THROTTLED, wish=30).quiet_until == 30
    assert attempt(START, events[0], Outcome.THROTTLED, wish=10**9).quiet_until == HOUR
    assert attempt(START, events[0], Outcome.FAILED, wish=30).quiet_until == 0


def test_many_that_fail_at_the_same_moment_are_one_sign_of_absence() -> None:
    events = queue(*"abcdefghijklmnop")
    progress = begin(START, events)
    for event in events:
        progress = end(progress, event, Outcome.FAILED, 0, longest_try=72 * HOUR).progress
    assert progress.is_away
    assert progress.quiet_until == 1, "as after the first failures"


def test_a_clock_that_goes_back_holds_nothing_up() -> None:
    events = queue("a", "b")
    failed = attempt(START, events[0], Outcome.FAILED, now=10 * HOUR)
    throttled = attempt(START, events[0], Outcome.THROTTLED, now=10 * HOUR, wish=HOUR)
    assert numbers(failed, events, now=10 * HOUR) == [2]
    assert numbers(failed, events, now=HOUR) == [1, 2]
    assert numbers(throttled, events, now=HOUR) == [1, 2]


def test_a_receiver_that_wants_no_more_gets_no_more() -> None:
    events = queue("a", "b")
    assert choose(attempt(START, events[0], Outcome.GONE), events, 10**9, MOST) == ([], None)


# --- again ----------------------------------------------------------------------------------------


def test_what_is_reopened_is_delivered_again_in_its_place() -> None:
    events = queue("a", "a", "b")
    done = Progress(reached=3)
    again = reopen(done, [1, 2, 99])
    assert numbers(again, events) == [1]
    again = attempt(again, events[0], Outcome.DELIVERED)
    assert numbers(again, events) == [2]
    assert attempt(again, events[1], Outcome.DELIVERED) == done


def test_a_rewound_webhook_gets_everything_after_a_number_again() -> None:
    events = queue("a", "b", "c")
    progress = rewind(attempt(Progress(reached=2), events[2], Outcome.FAILED), 1)
    assert numbers(progress, events, now=10) == [2, 3]


def test_a_rewind_skips_nothing_that_waits() -> None:
    events = queue("a", "b", "c", "d")
    failed = attempt(Progress(reached=1), events[1], Outcome.FAILED)
    assert numbers(rewind(failed, 3), events, now=10) == [2, 3, 4]
    reopened = reopen(Progress(reached=4), [2])
    assert numbers(rewind(reopened, 3), events) == [2, 4]


# --- whatever happens -----------------------------------------------------------------------------


@given(
    chats=st.lists(st.sampled_from("abc"), max_size=20),
    seed=st.integers(0, 2**32),
    weights=st.lists(st.integers(0, 5), min_size=4, max_size=4),
)
def test_each_event_is_settled_once_and_in_the_order_of_its_chat(
    chats: list[str], seed: int, weights: list[int]
) -> None:
    chance = random.Random(seed)  # noqa: S311
    outcomes = [Outcome.DELIVERED, Outcome.REJECTED, Outcome.FAILED, Outcome.THROTTLED]
    events, progress, now = queue(*chats), START, 0.0
    settled, flying = list[Queued](), list[Queued]()
    for _ in range(2000):
        found = choose(progress, events, now, MOST)
        assert len(flying) + len(found.events) <= MOST or not found.events
        assert not {event.chat for event in flying} & {event.chat for event in found.events}
        progress = begin(progress, found.events)
        flying += found.events
        if not flying:
            if len(settled) == len(events):
                break
            assert found.wake_at is not None, "what waits is looked at again"
            assert found.wake_at > now
            now = found.wake_at
            continue
        event = flying.pop(chance.randrange(len(flying)))
        now += chance.random()
        [outcome] = chance.choices(outcomes, [weights[0] + 1, *weights[1:]])
        ended = end(
            progress, event, outcome, now, longest_try=HOUR, jitter=chance.uniform(0.8, 1.2),
            wish=chance.uniform(0, 100),
        )  # fmt: skip
        progress = ended.progress
        if outcome is Outcome.DELIVERED or ended.is_dead:
            assert progress.is_settled(event.number)
            settled.append(event)
        else:
            assert not progress.is_settled(event.number)
    for chat in "abc":
        mine = [event.number for event in settled if event.chat == chat]
        assert mine == [event.number for event in events if event.chat == chat]
    assert progress == replace(
        Progress(reached=len(events)),
        failures=progress.failures, quiet_until=progress.quiet_until,
    )  # fmt: skip


@pytest.mark.parametrize("numbers", [[], [3], [1, 3], [2, 1, 4]])
def test_skipped_events_are_settled(numbers: list[int]) -> None:
    progress = skip(START, numbers)
    assert all(progress.is_settled(number) == (number in numbers) for number in range(1, 6))
