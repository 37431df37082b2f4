"""A node: containerd, kubelet, kube-proxy and kube-router, on a disk that survives."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from support.cluster import binaries, cgroups, oci
from support.cluster.control_plane import DNS, PODS, SERVICES
from support.cluster.machine import ADDRESS, BRIDGE, PREFIX, Machine
from support.cluster.pki import Pki
from support.cluster.waiting import wait_for

CONTAINERD = """
version = 2
root = "{disk}/containerd"
state = "/run/containerd"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Without CAP_SYS_RESOURCE a process may not lower its OOM score.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{disk}/cni"
"""

# The node's init process: when it ends, everything on the node ends.
INIT = """
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /var/lib/kubelet /var/log /var/lib/cni
mkdir -p {disk}/kubelet {disk}/log/pods {disk}/log/containers {disk}/cni-state
mount --bind {disk}/kubelet /var/lib/kubelet
mount --make-rshared /var/lib/kubelet
mount --bind {disk}/log /var/log
mount --bind {disk}/cni-state /var/lib/cni
hostname {name}
ip link set lo up
ip address add {address}/{prefix} dev eth0
ip link set eth0 up
ip route add default via {gateway}
{routes}
sysctl -qw net.ipv4.ip_forward=1
# NetworkPolicies also apply between pods on one bridge.
[ -e /proc/sys/net/bridge ] || modprobe br_netfilter
sysctl -qw net.bridge.bridge-nf-call-iptables=1
# Only towards what is not a pod: between pods, NetworkPolicies need the pod's own address.
iptables -w -t nat -A POSTROUTING -s {subnet} ! -d {pods} -j MASQUERADE
rm -f {socket}
containerd --config {disk}/containerd.toml >> {disk}/containerd.log 2>&1 &
while true; do
  {kube} kube-proxy --config={disk}/kube-proxy.json >> {disk}/kube-proxy.log 2>&1 || true
  sleep 1
done &
while true; do
  {kube_router} --kubeconfig={kube_router_conf} --hostname-override={name} \\
    --service-cluster-ip-range={services} >> {disk}/kube-router.log 2>&1 || true
  sleep 1
done &
until [ -e {disk}/images-ready ]; do sleep 0.05; done
while true; do
  {kube} kubelet --config={disk}/kubelet.json --kubeconfig={kubeconfig} \\
    --hostname-override={name} --node-ip={address} --root-dir=/var/lib/kubelet \\
    >> {disk}/kubelet.log 2>&1 || true
  sleep 1
