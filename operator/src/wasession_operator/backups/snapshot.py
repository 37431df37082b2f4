"""VolumeSnapshots of sessions' volumes (snapshot.storage.k8s.io/v1): pure.

See https://kubernetes.io/docs/concepts/storage/volume-snapshots/
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime

from wasession_api import names
from wasession_api.kube.manifests import Manifest, amount
from wasession_api.v1alpha1 import API_VERSION, BACKUP_KIND, DeletionPolicy

from wasession_operator.backups.backup import Backup
from wasession_operator.objects import SNAPSHOT_GROUP
from wasession_operator.plan.manifests import is_terminating


@dataclass(frozen=True)
class Snapshot:
    """What the API server has of a VolumeSnapshot."""

    claim: str | None  # name of the PVC that it is of
    is_ready: bool = False
    is_terminating: bool = False
    error: str | None = None  # the driver's last one, which it may get over
    taken_at: datetime | None = None
    size: int | None = None  # bytes that a volume from it needs


def make_snapshot(backup: Backup, name: str, claim: str, class_name: str | None) -> Manifest:
    """Return the VolumeSnapshot of a backup; garbage collection deletes it with one of ``Delete``.

    Without a class name, it gets the default class of the volume's driver.
    """
    metadata: Manifest = {
        "namespace": backup.namespace,
        "name": name,
        "labels": {
            names.LABEL_MANAGED_BY: names.MANAGED_BY,
            names.LABEL_SESSION: names.label_value(backup.session_name),
        },
        "annotations": {names.ANNOTATION_BACKUP: backup.name},
    }
    if backup.spec.deletion_policy is DeletionPolicy.DELETE:
        owner = {"apiVersion": API_VERSION, "kind": BACKUP_KIND}
        metadata["ownerReferences"] = [{**owner, "name": backup.name, "uid": backup.uid}]
    spec: Manifest = {"source": {"persistentVolumeClaimName": claim}}
    if class_name is not None:
        spec["volumeSnapshotClassName"] = class_name
    return {
        "apiVersion": f"{SNAPSHOT_GROUP}/v1",
        "kind": "VolumeSnapshot",
        "metadata": metadata,
        "spec": spec,
    }


def parse_snapshot(obj: Manifest) -> Snapshot:
    """Return what counts of a VolumeSnapshot, whose status is the snapshot controller's."""
    status = obj.get("status") or {}
    source = (obj.get("spec") or {}).get("source") or {}
    taken_at, size = None, None
    with contextlib.suppress(ValueError, TypeError, KeyError):
        taken_at = datetime.fromisoformat(status["creationTime"])
    with contextlib.suppress(ValueError, KeyError):
        size = int(amount(str(status["restoreSize"])))
    error = status.get("error") or {}
    return Snapshot(
        claim=source.get("persistentVolumeClaimName"),
        is_ready=status.get("readyToUse") is True,
        is_terminating=is_terminating(obj),
        error=str(error.get("message") or "the driver does not say why") if error else None,
        taken_at=taken_at,
        size=size,
    )
