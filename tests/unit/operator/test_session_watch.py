"""kopf is started again, whatever it fails of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import kopf
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from wasession_operator import session_watch
from wasession_operator.session_watch import Connections, SessionWatch


async def forever() -> None:
    await asyncio.Event().wait()


async def failing() -> None:
    raise RuntimeError("403 forbidden")


async def ending() -> None:
    """Like a part of kopf that ends without an error."""


@pytest.mark.parametrize(
    ("fail", "error"), [(failing, "403 forbidden"), (ending, "kopf has ended")]
)
async def test_a_failed_watch_is_started_again(
    monkeypatch: pytest.MonkeyPatch, fail: Callable[[], Coroutine[None, None, None]], error: str
) -> None:
    starts = 0
    tasks: list[asyncio.Task[None]] = []
    stable = asyncio.Event()

    async def spawn_tasks(**options: Any) -> list[asyncio.Task[None]]:
        nonlocal starts
        starts += 1
        assert (options["namespaces"], options["clusterwide"]) == (["ns"], False)
        assert options["identity"], "kopf's own fails for a user ID without a name"
        parts: list[Coroutine[None, None, None]] = [
            forever(),
            fail() if starts < 3 else forever(),
        ]
        spawned = [asyncio.create_task(part) for part in parts]
        tasks.extend(spawned)
        if starts == 3:
            stable.set()
        return spawned

    monkeypatch.setattr(kopf, "spawn_tasks", spawn_tasks)
    monkeypatch.setattr(session_watch, "RETRY_FIRST", 0.0)
    handlers: list[int] = []
    watch = SessionWatch(kopf.OperatorRegistry(), "ns", lambda: handlers.append(starts))
    task = asyncio.create_task(watch.run())
    async with asyncio.timeout(60):
        await stable.wait()
    assert watch.error == f"RuntimeError: {error}"
    assert all(part.done() for part in tasks[:4]), "nothing of a failed one goes on"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert all(part.done() for part in tasks)
    assert handlers == [1, 2, 3]


class Kopf:
    """What starts in the place of kopf; it runs until it is told to fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started: asyncio.Queue[list[asyncio.Task[None]]] = asyncio.Queue()
        self.connections: Connections | None = None
        monkeypatch.setattr(kopf, "spawn_tasks", self.spawn)

    async def spawn(self, *, memo: Connections, **_: Any) -> list[asyncio.Task[None]]:
        self.connections = memo
        tasks = [asyncio.create_task(forever())]
        self.started.put_nowait(tasks)
        return tasks


async def test_a_watch_that_has_missed_a_change_starts_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = Kopf(monkeypatch)
    watch = SessionWatch(kopf.OperatorRegistry(), None, lambda: None)
    task = asyncio.create_task(watch.run())
    async with asyncio.timeout(60):
        [first] = await fake.started.get()
        watch.restart()
        await fake.started.get()
    assert first.cancelled()
    assert watch.error is None, "that is no failure"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_kopf_that_waits_for_the_kind_is_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """kopf asks once what resources there are, and an API server may not know all of them yet."""
    fake = Kopf(monkeypatch)
    monkeypatch.setattr(session_watch, "STABLE_AFTER", 0.0)
    monkeypatch.setattr(session_watch, "RETRY_FIRST", 0.0)
    watch = SessionWatch(kopf.OperatorRegistry(), None, lambda: None)
    task = asyncio.create_task(watch.run())
    async with asyncio.timeout(60):
        await fake.started.get()
        await fake.started.get()
    assert watch.error is not None
    assert "has found no WhatsAppSessions" in watch.error
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_watch_that_ends_at_once_is_not_opened_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """kopf itself would open the next one without a pause, for ever."""
    delays: list[float] = []

    sleep_now = asyncio.sleep

    async def sleep(delay: float) -> None:
        await sleep_now(0)
        if delay:
            delays.append(delay)

    fake = Kopf(monkeypatch)
    watch = SessionWatch(kopf.OperatorRegistry(), "ns", lambda: None)
    task = asyncio.create_task(watch.run())
    await fake.started.get()
    assert fake.connections is not None
    app, path = web.Application(), "/apis/wasession.dev/v1alpha1/namespaces/ns/whatsappsessions"

    async def end(_: web.Request) -> web.Response:
        return web.Response()

    app.router.add_get(path, end)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    async with TestServer(app) as server:
        login = fake.connections.open(kopf.ConnectionInfo(server=str(server.make_url(""))))
        async with login.aiohttp_session as http:
            for _ in range(9):
                await (await http.get(f"{login.server}{path}", params={"watch": "true"})).read()
            for _ in range(3):
                await (await http.get(f"{login.server}{path}", params={"continue": "x"})).read()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(delays) == 8, "the parts of a list follow each other at once"
    assert all(1 / 2 * 2**n <= delay <= 2**n for n, delay in enumerate(delays[:5]))
    assert max(delays) <= session_watch.PACE_LAST
    assert watch.error == f"{path}: the watch has ended at once"
    failures = [vars(record)["failures"] for record in caplog.records]
    assert failures == [1, 2, 4, 8]
