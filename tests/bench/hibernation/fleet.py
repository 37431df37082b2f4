"""The state of all sessions, as their resources tell it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection

from support.fakes.api import Api, Manifest
from wasession_api.v1alpha1 import PLURAL, Phase, Status

from bench.operator.nodes import changes

Condition = Callable[[], bool]


class Fleet:
    """``follow()`` it in a task; ``until`` waits for what it tells."""

    def __init__(self) -> None:
        self._status: dict[str, Status] = {}
        self._codes = Counter[str]()
        self._changed = asyncio.Condition()

    async def follow(self, api: Api) -> None:
        async for kind, session in changes(api, PLURAL):
            if kind != "DELETED":
                await self.observe(session)

    async def observe(self, session: Manifest) -> None:
        name = session["metadata"]["name"]
        before, after = self.status(name), Status.model_validate(session.get("status") or {})
        if after.phase is Phase.AUTHENTICATING and before.phase is not Phase.AUTHENTICATING:
            self._codes[name] += 1
        self._status[name] = after
        async with self._changed:
            self._changed.notify_all()

    def status(self, name: str) -> Status:
        return self._status.get(name, Status())

    def codes(self, name: str) -> int:
        """Return how often a session has begun to ask for a phone that links it."""
        return self._codes[name]

    def asleep(self) -> list[str]:
        """Return the sessions that sleep and have no pod any more, in a fixed order."""
        return sorted(name for name, status in self._status.items() if is_asleep(status))

    def awake(self, names: Collection[str]) -> int:
        """Return how many of these have a pod, or are about to have one."""
        return sum(not is_asleep(self.status(name)) for name in names)

    def ready(self) -> set[str]:
        return {name for name, status in self._status.items() if status.phase is Phase.READY}

    def phases(self) -> dict[str, int]:
        return dict(Counter(str(status.phase) for status in self._status.values()))

    async def until(self, condition: Condition, seconds: float) -> bool:
        """Wait until a condition of the fleet holds; return whether it does by then."""
        async with self._changed:
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait_for(condition)
            except TimeoutError:
                return condition()
        return True


def is_asleep(status: Status) -> bool:
    return status.phase is Phase.HIBERNATED and status.pod_name is None
