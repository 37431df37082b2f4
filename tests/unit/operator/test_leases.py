"""Replicas that acquire, renew, lose and release the Leases of shards, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import itertools
import random
import selectors
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from types import SimpleNamespace
from typing import Any, ParamSpec, TypeVar, cast
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wasession_api.kube.client import (
    Answers,
    Conflict,
    KubeClient,
    Rejected,
    Resource,
    Unavailable,
)
from wasession_api.kube.manifests import Key, Manifest
from wasession_operator.sharding import leases as leases_module
from wasession_operator.sharding.lease import (
    ANNOTATION_NAMESPACES,
    ANNOTATION_OPERATOR,
    LABEL_LEASE,
    Installation,
    shard_lease_name,
)
from wasession_operator.sharding.leases import HeldLease, Leases

DURATION = 10.0  # seconds; a holder acts for 6 s after a renewal, and renews every 2 s
DEADLINE, PERIOD = 6.0, 2.0
INSTALLATION = Installation("system", "own", (), 1)
OTHER = Installation("elsewhere", "other", (), 1)
P = ParamSpec("P")
T = TypeVar("T")


# --- virtual time ---------------------------------------------------------------------------------


class VirtualTime(selectors.SelectSelector):
    """Instead of waiting for a timer, moves the clock to it."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        assert ready or timeout is not None, "everything waits, and nothing will ever happen"
        if not ready:
            self.now += timeout or 0
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.clock = VirtualTime()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a test function of a coroutine function."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            clock = SimpleNamespace(monotonic=runner.get_loop().time)
            with mock.patch.object(leases_module, "time", clock):
                runner.run(test(*args, **kwargs))

    return run


def now() -> float:
    return asyncio.get_running_loop().time()


# --- the API server -------------------------------------------------------------------------------


