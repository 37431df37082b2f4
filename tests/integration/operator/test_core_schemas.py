"""The schemas of Kubernetes' own types in the CRDs are those that its API server serves."""

from __future__ import annotations

import os

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
