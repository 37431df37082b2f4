"""The cluster's fixtures, for all tests."""

from cluster.fixture import embedded_cluster, kind_cluster, pytest_addoption

__all__ = ["embedded_cluster", "kind_cluster", "pytest_addoption"]
