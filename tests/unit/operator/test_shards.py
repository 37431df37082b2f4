"""A session's events go to the controller of its shard, which begins and ends with its Lease."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from unit.operator.situations import SETTINGS, master_key
from wasession_api.kube.client import KubeClient
from wasession_api.kube.manifests import Key, Manifest
from wasession_operator import startup
from wasession_operator.controller import Controller
from wasession_operator.reconcile import Result
from wasession_operator.reconcile_state import ReconcileState
from wasession_operator.sharding import shards as shards_module
from wasession_operator.sharding.lease import shard_of, shard_of_name
from wasession_operator.sharding.leases import HeldLease
from wasession_operator.sharding.shards import Admission, Shards
from wasession_operator.sharding.update_grants import UpdateNotes, parse_notes

COUNT = 3
KEYS = [("ns", f"s-{number}") for number in range(20)]


def of_shard(index: int) -> set[Key]:
    return {key for key in KEYS if shard_of(key, COUNT) == index}


def session(key: Key, version: int = 5, **metadata: Any) -> Manifest:
    fixed = {"namespace": key[0], "name": key[1], "uid": f"uid-of-{key[1]}"}
    return {"metadata": fixed | {"resourceVersion": str(version)} | metadata, "spec": {}}


class Recorder(Controller):
    """Notes its reconciliations, which wait until they are released."""

    released: asyncio.Event
    begun: list[Key]
    ended: list[Key]
    error: Exception | None

    async def _reconcile(self, state: ReconcileState) -> Result:
        Recorder.begun.append(state.key)
        await Recorder.released.wait()
        if Recorder.error is not None:
            raise Recorder.error
        Recorder.ended.append(state.key)
        return Result()


class Rig:
    """Shards whose Leases the test acquires and loses."""

    def __init__(self) -> None:
        kube = SimpleNamespace(
            unqueued=lambda: None, fenced=lambda lease: SimpleNamespace(lease=lease)
        )
        settings = SETTINGS.model_copy(update={"shards": COUNT, "watch_nodes": False})
        http = cast(aiohttp.ClientSession, None)
        self.shards = Shards(settings, cast(KubeClient, kube), http, master_key())
        self.ended = asyncio.Event()
        for informer in self.shards.cache.informers:
            informer._accept(None)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the shards; raise what they raise."""
        task = asyncio.create_task(self.shards.run())
        try:
            await settle()
            yield
        finally:
            self.ended.set()
            await task

    def start(self, index: int) -> HeldLease:
        lease = cast(HeldLease, SimpleNamespace(index=index))
        self.shards.start_shard(index, lease)
        return lease

    def states(self) -> dict[int, set[Key]]:
        controllers = self.shards._controllers
        return {index: set(controller.states) for index, controller in controllers.items()}


async def settle() -> None:
    """Let everything go on until it waits."""
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    async def list_sessions(_: object) -> None:
        """All sessions are known from the beginning."""

    Recorder.released, Recorder.error = asyncio.Event(), None
    Recorder.begun, Recorder.ended = [], []
    monkeypatch.setattr(shards_module, "Controller", Recorder)
    monkeypatch.setattr(startup, "list_sessions", list_sessions)
    rig = Rig()

    async def acquire_until_the_end(_: object) -> None:
        await rig.ended.wait()
        for index in rig.shards.held:
            await rig.shards.stop_shard(index)

    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(rig.shards.cache, "run", forever)
    monkeypatch.setattr(rig.shards.leases.informer, "run", forever)
    monkeypatch.setattr(rig.shards.leases, "run", acquire_until_the_end)
    monkeypatch.setattr(rig.shards.leases, "updates_of", lambda _: "")
    rig.shards.cache.sessions_listed(None, known=True)
    return rig


async def test_events_go_to_the_controller_of_the_shard(rig: Rig) -> None:
    async with rig.running():
        assert rig.shards.held == []
        for key in KEYS[:10]:
            rig.shards.cache.session_event(None, session(key))
        rig.start(0)
        rig.start(2)
        assert rig.shards.acquired.is_set()
        assert rig.shards.held == [0, 2]
        known = set(KEYS[:10])
        assert rig.states() == {0: of_shard(0) & known, 2: of_shard(2) & known}
        for key in KEYS[10:]:
            rig.shards.cache.session_event(None, session(key))
        assert rig.states() == {0: of_shard(0), 2: of_shard(2)}
        for key in KEYS:
            assert rig.shards.holds(key) == (shard_of(key, COUNT) in (0, 2))
        Recorder.released.set()
        await settle()
        assert set(Recorder.ended) == of_shard(0) | of_shard(2)
        assert len(set(Recorder.ended)) < len(KEYS), "some are another replica's"
        Recorder.ended.clear()
        for key in KEYS:
            rig.shards.enqueue(key)
        await settle()
        assert sorted(Recorder.ended) == sorted(of_shard(0) | of_shard(2))
        Recorder.ended.clear()
        rig.shards.enqueue_all()
        await settle()
        assert sorted(Recorder.ended) == sorted(of_shard(0) | of_shard(2))
        for key in KEYS:
            rig.shards.cache.delete_session(key, f"uid-of-{key[1]}")
        assert rig.states() == {0: set(), 2: set()}