def merge(present: Any, patch: Any) -> Any:
    """Return the result of a JSON merge patch."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(present) if isinstance(present, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


class Server:
    """An API server that has Leases; each write is atomic, and optimistic if it has a version."""

    def __init__(self) -> None:
        self.objects: dict[Key, Manifest] = {}
        self.watches: list[asyncio.Queue[Manifest]] = []
        self.written: dict[Key, list[float]] = {}  # when
        self._numbers = itertools.count(1)

    @property
    def version(self) -> str:
        return str(next(self._numbers))

    def store(self, key: Key, obj: Manifest | None) -> Manifest:
        before = self.objects.pop(key, None)
        known, kind = before is not None and is_selected(before), "DELETED"
        if obj is not None:
            obj = copy.deepcopy(obj)
            uid = before["metadata"]["uid"] if before is not None else f"uid-{self.version}"
            obj["metadata"] |= {"uid": uid, "resourceVersion": self.version}
            self.objects[key] = obj
            self.written.setdefault(key, []).append(now())
            if is_selected(obj):
                kind = "MODIFIED" if known else "ADDED"
        last = obj if obj is not None else before
        assert last is not None
        event = {"type": kind, "object": merge(last, {})}
        event["object"]["metadata"] |= {"resourceVersion": self.version}
        if known or kind == "ADDED":
            for watch in self.watches:
                watch.put_nowait(copy.deepcopy(event))
        return copy.deepcopy(last)

    def get(self, key: Key) -> Manifest | None:
        return copy.deepcopy(self.objects.get(key))

    def create(self, key: Key, manifest: Manifest) -> Manifest:
        if key in self.objects:
            raise Conflict("it exists already")
        return self.store(key, manifest)

    def patch(self, key: Key, patch: Manifest) -> Manifest | None:
        present = self.objects.get(key)
        if present is None:
            return None
        for field in ("uid", "resourceVersion"):
            if patch["metadata"].get(field) not in (None, present["metadata"][field]):
                raise Conflict("it has changed")
        return self.store(key, merge(present, patch))

    def delete(self, key: Key, uid: str | None = None) -> None:
        present = self.objects.get(key)
        if present is not None and uid in (None, present["metadata"]["uid"]):
            self.store(key, None)

    def edit(self, key: Key, **patch: Any) -> None:
        """Change a Lease, as a person does."""
        self.store(key, merge(self.objects[key], patch))


def is_selected(obj: Manifest) -> bool:
    return LABEL_LEASE in (obj["metadata"].get("labels") or {})


class Link:
    """A client of the API server, over a network that may fail."""

    def __init__(self, server: Server, delay: Callable[[], float]) -> None:
        self.answers = Answers()
        self.server = server
        self.delay = delay  # seconds for one way
        self.watch_delay: Callable[[], float] = delay
        self.error: Exception | None = None  # that requests end with
        self.is_cut = False  # nothing passes
        self.rejects_writes = False

    async def _pass(self) -> None:
        if self.error is not None:
            raise self.error
        await asyncio.sleep(self.delay())
        if self.is_cut:
            await asyncio.get_running_loop().create_future()

    async def _request(self, call: Callable[[], T]) -> T:
        await self._pass()
        result = call()
        await self._pass()
        return result

    async def get(self, _: Resource, *key: str) -> Manifest | None:
        return await self._request(lambda: self.server.get((key[0], key[1])))

    async def create(self, _: Resource, manifest: Manifest) -> Manifest:
        return await self._write(lambda key: self.server.create(key, manifest), manifest)

    async def apply(self, _: Resource, manifest: Manifest) -> Manifest:
        def apply(key: Key) -> Manifest:
            return self.server.store(key, merge(self.server.objects.get(key), manifest))

        return await self._write(apply, manifest)

    async def _write(self, call: Callable[[Key], T], manifest: Manifest) -> T:
        if self.rejects_writes:
            raise Rejected("leases is forbidden")
        metadata = manifest["metadata"]
        return await self._request(lambda: call((metadata["namespace"], metadata["name"])))

    async def patch(self, _: Resource, *key_and_patch: Any) -> Manifest | None:
        namespace, name, patch = key_and_patch
        named = {"metadata": {"namespace": namespace, "name": name}}
        return await self._write(lambda key: self.server.patch(key, patch), named)

    async def delete(self, _: Resource, namespace: str, name: str, uid: str) -> None:
        await self._request(lambda: self.server.delete((namespace, name), uid))

    async def pages(self, _: Resource, *__: Any, page_size: int = 100) -> AsyncIterator[Manifest]:
        def selected() -> list[Manifest]:
            return [copy.deepcopy(o) for o in self.server.objects.values() if is_selected(o)]

        items = await self._request(selected)
        yield {"metadata": {"resourceVersion": self.server.version}, "items": items}

    async def watch(self, *_: Any) -> AsyncGenerator[Manifest]:
        events: asyncio.Queue[Manifest] = asyncio.Queue()
        self.server.watches.append(events)
        try:
            for obj in self.server.objects.values():
                if is_selected(obj):  # what has changed since the list
                    events.put_nowait({"type": "MODIFIED", "object": copy.deepcopy(obj)})
            while True:
                event = await events.get()
                await asyncio.sleep(self.watch_delay())
                if self.is_cut or self.error is not None:
                    raise Unavailable("the connection was lost")
                yield event
        finally:
            self.server.watches.remove(events)


# --- replicas -------------------------------------------------------------------------------------


class Replica:
    """A replica that notes what it is told, and fails when it may act while another may."""

    def __init__(self, world: World, installation: Installation, pod: str) -> None:
        self.world = world
        self.pod = pod
        self.link = Link(world.server, world.delay)
        kube = cast(KubeClient, self.link)
        self.leases = Leases(kube, installation, pod, "", DURATION)
        self.acting: dict[int, HeldLease] = {}
        self.events: list[tuple[str, int, float]] = []
        self.last_sent: dict[int, float] = {}
        self.finishing: list[float] = []  # timeouts
        self.finishes = True  # in time
        self._tasks = [
            asyncio.create_task(self.leases.informer.run()),
            asyncio.create_task(self.leases.run(self)),
        ]

    @property
    def run(self) -> asyncio.Task[None]:
        return self._tasks[1]

    def times(self, kind: str, index: int = 0) -> list[float]:
        return [at for event, of, at in self.events if (event, of) == (kind, index)]

    def start_shard(self, index: int, lease: HeldLease) -> None:
        assert index not in self.acting
        for other in self.world.replicas:
            for number, held in other.acting.items():
                same = other.leases.installation.shares_leases_with(self.leases.installation)
                if other is not self and (number == index or not same):
                    assert held.remaining() <= 0, f"{self.pod} and {other.pod} would act"
        self.acting[index] = lease
        self._note("start", index)

    async def finish_shard(self, index: int, timeout: float) -> bool:
        self._note("finish", index)
        self.finishing.append(timeout)
        await asyncio.sleep(timeout / 2)
        del self.acting[index]
        return self.finishes

    async def stop_shard(self, index: int) -> None:
        lease = self.acting.pop(index)
        self.last_sent[index] = lease.sent
        self._note("stop", index)

    def desired_updates(self, index: int) -> str:
        return ""

    def _note(self, kind: str, index: int) -> None:
        self.events.append((kind, index, now()))

    async def kill(self) -> None:
        """End without a word; its own clock goes on until it would have stopped."""
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        errors = [error for error in results if isinstance(error, Exception)]
        if errors:
            raise errors[0]


class World:
    """An API server and replicas of one or several installations."""

    def __init__(self, delay: Callable[[], float] = lambda: 0.01) -> None:
        self.server = Server()
        self.delay = delay
        self.replicas: list[Replica] = []

    def add(self, pod: str = "pod-a", installation: Installation = INSTALLATION) -> Replica:
        replica = Replica(self, installation, pod)
        self.replicas.append(replica)
        return replica

    def holder(self, index: int = 0, installation: Installation = INSTALLATION) -> str | None:
        obj = self.server.objects.get(lease_key(index, installation))
        return None if obj is None else obj["spec"].get("holderIdentity")

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, and fail if a replica has failed."""
        await asyncio.sleep(seconds)
        for replica in self.replicas:
            if replica.run.done() and not replica.run.cancelled():
                replica.run.result()


