"""The embedded cluster enforces NetworkPolicies, also the operator's own."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from support.cluster import Cluster, images
from support.cluster.machine import ADDRESS, HOST_ADDRESS
from support.cluster.waiting import wait_for
from support.testbed import Testbed

EXAMPLE = Path(__file__).parents[1] / "demo" / "session.yaml"
NAMESPACE, OTHER = "e2e-policy", "e2e-policy-other"
PORT = 8080
METADATA = "169.254.169.254"
DNS = "10.96.0.10"
# Accepts connections on an address and a port, until its input ends.
LISTENER = """
import os, socket, sys, threading
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print(server.getsockname()[1], flush=True)
threading.Thread(target=lambda: sys.stdin.read() or os._exit(0)).start()
while True:
    server.accept()[0].close()
"""
PROBE = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()
except OSError:
    print("closed")
else:
    print("open")
"""
LOOKUP = "import socket; print(socket.gethostbyname('kubernetes.default.svc.cluster.local'))"


class Pod(NamedTuple):
    """A pod that has Python."""

    cluster: Cluster
    namespace: str
    name: str

    def run(self, program: str, *arguments: str) -> str:
        command = ("exec", self.name, "--", "python3", "-c", program, *arguments)
        return self.cluster.kubectl("-n", self.namespace, *command).strip()

    def reaches(self, address: str, port: int = PORT) -> bool:
        answer = self.run(PROBE, address, str(port))
        assert answer in ("open", "closed")
        return answer == "open"

    def until(self, reached: bool, address: str, port: int = PORT) -> None:
        """Wait until this pod reaches an address, or no longer does."""
        what = f"{self.name} {'' if reached else 'no longer '}to reach {address}:{port}"
        wait_for(what, lambda: self.reaches(address, port) == reached, 60)

    @property
    def address(self) -> str:
        path = "jsonpath={.status.podIP}"
        return self.cluster.kubectl("-n", self.namespace, "get", "pod", self.name, "-o", path)


class Pods(NamedTuple):
    """A server on the first node, and its clients on both."""

    server: Pod
    near: Pod  # in the server's namespace, on its node
    far: Pod  # in the server's namespace, on the other node
    near_friend: Pod  # in the other namespace
    far_friend: Pod
    stranger: Pod  # in the other namespace, with another label


def manifest(name: str, namespace: str, app: str, node: str) -> dict[str, Any]:
    container = {
        "name": "python",
        "image": images.name("operator"),
        "command": ["python3", "-c", LISTENER, "0.0.0.0", str(PORT)],
        "stdin": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": app}},
        "spec": {
            "nodeName": node,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 10001},
            "containers": [container],
        },
    }


@pytest.fixture(scope="module")
def pods(embedded_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    embedded_cluster.load_docker_image(images.build("operator"))
    first, second = (node.name for node in embedded_cluster.nodes)
    manifests = [
        manifest("server", NAMESPACE, "server", first),
        manifest("near", NAMESPACE, "friend", first),
        manifest("far", NAMESPACE, "friend", second),
        manifest("near-friend", OTHER, "friend", first),
        manifest("far-friend", OTHER, "friend", second),
        manifest("stranger", OTHER, "stranger", first),
    ]
    path = tmp_path_factory.mktemp("pods") / "pods.yaml"
    path.write_text(yaml.safe_dump_all(manifests))
    for namespace in (NAMESPACE, OTHER):
        embedded_cluster.kubectl("create", "namespace", namespace)
    # Each needs its namespace's ServiceAccount, which a controller creates.
    wait_for("the pods", lambda: embedded_cluster.kubectl("apply", "-f", str(path)), 30)
    for namespace in (NAMESPACE, OTHER):
        wait = ("wait", "--for=condition=Ready", "pods", "--all", "--timeout=120s")
        embedded_cluster.kubectl("-n", namespace, *wait)
    yield Pods(
        *(
            Pod(embedded_cluster, pod["metadata"]["namespace"], pod["metadata"]["name"])
            for pod in manifests
        )
    )
    embedded_cluster.kubectl("delete", "namespace", NAMESPACE, OTHER)


@contextlib.contextmanager
def policy(cluster: Cluster, directory: Path, **spec: Any) -> Iterator[None]:
    """Apply a NetworkPolicy for the block."""
    document = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "tested", "namespace": NAMESPACE},
        "spec": spec,
    }
    path = directory / "policy.json"
    path.write_text(json.dumps(document))
    cluster.kubectl("apply", "-f", str(path))
    try:
        yield
    finally:
        cluster.kubectl("delete", "-f", str(path))


def selected(app: str) -> dict[str, Any]:
    return {"matchLabels": {"app": app}}


