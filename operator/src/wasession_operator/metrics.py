"""The operator's Prometheus metrics."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram
from wasession_api import restoration
from wasession_api.kube.manifests import Manifest
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import Phase, Status

SECONDS = (0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)

SESSIONS = Gauge("wasession_sessions", "Sessions by phase.", ["phase"])
VALID = Gauge("wasession_sessions_valid", "Sessions whose volume holds a valid login.")
RECONCILE_DURATION = Histogram(
    "wasession_reconcile_duration_seconds",
    "Duration of one reconciliation of a session, including its API requests.",
)
WORKQUEUE_QUEUE_DURATION = Histogram(
    "wasession_workqueue_queue_duration_seconds",
    "How long a session stays in the workqueue before it is reconciled.",
)
INFORMER_LAST_EVENT_AGE = Gauge(
    "wasession_informer_last_event_age_seconds",
    "Time since the informer's last event, list or bookmark.",
    ["resource"],
)
RESTARTS = Counter(
    "wasession_pod_restarts_total",
    "Restarts of session pods and their containers, by cause.",
    ["cause"],
)
RESTORATIONS = Counter(
    "wasession_restorations_total",
    "Restorations of sessions from their stored login, by result.",
    ["result"],
)
READY_SECONDS = Histogram(
    "wasession_time_to_ready_seconds",
    "Time from the start of the session pod's process to Ready.",
    ["restored"],
    buckets=SECONDS,
)


def observe_change(before: Status, after: Status, report: Report | None) -> None:
    """Count restarts, restorations and the time to Ready in a status that was written."""
    restarts = after.restarts.count - before.restarts.count
    if restarts > 0:
        RESTARTS.labels(after.restarts.reason).inc(restarts)
    if after.restorations > before.restorations:
        RESTORATIONS.labels("restored").inc()
    if restoration.failure(before) is None and restoration.new_failure(before, after) is not None:
        RESTORATIONS.labels("failed").inc()
    if report is None or after.phase is not Phase.READY or after.last_connected is None:
        return
    if before.last_connected is None or before.last_connected < report.started_at:
        # Ready for the first time since this process has started.
        seconds = (after.last_connected - report.started_at).total_seconds()
        READY_SECONDS.labels(str(after.restored).lower()).observe(max(seconds, 0))


def observe_sessions(sessions: Iterable[Manifest]) -> None:
    """Set the gauges of sessions by phase and of valid logins."""
    statuses = [session.get("status") or {} for session in sessions]
    phases = Tally(status.get("phase") for status in statuses)
    for phase in Phase:
        SESSIONS.labels(phase).set(phases[phase])
    VALID.set(sum(bool(status.get("sessionValid")) for status in statuses))
