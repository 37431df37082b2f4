"""The effective spec: what the session sets, over its class, over the built-in defaults."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from wasession_api.v1alpha1 import ClassOnly, Override, SessionTemplate, Spec, WhenDeleted
from wasession_operator.effective_spec import (
    BUILT_IN,
    EffectiveSpec,
    make_effective,
    merge,
    revision_spec,
)

LEAVES: list[tuple[str, list[Any]]] = [
    ("storage.size", ["2Gi", "3Gi"]),
    ("storage.storageClassName", ["fast", "slow"]),
    ("storage.retention.whenDeleted", ["Retain", "Delete"]),
    ("browser.resources.limits.memory", ["2Gi", "3Gi"]),
    ("browser.resources.limits.cpu", ["1", "2"]),
    ("browser.resources.requests.memory", ["600Mi", "700Mi"]),
    ("browser.locale", ["de-DE", "en-US"]),
    ("whatsapp.takeover", ["Once", "Always"]),
    ("timeouts.shutdown", ["1m", "2m"]),
    ("reconnect.maxDelay", ["10m", "20m"]),
    ("updateStrategy", ["OnDelete", "RollingUpdate"]),
]


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Return an object with values at dotted paths."""
    result: dict[str, Any] = {}
    for path, value in values.items():
        *groups, last = path.split(".")
        group = result
        for name in groups:
            group = group.setdefault(name, {})
        group[last] = value
    return result


def at(obj: Any, path: str) -> Any:
    for key in path.split("."):
        obj = obj.get(key) if isinstance(obj, dict) else None
    return obj


TEMPLATES = st.fixed_dictionaries(
    {}, optional={path: st.sampled_from(values) for path, values in LEAVES}
)


@given(TEMPLATES, TEMPLATES)
def test_each_field_is_the_first_that_is_set(own: dict[str, Any], decided: dict[str, Any]) -> None:
    stored, session_class = (
        nested(own),
        {"template": nested(decided), "overrides": ["storage.retention"]},
    )
    before = copy.deepcopy((stored, session_class))
    effective = make_effective(stored, "standard", session_class).dump()
    assert (stored, session_class) == before, "nothing is written back"
    for path, _ in LEAVES:
        expected = own.get(path, decided.get(path, at(BUILT_IN, path)))
        assert at(effective, path) == expected, path
    assert at(effective, "browser.resources.limits.memory"), "there is always a memory limit"
    assert effective["className"] == "standard"


@given(TEMPLATES)
def test_without_a_class_the_sessions_own_values_count(own: dict[str, Any]) -> None:
    effective = make_effective(nested(own))
    assert effective.class_name is None
    every = {"overrides": list(Override)}
    assert effective == make_effective(nested(own), None, every)


def test_the_layers_have_the_fields_that_they_may_have() -> None:
    assert make_effective({}) == EffectiveSpec()
    template = {"owner": "mallory", "suspend": True, "storage": {"size": "2Gi"}}
    effective = make_effective({}, "c", {"template": template})
    assert (effective.owner, effective.suspend, effective.storage.size) == (None, False, "2Gi")
    own = {"image": "evil:1", "extraArgs": ["--mute-audio"], "podTemplate": {"spec": {}}}
    effective = make_effective(own, "c", {"image": "good:1"})
    assert (effective.image, effective.extra_args) == ("good:1", [])
    assert make_effective(own).image is None


def test_lists_are_replaced_and_objects_are_merged() -> None:
    assert merge({"a": {"x": 1, "y": [1, 2]}}, {"a": {"y": [3], "z": None}}) == {
        "a": {"x": 1, "y": [3], "z": None}
    }


@pytest.mark.parametrize(
    ("own", "decided", "cpu", "memory"),
    [
        ({}, {}, "2", "1Gi"),
        ({"browser.resources.limits.cpu": "1"}, {}, "1", "1Gi"),
        ({}, {"browser.resources.limits.cpu": "500m"}, "500m", "1Gi"),
        ({"browser.resources.requests.cpu": "1"}, {"browser.locale": "de-DE"}, "2", "1Gi"),
    ],
)
def test_without_a_limit_the_classs_is_the_default(
    own: dict[str, Any], decided: dict[str, Any], cpu: str, memory: str
) -> None:
    """Memory always has one."""
    limits = {"cpu": 2, "memory": "8Gi", "storage": "9Gi", "sessionsPerOwner": 3}
    session_class = {"template": nested(decided), "limits": limits}
    effective = make_effective(nested(own), "c", session_class)
    assert effective.browser.resources.limits == {"cpu": cpu, "memory": memory}
    unlimited = make_effective({}, "c", {"limits": {"cpu": None}})
    assert unlimited == make_effective({}, "c", {})


def test_fields_of_a_newer_version_are_ignored() -> None:
    decided = {"template": {"browser": {"future": 1, "locale": "de-DE"}}, "future": {}}
    effective = make_effective({"future": 1, "storage": {"future": 2}}, "c", decided)
    assert effective.browser.locale == "de-DE"


@pytest.mark.parametrize(
    "template", ["{", "1", "null", "[]", '"x"', '{"template": "x"}', '{"limits": ["1"]}']
)
def test_the_fields_of_a_revision_are_objects(template: str) -> None:
    """Somebody may have edited them in the status of the class."""
    with pytest.raises(ValueError, match=r"object|EOF"):
        revision_spec({"overrides": []}, template)


def test_invalid_values_are_rejected() -> None:
    with pytest.raises(ValidationError):
        make_effective({"storage": {"size": "much"}}, "c", {})


@pytest.mark.parametrize(
    ("own", "decided", "overrides", "expected"),
    [
        ("Delete", None, [], WhenDeleted.RETAIN),
        ("Delete", "Retain", [], WhenDeleted.RETAIN),
        ("Retain", "Delete", [], WhenDeleted.RETAIN),
        ("Delete", "Delete", [], WhenDeleted.DELETE),
        (None, "Delete", [], WhenDeleted.DELETE),
        ("Delete", "Retain", ["storage.retention"], WhenDeleted.DELETE),
        ("Retain", "Delete", ["storage.retention"], WhenDeleted.RETAIN),
    ],
)
def test_a_volume_is_deleted_only_by_who_may_decide_that(
    own: str | None, decided: str | None, overrides: list[str], expected: WhenDeleted
) -> None:
    stored = nested({"storage.retention.whenDeleted": own} if own else {})
    template = nested({"storage.retention.whenDeleted": decided} if decided else {})
    effective = make_effective(stored, "c", {"template": template, "overrides": overrides})
    assert effective.storage.retention.when_deleted is expected
    without_class = make_effective(nested({}))
    assert without_class.storage.retention.when_deleted is WhenDeleted.RETAIN


def test_every_field_is_of_the_session_or_of_the_class() -> None:
    both = set(Spec.model_fields) & set(ClassOnly.model_fields)
    assert both == set()
    assert set(EffectiveSpec.model_fields) == set(Spec.model_fields) | set(ClassOnly.model_fields)
    assert set(SessionTemplate.model_fields) < set(Spec.model_fields)
