"""What a cluster has beside its control plane: kwok's nodes, a storage driver, the ends of pods."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
from support.fakes.api import Api, ApiError, Manifest
from support.fakes.kubelet import storage_class, volume

NODES = 10
CREATORS = 100  # PersistentVolumes that are created at a time
NOT_FOUND, CONFLICT, TOO_MANY = 404, 409, 429
UNAVAILABLE = (ApiError, aiohttp.ClientError, TimeoutError)
RETRY = 1.0  # seconds
BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
SELECTED_NODE = "volume.kubernetes.io/selected-node"


def node(index: int) -> Manifest:
    amounts = {"cpu": "1k", "memory": "100Ti", "pods": "10k"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": f"kwok-{index}", "annotations": {"kwok.x-k8s.io/node": "fake"}},
        "status": {"allocatable": amounts, "capacity": amounts},
    }


async def has_ready_nodes(api: Api) -> bool:
    nodes = (await api.list("nodes"))["items"]
    conditions = [c for node in nodes for c in node.get("status", {}).get("conditions", [])]
    ready = sum(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return bool(ready == NODES)


async def changes(api: Api, plural: str) -> AsyncIterator[tuple[str, Manifest]]:
    """Yield the type and the object of each change, beginning with what exists.

    Of an object whose deletion was missed, there is only the UID.
    """
    known: set[str] = set()
    while True:
        listed = await _list(api, plural)
        missed, known = known, {item["metadata"]["uid"] for item in listed["items"]}
        for uid in missed - known:
            yield "DELETED", {"metadata": {"uid": uid}}
        for item in listed["items"]:
            yield "ADDED", item
        with contextlib.suppress(*UNAVAILABLE):  # or the version has expired: list again
            async for event in api.watch(plural, listed["metadata"]["resourceVersion"]):
                if event["type"] == "ADDED":
                    known.add(event["object"]["metadata"]["uid"])
                if event["type"] == "DELETED":
                    known.discard(event["object"]["metadata"]["uid"])
                if event["type"] != "BOOKMARK":
                    yield event["type"], event["object"]


async def _list(api: Api, plural: str) -> Manifest:
    """List objects as soon as the API server can; an overloaded one refuses it for a while."""
    while True:
        try:
            return await api.list(plural)
        except UNAVAILABLE as error:
            if isinstance(error, ApiError) and error.status not in (TOO_MANY, *range(500, 600)):
                raise
        await asyncio.sleep(RETRY)


def delayed_storage_class() -> Manifest:
    """Return a class as clouds have them: a claim is bound once its pod has a node."""
    return {**storage_class(), "volumeBindingMode": "WaitForFirstConsumer"}


async def insist(request: Callable[[], Awaitable[object]]) -> None:
    """Repeat a request until the API server has done it, or says that it has been done."""
    while True:
        try:
            await request()
        except ApiError as error:
            if error.status not in (NOT_FOUND, CONFLICT):
                continue
        except (aiohttp.ClientError, TimeoutError):
            continue
        return


async def provision(api: Api) -> None:
    """Act as the storage driver: make a volume for each claim whose pod has a node.

    It binds both itself: kube-controller-manager binds one claim after the other, and would be
    what a burst waits for.
    """
    turn, made = asyncio.Semaphore(CREATORS), set[str]()

    async def make(claim: Manifest) -> None:
        namespace, name = claim["metadata"]["namespace"], claim["metadata"]["name"]
        made_for = volume(claim)
        bound = {
            "metadata": {"annotations": {BIND_COMPLETED: "yes"}},
            "spec": {"volumeName": made_for["metadata"]["name"]},
        }
        capacity = {"capacity": made_for["spec"]["capacity"]}
        status = {"status": {"phase": "Bound", "accessModes": claim["spec"]["accessModes"]}}
        status["status"] |= capacity
        async with turn:
            await insist(lambda: api.create("persistentvolumes", made_for))
            await insist(lambda: api.patch("persistentvolumeclaims", namespace, name, bound))
            await insist(
                lambda: api.patch("persistentvolumeclaims", namespace, name, status, "status")
            )

    async with asyncio.TaskGroup() as group:
        async for kind, claim in changes(api, "persistentvolumeclaims"):
            metadata = claim["metadata"]
            is_due = kind != "DELETED" and SELECTED_NODE in metadata.get("annotations", {})
            if is_due and "volumeName" not in claim["spec"] and metadata["uid"] not in made:
                made.add(metadata["uid"])
                group.create_task(make(claim))


async def confirm(api: Api, ready: set[str]) -> None:
    """Act as the kubelets: confirm the deletion of pods at once; note which pods run."""

    async def end(metadata: Manifest) -> None:
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}}
        namespace, name = metadata["namespace"], metadata["name"]
        await insist(lambda: api.delete("pods", namespace, name, **options))

    async with asyncio.TaskGroup() as group:
        async for kind, pod in changes(api, "pods"):
            metadata = pod["metadata"]
            ends = kind == "DELETED" or "deletionTimestamp" in metadata
            if not ends and pod["status"].get("phase") == "Running":
                ready.add(metadata["uid"])
            if ends:
                ready.discard(metadata["uid"])
            if ends and kind != "DELETED":
                group.create_task(end(metadata))


async def follow(
    api: Api, plural: str, found: set[str], wanted: Callable[[Manifest], bool]
) -> None:
    """Keep the UIDs of the objects that are as wanted in ``found``."""
    async for kind, obj in changes(api, plural):
        uid = obj["metadata"]["uid"]
        if kind != "DELETED" and wanted(obj):
            found.add(uid)
        else:
            found.discard(uid)
