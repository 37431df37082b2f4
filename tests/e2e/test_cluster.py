"""The embedded cluster is a Kubernetes, loses power like one, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.cluster import Cluster, ClusterRunning, images, machine
from support.cluster.waiting import wait_for

PROGRAM = """
import socket, time
with open("/data/starts", "a+") as starts:
    starts.write("x")
    starts.seek(0)
    print("starts:", len(starts.read()))
print("dns:", socket.gethostbyname("kubernetes.default.svc"), flush=True)
time.sleep(1e6)
"""
PROBE = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "probe"},
    "spec": {
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001},
        "containers": [
            {
                "name": "probe",
                "image": images.name("operator"),
                "command": ["python3", "-c", PROGRAM],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }
        ],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "probe"}}],
    },
}
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "probe"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
}


@pytest.fixture(scope="module")
def probe(embedded_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """Return the cluster, with a pod that counts its starts on a volume."""
    embedded_cluster.load_docker_image(images.build("operator"))
    manifest = tmp_path_factory.mktemp("probe") / "probe.yaml"
    manifest.write_text(yaml.safe_dump_all([CLAIM, PROBE]))
    embedded_cluster.kubectl("create", "namespace", "probe")
    embedded_cluster.kubectl("-n", "probe", "apply", "-f", str(manifest))
    return embedded_cluster


def started(cluster: Cluster, times: int) -> None:
    """Wait until the pod has started this many times on the same volume, with DNS."""

    def logged() -> bool:
        log = cluster.kubectl("-n", "probe", "logs", "probe")
        return f"starts: {times}" in log and "dns: 10.96.0.1" in log

    wait_for(f"start {times} of the pod", logged, 60)


def test_nodes_are_ready(embedded_cluster: Cluster) -> None:
    nodes = json.loads(embedded_cluster.kubectl("get", "nodes", "-o", "json"))["items"]
    assert [node["metadata"]["name"] for node in nodes] == ["node1", "node2"]
    for node in embedded_cluster.nodes:
        embedded_cluster.wait_ready(node)


def test_a_pod_has_a_volume_and_dns(probe: Cluster) -> None:
    started(probe, 1)


def test_a_node_that_lost_power_starts_its_pods_again(probe: Cluster) -> None:
    name = probe.kubectl("-n", "probe", "get", "pod", "probe", "-o", "jsonpath={.spec.nodeName}")
    node = next(node for node in probe.nodes if node.name == name)
    node.power_off()
    probe.kubectl("wait", "--for=condition=Ready=Unknown", f"node/{name}", "--timeout=60s")
    node.power_on()
    started(probe, 2)


def test_a_second_cluster_is_refused(embedded_cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(ClusterRunning, match=str(embedded_cluster.directory)):
        Cluster(tmp_path / "second").start()


def test_the_whole_cluster_starts_again_on_its_disk(probe: Cluster) -> None:
    assert traces(probe.directory) != []
    probe.stop(keep_disk=True)
    assert traces(probe.directory) == []
    probe.start()
    started(probe, 3)


def test_nothing_is_left_when_its_program_is_killed(
    embedded_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("killed")  # a short name: sockets are in it
    embedded_cluster.stop(keep_disk=True)
    program = (
        "import sys, time; from pathlib import Path; from support.cluster import Cluster\n"
        "Cluster(Path(sys.argv[1]), 1).start(); print('up', flush=True); time.sleep(1e6)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", program, str(directory / "cluster")]
    pipe = subprocess.PIPE
    try:
        with subprocess.Popen(command, stdout=pipe, text=True, env=environment) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            assert traces(directory) != []
            process.send_signal(signal.SIGKILL)
        wait_for("nothing to be left", lambda: traces(directory) == [], 120)
    finally:
        embedded_cluster.start()


def traces(directory: Path) -> list[str]:
    """Return a cluster's processes, mounts, interfaces, routes and packet filter rules."""
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(directory) in line and not line.startswith(sys.executable):
            left.append(line)
    left += [
        line
        for line in Path("/proc/mounts").read_text().splitlines()
        if str(directory) in line or "hostpath_pv" in line
    ]
    for command in (["ip", "link"], ["ip", "route"], ["iptables-save"]):
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        left += [
            line
            for line in output.splitlines()
            if machine.HOST_INTERFACE in line or "KUBE-" in line
        ]
    return left
