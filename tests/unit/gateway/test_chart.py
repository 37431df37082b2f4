"""The chart's schema: the gateway's safe combinations, and the spec of the default class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from wasession_api.v1alpha1 import ClassSpec, Limits, Override

CHART = Path(__file__).parents[3] / "charts" / "wasession-operator"
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
JWKS = {"jwt.jwksUrl": "https://issuer.example/keys"}
INGRESS = {"ingress.enabled": True, "ingress.host": "wa.example"}
ROUTE = {"httpRoute.enabled": True, "httpRoute.parentRefs": [{"name": "public"}]}


def rejected(**values: Any) -> list[str]:
    """Return the paths of the gateway's values that the schema rejects."""
    merged = json.loads(json.dumps(VALUES))
    for path, value in {"enabled": True, **values}.items():
        target = merged["gateway"]
        *parents, name = path.split(".")
        for parent in parents:
            target = target[parent]
        target[name] = value
    validator = jsonschema_rs.validator_for(SCHEMA)
    return ["/".join(map(str, error.instance_path)) for error in validator.iter_errors(merged)]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {**JWKS, "jwt.audience": "wasession"},
        {**INGRESS, "settings.trustedProxies": 1},
        {**ROUTE, "settings.trustedProxies": 2},
        {**INGRESS, "enabled": False},
    ],
)
def test_accepted(values: dict[str, Any]) -> None:
    assert rejected(**values) == []


@pytest.mark.parametrize(
    ("values", "path"),
    [
        (JWKS, "gateway/jwt/audience"),
        (INGRESS, "gateway/settings/trustedProxies"),
        (ROUTE, "gateway/settings/trustedProxies"),
    ],
)
def test_rejected(values: dict[str, Any], path: str) -> None:
    assert rejected(**values) == [path]


def test_the_default_class_has_the_fields_of_a_class() -> None:
    spec = SCHEMA["properties"]["defaultClass"]["properties"]["spec"]
    limits, overrides = spec["properties"]["limits"], spec["properties"]["overrides"]
    for schema, model in ((spec, ClassSpec), (limits, Limits)):
        assert not schema["additionalProperties"]
        assert schema["properties"].keys() == model.model_json_schema()["properties"].keys()
    assert overrides["items"]["enum"] == [override.value for override in Override]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"override": []}, "defaultClass/spec"),
        ({"overrides": ["image"]}, "defaultClass/spec/overrides/0"),
        ({"limits": {"disk": "1Gi"}}, "defaultClass/spec/limits"),
        ({"limits": {"cpu": 1}}, "defaultClass/spec/limits/cpu"),
    ],
)
def test_a_class_that_the_api_server_would_reject(change: dict[str, Any], path: str) -> None:
    default = {**VALUES["defaultClass"], "spec": change}
    validator = jsonschema_rs.validator_for(SCHEMA)
    errors = validator.iter_errors({**VALUES, "defaultClass": default})
    assert ["/".join(map(str, error.instance_path)) for error in errors] == [path]
