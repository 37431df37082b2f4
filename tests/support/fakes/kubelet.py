"""Fake nodes: the scheduler's, the kubelet's and the storage driver's part, without containers.

A pod is bound to a node, waits for its volume, its Secret and its image as on a real node, then
runs as a ``SessionPod``; its deletion is confirmed when its program has ended. A node may be silent
(it runs on, but the API server does not hear of it) or dead.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections import defaultdict
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from support.fakes.api import Api, ApiError, Manifest
from support.fakes.history import Change, History
from support.fakes.session_pods import SessionPod, SessionPods, Volume
from wasession_api.v1alpha1 import GROUP

STORAGE_CLASS = "fake"
LEASE_RENEWAL = 1.0  # seconds
LEASES = "kube-node-lease"


@dataclass
class Node:
    """A machine of one namespace's pods."""

    name: str
    namespace: str
    connected: bool = True
    heartbeat: asyncio.Task[None] | None = None


@dataclass
class Script:
    """What is to happen to the pods of one namespace; a test changes it as it goes."""

    scans: bool = True  # a phone scans each QR at once
    volumes: bool = True  # the storage makes volumes
    images: bool = True  # the registry has them
    stops: bool = True  # programs end when they are told to


@dataclass
class _Pod:
    """One pod object on its node."""

    wake: asyncio.Event = field(default_factory=asyncio.Event)
    node: Node | None = None
    program: SessionPod | None = None
    restarts: int = 0
    last: Manifest | None = None  # how the container ended last
    broken: str | None = None  # why it is not started again
    task: asyncio.Task[None] | None = None


