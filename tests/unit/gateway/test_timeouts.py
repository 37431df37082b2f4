"""The gateway waits for a session pod's own timeouts: they say what happened, its own does not."""

from __future__ import annotations

from datetime import timedelta

from wasession_gateway import commands, rest
from wasession_gateway.session import read_session
from wasession_pod.browser.bridge import CALL_TIMEOUT
from wasession_pod.settings import Settings

SEND_TIMEOUT = Settings.model_fields["send_timeout"].default


def test_requests_outlast_the_pod() -> None:
    assert rest.READ_TIMEOUT > CALL_TIMEOUT
    assert rest.SEND_TIMEOUT > CALL_TIMEOUT + SEND_TIMEOUT


def test_a_logout_outlasts_the_sessions_own_timeout() -> None:
    metadata = {
        "name": "sales",
        "uid": "u",
        "resourceVersion": "1",
        "creationTimestamp": "2026-10-01T10:00:00Z",
    }
    for spec, timeout in (({}, "30s"), ({"timeouts": {"logout": "5m"}}, "5m")):
        session = read_session({"metadata": metadata, "spec": spec})
        seconds = {"30s": 30, "5m": 300}[timeout]
        assert session.logout_timeout == timedelta(seconds=seconds)
        assert commands.logout_timeout(session) > CALL_TIMEOUT + seconds
