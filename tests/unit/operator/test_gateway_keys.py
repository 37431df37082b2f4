"""Each gateway gets the key of its sessions' namespace, and no other."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
from support.background import in_background
from wasession_api.kube.client import SECRETS, KubeClient, Rejected, Resource, Unavailable
from wasession_api.kube.manifests import Manifest
from wasession_api.session_pod.token_derivation import namespace_key
from wasession_operator import gateway_keys
from wasession_operator.gateway_keys import GatewayKeys
from wasession_operator.master_key import MasterKey
from wasession_operator.plan import Backoff
from wasession_operator.settings import GatewayKey

KEY, OTHER = bytes(range(32)), bytes(range(100, 132))
TARGETS = [
    GatewayKey("team-a", "gateways", "key-of-a"),
    GatewayKey("team-b", "team-b", "session-key"),
]


class Api:
    """An API server that fails the first ``errors`` requests."""

    def __init__(self) -> None:
        self.applied: asyncio.Queue[Manifest] = asyncio.Queue()
        self.errors: list[Exception] = []

    async def apply(self, resource: Resource, manifest: Manifest) -> Manifest:
        assert resource is SECRETS
        if self.errors:
            raise self.errors.pop(0)
        self.applied.put_nowait(manifest)
        return manifest


class Fixture:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.write_bytes(b64encode(KEY))
        self.api = Api()
        self.changes: asyncio.Queue[None] = asyncio.Queue()
        self.led = {target.sessions_namespace for target in TARGETS}
        self.keys = GatewayKeys(
            self._leads,
            MasterKey(path),
            TARGETS,
            lambda: self.changes.put_nowait(None),
        )

    def _leads(self, namespace: str) -> KubeClient | None:
        return cast(KubeClient, self.api) if namespace in self.led else None

    async def applied(self) -> dict[tuple[str, str], bytes]:
        """Return the next key of each gateway, by its Secret."""
        keys = {}
        async with asyncio.timeout(60):
            for _ in TARGETS:
                secret = await self.api.applied.get()
                where = secret["metadata"]["namespace"], secret["metadata"]["name"]
                keys[where] = b64decode(b64decode(secret["data"]["session-key"]), validate=True)
        return keys


def keys_of(master_key: bytes) -> dict[tuple[str, str], bytes]:
    return {
        ("gateways", "key-of-a"): namespace_key(master_key, "team-a"),
        ("team-b", "session-key"): namespace_key(master_key, "team-b"),
    }


@pytest.fixture
def fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fixture:
    monkeypatch.setattr(gateway_keys, "POLL_INTERVAL", 0.001)
    monkeypatch.setattr(gateway_keys, "next_backoff", lambda _: Backoff(1))
    return Fixture(tmp_path / "key")


@contextlib.asynccontextmanager
async def running(fixture: Fixture) -> AsyncIterator[None]:
    async with in_background(fixture.keys.run()):
        yield


async def test_a_gateway_gets_its_key_at_the_start_and_with_each_new_one(fixture: Fixture) -> None:
    async with running(fixture):
        assert await fixture.applied() == keys_of(KEY)
        fixture.path.write_bytes(b64encode(OTHER))
        assert await fixture.applied() == keys_of(OTHER)
        await fixture.changes.get()
        await asyncio.sleep(0.05)  # some rounds without a change
        assert fixture.api.applied.empty()
        assert fixture.changes.empty()


async def test_a_failure_is_logged_and_retried(
    fixture: Fixture, caplog: pytest.LogCaptureFixture
) -> None:
    fixture.api.errors = [Rejected("forbidden"), Unavailable("no answer")]
    async with running(fixture):
        assert await fixture.applied() == keys_of(KEY)
    failures = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.__dict__["error"] for record in failures] == ["forbidden", "no answer"]
    assert failures[0].__dict__["secret"] == "key-of-a"


async def test_retries_wait_for_their_backoff(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    fixture.api.errors = [Rejected("forbidden")]
    await fixture.keys._apply_pending()
    await fixture.keys._apply_pending()
    assert fixture.api.applied.qsize() == 1, "the other one"


async def test_a_deleted_secret_comes_back(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_keys, "RESYNC", timedelta(0))
    async with running(fixture):
        assert await fixture.applied() == keys_of(KEY)
        assert await fixture.applied() == keys_of(KEY)
    assert fixture.changes.empty()


async def test_each_key_is_applied_by_the_replica_that_leads_the_namespace(
    fixture: Fixture,
) -> None:
    fixture.led = {"team-a"}
    await fixture.keys._apply_pending()
    assert fixture.api.applied.get_nowait()["metadata"]["name"] == "key-of-a"
    assert fixture.api.applied.empty()
    fixture.led = {"team-a", "team-b"}
    await fixture.keys._apply_pending()
    assert fixture.api.applied.get_nowait()["metadata"]["name"] == "session-key", "taken over"
    assert fixture.api.applied.empty()
