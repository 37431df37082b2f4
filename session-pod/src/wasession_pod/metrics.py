"""Prometheus metrics of one session."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram
from wasession_api.report import Report
from wasession_api.v1alpha1 import Phase

PHASE = Gauge("wasession_pod_phase", "1 for the phase that the session is in.", ["phase"])
VALID = Gauge("wasession_pod_session_valid", "1 when the volume holds a login that WhatsApp has not ended.")
SENT = Counter("wasession_pod_messages_sent_total", "Messages that were to be sent.", ["result"])
SEND_SECONDS = Histogram("wasession_pod_send_seconds", "From a send's arrival to WhatsApp's answer.")


@dataclass
class Outcome:
    sent: bool = False


def observe(report: Report) -> None:
    for phase in Phase:
        PHASE.labels(phase).set(phase is report.phase)
    VALID.set(report.session_valid)


@contextlib.contextmanager
def sending() -> Iterator[Outcome]:
    outcome = Outcome()
    with SEND_SECONDS.time():
        try:
            yield outcome
        finally:
            SENT.labels("sent" if outcome.sent else "failed").inc()
