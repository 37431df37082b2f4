"""Which replica takes and gives which shards, as Leases come, go and expire."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wasession_api.kube.manifests import Key
from wasession_operator.sharding.lease import (
    Installation,
    Lease,
    make_lease,
    member_lease_name,
    parse_lease,
    shard_lease_name,
)
from wasession_operator.sharding.lease_plan import LeasePlan, Observed, observe, plan_leases

DURATION = 10.0  # seconds
DEADLINE = 0.6 * DURATION  # how long after its last renewal a holder acts
PERIOD = 0.2 * DURATION  # between two renewals
OWN = Installation("system", "own", (), 2)


def lease(
    installation: Installation = OWN, index: int | None = 0, holder: str = "pod-b", **changes: Any
) -> Lease:
    name = (
        member_lease_name(installation, holder)
        if index is None
        else shard_lease_name(installation, index)
    )
    spec = {"holderIdentity": holder, "renewTime": "r1", "leaseDurationSeconds": int(DURATION)}
    obj = make_lease(installation, name, index, spec)
    obj["metadata"] |= {"uid": "uid-1", "resourceVersion": "1"}
    parsed = parse_lease(obj)
    assert parsed is not None
    return replace(parsed, **changes)


def plan(
    *leases: Lease, now: float = 5.0, held: Iterable[int] = (), own: Installation = OWN
) -> LeasePlan:
    """Plan for ``pod-a``, which has seen all of the Leases at 0."""
    observed = {item.key: Observed(item, 0.0) for item in leases}
    return plan_leases("pod-a", own, held, observed, now)


# --- one decision ---------------------------------------------------------------------------------


def test_a_replica_alone_takes_all() -> None:
    assert plan().acquire == (0, 1)


@pytest.mark.parametrize("now", [0.0, 9.99])
def test_a_lease_is_its_holders_until_it_has_expired(now: float) -> None:
    held = plan(lease(), now=now)
    assert held.acquire == (1,)
    assert held.wake_at == DURATION
    assert plan(lease(), now=DURATION).acquire == (0, 1)


def test_a_released_lease_is_free_at_once() -> None:
    assert plan(lease(holder="")).acquire == (0, 1)


def test_a_lease_of_an_earlier_process_of_the_same_pod_is_free_at_once() -> None:
    """That process has ended: two of one name never run at a time."""
    assert plan(lease(holder="pod-a")).acquire == (0, 1)
    assert plan(lease(holder="pod-a")).wake_at is None


def test_a_deleted_lease_is_its_holders_until_it_would_have_expired() -> None:
    """The holder acts until it finds out."""
    seen = observe(None, lease(), 0.0)
    gone = observe(seen, lease(), 8.0, deleted=True)
    for now, free in ((9.9, (1,)), (10.0, (0, 1))):
        planned = plan_leases("pod-a", OWN, (), {gone.lease.key: gone}, now)
        assert planned.acquire == free
    restored = observe(gone, replace(lease(), uid="uid-2"), 9.0)
    assert restored.expires_at == 19.0


def test_a_released_lease_is_free_also_to_who_has_seen_its_holder() -> None:
    seen = observe(None, lease(), 0.0)
    released = observe(seen, replace(lease(holder=""), renewed="r2"), 8.0)
    planned = plan_leases("pod-a", OWN, (), {released.lease.key: released}, 8.0)
    assert planned.acquire == (0, 1)


@pytest.mark.parametrize(
    "edit",
    [
        {"holder": ""},
        {"holder": "", "renewed": ""},
        {"holder": "pod-a"},  # who decides
        {"holder": "pod-c"},
        {"holder": "somebody"},
    ],
)
def test_an_edited_lease_is_its_holders_until_it_would_have_expired(edit: dict[str, Any]) -> None:
    """The holder acts until it finds out. What replicas write has another time."""
    edited = observe(observe(None, lease(), 0.0), replace(lease(), **edit), 8.0)
    for now, free in ((9.9, (1,)), (10.0, (0, 1))):
        planned = plan_leases("pod-a", OWN, (), {edited.lease.key: edited}, now)
        assert planned.acquire == free


def test_a_member_that_has_left_gets_no_share() -> None:
    """It has deleted its own Lease, after it had given its shards away."""
    member = observe(None, lease(index=None, holder="a-pod-before"), 0.0)
    one = replace(OWN, shards=1)
    member = replace(member, lease=replace(member.lease, installation=one))
    assert plan_leases("pod-a", one, (), {member.lease.key: member}, 1.0).acquire == ()
    left = observe(member, member.lease, 2.0, deleted=True)
    assert plan_leases("pod-a", one, (), {left.lease.key: left}, 2.0).acquire == (0,)


@pytest.mark.parametrize("duration", [1.0, 3600.0])
def test_how_long_a_lease_lasts_is_what_its_holder_wrote(duration: float) -> None:
    """A person's edit has nobody take it over too early, or wait for an hour."""
    seen = observe(None, lease(), 0.0)
    edited = observe(seen, replace(lease(), version="2", duration=duration), 8.0)
    assert edited.expires_at == 10.0
    renewed = replace(lease(), renewed="r2", duration=duration)
    assert observe(edited, renewed, 9.0).expires_at == 9.0 + duration


