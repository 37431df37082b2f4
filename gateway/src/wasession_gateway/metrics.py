"""The gateway's Prometheus metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

REQUEST_DURATION = Histogram(
    "wasession_gateway_request_duration_seconds",
    "Duration of HTTP requests, by operation and status.",
    ["operation", "status"],
)
TOKENS_REJECTED = Counter(
    "wasession_gateway_tokens_rejected_total", "Tokens that failed verification."
)
RATE_LIMITED = Counter(
    "wasession_gateway_rate_limited_total", "Requests over a rate limit.", ["by"]
)
CLIENTS = Gauge("wasession_gateway_clients", "Connected Socket.IO clients.")
CLIENTS_CLOSED = Counter(
    "wasession_gateway_clients_closed_total",
    "Socket.IO clients that the gateway disconnected, by reason.",
    ["reason"],
)
EVENTS = Counter(
    "wasession_gateway_events_total", "Events sent to Socket.IO clients, by name.", ["event"]
)
POD_EVENT_STREAMS = Gauge(
    "wasession_gateway_pod_event_streams", "Session pods whose events are being read."
)
CATCH_UPS = Gauge(
    "wasession_gateway_catch_ups",
    "Socket.IO clients that are being sent what they have missed, once for each session.",
)
WAITING_TO_WAKE = Gauge(
    "wasession_gateway_waiting_to_wake", "Requests that wait until their sessions are awake."
)
SESSIONS = Gauge("wasession_gateway_sessions", "Sessions in the cache.")
INFORMER_LAST_EVENT_AGE = Gauge(
    "wasession_gateway_informer_last_event_age_seconds",
    "Time since the last event or list from the API server.",
)
INVALID_PACKETS = Counter(
    "wasession_gateway_invalid_packets_total", "Invalid packets from Socket.IO clients."
)
