"""The client of a session pod: token fail-over, errors and event streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from wasession_api.http import sse
from wasession_api.session_pod import client
from wasession_api.session_pod.client import (
    MAXIMUM_BODY,
    SessionPodClient,
    Unauthorized,
    UnexpectedStatus,
    base_url,
    read_body,
)

TIMEOUT = aiohttp.ClientTimeout(total=10)


class Pod:
    """A session pod that accepts some tokens and notes each request's."""

    def __init__(self) -> None:
        self.accepted = {"new"}
        self.presented: list[str] = []
        self.last_event_ids: list[str | None] = []
        self.queries: list[str] = []
        self.stream: list[bytes] = []
        self.silent = False
        self.closing = asyncio.Event()
        app = web.Application()
        app.router.add_get("/v1/state", self.state)
        app.router.add_get("/v1/events", self.events)
        app.router.add_get("/v1/elsewhere", self.elsewhere)
        app.router.add_get("/v1/body", self.body)
        self.server = TestServer(app)

    def check(self, request: web.Request) -> None:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        self.presented.append(token)
        if token not in self.accepted:
            raise web.HTTPUnauthorized

    async def state(self, request: web.Request) -> web.Response:
        self.check(request)
        return web.json_response({"key": request.headers.get("Idempotency-Key")}, status=201)

    async def body(self, request: web.Request) -> web.Response:
        self.check(request)
        return web.Response(body=b"x" * int(request.query["size"]))

    async def elsewhere(self, request: web.Request) -> web.Response:
        self.check(request)
        raise web.HTTPFound("/v1/state")

    async def events(self, request: web.Request) -> web.StreamResponse:
        self.check(request)
        self.last_event_ids.append(request.headers.get("Last-Event-ID"))
        self.queries.append(request.query_string)
        if request.query.get("types") == "unknown":
            raise web.HTTPUnprocessableEntity
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in self.stream:
            await response.write(chunk)
        if self.silent:
            await self.closing.wait()
        return response


@pytest.fixture
async def pod() -> AsyncIterator[Pod]:
    pod = Pod()
    async with pod.server:
        yield pod
        pod.closing.set()


class Tokens:
    """The tokens in the session's Secret, and how often they were read."""

    def __init__(self, *tokens: str) -> None:
        self.tokens, self.reads = list(tokens), 0

    async def __call__(self) -> list[str]:
        self.reads += 1
        return self.tokens


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


def make_client(http: aiohttp.ClientSession, pod: Pod, tokens: Tokens) -> SessionPodClient:
    return SessionPodClient(http, str(pod.server.make_url("")).rstrip("/"), tokens)


async def status(client: SessionPodClient, path: str = "/v1/state") -> int:
    async with client.request("GET", path, timeout=TIMEOUT) as response:
        return response.status


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("10.0.0.7", "http://10.0.0.7:8080"),
        ("fd00::7", "http://[fd00::7]:8080"),
        ("localhost", "http://localhost:8080"),
    ],
)
def test_base_url(address: str, url: str) -> None:
    assert base_url(address) == url


async def test_the_previous_token_works_during_a_rotation(
    http: aiohttp.ClientSession, pod: Pod
) -> None:
    pod.accepted = {"old"}
    assert await status(make_client(http, pod, Tokens("new", "old"))) == 201
    assert pod.presented == ["new", "old"]


async def test_the_accepted_token_is_remembered(http: aiohttp.ClientSession, pod: Pod) -> None:
    pod.accepted = {"old"}
    tokens = Tokens("new", "old")
    client = make_client(http, pod, tokens)
    await status(client)
    await status(client)
    assert pod.presented == ["new", "old", "old"]
    assert tokens.reads == 1


async def test_a_remembered_token_that_is_rejected_gives_way_to_the_current_ones(
    http: aiohttp.ClientSession, pod: Pod
) -> None:
    pod.accepted = {"old"}
    tokens = Tokens("old")
    client = make_client(http, pod, tokens)
    await status(client)
    pod.accepted, tokens.tokens = {"new"}, ["new", "old"]
    assert await status(client) == 201
    assert pod.presented == ["old", "old", "new"]  # each once


@pytest.mark.parametrize("tokens", [(), ("wrong",), ("wrong", "older")])
async def test_unauthorized_when_the_pod_accepts_no_token(
    http: aiohttp.ClientSession, pod: Pod, tokens: tuple[str, ...]
) -> None:
    with pytest.raises(Unauthorized):
        await status(make_client(http, pod, Tokens(*tokens)))
    assert pod.presented == list(tokens)


