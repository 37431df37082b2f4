"""What the client of the Kubernetes API sends, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from aiohttp import web
from kubernetes.aio import client
from kubernetes.aio.config import kube_config
from wasession_api.kube.client import (
    MAX_CONCURRENT_REQUESTS,
    OUTAGE,
    PODS,
    SESSIONS,
    TEST_FAILED,
    TIMEOUT,
    Conflict,
    Fenced,
    KubeClient,
    Rejected,
    ResourceExpired,
    Unavailable,
)


class Server:
    """An API server that answers everything with one status, and one body if it is given."""

    def __init__(self) -> None:
        self.status = 200
        self.body: str | None = None
        self.requests: list[web.Request] = []

    async def serve(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        if self.body is not None:
            return web.Response(text=self.body, status=self.status)
        return web.json_response({"metadata": {}, "items": []}, status=self.status)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def kube(server: Server) -> AsyncIterator[KubeClient]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configuration = client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
    kube = KubeClient(client.ApiClient(configuration), "test-manager")
    yield kube
    await kube.close()
    await runner.cleanup()


async def test_writes_name_their_field_manager(kube: KubeClient, server: Server) -> None:
    await kube.create(PODS, {"metadata": {"name": "a", "namespace": "ns"}})
    await kube.patch(PODS, "ns", "a", {}, "/status")
    await kube.delete(PODS, "ns", "a", "uid")
    await kube.get(PODS, "ns", "a")
    managers = [request.query.get("fieldManager") for request in server.requests]
    assert managers == ["test-manager", "test-manager", None, None]
    assert {request.headers["User-Agent"] for request in server.requests} == {"test-manager"}


async def test_how_patches_are_merged(kube: KubeClient, server: Server) -> None:
    """The API server knows no strategic merge of custom resources."""
    await kube.patch(PODS, "ns", "a", {})
    await kube.patch(SESSIONS, "ns", "a", {}, "/status")
    await kube.patch(SESSIONS, "ns", "a", [])
    types = [request.headers["Content-Type"].split("+")[0] for request in server.requests]
    kinds = ("strategic-merge-patch", "merge-patch", "json-patch")
    assert types == [f"application/{kind}" for kind in kinds]


async def test_an_outage_ends_with_the_first_answer(kube: KubeClient, server: Server) -> None:
    """An error of the API server is no answer."""
    began = kube.answers.last = kube.answers.since = time.monotonic() - OUTAGE - 1
    server.status = 500
    with pytest.raises(Unavailable):
        await kube.get(PODS, "ns", "a")
    assert (kube.answers.last, kube.answers.since) == (began, began)
    server.status = 200
    await kube.get(PODS, "ns", "a")
    assert kube.answers.since == kube.answers.last > began
    since = kube.answers.since
    await kube.get(PODS, "ns", "a")
    assert kube.answers.last > since == kube.answers.since


async def test_only_a_list_or_a_watch_expires(kube: KubeClient, server: Server) -> None:
    """No caller of the others expects that."""
    server.status = 410
    with pytest.raises(ResourceExpired):
        await anext(kube.pages(PODS, "ns"))
    with pytest.raises(ResourceExpired):
        await anext(kube.watch(PODS, "ns", "", "1"))
    for request in (
        kube.get(PODS, "ns", "a"),
        kube.create(PODS, {"metadata": {"name": "a", "namespace": "ns"}}),
        kube.patch(PODS, "ns", "a", {}),
        kube.delete(PODS, "ns", "a", "uid"),
    ):
        with pytest.raises(Unavailable):
            await request


@pytest.mark.parametrize(
    "line",
    [
        '{"type": "ADDED", "obj',
        "null",
        "[]",
        "{}",
        '{"type": "ADDED", "object": {}}',
        '{"type": "ADDED", "object": {"metadata": {"resourceVersion": 7}}}',
        '{"type": "ERROR", "object": "too late"}',
        '{"type": "ERROR", "object": {"code": 500}}',
        "<html>502 Bad Gateway</html>",
    ],
)
async def test_what_is_no_event_ends_a_watch(kube: KubeClient, server: Server, line: str) -> None:
    valid = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "7"}}}
    server.body = f"{json.dumps(valid)}\n{line}\n"
    events = kube.watch(PODS, None, "", "5")
    versions = [(await anext(events))["object"]["metadata"]["resourceVersion"] for _ in range(2)]
    assert versions == ["5", "7"]
    with pytest.raises(Unavailable):
        await anext(events)


@pytest.mark.parametrize(
    "body",
    ["<html></html>", "null", "[]", "{}", '{"metadata": {}, "items": []}', '{"items": [1]}'],
)
async def test_what_is_no_list(kube: KubeClient, server: Server, body: str) -> None:
    server.body = body
    with pytest.raises(Unavailable):
        await anext(kube.pages(PODS, None))


# --- fenced clients -------------------------------------------------------------------------------


class Wire:
    """An API server that counts the bytes that it receives, and answers when it is let."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.requests = 0
        self.answers = asyncio.Event()
        self.arrived = asyncio.Event()
        self.reader: asyncio.StreamReader

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        body = b'{"metadata": {"resourceVersion": "7"}, "items": []}'
        length = 0
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.received += head
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                self.received += await reader.readexactly(length)
                length = 0
                self.requests += 1
                self.arrived.set()
                await self.answers.wait()
                headers = f"Content-Type: application/json\r\nContent-Length: {len(body)}"
                writer.write(f"HTTP/1.1 200 OK\r\n{headers}\r\n\r\n".encode() + body)
        writer.close()


