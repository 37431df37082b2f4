"""The embedded cluster as its users see it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support.cluster import binaries, cgroups, host, images, machine
from support.cluster.control_plane import SERVER, ControlPlane
from support.cluster.machine import Machine
from support.cluster.node import Node
from support.cluster.pki import Pki
from support.cluster.waiting import wait_for


class ClusterRunning(RuntimeError):
    """A cluster is already running on this machine."""


class Cluster:
    """A Kubernetes cluster with pytest-kind's ``KindCluster`` interface.

    ``directory`` holds etcd, the certificates, the nodes' disks and the volumes. Starting again on
    the same directory is a reboot of the whole cluster.
    """

    def __init__(self, directory: Path | None = None, nodes: int = 2) -> None:
        self.directory = (directory or default_directory()).resolve()
        self._machine = Machine(self.directory)
        self._pki = Pki(self.directory / "pki", SERVER)
        self._control_plane = ControlPlane(self._machine, self._pki)
        self.nodes = [Node(self._machine, self._pki, index, nodes) for index in range(1, nodes + 1)]

    @property
    def kubeconfig_path(self) -> Path:
        """Path of the administrator's kubeconfig."""
        return self._pki.kubeconfig("admin")

    def start(self, *, detached: bool = False) -> None:
        """Boot everything and return when all nodes are Ready.

        Unless ``detached``, the cluster ends with the calling thread, even if that is killed.
        Raises ``ClusterRunning`` if a cluster is already running.
        """
        host.ensure("cluster")
        binaries.directory()
        running = machine.running_directory()
        if running is not None:
            raise ClusterRunning(
                f"a cluster is already running on this machine, in {running}; stop it first"
            )
        machine.remove_cable()
        cgroups.remove()
        (self.directory / "logs").mkdir(exist_ok=True)
        self._control_plane.certificates()
        self._machine.start(detached=detached)
        try:
            self._control_plane.start()
            with ThreadPoolExecutor() as pool:
                list(pool.map(Node.power_on, self.nodes))
            for node in self.nodes:
                self.wait_ready(node)
        except BaseException:
            self._machine.stop()
            raise

    def stop(self, *, keep_disk: bool = False) -> None:
        """Kill everything at once, like a power cut; delete the directory unless ``keep_disk``."""
        self._machine.stop()
        wait_for("empty control groups", _control_groups_gone, 30)
        if not keep_disk:
            shutil.rmtree(self.directory)

    def erase(self) -> None:
        """Stop, and delete all objects and volumes; images and certificates stay. ``start`` again.

        So the next start is that of a new cluster.
        """
        self.stop(keep_disk=True)
        for name in ("etcd", "volumes"):
            shutil.rmtree(self.directory / name)

    def copy_etcd(self, target: Path) -> None:
        """Copy all objects as of one moment, as ``etcdctl snapshot save`` does."""
        self._control_plane.copy_etcd(target)

    def restore_etcd(self, copy: Path) -> None:
        """Restart the control plane with the objects of a copy, and what watches it on the nodes.

        Containers go on running, and volumes stay as they are.
        """
        self._control_plane.restore_etcd(copy)
        for node in self.nodes:
            node.restart_agents()

    def wait_ready(self, node: Node, timeout: float = 60) -> None:
        """Wait until the node's condition Ready is True."""
        wait_for(f"{node.name} to be Ready", lambda: self._is_ready(node), timeout)

    def kubectl(self, *args: str) -> str:
        """Run kubectl as the administrator; raises ``CalledProcessError`` with its stderr."""
        return self._control_plane.kubectl(*args)

    def load_docker_image(self, docker_image: str) -> None:
        """Import an image of docker or buildah into every node."""
        archive = images.archive(docker_image)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda node: node.load(archive, docker_image), self.nodes))

    @contextlib.contextmanager
    def port_forward(self, service_or_pod_name: str, remote_port: int, *args: str) -> Iterator[int]:
        """Yield a local port that is forwarded to a port of a pod or Service."""
        kubectl = str(binaries.path("kubectl"))
        with forwarded_port(
            kubectl, self.kubeconfig_path, service_or_pod_name, remote_port, *args
        ) as port:
            yield port

    def _is_ready(self, node: Node) -> bool:
        status = json.loads(self.kubectl("get", "node", node.name, "-o", "json"))["status"]
        condition = next(
            condition for condition in status["conditions"] if condition["type"] == "Ready"
        )
        return bool(condition["status"] == "True")


@contextlib.contextmanager
def forwarded_port(
    kubectl: str, kubeconfig: Path, target: str, remote_port: int, *args: str
) -> Iterator[int]:
    """Run ``kubectl port-forward`` for the block; raises ``RuntimeError`` with its output."""
    command = [
        kubectl,
        f"--kubeconfig={kubeconfig}",
        "port-forward",
        target,
        f":{remote_port}",
        *args,
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.match(r"Forwarding from 127\.0\.0\.1:(\d+)", line)
            if match is None:
                raise RuntimeError(f"port-forward to {target} failed: {line.strip()}")
            yield int(match.group(1))
        finally:
            process.terminate()


def default_directory() -> Path:
    state = os.environ.get("XDG_STATE_HOME", Path.home() / ".local" / "state")
    return Path(state) / "wasession" / "cluster"


def _control_groups_gone() -> bool:
    cgroups.remove()
    return not any(cgroups.left())
