"""Pages of events, as session pods may answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from wasession_gateway.pods import MAXIMUM_PAGE, Interrupted, NoEvents, Pods, Unreachable
from wasession_gateway.session import read_session

UNUSED: Any = None
SESSION = read_session(
    {
        "metadata": {
            "name": "sales",
            "uid": "uid-1",
            "resourceVersion": "1",
            "creationTimestamp": "2026-10-01T10:00:00Z",
        }
    }
)
CURSOR = "0123456789abcdef-7"


class Answers(Pods):
    """A pod that has as many events as are asked for, each of some bytes."""

    def __init__(self, size: int = 10, **response: Any) -> None:
        super().__init__(UNUSED, UNUSED, "sessions", UNUSED)
        self.limits: list[int] = []
        self._size, self._response = size, response

    @contextlib.asynccontextmanager
    async def request(self, *_: Any, **options: Any) -> AsyncIterator[Any]:
        assert options["headers"] == {"Accept": "application/json"}
        assert options["params"]["after"] == CURSOR
        self.limits.append(int(options["params"]["limit"]))
        data = {"x": "x" * self._size}
        event = {"id": CURSOR, "kind": "gap", "time": "2026-10-01T10:00:00Z", "data": data}
        page = {"items": [event] * self.limits[-1], "next": CURSOR, "more": True, "new": 1}
        response: dict[str, Any] = {"status": 200, "type": "application/json"}
        response |= {"body": json.dumps(page).encode(), **self._response}
        content = asyncio.StreamReader()
        if isinstance(response["body"], Exception):
            content.set_exception(response["body"])
        else:
            content.feed_data(response["body"])
            content.feed_eof()
        yield SimpleNamespace(
            status=response["status"], content_type=response["type"], content=content
        )


async def test_a_page() -> None:
    pods = Answers()
    page, size = await pods.events(SESSION, CURSOR, 100)
    assert (len(page.items), page.next, page.more) == (100, CURSOR, True)
    assert 1000 < size < MAXIMUM_PAGE


@pytest.mark.parametrize(
    ("size", "limits"), [(MAXIMUM_PAGE // 50, [100, 12]), (MAXIMUM_PAGE // 2, [100, 12, 1])]
)
async def test_large_events_come_in_smaller_pages(size: int, limits: list[int]) -> None:
    pods = Answers(size)
    page, _ = await pods.events(SESSION, CURSOR, 100)
    assert len(page.items) == limits[-1]
    assert pods.limits == limits


async def test_an_event_may_be_too_large() -> None:
    pods = Answers(MAXIMUM_PAGE)
    with pytest.raises(NoEvents):
        await pods.events(SESSION, CURSOR, 100)
    assert pods.limits == [100, 12, 1]


@pytest.mark.parametrize(
    ("response", "error"),
    [
        ({"status": 503}, Unreachable),
        ({"status": 422}, NoEvents),
        ({"status": 500}, NoEvents),
        ({"type": "text/event-stream"}, NoEvents),
        ({"body": b"{"}, NoEvents),
        ({"body": b'{"items": [{"id": 7}], "next": "x"}'}, NoEvents),
        ({"body": aiohttp.ClientPayloadError()}, Interrupted),
        ({"body": TimeoutError()}, Interrupted),
    ],
)
async def test_answers_that_are_no_pages(response: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        await Answers(**response).events(SESSION, CURSOR, 100)
