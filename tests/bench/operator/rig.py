"""The benchmark's cluster: a real control plane with a scheduler, kwok's nodes, the operator."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import aiohttp
import psutil
from support.cluster import binaries, control_plane
from support.fakes.api import Api, Manifest
from support.fakes.api_server import CONTROLLERS, ApiServer
from support.fakes.network import Network
from support.processes import ENDS_WITH_PARENT
from wasession_api.names import ANNOTATION_DEFAULT_CLASS
from wasession_api.v1alpha1 import API_VERSION, CLASS_KIND, CLASS_PLURAL, PLURAL, Phase
from wasession_operator.sharding.lease import LeaseKind, parse_lease

from bench.operator import kwok, pods
from bench.operator.audit import NO_STATE, POLICY, Audit, Write
from bench.operator.nodes import (
    NODES,
    confirm,
    delayed_storage_class,
    follow,
    has_ready_nodes,
    node,
    provision,
)
from bench.operator.results import Program

NAMESPACE = "bench"
OPERATOR = "wasession-operator"
IMAGE = "session-pod:1"
CLASS = "standard"
OPERATOR_NAMESPACE = "default"
USER = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{OPERATOR}"
CONTROLLER = "system:serviceaccount:kube-system:statefulset-controller"
ETCD_QUOTA = 8 * 2**30  # bytes, for all versions of tens of thousands of sessions; by default 2 GiB
TOKEN_LIFETIME = 86400  # seconds
HTTP_PORT = 9090  # of the first replica
PATIENCE = 3600.0  # seconds that anything may take at most
LOG_TAIL = 5000  # characters of an operator that has failed
POLL_INTERVAL = 0.2  # seconds
QUIET = 3.0  # seconds without a write after which nothing is left to do


Condition = Callable[[], Awaitable[bool]]


@dataclass(frozen=True)
class Replica:
    """A running operator."""

    name: str
    port: int
    process: psutil.Process


class Rig:
    """``async with rig(directory) as it``: everything runs, and the namespace is empty.

    ``ready_pods`` and ``ready_sessions`` are UIDs.
    """

    def __init__(
        self, directory: Path, network: Network, server: ApiServer, api: Api, shards: int
    ) -> None:
        self.directory = directory
        self.network = network
        self.server = server
        self.api = api
        self._streams = [pods.StreamCount(directory / f"streams-{n}") for n in range(pods.SERVERS)]
        self.audit = Audit(directory / "audit.log")
        self.ready_pods: set[str] = set()
        self.ready_sessions: set[str] = set()
        self.replicas: dict[str, Replica] = {}
        self._marks = itertools.count()  # in the audit log
        self.shards = shards

    @property
    def streams(self) -> int:
        """The number of streams between operators and session pods."""
        return sum(count.get() for count in self._streams)

    # --- the operator -----------------------------------------------------------------------------

    async def start_replicas(self, names: Sequence[str]) -> None:
        """Start operators; return when their caches are synced."""
        for name in names:
            self.replicas[name] = self._start_replica(name)
        for name in names:
            await self.until(f"{name} to be ready", partial(self._is_ready, name))

    def _start_replica(self, name: str) -> Replica:
        """Start ``python -m wasession_operator`` with the chart's settings and unlimited starts."""
        port = HTTP_PORT + int(name.rpartition("-")[2])
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.directory / "operator.conf"),
            "WASESSION_SESSION_IMAGE": IMAGE,
            "WASESSION_MASTER_KEY_FILE": str(self.directory / "master-key"),
            "WASESSION_RESTORATION_DELAY": "0s",
            "WASESSION_MAX_CONCURRENT_STARTS_PER_NODE": "100000",
            "WASESSION_MAX_CONCURRENT_STARTS_PER_ZONE": "100000",
            "WASESSION_HTTP_PORT": str(port),
            "WASESSION_OPERATOR_NAME": f"{OPERATOR_NAMESPACE}/{OPERATOR}",
            "WASESSION_POD_NAME": name,
            "WASESSION_SHARDS": str(self.shards),
        }
        command = [sys.executable, "-m", "wasession_operator"]
        return Replica(name, port, self.spawn(name, command, environment))

    async def end_replicas(self, names: Iterable[str]) -> None:
        """Terminate replicas; return when they have ended."""
        ending = list(names)
        for name in ending:
            self.replicas[name].process.terminate()
        for name in ending:
            await self.until_ended(name)

    async def until_ended(self, name: str) -> None:
        process = self.replicas.pop(name).process
        await asyncio.to_thread(process.wait, PATIENCE)

    async def holders(self) -> dict[int, str]:
        """Return the replica that holds each shard, by the Leases."""
        listed = await self.api.list("leases", OPERATOR_NAMESPACE)
        leases = [lease for obj in listed["items"] if (lease := parse_lease(obj)) is not None]
        return {
            lease.index: lease.holder
            for lease in leases
            if lease.kind is LeaseKind.SHARD and lease.index is not None and lease.holder
        }

    async def until_shared(self, sessions: int) -> float:
        """Return when the replicas have fair shares and listen to all pods; the seconds until then.

        One stream per session: nobody else listens to them any more.
        """

        async def is_shared() -> bool:
            if not self.streams == len(self.ready_sessions) == sessions:
                return False
            return is_fair(Counter((await self.holders()).values()), self.replicas, self.shards)

        return await self.until(f"{sessions} sessions in fair shares", is_shared)

    async def _is_ready(self, name: str) -> bool:
        replica = self.replicas[name]
        if replica.process.status() == psutil.STATUS_ZOMBIE:
            log = (self.directory / f"{name}.log").read_text()
            raise RuntimeError(f"{name} has ended:\n{log[-LOG_TAIL:]}")
        url = f"http://127.0.0.1:{replica.port}/readyz"
        try:
            async with (
                aiohttp.ClientSession(connector=self.network.connector()) as http,
                http.get(url) as answer,
            ):
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    # --- the cluster ------------------------------------------------------------------------------

    def spawn(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] = os.environ
    ) -> psutil.Process:
        """Start a program inside the network; its output goes to ``NAME.log``."""
        with (self.directory / f"{name}.log").open("ab") as log:
            started = self.network.run(
                subprocess.Popen,
                [*ENDS_WITH_PARENT, *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return psutil.Process(started.pid)

    def start_controller_manager(self, name: str) -> psutil.Process:
        """Start the StatefulSet controller alone, with client-go's default leader election."""
        command = [
            *(str(binaries.path("kube")), "kube-controller-manager"),
            *control_plane.controller_manager(self.server.pki),
            "--controllers=statefulset-controller",
            "--leader-elect=true",
            "--leader-elect-resource-name=statefulset-controller",
            "--secure-port=0",
            "--kube-api-qps=1000",
            "--kube-api-burst=2000",
        ]
        return self.spawn(name, command)

    def programs(self) -> dict[str, Program]:
        """Return what the cluster's programs, its fakes and this process use."""
        found = {"this benchmark": [psutil.Process()]}
        for process in psutil.Process().children():
            if name := _name(process.cmdline()):
                found.setdefault(name, []).append(process)
        return {
            name: Program(
                memory_mib=sum(process.memory_info().rss for process in processes) / 2**20,
                cpu_seconds=sum(map(cpu_seconds, processes)),
            )
            for name, processes in found.items()
        }

    async def until(self, what: str, condition: Condition, patience: float = PATIENCE) -> float:
        """Wait until a condition holds; return the seconds that it took."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(patience):
                while not await condition():  # noqa: ASYNC110 - it is about other processes
                    await asyncio.sleep(POLL_INTERVAL)
        except TimeoutError:
            raise TimeoutError(f"waited {patience:g} s for {what}") from None
        return time.monotonic() - began

    async def until_ready(self, sessions: int) -> float:
        async def are_ready() -> bool:
            return len(self.ready_sessions) == sessions

        return await self.until(f"{sessions} sessions to be Ready", are_ready)

    async def until_running(self, pods: int) -> float:
        async def are_running() -> bool:
            return len(self.ready_pods) == pods

        return await self.until(f"{pods} pods to run", are_running)

    async def settled(self) -> list[Write]:
        """Wait until the controllers write nothing any more; return the writes since last time."""
        found: list[Write] = []
        last = time.time()
        while time.time() < last + QUIET:
            new = await self.writes()
            states = [w for w in new if w.user in (USER, CONTROLLER) and w.resource not in NO_STATE]
            last = max([last, *(write.done for write in states)])
            found += new
            await asyncio.sleep(POLL_INTERVAL)
        return found

    async def writes(self) -> list[Write]:
        """Return all writes since last time, when the audit log has them."""
        name = f"mark-{next(self._marks)}"
        metadata = {"namespace": NAMESPACE, "name": name}
        await self.api.create(
            "configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
        )
        found: list[Write] = []

        async def is_flushed() -> bool:
            found.extend(self.audit.new())
            return any((write.resource, write.name) == ("configmaps", name) for write in found)

        await self.until("the audit log", is_flushed)
        return found


def is_fair(shares: Mapping[str, int], replicas: Collection[str], shards: int) -> bool:
    """Return whether these replicas alone hold all shards, and none has two more than another."""
    own = [shares.get(name, 0) for name in replicas]
    return sum(own) == sum(shares.values()) == shards and max(own) - min(own) <= 1


def _name(command: Sequence[str]) -> str | None:
    """Return the name of a program of the cluster or of a fake; None if it is neither."""
    if command[:1] == [str(binaries.path("kube"))]:
        return command[1]
    if command[:1] == [str(kwok.program())]:
        return "kwok"
    return "session pods (fakes)" if pods.__name__ in command else None


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextlib.asynccontextmanager
async def rig(
    directory: Path, shards: int = 1, controllers: Sequence[str] = CONTROLLERS
) -> AsyncIterator[Rig]:
    """Yield a cluster whose kube-controller-manager runs ``controllers``."""
    os.environ.setdefault("ETCD_QUOTA_BACKEND_BYTES", str(ETCD_QUOTA))
    network = Network()
    server = ApiServer(directory, network, node_silence=60)
    (directory / "policy.json").write_text(json.dumps(POLICY))
    (directory / "master-key").write_bytes(base64.b64encode(os.urandom(32)))
    audit = (
        f"--audit-policy-file={directory}/policy.json",
        f"--audit-log-path={directory}/audit.log",
        "--audit-log-mode=batch",
        "--audit-log-maxsize=100000",  # MB; the reader does not follow a rotated file
        "--audit-log-batch-max-wait=500ms",
        "--audit-log-batch-buffer-size=100000",
    )
    programs: list[psutil.Process] = []
    try:
        await server.start(*audit, scheduler=True, controllers=controllers)
        async with server.client() as api, asyncio.TaskGroup() as tasks:
            it = Rig(directory, network, server, api, shards)
            await api.create("storageclasses", delayed_storage_class())
            _write_kubeconfig(server, await _token(api), directory / "operator.conf")
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
            await api.create("namespaces", namespace)
            await api.create(CLASS_PLURAL, session_class())
            fakes = [  # one that fails ends the run
                tasks.create_task(provision(api)),
                tasks.create_task(confirm(api, it.ready_pods)),
                tasks.create_task(follow(api, PLURAL, it.ready_sessions, is_ready)),
            ]
            programs.append(it.spawn("kwok", _kwok(directory, server)))
            now = datetime.now(UTC).replace(microsecond=0).isoformat()
            for number in range(pods.SERVERS):
                command = [sys.executable, "-m", pods.__name__, f"{directory}/streams-{number}"]
                programs.append(it.spawn(f"session-pods-{number}", [*command, now]))
            for index in range(NODES):
                await api.create("nodes", node(index))
            await it.until(f"{NODES} nodes to be Ready", lambda: has_ready_nodes(api))
            await server.calm()
            yield it
            for fake in fakes:
                fake.cancel()
    finally:
        for program in programs:
            program.kill()
        server.stop()
        network.close()


def session_class() -> Manifest:
    """Return the default class, which is that of all sessions."""
    metadata = {"name": CLASS, "annotations": {ANNOTATION_DEFAULT_CLASS: "true"}}
    return {"apiVersion": API_VERSION, "kind": CLASS_KIND, "metadata": metadata, "spec": {}}


def is_ready(session: Manifest) -> bool:
    return bool(session.get("status", {}).get("phase") == Phase.READY)


def _kwok(directory: Path, server: ApiServer) -> list[str]:
    return [
        str(kwok.program()),
        f"--kubeconfig={server.pki.kubeconfig('admin')}",
        f"--config={kwok.configuration(directory / 'kwok.yaml')}",
        "--manage-all-nodes",
        "--cidr=127.64.0.0/12",
        "--node-lease-duration-seconds=40",
        "--node-ip=127.0.0.1",
    ]


async def _token(api: Api) -> str:
    """Return a token of a service account, which an installed operator has as well."""
    _, _, namespace, name = USER.split(":")
    metadata = {"namespace": namespace, "name": name}
    await api.create(
        "serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    )
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    subject = {"kind": "ServiceAccount", **metadata}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
    }
    await api.create("clusterrolebindings", {**binding, "roleRef": role, "subjects": [subject]})
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "metadata": metadata,
        "spec": {"expirationSeconds": TOKEN_LIFETIME},
    }
    token: str = (await api.create("serviceaccounts", request, "token"))["status"]["token"]
    return token


def _write_kubeconfig(server: ApiServer, token: str, path: Path) -> None:
    kubeconfig = json.loads(server.pki.kubeconfig("admin").read_text())
    kubeconfig["users"][0]["user"] = {"token": token}
    path.write_text(json.dumps(kubeconfig))
