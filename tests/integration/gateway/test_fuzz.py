"""schemathesis sends a running gateway what its own document allows, and what it does not."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from integration.gateway.conftest import Start
from integration.gateway.fakes import KEY, ApiServer, Pod
from integration.gateway.replica import READY, token
from support.loopback import pod_address
from wasession_api.session_pod.token_derivation import derive_token

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.timeout(600)
async def test_any_request(api: ApiServer, start: Start, pod: Pod, tmp_path: Path) -> None:
    """All responses are documented, and none is a server error."""
    gateway = await start(
        subject_rate=1e6,
        subject_burst=10**6,
        address_rate=1e6,
        address_burst=10**6,
        restore_timeout="1s",
        max_sessions_per_owner=1000,
    )
    pod.code = "2@code"
    await pod.receives("Hello")  # or requests would wait for an event

    async def operated(session: str) -> None:
        api.add_pod(session, pod_address(1))
        pod.others.add(derive_token(KEY, api.session(session)["metadata"]["uid"], 0))
        await api.status(session, **READY)

    api.made = operated
    await gateway.ask("alice", "POST", "/whatsapp/sessions", 201, json={"clientId": "sales-eu"})
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "schemathesis.cli",
        "--config-file",
        str(CONFIGURATION),
        "run",
        f"{gateway.url}/openapi.json",
        "--checks=all",
        "--exclude-operation-id=deleteSession",
        cwd=tmp_path,
        env=os.environ | {"GATEWAY_TOKEN": token("alice")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    report, _ = await process.communicate()
    assert process.returncode == 0, report.decode()
    await gateway.ask("alice", "DELETE", "/whatsapp/sessions/sales-eu", 202)