def lease_key(index: int = 0, installation: Installation = INSTALLATION) -> Key:
    return installation.namespace, shard_lease_name(installation, index)


@contextlib.asynccontextmanager
async def world_of(delay: Callable[[], float] = lambda: 0.01) -> AsyncIterator[World]:
    world = World(delay)
    try:
        yield world
    finally:
        for replica in world.replicas:
            await replica.kill()


@in_virtual_time
async def test_a_replica_alone_acquires_all_shards_and_renews_them() -> None:
    async with world_of() as world:
        installation = Installation("system", "own", ("a",), 3)
        replica = world.add(installation=installation)
        await world.pass_time(1)
        for _ in range(60):
            await world.pass_time(0.5)
            assert sorted(replica.acting) == [0, 1, 2]
            least = min(held.remaining() for held in replica.acting.values())
            assert least > DEADLINE - PERIOD - 0.1
        assert [event for event, *_ in replica.events] == ["start"] * 3
        key = lease_key(2, installation)
        writes = world.server.written[key]
        assert 14 <= len(writes) <= 17
        spec = world.server.objects[key]["spec"]
        assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("pod-a", 0)
        assert spec["leaseDurationSeconds"] == 10
        assert replica.leases.error is None


@in_virtual_time
async def test_a_lease_that_somebody_annotates_is_kept() -> None:
    async with world_of() as world:
        replica = world.add()
        for number in range(20):
            await world.pass_time(1.3)
            note = {"annotations": {"example.com/note": str(number)}}
            world.server.edit(lease_key(), metadata=note)
        assert [event for event, *_ in replica.events] == ["start"]
        metadata = world.server.objects[lease_key()]["metadata"]
        assert metadata["annotations"]["example.com/note"] == "19"
        assert world.server.written[lease_key()][-1] > now() - PERIOD


@in_virtual_time
async def test_a_lease_with_another_holder_is_lost_at_once() -> None:
    async with world_of() as world:
        replica = world.add()
        await world.pass_time(3)
        lease = replica.acting[0]
        edited = now()
        world.server.edit(lease_key(), spec={"holderIdentity": "somebody"})
        await world.pass_time(PERIOD + 0.1)
        assert replica.acting == {}
        assert lease.remaining() <= 0, "what it has begun sends nothing more"
        assert world.holder() == "somebody"
        await world.pass_time(2 * DURATION)
        [_, again] = replica.times("start")
        assert again > edited + DURATION - PERIOD, "its last holder would have lost it by then"


@in_virtual_time
async def test_a_deleted_lease_is_created_again_by_its_holder() -> None:
    async with world_of() as world:
        replica, other = world.add("pod-a"), world.add("pod-b")
        await world.pass_time(3)
        holder = replica if replica.acting else other
        before = world.server.objects[lease_key()]
        world.server.delete(lease_key())
        await world.pass_time(PERIOD + 0.1)
        after = world.server.objects[lease_key()]
        assert after["spec"]["holderIdentity"] == holder.pod
        assert after["metadata"]["uid"] != before["metadata"]["uid"]
        await world.pass_time(2 * DURATION)
        assert len(replica.events) + len(other.events) == 1, "and none of them has noticed"


