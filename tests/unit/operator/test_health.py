"""Liveness fails for what a new process can mend, and for nothing else."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from wasession_api.kube.client import KubeClient
from wasession_operator import metrics
from wasession_operator.health import STUCK_AFTER, find_failure
from wasession_operator.resync import Resync
from wasession_operator.session_watch import SessionWatch
from wasession_operator.sharding.shards import Shards


def failure(
    *,
    silent: float = 1,
    answered: float = 1,
    answering: float = 3600,
    longest: float = 0,
    missed: str | None = None,
    failing: str | None = None,
) -> str | None:
    """Return the failure that liveness reports. All but ``missed`` are in seconds."""
    informer = SimpleNamespace(age=silent, resource=SimpleNamespace(plural="pods"))
    controllers = [
        SimpleNamespace(queue=SimpleNamespace(longest=seconds)) for seconds in (0, longest)
    ]
    now = time.monotonic()
    answers = SimpleNamespace(last=now - answered, since=now - answering)
    return find_failure(
        cast(Shards, SimpleNamespace(controllers=controllers, informers=[informer])),
        cast(Resync, SimpleNamespace(missed=missed)),
        [
            cast(SessionWatch, SimpleNamespace(namespace=name, error="403" if fails else None))
            for name, fails in {"ns": failing == "ns", "other": failing == "other"}.items()
        ],
        cast(KubeClient, SimpleNamespace(answers=answers)),
    )


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"longest": 600},
        {"silent": 200},
        {"silent": 3600, "answered": 3600},
        {"missed": "ns/sales", "answered": 3600},
        {"missed": "ns/sales", "failing": "ns"},
        {"longest": 3600, "answered": 3600},
        {"longest": 3600, "answering": 30},
        {"silent": 3600, "answering": 30},
    ],
    ids=[
        "healthy",
        "busy",
        "silent for a moment",
        "no API server",
        "no API server to ask",
        "a watch that is started again",
        "no API server to act on",
        "backlog of an outage",
        "watches not yet open after an outage",
    ],
)
def test_live(facts: dict[str, Any]) -> None:
    assert failure(**facts) is None


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"longest": 901}, "a session has been waiting"),
        ({"silent": 301}, "the watch of pods"),
        ({"missed": "ns/sales"}, "ns/sales"),
        ({"missed": "ns/sales", "failing": "other"}, "ns/sales"),
    ],
)
def test_failed(facts: dict[str, Any], message: str) -> None:
    assert message in (failure(**facts) or "")


def test_histograms_reach_as_far_as_liveness() -> None:
    for histogram in (metrics.RECONCILE_DURATION, metrics.WORKQUEUE_QUEUE_DURATION):
        *_, last, _ = histogram._upper_bounds
        assert last >= STUCK_AFTER
