"""Requests that wait until their sessions are awake."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from wasession_api.http.problem import HTTPProblem

from wasession_gateway import limits, metrics
from wasession_gateway.auth import Identity
from wasession_gateway.commands import NO_SUCH_SESSION, Commands
from wasession_gateway.hibernation import (
    asleep,
    becomes_ready,
    is_asleep,
    is_requested,
    still_waking,
)
from wasession_gateway.problems import RETRY_LATER, shutting_down
from wasession_gateway.scopes import WAKE
from wasession_gateway.session import Session
from wasession_gateway.session_cache import SessionCache

# Each request that waits may hold a text and its JSON in memory, which is 1 MiB at most.
MAXIMUM_OF_SESSION, MAXIMUM = 20, 200
RETRY = 5.0  # seconds
WATCH_LAG = 1.0  # seconds in which the cache learns what the operator has written


class WakeUps:
    """One per gateway; ``timeout`` is in seconds."""

    def __init__(self, sessions: SessionCache, commands: Commands, timeout: float) -> None:
        self._sessions, self._commands, self._timeout = sessions, commands, timeout
        self._waiting = Counter[str]()  # requests by the session's UID

    async def until_awake(self, session: Session, caller: Identity) -> Session:
        """Wake a session that sleeps; return it once it is Ready, or will not be by itself.

        Raises ``HTTPProblem`` if the caller may not wake it, after the timeout, and if too many
        requests wait already, by which the session wakes up all the same.
        """
        asked_at = datetime.now(UTC)
        await self._wake(session, caller)
        with self._place(session):
            try:
                async with (
                    asyncio.timeout(self._timeout),
                    contextlib.aclosing(self._sessions.states(session.name)) as states,
                ):
                    async for now in states:
                        if now is None or (now.uid, now.owner) != (session.uid, session.owner):
                            raise HTTPProblem(404, "Not found", NO_SUCH_SESSION)
                        session = now
                        if not becomes_ready(session):
                            return session
                        await self._wake(session, caller)  # it may have fallen asleep again
            except TimeoutError:
                raise still_waking(session, asked_at, datetime.now(UTC)) from None
        raise shutting_down("nothing was done, try again")

    async def _wake(self, session: Session, caller: Identity) -> None:
        if not is_asleep(session) or is_requested(session):
            return
        if not caller.may(*WAKE):
            raise asleep()
        await self._commands.wake(session)

    @contextlib.contextmanager
    def _place(self, session: Session) -> Iterator[None]:
        """Take one of the places for requests that wait. Raises ``HTTPProblem``."""
        if self._waiting[session.uid] >= MAXIMUM_OF_SESSION:
            metrics.RATE_LIMITED.labels("wake").inc()
            detail = f"{MAXIMUM_OF_SESSION} requests wait until the session is awake"
            raise limits.too_many("Too many requests", detail, RETRY)
        if self._waiting.total() >= MAXIMUM:
            detail = "the session is waking up, and too many requests wait for such sessions"
            raise HTTPProblem(503, "Waking", detail, RETRY_LATER)
        self._waiting[session.uid] += 1
        metrics.WAITING_TO_WAKE.inc()
        try:
            yield
        finally:
            metrics.WAITING_TO_WAKE.dec()
            self._waiting[session.uid] -= 1
            if not self._waiting[session.uid]:
                del self._waiting[session.uid]

    async def has_fallen_asleep(self, session: Session) -> bool:
        """Whether a session that was Ready has no pod because it sleeps by now.

        Waits for the cache to learn it, which may be a moment behind.
        """
        with contextlib.suppress(TimeoutError):
            async with (
                asyncio.timeout(WATCH_LAG),
                contextlib.aclosing(self._sessions.states(session.name)) as states,
            ):
                async for now in states:
                    if now is None or now.uid != session.uid:
                        return False
                    if becomes_ready(now):
                        return True
        return False