@in_virtual_time
async def test_a_lease_without_its_holder_is_repaired() -> None:
    """A person has edited it: nobody else acts, as the holder does until it finds out."""
    async with world_of() as world:
        replica, other = world.add("pod-a"), world.add("pod-b")
        await world.pass_time(3)
        holder = replica if replica.acting else other
        world.server.edit(lease_key(), spec={"holderIdentity": ""})
        await world.pass_time(PERIOD + 1)
        assert world.holder() == holder.pod
        await world.pass_time(2 * DURATION)
        assert len(replica.events) + len(other.events) == 1, "and none of them has noticed"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("labels", {LABEL_LEASE: None}),
        ("annotations", {ANNOTATION_OPERATOR: None}),
        ("annotations", {ANNOTATION_OPERATOR: "somebody/else"}),
        ("annotations", {ANNOTATION_NAMESPACES: "x"}),
    ],
)
@in_virtual_time
async def test_an_edited_lease_is_repaired(field: str, value: dict[str, str | None]) -> None:
    async with world_of() as world:
        replica, other = world.add("pod-a"), world.add("pod-b")
        await world.pass_time(3)
        holder = replica if replica.acting else other
        before = copy.deepcopy(world.server.objects[lease_key()]["metadata"])
        world.server.edit(lease_key(), metadata={field: value})
        newcomer = world.add("pod-0")
        await world.pass_time(PERIOD + 1)
        assert world.server.objects[lease_key()]["metadata"][field] == before[field]
        assert list(holder.acting) == [0]
        assert newcomer.events == []


@pytest.mark.parametrize("refused", [False, True], ids=["no answer", "refused"])
@in_virtual_time
async def test_without_the_api_server_a_replica_stops_in_time(refused: bool) -> None:
    async with world_of() as world:
        replica = world.add("pod-a")
        await world.pass_time(3)
        other = world.add("pod-b")
        await world.pass_time(3)
        lease = replica.acting[0]
        replica.link.is_cut = not refused
        replica.link.error = Unavailable("connection refused") if refused else None
        await world.pass_time(30)
        [stopped] = replica.times("stop")
        renewed = world.server.written[lease_key()]
        before = max(at for at in renewed if at <= stopped)
        assert stopped <= replica.last_sent[0] + DEADLINE + 0.001
        assert lease.remaining() <= 0
        [started] = other.times("start")
        assert before + DURATION <= started <= before + DURATION + 1
        assert world.server.objects[lease_key()]["spec"]["leaseTransitions"] == 1
        replica.link.is_cut, replica.link.error = False, None
        await world.pass_time(30)
        assert replica.acting == {}
        assert list(other.acting) == [0]


@in_virtual_time
async def test_a_short_outage_is_survived() -> None:
    async with world_of() as world:
        replica = world.add()
        await world.pass_time(3)
        for error in (Unavailable("503"), Rejected("forbidden")):
            replica.link.error = error
            await world.pass_time(3)
            replica.link.error = None
            await world.pass_time(3)
        assert [event for event, *_ in replica.events] == ["start"]
        assert replica.acting[0].remaining() > 0


@in_virtual_time
async def test_a_renewal_without_an_answer_is_no_conflict() -> None:
    """It was written, and its answer was lost."""
    async with world_of() as world:
        replica = world.add()
        await world.pass_time(3)
        patch = world.server.patch
        answered: list[Manifest | None] = []

        def lost(key: Key, body: Manifest) -> Manifest | None:
            answered.append(patch(key, body))
            raise Unavailable("connection reset")

        with mock.patch.object(world.server, "patch", lost):
            await world.pass_time(PERIOD)
        assert answered
        await world.pass_time(DURATION)
        assert [event for event, *_ in replica.events] == ["start"]


@in_virtual_time
async def test_a_process_that_is_paused_has_lost_its_shards() -> None:
    """As a machine that sleeps: its timers are late, and its requests would be too."""
    async with world_of() as world:
        replica = world.add("pod-a")
        await world.pass_time(3)
        other = world.add("pod-b")
        await world.pass_time(1)
        await replica.kill()
        lease = replica.acting[0]
        await world.pass_time(30)
        assert lease.remaining() <= 0
        assert list(other.acting) == [0]