@contextlib.contextmanager
def listener(address: str, port: int = 0, prefix: tuple[str, ...] = ()) -> Iterator[int]:
    """Listen on an address for the block; yield the port."""
    command = [*prefix, sys.executable, "-c", LISTENER, address, str(port)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.communicate()  # ends its input


@pytest.fixture
def metadata(embedded_cluster: Cluster) -> Iterator[None]:
    """Let something listen on the cloud's metadata address on each node."""
    with contextlib.ExitStack() as stack:
        for node in embedded_cluster.nodes:
            change = ("ip", "address", "{}", f"{METADATA}/32", "dev", "lo")
            add, delete = (
                node.inside(*(part.format(verb) for part in change)) for verb in ("add", "delete")
            )
            subprocess.run(add, check=True)
            stack.callback(subprocess.run, delete, check=True)
            stack.enter_context(listener(METADATA, 80, tuple(node.inside())))
        yield


def test_ingress_that_is_denied_to_all(pods: Pods, tmp_path: Path) -> None:
    server = pods.server.address
    for client in (pods.near, pods.far):
        assert client.reaches(server)
    deny = {"podSelector": selected("server"), "policyTypes": ["Ingress"]}
    with policy(pods.server.cluster, tmp_path, **deny):
        for client in (pods.near, pods.far):
            client.until(False, server)
        assert pods.near.reaches(pods.far.address), "another pod than the selected one"
        assert pods.server.reaches(pods.far.address), "another direction"
    for client in (pods.near, pods.far):
        client.until(True, server)


def test_ingress_from_a_namespaces_pods_with_a_label(pods: Pods, tmp_path: Path) -> None:
    server = pods.server.address
    others = {"matchLabels": {"kubernetes.io/metadata.name": OTHER}}
    source = {"namespaceSelector": others, "podSelector": selected("friend")}
    rule = {"from": [source], "ports": [{"port": PORT}]}
    allow = {"podSelector": selected("server"), "policyTypes": ["Ingress"], "ingress": [rule]}
    with policy(pods.server.cluster, tmp_path, **allow):
        for client in (pods.near, pods.far, pods.stranger):
            client.until(False, server)
        for client in (pods.near_friend, pods.far_friend):
            assert client.reaches(server), client.name


def test_egress_to_the_internet_and_dns_only(pods: Pods, tmp_path: Path, metadata: None) -> None:
    """The test's own process stands for the internet: it is neither pod nor node."""
    blocked = {
        METADATA: 80,
        pods.server.address: PORT,
        pods.far_friend.address: PORT,
        ADDRESS: 6443,  # the API server
        "10.96.0.1": 443,  # its Service
    }
    excepted = ["10.0.0.0/8", "169.254.0.0/16", f"{ADDRESS}/32"]
    assert all(ipaddress.ip_address(HOST_ADDRESS) not in ipaddress.ip_network(n) for n in excepted)
    internet = {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": excepted}}]}
    dns = {"ports": [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]}
    only = {"podSelector": selected("friend"), "policyTypes": ["Egress"], "egress": [internet, dns]}
    with listener(HOST_ADDRESS) as port:
        for client in (pods.near, pods.far):
            for address, its_port in (blocked | {HOST_ADDRESS: port}).items():
                assert client.reaches(address, its_port), f"{client.name} to {address}"
        with policy(pods.server.cluster, tmp_path, **only):
            for client in (pods.near, pods.far):
                for address, its_port in blocked.items():
                    client.until(False, address, its_port)
                assert client.reaches(HOST_ADDRESS, port)
                assert client.reaches(DNS, 53)
                assert client.run(LOOKUP) == "10.96.0.1"
            assert pods.server.reaches(METADATA, 80), "another pod than the selected ones"
        pods.near.until(True, METADATA, 80)


def test_a_session_pod_is_confined(
    bed: Testbed, pods: Pods, metadata: None, tmp_path: Path
) -> None:
    """It reaches DNS and what its class allows, and only the operator reaches it."""
    document = yaml.safe_load(EXAMPLE.read_text()) | {"metadata": {"name": "confined"}}
    path = tmp_path / "session.yaml"
    path.write_text(yaml.safe_dump(document))
    session = bed.session("confined", NAMESPACE)
    session.apply(path)
    session.wait_phase("Authenticating")  # as the pod has reported to the operator
    pod = Pod(pods.server.cluster, NAMESPACE, session.status["podName"])
    others = {METADATA: 80, pods.server.address: PORT, pods.far_friend.address: PORT}
    for address, port in (others | {ADDRESS: 6443, "10.96.0.1": 443}).items():
        pod.until(False, address, port)
    assert pod.reaches("standin.standin.svc", 80)
    assert pod.run(LOOKUP) == "10.96.0.1"
    for client in (pods.near, pods.far, pods.near_friend, pods.far_friend):
        client.until(False, pod.address)
    for address, port in others.items():
        assert pods.far.reaches(address, port), f"a pod of nobody's class to {address}"
    session.kubectl("delete", "wasession", session.name, "--timeout=60s")
