"""Writes statuses, and tells the Events and numbers that go with what is new in them."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime

from wasession_api import names
from wasession_api.base import rfc3339
from wasession_api.kube.client import EVENTS, SESSIONS, Conflict, KubeClient, Rejected, Unavailable
from wasession_api.kube.manifests import Manifest, condition
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import API_VERSION, KIND, ConditionType, Status

from wasession_operator import metrics, status_patch
from wasession_operator.plan import Event, Plan, Session
from wasession_operator.reconcile_state import Memory

log = logging.getLogger(__name__)
EVENT_MESSAGE = 1024  # characters that the API server takes


class Statuses:
    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self._telling: set[asyncio.Task[None]] = set()

    async def write(
        self, session: Session, body: Manifest, memory: Memory, result: Plan, report: Report | None
    ) -> float | None:
        """Writes the status where it has changed; nothing where it has not.

        Returns the seconds after which to look again, when it is too early for that. Raises
        ``Unavailable``.
        """
        stored = (
            memory.written.dump() if memory.written is not None else dict(body.get("status") or {})
        )
        patch = status_patch.merge_patch(stored, result.status.dump())
        if not patch:
            memory.differs_since = None
            return None
        now = time.monotonic()
        memory.differs_since = memory.differs_since or now
        delay = status_patch.delay(session.status, result.status)
        due = max(memory.differs_since + delay, memory.written_at + status_patch.EVERY)
        if due > now:
            return due - now
        found = await self._kube.patch(
            SESSIONS, session.namespace, session.name, {"status": patch}, "/status"
        )
        memory.written, memory.written_at, memory.differs_since = (
            result.status,
            time.monotonic(),
            None,
        )
        memory.written_version = found["metadata"]["resourceVersion"] if found else None
        if memory.written_version == body["metadata"].get("resourceVersion"):
            # Nothing has come of it: the CRD in the cluster does not know a field. It is not tried
            # again for ever.
            log.warning(
                "the CRD is older than the operator",
                extra={**where(session), "fields": sorted(patch)},
            )
            memory.written_version = None
            return None
        metrics.observe_change(session.status, result.status, report)
        _log(session, result.status)
        if result.events:
            task = asyncio.create_task(self._tell(session, result.events))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)
        return None

    async def close(self) -> None:
        """Returns when all that is being told has been."""
        await asyncio.gather(*self._telling)

    async def _tell(self, session: Session, events: list[Event]) -> None:
        """Posts Events, each once: they are for people, and what counts is in the status."""
        for event in events:
            try:
                await self._kube.create(EVENTS, make_event(session, event, datetime.now(UTC)))
            except (Unavailable, Rejected, Conflict) as error:
                log.warning(
                    "an Event could not be posted", extra={**where(session), "error": str(error)}
                )


def make_event(session: Session, event: Event, now: datetime) -> Manifest:
    """A core/v1 Event as ``kubectl describe`` shows it: https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/"""
    about = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "namespace": session.namespace,
        "name": session.name,
        "uid": session.uid,
    }
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "namespace": session.namespace,
            "generateName": f"{names.object_name(session.name)}.",
        },
        "involvedObject": about,
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:EVENT_MESSAGE],
        "source": {"component": names.MANAGED_BY},
        "firstTimestamp": rfc3339(now),
        "lastTimestamp": rfc3339(now),
        "count": 1,
    }


def _log(session: Session, after: Status) -> None:
    before = session.status
    if after.phase is not before.phase:
        ready = condition({"status": after.dump()}, ConditionType.READY)
        how = {"phase": after.phase, "reason": ready.get("reason")}
        log.info("%s is %s", session.name, after.phase, extra={**where(session), **how})
    if metrics.is_held_up(after) and not metrics.is_held_up(before):
        held_up = condition({"status": after.dump()}, ConditionType.RESTORED)
        why = {"reason": held_up["reason"], "detail": held_up.get("message")}
        log.warning(
            "restoration of %s is held up: %s",
            session.name,
            why["reason"],
            extra={**where(session), **why},
        )


def where(session: Session) -> Manifest:
    """What a log line about a session says of it."""
    return {"namespace": session.namespace, "session": session.name, "uid": session.uid}
