"""Each key at most once, never twice at a time, and the least patient first."""

from __future__ import annotations

import asyncio

import pytest
from wasession_api.kube.manifests import Key
from wasession_operator.workqueue import WorkQueue

A, B, C = (("ns", name) for name in "abc")


class Fixture:
    """A queue in which every key has the patience set here; none by default."""

    def __init__(self) -> None:
        self.patience: dict[Key, float] = {}
        self.queue = WorkQueue(lambda key: self.patience.get(key, 0.0))

    async def take(self) -> list[Key]:
        """Return all keys that are queued, in order, each processed at once."""
        keys: list[Key] = []

        async def work() -> None:
            while True:
                keys.append(await self.queue.get())
                self.queue.done(keys[-1])

        worker = asyncio.create_task(work())
        await self.queue.join()
        worker.cancel()
        return keys


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


async def test_first_come_first_served(fixture: Fixture) -> None:
    for key in (B, A, C):
        fixture.queue.add(key)
    assert await fixture.take() == [B, A, C]


async def test_a_key_is_queued_once(fixture: Fixture) -> None:
    for key in (A, B, A):
        fixture.queue.add(key)
    assert await fixture.take() == [A, B]


async def test_less_patience_overtakes(fixture: Fixture) -> None:
    fixture.patience[A] = 60.0
    fixture.queue.add(A)
    fixture.queue.add(B)
    fixture.queue.add(C, patience=120.0)
    assert await fixture.take() == [B, A, C]


async def test_a_key_added_with_less_patience_moves_ahead(fixture: Fixture) -> None:
    fixture.queue.add(A, patience=60.0)
    fixture.queue.add(B, patience=30.0)
    fixture.queue.add(A, patience=0.0)
    fixture.queue.add(A, patience=90.0)
    assert await fixture.take() == [A, B], "and never back"


async def test_a_key_added_while_it_is_processed_comes_up_afterwards(fixture: Fixture) -> None:
    fixture.queue.add(A)
    assert await fixture.queue.get() == A
    fixture.queue.add(A)
    fixture.queue.add(B)
    assert await fixture.queue.get() == B, "no other worker gets it meanwhile"
    fixture.queue.done(B)
    fixture.queue.done(A)
    assert await fixture.take() == [A]


async def test_the_patience_of_such_a_key_is_computed_when_it_is_queued(fixture: Fixture) -> None:
    fixture.queue.add(A)
    await fixture.queue.get()
    fixture.queue.add(A)
    fixture.queue.add(B)
    fixture.patience[A] = 60.0
    fixture.queue.done(A)
    assert await fixture.take() == [B, A]


async def test_a_discarded_key_does_not_come_up(fixture: Fixture) -> None:
    fixture.queue.add(A)
    fixture.queue.add(B)
    fixture.queue.discard(A)
    assert A not in fixture.queue
    assert await fixture.take() == [B]
    fixture.queue.add(A)
    assert await fixture.take() == [A]


async def test_a_key_discarded_while_it_is_processed_does_not_come_up_again(
    fixture: Fixture,
) -> None:
    fixture.queue.add(A)
    await fixture.queue.get()
    fixture.queue.add(A)
    fixture.queue.discard(A)
    fixture.queue.done(A)
    assert await fixture.take() == []


async def test_the_longest_wait_counts_from_the_first_add(fixture: Fixture) -> None:
    queue = fixture.queue
    assert queue.longest == 0.0
    queue.add(A)
    queue._added[A] -= 100
    queue.add(A)
    assert queue.longest >= 100
    await queue.get()
    assert queue.longest < 100, "from now on its processing counts"
    queue._processing[A] -= 200
    assert queue.longest >= 200
    queue.done(A)
    assert queue.longest == 0.0
