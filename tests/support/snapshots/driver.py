"""A snapshot controller and CSI driver in one, for the embedded cluster's host-path volumes."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from support import snapshots
from support.cluster import Cluster
from support.cluster.machine import PROVISIONER_DIRECTORY
from support.testbed import wait_established

INTERVAL = 1.0  # seconds between two looks
Manifest = dict[str, Any]
# What the state of files is compared by.
Listing = dict[str, tuple[int, int, int]]


@contextlib.contextmanager
def running(cluster: Cluster) -> Iterator[None]:
    """Let the cluster have VolumeSnapshots for the block."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        crds = snapshots.crds()
        yaml.safe_dump_all(crds, file)
        file.flush()
        cluster.kubectl("apply", "-f", file.name)
        for crd in crds:
            wait_established(cluster, crd["metadata"]["name"])
        driver = _Driver(cluster)
        thread = threading.Thread(target=driver.run)
        thread.start()
        try:
            yield
        finally:
            driver.ended.set()
            thread.join()
            cluster.kubectl("delete", "-f", file.name)
    if driver.failure is not None:
        raise driver.failure


class _Driver:
    def __init__(self, cluster: Cluster) -> None:
        self.ended = threading.Event()
        self.failure: Exception | None = None
        self._cluster = cluster
        self._volumes = cluster.directory / "volumes"

    def run(self) -> None:
        try:
            while not self.ended.wait(INTERVAL):
                self._look()
        except Exception as error:
            self.failure = error

    def _look(self) -> None:
        for snapshot in self._get("volumesnapshots"):
            if not (snapshot.get("status") or {}).get("readyToUse"):
                self._take(snapshot)
        for claim in self._get("pvc"):
            source = claim["spec"].get("dataSource") or {}
            if source.get("kind") == "VolumeSnapshot" and not claim["spec"].get("volumeName"):
                self._provision(claim, source["name"])

    def _get(self, kind: str, *more: str) -> list[Manifest]:
        items: list[Manifest] = json.loads(
            self._cluster.kubectl("get", kind, "--all-namespaces", "-o", "json", *more)
        )["items"]
        return items

    def _take(self, snapshot: Manifest) -> None:
        """Copy a volume's directory, as of one moment."""
        metadata, spec = snapshot["metadata"], snapshot["spec"]
        in_namespace = ("-n", metadata["namespace"])
        claim = self._read("pvc", spec["source"]["persistentVolumeClaimName"], *in_namespace)
        volume = self._read("pv", claim["spec"]["volumeName"])
        taken_at = _copy(
            self._volumes / Path(volume["spec"]["hostPath"]["path"]).name,
            self._volumes / f"snapshot-{metadata['uid']}",
        )
        status = {
            "boundVolumeSnapshotContentName": f"snapcontent-{metadata['uid']}",
            "creationTime": f"{taken_at:%Y-%m-%dT%H:%M:%SZ}",
            "readyToUse": True,
            "restoreSize": claim["status"]["capacity"]["storage"],
        }
        self._cluster.kubectl(
            *in_namespace, "patch", "volumesnapshot", metadata["name"], "--subresource=status",
            "--type=merge", "-p", json.dumps({"status": status}),
        )  # fmt: skip

    def _provision(self, claim: Manifest, source: str) -> None:
        """Create the volume of a claim, with what a snapshot has."""
        metadata, spec = claim["metadata"], claim["spec"]
        snapshot = self._read("volumesnapshot", source, "-n", metadata["namespace"])
        name = f"pvc-{metadata['uid']}"
        target = self._volumes / name
        if target.exists():
            return  # the claim is bound soon
        _copy(self._volumes / f"snapshot-{snapshot['metadata']['uid']}", target)
        reference = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "uid": metadata["uid"]}
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "storageClassName": spec["storageClassName"],
                "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "accessModes": spec["accessModes"],
                "persistentVolumeReclaimPolicy": "Delete",
                "hostPath": {"path": str(PROVISIONER_DIRECTORY / name)},
                "claimRef": {
                    **reference, "namespace": metadata["namespace"], "name": metadata["name"],
                },
            },
        }  # fmt: skip
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(volume, file)
            file.flush()
            self._cluster.kubectl("create", "-f", file.name)

    def _read(self, kind: str, name: str, *more: str) -> Manifest:
        obj: Manifest = json.loads(self._cluster.kubectl("get", kind, name, "-o", "json", *more))
        return obj


def _copy(source: Path, target: Path) -> datetime:
    """Copy a directory with owners and modes, once nothing changes meanwhile; return when.

    So the copy is of one moment, as those of storage systems are.
    """
    while True:
        before, at = _list(source), datetime.now(UTC)
        shutil.rmtree(target, ignore_errors=True)
        done = subprocess.run(["cp", "-a", str(source), str(target)], capture_output=True)
        if done.returncode == 0 and _list(source) == before:
            return at


def _list(directory: Path) -> Listing:
    listing = {}
    for path in sorted(directory.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            stat = path.lstat()
            listing[str(path)] = stat.st_ino, stat.st_size, stat.st_mtime_ns
    return listing
