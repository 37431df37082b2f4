"""One connection for each session pod: the soft limit of file descriptors is no limit."""

from __future__ import annotations

import asyncio
import re

from support.fakes.world import World

SOFT_LIMIT = 64
SESSIONS = 100


async def test_more_sessions_than_the_soft_limit_of_descriptors(world: World) -> None:
    world.descriptors = SOFT_LIMIT
    names = [f"session-{number:03}" for number in range(SESSIONS)]
    await world.start_operator(
        max_concurrent_starts_per_node=str(SESSIONS), max_concurrent_starts_per_zone=str(SESSIONS)
    )
    await asyncio.gather(*(world.create(name) for name in names))
    await world.until_phase(*names)
    _, metrics = await world.get("/metrics")
    [opened] = re.findall(r"^process_open_fds (\S+)", metrics, re.MULTILINE)
    [limit] = re.findall(r"^process_max_fds (\S+)", metrics, re.MULTILINE)
    assert SESSIONS < float(opened) < float(limit)
