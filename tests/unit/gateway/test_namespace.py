"""What the namespace holds of sessions that are gone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from wasession_gateway.pods import Pods
from wasession_gateway.session import read_session
from wasession_gateway.socketio_namespace import Namespace


async def test_the_pod_of_a_deleted_session_is_forgotten() -> None:
    unused: Any = None
    pods = Pods(unused, unused, "ns", unused)
    connections: Any = SimpleNamespace(server=SimpleNamespace(register_namespace=lambda _: None))
    sessions: Any = {}
    namespace = Namespace(connections, unused, sessions, unused, pods, unused, unused, unused)
    metadata = {
        "name": "sales",
        "uid": "uid-1",
        "resourceVersion": "1",
        "creationTimestamp": "2026-10-01T10:00:00Z",
    }
    namespace._published["sales"] = read_session({"metadata": metadata})
    pods._pods["uid-1"] = unused
    await namespace._publish("sales")
    assert pods._pods == {}
    assert namespace._published == {}
