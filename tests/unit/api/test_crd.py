"""The CRD is what the models say, and what a structural schema may be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from wasession_api.crd import FILES, crd, render


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_the_committed_files_are_up_to_date(path: Any) -> None:
    assert path.read_text() == render(), "run `make crds`"


def fields(path: str, schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from fields(f"{path}.{name}", child)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from fields(f"{path}[]", schema[key])


SCHEMA = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


@pytest.mark.parametrize(
    ("path", "schema"),
    list(fields("", SCHEMA)),
    ids=[path or "." for path, _ in fields("", SCHEMA)],
)
def test_every_field_is_described_and_structural(path: str, schema: dict[str, Any]) -> None:
    assert "type" in schema or schema.get("x-kubernetes-int-or-string")
    assert not {"$ref", "anyOf", "$defs", "title", "oneOf"} & set(schema)
    if not path.endswith("[]"):
        assert schema["description"].endswith(".")
