"""The benchmark's cluster: a real control plane with a scheduler, kwok's nodes, the operator."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import psutil
from support.fakes.api import Api, ApiError, Manifest
from support.fakes.api_server import ApiServer
from support.fakes.kubelet import STORAGE_CLASS, storage_class, volume
from support.fakes.network import Network
from support.processes import ENDS_WITH_PARENT
from wasession_api.names import ANNOTATION_DEFAULT_CLASS
from wasession_api.v1alpha1 import API_VERSION, CLASS_KIND, CLASS_PLURAL

from bench.operator import kwok
from bench.operator.audit import POLICY, Audit
from bench.operator.pods import Pods

NAMESPACE = "bench"
NODES = 10
USER = "system:serviceaccount:default:wasession-operator"
HTTP_PORT = 9090
CREATORS = 100  # PersistentVolumes that are created at a time


class Rig:
    """``async with rig(directory) as it``: everything runs, and the namespace is empty."""

    def __init__(
        self, directory: Path, network: Network, server: ApiServer, api: Api, pods: Pods
    ) -> None:
        self.directory = directory
        self.network = network
        self.server = server
        self.api = api
        self.pods = pods
        self.audit = Audit(directory / "audit.log")

    def start_operator(self) -> psutil.Process:
        """Start ``python -m wasession_operator`` with the chart's settings and unlimited starts."""
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.directory / "operator.conf"),
            "WASESSION_SESSION_IMAGE": "session-pod:1",
            "WASESSION_MASTER_KEY_FILE": str(self.directory / "master-key"),
            "WASESSION_RESTORATION_DELAY": "0s",
            "WASESSION_MAX_CONCURRENT_STARTS_PER_NODE": "100000",
            "WASESSION_MAX_CONCURRENT_STARTS_PER_ZONE": "100000",
            "WASESSION_HTTP_PORT": str(HTTP_PORT),
        }
        with (self.directory / "operator.log").open("ab") as log:
            command = [*ENDS_WITH_PARENT, sys.executable, "-m", "wasession_operator"]
            started = self.network.run(
                subprocess.Popen,
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return psutil.Process(started.pid)

    async def metric(self, name: str) -> float:
        """Return one of the operator's metrics; 0 if it does not respond yet."""
        try:
            url = f"http://127.0.0.1:{HTTP_PORT}/metrics"
            async with (
                aiohttp.ClientSession(connector=self.network.connector()) as http,
                http.get(url) as answer,
            ):
                lines = (await answer.text()).splitlines()
        except aiohttp.ClientError:
            return 0.0
        return next(
            (float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0
        )

    async def phases(self) -> int:
        """Return how many sessions are Ready by the operator's own metrics."""
        return int(await self.metric('wasession_sessions{phase="Ready"}'))


@contextlib.asynccontextmanager
async def rig(directory: Path) -> AsyncIterator[Rig]:
    network = Network()
    server = ApiServer(directory, network, node_silence=60)
    background: list[asyncio.Task[None]] = []
    node_programs: list[subprocess.Popen[bytes]] = []
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
    try:
        await server.start(*audit, scheduler=True)
        async with server.client() as api:
            await api.create("storageclasses", storage_class())
            _write_kubeconfig(server, await _token(api), directory / "operator.conf")
            await api.create(
                "namespaces",
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
            )
            await api.create(CLASS_PLURAL, session_class())
            pods = Pods()
            background.append(asyncio.create_task(pods.serve(network)))
            background.append(asyncio.create_task(provision(api)))
            background.append(asyncio.create_task(confirm(api)))
            node_programs.append(_start_kwok(directory, network, server))
            for index in range(NODES):
                await api.create("nodes", _node(index))
            await until(lambda: _ready_nodes(api), NODES)
            await server.calm()
            yield Rig(directory, network, server, api, pods)
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        for program in node_programs:
            program.kill()
        server.stop()
        network.close()


def session_class() -> Manifest:
    """Return the default class, which is that of all sessions."""
    metadata = {"name": "standard", "annotations": {ANNOTATION_DEFAULT_CLASS: "true"}}
    return {"apiVersion": API_VERSION, "kind": CLASS_KIND, "metadata": metadata, "spec": {}}


async def provision(api: Api) -> None:
    """Act as the storage driver: create a volume for each new claim."""
    turn = asyncio.Semaphore(CREATORS)

    async def make(claim: Manifest) -> None:
        async with turn:
            while True:
                try:
                    await api.create("persistentvolumes", volume(claim))
                except aiohttp.ClientError:
                    continue
                except ApiError:  # it exists already
                    pass
                return

    async with asyncio.TaskGroup() as group:
        while True:
            listed = await api.list("persistentvolumeclaims")
            for claim in listed["items"]:
                if "volumeName" not in claim["spec"]:
                    group.create_task(make(claim))
            with contextlib.suppress(ApiError):  # the version has expired: list again
                async for event in api.watch(
                    "persistentvolumeclaims", listed["metadata"]["resourceVersion"]
                ):
                    if (
                        event["type"] == "ADDED"
                        and event["object"]["spec"].get("storageClassName") == STORAGE_CLASS
                    ):
                        group.create_task(make(event["object"]))


async def confirm(api: Api) -> None:
    """Act as the kubelets: confirm the deletion of pods at once."""

    async def take(pod: Manifest) -> None:
        metadata = pod["metadata"]
        with contextlib.suppress(ApiError):  # it is gone, or another pod has its name
            options = {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}}
            await api.delete("pods", metadata["namespace"], metadata["name"], **options)

    async with asyncio.TaskGroup() as group:
        while True:
            listed = await api.list("pods")
            for pod in listed["items"]:
                if "deletionTimestamp" in pod["metadata"]:
                    group.create_task(take(pod))
            with contextlib.suppress(ApiError):  # the version has expired: list again
                async for event in api.watch("pods", listed["metadata"]["resourceVersion"]):
                    if (
                        event["type"] == "MODIFIED"
                        and "deletionTimestamp" in event["object"]["metadata"]
                    ):
                        group.create_task(take(event["object"]))


async def until(
    count: Callable[[], Awaitable[object]], wanted: object, timeout: float = 900
) -> float:
    """Wait until ``await count()`` is ``wanted``; return the seconds that it took."""
    began = time.monotonic()
    async with asyncio.timeout(timeout):
        while await count() != wanted:  # noqa: ASYNC110 - the objects are in other processes
            await asyncio.sleep(0.2)
    return time.monotonic() - began


def _start_kwok(directory: Path, network: Network, server: ApiServer) -> subprocess.Popen[bytes]:
    command = [
        *(*ENDS_WITH_PARENT, str(kwok.program())),
        f"--kubeconfig={server.pki.kubeconfig('admin')}",
        f"--config={kwok.configuration(directory / 'kwok.yaml')}",
        "--manage-all-nodes",
        "--cidr=127.64.0.0/12",
        "--node-lease-duration-seconds=40",
        "--node-ip=127.0.0.1",
    ]
    with (directory / "kwok.log").open("wb") as log:
        return network.run(
            subprocess.Popen, command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


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
        "spec": {},
    }
    token: str = (await api.create("serviceaccounts", request, "token"))["status"]["token"]
    return token


def _write_kubeconfig(server: ApiServer, token: str, path: Path) -> None:
    kubeconfig = json.loads(server.pki.kubeconfig("admin").read_text())
    kubeconfig["users"][0]["user"] = {"token": token}
    path.write_text(json.dumps(kubeconfig))


def _node(index: int) -> Manifest:
    amounts = {"cpu": "1k", "memory": "100Ti", "pods": "10k"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": f"kwok-{index}", "annotations": {"kwok.x-k8s.io/node": "fake"}},
        "status": {"allocatable": amounts, "capacity": amounts},
    }


async def _ready_nodes(api: Api) -> int:
    nodes = (await api.list("nodes"))["items"]
    conditions = [c for node in nodes for c in node.get("status", {}).get("conditions", [])]
    return sum(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions
    )
