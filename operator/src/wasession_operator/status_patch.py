"""How a status becomes a patch, and when it is written: pure."""

from __future__ import annotations

from typing import Any

from wasession_api.kube.manifests import Manifest
from wasession_api.v1alpha1 import ConditionType, Status

from wasession_operator.plan.pod import ending

EVERY = 0.1  # seconds between two writes of one status: a pod that flickers must not keep the API server busy
LATER = 1.0  # seconds in which other changes may come that are written together with one that nobody waits for
PASSING = 30.0  # the same for what is on the way to a phase, and for words
URGENT = (
    "phase",
    "session_valid",
    "restorations",
    "restarts",
    "logout",
    "pvc_uid",
    "observed_generation",
)
ON_THE_WAY = {(ConditionType.POD_READY, "True"), (ConditionType.STORAGE_READY, "True")}


def merge_patch(stored: Manifest, after: Manifest) -> Manifest:
    """What has to be written to make of the stored status the one after it; empty when nothing has."""
    gone: Manifest = {name: None for name in stored if name not in after}
    changed = {
        name: _merged(stored.get(name), value)
        for name, value in after.items()
        if stored.get(name) != value
    }
    return {**gone, **changed}


def delay(before: Status, after: Status) -> float:
    """How many seconds a change may wait to be written, from when it was seen first.

    A phase is written at once: people wait for it. So is what the operator relies on before it
    acts. That pod and volume are well is on the way to a phase, and is written together with it.
    """
    was, now = _conditions(before), _conditions(after)
    turned = {
        (kind, truth)
        for kind, (truth, _) in now.items()
        if kind not in was or was[kind][0] != truth
    }
    urgent = any(getattr(before, name) != getattr(after, name) for name in URGENT) or ending(
        before
    ) is not ending(after)
    if urgent or turned - ON_THE_WAY:
        return 0.0
    explained = any(was[kind] != now[kind] for kind in now if kind not in dict(turned))
    return LATER if explained or _other(before) != _other(after) else PASSING


def _conditions(status: Status) -> dict[ConditionType, tuple[str, str]]:
    """Status and reason of each."""
    return {condition.type: (condition.status, condition.reason) for condition in status.conditions}


def _other(status: Status) -> Status:
    """What is not in the conditions; where the pod is comes with its phase."""
    return status.model_copy(update={"conditions": [], "pod_name": None, "node_name": None})


def _merged(before: Any, after: Any) -> Any:
    """A value for a merge patch: a field that is no longer in an object has to be named as None."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return after
    return {**{name: None for name in before if name not in after}, **after}
