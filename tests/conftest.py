"""What all tests may ask for: a cluster, a browser; and what is prepared before the first test."""

import os

import hypothesis
import pytest
from support.cluster.fixture import chromium, embedded_cluster, kind_cluster, pytest_addoption
from support.distribution import CLUSTER, Groups, rank
from support.preparation import prepare

__all__ = ["chromium", "embedded_cluster", "kind_cluster", "pytest_addoption"]

# No test fails for being slow, and CI tries the same examples each time; new ones are looked for on
# developers' machines.
hypothesis.settings.register_profile("wasession", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("wasession")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: rank(item.nodeid))
    for item in items:
        if item.nodeid.startswith(
            CLUSTER
        ):  # whole sessions on a cluster that starts with the first
            item.add_marker(pytest.mark.timeout(900))


# Before the hook of pytest-xdist, which reports that this process is ready for tests.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Prepare in one process; no process gets a test before all are ready."""
    first = os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0"
    if first and not session.config.option.collectonly:
        prepare(session.items, session.config.getoption("--cluster"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Groups:
    return Groups(config, log)