@in_virtual_time
async def test_a_restarted_replica_takes_its_own_leases_over_at_once() -> None:
    async with world_of() as world:
        replica = world.add("pod-a")
        await world.pass_time(3)
        await replica.kill()
        replica.acting.clear()
        again = world.add("pod-a")
        await world.pass_time(1)
        assert list(again.acting) == [0]


@in_virtual_time
async def test_at_its_end_a_replica_gives_its_shards_to_the_next() -> None:
    async with world_of() as world:
        installation = Installation("system", "own", (), 2)
        replica = world.add("pod-a", installation)
        await world.pass_time(1)
        assert sorted(replica.acting) == [0, 1]
        other = world.add("pod-b", installation)
        await world.pass_time(5)
        assert (len(replica.acting), len(other.acting)) == (1, 1)
        [mine] = replica.acting
        stopping = now()
        replica.leases.stop()
        await replica.run
        assert [event for event, *_ in replica.events] == ["start", "start", "finish", "finish"]
        assert all(0 < timeout <= PERIOD for timeout in replica.finishing)
        assert ("system", "own-member-pod-a") not in world.server.objects
        await world.pass_time(1)
        assert sorted(other.acting) == [0, 1]
        assert other.times("start", mine)[0] < stopping + PERIOD + 1
        assert world.server.objects[lease_key(mine, installation)]["spec"]["leaseTransitions"] >= 1


@in_virtual_time
async def test_the_last_replica_leaves_released_leases_behind() -> None:
    async with world_of() as world:
        replica = world.add()
        await world.pass_time(3)
        replica.leases.stop()
        await replica.run
        assert world.holder() == ""
        assert list(world.server.objects) == [lease_key()]


@in_virtual_time
async def test_a_lease_expires_while_a_write_of_its_holder_is_unanswered() -> None:
    """The write may still be carried out, and nobody else may act by then."""
    async with world_of() as world:
        replica = world.add("pod-a")
        await world.pass_time(3)
        other = world.add("pod-b")
        await world.pass_time(1)
        replica.finishes = False
        stopping = now()
        replica.leases.stop()
        await replica.run
        assert world.holder() == "pod-a"
        await world.pass_time(2 * DURATION)
        assert other.times("start")[0] > stopping + DURATION - PERIOD


@in_virtual_time
async def test_a_replica_ends_without_the_api_server() -> None:
    async with world_of() as world:
        replica = world.add()
        await world.pass_time(3)
        replica.link.is_cut = True
        replica.leases.stop()
        async with asyncio.timeout(3 * DURATION):
            await replica.run
        assert replica.acting == {}


@in_virtual_time
async def test_leases_that_cannot_be_written_are_an_error_until_they_can() -> None:
    async with world_of() as world:
        replica, other = world.add("pod-a"), world.add("pod-b")
        replica.link.rejects_writes = True
        await world.pass_time(DURATION)
        assert replica.leases.error == "leases is forbidden"
        assert list(other.acting) == [0]
        replica.link.rejects_writes = False
        await world.pass_time(2 * DURATION)
        assert replica.leases.error is None, "although the shard is another's"


@in_virtual_time
async def test_a_lease_that_is_renewed_at_the_last_moment_is_not_taken() -> None:
    """The watch is ahead of the read that was to confirm that it has expired."""
    async with world_of() as world:
        replica = world.add("pod-a")
        await world.pass_time(3)
        other = world.add("pod-b")
        await world.pass_time(3)
        replica.link.is_cut = True
        renewed = world.server.written[lease_key()][-1]
        other.link.delay = lambda: 0.5
        await world.pass_time(renewed + DURATION + 0.1 - now())
        assert replica.acting == {}
        replica.link.is_cut = False
        replica.link.delay = lambda: 0.001
        replica.leases._wake.set()
        await world.pass_time(5)
        assert len(replica.acting) + len(other.acting) == 1


# --- several at the same moment -------------------------------------------------------------------


def delays(seed: int) -> Callable[[], float]:
    """Return random delays of up to 0.1 s; with seed 0, all are equal."""
    numbers = random.Random(seed)  # noqa: S311
    return (lambda: numbers.uniform(0.001, 0.1)) if seed else (lambda: 0.01)


