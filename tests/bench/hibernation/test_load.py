"""How many texts there are, and who gets them."""

from __future__ import annotations

import random

import pytest
import yaml
from wasession_api.v1alpha1.session_class import ClassSpec

from bench.hibernation import load, stage
from bench.hibernation.load import (
    AFTER_IDLE,
    TIME_AWAKE,
    Load,
    account,
    choose,
    choose_checked,
    default_awake,
    logged_out,
    names,
)


def test_the_rate_is_what_keeps_so_many_awake() -> None:
    some = Load(sessions=200, awake=20, minutes=60)
    assert TIME_AWAKE / some.interval == pytest.approx(20)
    assert some.seconds == TIME_AWAKE + 3600
    assert Load(sessions=4, awake=1, minutes=2).interval == TIME_AWAKE


@pytest.mark.parametrize(("sessions", "awake"), [(200, 20), (15, 2), (4, 1), (1, 1)])
def test_a_tenth_is_awake_but_never_none(sessions: int, awake: int) -> None:
    assert default_awake(sessions) == awake


def test_the_class_hibernates_as_the_load_expects() -> None:
    values = yaml.safe_load(stage.VALUES.read_text())
    hibernation = ClassSpec.model_validate(values["defaultClass"]["spec"]).template.hibernation
    assert hibernation.after_idle is not None
    assert hibernation.after_idle.total_seconds() == AFTER_IDLE
    assert values["gateway"]["namespace"] == stage.NAMESPACE


def test_who_is_asleep_and_gets_no_text_may_be_chosen() -> None:
    chance = random.Random(1)  # noqa: S311 - a test
    chosen = {choose(["a", "b", "c"], {"b"}, chance) for _ in range(100)}
    assert chosen == {"a", "c"}
    assert choose(["a"], {"a"}, chance) is None
    assert choose([], set(), chance) is None


@pytest.mark.parametrize(
    ("count", "expected"), [(1, [{"c", "d"}, set()]), (3, [{"c", "d"}, {"a", "b"}])]
)
def test_who_has_slept_all_the_time_is_checked_first(count: int, expected: list[set[str]]) -> None:
    chance = random.Random(1)  # noqa: S311 - a test
    for _ in range(20):
        chosen = choose_checked(["a", "b", "c", "d"], {"a", "b"}, count, chance)
        assert len(set(chosen)) == count
        assert set(chosen[:2]) <= expected[0]
        assert set(chosen[2:]) <= expected[1]
    assert sorted(choose_checked(["a", "c"], {"a"}, 9, chance)) == ["a", "c"]


def test_each_session_has_a_number_of_its_own() -> None:
    assert names(2) == ["s-0001", "s-0002"]
    assert len({account(name) for name in names(5000)}) == 5000
    assert account("s-0002") == "15550000002"


def test_a_session_whose_device_is_gone_was_logged_out() -> None:
    linked = {"s-0001": "device-1", "s-0002": "device-2"}
    assert logged_out(linked, {"device-1", "device-2", "of somebody else"}) == []
    assert logged_out(linked, {"device-1", "a new one"}) == ["s-0002"]


def test_linking_does_not_fill_the_machine() -> None:
    assert Load(200, 20, 1).most_while_linking == 60
    assert Load(4, 1, 1).most_while_linking == load.LEAST_AWAKE_WHILE_LINKING
