"""When a node is full."""

from __future__ import annotations

import asyncio

import pytest

from bench.density.measures import NoAnswer, NotReady, until_full
from bench.density.results import SLOW, End, Faults, Round, Usage


class Scenario:
    """A node with so many sessions that are served well; then ``end`` comes."""

    def __init__(self, most: int, end: End) -> None:
        self._most, self._end = most, end
        self._sessions = self._kills = 0

    async def add(self) -> float:
        self._sessions += 1
        if self._sessions > self._most:
            if self._end == "not Ready":
                raise NotReady
            if self._end == "OOM kill":
                self.kill()
                await asyncio.Event().wait()  # a session that is killed tells nothing
        return 1.5

    async def ask_all(self, ready_seconds: float) -> Round:
        slow = self._sessions > self._most
        if slow and self._end == "no answer":
            raise NoAnswer
        return Round(
            ready_seconds=ready_seconds,
            milliseconds=[SLOW + 1 if slow else SLOW] * self._sessions,
            usage=Usage(anonymous=1, shared=0, swapped=0, compressed=0, files=0, kernel=0),
            faults=Faults(major=0, swap_reads=0, zswap_reads=0),
        )

    def kill(self) -> None:
        self._kills += 1

    def oom_kills(self) -> int:
        return self._kills


@pytest.mark.parametrize("most", [0, 3])
@pytest.mark.parametrize(
    ("end", "rounds_afterwards"), [("OOM kill", 0), ("not Ready", 0), ("no answer", 0), ("slow", 1)]
)
async def test_it_ends_when_a_session_is_not_served(
    most: int, end: End, rounds_afterwards: int
) -> None:
    node = Scenario(most, end)
    rounds, ended_by = await until_full(node.add, node.ask_all, node.oom_kills)
    assert ended_by == end
    assert [each.sessions for each in rounds if each.good] == [*range(1, most + 1)]
    assert len(rounds) == most + rounds_afterwards


async def test_an_oom_kill_explains_what_else_goes_wrong() -> None:
    node = Scenario(1, "OOM kill")

    async def add() -> float:
        node.kill()
        raise NotReady

    assert await until_full(add, node.ask_all, node.oom_kills) == ([], "OOM kill")
