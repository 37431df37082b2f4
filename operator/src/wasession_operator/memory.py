"""What is known about one session between two reconciliations; all of it can be found out again."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from wasession_api.v1alpha1 import Status

from wasession_operator.plan import Action, Backoff, Refusal
from wasession_operator.pods import Follower


@dataclass
class Memory:
    uid: str | None = None  # of the session that all this is about
    generation: int | None = None
    failures: Backoff = field(default_factory=Backoff)  # of its pods
    errors: Backoff = field(default_factory=Backoff)  # of calls to the API server
    refusals: dict[type[Action], Refusal] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)  # UIDs of objects that are on their way out, whatever the watch says
    follower: Follower | None = None
    written: Status | None = None  # the status as it was written last, until the watch has told of it
    written_version: str | None = None
    written_at: float = 0.0  # monotonic
    woken_at: float | None = None  # monotonic; since when it has been waiting to be looked at
    working_since: float | None = None  # monotonic
    looked_at: bool = False  # whether it has been looked at since the operator's start
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def of(self, uid: str, generation: int) -> None:
        """Forgets what is not about this session, or about its present spec."""
        if self.uid != uid:
            self.uid, self.written = uid, None
            self.failures, self.errors = Backoff(), Backoff()
            self.deleted.clear()
        if (self.uid, self.generation) != (uid, generation):
            self.generation = generation
            self.refusals.clear()

    def wake(self) -> None:
        if self.woken_at is None:
            self.woken_at = time.monotonic()
        self._wake.set()

    def begin(self) -> float:
        """Takes the wake-up; returns the seconds that it has waited."""
        self._wake.clear()
        now = time.monotonic()
        waited, self.woken_at, self.working_since = now - (self.woken_at or now), None, now
        return waited

    def end(self) -> None:
        self.working_since, self.looked_at = None, True

    async def sleep(self, timeout: float | None) -> None:
        """Until it is woken, or so many seconds have gone by; others have their turn in any case."""
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            return
