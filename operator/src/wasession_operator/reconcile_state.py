"""What is known about one session between two reconciliations; all of it can be found out again."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from wasession_api.kube.informer import is_newer
from wasession_api.v1alpha1 import Status

from wasession_operator.plan import Action, Backoff, Refusal
from wasession_operator.report_watcher import Follower


@dataclass(slots=True)
class Memory:
    uid: str  # of the session that all this is about; another one of its name has another memory
    generation: int | None = None
    failures: Backoff = field(default_factory=Backoff)  # of its pods
    errors: Backoff = field(default_factory=Backoff)  # of calls to the API server
    refusals: dict[type[Action], Refusal] = field(default_factory=dict)
    deleted: set[str] = field(
        default_factory=set
    )  # UIDs of objects that are on their way out, whatever the watch says
    follower: Follower | None = None
    written: Status | None = (
        None  # the status as it was written last, until the watch has told of it
    )
    written_version: str | None = None
    written_at: float = 0.0  # monotonic
    differs_since: float | None = (
        None  # monotonic; since when the status should be another one than the one written
    )
    woken_at: float | None = None  # monotonic; since when it has been waiting to be looked at
    due: float | None = None  # monotonic; its place in the queue
    working_since: float | None = None  # monotonic
    looked_at: bool = False  # whether it has been looked at since the operator's start
    alarm: asyncio.TimerHandle | None = None  # when it is looked at though nothing has changed

    def of(self, generation: int) -> None:
        """Forgets what is not about the session's present spec."""
        if self.generation != generation:
            self.generation = generation
            self.refusals.clear()

    def wake(self) -> None:
        if self.woken_at is None:
            self.woken_at = time.monotonic()

    def begin(self) -> float:
        """Takes the wake-up; returns the seconds that it has waited."""
        now = time.monotonic()
        waited = now - (self.woken_at or now)
        self.woken_at, self.due, self.working_since = None, None, now
        return waited

    def end(self) -> None:
        self.working_since, self.looked_at = None, True

    def seen(self, version: str) -> bool:
        """The watch has told of a version of the session; whether that is what was written last.

        What was written need not be remembered any longer: it is in this version, or in an earlier
        one.
        """
        ours = version == self.written_version
        if ours or (self.written_version is not None and is_newer(version, self.written_version)):
            self.written = self.written_version = None
        return ours

    def close(self) -> None:
        """The session is gone; a look at it that is under way comes to its end by itself."""
        if self.alarm is not None:
            self.alarm.cancel()
        if self.working_since is None:
            self.unfollow()

    def unfollow(self) -> None:
        if self.follower is not None:
            self.follower.close()
        self.follower = None
