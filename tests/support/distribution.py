"""How the tests are divided among processes that run side by side (``pytest -n``).

A group of tests runs in one process, in order. Tests of a file share fixtures, so a file is a
group; there is one embedded cluster, so all end-to-end tests are a group; and an API server costs
seconds to start, so two processes start one each for the operator's tests.
"""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling

# What takes longest comes first, so that no process is left with it at the end.
ORDER = (
    "tests/e2e/",
    "tests/integration/operator/",
    "tests/integration/pod/",
    "tests/unit/pod/",
    "tests/integration/",
    "tests/",
)
CLUSTER = "tests/e2e/"
# Looks back on what the other tests of its group have done.
LAST = "tests/e2e/test_rights.py"
OPERATOR = "tests/integration/operator/"
CRASHES = ("test_crash.py", "test_idle.py")


class Groups(LoadScopeScheduling):  # type: ignore[misc]
    """Gives the next group to each process that has nearly finished its own."""

    def __init__(self, config: pytest.Config, log: object) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


def rank(nodeid: str) -> tuple[int, bool]:
    """Return where a test belongs in the order of the suite."""
    place = next(place for place, folder in enumerate(ORDER) if nodeid.startswith(folder))
    return place, nodeid.startswith(LAST)


def group(nodeid: str) -> str:
    """Return the name of a test's group."""
    file = nodeid.partition("::")[0]
    if file.startswith(CLUSTER):
        return "cluster"
    if file.startswith(OPERATOR):
        return "operator's crashes" if file.endswith(CRASHES) else "operator"
    return file
