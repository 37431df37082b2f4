"""Liveness: fails when the session loop hangs, and for nothing else."""

from __future__ import annotations

from pathlib import Path

from aiohttp.test_utils import TestClient, TestServer
from wasession_pod.api.app import application
from wasession_pod.messages.idempotency_store import IdempotencyStore
from wasession_pod.messages.sending import MessageSender
from wasession_pod.session import Session
from wasession_pod.settings import Settings


async def test_only_a_hung_loop_fails_the_probe(tmp_path: Path) -> None:
    settings = Settings(client_id="sales", token="t", data_dir=tmp_path)
    session = Session(settings)
    store = IdempotencyStore(session.database)
    sender = MessageSender(session, store, settings.send_timeout)
    async with TestClient(TestServer(application(session, sender, settings))) as client:
        assert (await client.get("/livez")).status == 200, "without a browser and a login"
        session._ticked_at -= 2 * settings.initialization_timeout
        assert (await client.get("/livez")).status == 200, "a long tick within its timeouts"
        session._ticked_at -= 60
        assert (await client.get("/livez")).status == 503
        assert (await client.get("/readyz")).status == 200
