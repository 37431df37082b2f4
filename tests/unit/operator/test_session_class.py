"""What a class lets its sessions do."""

from __future__ import annotations

from typing import Any

import pytest
from wasession_api.v1alpha1 import Override, Reason
from wasession_operator.effective_spec import BUILT_IN, make_effective
from wasession_operator.plan.facts import Violation
from wasession_operator.plan.session_class import (
    SessionClass,
    default_class,
    find_violation,
    forbidden_overrides,
    parse_class,
)


def session_class(name: str = "standard", **spec: Any) -> SessionClass:
    metadata = {"name": name, "uid": f"uid-{name}", "generation": 2}
    return parse_class({"metadata": metadata, "spec": spec})


def violation(
    stored: dict[str, Any], of: SessionClass | None, ahead: int = 0, namespace: str = "team-a"
) -> Violation | None:
    spec = make_effective(stored) if of is None else make_effective(stored, of.name, of.stored)
    return find_violation(stored, namespace, of, spec, ahead)


def test_a_class_that_does_not_exist() -> None:
    assert violation({"className": "gold"}, None) == (
        Reason.CLASS_NOT_FOUND,
        "WhatsAppSessionClass gold does not exist.",
    )
    missing = violation({}, None)
    assert missing is not None
    assert missing.reason is Reason.CLASS_NOT_FOUND
    assert "no default class" in missing.message


def test_an_invalid_class_is_explained() -> None:
    broken = session_class(template={"storage": {"size": "much"}}, limits={"cpu": "1"})
    assert violation({}, broken) == (
        Reason.INVALID_CLASS,
        "WhatsAppSessionClass standard is invalid: "
        "template.storage.size: must be a quantity such as 512Mi or 1Gi",
    )


def test_a_class_of_a_newer_version_is_read() -> None:
    newer = session_class(future={}, limits={"future": 1, "cpu": "1"}, template={"future": 1})
    assert newer.error is None
    assert newer.spec.limits.cpu == "1"


@pytest.mark.parametrize(
    ("allowed", "namespace", "ok"),
    [
        (None, "team-a", True),
        (["*"], "team-a", True),
        (["team-a"], "team-a", True),
        (["team-*"], "team-a", True),
        (["other", "team-*"], "team-a", True),
        (["team-a"], "team-ab", False),
        (["team-*"], "teams", False),
        (["team-*"], "my-team-a", False),
    ],
)
def test_namespaces(allowed: list[str] | None, namespace: str, ok: bool) -> None:
    spec: dict[str, Any] = {} if allowed is None else {"allowedNamespaces": allowed}
    of = session_class(**spec)
    problem = violation({}, of, namespace=namespace)
    assert (problem is None) is ok
    if problem is not None and allowed is not None:
        assert problem.reason is Reason.CLASS_NOT_ALLOWED
        for part in (namespace, "standard", *allowed):
            assert part in problem.message


def stored_field(path: str) -> dict[str, Any]:
    """Return a session's spec that sets only this field."""
    value: dict[str, Any] = {"any": "value"}
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


@pytest.mark.parametrize("path", list(Override))
def test_a_field_is_set_only_if_the_class_allows_it(path: Override) -> None:
    stored = stored_field(path)
    assert forbidden_overrides(stored, session_class(overrides=[path]).spec) == []
    others = [other for other in Override if other is not path]
    assert forbidden_overrides(stored, session_class(overrides=others).spec) == [path]


def test_an_override_names_field_class_and_what_is_allowed() -> None:
    stored = {"browser": {"locale": "de-DE", "timezone": "Europe/Berlin"}, "owner": "o"}
    assert violation(stored, session_class("gold", overrides=["browser.timezone", "timeouts"])) == (
        Reason.OVERRIDE_NOT_ALLOWED,
        "spec.browser.locale: the class gold does not let its sessions set it; "
        "fields that they can set: browser.timezone, timeouts.",
    )


