"""The gateway's Prometheus metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Histogram(
    "wasession_gateway_request_seconds",
    "HTTP requests by operation and status.",
    ["operation", "status"],
)
TOKENS_REFUSED = Counter("wasession_gateway_tokens_refused_total", "Tokens that were not good.")
RATE_LIMITED = Counter("wasession_gateway_rate_limited_total", "Requests over a limit.", ["by"])
CLIENTS = Gauge("wasession_gateway_clients", "Socket.IO clients that are connected.")
CLIENTS_CLOSED = Counter(
    "wasession_gateway_clients_closed_total",
    "Socket.IO clients that the gateway closed.",
    ["reason"],
)
EVENTS = Counter(
    "wasession_gateway_events_total", "Events sent to Socket.IO rooms, by name.", ["event"]
)
FOLLOWED_PODS = Gauge("wasession_gateway_followed_pods", "Session pods whose events are read.")
SESSIONS = Gauge("wasession_gateway_sessions", "Sessions in the cache.")
INFORMER_LAST_EVENT_AGE = Gauge(
    "wasession_gateway_watch_age_seconds", "Since when the API server has not been heard."
)
NONSENSE = Counter("wasession_gateway_nonsense_total", "Packets that make no sense.")