@pytest.mark.parametrize(
    "change", [{"renewed": "r2"}, {"holder": "pod-c", "renewed": "r2"}, {"uid": "uid-2"}]
)
def test_a_renewal_is_any_change_by_the_holder(change: dict[str, Any]) -> None:
    """What its time says is never looked at: clocks of two machines differ."""
    seen = observe(None, lease(), 0.0)
    assert observe(seen, replace(lease(), version="2"), 8.0).expires_at == 10.0
    assert observe(seen, replace(lease(), **change), 8.0).expires_at == 18.0


@given(st.lists(st.sampled_from(["1970-01-01", "9999-12-31", "", "\N{SNOWMAN}"]), min_size=2))
def test_no_wall_clock_is_compared(times: list[str]) -> None:
    plans = {plan(lease(renewed=time), lease(index=1, renewed=time), now=9.0) for time in times}
    assert plans == {plan(lease(), lease(index=1), now=9.0)}


def test_shares_are_fair_and_the_odd_ones_stay_where_they_are() -> None:
    own = replace(OWN, shards=3)
    members = [lease(own, None, pod) for pod in ("pod-0", "pod-b")]
    assert plan(*members, own=own, held=(0, 1, 2)).release == (1, 2)
    assert plan(members[0], own=own, held=(0, 1)).release == (), "the odd one is here"
    assert plan(members[0], lease(own, 0, "pod-0"), own=own, held=(1, 2)).release == ()
    two = [lease(own, index, "pod-b") for index in (0, 1)]
    assert plan(members[1], *two, own=own).acquire == (2,)
    assert plan(members[1], *two, own=own, held=(2,)).release == ()


def test_no_more_than_the_own_share_is_taken() -> None:
    own = replace(OWN, shards=4)
    assert plan(lease(own, None), own=own).acquire == (0, 1)
    assert plan(lease(own, None), own=own, held=(3,)).acquire == (0,)
    assert plan(lease(own, None), own=own, held=(2, 3)).acquire == ()


# --- other installations --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "other", "competes"),
    [
        (OWN, Installation("system", "other", (), 1), True),
        (OWN, Installation("other", "own", ("a",), 1), True),
        (replace(OWN, namespaces=("a", "b")), Installation("system", "other", ("b",), 1), True),
        (replace(OWN, namespaces=("a",)), Installation("system", "other", ("b",), 1), False),
    ],
)
def test_one_of_two_installations_acts(
    own: Installation, other: Installation, competes: bool
) -> None:
    acting, waiting = lease(other), lease(other, None)
    name = str(other)
    blocked = plan(acting, waiting, own=own)
    rivals = frozenset({name} if competes else ())
    assert (blocked.rivals, blocked.blocked_by) == (rivals, name if competes else None)
    assert blocked.acquire == (() if competes else (0, 1))
    assert (blocked.wake_at == DURATION) or not competes
    present = plan(waiting, own=own)
    assert (present.rivals, present.blocked_by) == (rivals, None)
    assert present.acquire == (0, 1), "it is there, but does not act"
    assert plan(replace(acting, holder=""), own=own) == plan(own=own)
    assert plan(acting, own=own, now=DURATION).acquire == (0, 1), "it has ended"


