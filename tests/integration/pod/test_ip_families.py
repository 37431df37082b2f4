"""The API answers in clusters of either IP family, and of both."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
from support.ip_families import Families, run_in
from wasession_pod.api.app import serving
from wasession_pod.listening import listen
from wasession_pod.session import Session
from wasession_pod.settings import Settings

PORT = 8080


@pytest.mark.parametrize("families", Families)
def test_the_api_answers(families: Families, tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {"client_id": "sales", "token": "t", "data_dir": tmp_path, "port": PORT}
    )

    async def main() -> list[int]:
        sockets = listen(None, PORT)
        async with serving(Session(settings), settings, sockets), aiohttp.ClientSession() as http:
            statuses = []
            for address in families.loopback:
                async with http.get(f"http://{address}:{PORT}/v1/status") as response:
                    statuses.append(response.status)
            return statuses

    assert run_in(families, main) == [401] * len(families.loopback)
