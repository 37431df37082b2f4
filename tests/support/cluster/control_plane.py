"""etcd, kube-apiserver, kube-controller-manager, kube-scheduler and CoreDNS."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

from support.cluster import audit, binaries
from support.cluster.machine import ADDRESS, Machine
from support.cluster.pki import Pki
from support.cluster.waiting import wait_for

SERVER = f"https://{ADDRESS}:6443"
SERVICES = "10.96.0.0/16"
PODS = "10.244.0.0/16"
DNS = "10.96.0.10"
ETCD = "http://127.0.0.1:2379"
ETCD_PEER = "http://127.0.0.1:2380"
# The host-path provisioner of kube-controller-manager creates volumes that only its own user can
# write, and kubelet does not apply fsGroup to them. So it runs as the user of this project's pods,
# with the capability to read the cluster's files.
VOLUME_OWNER = 10001
AS_VOLUME_OWNER = (
    "setpriv", f"--reuid={VOLUME_OWNER}", f"--regid={VOLUME_OWNER}", "--clear-groups",
    "--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override",
)  # fmt: skip
OWN = ("--ns", "1", "--nslist", "pid")  # processes of the machine, not of its nodes
PROGRAMS = (*OWN, "--exact", "kube|coredns")
MANIFEST = Path(__file__).with_name("base.yaml")
COREFILE = """
.:53 {{
    bind {address}
    errors
    ready {address}:8181
    cache 5
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig}
    }}
}}
"""


def etcd(data: Path) -> list[str]:
    """Return etcd's arguments: one member on loopback."""
    return [
        f"--data-dir={data}",
        "--unsafe-no-fsync",  # the page cache of this machine outlives the cluster
        f"--listen-client-urls={ETCD}",
        f"--advertise-client-urls={ETCD}",
        f"--listen-peer-urls={ETCD_PEER}",
        f"--initial-advertise-peer-urls={ETCD_PEER}",
        f"--initial-cluster=default={ETCD_PEER}",
        "--log-level=warn",
    ]


def api_server(pki: Pki) -> list[str]:
    """Return the arguments of kube-apiserver that depend on neither its address nor the nodes."""
    return [
        f"--etcd-servers={ETCD}",
        f"--tls-cert-file={pki.certificate('apiserver')}",
        f"--tls-private-key-file={pki.key('apiserver')}",
        f"--client-ca-file={pki.certificate('ca')}",
        f"--service-cluster-ip-range={SERVICES}",
        f"--service-account-key-file={pki.directory}/service-account.pub",
        f"--service-account-signing-key-file={pki.key('service-account')}",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--allow-privileged=true",
    ]


def controller_manager(pki: Pki) -> list[str]:
    """Return the arguments of kube-controller-manager that do not depend on the nodes."""
    return [
        f"--kubeconfig={pki.kubeconfig('controller-manager')}",
        "--leader-elect=false",
        "--use-service-account-credentials",
        f"--root-ca-file={pki.certificate('ca')}",
        f"--service-account-private-key-file={pki.key('service-account')}",
    ]


