"""One running gateway, and tokens for it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import jwt
from integration.gateway.fakes import NAMESPACE, ApiServer, key_file
from kubernetes.aio import client
from support.loopback import unused_port
from wasession_api.kube.client import KubeClient
from wasession_gateway.app import Gateway
from wasession_gateway.settings import Settings

SECRET = "a secret of the tests, long enough"
READY: dict[str, Any] = {
    "phase": "Ready",
    "sessionValid": True,
    "isAuthenticated": True,
    "authState": "CONNECTED",
    "restored": False,
    "podName": "pod",
    "podUID": "1",
    "lastConnected": "2026-10-01T10:00:00Z",
    "account": {"id": "15551234567@c.us"},
}


def token(subject: str, **claims: Any) -> str:
    return jwt.encode(
        {"sub": subject, "aud": "wasession", "exp": time.time() + 3600, **claims},
        SECRET,
        algorithm="HS256",
    )


class Replica:
    """One running gateway."""

    def __init__(self, api: ApiServer, **settings: Any) -> None:
        port, management = unused_port(), unused_port()
        self.url, self.management = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{management}"
        self._stack = contextlib.AsyncExitStack()
        directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.key_file = directory / "session-key"
        self.key_file.write_text(key_file())
        chosen = {
            "host": "127.0.0.1",
            "port": port,
            "management_port": management,
            "namespace": NAMESPACE,
            "session_key_file": self.key_file,
        }
        self.settings = Settings(
            **{**chosen, "JWT_SECRET": SECRET, "drain_delay": "0s", **settings}
        )
        self._api, self._client = (
            api,
            client.ApiClient(client.Configuration(host=f"http://127.0.0.1:{api.port}")),
        )

    async def start(self) -> Replica:
        self._stack.push_async_callback(self._client.close)
        self.gateway = await self._stack.enter_async_context(
            Gateway(self.settings, KubeClient(self._client, "wasession-gateway"))
        )
        self.http = await self._stack.enter_async_context(aiohttp.ClientSession(self.url))
        await self.gateway.sessions.informer.wait_for_sync()
        return self

    def expire_tokens(self, until: float) -> None:
        """Let the tokens of connected clients expire that do so until then."""
        for connected in self.gateway._namespace._clients.values():
            identity = connected.identity
            if identity is not None and identity.accepted_until <= until:
                connected.identity = dataclasses.replace(identity, accepted_until=0)

    async def stop(self) -> None:
        await self._stack.aclose()

    async def caught_up(self) -> None:
        """Wait until the gateway has the sessions of the API server."""
        sessions = self.gateway.sessions
        await until(
            lambda: (
                {session.name: session.version for session in sessions.of(None)}
                == self._api.versions
            )
        )

    async def ask(self, who: str, method: str, path: str, expect: int = 200, **more: Any) -> Any:
        """Return JSON from the gateway, which has caught up before unless ``at_once`` is set."""
        if not more.pop("at_once", False):
            await self.caught_up()
        headers = {
            "Authorization": f"Bearer {token(who, **more.pop('claims', {}))}",
            **more.pop("headers", {}),
        }
        async with self.http.request(method, path, headers=headers, **more) as answer:
            text = await answer.text()
            assert answer.status == expect, text
            if expect >= 400:
                assert answer.content_type == "application/problem+json"
            return await answer.json(content_type=None) if text else None


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, until the test's timeout."""
    while not condition():  # noqa: ASYNC110 - not every condition has an event
        await asyncio.sleep(0.01)
