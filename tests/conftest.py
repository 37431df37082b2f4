"""What all tests may ask for: a cluster, a browser."""

import os

import hypothesis
from support.cluster.fixture import chromium, embedded_cluster, kind_cluster, pytest_addoption

__all__ = ["chromium", "embedded_cluster", "kind_cluster", "pytest_addoption"]

# No test fails for being slow, and CI tries the same examples each time; new ones are looked for on
# developers' machines.
hypothesis.settings.register_profile("wasession", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("wasession")
