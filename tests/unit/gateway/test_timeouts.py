"""The gateway waits for a session pod's own timeouts: they say what happened, its own does not."""

from __future__ import annotations

from datetime import timedelta

from wasession_api.v1alpha1 import Spec
from wasession_gateway import commands, operations, rest
from wasession_gateway.session import read_session
from wasession_pod.api.operations import MAXIMUM_WAIT
from wasession_pod.browser.bridge import CALL_TIMEOUT, DOWNLOAD_TIMEOUT
from wasession_pod.settings import Settings

SEND_TIMEOUT = Settings.model_fields["send_timeout"].default


def test_requests_outlast_the_pod() -> None:
    assert rest.READ_TIMEOUT > CALL_TIMEOUT
    assert rest.SEND_TIMEOUT > CALL_TIMEOUT + SEND_TIMEOUT
    assert rest.MEDIA_TIMEOUT > DOWNLOAD_TIMEOUT
    assert operations.LONGEST_WAIT <= MAXIMUM_WAIT


def test_a_logout_outlasts_the_sessions_own_timeout() -> None:
    metadata = {
        "name": "sales",
        "uid": "u",
        "resourceVersion": "1",
        "creationTimestamp": "2026-10-01T10:00:00Z",
    }
    for logout, seconds in (("1m", 60), ("20m", 1200)):
        session = read_session({"metadata": metadata, "spec": {"timeouts": {"logout": logout}}})
        assert session.logout_timeout == timedelta(seconds=seconds)
        assert commands.logout_timeout(session) > CALL_TIMEOUT + seconds
    session = read_session({"metadata": metadata, "spec": {}})
    assert session.logout_timeout > Spec().timeouts.logout, "its class may have set another one"