class Kubelet:
    """All fake nodes."""

    def __init__(self, api: Api, history: History, pods: SessionPods) -> None:
        self.scripts: dict[str, Script] = defaultdict(Script)
        self.violations: dict[str, list[str]] = defaultdict(list)
        self._api = api
        self._history = history
        self._server = pods
        self._nodes: dict[str, Node] = {}
        self._pods: dict[str, _Pod] = {}  # by UID
        self._volumes: dict[str, Volume] = defaultdict(Volume)  # by the volume's name
        self._tasks: set[asyncio.Task[None]] = set()
        self._addresses = _addresses()

    async def start(self) -> None:
        await self._api.create("storageclasses", storage_class())
        self._history.subscribe(self._changed)

    async def stop(self) -> None:
        tasks = self._tasks | {node.heartbeat for node in self._nodes.values() if node.heartbeat}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- nodes ------------------------------------------------------------------------------------

    async def add_node(self, name: str, namespace: str) -> Node:
        """A node that is Ready, for the pods of one namespace."""
        node = Node(name, namespace)
        lease = {"metadata": {"name": name, "namespace": LEASES}, "spec": _lease()}
        await self._api.create(
            "leases", {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **lease}
        )
        manifest = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        await self._api.create("nodes", {**manifest, "status": _node_status()})
        self._nodes[name] = node
        node.heartbeat = asyncio.create_task(self._beat(node))
        return node

    async def remove_node(self, node: Node) -> None:
        """The machine and its object are gone for good."""
        self.kill_node(node)
        if node.heartbeat:
            node.heartbeat.cancel()
        if self._nodes.pop(node.name, None) is not None:
            await self._api.delete("nodes", None, node.name)

    def kill_node(self, node: Node) -> None:
        """Power off: its programs end at once, and nobody is told."""
        node.connected = False
        for uid, pod in self._on(node):
            if pod.program is not None:
                self._end_program(uid, pod)

    async def reconnect(self, node: Node) -> None:
        """The node is heard again, and tells of its pods anew; a machine that was off starts them again."""
        node.connected = True
        for uid, pod in self._on(node):
            found = next(
                (
                    p
                    for p in self._history.objects("pods", node.namespace)
                    if p["metadata"]["uid"] == uid
                ),
                None,
            )
            if found is not None and pod.program is not None:
                await self._status(
                    found, self._running(found, pod, {"running": {"startedAt": _now()}})
                )
            pod.wake.set()

    async def _beat(self, node: Node) -> None:
        while True:
            if node.connected:
                await self._api.patch("leases", LEASES, node.name, {"spec": _lease()})
                found = await self._api.get("nodes", None, node.name)
                if (
                    found["status"]["conditions"][0]["status"] == "Unknown"
                ):  # the node controller had missed it
                    await self._api.patch(
                        "nodes", None, node.name, {"status": _node_status()}, "status"
                    )
            await asyncio.sleep(LEASE_RENEWAL)

    # --- what can go wrong with a pod -------------------------------------------------------------

    def program(self, pod: Manifest) -> SessionPod:
        """The program that runs in a pod; ``KeyError`` when none does."""
        program = self._pods[pod["metadata"]["uid"]].program
        if program is None:
            raise KeyError(pod["metadata"]["name"])
        return program

    async def end(
        self, pod: Manifest, phase: str, reason: str | None = None, message: str = ""
    ) -> None:
        """The pod ends for good: Failed (perhaps Evicted), or Succeeded."""
        uid = pod["metadata"]["uid"]
        self._end_program(uid, self._pods[uid])
        status: Manifest = {"phase": phase, "conditions": _conditions(ready=False)}
        if reason is not None:
            status |= {"reason": reason, "message": message}
        await self._status(pod, status)

    async def crash(self, pod: Manifest, reason: str, *, again: bool = True) -> None:
        """The container ends (``reason`` is kubelet's word, such as OOMKilled); it is started again unless not ``again``."""
        uid = pod["metadata"]["uid"]
        state = self._pods[uid]
        self._end_program(uid, state)
        state.restarts += 1
        state.last = {
            "terminated": {
                "reason": reason,
                "exitCode": 137,
                "startedAt": _now(),
                "finishedAt": _now(),
            }
        }
        state.broken = None if again else "CrashLoopBackOff"
        waiting = {
            "waiting": {
                "reason": "CrashLoopBackOff",
                "message": "back-off restarting failed container",
            }
        }
        await self._status(pod, self._running(pod, state, waiting))
        state.wake.set()

    def mend(self, pod: Manifest) -> None:
        """What kept the container from starting is over."""
        state = self._pods[pod["metadata"]["uid"]]
        state.broken = None
        state.wake.set()

    # --- the life of a pod ------------------------------------------------------------------------

    def _changed(self, change: Change) -> None:
        uid = change.object["metadata"]["uid"]
        if change.plural == "pods" and change.object["metadata"]["namespace"] in self.scripts:
            pod = self._pods.setdefault(uid, _Pod())
            if pod.task is None:
                pod.task = self._begin(change.key[1], self._live(change.key, uid, pod))
            pod.wake.set()
        elif change.plural in ("persistentvolumeclaims", "secrets"):
            self.look_again(change.key[1], change.key[2])
            if change.plural == "persistentvolumeclaims" and change.type != "DELETED":
                self._begin(change.key[1], self._provision(change.object))

    def _begin(self, namespace: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work in the background; its failure is a failure of the namespace's test."""
        task = asyncio.create_task(work)
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and task.exception() is not None:
                self.violations[namespace].append(f"the fake kubelet failed: {task.exception()!r}")

        task.add_done_callback(ended)
        return task

    def look_again(self, namespace: str, name: str | None = None) -> None:
        """Something that pods wait for may be there now."""
        for found in self._history.objects("pods", namespace):
            if name in (None, found["metadata"]["name"]) and found["metadata"]["uid"] in self._pods:
                self._pods[found["metadata"]["uid"]].wake.set()

    async def _live(self, key: tuple[str, str, str], uid: str, pod: _Pod) -> None:
        while True:
            pod.wake.clear()
            found = self._history.current.get(key)
            if found is None or found["metadata"]["uid"] != uid:
                # An object that is gone does not end a program: a node that hears nothing lets it
                # run on.
                if pod.program is not None and pod.node is not None and pod.node.connected:
                    self._end_program(uid, pod)
                elif pod.program is not None:
                    await pod.wake.wait()
                    continue
                return
            try:
                if await self._step(found, uid, pod):
                    continue
            except ApiError as error:
                if error.status not in (404, 409):
                    raise
            await pod.wake.wait()

    async def _step(self, found: Manifest, uid: str, pod: _Pod) -> bool:
        """Does the next thing for a pod; True when the next can follow at once."""
        metadata, spec, status = found["metadata"], found["spec"], found.get("status", {})
        script = self.scripts[metadata["namespace"]]
        if "nodeName" not in spec:
            await self._bind(found)
            return False
        node = pod.node = self._nodes.get(spec["nodeName"])
        if node is None or not node.connected:
            return False
        if "deletionTimestamp" in metadata:
            if pod.program is not None and not script.stops:
                return False
            if pod.program is not None:
                self._end_program(uid, pod)
            await self._api.delete(
                "pods",
                metadata["namespace"],
                metadata["name"],
                gracePeriodSeconds=0,
                preconditions={"uid": uid},
            )
            return False
        if status.get("phase") in ("Failed", "Succeeded") or pod.program is not None or pod.broken:
            return False
        if not script.images:
            waiting = {
                "waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}
            }
            await self._status(found, {**self._running(found, pod, waiting), "phase": "Pending"})
            return False
        claim = self._history.current.get(
            ("persistentvolumeclaims", metadata["namespace"], _claim(found))
        )
        secret = self._history.current.get(("secrets", metadata["namespace"], metadata["name"]))
        if claim is None or secret is None or claim.get("status", {}).get("phase") != "Bound":
            return False
        await self._start_program(found, uid, pod, claim, secret, scans=script.scans)
        await self._status(found, self._running(found, pod, {"running": {"startedAt": _now()}}))
        return True

    async def _bind(self, found: Manifest) -> None:
        namespace, name = found["metadata"]["namespace"], found["metadata"]["name"]
        usable = [
            node for node in self._nodes.values() if node.namespace == namespace and node.connected
        ]
        if not usable:
            message = "0/0 nodes are available."
            condition = {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": message,
            }
            await self._status(
                found,
                {"phase": "Pending", "conditions": [{**condition, "lastTransitionTime": _now()}]},
            )
            return
        target = {"apiVersion": "v1", "kind": "Node", "name": usable[0].name}
        metadata = {"namespace": namespace, "name": name, "uid": found["metadata"]["uid"]}
        await self._api.create(
            "pods",
            {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target},
            "binding",
        )

    async def _start_program(
        self,
        found: Manifest,
        uid: str,
        pod: _Pod,
        claim: Manifest,
        secret: Manifest,
        *,
        scans: bool,
    ) -> None:
        [container] = found["spec"]["containers"]
        environment = {entry["name"]: entry.get("value", "") for entry in container["env"]}
        volume = self._volumes[claim["spec"]["volumeName"]]
        if volume.writers:
            words = f"pod {found['metadata']['name']} started while {volume.writers} had its volume"
            self.violations[found["metadata"]["namespace"]].append(words)
        volume.writers.add(uid)
        pod.program = SessionPod(
            next(self._addresses),
            environment["WASESSION_CLIENT_ID"],
            environment["WASESSION_SESSION_UID"],
            _decoded(secret["data"]["token"]),
            volume,
            scanned=scans,
        )
        await self._server.add(pod.program)

    def _end_program(self, uid: str, pod: _Pod) -> None:
        assert pod.program is not None
        self._server.remove(pod.program)
        pod.program.volume.writers.discard(uid)
        pod.program = None

    def _running(self, found: Manifest, pod: _Pod, state: Manifest) -> Manifest:
        ready = "running" in state
        container = {
            "name": found["spec"]["containers"][0]["name"],
            "image": found["spec"]["containers"][0]["image"],
            "imageID": "",
            "ready": ready,
            "restartCount": pod.restarts,
            "state": state,
            "lastState": pod.last or {},
        }
        status: Manifest = {
            "phase": "Running",
            "conditions": _conditions(ready=ready),
            "containerStatuses": [container],
        }
        if pod.program is not None:
            status |= {
                "podIP": pod.program.address,
                "podIPs": [{"ip": pod.program.address}],
                "startTime": _now(),
            }
        return status

    async def _status(self, found: Manifest, status: Manifest) -> None:
        metadata = found["metadata"]
        patch = {"metadata": {"uid": metadata["uid"]}, "status": status}
        await self._api.patch("pods", metadata["namespace"], metadata["name"], patch, "status")

    def _on(self, node: Node) -> list[tuple[str, _Pod]]:
        return [(uid, pod) for uid, pod in self._pods.items() if pod.node is node]

    # --- the storage driver -----------------------------------------------------------------------

    async def _provision(self, claim: Manifest) -> None:
        """Makes the volume that a claim waits for, and enlarges one that is asked to be larger."""
        metadata, spec = claim["metadata"], claim["spec"]
        if (
            not str(spec.get("storageClassName")).startswith(STORAGE_CLASS)
            or not self.scripts[metadata["namespace"]].volumes
        ):
            return
        size = spec["resources"]["requests"]["storage"]
        try:
            if "volumeName" not in spec:
                await self._api.create("persistentvolumes", volume(claim))
            elif (
                claim.get("status", {}).get("phase") == "Bound"
                and claim["status"]["capacity"]["storage"] != size
            ):
                await self._api.patch(
                    "persistentvolumes",
                    None,
                    spec["volumeName"],
                    {"spec": {"capacity": {"storage": size}}},
                )
                status = {"status": {"capacity": {"storage": size}}}
                await self._api.patch(
                    "persistentvolumeclaims",
                    metadata["namespace"],
                    metadata["name"],
                    status,
                    "status",
                )
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def provision_all(self, namespace: str) -> None:
        """The storage works again."""
        for claim in self._history.objects("persistentvolumeclaims", namespace):
            await self._provision(claim)


def volume(claim: Manifest) -> Manifest:
    metadata, spec = claim["metadata"], claim["spec"]
    reference = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "uid": metadata["uid"]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"pv-{metadata['uid']}"},
        "spec": {
            "storageClassName": spec["storageClassName"],
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": f"/nowhere/{metadata['uid']}"},
            "claimRef": {**reference, "namespace": metadata["namespace"], "name": metadata["name"]},
        },
    }


