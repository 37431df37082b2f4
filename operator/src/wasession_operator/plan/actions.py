"""What comes out: actions, a status, Events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from wasession_api.kube.manifests import Manifest
from wasession_api.v1alpha1 import Reason, Status


@dataclass(frozen=True)
class AddFinalizer:
    """A session that is deleted from now on stays until its pod has been ended, and logged out where that is asked for."""

    present: tuple[str, ...]  # finalizers


@dataclass(frozen=True)
class RemoveFinalizer:
    """A deleted session goes, as far as the operator is concerned."""

    present: tuple[str, ...]  # finalizers, with the operator's


@dataclass(frozen=True)
class CreateSecret:
    request: str | None = None  # the rotation annotation that its token fulfils


@dataclass(frozen=True)
class RotateToken:
    """A new token in the session's Secret, which keeps the one before until pods have read the new one."""

    request: str | None = None


@dataclass(frozen=True)
class CreatePvc:
    pass


@dataclass(frozen=True)
class OwnPvc:
    """Makes the session the claim's owner, or nobody."""

    references: list[Manifest] | None


@dataclass(frozen=True)
class GrowPvc:
    size: str


@dataclass(frozen=True)
class DeletePvc:
    uid: str


@dataclass(frozen=True)
class CreatePod:
    restoring: bool
    restart: str | None = None  # the restart annotation that this pod fulfils


@dataclass(frozen=True)
class RefreshToken:
    """Makes kubelet write the Secret's token into the pod now; by itself it does so within about a minute."""

    token_id: str


@dataclass(frozen=True)
class DeletePod:
    uid: str
    reason: Reason
    grace_seconds: int | None = None
    failed: bool = False  # counts as a failure, so that the next one waits


@dataclass(frozen=True)
class Logout:
    """Asks the pod to end its login."""


Action = (
    AddFinalizer | RemoveFinalizer | CreateSecret | RotateToken | CreatePvc | OwnPvc | GrowPvc | DeletePvc
    | CreatePod | RefreshToken | DeletePod | Logout
)  # fmt: skip


@dataclass(frozen=True)
class Event:
    """A Kubernetes Event, posted once per transition."""

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