def test_a_deleted_lease_of_another_installation_blocks_until_it_would_have_expired() -> None:
    other = Installation("system", "other", (), 1)
    gone = observe(observe(None, lease(other), 0.0), lease(other), 2.0, deleted=True)
    leases = {gone.lease.key: gone}
    assert plan_leases("pod-a", OWN, (), leases, 9.9).blocked_by == "system/other"
    assert plan_leases("pod-a", OWN, (), leases, 10.0).acquire == (0, 1)


def test_what_is_held_is_held_on_to_when_another_installation_comes() -> None:
    other = lease(Installation("system", "other", (), 1))
    blocked = plan(other, held=(0,))
    assert (blocked.acquire, blocked.release) == ((), ())
    assert blocked.blocked_by == "system/other"
    shared = plan(other, lease(index=None), held=(0, 1))
    assert shared.release == (1,), "replicas share out what there is"


def test_another_number_of_shards_blocks_as_another_installation_does() -> None:
    """During an upgrade that changes it, the replicas before have to give theirs away."""
    before = replace(OWN, shards=4)
    blocked = plan(lease(before, 3), lease(before, None))
    assert (blocked.acquire, blocked.blocked_by) == ((), str(OWN))
    assert blocked.rivals == frozenset(), "nobody has to uninstall anything"
    assert plan(lease(before, None)).acquire == (0, 1), "it counts for no share"


# --- many replicas --------------------------------------------------------------------------------


@dataclass
class World:
    """The API server's Leases, the time, and who acts on which shard until when."""

    installation: Installation
    time: float = 0.0
    leases: dict[Key, Lease] = field(default_factory=dict)
    acting: dict[int, tuple[str, float]] = field(default_factory=dict)
    renewed: dict[int, float] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def number(self) -> str:
        return str(next(self.numbers))

    def write(self, made: Lease) -> None:
        present = self.leases.get(made.key)
        uid = self.number() if present is None else present.uid
        self.leases[made.key] = replace(made, uid=uid, renewed=self.number())

    @property
    def holders(self) -> dict[int, str]:
        shards = (item for item in self.leases.values() if item.index is not None)
        return {item.index: item.holder for item in shards if item.index is not None}


@dataclass
class Replica:
    """A replica that renews, plans and follows its plan; its clock has a beginning of its own."""

    world: World
    pod: str
    began: float
    held: dict[int, float] = field(default_factory=dict)  # with the deadline, in the world's time
    observed: dict[Key, Observed] = field(default_factory=dict)
    is_cut_off: bool = False

    def round(self) -> None:
        world = self.world
        self.held = {index: at for index, at in self.held.items() if world.time < at}
        if self.is_cut_off:
            return
        own = world.installation
        world.write(lease(own, None, self.pod))
        for index in list(self.held):
            present = world.leases.get(lease(own, index).key)
            if present is not None and present.holder != self.pod:
                del self.held[index]
            else:
                self._hold(index)
        now = world.time - self.began
        for key in self.observed.keys() | world.leases.keys():
            present = world.leases.get(key)
            known = self.observed[key].lease if present is None else present
            gone = present is None
            self.observed[key] = observe(self.observed.get(key), known, now, deleted=gone)
        planned = plan_leases(self.pod, own, self.held, self.observed, now)
        assert planned.blocked_by is None
        for index in planned.release:
            world.write(replace(lease(own, index), holder=""))
            del self.held[index], world.acting[index]
        for index in planned.acquire:
            self._check_acquired(index)
            self._hold(index)

    def _check_acquired(self, index: int) -> None:
        """Fail if another replica still acts, or if its Lease has not expired."""
        world = self.world
        pod, deadline = world.acting.get(index, ("", 0.0))
        if pod not in ("", self.pod):
            assert world.time >= deadline
            assert world.time >= world.renewed[index] + DURATION

    def _hold(self, index: int) -> None:
        world = self.world
        world.write(replace(lease(world.installation, index), holder=self.pod))
        self.held[index] = world.time + DEADLINE
        world.acting[index] = self.pod, world.time + DEADLINE
        world.renewed[index] = world.time

    def leave(self) -> None:
        own = self.world.installation
        for index in self.held:
            self.world.write(replace(lease(own, index), holder=""))
            del self.world.acting[index]
        self.held.clear()
        self.world.leases.pop(lease(own, None, self.pod).key, None)


