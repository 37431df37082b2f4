"""Ask the page for what the outbox may have missed, each time the session has become Ready.

What the page stored while nobody looked, because the pod was killed or the page was replaced, is no
event of any page. It is read from the page's storage from some time before the outbox was last
complete; the outbox stores what it does not have.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time

from wasession_api.session_pod.events import GapReason
from wasession_api.v1alpha1 import Phase

from wasession_pod.browser.errors import BrowserError
from wasession_pod.messages.database import DatabaseError
from wasession_pod.messages.event_store import OutboxRow
from wasession_pod.messages.outbox import Outbox
from wasession_pod.session import NotReady, Session
from wasession_pod.state.observation import PageEvent

# Seconds, for what comes even later than recent messages did. A busy session pays for each of them
# at every start, as the messages of that time are read again before anything new is told.
MARGIN = 120.0
PAGE = 200  # events of one answer
MAXIMUM_PAGES = 5000
RETRY_DELAYS = (0.5, 2.0, 5.0)  # seconds, for a page that has just been loaded again
STORE_RETRY_DELAY = 5.0  # seconds
log = logging.getLogger(__name__)


def since(outbox: OutboxRow, now: float) -> float:
    """Return from when on the page is asked: never for history from before the login.

    WhatsApp's times are whole seconds: those of the second of the login may be from before it.
    """
    return max(min(outbox.complete_until, now) - MARGIN, math.ceil(outbox.floor))


def lost(outbox: OutboxRow, now: float) -> bool:
    """Return whether the outbox was away for so long that it has forgotten what it has told."""
    return min(outbox.complete_until, now) < outbox.floor


class Reconciler:
    """Reconciles the outbox of a session with its page."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def run(self) -> None:
        """Reconcile after each interruption, as soon as the session is Ready."""
        outbox, attempted = self._session.outbox, -1
        while True:
            changed = outbox.changed
            ready = self._session.report.phase is Phase.READY
            if ready and outbox.settled and outbox.interruptions != attempted:
                interruption = outbox.interruptions
                if await self._attempt(interruption):
                    attempted = interruption
            else:
                await changed.wait()

    async def _attempt(self, interruption: int) -> bool:
        """Reconcile, or tell that it cannot be done; return False if it is interrupted itself."""
        outbox = self._session.outbox
        assert outbox.row is not None
        if lost(outbox.row, time.time()):
            outbox.tell_gap(GapReason.INCOMPLETE)
        for delay in (*RETRY_DELAYS, None):
            try:
                await self._reconcile(outbox)
            except DatabaseError:
                await asyncio.sleep(STORE_RETRY_DELAY)
                return False
            except (NotReady, BrowserError) as error:
                if self._interrupted(interruption):
                    return False
                if delay is not None:
                    await asyncio.sleep(delay)
                    continue
                log.warning(
                    "the page does not tell what came while nobody looked; readers get a gap",
                    extra={"error": str(error)},
                )
                outbox.tell_gap(GapReason.INCOMPLETE)
                outbox.caught_up(interruption, complete=False)
                return True
            else:
                outbox.caught_up(interruption, complete=True)
                return True
        return False

    def _interrupted(self, interruption: int) -> bool:
        ready = self._session.report.phase is Phase.READY
        return not ready or self._session.outbox.interruptions != interruption

    async def _reconcile(self, outbox: Outbox) -> None:
        assert outbox.row is not None
        start, after = since(outbox.row, time.time()), None
        with self._session.ready_page() as page:
            for _ in range(MAXIMUM_PAGES):
                answer = await page.recent(start, PAGE, after)
                await outbox.reconcile(
                    PageEvent(type=item.type, reason=item.reason, data=item.data)
                    for item in answer.items
                )
                after = answer.next
                if after is None:
                    break
            else:
                raise BrowserError("the page has no end of recent messages")
            awaited = await asyncio.to_thread(outbox.store.awaited_acks)
            acks = await page.acks(awaited)
            await outbox.reconcile(PageEvent(type="chat.ack", data=ack.dump()) for ack in acks)
