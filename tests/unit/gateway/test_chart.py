"""The chart's schema accepts the gateway's defaults, and rejects combinations that are not safe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

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
