"""Writes statuses, with the Events, metrics and log lines that go with a change."""

from __future__ import annotations

import logging
import time

from wasession_api import restoration
from wasession_api.kube.client import SESSIONS, Conflict, KubeClient
from wasession_api.kube.manifests import Manifest
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import ConditionType, Status

from wasession_operator import metrics, objects, start_traces, status_patch
from wasession_operator.cluster_cache import ClusterCache
from wasession_operator.event_recorder import EventRecorder
from wasession_operator.plan import Plan, Session
from wasession_operator.reconcile_state import ReconcileState

log = logging.getLogger(__name__)
CONFLICT_RETRY = 0.1  # seconds, doubled each time; the session has been read again by then


class StatusWriter:
    """Writes each change once; Events are created in the background."""

    def __init__(self, kube: KubeClient, cache: ClusterCache) -> None:
        self._kube = kube
        self._cache = cache
        self._recorder = EventRecorder(kube)

    async def write(
        self,
        session: Session,
        body: Manifest,
        state: ReconcileState,
        result: Plan,
        report: Report | None,
    ) -> float | None:
        """Write the planned status if it differs from the one stored.

        Return None, or the seconds after which to try again when the change is debounced. Raise
        ``Unavailable``.
        """
        stored = state.written.dump() if state.written is not None else body.get("status") or {}
        fields = status_patch.changed_fields(stored, result.status.dump())
        if not fields:
            state.differs_since = None
            return None
        now = time.monotonic()
        state.differs_since = state.differs_since or now
        debounce = status_patch.debounce(session.status, result.status)
        due = max(state.differs_since + debounce, state.written_at + status_patch.MIN_INTERVAL)
        if due > now:
            return due - now
        try:
            written = await self._patch(body, state, result.status, fields)
        except Conflict:
            await self._cache.refresh_session(state.key)
            state.conflicts += 1
            return CONFLICT_RETRY * 2.0 ** min(state.conflicts - 1, 8)
        state.conflicts = 0
        if written:
            metrics.observe_change(session.status, result.status, report)
            _log_change(session, result.status, state.log_extra)
            start_traces.observe(state, result.status)
            self._recorder.emit(session, result.events, state.log_extra)
        return None

    async def close(self, timeout: float) -> None:
        """Emit what is left of Events within a time in seconds, and drop the rest."""
        await self._recorder.close(timeout)

    async def _patch(
        self, body: Manifest, state: ReconcileState, status: Status, fields: list[str]
    ) -> bool:
        """Write the status; False when the API server has pruned all changed fields.

        Raise ``Conflict`` when the session has changed since it was read, or is gone.
        """
        version = state.latest_version(body["metadata"]["resourceVersion"])
        operations: list[Manifest] = [
            *objects.unchanged_since(state.uid, version),
            {"op": "add", "path": "/status", "value": status.dump()},
        ]
        obj = await self._kube.patch(SESSIONS, *state.key, operations, "/status")
        if obj is None:
            raise Conflict("the session is gone")
        state.written, state.written_at, state.differs_since = status, time.monotonic(), None
        state.written_version = obj["metadata"]["resourceVersion"]
        if state.written_version != body["metadata"].get("resourceVersion"):
            return True
        # The same fields would be pruned again, for ever: take the status as written.
        log.warning(
            "status fields unknown to the installed CRD were not stored; upgrade the CRD",
            extra={**state.log_extra, "fields": fields},
        )
        state.written_version = None
        return False


def _log_change(session: Session, after: Status, log_extra: dict[str, str]) -> None:
    before = session.status
    if after.phase is not before.phase:
        ready = after.condition(ConditionType.READY)
        reason = ready.reason if ready is not None else None
        log.info(
            "session %s is %s",
            session.name,
            after.phase,
            extra={**log_extra, "phase": after.phase, "reason": reason},
        )
    failure = restoration.new_failure(before, after)
    if failure is not None:
        log.warning(
            "restoration of session %s has failed: %s",
            session.name,
            failure.reason,
            extra={**log_extra, "reason": failure.reason, "detail": failure.message},
        )
