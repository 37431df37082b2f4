"""What the plan returns: actions, a status, Events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from wasession_api.kube.manifests import Manifest
from wasession_api.session_pod.delivery import Configuration
from wasession_api.v1alpha1 import Reason, Status

from wasession_operator.objects import Restore, SnapshotRestore


@dataclass(frozen=True)
class AddFinalizer:
    """Hold a deleted session back until its pod has ended, and has logged out if requested."""

    present: tuple[str, ...]  # finalizers


@dataclass(frozen=True)
class RemoveFinalizer:
    """Let a deleted session go."""

    present: tuple[str, ...]  # finalizers, the operator's among them


@dataclass(frozen=True)
class ApplySecret:
    """Apply the Secret with the token of an epoch, and the one before that."""

    epoch: int
    archive: str | None = None  # key of the one that the pod restores, and gets a signed URL of


@dataclass(frozen=True)
class ApplyNetworkPolicy:
    manifest: Manifest


@dataclass(frozen=True)
class CreatePvc:
    restore: Restore | SnapshotRestore | None = None  # what its volume begins with


@dataclass(frozen=True)
class SetPvcOwner:
    """Make the session the owner of the claim, or leave the claim without an owner."""

    references: list[Manifest] | None


@dataclass(frozen=True)
class _RepairMetadata:
    """Give an object of the session its labels and annotations back; None removes one."""

    uid: str
    labels: Mapping[str, str | None]
    annotations: Mapping[str, str | None]


class RepairPvc(_RepairMetadata):
    pass


class RepairPod(_RepairMetadata):
    pass


@dataclass(frozen=True)
class ExpandPvc:
    size: str


@dataclass(frozen=True)
class DeletePvc:
    uid: str


@dataclass(frozen=True)
class CreatePod:
    restoring: bool
    restart: str | None = None  # value of the restart annotation that the pod fulfils
    token_id: str | None = None  # of the token that it starts with
    previous_owners: tuple[str, ...] = ()  # whom the volume may record instead of the present one
    restore: Restore | SnapshotRestore | None = None  # on the new volume, before the session starts


@dataclass(frozen=True)
class CheckPod:
    """Ask the API server whether it would accept a pod of the present template."""

    template: str  # its hash


@dataclass(frozen=True)
class RefreshToken:
    """Make kubelet update the mounted Secret now; on its own it takes up to about a minute."""

    token_id: str


@dataclass(frozen=True)
class DeletePod:
    uid: str
    reason: Reason
    grace_seconds: int | None = None
    failed: bool = False  # count it as a failure: the next pod waits for the backoff


@dataclass(frozen=True)
class Logout:
    """Ask the pod to log its device out of WhatsApp."""

    request: str | None = None  # value of the logout annotation, which the volume records


@dataclass(frozen=True)
class NoteLogout:
    """Let the pod record on the volume that a requested logout is fulfilled."""

    request: str


@dataclass(frozen=True)
class ConfigureDelivery:
    """Tell the pod the webhooks and sinks that it is to deliver to."""

    configuration: Configuration


Action = (
    AddFinalizer | RemoveFinalizer | ApplySecret | ApplyNetworkPolicy
    | CreatePvc | SetPvcOwner | ExpandPvc | DeletePvc
    | CreatePod | CheckPod | RefreshToken | DeletePod | Logout | NoteLogout
    | RepairPvc | RepairPod | ConfigureDelivery
)  # fmt: skip


@dataclass(frozen=True)
class Event:
    """A Kubernetes Event, emitted once per transition."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    actions: list[Action]
    status: Status
    events: list[Event]
    requeue_after: timedelta | None = None
    done: bool = False  # a deleted session has nothing left