def storage_class() -> Manifest:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": f"{STORAGE_CLASS}.{GROUP}",
        "allowVolumeExpansion": True,
        "volumeBindingMode": "Immediate",
    }


def _node_status() -> Manifest:
    condition = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "fake"}
    amounts = {"cpu": "64", "memory": "256Gi", "pods": "1000"}
    times = {"lastHeartbeatTime": _now(), "lastTransitionTime": _now()}
    return {"conditions": [{**condition, **times}], "capacity": amounts, "allocatable": amounts}


def _lease() -> Manifest:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {"holderIdentity": "fake", "leaseDurationSeconds": 10, "renewTime": now}


def _conditions(*, ready: bool) -> list[Manifest]:
    kinds = {"PodScheduled": True, "Initialized": True, "ContainersReady": ready, "Ready": ready}
    return [
        {"type": kind, "status": str(value), "lastTransitionTime": _now()}
        for kind, value in kinds.items()
    ]


def _claim(pod: Manifest) -> str:
    name: str = next(
        v["persistentVolumeClaim"]["claimName"]
        for v in pod["spec"]["volumes"]
        if "persistentVolumeClaim" in v
    )
    return name


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _addresses() -> Iterator[str]:
    """Loopback has millions of addresses; those below 127.64 are for servers."""
    return (f"127.{64 + (n >> 16)}.{n >> 8 & 255}.{n & 255}" for n in itertools.count(1))
