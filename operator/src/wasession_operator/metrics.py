"""The operator's Prometheus metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

SESSIONS = Gauge("wasession_sessions", "Sessions by phase.", ["phase"])
RECONCILE_SECONDS = Histogram("wasession_reconcile_seconds", "How long one reconciliation of a session takes.")
API_CALLS = Counter("wasession_api_calls_total", "Calls to the API server.", ["verb", "result"])
POD_CREATIONS = Counter("wasession_pod_creations_total", "Session pods that were created, by why.", ["reason"])
RESTORATIONS = Counter(
    "wasession_restorations_total", "Sessions that came back from their stored login, or did not.", ["result"]
)