async def test_a_rejected_token_is_forgotten(http: aiohttp.ClientSession, pod: Pod) -> None:
    tokens = Tokens("new")
    client = make_client(http, pod, tokens)
    await status(client)
    pod.accepted = set()
    with pytest.raises(Unauthorized):
        await status(client)
    pod.accepted = {"new"}
    assert await status(client) == 201
    assert tokens.reads == 3


async def test_headers_are_sent_beside_the_token(http: aiohttp.ClientSession, pod: Pod) -> None:
    client = make_client(http, pod, Tokens("new"))
    headers = {"Idempotency-Key": "k"}
    async with client.request("GET", "/v1/state", timeout=TIMEOUT, headers=headers) as response:
        assert await response.json() == {"key": "k"}


@pytest.mark.parametrize(
    ("size", "read"),
    [(0, 0), (7, 7), (MAXIMUM_BODY, MAXIMUM_BODY), (20 * MAXIMUM_BODY, MAXIMUM_BODY)],
)
async def test_a_body_is_read_up_to_a_limit(
    http: aiohttp.ClientSession, pod: Pod, size: int, read: int
) -> None:
    client = make_client(http, pod, Tokens("new"))
    async with client.request("GET", f"/v1/body?size={size}", timeout=TIMEOUT) as response:
        assert await read_body(response) == b"x" * read
    async with client.request("GET", f"/v1/body?size={size}", timeout=TIMEOUT) as response:
        assert await read_body(response, 5) == b"x" * min(size, 5)


async def test_a_redirect_does_not_take_the_token_elsewhere(
    http: aiohttp.ClientSession, pod: Pod
) -> None:
    assert await status(make_client(http, pod, Tokens("new")), "/v1/elsewhere") == 302
    assert pod.presented == ["new"]


async def test_events(http: aiohttp.ClientSession, pod: Pod) -> None:
    pod.stream = [
        b": open\n\nevent: state\nid: 7\n",
        b'data: {"seq":1}\n\n: heartbeat\n\ndata: a\ndata: b\n\ndata: cut',
    ]
    client = make_client(http, pod, Tokens("new"))
    events = [event async for event in client.events("state", last_id="6")]
    assert [(event.type, event.data, event.id) for event in events] == [
        ("state", '{"seq":1}', "7"),
        ("message", "a\nb", "7"),
    ]
    assert pod.last_event_ids == ["6"]


async def test_a_first_connection_names_no_event(http: aiohttp.ClientSession, pod: Pod) -> None:
    client = make_client(http, pod, Tokens("new"))
    assert [event async for event in client.events("state")] == []
    assert pod.last_event_ids == [None]


async def test_events_are_of_some_types_or_all(http: aiohttp.ClientSession, pod: Pod) -> None:
    client = make_client(http, pod, Tokens("new"))
    for types in ("state,ack", None):
        assert [event async for event in client.events(types)] == []
    assert pod.queries == ["types=state,ack", ""]


async def test_a_stream_that_is_rejected(http: aiohttp.ClientSession, pod: Pod) -> None:
    client = make_client(http, pod, Tokens("new"))
    with pytest.raises(aiohttp.ClientResponseError) as error:
        await anext(aiter(client.events("unknown")))
    assert error.value.status == 422


async def test_a_stream_without_a_heartbeat_times_out(
    http: aiohttp.ClientSession, pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "STREAM_TIMEOUT", aiohttp.ClientTimeout(total=None, sock_read=0.05))
    pod.stream, pod.silent = [b"data: a\n\n"], True
    events = make_client(http, pod, Tokens("new")).events("state")
    assert (await anext(events)).data == "a"
    with pytest.raises(TimeoutError):
        await anext(events)


async def test_events_are_followed(http: aiohttp.ClientSession, pod: Pod) -> None:
    pod.accepted = {"old"}
    pod.stream = [b"event: state\nid: 7\n", b'data: {"seq":1}\n\n: heartbeat\n\ndata: cut']
    events: list[sse.ServerSentEvent] = []
    client = make_client(http, pod, Tokens("new", "old"))
    stream = await client.follow("state", events.append, sse.Pace())
    assert await stream.ended is None
    assert events == [sse.ServerSentEvent("state", '{"seq":1}', "7")]
    await client.follow("state", events.append, sse.Pace())
    assert pod.presented == ["new", "old", "old"]


async def test_events_that_cannot_be_followed(http: aiohttp.ClientSession, pod: Pod) -> None:
    client = make_client(http, pod, Tokens("new"))
    with pytest.raises(UnexpectedStatus) as error:
        await client.follow("unknown", print, sse.Pace())
    assert error.value.status == 422
    pod.accepted = set()
    with pytest.raises(Unauthorized):
        await client.follow("state", print, sse.Pace())
