"""The operator's Prometheus metrics."""

from __future__ import annotations

from collections import Counter as Counted
from collections.abc import Iterable
from typing import Any

from prometheus_client import Counter, Gauge, Histogram
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import ConditionType, Phase, Status

SECONDS = (0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)

SESSIONS = Gauge("wasession_sessions", "Sessions by phase.", ["phase"])
VALID = Gauge("wasession_sessions_valid", "Sessions whose volume holds a valid login.")
RECONCILE_DURATION = Histogram(
    "wasession_reconcile_duration_seconds",
    "How long one look at a session takes, with what it does.",
)
WORKQUEUE_QUEUE_DURATION = Histogram(
    "wasession_workqueue_queue_duration_seconds",
    "How long a session that something is known of waits to be looked at.",
)
INFORMER_LAST_EVENT_AGE = Gauge(
    "wasession_informer_last_event_age_seconds",
    "Since when the API server has not been heard on a watch.",
    ["resource"],
)
RESTARTS = Counter(
    "wasession_pod_restarts_total",
    "Session pods and their containers that were started again.",
    ["cause"],
)
RESTORATIONS = Counter(
    "wasession_restorations_total",
    "Sessions that came back from their stored login, or are held up in it.",
    ["result"],
)
READY_SECONDS = Histogram(
    "wasession_time_to_ready_seconds",
    "From the start of a session's process to Ready.",
    ["restored"],
    buckets=SECONDS,
)


def observe_change(before: Status, after: Status, report: Report | None) -> None:
    """Counts what has come with a status that was written."""
    restarts = after.restarts.count - before.restarts.count
    if restarts > 0:
        RESTARTS.labels(after.restarts.reason).inc(restarts)
    if after.restorations > before.restorations:
        RESTORATIONS.labels("restored").inc()
    if is_held_up(after) and not is_held_up(before):
        RESTORATIONS.labels("failed").inc()
    if report is None or after.phase is not Phase.READY or after.last_connected is None:
        return
    if (
        before.last_connected is None or before.last_connected < report.started_at
    ):  # the first time of this process
        seconds = (after.last_connected - report.started_at).total_seconds()
        READY_SECONDS.labels(str(after.restored).lower()).observe(max(seconds, 0))


def observe_sessions(bodies: Iterable[dict[str, Any]]) -> None:
    """Counts the sessions as they are."""
    statuses = [body.get("status") or {} for body in bodies]
    phases = Counted(status.get("phase") for status in statuses)
    for phase in Phase:
        SESSIONS.labels(phase).set(phases[phase])
    VALID.set(sum(bool(status.get("sessionValid")) for status in statuses))


def is_held_up(status: Status) -> bool:
    """Whether a valid login is not Ready for a reason that needs somebody, or something, to change."""
    restored = next((c for c in status.conditions if c.type is ConditionType.RESTORED), None)
    return (
        bool(status.session_valid)
        and restored is not None
        and restored.status == "False"
        and status.phase is not Phase.READY
    )
