"""Prometheus metrics of one session; the README has them as a table."""

from __future__ import annotations

import contextlib
from collections import Counter as Counts
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram
from wasession_api.session_pod.delivery import DeliveryDetails
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import Phase

from wasession_pod.state.memory_pressure import Memory

PHASE = Gauge("wasession_pod_phase", "1 for the session's current phase.", ["phase"])
PHASE_SECONDS = Counter(
    "wasession_pod_phase_seconds_total", "Seconds spent in each phase.", ["phase"]
)
VALID = Gauge(
    "wasession_pod_session_valid", "1 when the volume holds a login that WhatsApp has not ended."
)
WARNING = Gauge("wasession_pod_warning", "1 for each warning in the session's report.", ["reason"])
SANDBOXED = Gauge("wasession_pod_sandboxed", "1 when Chromium runs in its sandbox.")
PHONE_SEEN = Gauge(
    "wasession_pod_phone_last_seen_timestamp_seconds", "Last activity of the account's phone."
)

DISCONNECTS = Counter(
    "wasession_pod_disconnects_total", "Disconnects of a Ready session from WhatsApp.", ["cause"]
)
RECOVERIES = Counter(
    "wasession_pod_recoveries_total", "Recovery steps taken to reconnect.", ["step", "cause"]
)
RECYCLES = Counter("wasession_pod_page_recycles_total", "Pages replaced by fresh ones.", ["cause"])

UNREADABLE = Counter(
    "wasession_pod_unreadable_total",
    "Data of the page that could not be read and became a gap, by kind.",
    ["kind"],
)
BRIDGE_ERRORS = Counter(
    "wasession_pod_bridge_errors_total",
    "Failures of listeners in the page, other than of messages and acks.",
)
PAGE_LOADS = Counter("wasession_pod_page_loads_total", "Documents of WhatsApp Web loaded.")

REFUSED = Counter(
    "wasession_pod_refused_total",
    "Requests and navigations of the page that were denied or undone, by kind.",
    ["kind"],
)

SENT = Counter("wasession_pod_messages_sent_total", "Sends by result.", ["result"])
RECEIVED = Counter("wasession_pod_messages_received_total", "Messages received from others.")
COMMITTED = Counter(
    "wasession_pod_events_committed_total", "Events stored in the outbox, by kind.", ["kind"]
)
COMMITS_FAILED = Counter(
    "wasession_pod_outbox_commits_failed_total",
    "Attempts to store events that failed; they stay in memory until one succeeds.",
)
RECONCILED = Counter(
    "wasession_pod_events_reconciled_total",
    "Events that no page has told: they were read from the page's storage.",
)
EXPIRED = Counter(
    "wasession_pod_events_expired_total", "Events deleted because they were too old or too many."
)
OUTBOX_OLDEST = Gauge(
    "wasession_pod_outbox_oldest_event_timestamp_seconds", "When the oldest event was stored."
)
OUTBOX_BYTES = Gauge("wasession_pod_outbox_bytes", "Size of the events in the outbox.")
OUTBOX_PENDING = Gauge(
    "wasession_pod_outbox_pending_events", "Events in memory that are not stored yet."
)
DELIVERY_ATTEMPTS = Counter(
    "wasession_pod_delivery_attempts_total",
    "Attempts to deliver an event to a webhook or sink, by what became of them.",
    ["name", "outcome"],
)
DELIVERY_SECONDS = Histogram(
    "wasession_pod_delivery_attempt_seconds",
    "Time from an attempt to deliver an event to its answer.",
    ["name"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
DELIVERY_PENDING = Gauge(
    "wasession_pod_delivery_pending_events", "Events that wait for a webhook or sink.", ["name"]
)
DELIVERY_OLDEST = Gauge(
    "wasession_pod_delivery_oldest_event_timestamp_seconds",
    "When the oldest event that waits for a webhook or sink was stored.",
    ["name"],
)
DEAD_LETTERS = Gauge(
    "wasession_pod_dead_letters", "Events of a webhook or sink that were given up.", ["name"]
)
SEND_SECONDS = Histogram(
    "wasession_pod_send_seconds",
    "Time from receiving a send request to WhatsApp's response.",
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)

MEMORY = Gauge(
    "wasession_pod_memory_bytes", "Proportional set size of the session's processes.", ["process"]
)
MEMORY_USED = Gauge(
    "wasession_pod_memory_used_bytes", "The memory that is compared with the limit."
)
MEMORY_LIMIT = Gauge(
    "wasession_pod_memory_limit_bytes", "The memory limit, by default the container's."
)
VOLUME_FREE = Gauge("wasession_pod_volume_free_bytes", "Free space on the volume.")
SNAPSHOT = Gauge("wasession_pod_snapshot_timestamp_seconds", "Last good snapshot of the login.")

# Report unknown values as NaN: 0 would be a date in 1970, or no memory at all.
for gauge in (OUTBOX_OLDEST, PHONE_SEEN, SNAPSHOT, MEMORY_USED, MEMORY_LIMIT, VOLUME_FREE):
    gauge.set(float("nan"))


@dataclass
class Outcome:
    """How a send went: ``sent``, ``failed`` or ``unknown``."""

    result: str = "failed"


def set_deliveries(found: Iterable[DeliveryDetails]) -> None:
    """Set the gauges of deliveries; those of removed ones disappear."""
    for gauge in (DELIVERY_PENDING, DELIVERY_OLDEST, DEAD_LETTERS):
        gauge.clear()
    for one in found:
        DELIVERY_PENDING.labels(one.name).set(one.pending)
        DEAD_LETTERS.labels(one.name).set(one.dead_letters)
        if one.oldest is not None:
            DELIVERY_OLDEST.labels(one.name).set(one.oldest.timestamp())


def set_report(report: Report) -> None:
    """Set the gauges that repeat the report."""
    for phase in Phase:
        PHASE.labels(phase).set(phase is report.phase)
    VALID.set(bool(report.session_valid))
    SANDBOXED.set(report.sandboxed is True)
    if report.phone_last_seen is not None:
        PHONE_SEEN.set(report.phone_last_seen.timestamp())
    WARNING.clear()
    for warning in report.warnings:
        WARNING.labels(warning.reason).set(1)


def set_process_memory(used: Counts[str]) -> None:
    """Set the memory of each kind of process, in bytes."""
    MEMORY.clear()
    for process, size in used.items():
        MEMORY.labels(process).set(size)


def set_memory(memory: Memory | None) -> None:
    """Set the gauges of the memory that is compared with the limit, if there is one."""
    if memory is not None:
        MEMORY_USED.set(memory.used)
        MEMORY_LIMIT.set(memory.limit)


@contextlib.contextmanager
def sending() -> Iterator[Outcome]:
    """Count and time a send; the caller sets the outcome's ``result``."""
    outcome = Outcome()
    with SEND_SECONDS.time():
        try:
            yield outcome
        finally:
            SENT.labels(outcome.result).inc()
