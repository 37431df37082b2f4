"""A change of a class reaches its sessions step by step, and stops where one is hurt."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from wasession_api.kube.manifests import Key
from wasession_api.v1alpha1 import (
    MAXIMUM_ACCEPTED,
    MaintenanceWindow,
    Revision,
    Rollout,
    RolloutPhase,
    RolloutStatus,
    UpdateStatus,
)
from wasession_operator.plan.class_rollout import (
    CANARY_PATIENCE,
    InvalidWindow,
    Member,
    assign,
    decide,
    next_opening,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
A, B, C = (Revision(name=name, template="{}") for name in "abc")


@dataclass
class Simulation:
    """A class with sessions, its status, and what one replica after another decides.

    ``hurts``: what becomes of a session that is updated to a revision.
    """

    rollout: Rollout = field(default_factory=Rollout)
    target: Revision = field(default_factory=lambda: A)
    now: datetime = NOW
    status: RolloutStatus | None = None
    members: dict[Key, Member] = field(default_factory=dict)
    admitted: frozenset[Key] = frozenset()
    hurts: Callable[[str, Key], bool] = lambda *_: False
    resume: str | None = None
    limit: int = 1
    begun: list[tuple[Key, str, RolloutPhase]] = field(default_factory=list)
    allowed_before_soak: int = 0

    def add(self, number: int, **changes: Any) -> Simulation:
        for _ in range(number):
            key = "ns", f"s{len(self.members):03}"
            state: dict[str, Any] = {
                "revision": "a",
                "valid": True,
                "well": True,
                "since": NOW,
            } | changes
            self.members[key] = Member(key, **state)
        return self

    def decide(self) -> RolloutStatus:
        decision = decide(
            self.status, self.rollout, self.target, list(self.members.values()), self.admitted,
            self.now, operator="o", limit=self.limit, resume=self.resume,
        )  # fmt: skip
        self.status, self.admitted = decision
        return self.status

    def begin(self, key: Key) -> None:
        """Act as the shard of an admitted session: its update begins."""
        assert self.status is not None
        member = self.members[key]
        update = UpdateStatus(
            at=self.now,
            revision=self.target.name,
            was_ready=member.well,
            was_valid=member.valid,
        )
        self.members[key] = member._replace(
            revision=self.target.name, well=False, since=self.now, update=update
        )
        self.begun.append((key, self.target.name, self.status.phase))

    def finish(self, key: Key) -> None:
        """Act as a session whose next pod has started."""
        member = self.members[key]
        assert member.update is not None
        if self.hurts(member.revision or "", key):
            update = member.update.model_copy(update={"failed": True})
            self.members[key] = member._replace(
                valid=False, update=update, since=self.now, reason="LoggedOutByPhone"
            )
            return
        update = member.update.model_copy(update={"done": True, "failed": False})
        self.members[key] = member._replace(
            well=member.valid, since=self.now, update=update, reason=""
        )

    @property
    def in_flight(self) -> list[Key]:
        return [k for k, m in self.members.items() if m.is_updating and not m.update.failed]  # type: ignore[union-attr]

    def tick(self, seconds: float = 5) -> RolloutStatus:
        """Let everything happen that may, and the time pass."""
        for key in sorted(self.admitted):
            self.begin(key)
        for key in self.in_flight:
            self.finish(key)
        self.now += timedelta(seconds=seconds)
        return self.decide()

    def until(self, *phases: RolloutPhase, ticks: int = 500) -> RolloutStatus:
        for _ in range(ticks):
            status = self.tick()
            if status.phase in phases:
                return status
        raise AssertionError(f"still {self.status}")

    def on(self, revision: Revision) -> list[Key]:
        return [key for key, m in self.members.items() if m.revision == revision.name]


def rolling(number: int, **rollout: Any) -> Simulation:
    """Return a class whose sessions are Ready, right after a change."""
    simulation = Simulation(Rollout.model_validate(rollout)).add(number)
    assert simulation.decide().phase is RolloutPhase.COMPLETE
    simulation.target = B
    return simulation


def test_a_good_change_reaches_all() -> None:
    simulation = rolling(3)
    first = simulation.decide()
    assert (first.phase, first.stable.name, len(simulation.admitted)) == ("Canary", "a", 1)
    soaking = simulation.until(RolloutPhase.SOAKING)
    assert (soaking.updated, soaking.ready, soaking.total) == (1, 1, 3)
    done = simulation.until(RolloutPhase.COMPLETE)
    assert (done.updated, done.stable.name) == (3, "b")
    assert done.previous is not None
    assert done.previous.name == "a"
    assert simulation.now - NOW < timedelta(minutes=4), "not slow for three"


def test_a_hurt_canary_halts_it() -> None:
    simulation = rolling(50, maxConcurrent=10)
    simulation.hurts = lambda revision, _: revision == "b"
    halted = simulation.until(RolloutPhase.HALTED)
    assert halted.halted is not None
    assert halted.halted.reason == "LoggedOutByPhone"
    [canary] = simulation.on(B)
    assert halted.halted.session == "/".join(canary)
    for _ in range(50):
        simulation.tick(3600)
    assert simulation.on(B) == [canary], "also not when time passes"


def test_a_canary_that_fails_while_it_soaks_halts_it() -> None:
    simulation = rolling(5)
    simulation.until(RolloutPhase.SOAKING)
    [canary] = simulation.on(B)
    member = simulation.members[canary]
    failed = member.update.model_copy(update={"failed": True})  # type: ignore[union-attr]
    simulation.members[canary] = member._replace(well=False, update=failed)
    assert simulation.tick().phase is RolloutPhase.HALTED
    assert len(simulation.on(B)) == 1


def test_a_canary_that_is_away_does_not_soak_and_halts_it_in_the_end() -> None:
    simulation = rolling(5)
    simulation.until(RolloutPhase.SOAKING)
    [canary] = simulation.on(B)
    away = simulation.members[canary]._replace(well=False, since=simulation.now)
    simulation.members[canary] = away
    assert simulation.tick(300).phase is RolloutPhase.SOAKING
    assert simulation.tick(400).phase is RolloutPhase.HALTED


def test_a_halt_is_accepted() -> None:
    simulation = rolling(6)
    hurt: list[Key] = []
    simulation.hurts = lambda revision, key: revision == "b" and (hurt == [key] or not hurt)
    simulation.until(RolloutPhase.HALTED)
    hurt += simulation.on(B)
    assert simulation.status is not None
    assert simulation.status.halted is not None
    simulation.resume = "another halt"
    assert simulation.tick().phase is RolloutPhase.HALTED
    simulation.resume = simulation.status.halted.id
    assert simulation.until(RolloutPhase.COMPLETE).updated == 6


def test_undoing_touches_only_what_was_updated_and_waits_for_no_soak() -> None:
    simulation = rolling(20, maxConcurrent=2, steps=["50%"])
    simulation.until(RolloutPhase.PROGRESSING)
    bad = simulation.members[min(set(simulation.members) - set(simulation.on(B)))].key
    simulation.hurts = lambda revision, key: revision == "b" and key == bad
    while simulation.tick().phase is not RolloutPhase.HALTED:
        pass
    on_b = set(simulation.on(B))
    began = simulation.now
    simulation.target = A
    assert simulation.decide().phase is RolloutPhase.ROLLING_BACK
    simulation.begun.clear()
    done = simulation.until(RolloutPhase.COMPLETE)
    assert {key for key, *_ in simulation.begun} == on_b
    assert done.stable.name == "a"
    assert simulation.now - began < timedelta(minutes=2)


def test_undoing_a_complete_rollout() -> None:
    simulation = rolling(4)
    simulation.until(RolloutPhase.COMPLETE)
    simulation.target = A
    assert simulation.decide().phase is RolloutPhase.ROLLING_BACK
    done = simulation.until(RolloutPhase.COMPLETE)
    assert simulation.on(A) == list(simulation.members)
    assert done.stable.name == "a"


def test_what_was_undone_has_a_canary_if_it_comes_again() -> None:
    """Such as from Git, where nobody has reverted it."""
    simulation = rolling(10, maxConcurrent=10)
    simulation.until(RolloutPhase.COMPLETE)
    simulation.target = A
    simulation.until(RolloutPhase.COMPLETE)
    simulation.target = B
    assert simulation.decide().phase is RolloutPhase.CANARY
    assert len(simulation.admitted) == 1


def test_a_canary_that_was_hurt_halts_the_same_revision_again() -> None:
    """It is undone, and Git says the same again before the session could go back."""
    simulation = rolling(40, maxConcurrent=40)
    simulation.hurts = lambda revision, _: revision == "b"
    simulation.until(RolloutPhase.HALTED)
    simulation.now += timedelta(minutes=1)
    simulation.target = A
    simulation.decide()
    simulation.now += timedelta(minutes=1)
    simulation.target = B
    assert simulation.decide().phase is RolloutPhase.HALTED
    assert len(simulation.on(B)) == 1


def test_a_canary_counts_whatever_the_clock_of_its_replica() -> None:
    simulation = rolling(40, maxConcurrent=40)
    simulation.hurts = lambda revision, _: revision == "b"
    simulation.decide()
    [canary] = simulation.admitted
    simulation.now -= timedelta(hours=1)
    simulation.begin(canary)
    simulation.now += timedelta(hours=1)
    simulation.finish(canary)
    assert simulation.decide().phase is RolloutPhase.HALTED


def test_a_session_of_a_later_step_counts_although_its_clock_is_behind() -> None:
    simulation = rolling(40, steps=["50%"], maxConcurrent=10)
    simulation.until(RolloutPhase.PROGRESSING)
    simulation.hurts = lambda *_: True
    first = min(simulation.admitted)
    simulation.now -= timedelta(seconds=20)
    simulation.begin(first)
    simulation.now += timedelta(seconds=20)
    simulation.finish(first)
    assert simulation.decide().phase is RolloutPhase.HALTED


def test_a_pod_that_says_to_be_of_the_revision_is_no_canary() -> None:
    """Its pod was lost right then; or somebody has annotated it."""
    simulation = rolling(40)
    simulation.decide()
    [first] = simulation.admitted
    simulation.members[first] = simulation.members[first]._replace(revision="b")
    assert simulation.decide().step == 0
    [canary] = simulation.admitted
    assert canary != first


def test_an_owner_who_breaks_the_canary_holds_up_nobody() -> None:
    simulation = rolling(20)
    simulation.until(RolloutPhase.SOAKING)
    [first] = simulation.on(B)
    own = UpdateStatus(at=simulation.now, revision="b", was_ready=True, was_valid=True, own=True)
    broken = simulation.members[first]._replace(well=False, since=simulation.now, update=own)
    simulation.members[first] = broken
    assert simulation.decide().phase is RolloutPhase.CANARY
    assert len(simulation.admitted) == 1, "another one"
    assert simulation.until(RolloutPhase.COMPLETE).updated == 20


def test_a_class_that_is_created_again_goes_on_with_its_canary() -> None:
    """Its status is gone, and with it what was stable; sessions know what they run."""
    simulation = rolling(10, maxConcurrent=10)
    simulation.hurts = lambda revision, _: revision == "b"
    simulation.until(RolloutPhase.HALTED)
    simulation.status, simulation.admitted = None, frozenset()
    for key, member in simulation.members.items():  # which say that they have no class
        simulation.members[key] = member._replace(takes_part=False)
    began = simulation.decide()
    for key, member in simulation.members.items():
        simulation.members[key] = member._replace(takes_part=True)
    assert (began.phase, began.stable) == (RolloutPhase.CANARY, Revision(name="a"))
    assert assign(began, "b", "a", keeps_pod=True).name == "a"
    assert simulation.decide().phase is RolloutPhase.HALTED
    assert len(simulation.on(B)) == 1


@pytest.mark.parametrize("revisions", [[], ["b", "b"], ["a", None], [None]])
def test_what_a_class_says_first_is_stable(revisions: list[str | None]) -> None:
    """Unless all sessions know that it is not what they run."""
    simulation = Simulation(target=B)
    for revision in revisions:
        simulation.add(1, revision=revision)
    first = simulation.decide()
    assert (first.phase, first.stable) == (RolloutPhase.COMPLETE, B)


def test_a_mend_is_applied_at_once_to_the_hurt_and_then_step_by_step() -> None:
    simulation = rolling(10)
    simulation.hurts = lambda revision, _: revision == "b"
    simulation.until(RolloutPhase.HALTED)
    [hurt] = simulation.on(B)
    simulation.target = C
    assert simulation.decide().phase is RolloutPhase.CANARY
    assert hurt in simulation.admitted
    assert len(simulation.admitted) == 2, "and a canary that is well"
    done = simulation.until(RolloutPhase.COMPLETE)
    assert (done.updated, done.stable.name) == (10, "c")


def test_pausing_admits_nobody_and_lets_finish_what_has_begun() -> None:
    simulation = rolling(10, maxConcurrent=5, soak="0s", steps=["50%"])
    simulation.until(RolloutPhase.PROGRESSING)
    simulation.begin(min(simulation.admitted))
    simulation.rollout.paused = True
    assert simulation.tick().phase is RolloutPhase.PAUSED
    assert simulation.admitted == frozenset()
    updated = simulation.on(B)
    for _ in range(10):
        simulation.tick(3600)
    assert simulation.on(B) == updated
    simulation.rollout.paused = False
    assert simulation.until(RolloutPhase.COMPLETE).updated == 10


def test_a_class_paused_without_rolling_sessions_is_not_complete() -> None:
    simulation = rolling(0, paused=True)
    simulation.add(2, takes_part=False)
    assert simulation.tick().phase is RolloutPhase.PAUSED


def test_sessions_that_are_not_well_neither_block_nor_count() -> None:
    """Those without a login come last; a broken one is no canary while another one is well."""
    simulation = rolling(2)
    simulation.add(3, valid=False, well=False).add(3, well=False)
    first = simulation.decide()
    [canary] = simulation.admitted
    assert simulation.members[canary].well
    assert first.total == 8
    assert simulation.until(RolloutPhase.COMPLETE).updated == 8
    order = [key for key, *_ in simulation.begun]
    without = [key for key, m in simulation.members.items() if not m.valid]
    assert set(order[-3:]) == set(without)


def test_a_canary_is_awaited_while_sessions_may_become_ready() -> None:
    """An outage of WhatsApp is no reason to update without looking."""
    simulation = rolling(0)
    simulation.add(3, well=False, may_recover=True)
    assert simulation.decide().phase is RolloutPhase.CANARY
    assert simulation.admitted == frozenset()
    simulation.now += CANARY_PATIENCE
    simulation.decide()
    assert len(simulation.admitted) == 1


def test_more_canaries_than_are_ready() -> None:
    """Those that do not become Ready have their turn, but later."""
    simulation = rolling(2, canary={"sessions": 3}, maxConcurrent=5)
    simulation.add(2, well=False, may_recover=True)
    simulation.until(RolloutPhase.COMPLETE)
    begun = [key[1] for key, *_ in simulation.begun]
    assert set(begun[:2]) == {"s000", "s001"}
    assert simulation.now - NOW > CANARY_PATIENCE


def test_all_that_are_updated_at_a_time_can_be_accepted() -> None:
    """An undo that the API server rejects would leave all of them as they are."""
    simulation = rolling(MAXIMUM_ACCEPTED + 1, canary={"sessions": 0}, steps=[], maxConcurrent=1000)
    simulation.hurts = lambda *_: True
    simulation.tick()
    simulation.limit = 2000
    halted = simulation.until(RolloutPhase.HALTED)
    assert halted.halted is not None
    simulation.resume = halted.halted.id
    for target in (B, A):
        simulation.target = target
        status = simulation.tick(60)
        assert RolloutStatus.model_validate(status.dump()) == status
        assert status.phase is not RolloutPhase.HALTED
        assert len(status.accepted) == MAXIMUM_ACCEPTED


def test_a_class_that_is_broken_is_mended_without_a_wait() -> None:
    simulation = rolling(0)
    simulation.add(3, well=False)
    simulation.decide()
    assert len(simulation.admitted) == 1


def test_no_more_on_a_node_than_allowed() -> None:
    simulation = Simulation(Rollout(max_concurrent=10, max_concurrent_per_node=1, steps=[]))
    simulation.add(5, node="one").add(5, node="two").decide()
    simulation.target = B
    simulation.decide()
    while simulation.tick().step == 0:
        pass
    nodes = [simulation.members[key].node for key in simulation.admitted]
    assert sorted(map(str, nodes)) == ["one", "two"]


def test_the_class_chooses_its_canaries() -> None:
    simulation = Simulation().add(20).add(1, is_canary=True).add(20)
    simulation.decide()
    simulation.target = B
    simulation.decide()
    [canary] = simulation.admitted
    assert simulation.members[canary].is_canary


WINDOW = {"schedule": "0 2 * * 1-5", "duration": "2h", "timeZone": "Europe/Berlin"}


def test_sessions_are_updated_within_the_window() -> None:
    simulation = rolling(3, maintenanceWindow=WINDOW)  # 4:04 in Berlin, on a Friday
    closed = simulation.decide()
    assert (closed.phase, closed.message) == (
        RolloutPhase.WAITING_FOR_WINDOW,
        "The maintenance window opens at 2026-01-05T01:00:00Z.",
    )
    assert simulation.admitted == frozenset()
    simulation.now = datetime(2026, 1, 5, 1, 0, tzinfo=UTC)
    assert simulation.decide().phase is RolloutPhase.CANARY
    simulation.tick()
    simulation.now = datetime(2026, 1, 5, 3, 0, tzinfo=UTC)
    simulation.until(RolloutPhase.WAITING_FOR_WINDOW)
    assert len(simulation.on(B)) == 1
    simulation.target = A
    assert simulation.decide().phase is RolloutPhase.ROLLING_BACK
    assert simulation.until(RolloutPhase.COMPLETE).stable.name == "a"


def test_an_update_that_has_not_begun_in_the_window_waits_for_the_next() -> None:
    simulation = rolling(3, maintenanceWindow=WINDOW)
    simulation.now = datetime(2026, 1, 5, 1, 0, tzinfo=UTC)
    simulation.decide()
    assert len(simulation.admitted) == 1
    simulation.now = datetime(2026, 1, 5, 3, 0, tzinfo=UTC)
    assert simulation.decide().phase is RolloutPhase.WAITING_FOR_WINDOW
    assert simulation.admitted == frozenset()


def test_steps_are_numbers_or_percentages_of_the_sessions() -> None:
    simulation = rolling(20, maxConcurrent=20, steps=[3, "50%", 900])
    reached = [1]
    while simulation.tick().phase is not RolloutPhase.COMPLETE:
        if simulation.status is not None and simulation.status.phase is RolloutPhase.SOAKING:
            reached.append(len(simulation.on(B)))
    assert sorted(set(reached)) == [1, 3, 10]
    assert len(simulation.on(B)) == 20


def test_all_sessions_with_the_labels_are_canaries() -> None:
    simulation = Simulation(limit=9).add(5).add(3, is_canary=True)
    simulation.decide()
    simulation.target = B
    simulation.decide()
    assert [simulation.members[key].is_canary for key in simulation.admitted] == [True] * 3


@pytest.mark.parametrize("step", [0, -1, "0%", "101%", "10", "1.5%", True, None])
def test_other_steps_are_refused(step: object) -> None:
    with pytest.raises(ValidationError, match="number of sessions"):
        Rollout.model_validate({"steps": [step]})


@pytest.mark.parametrize(
    ("now", "opens"),
    [
        ("2026-03-27T00:59:59Z", "2026-03-27T01:00:00Z"),
        ("2026-03-27T01:00:00Z", None),
        ("2026-03-27T02:59:59Z", None),
        ("2026-03-27T03:00:00Z", "2026-03-30T00:00:00Z"),  # summer time
        ("2026-03-30T00:00:00Z", None),
    ],
)
def test_when_a_window_opens(now: str, opens: str | None) -> None:
    window = MaintenanceWindow.model_validate(WINDOW)
    expected = None if opens is None else datetime.fromisoformat(opens)
    assert next_opening(window, datetime.fromisoformat(now)) == expected


@pytest.mark.parametrize(
    ("now", "opens"),
    [
        ("2026-10-25T00:29:59Z", "2026-10-25T00:30:00Z"),
        ("2026-10-25T01:10:00Z", None),  # 2:10 again: the clocks were set back at 3:00
        ("2026-10-25T02:29:59Z", None),
        ("2026-10-25T02:30:00Z", "2026-10-26T01:30:00Z"),
    ],
)
def test_a_window_in_the_hour_that_comes_twice(now: str, opens: str | None) -> None:
    window = MaintenanceWindow.model_validate(WINDOW | {"schedule": "30 2 * * *"})
    expected = None if opens is None else datetime.fromisoformat(opens)
    assert next_opening(window, datetime.fromisoformat(now)) == expected


@pytest.mark.parametrize("schedule", ["61 * * * *", "0 0 30 2 *"])
def test_an_invalid_window_never_opens(schedule: str) -> None:
    window = MaintenanceWindow.model_validate(WINDOW | {"schedule": schedule})
    with pytest.raises(InvalidWindow):
        next_opening(window, NOW)
    simulation = rolling(3, maintenanceWindow=window)
    assert simulation.tick().phase is RolloutPhase.WAITING_FOR_WINDOW


# --- what a session runs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "target", "current", "changes", "expected"),
    [
        ("Canary", "b", "a", {}, "a"),
        ("Canary", "b", None, {}, "a"),  # a new session
        ("Canary", "b", "b", {}, "b"),
        ("Canary", "b", "a", {"is_admitted": True}, "b"),
        ("Halted", "b", "a", {}, "a"),
        ("Halted", "c", "a", {}, "a"),  # the leader has not decided yet
        ("Halted", "c", "b", {"keeps_pod": True}, "b"),
        ("Halted", "c", "b", {}, "a"),  # its pod is gone
        ("Halted", "a", "b", {"keeps_pod": True}, "b"),  # it is undone, but not its turn yet
        ("Complete", "b", "a", {"keeps_pod": True}, "b"),
        ("Complete", "b", "z", {}, "b"),  # it has slept for long
        ("Complete", "c", "a", {}, "a"),
        ("Complete", "c", "a", {"on_delete": True}, "c"),
        ("Complete", "c", "a", {"on_delete": True, "is_paused": True}, "a"),
        ("Canary", "b", "a", {"on_delete": True}, "a"),
    ],
)
def test_what_a_session_runs(
    phase: str, target: str, current: str | None, changes: dict[str, bool], expected: str
) -> None:
    complete = phase == "Complete"
    rollout = RolloutStatus.model_validate(
        {
            "operator": "o", "revision": "b", "stable": {"name": "a", "template": "{}"},
            "phase": phase, "since": NOW, "started": NOW, "stepStarted": NOW,
        }
    )  # fmt: skip
    if complete and expected in ("b", "c") and current == "a" and not changes.get("on_delete"):
        rollout.stable = B
    revision = assign(rollout, target, current, **changes)
    assert revision.name == expected
    assert (revision.template is not None) is (expected == rollout.stable.name != target)


def test_without_a_rollout_a_session_runs_what_its_class_says() -> None:
    assert assign(None, "a", None) == Revision(name="a")


def test_a_pod_stays_until_it_is_decided_whether_its_class_has_changed() -> None:
    """Such as one that was created again: its canary is not chosen yet."""
    assert assign(None, "b", "a", keeps_pod=True) == Revision(name="a")
    assert assign(None, "b", "a") == Revision(name="b")


# --- properties -----------------------------------------------------------------------------------

Kinds = st.lists(st.sampled_from(["ready", "away", "unlinked", "asleep"]), max_size=30)


def fill(simulation: Simulation, kinds: Iterable[str]) -> None:
    for kind in kinds:
        match kind:
            case "ready":
                simulation.add(1)
            case "away":
                simulation.add(1, well=False, may_recover=True)
            case "unlinked":
                simulation.add(1, well=False, valid=False)
            case "asleep":
                simulation.add(1, well=False, takes_part=False)


@settings(deadline=None, max_examples=150)
@given(
    kinds=Kinds,
    canaries=st.integers(0, 3),
    steps=st.lists(st.integers(1, 100), max_size=4, unique=True).map(sorted),
    limit=st.integers(1, 40),
    bad=st.sets(st.integers(0, 29)),
    seed=st.integers(0, 2**16),
    soak=st.sampled_from([0, 7, 60]),
)
def test_whatever_happens(
    kinds: list[str],
    canaries: int,
    steps: list[int],
    limit: int,
    bad: set[int],
    seed: int,
    soak: int,
) -> None:
    """Sessions begin and end in any order; replicas restart and forget whom they have admitted."""
    chance = random.Random(seed)  # noqa: S311
    rollout = Rollout(
        canary={"sessions": canaries},
        steps=[f"{step}%" for step in steps],
        soak=timedelta(seconds=soak),
    )
    simulation = Simulation(rollout, limit=limit)
    fill(simulation, kinds)
    simulation.decide()
    simulation.target = B
    simulation.hurts = lambda _, key: int(key[1][1:]) in bad
    was_halted = False
    for _ in range(120):
        before = simulation.status
        status = simulation.decide()
        assert before is not None
        if was_halted and before.halted is not None:
            assert status.phase is RolloutPhase.HALTED
        if status.phase is RolloutPhase.HALTED:
            was_halted = True
            assert simulation.admitted == frozenset()
            assert status.halted is not None
        logged_in = [m for m in simulation.members.values() if m.takes_part and m.valid]
        on_b = [simulation.members[key] for key in simulation.on(B)]
        reached = {m.key for m in on_b if m.update and m.update.was_valid} | {
            key for key in simulation.admitted if simulation.members[key].valid
        }
        if canaries and status.step == 0 and logged_in:
            assert len(reached) <= canaries, "no more than the canary before it has soaked"
        assert len(simulation.in_flight) <= limit
        assert len({*simulation.in_flight, *simulation.admitted}) <= limit
        for key in sorted(simulation.admitted):
            if chance.random() < 0.6:
                simulation.begin(key)
        for key in simulation.in_flight:
            if chance.random() < 0.6:
                simulation.finish(key)
        if chance.random() < 0.2:
            simulation.admitted = frozenset()
        simulation.now += timedelta(seconds=chance.choice([1, 5, 30]))
    asleep = [m for m in simulation.members.values() if not m.takes_part]
    assert all(m.revision == "a" for m in asleep)
