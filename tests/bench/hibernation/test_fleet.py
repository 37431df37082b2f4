"""What the sessions' resources tell of the fleet."""

from __future__ import annotations

import asyncio
from typing import Any

from bench.hibernation.fleet import Fleet


def session(name: str, phase: str, **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"phase": phase, **status}}


async def test_a_session_sleeps_once_its_pod_is_gone() -> None:
    fleet = Fleet()
    await fleet.observe(session("b", "Hibernated", podName="wasession-b"))
    await fleet.observe(session("a", "Hibernated"))
    await fleet.observe(session("c", "Ready", podName="wasession-c"))
    assert fleet.asleep() == ["a"]
    assert fleet.awake(["a", "b", "c", "unknown"]) == 3
    await fleet.observe(session("b", "Hibernated", podName=None))
    assert fleet.asleep() == ["a", "b"]
    assert fleet.ready() == {"c"}
    assert fleet.phases() == {"Hibernated": 2, "Ready": 1}


async def test_it_counts_how_often_a_session_asks_for_a_phone() -> None:
    fleet = Fleet()
    for phase in ("Starting", "Authenticating", "Authenticating", "Syncing", "Ready"):
        await fleet.observe(session("a", phase))
    assert fleet.codes("a") == 1
    await fleet.observe(session("a", "Authenticating"))
    assert fleet.codes("a") == 2
    assert fleet.codes("b") == 0


async def test_it_waits_for_a_change() -> None:
    fleet = Fleet()
    waiting = asyncio.create_task(fleet.until(lambda: fleet.asleep() == ["a"], 60))
    await fleet.observe({"metadata": {"name": "a"}})
    assert not waiting.done()
    await fleet.observe(session("a", "Hibernated"))
    assert await waiting
    assert not await fleet.until(lambda: "a" in fleet.ready(), 0)
