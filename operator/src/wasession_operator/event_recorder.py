"""Creates Events in the background; repeated ones are counted, and floods are cut off."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from wasession_api import names
from wasession_api.base import rfc3339
from wasession_api.kube.client import EVENTS, Conflict, KubeClient, Rejected, Unavailable
from wasession_api.kube.manifests import Manifest
from wasession_api.v1alpha1 import API_VERSION, KIND

from wasession_operator import metrics
from wasession_operator.plan import Event, Session

log = logging.getLogger(__name__)
MESSAGE_MAX = 1024  # characters that the API server accepts
# As client-go's EventCorrelator does by default. Times are in seconds.
BURST = 25  # Events of one session at once
REFILL = 300.0  # until one more is allowed
SIMILAR_WITHIN = 600.0  # an Event of the same text is counted, not created
SIMILAR_MAX = 10  # texts with the same reason, until they are combined
SESSIONS_MAX = 4096
COMBINED = "(combined from similar events)"


@dataclass(slots=True)
class _Emitted:
    name: str
    first: float  # monotonic
    count: int = 1


@dataclass(slots=True)
class _Budget:
    """What one session may emit, and what it has emitted of late, by type, reason and message."""

    tokens: float
    at: float  # monotonic; when the tokens were counted
    emitted: dict[tuple[str, str, str], _Emitted] = field(default_factory=dict)

    def take(self, now: float) -> bool:
        self.tokens = min(BURST, self.tokens + (now - self.at) / REFILL)
        self.at = now
        self.emitted = {
            key: event for key, event in self.emitted.items() if now - event.first < SIMILAR_WITHIN
        }
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def key(self, event: Event) -> tuple[str, str, str]:
        """Return what the Event is counted under."""
        similar = [key for key in self.emitted if key[:2] == (event.type, event.reason)]
        exact = (event.type, event.reason, event.message)
        if exact in similar or len(similar) < SIMILAR_MAX:
            return exact
        return event.type, event.reason, COMBINED


class EventRecorder:
    """Emits Events without retries: they inform people, the status holds what counts."""

    def __init__(self, kube: KubeClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._clock = clock
        self._budgets: OrderedDict[str, _Budget] = OrderedDict()  # by UID; least recent first
        self._emitting: set[asyncio.Task[None]] = set()

    def emit(self, session: Session, events: list[Event], log_extra: Mapping[str, str]) -> None:
        """Begin to emit Events about a session, in this order."""
        if events:
            task = asyncio.create_task(self._emit_all(session, events, log_extra))
            self._emitting.add(task)
            task.add_done_callback(self._emitting.discard)

    async def close(self, timeout: float) -> None:
        """Emit what has been begun within a time in seconds, and drop the rest."""
        if self._emitting:
            _, late = await asyncio.wait(set(self._emitting), timeout=timeout)
            for task in late:
                task.cancel()

    async def _emit_all(
        self, session: Session, events: list[Event], log_extra: Mapping[str, str]
    ) -> None:
        for event in events:
            budget = self._budget(session.uid)
            if not budget.take(self._clock()):
                metrics.EVENTS_DROPPED.inc()
                log.debug(
                    "too many Events of the session; dropping one",
                    extra={**log_extra, "reason": event.reason},
                )
                continue
            try:
                await self._emit(session, event, budget)
            except (Unavailable, Rejected, Conflict) as error:
                log.warning(
                    "Event not created; it will be missing",
                    extra={**log_extra, "reason": event.reason, "error": str(error)},
                )

    async def _emit(self, session: Session, event: Event, budget: _Budget) -> None:
        key, now = budget.key(event), datetime.now(UTC)
        message = f"{COMBINED}: {event.message}" if key[2] == COMBINED else event.message
        earlier = budget.emitted.get(key)
        if earlier is not None:
            patch = {
                "count": earlier.count + 1,
                "lastTimestamp": rfc3339(now),
                "message": message[:MESSAGE_MAX],
            }
            if await self._kube.patch(EVENTS, session.namespace, earlier.name, patch) is not None:
                earlier.count += 1
                return
        manifest = make_event(session, event.type, event.reason, message, now)
        created = await self._kube.create(EVENTS, manifest)
        budget.emitted[key] = _Emitted(created["metadata"]["name"], self._clock())

    def _budget(self, uid: str) -> _Budget:
        budget = self._budgets.setdefault(uid, _Budget(BURST, self._clock()))
        self._budgets.move_to_end(uid)
        if len(self._budgets) > SESSIONS_MAX:
            self._budgets.popitem(last=False)
        return budget


def make_event(session: Session, kind: str, reason: str, message: str, now: datetime) -> Manifest:
    """Return a core/v1 Event, which ``kubectl describe`` shows.

    See https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
    """
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "namespace": session.namespace,
            "generateName": f"{names.object_name(session.name)}.",
        },
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": session.namespace,
            "name": session.name,
            "uid": session.uid,
        },
        "type": kind,
        "reason": reason,
        "message": message[:MESSAGE_MAX],
        "source": {"component": names.MANAGED_BY},
        "firstTimestamp": rfc3339(now),
        "lastTimestamp": rfc3339(now),
        "count": 1,
    }
