"""The schemas of Kubernetes' own types in the CRDs are those that its API server serves."""

from __future__ import annotations

import os

from support.chart import values_schema
from support.fakes.world import Environment
from wasession_api import core_schemas


async def test_core_schemas_are_those_of_the_api_server(environment: Environment) -> None:
    """With WRITE_CORE_SCHEMAS=1 in the environment, write them."""
    documents = {
        path: await environment.api.call("GET", f"/openapi/v3/{path}")
        for path in core_schemas.KINDS
    }
    rendered = core_schemas.render(documents)
    if os.environ.get("WRITE_CORE_SCHEMAS"):
        core_schemas.FILE.write_text(rendered)
    assert rendered == core_schemas.FILE.read_text(), (
        "write them with WRITE_CORE_SCHEMAS=1, then run `make crds`"
    )


async def test_the_charts_values_are_what_the_api_server_takes(environment: Environment) -> None:
    """With WRITE_CORE_SCHEMAS=1 in the environment, write values.schema.json."""
    documents = {
        path: await environment.api.call("GET", f"/openapi/v3/{path}")
        for path in values_schema.KINDS
    }
    rendered = values_schema.render(documents)
    if os.environ.get("WRITE_CORE_SCHEMAS"):
        values_schema.FILE.write_text(rendered)
    assert rendered == values_schema.FILE.read_text(), "write it with WRITE_CORE_SCHEMAS=1"
