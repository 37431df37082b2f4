"""The CRDs are what the models say, and what a structural schema may be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from wasession_api.admission_policy import CLASS_POLICY, OWNER_POLICY, POLICIES, Policy
from wasession_api.crd import BACKUP, FILES, KINDS, SESSION, SESSION_CLASS, Kind, crd, render
from wasession_api.v1alpha1 import Override, Spec

Schema = dict[str, Any]
CHART = Path(__file__).parents[3] / "charts" / "wasession-operator"


@pytest.mark.parametrize(("path", "source"), FILES.items(), ids=lambda value: str(value)[-60:])
def test_the_committed_files_are_up_to_date(path: Path, source: Kind | Policy) -> None:
    assert path.read_text() == render(source), "run `make crds`"


def schema(kind: Kind) -> Schema:
    result: Schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return result


def fields(path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from fields(f"{path}.{name}".lstrip("."), child)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from fields(f"{path}[]", schema[key])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.names["kind"])
def test_every_field_is_described_and_structural(kind: Kind) -> None:
    for path, field in fields("", schema(kind)):
        assert "type" in field or field.get("x-kubernetes-int-or-string"), path
        assert not {"$ref", "anyOf", "$defs", "title", "oneOf"} & set(field), path
        if not path.endswith("[]"):
            assert field["description"].endswith((".", ":")), path


def test_every_validation_rule_has_its_field() -> None:
    """A rule of a field that was renamed would be lost without a trace."""
    for kind in KINDS:
        paths = {path for path, _ in fields("", schema(kind))}
        assert kind.validations.keys() <= paths
        for path, rules in kind.validations.items():
            field = dict(fields("", schema(kind)))[path]
            assert all(rule in field["x-kubernetes-validations"] for rule in rules)


# --- what a session has and what its class decides ------------------------------------------------


def test_a_session_cannot_choose_what_runs() -> None:
    paths = {path for path, _ in fields("", schema(SESSION))}
    for name in (
        "image", "extraArgs", "podTemplate", "whatsappURL", "caBundle", "egress", "deliveryPolicy",
        "waJS", "whatsappDocument",
    ):  # fmt: skip
        assert not [path for path in paths if path.startswith("spec") and path.endswith(name)]
        assert f"spec.{name}" in {path for path, _ in fields("", schema(SESSION_CLASS))}


def test_what_comes_from_the_class_has_no_default_in_a_session() -> None:
    """It would look like a value that the session sets itself."""
    for field in Override:
        for path, child in fields("", schema(SESSION)):
            if path.startswith(f"spec.{field}"):
                assert "default" not in child, path
    assert schema(SESSION)["properties"]["spec"]["default"] == {
        "replicas": 1,
        "suspend": False,
        "logoutOnDelete": False,
        "pairing": {"method": "QRCode", "maxRounds": 5},
    }
    size = dict(fields("", schema(SESSION)))["spec.storage.size"]
    assert size["description"].endswith("Default: 1Gi, unless the class says otherwise.")


def test_what_a_backup_is_of_never_changes() -> None:
    """Not with a later version's defaults either. Only who may import it may change."""
    spec = schema(BACKUP)["properties"]["spec"]
    rule = spec["x-kubernetes-validations"][0]["rule"]
    mutable = {name for name in spec["properties"] if f"self.{name} == oldSelf.{name}" not in rule}
    assert mutable == {"exportTo"}
    assert "default" not in spec, "an empty one is refused for what it lacks"
    assert spec["properties"]["deletionPolicy"]["default"] == "Retain"
    version = crd(BACKUP)["spec"]["versions"][0]
    assert version["subresources"] == {"status": {}}
    paths = [field["jsonPath"] for field in version["selectableFields"]]
    assert paths == [".spec.sessionName", ".status.phase"]


def test_a_class_has_no_defaults() -> None:
    """A later version's defaults hold for classes that do not set the field."""
    assert not [path for path, child in fields("", schema(SESSION_CLASS)) if "default" in child]
    size = dict(fields("", schema(SESSION_CLASS)))["spec.template.storage.size"]
    assert size["description"].endswith("Default: 1Gi.")


def test_a_class_can_allow_every_field_of_its_template() -> None:
    """Each leaf of the template is an override, or is part of one."""
    template = schema(SESSION_CLASS)["properties"]["spec"]["properties"]["template"]
    leaves = [path for path, child in fields("", template) if path and "properties" not in child]
    allowed = tuple(Override)
    assert [path for path in leaves if not path.startswith(allowed)] == []
    session = {path for path, _ in fields("", schema(SESSION))}
    assert {f"spec.{field}" for field in allowed} <= session


def test_the_default_class_of_the_chart_allows_every_override_but_the_live_view() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    allowed = [field.value for field in Override if field is not Override.LIVE_VIEW]
    assert values["defaultClass"]["spec"] == {"overrides": allowed}


def test_a_spec_can_be_as_short_as_its_owner() -> None:
    assert Spec.model_validate({"owner": "user-42"}).model_fields_set == {"owner"}


# --- admission policies ---------------------------------------------------------------------------


def expressions() -> Iterator[str]:
    for policy in POLICIES:
        for part in ("variables", "validations", "matchConditions"):
            for item in policy.spec[part]:
                yield item["expression"]
                yield item.get("messageExpression", "")


def test_the_policies_have_a_rule_for_every_override() -> None:
    text = "\n".join(expressions())
    for field in Override:
        assert f"'{field}' in variables.overrides" in text


def test_the_policies_ask_for_fields_that_exist() -> None:
    """A misspelled field would be absent in every session, and its rule never violated."""
    session = {path for path, _ in fields("", schema(SESSION))}
    session_class = {path for path, _ in fields("", schema(SESSION_CLASS))}
    for text in expressions():
        for path in re.findall(r"variables\.session\.([A-Za-z.]*[A-Za-z])", text):
            assert f"spec.{path}" in session
        for path in re.findall(r"variables\.class\.([A-Za-z.]*[A-Za-z])", text):
            assert f"spec.{path}" in session_class
        for path in re.findall(r"variables\.limits\.([A-Za-z]+)", text):
            assert f"spec.limits.{path}" in session_class


def test_only_what_the_operator_decides_too_passes_without_an_evaluation() -> None:
    assert CLASS_POLICY.spec["failurePolicy"] == "Ignore"
    assert OWNER_POLICY.spec["failurePolicy"] == "Fail"
