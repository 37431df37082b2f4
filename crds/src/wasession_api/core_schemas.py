"""Kubernetes' own schemas of the parts of its objects that a WhatsAppSessionClass contains.

``core_schemas.json`` has them as structural schemas, from the OpenAPI documents that
kube-apiserver serves; tests/integration/operator/test_core_schemas.py writes and compares it.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

Schema = dict[str, Any]
FILE = Path(__file__).with_name("core_schemas.json")
# By the document that has them, /openapi/v3/….
KINDS = {
    "api/v1": (
        "io.k8s.api.core.v1.Affinity",
        "io.k8s.api.core.v1.PodSecurityContext",
        "io.k8s.api.core.v1.Toleration",
        "io.k8s.api.core.v1.TopologySpreadConstraint",
    ),
    "apis/networking.k8s.io/v1": ("io.k8s.api.networking.v1.NetworkPolicyEgressRule",),
}
_KEYWORDS = ("type", "format", "enum", "x-kubernetes-map-type")
# The first sentence: "e.g." and "etc." do not end one.
_SENTENCE = re.compile(r"(?:Required\. )?(.+?)\.?(?:(?<=\.) (?=[A-Z-])|$)")
MAXIMUM_ITEMS = 64  # of each list, which bounds what the validation rules of a CRD may cost


@cache
def read() -> dict[str, Schema]:
    """Return the schemas by kind."""
    schemas: dict[str, Schema] = json.loads(FILE.read_text())
    return schemas


def render(documents: dict[str, Schema]) -> str:
    """Return the contents of ``core_schemas.json``; ``documents`` is keyed as ``KINDS``."""
    schemas = {
        kind: _structural({"$ref": kind}, documents[path]["components"]["schemas"])
        for path, kinds in KINDS.items()
        for kind in kinds
    }
    return json.dumps(schemas, indent=1) + "\n"


def _structural(schema: Schema, definitions: Schema) -> Schema:
    """Return an OpenAPI schema as a structural schema, without references and defaults."""
    for part in schema.get("allOf", [schema]):
        if "$ref" in part:
            schema = {**definitions[part["$ref"].rpartition("/")[2]], **schema}
    result: Schema = {"description": _description(schema)}
    if schema.get("format") == "int-or-string":
        return {**result, "x-kubernetes-int-or-string": True}
    result |= {key: schema[key] for key in _KEYWORDS if key in schema}
    if "required" in schema:
        result["required"] = schema["required"]
    if "properties" in schema:
        result["properties"] = {
            name: _structural(child, definitions) for name, child in schema["properties"].items()
        }
    if "items" in schema:
        result["items"] = _structural(schema["items"], definitions)
        result["maxItems"] = MAXIMUM_ITEMS
        result["x-kubernetes-list-type"] = "atomic"
    if "additionalProperties" in schema:
        result["additionalProperties"] = _structural(schema["additionalProperties"], definitions)
    return result


def _description(schema: Schema) -> str:
    """Return the first sentence of the description; most have paragraphs."""
    sentence = _SENTENCE.match(" ".join(schema.get("description", "").split()))
    return f"{sentence[1]}." if sentence else "An item."
