"""Liveness fails for what a new process can mend, and for nothing else."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from wasession_api.kube.client import KubeClient
from wasession_operator.health import why_dead
from wasession_operator.reconcile import Operator
from wasession_operator.reconcile_state import Memory
from wasession_operator.upkeep import Upkeep


def verdict(
    *,
    watch_age: float = 1,
    answered: float = 1,
    waiting: float | None = None,
    working: float | None = None,
    missed: str | None = None,
) -> str | None:
    """``waiting``, ``working`` and ``answered`` are seconds ago."""
    now = time.monotonic()
    memory = Memory("uid-1")
    memory.woken_at = None if waiting is None else now - waiting
    memory.working_since = None if working is None else now - working
    watch = SimpleNamespace(age=watch_age, resource=SimpleNamespace(plural="pods"))
    operator: Any = SimpleNamespace(
        memories={("ns", "sales"): memory}, cluster=SimpleNamespace(watches=[watch])
    )
    kube: Any = SimpleNamespace(answered_at=now - answered)
    return why_dead(
        cast(Operator, operator),
        cast(Upkeep, SimpleNamespace(missed=missed)),
        cast(KubeClient, kube),
    )


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"waiting": 600, "working": 600},
        {"watch_age": 200},
        {"watch_age": 3600, "answered": 3600},
        {"missed": "ns/sales", "answered": 3600},
    ],
    ids=["all is well", "busy", "quiet for a moment", "no API server", "no API server to ask"],
)
def test_alive(facts: dict[str, Any]) -> None:
    assert verdict(**facts) is None


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"waiting": 901}, "a session has waited"),
        ({"working": 901}, "a session has waited"),
        ({"waiting": 901, "answered": 3600}, "a session has waited"),
        ({"watch_age": 301}, "the watch of pods"),
        ({"missed": "ns/sales"}, "ns/sales"),
    ],
)
def test_dead(facts: dict[str, Any], words: str) -> None:
    assert words in (verdict(**facts) or "")


def test_a_wake_up_counts_from_the_first_call() -> None:
    memory = Memory("uid-1")
    memory.wake()
    first = memory.woken_at
    memory.wake()
    assert memory.woken_at == first
    assert memory.begin() >= 0
    assert memory.woken_at is None
    assert memory.working_since is not None
    memory.end()
    assert memory.working_since is None
