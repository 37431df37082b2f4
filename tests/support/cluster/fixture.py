"""pytest fixtures: a cluster with pytest-kind's interface.

``--cluster=embedded`` (the default) boots the cluster of this package, ``kind`` lets pytest-kind
create one with Docker, and ``existing`` uses the current context of ``KUBECONFIG``.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_kind import KindCluster
from support.cluster import binaries, host
from support.cluster.cluster import Cluster, forwarded_port

NODES = 2


class ExistingCluster:
    """The cluster that kubectl already talks to."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig_path = kubeconfig

    def kubectl(self, *args: str) -> str:
        command = ["kubectl", f"--kubeconfig={self.kubeconfig_path}", *args]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def load_docker_image(self, docker_image: str) -> None:
        """Do nothing but warn: the nodes of a cluster that is not ours pull their images."""
        warnings.warn(f"the cluster's nodes must be able to pull {docker_image}", stacklevel=2)

    @contextlib.contextmanager
    def port_forward(self, service_or_pod_name: str, remote_port: int, *args: str) -> Iterator[int]:
        with forwarded_port(
            "kubectl", self.kubeconfig_path, service_or_pod_name, remote_port, *args
        ) as port:
            yield port


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cluster",
        choices=["embedded", "kind", "existing"],
        default="embedded",
        help="the cluster that tests run on",
    )


@pytest.fixture(scope="session")
def kind_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """Start or find the cluster, with ``kubectl`` and ``helm`` on PATH."""
    match request.config.getoption("--cluster"):
        case "kind":
            cluster = KindCluster(request.config.getoption("cluster_name"))
            cluster.create()
            yield cluster
            if not request.config.getoption("keep_cluster"):
                cluster.delete()
        case "existing":
            binaries.put_on_path()
            yield ExistingCluster(
                Path(os.environ.get("KUBECONFIG", Path.home() / ".kube" / "config"))
            )
        case _:
            binaries.put_on_path()
            # pytest removes the directory even if this process is killed: some runs later.
            embedded = Cluster(tmp_path_factory.mktemp("machine") / "cluster", NODES)
            embedded.start()
            yield embedded
            embedded.stop()


@pytest.fixture(scope="session")
def embedded_cluster(request: pytest.FixtureRequest, kind_cluster: Any) -> Cluster:
    """Return the embedded cluster, for tests that power it off; skip with any other."""
    if not isinstance(kind_cluster, Cluster):
        choice = request.config.getoption("--cluster")
        pytest.skip(f"needs --cluster=embedded: a {choice} cluster cannot be powered off")
    return kind_cluster


@pytest.fixture(scope="session")
def chromium() -> Path:
    """Return the path of Debian's Chromium; install it if it is missing."""
    host.ensure("browser")
    return Path("/usr/bin/chromium")