class Cluster:
    """Replicas that come and go, in rounds of a random order."""

    def __init__(self, shards: int, seed: int) -> None:
        self.world = World(replace(OWN, shards=shards))
        self.random = random.Random(seed)  # noqa: S311
        self.replicas: dict[str, Replica] = {}

    def pass_time(self, rounds: int) -> None:
        for _ in range(rounds):
            order = list(self.replicas.values())
            self.random.shuffle(order)
            for replica in order:
                self.world.time += PERIOD / len(order)
                replica.round()
            if not order:
                self.world.time += PERIOD

    def apply(self, event: str, number: int) -> None:
        pod, replica = f"pod-{number}", self.replicas.get(f"pod-{number}")
        if event == "join" and replica is None:
            began = self.random.uniform(-1e6, 1e6)
            self.replicas[pod] = Replica(self.world, pod, began)
        elif event == "crash" and replica is not None:
            del self.replicas[pod]
        elif event == "leave" and replica is not None and not replica.is_cut_off:
            replica.leave()
            del self.replicas[pod]
        elif event == "cut off" and replica is not None:
            replica.is_cut_off = True
        elif event == "return" and replica is not None:
            replica.is_cut_off = False


events = st.tuples(
    st.sampled_from(["join", "join", "crash", "leave", "cut off", "return"]),
    st.integers(0, 4),
    st.integers(0, 7),  # rounds until the next one
)


@given(shards=st.integers(1, 9), seed=st.integers(0, 999), history=st.lists(events, max_size=20))
def test_replicas_share_out_the_shards_whatever_happens(
    shards: int, seed: int, history: list[tuple[str, int, int]]
) -> None:
    cluster = Cluster(shards, seed)
    for event, number, rounds in history:
        cluster.apply(event, number)
        cluster.pass_time(rounds)
    for replica in cluster.replicas.values():
        replica.is_cut_off = False
    cluster.apply("join", 9)
    # All Leases of replicas that are gone have expired then, and shares moved twice.
    cluster.pass_time(rounds=round(DURATION / PERIOD) + 4)
    holders = dict(cluster.world.holders)
    assert set(holders) == set(range(shards))
    shares = Counter(holders.values())
    assert shares.keys() <= cluster.replicas.keys()
    of_each = [shares[pod] for pod in cluster.replicas]
    assert max(of_each) - min(of_each) <= 1
    cluster.pass_time(rounds=20)
    assert cluster.world.holders == holders, "nothing moves when nothing changes"


@given(shards=st.integers(1, 9), replicas=st.integers(1, 5), seed=st.integers(0, 999))
def test_few_shards_move_when_a_replica_comes_or_goes(
    shards: int, replicas: int, seed: int
) -> None:
    cluster = Cluster(shards, seed)
    for number in range(replicas):
        cluster.apply("join", number)
    cluster.pass_time(rounds=10)
    before = dict(cluster.world.holders)
    cluster.apply("join", 9)
    cluster.pass_time(rounds=5)
    after = dict(cluster.world.holders)
    moved = {index for index in range(shards) if before[index] != after[index]}
    assert {after[index] for index in moved} <= {"pod-9"}
    assert len(moved) == shards // (replicas + 1)
    cluster.apply("leave", 9)
    cluster.pass_time(rounds=5)
    last = cluster.world.holders
    assert {index for index in range(shards) if last[index] != after[index]} == moved
    assert "pod-9" not in last.values()
