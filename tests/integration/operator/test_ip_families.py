"""The operator's HTTP server answers in clusters of either IP family, and of both."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from support.ip_families import Families, run_in
from wasession_operator import health


@pytest.mark.parametrize("families", Families)
def test_the_http_server_answers(families: Families) -> None:
    async def main() -> list[int]:
        controller = SimpleNamespace(cache=SimpleNamespace(is_synced=False))
        runner = await health.serve(8080, cast(Any, controller), *cast(Any, [None, [], None, None]))
        async with aiohttp.ClientSession() as http:
            statuses = []
            for address in families.loopback:
                async with http.get(f"http://{address}:8080/readyz") as response:
                    statuses.append(response.status)
        await runner.cleanup()
        return statuses

    assert run_in(families, main) == [503] * len(families.loopback)
