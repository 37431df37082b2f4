"""A snapshot controller and its CSI driver: they take VolumeSnapshots of the fake volumes."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime

from support import snapshots
from support.fakes.api import Api, ApiError, Manifest, path
from support.fakes.kubelet import Kubelet

PLURAL = "volumesnapshots"
CRDS = "customresourcedefinitions"
RESTORE_SIZE = "3Gi"  # more than sessions ask for


class SnapshotController:
    """Makes each VolumeSnapshot what the script of its namespace says; ``start`` adds the kind."""

    def __init__(self, api: Api, kubelet: Kubelet) -> None:
        self._api = api
        self._kubelet = kubelet
        self._current: dict[tuple[str, str], Manifest] = {}
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        for crd in snapshots.crds():
            await self._api.create(CRDS, crd)
        listed = await self._until_served()
        version = listed["metadata"]["resourceVersion"]
        self._watching = asyncio.create_task(self._watch(version))

    async def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        for crd in snapshots.crds():
            await self._api.delete(CRDS, None, crd["metadata"]["name"])

    async def _until_served(self) -> Manifest:
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(ApiError):
                    return await self._api.call("GET", path(PLURAL))
                await asyncio.sleep(0.05)

    async def _watch(self, version: str) -> None:
        async for event in self._api.watch(PLURAL, version):
            if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
                snapshot = event["object"]
                key = snapshot["metadata"]["namespace"], snapshot["metadata"]["name"]
                if event["type"] == "DELETED":
                    self._current.pop(key, None)
                    self._kubelet.snapshots.pop(key, None)
                else:
                    self._current[key] = snapshot
                    await self._look(snapshot)

    async def look_again(self, namespace: str) -> None:
        """Act on a script that has changed."""
        for key, snapshot in list(self._current.items()):
            if key[0] == namespace:
                await self._look(snapshot)

    async def _look(self, snapshot: Manifest) -> None:
        metadata, present = snapshot["metadata"], snapshot.get("status") or {}
        namespace, name = metadata["namespace"], metadata["name"]
        script = self._kubelet.scripts[namespace]
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if present.get("readyToUse"):
            return
        if script.snapshot_error is not None:
            if (present.get("error") or {}).get("message") == script.snapshot_error:
                return
            error = {"time": now, "message": script.snapshot_error}
            status: Manifest = {"readyToUse": False, "error": error}
        elif script.snapshots:
            claim = snapshot["spec"]["source"]["persistentVolumeClaimName"]
            self._kubelet.take_snapshot(namespace, claim, name)
            status = {
                "boundVolumeSnapshotContentName": f"snapcontent-{metadata['uid']}",
                "creationTime": now,
                "readyToUse": True,
                "restoreSize": RESTORE_SIZE,
                "error": None,
            }
        else:
            return
        with contextlib.suppress(ApiError):  # it was deleted meanwhile
            await self._api.patch(PLURAL, namespace, name, {"status": status}, "status")
