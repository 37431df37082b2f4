"""JSON schemas of Kubernetes' objects, from the OpenAPI documents that kube-apiserver serves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Schema = dict[str, Any]
REFERENCE = "#/definitions/"
# Those of an OpenAPI schema that mean the same in a JSON schema.
KEYWORDS = ("type", "enum", "required", "pattern", "minimum", "maximum", "minLength", "maxLength")
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"


def definitions(documents: Iterable[Mapping[str, Any]]) -> dict[str, Schema]:
    """Return the schemas of all types in OpenAPI documents, strict and without descriptions."""
    return {
        name: {"type": ["string", "number"]} if name == QUANTITY else _plain(schema)
        for document in documents
        for name, schema in document["components"]["schemas"].items()
    }


def with_references(types: Mapping[str, Schema], roots: Iterable[str]) -> dict[str, Schema]:
    """Return the schemas of some types, and of those that they refer to."""
    found: dict[str, Schema] = {}
    pending = list(roots)
    while pending:
        name = pending.pop()
        if name not in found:
            found[name] = types[name]
            pending += _references(types[name])
    return dict(sorted(found.items()))


def by_kind(documents: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Yield version and kind of what can be applied, and the name of its type."""
    for document in documents:
        for name, schema in document["components"]["schemas"].items():
            kinds = schema.get("x-kubernetes-group-version-kind", [])
            if len(kinds) == 1 and "metadata" in schema.get("properties", {}):
                yield kinds[0]["version"], kinds[0]["kind"], name


def of_crd(version: Mapping[str, Any]) -> Schema:
    """Return the schema of a version in a CRD's spec."""
    schema: Schema = version["schema"]["openAPIV3Schema"]
    return _plain(schema)


def _plain(schema: Mapping[str, Any]) -> Schema:
    if "$ref" in schema:
        return {"$ref": REFERENCE + re.sub(".*/", "", schema["$ref"])}
    if len(schema.get("allOf", [])) == 1:
        return _plain(schema["allOf"][0])
    if schema.get("format") == "int-or-string" or schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    result = {key: schema[key] for key in KEYWORDS if key in schema}
    if schema.get("format") == "int32":
        result |= {"minimum": -(2**31), "maximum": 2**31 - 1}
    if "properties" in schema:
        result["properties"] = {name: _plain(child) for name, child in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            result["additionalProperties"] = False
    if isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = _plain(schema["additionalProperties"])
    if "items" in schema:
        result["items"] = _plain(schema["items"])
    return result


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(reference := schema.get("$ref"), str):
            yield reference.removeprefix(REFERENCE)
        schema = list(schema.values())
    if isinstance(schema, list):
        for child in schema:
            yield from _references(child)
