"""The operator's Prometheus metrics."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice

from prometheus_client import Counter, Gauge, Histogram
from wasession_api import restoration
from wasession_api.kube.manifests import Key, Manifest
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import ConditionType, Phase, RolloutPhase, RolloutStatus, Status

SECONDS = (0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)
# Up to where a session counts as stuck; see health.py.
WORK_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)

# The conditions that need attention, with the status that they have then.
NEED_ATTENTION = {
    ConditionType.READY: "False",
    ConditionType.DEGRADED: "True",
    ConditionType.DELIVERING: "False",
}
AT_REST = {Phase.SUSPENDED, Phase.HIBERNATED}  # not Ready, as somebody wants it

SESSIONS = Gauge("wasession_sessions", "Sessions by phase.", ["phase"])
SESSION_CONDITION = Gauge(
    "wasession_session_condition",
    "1 for each condition of a session that needs attention; healthy sessions have none.",
    ["namespace", "name", "type", "reason"],
)
SESSIONS_WITHOUT_SERIES = Gauge(
    "wasession_sessions_without_series",
    "Sessions that need attention and are not in wasession_session_condition, which is limited.",
)
VALID = Gauge("wasession_sessions_valid", "Sessions whose volume holds a valid login.")
RECONCILE_DURATION = Histogram(
    "wasession_reconcile_duration_seconds",
    "Duration of one reconciliation of a session, including its API requests.",
    buckets=WORK_SECONDS,
)
WORKQUEUE_QUEUE_DURATION = Histogram(
    "wasession_workqueue_queue_duration_seconds",
    "How long a session stays in the workqueue before it is reconciled.",
    buckets=WORK_SECONDS,
)
INFORMER_LAST_EVENT_AGE = Gauge(
    "wasession_informer_last_event_age_seconds",
    "Time since the informer's last event, list or bookmark.",
    ["resource"],
)
SHARD_HELD = Gauge(
    "wasession_shard_held", "1 if this replica acts on the sessions of the shard.", ["shard"]
)
RIVALS = Gauge(
    "wasession_rival_installations",
    "Other installations that serve the same sessions; one installation acts.",
)
NAMESPACE_SERVED = Gauge(
    "wasession_namespace_served",
    "1 if the namespace is served, 0 if the API server rejects what that takes; * is the cluster.",
    ["namespace"],
)
EVENTS_DROPPED = Counter(
    "wasession_events_dropped_total",
    "Events that were not created because their session had too many.",
)
STARTS = Gauge(
    "wasession_starts",
    "Sessions that are starting, and those that wait for the start budget of a node or zone.",
    ["state"],
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
UPDATES_FAILED = Gauge(
    "wasession_updates_failed",
    "Sessions that were Ready before an update and are not any more; they halt the rollout.",
)
ROLLOUT_PHASE = Gauge(
    "wasession_class_rollout_phase",
    "1 for the phase of the rollout of a class.",
    ["class", "phase"],
)
ROLLOUT_SESSIONS = Gauge(
    "wasession_class_rollout_sessions",
    "Sessions that the rollout of a class is for, has reached, and those of them that are Ready.",
    ["class", "state"],
)
ORPHANED_CLAIMS = Gauge(
    "wasession_orphaned_claims",
    "Volume claims of deleted sessions that should have been deleted with them.",
)
DEVICES_LEFT_LINKED = Counter(
    "wasession_devices_left_linked_total",
    "Deleted sessions whose requested logout was not possible.",
)
BACKUPS = Counter(
    "wasession_backups_total",
    "Backups that were completed, or have failed for good.",
    ["result"],
)
BACKUPS_OVERDUE = Gauge(
    "wasession_sessions_backup_overdue",
    "Sessions with a valid login and a schedule of backups whose latest one is not there two hours "
    "after its time.",
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


def observe_rollouts(rollouts: Mapping[str, RolloutStatus | None]) -> None:
    """Set the gauges of the classes about which this replica decides; drop those of others."""
    ROLLOUT_PHASE.clear()
    ROLLOUT_SESSIONS.clear()
    for name, rollout in rollouts.items():
        if rollout is None:
            continue
        for phase in RolloutPhase:
            ROLLOUT_PHASE.labels(name, phase).set(rollout.phase is phase)
        counts = {"total": rollout.total, "updated": rollout.updated, "ready": rollout.ready}
        for state, number in counts.items():
            ROLLOUT_SESSIONS.labels(name, state).set(number)


class SessionCounts:
    """Counts sessions by phase, and those with a valid login, as they change.

    ``problems`` are the types and reasons of the conditions that need attention, by session, in the
    order in which the sessions have got into trouble.
    """

    def __init__(self) -> None:
        self.phases: Tally[str | None] = Tally()
        self.valid = 0
        self.problems: dict[Key, tuple[tuple[str, str], ...]] = {}

    def replace(self, key: Key, before: Manifest | None, after: Manifest | None) -> None:
        """Count a session as it is now; None is one that does not exist."""
        for session, number in ((before, -1), (after, 1)):
            if session is not None:
                status = session.get("status") or {}
                self.phases[status.get("phase")] += number
                self.valid += number * bool(status.get("sessionValid"))
        if after is not None and (problems := tuple(find_problems(after))):
            self.problems[key] = problems
        else:
            self.problems.pop(key, None)


def find_problems(session: Manifest) -> Iterator[tuple[str, str]]:
    """Yield type and reason of each condition of a session that needs attention."""
    status = session.get("status") or {}
    for condition in status.get("conditions") or []:
        kind = condition.get("type")
        if kind == ConditionType.READY and status.get("phase") in AT_REST:
            continue
        if condition.get("status") == NEED_ATTENTION.get(kind):
            yield kind, str(condition.get("reason"))


def observe_sessions(counts: Iterable[SessionCounts], limit: int) -> None:
    """Set the gauges of the sessions in several counts; at most ``limit`` have series of their own.

    Those are, shard by shard, the ones that have been in trouble for longest: their series last.
    """
    counts = list(counts)
    phases: Tally[str | None] = Tally()
    for count in counts:
        phases += count.phases
    for phase in Phase:
        SESSIONS.labels(phase).set(phases[phase])
    VALID.set(sum(count.valid for count in counts))
    SESSION_CONDITION.clear()
    for (namespace, name), problems in islice(
        chain.from_iterable(count.problems.items() for count in counts), limit
    ):
        for kind, reason in problems:
            SESSION_CONDITION.labels(namespace, name, kind, reason).set(1)
    SESSIONS_WITHOUT_SERIES.set(max(sum(len(count.problems) for count in counts) - limit, 0))
