"""When a session is looked at, and when not."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any, cast

import aiohttp
import pytest
from unit.operator.situations import SETTINGS
from wasession_api.kube.client import KubeClient
from wasession_api.names import FINALIZER
from wasession_api.v1alpha1 import Status
from wasession_operator.plan import Plan
from wasession_operator.reconcile import WORKERS, Operator
from wasession_operator.reconcile_state import Memory

Manifest = dict[str, Any]
KEY = ("ns", "sales")


def session(
    version: int,
    uid: str = "uid-1",
    finalizers: tuple[str, ...] = (FINALIZER,),
    name: str = "sales",
    **metadata: Any,
) -> Manifest:
    fixed = {
        "name": name,
        "namespace": "ns",
        "uid": uid,
        "resourceVersion": str(version),
        "finalizers": list(finalizers),
    }
    return {"metadata": fixed | metadata, "spec": {}}


def outcome(after: float | None = None, *, done: bool = False) -> Plan:
    return Plan([], Status(), [], None if after is None else timedelta(seconds=after), done)


class Looking(Operator):
    """An operator that only notes its looks; ``then`` happens in each."""

    def __init__(self) -> None:
        super().__init__(SETTINGS, cast(KubeClient, None), cast(aiohttp.ClientSession, None))
        self.looked: list[str] = []  # the names of the sessions, in order
        self.at_it: Counter[str] = Counter()  # how often each is being looked at
        self.most = 0  # sessions that have been looked at at the same time
        self.then: Callable[[int], Plan | None] = lambda _: outcome()

    @property
    def looks(self) -> int:
        return len(self.looked)

    async def _look(self, key: tuple[str, str], memory: Memory) -> Plan | None:
        memory.begin()
        self.looked.append(key[1])
        self.at_it[key[1]] += 1
        assert self.at_it[key[1]] == 1
        self.most = max(self.most, self.at_it.total())
        await asyncio.sleep(0)
        found = self.then(self.looks)
        self.at_it[key[1]] -= 1
        memory.end()
        return found

    async def idle(self) -> None:
        """Returns when nothing is being done."""
        await self._queue.join()


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Looking]:
    operator = Looking()
    operator.cluster.run = asyncio.Event().wait  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(operator.run())
    yield operator
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def know_all(operator: Operator) -> None:
    for watch in operator.cluster.watches:
        watch._synced.set()


@pytest.fixture
async def operator() -> AsyncIterator[Looking]:
    async with running() as found:
        know_all(found)
        yield found


async def test_a_session_is_looked_at_once_though_its_finalizer_comes_later(
    operator: Looking,
) -> None:
    def then(_: int) -> Plan:
        operator.cluster.session_seen(session(6))  # as the API server answers
        return outcome()

    operator.then = then
    operator.seen(session(5, finalizers=()))
    await operator.idle()
    operator.seen(session(6))
    operator.seen(session(7))
    await operator.idle()
    assert operator.looks == 1
    operator.seen(session(8, finalizers=()))
    await operator.idle()
    assert operator.looks == 2, "somebody has taken it away"


async def test_a_session_whose_end_is_only_held_up_by_somebody_else_is_left_alone(
    operator: Looking,
) -> None:
    operator.seen(
        session(5, finalizers=("example.com/other",), deletionTimestamp="2026-01-02T03:04:05Z")
    )
    assert operator.memories == {}


async def test_nothing_is_done_before_all_is_known() -> None:
    async with running() as operator:
        operator.seen(session(5))
        for _ in range(10):
            await asyncio.sleep(0)
        assert operator.looks == 0
        know_all(operator)
        await operator.idle()
        assert operator.looks == 1


async def test_what_changes_during_a_look_is_looked_at(operator: Looking) -> None:
    def then(look: int) -> Plan:
        if look == 1:
            operator.wake(KEY)
            operator.wake(KEY)
        return outcome()

    operator.then = then
    operator.seen(session(5))
    await operator.idle()
    assert operator.looks == 2


async def test_an_alarm_counts_until_the_next_look(operator: Looking) -> None:
    alarmed = asyncio.Event()

    def then(look: int) -> Plan:
        if look == 2:
            alarmed.set()
        return outcome({1: 0.0, 2: 3600.0}.get(look))

    operator.then = then
    operator.seen(session(5))
    await alarmed.wait()
    await operator.idle()
    late = operator.memories[KEY].alarm
    assert late is not None
    operator.wake(KEY)
    await operator.idle()
    assert late.cancelled()
    assert operator.memories[KEY].alarm is None


async def test_what_the_operator_has_written_itself_is_no_news(operator: Looking) -> None:
    operator.seen(session(5))
    await operator.idle()
    memory = operator.memories[KEY]
    memory.written, memory.written_version = Status(), "7"
    operator.seen(session(7))
    assert memory.due is None
    assert memory.written is None
    memory.written, memory.written_version = Status(), "9"
    operator.seen(session(9, annotations={"wasession.dev/restart": "1"}))
    await operator.idle()
    assert operator.looks == 2, "somebody has asked for something at the same time"


async def test_a_session_that_is_woken_all_the_time_keeps_nobody_else_waiting(
    operator: Looking,
) -> None:
    def then(_: int) -> Plan:
        operator.wake(KEY)
        return outcome()

    operator.then = then
    others = asyncio.Event()
    operator.seen(session(5))
    asyncio.get_running_loop().call_soon(others.set)
    await others.wait()
    operator.gone(KEY, "uid-1")


async def test_a_deleted_session_is_forgotten_when_nothing_is_left(operator: Looking) -> None:
    ended = asyncio.Event()

    def then(look: int) -> Plan:
        if look == 3:
            ended.set()
        return outcome(0.0, done=look == 3)

    operator.then = then
    operator.seen(session(5, deletionTimestamp="2026-01-02T03:04:05Z"))
    await ended.wait()
    await operator.idle()
    assert operator.looks == 3
    assert operator.memories == {}
    operator.seen(
        session(6, finalizers=("example.com/other",), deletionTimestamp="2026-01-02T03:04:05Z")
    )
    assert operator.memories == {}, "somebody else holds it"
    assert KEY in operator.cluster.sessions, "it is there as long as the API server has it"
    operator.gone(KEY, "uid-1")
    assert KEY not in operator.cluster.sessions


async def test_another_session_of_the_same_name_takes_the_place_of_the_one_before(
    operator: Looking,
) -> None:
    operator.seen(session(5, deletionTimestamp="2026-01-02T03:04:05Z"))
    await operator.idle()
    operator.seen(session(9, uid="uid-2"))
    assert operator.memories[KEY].uid == "uid-2"
    operator.gone(KEY, "uid-1")
    assert operator.cluster.sessions[KEY]["metadata"]["uid"] == "uid-2"


async def test_the_late_end_of_an_earlier_session_does_not_end_the_present_one(
    operator: Looking,
) -> None:
    operator.seen(session(5))
    operator.seen(session(9, uid="uid-2"))
    operator.gone(KEY, "uid-1")
    await operator.idle()
    assert operator.memories[KEY].uid == "uid-2"
    assert operator.memories[KEY].looked_at


# --- many sessions --------------------------------------------------------------------------------


def names_of(*numbers: int) -> list[str]:
    return [f"s-{number:03}" for number in numbers]


def have_pods(operator: Looking, *sessions: str) -> None:
    for name in sessions:
        operator.cluster.pods.objects["ns", f"wasession-{name}"] = {}


async def test_a_few_are_looked_at_at_a_time_in_the_order_in_which_they_came(
    operator: Looking,
) -> None:
    for number in range(100):
        operator.seen(session(number + 1, name=names_of(number)[0]))
    await operator.idle()
    assert operator.looked == names_of(*range(100))
    assert operator.most == WORKERS


async def test_sessions_that_lack_their_pods_go_first(operator: Looking) -> None:
    have_pods(operator, *names_of(1, 2))
    for number in (1, 2, 3, 4):
        operator.seen(session(number, name=names_of(number)[0]))
    await operator.idle()
    assert operator.looked == names_of(3, 4, 1, 2)


async def test_a_session_that_loses_its_pod_while_it_waits_is_moved_ahead(
    operator: Looking,
) -> None:
    have_pods(operator, *names_of(1, 2))
    for number in (1, 2):
        operator.seen(session(number, name=names_of(number)[0]))
    del operator.cluster.pods.objects["ns", "wasession-s-002"]
    operator.wake(("ns", "s-002"))
    await operator.idle()
    assert operator.looked == names_of(2, 1), "and each once"


async def test_who_waits_for_its_turn_to_start_keeps_nobody_waiting(operator: Looking) -> None:
    have_pods(operator, *names_of(2))
    operator.starts.ask(("ns", "s-001"))
    for number in (1, 2):
        operator.seen(session(number, name=names_of(number)[0]))
    await operator.idle()
    assert operator.looked == names_of(1, 2)


async def test_a_turn_that_others_wait_for_is_not_kept_longer_than_it_has_to_be(
    operator: Looking,
) -> None:
    operator.starts.take(("ns", "s-001"))
    operator.starts.ask(("ns", "s-009"))
    have_pods(operator, *names_of(1))
    for number in (2, 3, 1):
        operator.seen(session(number, name=names_of(number)[0]))
    operator.seen(session(4, name=names_of(4)[0]))
    await operator.idle()
    assert operator.looked == names_of(2, 3, 1, 4), "in the order in which they came"


async def test_sessions_of_which_nothing_is_new_come_last(operator: Looking) -> None:
    have_pods(operator, *names_of(1, 2))
    for number in (1, 2):
        operator.seen(session(number, name=names_of(number)[0]))
    await operator.idle()
    operator.wake_all()
    operator.wake(("ns", "s-002"))
    await operator.idle()
    assert operator.looked == names_of(1, 2, 2, 1)