def test_what_only_a_new_claim_depends_on_is_no_override_of_a_session_that_has_one() -> None:
    """The fields are immutable: a session could not take them back when its class changes."""
    of = session_class(overrides=["storage.size"])
    stored = {"storage": {"storageClassName": "fast", "accessMode": "ReadWriteOnce"}}
    spec = make_effective(stored, of.name, of.stored)
    refused = find_violation(stored, "team-a", of, spec)
    assert refused is not None
    assert "spec.storage.storageClassName, spec.storage.accessMode" in refused.message
    assert find_violation(stored, "team-a", of, spec, has_claim=True) is None
    stored = {"storage": stored["storage"], "browser": {"locale": "de-DE"}}
    spec = make_effective(stored, of.name, of.stored)
    refused = find_violation(stored, "team-a", of, spec, has_claim=True)
    assert refused is not None
    assert refused.message.startswith("spec.browser.locale:")


def test_own_fields_and_empty_objects_are_no_overrides() -> None:
    own = {"owner": "o", "clientId": "c", "suspend": True, "pairing": {"method": "QRCode"}}
    assert violation({**own, "browser": {}, "storage": {"retention": {}}}, session_class()) is None


def test_every_field_of_the_template_can_be_overridden() -> None:
    paths = {
        f"{group}.{field}" for group, fields in BUILT_IN.items() if isinstance(fields, dict)
        for field in fields
    }  # fmt: skip
    groups = (
        Override.TIMEOUTS, Override.RECONNECT, Override.EVENTS, Override.BACKUP,
        Override.HIBERNATION,
    )  # fmt: skip
    covered = set(Override) | {path for path in paths if path.partition(".")[0] in groups}
    assert paths - covered == set()


@pytest.mark.parametrize(
    ("limits", "template", "stored", "message"),
    [
        ({"storage": "1Gi"}, {}, {}, None),
        ({"storage": "1Gi"}, {}, {"storage": {"size": "2Gi"}}, "spec.storage.size is 2Gi"),
        ({"storage": "1Gi"}, {"storage": {"size": "2Gi"}}, {}, "spec.storage.size is 2Gi"),
        ({"memory": "512Mi"}, {}, {}, "spec.browser.resources.limits.memory is 1Gi"),
        (
            {"cpu": "500m"},
            {},
            {"browser": {"resources": {"requests": {"cpu": 1}}}},
            "spec.browser.resources.requests.cpu is 1",
        ),
        ({"cpu": "1"}, {}, {"browser": {"resources": {"limits": {"cpu": "1000m"}}}}, None),
        ({"memory": "2Gi"}, {}, {"browser": {"shmSize": "3Gi"}}, "spec.browser.shmSize is 3Gi"),
    ],
)
def test_limits(
    limits: dict[str, Any], template: dict[str, Any], stored: dict[str, Any], message: str | None
) -> None:
    problem = violation(
        stored, session_class(limits=limits, template=template, overrides=list(Override))
    )
    if message is None:
        assert problem is None
    else:
        assert problem is not None
        assert problem.reason is Reason.LIMIT_EXCEEDED
        assert message in problem.message


def test_the_oldest_sessions_of_an_owner_are_served() -> None:
    of = session_class(limits={"sessionsPerOwner": 2})
    assert [violation({"owner": "o"}, of, ahead) is None for ahead in range(4)] == [
        True, True, False, False,
    ]  # fmt: skip
    assert violation({}, session_class(limits={"sessionsPerOwner": 0}), 0) is not None


def test_the_newest_default_class_counts() -> None:
    def of(name: str, created: str, default: str = "true") -> SessionClass:
        annotations = {"wasession.dev/is-default-class": default}
        metadata = {"name": name, "uid": name, "creationTimestamp": created}
        return parse_class({"metadata": {**metadata, "annotations": annotations}})

    old, new, twin = of("old", "2026-01-01"), of("new", "2026-01-02"), of("alike", "2026-01-02")
    assert default_class([]) is None
    assert default_class([of("no", "2026-01-03", "false")]) is None
    assert default_class([old, new]) == new
    assert default_class([new, twin, old]) == twin
