"""The README's table of values is that of values.yaml, and both are those of the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml
from support.chart import reference
from support.testbed import CHART

VALUES = (CHART / "values.yaml").read_text()
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def test_the_readme_is_up_to_date() -> None:
    readme = reference.README.read_text()
    assert reference.render(readme, VALUES) == readme, "run `make chart-readme`"


def test_every_value_is_described() -> None:
    rows = reference.rows(VALUES)
    assert [row.path for row in rows if not row.description] == []
    assert len({row.path for row in rows}) == len(rows)


def fields(schema: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the paths that a schema knows, without the types of Kubernetes."""
    name = schema.get("$ref", "").rpartition("/")[2]
    if name.startswith("io.k8s."):
        return
    properties = (SCHEMA["definitions"][name] if name else schema).get("properties", {})
    for key, child in properties.items():
        yield f"{prefix}{key}"
        yield from fields(child, f"{prefix}{key}.")


def test_the_schema_knows_the_same_values() -> None:
    defaults = set()

    def collect(values: Mapping[str, Any], prefix: str = "") -> None:
        for key, value in values.items():
            defaults.add(f"{prefix}{key}")
            if isinstance(value, dict):
                collect(value, f"{prefix}{key}.")

    collect(yaml.safe_load(VALUES))
    known = set(fields(SCHEMA))
    assert {path for path in known - defaults if not path.startswith("defaultClass.spec.")} == set()
    inside = (".annotations.", ".labels.", "resources.")
    assert {path for path in defaults - known if not any(part in path for part in inside)} == set()


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("# -- One.\na: 1\n", [("a", "1", "One.")]),
        ("# Not it.\n\n# -- Two\n# lines.\na: x\n", [("a", '"x"', "Two lines.")]),
        ("# A note.\n# -- It.\na: []\n", [("a", "[]", "It.")]),
        ("# -- All.\na:\n  b: 1\n  c: 2\n", [("a", '{"b": 1, "c": 2}', "All.")]),
        (
            "# -- All.\na:\n  # -- This.\n  b: 1\n  c: 2\n",
            [("a", None, "All."), ("a.b", "1", "This."), ("a.c", "2", "")],
        ),
        ("a:\n  # -- This.\n  b: {}\n", [("a.b", "{}", "This.")]),
    ],
)
def test_rows(text: str, rows: list[tuple[str, str | None, str]]) -> None:
    assert reference.rows(text) == rows
