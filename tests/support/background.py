"""A task that runs beside a block of a test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine


@contextlib.asynccontextmanager
async def in_background(coroutine: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run a coroutine until the end of the block; raise there what it has failed with."""
    task = asyncio.create_task(coroutine)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
