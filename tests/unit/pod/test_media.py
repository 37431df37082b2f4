"""The file of a message over HTTP: ranges, safe headers, and pages that fail."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st
from unit.pod.fake_page import FakePage
from wasession_api.http.routes import checked
from wasession_api.v1alpha1 import Phase
from wasession_pod.api import app
from wasession_pod.api.handlers import HANDLERS
from wasession_pod.api.media import NotSatisfiable, Part, content_type, parse_range
from wasession_pod.api.operations import OPERATIONS
from wasession_pod.api.requests import SESSION
from wasession_pod.browser.bridge import Bridge
from wasession_pod.browser.errors import BrowserError
from wasession_pod.session import Session

CONTENT = bytes(range(256)) * 5000
URL = "/v1/messages/false_15550001111@c.us_3A00/media"
Client = TestClient[Any, Any]
Start = Callable[..., Awaitable[Client]]


class FilePage(FakePage):
    """A page that has one file, and fails from the read on that ``fails_at`` counts."""

    def __init__(self, opened: Any = None, fails_at: int = 1000) -> None:
        super().__init__()
        self.fails_at = fails_at
        self.answers["openMedia"] = opened or {
            "handle": "7",
            "size": len(CONTENT),
            "mimeType": "image/jpeg",
        }

    async def evaluate(self, function: str, name: str, arguments: list[Any]) -> Any:
        answer = await super().evaluate(function, name, arguments)
        if name != "readMedia":
            return answer
        self.fails_at -= 1
        if self.fails_at < 0:
            raise BrowserError("the page is gone")
        _handle, offset, length = arguments
        return base64.b64encode(CONTENT[offset : offset + length]).decode()


class FakeSession:
    report = SimpleNamespace(phase=Phase.READY)

    def __init__(self, page: FakePage) -> None:
        self.page = page

    @contextlib.contextmanager
    def ready_page(self) -> Iterator[Bridge]:
        yield self.page.bridge


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    clients: list[Client] = []

    async def begin(page: FakePage) -> Client:
        application = web.Application(middlewares=[app.respond_with_problems])
        application[SESSION] = cast(Session, FakeSession(page))
        [operation] = [each for each in OPERATIONS if each.name == "getMedia"]
        handler = checked(operation, HANDLERS["getMedia"])
        application.router.add_route(operation.method, operation.path, handler)
        clients.append(TestClient(TestServer(application)))
        await clients[-1].start_server()
        return clients[-1]

    yield begin
    for client in clients:
        await client.close()


async def test_a_file_comes_in_chunks_and_is_closed(start: Start) -> None:
    page = FilePage()
    client = await start(page)
    async with client.get(URL) as answer:
        assert answer.status == 200
        assert await answer.read() == CONTENT
        headers = answer.headers
    assert headers["Content-Type"] == "image/jpeg"
    assert headers["Content-Length"] == str(len(CONTENT))
    assert headers["Content-Disposition"] == "attachment"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "sandbox"
    assert headers["Cache-Control"] == "private, no-store"
    assert headers["Accept-Ranges"] == "bytes"
    reads = [arguments for name, arguments in page.calls if name == "readMedia"]
    assert len(reads) == 3
    assert max(length for _, _, length in reads) <= 2**20
    assert page.calls[-1] == ("closeMedia", ["7"])


@pytest.mark.parametrize(
    ("asked", "start_", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=1000000-", 1_000_000, len(CONTENT)),
        ("bytes=-5", len(CONTENT) - 5, len(CONTENT)),
        ("bytes=5-99999999999", 5, len(CONTENT)),
    ],
)
async def test_a_range(start: Start, asked: str, start_: int, end: int) -> None:
    client = await start(FilePage())
    async with client.get(URL, headers={"Range": asked}) as answer:
        assert answer.status == 206
        assert answer.headers["Content-Range"] == f"bytes {start_}-{end - 1}/{len(CONTENT)}"
        assert await answer.read() == CONTENT[start_:end]


async def test_a_range_outside_of_the_file(start: Start) -> None:
    page = FilePage()
    client = await start(page)
    async with client.get(URL, headers={"Range": f"bytes={len(CONTENT)}-"}) as answer:
        assert (answer.status, answer.content_type) == (416, "application/problem+json")
        assert answer.headers["Content-Range"] == f"bytes */{len(CONTENT)}"
    assert page.functions[-1] == "closeMedia"


async def test_a_file_that_the_client_has(start: Start) -> None:
    page = FilePage()
    client = await start(page)
    async with client.get(URL) as answer:
        etag = answer.headers["ETag"]
        await answer.read()
    for given_ in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        async with client.get(URL, headers={"If-None-Match": given_}) as answer:
            assert (answer.status, await answer.read()) == (304, b"")
    async with client.get(URL, headers={"If-Range": etag, "Range": "bytes=0-0"}) as answer:
        assert (answer.status, await answer.read()) == (206, CONTENT[:1])
    async with client.get(URL, headers={"If-Range": '"x"', "Range": "bytes=0-0"}) as answer:
        assert (answer.status, len(await answer.read())) == (200, len(CONTENT))


@pytest.mark.parametrize(
    ("opened", "status"),
    [
        ({"problem": "Gone"}, 410),
        ({"problem": "TooLarge"}, 413),
        ({"problem": "Busy"}, 503),
        (BrowserError("the page is broken"), 502),
        ({"handle": 7}, 502),
    ],
)
async def test_a_file_that_cannot_be_had(start: Start, opened: Any, status: int) -> None:
    client = await start(FilePage(opened))
    async with client.get(URL) as answer:
        assert (answer.status, answer.content_type) == (status, "application/problem+json")


async def test_a_message_without_a_file(start: Start) -> None:
    page = FakePage(openMedia=None)
    async with (await start(page)).get(URL) as answer:
        assert answer.status == 404


async def test_an_empty_file(start: Start) -> None:
    client = await start(FilePage({"handle": "7", "size": 0}))
    async with client.get(URL) as answer:
        assert (answer.status, await answer.read()) == (200, b"")
        assert answer.headers["Content-Type"] == "application/octet-stream"


async def test_a_page_that_fails_before_the_first_byte_is_a_problem(start: Start) -> None:
    page = FilePage(fails_at=0)
    async with (await start(page)).get(URL) as answer:
        assert (answer.status, answer.content_type) == (502, "application/problem+json")
    assert page.functions[-1] == "closeMedia"


async def test_a_page_that_fails_later_ends_the_connection(start: Start) -> None:
    client = await start(FilePage(fails_at=2))
    async with client.get(URL) as answer:
        assert answer.status == 200
        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
            await answer.read()


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("image/jpeg", "image/jpeg"),
        ("Audio/OGG; codecs=opus", "audio/ogg"),
        ("text/html", "application/octet-stream"),
        ("image/svg+xml", "application/octet-stream"),
        ("application/javascript", "application/octet-stream"),
        ("image/jpeg\r\nX: y", "application/octet-stream"),
        ("", "application/octet-stream"),
        (None, "application/octet-stream"),
    ],
)
def test_a_type_that_runs_nothing(declared: str | None, expected: str) -> None:
    assert content_type(declared) == expected


@pytest.mark.parametrize(
    "header", ["", "bytes", "bytes=", "bytes=-", "bytes=2-1", "items=0-1", "bytes=0-1,3-4",
               "bytes=x-1", "bytes=1-x", "bytes=" + "9" * 19 + "-", "bytes=²-3"],
)  # fmt: skip
def test_what_is_no_range_is_ignored(header: str) -> None:
    assert parse_range(header, 10) is None


@given(st.integers(0, 20), st.integers(0, 25), st.integers(0, 25) | st.none())
def test_ranges_are_parts_of_the_file(size: int, first: int, last: int | None) -> None:
    header = f"bytes={first}-{'' if last is None else last}"
    expected = bytes(size)[first : None if last is None else last + 1]
    try:
        part = parse_range(header, size)
    except NotSatisfiable:
        assert first >= size
    else:
        if last is not None and last < first:
            assert part is None
        else:
            assert part is not None
            assert 0 <= part.start < part.end <= size
            assert part.end - part.start == len(expected)


@given(st.integers(0, 20), st.integers(0, 25))
def test_suffixes_are_parts_of_the_file(size: int, length: int) -> None:
    try:
        assert parse_range(f"bytes=-{length}", size) == Part(max(size - length, 0), size)
    except NotSatisfiable:
        assert not size or not length