class Clock:
    """A fence whose time is set by the test."""

    def __init__(self, left: float) -> None:
        self.left = left
        self.asked = asyncio.Event()

    def remaining(self) -> float:
        self.asked.set()
        return self.left


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
async def connected(
    wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[KubeClient]:
    """Return a client as the operator connects it."""
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    named: dict[str, dict[str, Any]] = {
        "clusters": {"cluster": {"server": url}},
        "users": {"user": {}},
    }
    contexts = [{"name": "x", "context": {"cluster": "x", "user": "x"}}]
    kubeconfig = {kind: [{"name": "x", **of}] for kind, of in named.items()}
    path = tmp_path / "kubeconfig"
    path.write_text(
        json.dumps(
            {"apiVersion": "v1", "kind": "Config", "current-context": "x", "contexts": contexts}
            | kubeconfig
        )
    )
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    kube = await KubeClient.connect("test-manager", "test-agent")
    yield kube
    await kube.close()
    server.close()
    await server.wait_closed()


def writes(kube: KubeClient) -> list[Coroutine[None, None, object]]:
    return [
        kube.create(PODS, {"metadata": {"name": "a", "namespace": "ns"}}),
        kube.apply(PODS, {"metadata": {"name": "a", "namespace": "ns"}}),
        kube.patch(PODS, "ns", "a", {}),
        kube.delete(PODS, "ns", "a", "uid"),
    ]


async def test_no_byte_of_a_write_is_sent_after_its_time(connected: KubeClient, wire: Wire) -> None:
    wire.answers.set()
    clock = Clock(30)
    fenced = connected.fenced(clock)
    for write in writes(fenced):
        await write
    assert wire.requests == 4
    sent = len(wire.received)
    clock.left = 0
    for write in writes(fenced):
        with pytest.raises(Fenced):
            await write
    with pytest.raises(Fenced):
        fenced.check_fence()
    assert len(wire.received) == sent
    await fenced.get(PODS, "ns", "a")
    async for _ in fenced.pages(PODS, "ns"):
        pass
    assert wire.requests == 6, "reads go on"
    for write in writes(connected):
        await write
    assert wire.requests == 10, "and so do those of others"
    connected.check_fence()
    assert b"User-Agent: test-agent\r\n" in wire.received


@pytest.mark.parametrize("verb", range(4), ids=["create", "apply", "patch", "delete"])
async def test_no_byte_is_sent_by_a_write_whose_time_ends_while_it_waits(
    connected: KubeClient, wire: Wire, verb: int
) -> None:
    """It waits for a connection, as while a process is paused."""
    wire.answers.set()
    await connected.get(PODS, "ns", "a")
    wire.answers.clear()
    wire.arrived.clear()
    pool: Any = connected._api.rest_client.pool_manager
    connector = pool.connector
    connector._limit = 1
    clock = Clock(30)
    fenced = connected.fenced(clock)
    others = writes(fenced)
    write = others.pop(verb)
    for other in others:
        other.close()
    async with asyncio.timeout(60):
        read = asyncio.create_task(connected.get(PODS, "ns", "a"))
        await wire.arrived.wait()
        sent = len(wire.received)
        late = asyncio.create_task(write)
        await clock.asked.wait()
        while not connector._waiters:  # noqa: ASYNC110 - that it waits for a connection
            await asyncio.sleep(0)
        clock.left = 0
        wire.answers.set()
        await read
        with pytest.raises(Fenced):
            await late
    assert len(wire.received) == sent


async def test_a_write_waits_no_longer_than_its_time(connected: KubeClient, wire: Wire) -> None:
    with mock.patch.object(connected._api, "call_api", wraps=connected._api.call_api) as call:
        wire.answers.set()
        await connected.fenced(Clock(4.5)).patch(PODS, "ns", "a", {})
        await connected.fenced(Clock(4.5)).get(PODS, "ns", "a")
        await connected.fenced(Clock(9e9)).patch(PODS, "ns", "a", {})
        await connected.patch(PODS, "ns", "a", {})
    timeouts = [one.kwargs["_request_timeout"].total for one in call.call_args_list]
    assert timeouts == [4.5, TIMEOUT, TIMEOUT, TIMEOUT]
    wire.answers.clear()
    with pytest.raises(Unavailable, match="Timeout"):
        await connected.fenced(Clock(0.05)).patch(PODS, "ns", "a", {})


async def test_nothing_goes_on_to_be_sent_of_a_write_that_is_given_up(
    connected: KubeClient, wire: Wire
) -> None:
    """Its connection is reset, and not closed after all that the kernel still has to send."""
    with pytest.raises(Unavailable, match="Timeout"):
        await connected.fenced(Clock(0.05)).patch(PODS, "ns", "a", {})
    with pytest.raises(ConnectionResetError):
        await wire.reader.read()


async def test_an_unqueued_client_does_not_wait_for_the_others(
    connected: KubeClient, wire: Wire
) -> None:
    async with asyncio.timeout(60):
        queue = [
            asyncio.create_task(connected.get(PODS, "ns", "a"))
            for _ in range(MAX_CONCURRENT_REQUESTS + 1)
        ]
        while wire.requests < MAX_CONCURRENT_REQUESTS:
            wire.arrived.clear()
            await wire.arrived.wait()
        wire.arrived.clear()
        unqueued = asyncio.create_task(connected.unqueued().get(PODS, "ns", "b"))
        await wire.arrived.wait()
        assert b"/pods/b " in wire.received
        assert wire.requests == MAX_CONCURRENT_REQUESTS + 1, "the last of the others waits"
        wire.answers.set()
        await asyncio.gather(unqueued, *queue)


async def test_a_queued_write_is_not_sent_after_its_time(connected: KubeClient, wire: Wire) -> None:
    clock = Clock(30)
    async with asyncio.timeout(60):
        queue = [
            asyncio.create_task(connected.get(PODS, "ns", "a"))
            for _ in range(MAX_CONCURRENT_REQUESTS)
        ]
        while wire.requests < MAX_CONCURRENT_REQUESTS:
            wire.arrived.clear()
            await wire.arrived.wait()
        write = asyncio.create_task(connected.fenced(clock).patch(PODS, "ns", "a", {}))
        while not connected._semaphore._waiters:  # noqa: ASYNC110 - that it is queued
            await asyncio.sleep(0)
        clock.left = 0
        wire.answers.set()
        await asyncio.gather(*queue)
        with pytest.raises(Fenced):
            await write
    assert wire.requests == MAX_CONCURRENT_REQUESTS


async def test_a_patch_whose_test_fails_is_for_another_object(
    kube: KubeClient, server: Server
) -> None:
    server.status, server.body = 422, json.dumps({"message": TEST_FAILED})
    with pytest.raises(Conflict):
        await kube.patch(SESSIONS, "ns", "a", [])
    server.body = json.dumps({"message": "spec.replicas: Invalid value"})
    with pytest.raises(Rejected):
        await kube.patch(SESSIONS, "ns", "a", [])
