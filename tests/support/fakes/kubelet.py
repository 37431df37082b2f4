"""Fake nodes: scheduler, kubelet and storage driver without containers.

A pod is bound to a node, waits for its volume, its Secret and its image as on a real node, and then
runs as a ``SessionPod``. Its deletion is confirmed when its program has ended. A node may be
disconnected (it goes on, but the API server does not hear from it) or dead.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections import defaultdict
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from support.fakes.api import Api, ApiError, Manifest
from support.fakes.history import Change, History
from support.fakes.session_pods import SessionPod, SessionPods, Volume
from wasession_api.v1alpha1 import GROUP

STORAGE_CLASS = "fake"
SELECTED_NODE = "volume.kubernetes.io/selected-node"  # of a claim whose volume is on that node
LEASE_RENEWAL = 1.0  # seconds
LEASES = "kube-node-lease"


@dataclass
class Node:
    """A machine for the pods of one namespace."""

    name: str
    namespace: str
    connected: bool = True
    starts: bool = True  # containers start; if not, they are created for as long as it takes
    heartbeat: asyncio.Task[None] | None = None


@dataclass
class Script:
    """What happens to the pods of one namespace; a test may change it at any time."""

    scans: bool = True  # a phone scans each QR at once
    volumes: bool = True  # the storage driver provisions volumes
    images: bool = True  # the registry has the images
    stops: bool = True  # programs end when their pod is deleted
    mounts: bool = True  # mounted Secrets follow their changes
    snapshots: bool = True  # the storage driver takes VolumeSnapshots
    snapshot_error: str | None = None  # why it does not


@dataclass
class _Pod:
    """One pod object on its node."""

    wake: asyncio.Event = field(default_factory=asyncio.Event)
    node: Node | None = None
    program: SessionPod | None = None
    restarts: int = 0
    last: Manifest | None = None  # lastState of the container
    broken: str | None = None  # why the container is not restarted
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
        self.snapshots: dict[tuple[str, str], Volume] = {}  # by namespace and name
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
        """Add a node that is Ready, for the pods of one namespace."""
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
        """Remove the machine and its object for good."""
        self.kill_node(node)
        if node.heartbeat:
            node.heartbeat.cancel()
        if self._nodes.pop(node.name, None) is not None:
            await self._api.delete("nodes", None, node.name)

    def kill_node(self, node: Node) -> None:
        """Power a node off: its programs end at once, and the API server does not hear of it."""
        node.connected = False
        for uid, pod in self._on(node):
            if pod.program is not None:
                self._end_program(uid, pod)

    async def reconnect(self, node: Node) -> None:
        """Let the node report its pods again; one that was powered off restarts them."""
        node.connected = True
        manifests = {
            manifest["metadata"]["uid"]: manifest
            for manifest in self._history.objects("pods", node.namespace)
        }
        for uid, pod in self._on(node):
            if uid in manifests and pod.program is not None:
                running = {"running": {"startedAt": _now()}}
                await self._status(manifests[uid], self._running(manifests[uid], pod, running))
            pod.wake.set()

    async def _beat(self, node: Node) -> None:
        while True:
            if node.connected:
                await self._api.patch("leases", LEASES, node.name, {"spec": _lease()})
                manifest = await self._api.get("nodes", None, node.name)
                # The node controller sets it when heartbeats are missing.
                if manifest["status"]["conditions"][0]["status"] == "Unknown":
                    await self._api.patch(
                        "nodes", None, node.name, {"status": _node_status()}, "status"
                    )
            await asyncio.sleep(LEASE_RENEWAL)

    # --- what can go wrong with a pod -------------------------------------------------------------

    def program(self, pod: Manifest) -> SessionPod:
        """Return the program that runs in a pod; raises ``KeyError`` if none does."""
        program = self._pods[pod["metadata"]["uid"]].program
        if program is None:
            raise KeyError(pod["metadata"]["name"])
        return program

    async def end(
        self, pod: Manifest, phase: str, reason: str | None = None, message: str = ""
    ) -> None:
        """End a pod for good: Failed (for example with the reason Evicted) or Succeeded."""
        uid = pod["metadata"]["uid"]
        self._pods[uid].broken = phase  # it does not start again before its status says so
        self._end_program(uid, self._pods[uid])
        status: Manifest = {"phase": phase, "conditions": _conditions(ready=False)}
        if reason is not None:
            status |= {"reason": reason, "message": message}
        await self._status(pod, status)

    async def crash(self, pod: Manifest, reason: str, *, again: bool = True) -> None:
        """End a pod's container with one of kubelet's reasons, such as OOMKilled.

        It is restarted at once, or, unless ``again``, when ``mend`` is called.
        """
        uid = pod["metadata"]["uid"]
        state = self._pods[uid]
        self._end_program(uid, state)
        state.restarts += 1
        times = {"startedAt": _now(), "finishedAt": _now()}
        state.last = {"terminated": {"reason": reason, "exitCode": 137, **times}}
        state.broken = None if again else "CrashLoopBackOff"
        waiting = {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}
        await self._status(pod, self._running(pod, state, {"waiting": waiting}))
        state.wake.set()

    def mend(self, pod: Manifest) -> None:
        """Restart the container of a pod that has crashed."""
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
            if change.plural == "secrets" and change.type != "DELETED":
                self._update_mount(change)
            if change.plural == "persistentvolumeclaims" and change.type != "DELETED":
                self._begin(change.key[1], self._provision(change.object))

    def _update_mount(self, change: Change) -> None:
        """Give the pod that has mounted a Secret its new content."""
        _, namespace, name = change.key
        for manifest in self._history.objects("pods", namespace):
            pod = self._pods.get(manifest["metadata"]["uid"])
            if pod is None or pod.program is None or _token_secret(manifest) != name:
                continue
            if self.scripts[namespace].mounts:
                pod.program.token = _decoded(change.object["data"]["token"])

    def _begin(self, namespace: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine in the background; its failure fails the namespace's test."""
        task = asyncio.create_task(work)
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and task.exception() is not None:
                self.violations[namespace].append(f"the fake kubelet failed: {task.exception()!r}")

        task.add_done_callback(ended)
        return task

    def look_again(self, namespace: str, mounted: str | None = None) -> None:
        """Wake pods that wait for something that may exist now: by default all."""
        for manifest in self._history.objects("pods", namespace):
            pod = self._pods.get(manifest["metadata"]["uid"])
            if pod is None:
                continue
            if mounted in (None, _claim(manifest), _token_secret(manifest)):
                pod.wake.set()

    async def _live(self, key: tuple[str, str, str], uid: str, pod: _Pod) -> None:
        while True:
            pod.wake.clear()
            manifest = self._history.current.get(key)
            if manifest is None or manifest["metadata"]["uid"] != uid:
                # A node that does not hear of the deletion lets the program go on.
                if pod.program is not None and pod.node is not None and pod.node.connected:
                    self._end_program(uid, pod)
                elif pod.program is not None:
                    await pod.wake.wait()
                    continue
                return
            try:
                if await self._step(manifest, uid, pod):
                    continue
            except ApiError as error:
                if error.status not in (404, 409):
                    raise
            await pod.wake.wait()

    async def _step(self, manifest: Manifest, uid: str, pod: _Pod) -> bool:
        """Take a pod's next step; return whether another one can follow at once."""
        spec, status = manifest["spec"], manifest.get("status", {})
        if "nodeName" not in spec:
            await self._bind(manifest)
            return False
        node = pod.node = self._nodes.get(spec["nodeName"])
        if node is None or not node.connected:
            return False
        if "deletionTimestamp" in manifest["metadata"]:
            await self._confirm_deletion(manifest, uid, pod)
            return False
        if status.get("phase") in ("Failed", "Succeeded") or pod.program is not None or pod.broken:
            return False
        return await self._start(manifest, uid, pod)

    async def _confirm_deletion(self, manifest: Manifest, uid: str, pod: _Pod) -> None:
        """End the program of a pod that is being deleted, then delete its object."""
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        if pod.program is not None:
            if not self.scripts[namespace].stops:
                return
            self._end_program(uid, pod)
        precondition = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
        await self._api.delete("pods", namespace, name, **precondition)

    async def _start(self, manifest: Manifest, uid: str, pod: _Pod) -> bool:
        """Start the program once image, volume and Secret exist; return whether it has started."""
        namespace = manifest["metadata"]["namespace"]
        script = self.scripts[namespace]
        if pod.node is not None and not pod.node.starts:
            return False
        if not script.images:
            waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}
            status = self._running(manifest, pod, {"waiting": waiting})
            await self._status(manifest, {**status, "phase": "Pending"})
            return False
        claim = self._history.current.get(("persistentvolumeclaims", namespace, _claim(manifest)))
        secret = self._history.current.get(("secrets", namespace, _token_secret(manifest)))
        if claim is None or secret is None or claim.get("status", {}).get("phase") != "Bound":
            return False
        await self._start_program(manifest, uid, pod, claim, secret, scans=script.scans)
        running = {"running": {"startedAt": _now()}}
        await self._status(manifest, self._running(manifest, pod, running))
        return True

    async def _bind(self, manifest: Manifest) -> None:
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        claim = self._history.current.get(("persistentvolumeclaims", namespace, _claim(manifest)))
        annotations = {} if claim is None else claim["metadata"].get("annotations", {})
        usable = [
            node
            for node in self._nodes.values()
            if node.namespace == namespace
            and node.connected
            and annotations.get(SELECTED_NODE, node.name) == node.name
        ]
        if not usable:
            condition = {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": "0/0 nodes are available.",
                "lastTransitionTime": _now(),
            }
            await self._status(manifest, {"phase": "Pending", "conditions": [condition]})
            return
        target = {"apiVersion": "v1", "kind": "Node", "name": usable[0].name}
        metadata = {"namespace": namespace, "name": name, "uid": manifest["metadata"]["uid"]}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
        await self._api.create("pods", binding, "binding")

    async def _start_program(
        self,
        manifest: Manifest,
        uid: str,
        pod: _Pod,
        claim: Manifest,
        secret: Manifest,
        *,
        scans: bool,
    ) -> None:
        [container] = manifest["spec"]["containers"]
        environment = {entry["name"]: entry.get("value", "") for entry in container["env"]}
        volume = self._volumes[claim["spec"]["volumeName"]]
        if volume.writers:
            metadata = manifest["metadata"]
            violation = f"pod {metadata['name']} started while {volume.writers} had its volume"
            self.violations[metadata["namespace"]].append(violation)
        volume.writers.add(uid)
        for init in manifest["spec"].get("initContainers", []):
            restoring = {entry["name"]: entry.get("value", "") for entry in init["env"]}
            is_copy = init["args"][-1] == "wasession_pod.restore_snapshot"
            (volume.adopt if is_copy else volume.restore)(restoring)
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

    def _running(self, manifest: Manifest, pod: _Pod, state: Manifest) -> Manifest:
        """Return the status of a pod whose container is in a state."""
        ready = "running" in state
        container = {
            "name": manifest["spec"]["containers"][0]["name"],
            "image": manifest["spec"]["containers"][0]["image"],
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

    async def _status(self, manifest: Manifest, status: Manifest) -> None:
        metadata = manifest["metadata"]
        patch = {"metadata": {"uid": metadata["uid"]}, "status": status}
        await self._api.patch("pods", metadata["namespace"], metadata["name"], patch, "status")

    def _on(self, node: Node) -> list[tuple[str, _Pod]]:
        return [(uid, pod) for uid, pod in self._pods.items() if pod.node is node]

    # --- the storage driver -----------------------------------------------------------------------

    async def _provision(self, claim: Manifest) -> None:
        """Provision the volume of a claim, or expand it to the requested size."""
        metadata, spec = claim["metadata"], claim["spec"]
        if (
            not str(spec.get("storageClassName")).startswith(STORAGE_CLASS)
            or not self.scripts[metadata["namespace"]].volumes
        ):
            return
        size = spec["resources"]["requests"]["storage"]
        try:
            if "volumeName" not in spec:
                if source := spec.get("dataSource"):
                    content = self.snapshots.get((metadata["namespace"], source["name"]))
                    if content is None:
                        return
                    self._volumes[f"pv-{metadata['uid']}"] = replace(content, writers=set())
                await self._api.create("persistentvolumes", volume(claim))
            elif (
                claim.get("status", {}).get("phase") == "Bound"
                and claim["status"]["capacity"]["storage"] != size
            ):
                capacity = {"capacity": {"storage": size}}
                await self._api.patch(
                    "persistentvolumes", None, spec["volumeName"], {"spec": capacity}
                )
                await self._api.patch(
                    "persistentvolumeclaims",
                    metadata["namespace"],
                    metadata["name"],
                    {"status": capacity},
                    "status",
                )
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    def take_snapshot(self, namespace: str, claim: str, name: str) -> None:
        """Copy the volume of a claim as it is now."""
        manifest = self._history.current["persistentvolumeclaims", namespace, claim]
        content = self._volumes[manifest["spec"]["volumeName"]]
        self.snapshots[namespace, name] = replace(content, writers=set())

    async def provision_all(self, namespace: str) -> None:
        """Provision the volumes of all claims in a namespace."""
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


def _token_secret(pod: Manifest) -> str:
    name: str = next(
        v["secret"]["secretName"] for v in pod["spec"]["volumes"] if v["name"] == "token"
    )
    return name


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _addresses() -> Iterator[str]:
    """Yield addresses for pods; those below 127.64 are for servers."""
    return (f"127.{64 + (n >> 16)}.{n >> 8 & 255}.{n & 255}" for n in itertools.count(1))
