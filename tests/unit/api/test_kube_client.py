"""What the client of the Kubernetes API sends, and what it makes of the answers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from kubernetes.aio import client
from wasession_api.kube.client import OUTAGE, PODS, SESSIONS, KubeClient, Unavailable


class Server:
    """An API server that answers everything with one status."""

    def __init__(self) -> None:
        self.status = 200
        self.requests: list[web.Request] = []

    async def serve(self, request: web.Request) -> web.Response:
        self.requests.append(request)
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
