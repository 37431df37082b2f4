"""The schemas of Kubernetes' own types are those that its API server serves."""

from __future__ import annotations

import os
from types import ModuleType

import pytest
from support.chart import values_schema
from support.fakes.world import Environment
from wasession_api import core_schemas


@pytest.mark.parametrize(
    ("schemas", "further"),
    [(core_schemas, ", then run `make crds`"), (values_schema, "")],
    ids=["of the CRDs", "of the chart's values"],
)
async def test_schemas_are_those_of_the_api_server(
    environment: Environment, schemas: ModuleType, further: str
) -> None:
    """With WRITE_CORE_SCHEMAS=1 in the environment, write them."""
    documents = {
        path: await environment.api.call("GET", f"/openapi/v3/{path}") for path in schemas.KINDS
    }
    rendered = schemas.render(documents)
    if os.environ.get("WRITE_CORE_SCHEMAS"):
        schemas.FILE.write_text(rendered)
    assert rendered == schemas.FILE.read_text(), f"write them with WRITE_CORE_SCHEMAS=1{further}"
