"""How the tests are divided among processes that run side by side (``pytest -n``).

A group runs in one process, one test after the other. Tests of a file share fixtures, so a file is
a group; there is one embedded cluster, so all end-to-end tests are a group; and an API server costs
seconds to start, so two processes start one each for the operator's tests.
"""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
# What takes longest comes first, so that no process is left with it at the end.
ORDER = ("e2e", "integration/operator", "integration/pod", "integration", "")
CLUSTER = "cluster"
CRASHES = ("test_crash.py", "test_idle.py")


def distribute(items: list[pytest.Item]) -> None:
    """Sort the tests, and mark each with its group for ``--dist loadgroup``."""
    items.sort(key=lambda item: _rank(_place(item)))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(_place(item))))


def _place(item: pytest.Item) -> str:
    """Return the path of the test's file below ``tests``."""
    return item.path.relative_to(TESTS).as_posix()


def _rank(place: str) -> int:
    return next(rank for rank, folder in enumerate(ORDER) if place.startswith(folder))


def _group(place: str) -> str:
    if place.startswith("e2e/"):
        return CLUSTER
    if place.startswith("integration/operator/"):
        return "operator-crashes" if place.endswith(CRASHES) else "operator"
    return place.removesuffix(".py").replace("test_", "")
