"""No session starts before all are known."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from wasession_api.kube.client import Rejected, Unavailable
from wasession_api.kube.manifests import Key, Manifest
from wasession_operator import startup
from wasession_operator.controller import Controller
from wasession_operator.priority_semaphore import PrioritySemaphore
from wasession_operator.reconcile_state import ReconcileState
from wasession_operator.startup import Restoration, restoration

KEY = ("ns", "sales")


def session(*, degraded: bool = False, suspend: bool = False, **status: Any) -> Manifest:
    conditions = [{"type": "Degraded", "status": str(degraded)}]
    return {
        "metadata": {"name": "sales", "namespace": "ns"},
        "spec": {"suspend": suspend},
        "status": {"conditions": conditions, **status},
    }


@pytest.mark.parametrize(
    ("obj", "outcome"),
    [
        (None, Restoration.DELETED),
        (session(phase="Ready", sessionValid=True), Restoration.RESTORED),
        (session(phase="Restoring", sessionValid=True), Restoration.PENDING),
        (session(phase="Restoring", sessionValid=True, degraded=True), Restoration.STALLED),
        (session(phase="Suspended", sessionValid=True, suspend=True), Restoration.STALLED),
        (session(phase="LoggedOut", sessionValid=False), Restoration.STALLED),
    ],
)
def test_how_far_a_restoration_is(obj: Manifest | None, outcome: Restoration) -> None:
    assert restoration(obj) is outcome


async def test_the_gate_opens_when_all_sessions_have_been_reconciled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(startup, "POLL_INTERVAL", 0.0)
    state = ReconcileState(KEY, "uid-1")
    lists = 0

    async def list_sessions(namespace: str | None) -> dict[Key, Manifest]:
        nonlocal lists
        assert namespace != "forbidden"
        if namespace == "rejected":
            raise Rejected("forbidden")
        lists += 1
        assert not starts.is_open
        if lists == 1:
            raise Unavailable("no answer")
        state.reconciled = lists == 3
        return {KEY: session()}

    async def synced() -> None:
        """The informers have synced."""

    starts, updates = (PrioritySemaphore(1, lambda _: None) for _ in range(2))
    controller = SimpleNamespace(
        cache=SimpleNamespace(
            wait_for_sync=synced,
            list_sessions=list_sessions,
            sessions={KEY: session()},
            namespaces=["forbidden", "ns", "rejected"],
            is_served=lambda namespace: namespace != "forbidden",
        ),
        settings=SimpleNamespace(restoration_delay=timedelta(0)),
        states={KEY: state},
        starts=starts,
        updates=updates,
    )
    async with asyncio.timeout(60):
        await startup.run(cast(Controller, controller))
    assert lists == 3
    assert starts.is_open
    assert updates.is_open
