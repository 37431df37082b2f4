"""A real control plane without nodes: etcd, kube-apiserver and kube-controller-manager."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import psutil
from support.cluster import audit, binaries, control_plane
from support.cluster.pki import Pki
from support.fakes.api import Api, ApiError, context
from support.fakes.network import Network
from support.processes import ENDS_WITH_PARENT
from wasession_api.crd import KINDS, crd

BASE = "https://127.0.0.1:6443"
CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "disruption-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "persistentvolume-binder-controller",
    "persistentvolumeclaim-protection-controller",
    "pod-garbage-collector-controller",
    "serviceaccount-controller",
    "statefulset-controller",
    "taint-eviction-controller",
)
# A node whose heartbeat is this old becomes unreachable; its pods are evicted soon after.
NODE_SILENCE = 10  # seconds
EVICTION = 2  # seconds
# Who passes on the operators' requests, with the operators' rights; the audit log has these only.
OPERATORS = "operators"


class ApiServer:
    """The control plane, with its state in ``directory``, inside ``network``.

    Its programs end with the network's thread.
    """

    def __init__(self, directory: Path, network: Network, node_silence: int = NODE_SILENCE) -> None:
        self.directory = directory
        self.network = network
        self.pki = Pki(directory / "pki", BASE)
        self._node_silence = node_silence
        self._programs: list[subprocess.Popen[bytes]] = []

    async def start(
        self, *more: str, scheduler: bool = False, controllers: Sequence[str] = CONTROLLERS
    ) -> None:
        """Start the programs; return when the API server is ready and knows this API's kinds.

        ``more`` are further arguments for kube-apiserver.
        """
        self._issue_certificates()
        self._spawn("etcd", *control_plane.etcd(self.directory / "etcd"))
        self._spawn(
            "kube-apiserver",
            *control_plane.api_server(self.pki),
            *audit.arguments(self.directory, users=(OPERATORS,)),
            "--authorization-mode=RBAC",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--default-not-ready-toleration-seconds={EVICTION}",
            f"--default-unreachable-toleration-seconds={EVICTION}",
            # Fakes and operators share one server; none may be throttled because of another.
            "--enable-priority-and-fairness=false",
            "--max-requests-inflight=2000",
            "--max-mutating-requests-inflight=2000",
            *more,
        )
        async with self.client() as api:
            await self._until_answers(api, "/readyz")
            # Before the garbage collector starts, which looks for new kinds only twice a minute.
            for kind in KINDS:
                await api.create("customresourcedefinitions", crd(kind))
            for kind in KINDS:
                plural = kind.names["plural"]
                await self._until_answers(api, f"/apis/wasession.dev/v1alpha1/{plural}")
            self._spawn(
                "kube-controller-manager",
                *control_plane.controller_manager(self.pki),
                f"--controllers={','.join(controllers)}",
                "--secure-port=0",
                "--kube-api-qps=1000",
                "--kube-api-burst=2000",
                "--node-monitor-period=1s",
                f"--node-monitor-grace-period={self._node_silence}s",
            )
            if scheduler:
                self._spawn(
                    "kube-scheduler",
                    f"--kubeconfig={self.pki.kubeconfig('scheduler')}",
                    "--leader-elect=false",
                    "--secure-port=0",
                    "--kube-api-qps=1000",
                    "--kube-api-burst=2000",
                )
            await self._until_answers(api, "/api/v1/namespaces/default/serviceaccounts/default")

    def _issue_certificates(self) -> None:
        self.pki.issue("apiserver", "kube-apiserver", None, "localhost", "127.0.0.1")
        for user in ("admin", OPERATORS):
            self.pki.issue(user, user, "system:masters")
        for program in ("controller-manager", "scheduler"):
            self.pki.issue(program, f"system:kube-{program}")
        self.pki.signing_key("service-account")

    @contextlib.asynccontextmanager
    async def client(self, user: str = "admin") -> AsyncIterator[Api]:
        """Yield a client with the administrator's rights."""
        api = Api(BASE, self.network.connector(ssl=context(self.pki.directory, user), limit=0))
        try:
            yield api
        finally:
            await api.close()

    async def calm(self) -> None:
        """Return when the programs are idle; at first they cost more than hundreds of sessions."""
        processes = [psutil.Process(program.pid) for program in self._programs]

        def spent() -> float:
            return sum(
                times.user + times.system
                for times in (process.cpu_times() for process in processes)
            )

        before, now = 0.0, spent()
        while now - before > 0.1:  # of one second
            await asyncio.sleep(1)
            before, now = now, spent()

    def stop(self) -> None:
        for program in reversed(self._programs):
            program.kill()
            program.wait()

    async def _until_answers(self, api: Api, where: str) -> None:
        async with asyncio.timeout(120):
            while True:
                try:
                    await api.call("GET", where)
                    return
                except (ApiError, OSError):
                    for program in self._programs:
                        if program.poll() is not None:
                            raise RuntimeError(
                                f"{program.args!r} has ended; its log is in {self.directory}"
                            ) from None
                    await asyncio.sleep(0.05)

    def _spawn(self, component: str, *arguments: str) -> None:
        command = [*ENDS_WITH_PARENT, str(binaries.path("kube")), component, *arguments]
        with (self.directory / f"{component}.log").open("wb") as log:
            program = self.network.run(
                subprocess.Popen, command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._programs.append(program)
