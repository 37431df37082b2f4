"""What all tests may ask for: a cluster, a browser."""

from cluster.fixture import chromium, embedded_cluster, kind_cluster, pytest_addoption

__all__ = ["chromium", "embedded_cluster", "kind_cluster", "pytest_addoption"]
