"""A real Kubernetes on one machine, without Docker and without an image registry. See README.md."""

from support.cluster.cluster import Cluster, ClusterRunning
from support.cluster.node import Node

__all__ = ["Cluster", "ClusterRunning", "Node"]