done
"""


class Node:
    """Node number ``index`` (from 1) of ``count``."""

    def __init__(self, machine: Machine, pki: Pki, index: int, count: int) -> None:
        self.name = f"node{index}"
        self.disk = machine.directory / self.name
        self.address = _address(index)
        self._index, self._count = index, count
        self._machine, self._pki = machine, pki
        self._socket = self.disk / "containerd.sock"

    def power_on(self) -> None:
        """Boot the node on its disk; kubelet then starts the pods that are bound to it."""
        self.disk.mkdir(exist_ok=True)
        (self.disk / "images-ready").unlink(missing_ok=True)
        self._pki.issue(
            self.name, f"system:node:{self.name}", "system:nodes", self.name, self.address
        )
        self._configure()
        cgroups.create(self.name)
        run = self._machine.run
        run("ip", "netns", "add", self.name)
        link = f"ip link add {self.name} type veth peer name eth0 netns {self.name}"
        run(*link.split())
        run("ip", "link", "set", self.name, "master", BRIDGE, "up")
        enter = f"nsenter --net=/run/netns/{self.name}"
        namespaces = "unshare --pid --mount --uts --fork --kill-child"
        boot = f"exec {enter} {namespaces} bash {self.disk}/init.sh"
        self._machine.spawn(
            self.disk / "init.log", "sh", "-c", f"echo $$ > {self.disk}/pid; {boot}"
        )
        wait_for(f"containerd of {self.name}", lambda: self.ctr("version"), 30)
        self.load(
            oci.pause_archive(self._machine.directory / "pause.tar", binaries.path("pause")),
            oci.PAUSE,
        )
        (self.disk / "images-ready").touch()

    def power_off(self) -> None:
        """Kill everything on the node at once, as when its plug is pulled.

        Whatever its processes have written survives, even if it was only in the page cache, because
        the kernel goes on.
        """
        pid = (self.disk / "pid").read_text().strip()
        self._machine.run("kill", "-KILL", pid)
        wait_for(f"the end of {self.name}", lambda: not self._alive(pid), 30)
        # The link first: the kernel deletes a namespace's interfaces some time after it.
        self._machine.run("ip", "link", "delete", self.name)
        self._machine.run("ip", "netns", "delete", self.name)

    def restart_agents(self) -> None:
        """Kill kubelet, kube-proxy and kube-router, which start again; containers go on."""
        own = f'--ns "$(pgrep --parent "$(cat {self.disk}/pid)")" --nslist pid'
        self._machine.run("sh", "-ec", f"pkill -KILL {own} --exact 'kube|kube-router'")

    def load(self, archive: Path, image: str) -> None:
        """Import an image archive, unless the node already has this image under this name."""
        mark = self.disk / "images" / image.replace("/", "_")
        if mark.exists() and mark.read_text() == archive.name:
            return
        self.ctr("images", "import", str(archive))
        mark.parent.mkdir(exist_ok=True)
        mark.write_text(archive.name)

    def ctr(self, *arguments: str) -> str:
        """Run containerd's own client on the images that kubelet sees."""
        command = ["ctr", "--address", str(self._socket), "--namespace", "k8s.io", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def inside(self, *command: str) -> list[str]:
        """Return the command line that runs ``command`` in the node's network namespace."""
        return self._machine.inside("nsenter", f"--net=/run/netns/{self.name}", "--", *command)

    def _alive(self, pid: str) -> bool:
        try:
            self._machine.run("kill", "-0", pid)
        except RuntimeError:
            return False
        return True

    def _configure(self) -> None:
        (self.disk / "cni").mkdir(exist_ok=True)
        (self.disk / "cni" / "10-bridge.conflist").write_text(json.dumps(self._network()))
        (self.disk / "kubelet.json").write_text(json.dumps(self._kubelet()))
        (self.disk / "kube-proxy.json").write_text(json.dumps(self._kube_proxy()))
        (self.disk / "containerd.toml").write_text(
            CONTAINERD.format(disk=self.disk, socket=self._socket, pause=oci.PAUSE)
        )
        others = [index for index in range(1, self._count + 1) if index != self._index]
        (self.disk / "init.sh").write_text(
            INIT.format(
                disk=self.disk,
                name=self.name,
                address=self.address,
                prefix=PREFIX,
                gateway=ADDRESS,
                routes="\n".join(
                    f"ip route add {_pods(index)} via {_address(index)}" for index in others
                ),
                socket=self._socket,
                subnet=_pods(self._index),
                pods=PODS,
                services=SERVICES,
                kube=binaries.path("kube"),
                kube_router=binaries.path("kube-router"),
                kube_router_conf=self._pki.kubeconfig("kube-router"),
                kubeconfig=self._pki.kubeconfig(self.name),
            )
        )

    def _network(self) -> dict[str, object]:
        bridge = {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": _pods(self._index)}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": f"{self.disk}/ipam",
            },
        }
        ports = {"type": "portmap", "capabilities": {"portMappings": True}}
        return {"cniVersion": "0.4.0", "name": "bridge", "plugins": [bridge, ports]}

    def _kubelet(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self._pki.certificate("ca"))},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(self._pki.certificate(self.name)),
            "tlsPrivateKeyFile": str(self._pki.key(self.name)),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": cgroups.path(self.name),
            "failCgroupV1": False,
            "failSwapOn": False,
            "containerRuntimeEndpoint": f"unix://{self._socket}",
            "clusterDNS": [DNS],
            "clusterDomain": "cluster.local",
            "nodeStatusUpdateFrequency": "2s",
            "syncFrequency": "10s",  # how soon a ConfigMap or Secret that was missing is mounted
            "nodeLeaseDurationSeconds": 10,
            # The nodes share one disk and one memory; a node must not evict pods because of them.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": dict.fromkeys(
                ("nodefs.available", "imagefs.available", "memory.available"), "0%"
            ),
            "enforceNodeAllocatable": [],
            "volumeStatsAggPeriod": "0s",
            "podLogsDir": "/var/log/pods",
        }

    def _kube_proxy(self) -> dict[str, object]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(self._pki.kubeconfig("proxy"))},
            "mode": "iptables",
            "clusterCIDR": PODS,
            "hostnameOverride": self.name,
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
        }


def _address(index: int) -> str:
    return f"172.30.0.{10 + index}"


def _pods(index: int) -> str:
    return f"10.244.{index}.0/24"