async def test_a_shard_that_is_taken_over_later_has_all_its_sessions(rig: Rig) -> None:
    async with rig.running():
        Recorder.released.set()
        rig.start(0)
        for key in KEYS:
            rig.shards.cache.session_event(None, session(key))
        await settle()
        assert set(Recorder.ended) == of_shard(0)
        rig.start(1)
        await settle()
        assert set(Recorder.ended) == of_shard(0) | of_shard(1)


async def test_its_client_may_write_as_long_as_the_lease_lasts(rig: Rig) -> None:
    async with rig.running():
        leases = {index: rig.start(index) for index in (0, 2)}
        for number in range(20):
            name = f"class-{number}"
            leader = shard_of_name(name, COUNT)
            kube = rig.shards.leader_client(name)
            assert (kube is None) == (leader not in leases)
            if kube is not None:
                assert cast(Any, kube).lease is leases[leader]


async def test_a_shard_that_is_lost_is_stopped_at_once(rig: Rig) -> None:
    async with rig.running():
        for key in KEYS:
            rig.shards.cache.session_event(None, session(key))
        rig.start(0)
        rig.start(1)
        await settle()
        assert {shard_of(key, COUNT) for key in Recorder.begun} == {0, 1}
        await rig.shards.stop_shard(0)
        assert rig.shards.held == [1]
        begun = len(Recorder.begun)
        rig.shards.cache.session_event("MODIFIED", session(min(of_shard(0)), 6, annotations={}))
        Recorder.released.set()
        await settle()
        assert {shard_of(key, COUNT) for key in Recorder.ended} == {1}
        assert not of_shard(0).intersection(Recorder.begun[begun:])


async def test_a_shard_that_is_given_away_ends_what_is_in_progress(rig: Rig) -> None:
    async with rig.running():
        many = [("ns", f"many-{number}") for number in range(200)]
        for key in many:
            rig.shards.cache.session_event(None, session(key))
        rig.start(0)
        await settle()
        begun = list(Recorder.begun)
        assert 0 < len(begun) < len({key for key in many if shard_of(key, COUNT) == 0})
        finishing = asyncio.create_task(rig.shards.finish_shard(0, 60))
        await settle()
        assert not finishing.done()
        rig.shards.enqueue_all()
        Recorder.released.set()
        assert await finishing
        assert sorted(Recorder.ended) == sorted(begun)
        assert Recorder.begun == begun, "and begins nothing"
        assert rig.shards.held == []


async def test_a_shard_that_is_given_away_waits_no_longer_than_its_time(rig: Rig) -> None:
    async with rig.running():
        rig.shards.cache.session_event(None, session(min(of_shard(0))))
        rig.start(0)
        await settle()
        async with asyncio.timeout(60):
            assert not await rig.shards.finish_shard(0, 0), "not all has been answered"
        assert (len(Recorder.begun), Recorder.ended) == (1, [])
        assert rig.shards.held == []


async def test_a_shard_may_be_given_away_before_it_has_begun(rig: Rig) -> None:
    async with rig.running():
        rig.shards.cache.session_event(None, session(min(of_shard(0))))
        rig.start(0)
        await rig.shards.finish_shard(0, 60)
        await settle()
        assert Recorder.begun == []
        rig.start(0)
        await settle()
        assert len(Recorder.begun) == 1, "and comes back"


async def test_what_a_lease_says_is_read_once_a_change(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of sessions ask whether they have been granted an update."""
    read: list[str] = []

    def parse(annotation: str) -> UpdateNotes:
        read.append(annotation)
        return parse_notes(annotation)

    monkeypatch.setattr(shards_module, "parse_notes", parse)
    for granted in ("1", "2"):
        annotation = UpdateNotes({}, {"class/gold": (granted,)}).dump()
        monkeypatch.setattr(rig.shards.leases, "updates_of", lambda _, said=annotation: said)
        asked = [rig.shards.is_granted(("class", "gold"), request) for request in ("1", "2") * 9]
        assert asked == [granted == "1", granted == "2"] * 9
    assert len(read) == 2


async def test_who_has_given_a_class_away_believes_its_next_leader(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decision may be written just when the shard is given away."""
    lead, shards = shard_of_name("gold", COUNT), rig.shards
    said = UpdateNotes(admitted={"gold": ("b", "ns/s-2")}).dump()
    async with rig.running():
        rig.start(lead)
        await shards.stop_shard(lead)
        shards.admit("gold", Admission("b", frozenset({("ns", "s-1")})))
        monkeypatch.setattr(shards.leases, "updates_of", lambda _: said)
        assert shards.admission("gold") == Admission("b", frozenset({("ns", "s-2")}))


async def test_a_bug_of_a_worker_ends_the_process(rig: Rig) -> None:
    Recorder.error = RuntimeError("a bug")
    Recorder.released.set()

    async def run() -> None:
        async with rig.running():
            rig.shards.cache.session_event(None, session(min(of_shard(0))))
            rig.start(0)
            await settle()

    with pytest.raises(ExceptionGroup) as raised:
        await run()
    assert raised.group_contains(RuntimeError, match="a bug")