class ControlPlane:
    """The programs of the control plane, in the machine's namespaces."""

    def __init__(self, machine: Machine, pki: Pki) -> None:
        self._machine = machine
        self._pki = pki
        self._directory = machine.directory
        self._data = machine.directory / "etcd"

    def certificates(self) -> None:
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
        self._pki.issue(
            "apiserver", "kube-apiserver", None, *names, "127.0.0.1", ADDRESS, "10.96.0.1"
        )
        self._pki.issue("kubelet-client", "apiserver-kubelet-client", "system:masters")
        self._pki.issue("admin", "admin", "system:masters")
        self._pki.issue("dns", "coredns", "system:masters")
        self._pki.issue("proxy", "system:kube-proxy")
        self._pki.issue("kube-router", "kube-router")
        for program in ("controller-manager", "scheduler"):
            self._pki.issue(program, f"system:kube-{program}")
        self._pki.issue("front-proxy", "front-proxy")
        self._pki.signing_key("service-account")

    def copy_etcd(self, target: Path) -> None:
        """Copy etcd's data as of one moment."""
        etcd = (*OWN, "--full", "kube etcd ")
        self._machine.run("pkill", "-STOP", *etcd)
        try:
            shutil.copytree(self._data, target)
        finally:
            self._machine.run("pkill", "-CONT", *etcd)

    def restore_etcd(self, copy: Path) -> None:
        """Kill all programs, and start them with a copy of etcd's data."""
        self._machine.run("pkill", "-KILL", *PROGRAMS)
        wait_for("the end of the control plane", self._has_ended, 30)
        shutil.rmtree(self._data)
        shutil.copytree(copy, self._data)
        self.start()

    def start(self) -> None:
        pki = self._pki
        self._kube("etcd", *etcd(self._data))
        self._kube(
            "kube-apiserver",
            *api_server(pki),
            f"--advertise-address={ADDRESS}",
            f"--kubelet-client-certificate={pki.certificate('kubelet-client')}",
            f"--kubelet-client-key={pki.key('kubelet-client')}",
            f"--kubelet-certificate-authority={pki.certificate('ca')}",
            "--kubelet-preferred-address-types=InternalIP",
            *audit.arguments(self._directory, groups=("system:serviceaccounts",)),
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--requestheader-client-ca-file={pki.certificate('ca')}",
            "--requestheader-allowed-names=front-proxy",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--proxy-client-cert-file={pki.certificate('front-proxy')}",
            f"--proxy-client-key-file={pki.key('front-proxy')}",
        )
        wait_for("kube-apiserver", lambda: self.kubectl("get", "--raw", "/readyz") == "ok", 120)
        self._kube(
            "kube-controller-manager",
            *controller_manager(pki),
            "--allocate-node-cidrs=true",
            f"--cluster-cidr={PODS}",
            f"--service-cluster-ip-range={SERVICES}",
            "--enable-hostpath-provisioner=true",
            f"--cluster-signing-cert-file={pki.certificate('ca')}",
            f"--cluster-signing-key-file={pki.key('ca')}",
            "--node-monitor-grace-period=16s",
            "--node-monitor-period=2s",
            prefix=AS_VOLUME_OWNER,
        )
        self._kube(
            "kube-scheduler",
            f"--kubeconfig={pki.kubeconfig('scheduler')}",
            "--leader-elect=false",
            # It may miss that a claim has been bound, and would try the claim's pod again after
            # five minutes; it looks for such pods twice a minute.
            "--pod-max-in-unschedulable-pods-duration=5s",
        )
        corefile = self._directory / "Corefile"
        corefile.write_text(COREFILE.format(address=ADDRESS, kubeconfig=pki.kubeconfig("dns")))
        self._spawn("coredns", str(binaries.path("coredns")), "-conf", str(corefile))
        # The allocator of Service addresses may not be ready at first.
        wait_for("the base objects", lambda: self.kubectl("apply", "-f", str(MANIFEST)), 30)

    def kubectl(self, *arguments: str) -> str:
        command = [
            str(binaries.path("kubectl")),
            f"--kubeconfig={self._pki.kubeconfig('admin')}",
            *arguments,
        ]
        try:
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout
        except subprocess.CalledProcessError as error:
            error.add_note(error.stderr)
            raise

    def _has_ended(self) -> bool:
        arguments = shlex.join(PROGRAMS)
        return not self._machine.run("sh", "-c", f"pgrep {arguments} || true")

    def _kube(self, component: str, *arguments: str, prefix: tuple[str, ...] = ()) -> None:
        self._spawn(component, *prefix, str(binaries.path("kube")), component, *arguments)

    def _spawn(self, name: str, *command: str) -> None:
        self._machine.spawn(self._directory / "logs" / f"{name}.log", *command)
