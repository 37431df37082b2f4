"""A gateway in front of a fake API server and fake session pods."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from integration.gateway.fakes import ApiServer, Pod, serving
from integration.gateway.replica import READY, Replica
from support.loopback import pod_address

Start = Callable[..., Awaitable[Replica]]


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    server = ApiServer()
    async with serving(server.app, "127.0.0.1") as port:
        server.port = port
        yield server
    assert not server.secrets_read


@pytest.fixture
async def start(api: ApiServer) -> AsyncIterator[Start]:
    """Start a gateway with these settings."""
    async with contextlib.AsyncExitStack() as stack:

        async def begin(**settings: Any) -> Replica:
            replica = await Replica(api, **settings).start()
            stack.push_async_callback(replica.stop)
            return replica

        yield begin


@pytest.fixture
async def gateway(start: Start) -> Replica:
    return await start()


@pytest.fixture
async def pod(api: ApiServer) -> AsyncIterator[Pod]:
    """The pod of alice's session ``sales``, which is ready."""
    body = await api.put("sales", {"owner": "alice", "clientId": "sales"}, READY)
    fake = Pod(body["metadata"]["uid"])
    api.add_pod("sales", pod_address(1))
    async with serving(fake.app, pod_address(1), 8080):
        yield fake
