"""kopf is started again, whatever it fails of."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import kopf
import pytest
from wasession_operator import session_watch
from wasession_operator.session_watch import SessionWatch


async def forever() -> None:
    await asyncio.Event().wait()


async def failing() -> None:
    raise RuntimeError("403 forbidden")


async def test_a_failed_watch_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
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
            failing() if starts < 3 else forever(),
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
    assert watch.error == "RuntimeError: 403 forbidden"
    assert all(part.done() for part in tasks[:4]), "nothing of a failed one goes on"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert all(part.done() for part in tasks)
    assert handlers == [1, 2, 3]
