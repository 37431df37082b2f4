"""Session pods that send too much: the gateway reads a part of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from wasession_api.http.problem import HTTPProblem
from wasession_api.http.sse import Pace, ServerSentEvent
from wasession_gateway import pods
from wasession_gateway.commands import Commands
from wasession_gateway.pods import PodEventStream
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


class EndlessBody:
    """Pods whose responses do not end."""

    @contextlib.asynccontextmanager
    async def request(self, *_: object) -> AsyncIterator[Any]:
        content = asyncio.StreamReader()
        content.feed_data(b'{"detail":"' + b"x" * 2**20)
        yield SimpleNamespace(status=503, content=content, read=content.read)


class ClosedStreams:
    """Pods that end the event stream after each event."""

    def __init__(self) -> None:
        self.paces: asyncio.Queue[Pace] = asyncio.Queue()

    async def client(self, _: object) -> Any:
        return self

    def forget(self, _: str) -> None:
        pass

    async def events(self, last_id: str | None, pace: Pace) -> AsyncGenerator[ServerSentEvent]:
        self.paces.put_nowait(pace)
        yield ServerSentEvent("gap", "{}", None)


async def test_an_error_without_an_end_is_an_error() -> None:
    endless: Any = EndlessBody()
    with pytest.raises(HTTPProblem) as error:
        async with asyncio.timeout(10):
            await Commands(UNUSED, UNUSED, endless).logout(SESSION)
    assert error.value.status == 503
    assert error.value.detail == "the session's pod answered with status 503"


async def test_a_pod_gains_nothing_by_ending_its_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pods, "RETRY_FIRST", 0.001)
    closed: Any = ClosedStreams()

    async def on_event(*_: object) -> None:
        pass

    stream = PodEventStream(closed, SESSION, on_event)
    async with asyncio.timeout(10):
        assert await closed.paces.get() is await closed.paces.get()
    stream.close()
