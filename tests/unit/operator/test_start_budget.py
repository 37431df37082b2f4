"""As many starts at a time as each node and zone can take, the most urgent first."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wasession_api.kube.manifests import Key
from wasession_operator.start_budget import StartBudget, StartLimits, share

A, B, C, D, E = (("ns", name) for name in "abcde")


def make_budget(
    per_node: int, per_zone: int = 100, **zones: str
) -> tuple[StartBudget, list[tuple[str, str]]]:
    """Return an open budget with nodes in zones, and the list of what it enqueues."""
    enqueued: list[Key] = []
    budget = StartBudget(StartLimits(per_node, per_zone), enqueued.append)
    for name, zone in zones.items():
        budget.set_node(name, zone)
    budget.open()
    return budget, enqueued


def test_grants_nothing_before_it_opens() -> None:
    enqueued: list[Key] = []
    budget = StartBudget(StartLimits(2, 10), enqueued.append)
    budget.set_node("n1", "z")
    assert not any(budget.request(key, urgency) for key, urgency in ((A, 3), (B, 1), (C, 2)))
    budget.open()
    assert [budget.is_held(key) for key in (A, B, C)] == [False, True, True]
    assert list(dict.fromkeys(enqueued)) == [B, C, A], "the holders first"


def test_opening_enqueues_adopted_keys_too() -> None:
    enqueued: list[Key] = []
    budget = StartBudget(StartLimits(1, 1), enqueued.append)
    budget.adopt(A, "n1")
    budget.open()
    assert enqueued == [A]


def test_a_key_that_requests_is_not_enqueued_as_well() -> None:
    """It would request again and again when something else keeps it from using its permit."""
    budget, enqueued = make_budget(1, n1="z")
    enqueued.clear()
    assert budget.request(A, 0, "n1")
    assert budget.request(A, 0, "n1"), "it holds it still"
    assert enqueued == []


def test_a_busy_node_holds_up_no_start_on_another() -> None:
    budget, _ = make_budget(1, n1="z", n2="z")
    assert budget.request(A, 0, "n1")
    assert not any(budget.request(key, 0, "n1") for key in (B, C, D))
    assert budget.request(E, 9, "n2"), "though it is less urgent"


def test_a_full_zone_holds_up_no_start_in_another() -> None:
    budget, _ = make_budget(2, 3, n1="z1", n2="z1", n3="z2")
    for number in range(3):
        assert budget.request(("ns", f"s{number}"), 0, f"n{number % 2 + 1}")
    assert not budget.request(A, 0, "n2")
    assert budget.bottleneck(A) == "zone z1"
    assert budget.request(B, 9, "n3")


def test_a_released_permit_goes_to_the_most_urgent_that_it_is_good_for() -> None:
    budget, enqueued = make_budget(1, n1="z", n2="z")
    assert budget.request(A, 0, "n1")
    assert budget.request(B, 0, "n2")
    assert not budget.request(C, 1, "n1")
    assert not budget.request(D, 2, "n2")
    assert budget.bottleneck(D) == "node n2"
    budget.release(B)
    assert enqueued[-1] == D
    assert not budget.is_held(C)
    assert budget.is_contended(A)
    budget.release(A)
    assert budget.is_held(C)
    assert not budget.is_contended(C)


def test_equally_urgent_ones_start_in_the_order_of_their_requests() -> None:
    budget, enqueued = make_budget(1, n1="z")
    assert budget.request(E, 0, "n1")
    enqueued.clear()
    for key in (D, A, C, B):
        budget.request(key, 0, "n1")
    budget.request(D, 0, None)  # its node is not known any more; it stays first
    for key in (E, D, A, C):
        budget.release(key)
    assert enqueued == [D, A, C, B]


def test_starts_whose_node_is_not_known_are_as_many_as_the_nodes_have_left() -> None:
    budget, enqueued = make_budget(2, n1="z", n2="z")
    budget.adopt(A, "n1")
    assert all(budget.request(("ns", f"s{number}"), 0) for number in range(3))
    assert not budget.request(B, 0)
    assert budget.bottleneck(B) == "the cluster"
    assert not budget.request(C, 0, "n2"), "any of them may come to this node"
    for number in range(3):
        budget.adopt(("ns", f"s{number}"), "n1")
    assert enqueued[-1] == C, "none of them has"
    assert not budget.is_held(B)


def test_nodes_that_sessions_cannot_run_on_do_not_let_all_of_them_start_on_the_others() -> None:
    """Room that none of their pods can use is left whenever these are bound to other nodes."""
    budget, _ = make_budget(2, n1="z", gpu="z")
    for number in range(20):
        key = ("ns", f"s{number:02}")
        if budget.request(key, 0):
            budget.adopt(key, "n1")
    assert budget.under_way == 4


def test_adopted_starts_beyond_a_nodes_limit_take_nothing_from_another() -> None:
    budget, _ = make_budget(2, n1="z", n2="z")
    for number in range(10):
        budget.adopt(("ns", f"s{number}"), "n1")
    assert budget.request(A, 0, "n2")
    assert not budget.request(B, 0, "n1")
    for number in range(8):
        budget.release(("ns", f"s{number}"))
    assert not budget.is_held(B)
    budget.release(("ns", "s8"))
    assert budget.is_held(B)


def test_a_start_follows_its_pod_to_another_node() -> None:
    budget, _ = make_budget(1, n1="z", n2="z")
    assert budget.request(A, 0, "n1")
    assert not budget.request(B, 0, "n1")
    budget.adopt(A, "n2")
    assert budget.is_held(B)
    assert not budget.request(C, 0, "n2")


def test_a_node_that_comes_lets_waiting_ones_start() -> None:
    budget, enqueued = make_budget(1, n1="z")
    assert budget.request(A, 0)
    assert not budget.request(B, 0)
    assert not budget.request(C, 0, "n2")
    enqueued.clear()
    budget.set_node("n2", "z")
    assert enqueued == [B], "it has waited longer, and may come to either node"
    budget.adopt(A, "n1")
    assert enqueued == [B], "it may come to the new node"
    budget.adopt(B, "n1")
    assert enqueued == [B, C]


def test_a_start_whose_node_is_cordoned_may_begin_elsewhere() -> None:
    budget, enqueued = make_budget(1, n1="z", n2="z")
    assert budget.request(A, 0, "n1")
    assert not budget.request(B, 0, "n1")
    budget.release(A)
    budget.adopt(B, "n1")
    assert not budget.request(C, 0, "n1")
    enqueued.clear()
    budget.set_node("n1", None)
    assert not budget.is_held(C), "what starts on the cordoned node may end up on the other one"
    budget.release(B)
    assert enqueued == [C]
    budget.set_node("n1", "z")
    assert budget.request(D, 0, "n1")
    assert not budget.request(E, 0, "n2"), "C may come to it"


def test_a_node_may_change_its_zone() -> None:
    budget, _ = make_budget(2, 2, n1="z1", n2="z1", n3="z2")
    for key, node in ((A, "n1"), (B, "n2")):
        assert budget.request(key, 0, node)
    assert not budget.request(C, 0, "n2")
    budget.set_node("n2", "z2")
    assert budget.is_held(C)
    assert not budget.request(D, 0, "n3")
    assert budget.bottleneck(D) == "zone z2"


def test_a_start_no_longer_awaits_the_former_zone_of_its_node() -> None:
    budget, _ = make_budget(1, 1, n1="z1", n2="z1", n3="z2")
    for key, node in ((A, "n1"), (B, "n3")):
        assert budget.request(key, 0, node)
    assert not budget.request(C, 0, "n2")
    budget.set_node("n2", "z2")
    budget.release(A)
    assert not budget.is_held(C)
    budget.release(B)
    assert budget.is_held(C)


def test_nodes_without_a_zone_are_in_one_that_has_no_name() -> None:
    budget, _ = make_budget(2, 2, n1="", n2="")
    assert budget.request(A, 0, "n1")
    assert budget.request(B, 0, "n1")
    assert not budget.request(C, 0, "n2")
    assert budget.bottleneck(C) == "the cluster"
    budget.request(D, 0, "n1")
    assert budget.bottleneck(D) == "node n1"


def test_without_nodes_the_cluster_has_the_budget_of_a_zone() -> None:
    """Some clusters have no node until a pod is pending, others let nobody watch their nodes."""
    budget, _ = make_budget(1, 3)
    granted = [budget.request(key, 0, node) for key, node in ((A, "n1"), (B, "n1"), (C, None))]
    assert granted == [True, True, True]
    assert not budget.request(D, 0)
    budget.adopt(A, "n1")
    assert not budget.is_held(D), "where a pod runs says nothing about the others' nodes"
    budget.release(A)
    assert budget.is_held(D)


def test_what_is_released_while_it_waits_is_skipped() -> None:
    budget, _ = make_budget(1, n1="z")
    for urgency, key in enumerate((A, B, C)):
        budget.request(key, urgency, "n1")
    budget.release(B)
    assert not budget.is_waiting(B)
    budget.release(A)
    assert budget.is_held(C)
    assert (budget.under_way, budget.waiting) == (1, 0)


@pytest.mark.parametrize("shards", [1, 2, 3, 4, 7])
@given(limits=st.builds(StartLimits, st.integers(1, 100), st.integers(1, 100)))
def test_the_shares_of_all_shards_add_up(shards: int, limits: StartLimits) -> None:
    parts = [share(limits, shard, shards) for shard in range(shards)]
    for limit, each in zip(limits, zip(*parts, strict=True), strict=True):
        assert sum(each) == max(limit, shards)
        assert min(each) >= 1
        assert max(each) - min(each) <= 1


# --- any sequence of events -----------------------------------------------------------------------


@dataclass
class Model:
    """What a budget does, computed from scratch each time."""

    limits: StartLimits
    nodes: dict[str, str] = field(default_factory=dict)
    held: dict[Key, str | None] = field(default_factory=dict)
    waiting: dict[Key, tuple[int, str | None]] = field(default_factory=dict)  # oldest first
    opened: bool = False

    def used(self, node: str) -> int:
        return list(self.held.values()).count(node)

    def used_of(self, zone: str) -> int:
        return sum(self.used(node) for node, its in self.nodes.items() if its == zone)

    def room(self, zone: str) -> int:
        free = [
            max(0, self.limits.per_node - self.used(node))
            for node, its in self.nodes.items()
            if its == zone
        ]
        return max(0, min(sum(free), self.limits.per_zone - self.used_of(zone)))

    def may_start(self, node: str | None) -> bool:
        zones = Counter(self.nodes.values())
        unplaced = sum(place not in self.nodes for place in self.held.values())
        if not zones:
            return unplaced < self.limits.per_zone
        if unplaced >= sum(map(self.room, zones)):
            return False
        if node in self.nodes:
            zone = self.nodes[node]
            return self.used(node) < self.limits.per_node and (
                self.used_of(zone) < self.limits.per_zone
            )
        total = sum(min(n * self.limits.per_node, self.limits.per_zone) for n in zones.values())
        return len(self.held) < total

    def grant(self) -> None:
        while self.opened:
            able = [key for key, (_, node) in self.waiting.items() if self.may_start(node)]
            if not able:
                return
            key = min(able, key=lambda key: self.waiting[key][0])  # the first of equals
            _, node = self.waiting.pop(key)
            self.held[key] = node if node in self.nodes else None

    def apply(self, step: Step) -> None:
        name, key, urgency, node, zone = step
        if name == "request" and key not in self.held:
            self.waiting[key] = urgency, node
        elif name == "adopt":
            self.waiting.pop(key, None)
            self.held[key] = node
        elif name == "release":
            self.waiting.pop(key, None)
            self.held.pop(key, None)
        elif name == "open":
            self.opened = True
        elif name == "node" and node is not None:
            self.nodes.pop(node, None)
            if zone is not None:
                self.nodes[node] = zone
        self.grant()


Step = tuple[str, Key, int, str | None, str | None]
KEYS = [("ns", f"s{number}") for number in range(8)]
NODES = ["n1", "n2", "n3"]
ZONES = ["z1", "z2"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["request"] * 6 + ["release"] * 3 + ["adopt"] * 2 + ["node"]),
        st.sampled_from(KEYS),
        st.integers(0, 2),
        st.sampled_from([*NODES, None]),
        st.sampled_from([*ZONES, None]),
    ),
    min_size=10,
    max_size=50,
)


def apply(budget: StartBudget, step: Step) -> None:
    name, key, urgency, node, zone = step
    if name == "request":
        assert budget.request(key, urgency, node) is budget.is_held(key)
    elif name == "adopt":
        budget.adopt(key, node)
    elif name == "release":
        budget.release(key)
    elif name == "open":
        budget.open()
    elif node is not None:
        budget.set_node(node, zone)


@given(
    st.builds(StartLimits, st.integers(1, 3), st.integers(1, 4)),
    st.dictionaries(st.sampled_from(NODES), st.sampled_from(ZONES)),
    STEPS,
    st.integers(0, 10),
)
@settings(max_examples=500)
def test_never_too_many_and_never_idle(
    limits: StartLimits, nodes: dict[str, str], steps: list[Step], opened: int
) -> None:
    """What can start does at once, however it was held up, in the order of urgency.

    Whoever receives a permit by something else than its own request is enqueued.
    """
    enqueued: list[Key] = []
    budget, model = StartBudget(limits, enqueued.append), Model(limits)
    setup: list[Step] = [("node", KEYS[0], 0, *node) for node in nodes.items()]
    steps.insert(opened, ("open", KEYS[0], 0, None, None))
    for step in setup + steps:
        before = set(model.held)
        enqueued.clear()
        apply(budget, step)
        model.apply(step)
        assert {key for key in KEYS if budget.is_held(key)} == set(model.held)
        assert {key for key in KEYS if budget.is_waiting(key)} == set(model.waiting)
        assert (budget.under_way, budget.waiting) == (len(model.held), len(model.waiting))
        granted = set(model.held) - before
        if step[0] in ("request", "adopt"):
            granted -= {step[1]}
        assert set(enqueued) >= granted