@pytest.mark.parametrize("seed", range(6))
@in_virtual_time
async def test_of_two_that_acquire_at_the_same_moment_one_wins(seed: int) -> None:
    async with world_of(delays(seed)) as world:
        installation = Installation("system", "own", (), 4)
        replicas = [world.add(f"pod-{number}", installation) for number in range(3)]
        await world.pass_time(DURATION)
        held = [sorted(replica.acting) for replica in replicas]
        assert sorted(itertools.chain(*held)) == [0, 1, 2, 3]
        assert sorted(map(len, held)) == [1, 1, 2]
        for replica in replicas:
            for index in replica.acting:
                assert world.holder(index, installation) == replica.pod


@pytest.mark.parametrize("seed", range(12))
@in_virtual_time
async def test_of_two_installations_at_the_same_moment_one_acts(seed: int) -> None:
    async with world_of(delays(seed)) as world:
        one, two = world.add("pod-a"), world.add("pod-b", OTHER)
        told = {one: 0, two: 0}
        for replica in told:

            def changed(replica: Replica = replica) -> None:
                told[replica] += 1

            replica.leases.rivals_changed = changed
        await world.pass_time(3 * DURATION)
        assert sorted((len(one.acting), len(two.acting))) == [0, 1]
        acting, waiting = (one, two) if one.acting else (two, one)
        assert waiting.leases.plan.blocked_by == str(acting.leases.installation)
        assert acting.leases.plan.rivals == {str(waiting.leases.installation)}
        assert acting.leases.plan.blocked_by is None
        assert all(told.values())
        acting.leases.stop()
        await acting.run
        await world.pass_time(PERIOD)
        assert list(waiting.acting) == [0]
        assert waiting.leases.plan.blocked_by is None
        await world.pass_time(2 * DURATION)
        assert waiting.leases.plan.rivals == frozenset()


# --- whatever happens -----------------------------------------------------------------------------

FAULTS = [
    "cut",
    "heal",
    "refuse",
    "kill",
    "restart",
    "stop",
    "annotate",
    "delete",
    "holder",
    "slow",
]
faults = st.lists(
    st.tuples(st.sampled_from(FAULTS), st.integers(0, 3), st.floats(0, 15)), max_size=12
)


@settings(max_examples=40)
@given(seed=st.integers(0, 99), history=faults)
def test_no_two_ever_act_on_a_shard(seed: int, history: list[tuple[str, int, float]]) -> None:
    """Two replicas of one installation, and one of another; checked in ``start_shard``."""
    in_virtual_time(live_through)(seed, history)


async def live_through(seed: int, history: list[tuple[str, int, float]]) -> None:
    async with world_of(delays(seed)) as world:
        of = {0: INSTALLATION, 1: INSTALLATION, 2: INSTALLATION, 3: OTHER}
        present = {number: world.add(f"pod-{number}", of[number]) for number in of}
        for fault, number, seconds in history:
            await inflict(world, present, of, fault, number)
            await world.pass_time(seconds)
        for replica in present.values():
            heal(replica)
        await world.pass_time(4 * DURATION)
        running = [replica for replica in present.values() if not replica.run.done()]
        acting = [replica for replica in running if replica.acting]
        assert len(acting) == min(len(running), 1)


def heal(replica: Replica) -> None:
    replica.link.is_cut, replica.link.error = False, None
    replica.link.delay = replica.world.delay


async def inflict(
    world: World,
    present: dict[int, Replica],
    of: dict[int, Installation],
    fault: str,
    number: int,
) -> None:
    replica, key = present[number], lease_key(0, of[number])
    match fault:
        case "cut":
            replica.link.is_cut = True
        case "heal":
            heal(replica)
        case "refuse":
            replica.link.error = Unavailable("connection refused")
        case "slow":
            replica.link.delay = lambda: 0.7
        case "stop":
            replica.leases.stop()
        case "kill" | "restart":
            await replica.kill()
            if fault == "restart":
                replica.acting.clear()
                present[number] = world.add(replica.pod, of[number])
        case "annotate" | "delete" | "holder" if key in world.server.objects:
            if fault == "delete":
                world.server.delete(key)
            elif fault == "annotate":
                world.server.edit(key, metadata={"annotations": {"example.com/note": "x"}})
            else:
                world.server.edit(key, spec={"holderIdentity": "somebody"})
