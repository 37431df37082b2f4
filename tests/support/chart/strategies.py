"""Hypothesis strategies of what a JSON schema accepts, for the keywords of values.schema.json."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jsonschema_rs
from hypothesis import strategies as st

Schema = Mapping[str, Any]
Strategy = st.SearchStrategy[Any]
MOST = 3  # items of a list, and names of a map that has no fixed ones
LENGTH = 12  # characters of a text whose length the schema leaves open
# YAML's own characters among them.
VISIBLE = st.characters(min_codepoint=32, max_codepoint=0x17F, exclude_categories=["Cc"])
TEXT = st.text(VISIBLE, max_size=LENGTH)


def of_schema(schema: Schema, definitions: Mapping[str, Schema]) -> Strategy:
    """Return a strategy of what a schema accepts."""
    validator = jsonschema_rs.validator_for({**schema, "definitions": dict(definitions)})
    return _any(schema, definitions).filter(validator.is_valid)


def _any(schema: Schema, definitions: Mapping[str, Schema]) -> Strategy:
    if "$ref" in schema:
        return _any(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    for choices in ("anyOf", "oneOf"):
        if choices in schema and "properties" not in schema:
            return st.one_of([_any(choice, definitions) for choice in schema[choices]])
    if "allOf" in schema and "properties" not in schema:
        first, second = schema["allOf"]
        return _both(first, second, definitions)
    types = schema.get("type", "object")
    if isinstance(types, list):
        return st.one_of([_any({**schema, "type": kind}, definitions) for kind in types])
    return _OF_TYPE[types](schema, definitions)


def _both(first: Schema, second: Schema, definitions: Mapping[str, Schema]) -> Strategy:
    """Return a strategy of objects of one schema, with the properties of another in their place."""
    narrower = {name: _any(child, definitions) for name, child in second["properties"].items()}
    return st.builds(
        lambda value, new: {**value, **{name: new[name] for name in new if name in value}},
        _any(first, definitions),
        st.fixed_dictionaries(narrower),
    )


def _object(schema: Schema, definitions: Mapping[str, Schema]) -> Strategy:
    properties = schema.get("properties", {})
    if properties:
        required = set(schema.get("required", ()))
        parts = {name: _any(child, definitions) for name, child in properties.items()}
        return st.fixed_dictionaries(
            {name: part for name, part in parts.items() if name in required},
            optional={name: part for name, part in parts.items() if name not in required},
        )
    more = schema.get("additionalProperties", {"type": "string"})
    names = _any({"type": "string", **schema.get("propertyNames", {})}, definitions)
    return st.dictionaries(names, _any(more, definitions), max_size=MOST) if more else st.just({})


def _array(schema: Schema, definitions: Mapping[str, Schema]) -> Strategy:
    return st.lists(
        _any(schema.get("items", {"type": "string"}), definitions),
        max_size=MOST,
        unique=schema.get("uniqueItems", False),
    )


def _string(schema: Schema, _: Mapping[str, Schema]) -> Strategy:
    if "pattern" in schema:
        text: Strategy = st.from_regex(schema["pattern"].replace("$", r"\Z"), alphabet=VISIBLE)
    else:
        text = TEXT
    refused = schema.get("not")
    validator = jsonschema_rs.validator_for(
        {key: schema[key] for key in ("minLength", "maxLength") if key in schema}
        | ({"not": refused} if refused else {})
    )
    return text.filter(validator.is_valid)


def _number(schema: Schema, _: Mapping[str, Schema]) -> Strategy:
    exclusive = "exclusiveMinimum" in schema
    lowest = schema.get("exclusiveMinimum", schema.get("minimum", -math.inf))
    return st.floats(
        lowest if lowest > -math.inf else None,
        schema.get("maximum"),
        exclude_min=exclusive,
        allow_nan=False,
        allow_infinity=False,
    )


_OF_TYPE: dict[str, Callable[[Schema, Mapping[str, Schema]], Strategy]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": lambda schema, _: st.integers(schema.get("minimum"), schema.get("maximum")),
    "number": _number,
    "boolean": lambda _, __: st.booleans(),
    "null": lambda _, __: st.none(),
}
