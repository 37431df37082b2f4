"""How a status becomes a patch, and when it is written: pure."""

from __future__ import annotations

from typing import Any

from wasession_api.v1alpha1 import Condition, ConditionType, Status

Manifest = dict[str, Any]
EVERY = 1.0  # seconds between two writes of one status that nobody waits for
URGENT_EVERY = 0.1  # seconds between two writes of any kind: a pod that flickers must not keep the API server busy
URGENT = ("phase", "session_valid", "restorations", "restarts", "logout", "pvc_uid", "observed_generation")
ON_THE_WAY = {(ConditionType.POD_READY, "True"), (ConditionType.STORAGE_READY, "True")}


def merge_patch(stored: Manifest, after: Manifest) -> Manifest:
    """What has to be written to make of the stored status the one after it; empty when nothing has."""
    gone: Manifest = {name: None for name in stored if name not in after}
    changed = {name: _merged(stored.get(name), value) for name, value in after.items() if stored.get(name) != value}
    return {**gone, **changed}


def pause(before: Status, after: Status) -> float:
    """The seconds that must have gone by since the last write.

    A phase is written at once: people wait for it. So is what the operator relies on before it acts. That pod and volume
    are well is on the way to a phase, and is written together with it.
    """
    urgent = any(getattr(before, name) != getattr(after, name) for name in URGENT)
    was = _truths(before.conditions)
    turned = {(kind, truth) for kind, truth in _truths(after.conditions).items() if was.get(kind) != truth}
    return URGENT_EVERY if urgent or turned - ON_THE_WAY else EVERY


def _truths(conditions: list[Condition]) -> dict[ConditionType, str]:
    return {condition.type: condition.status for condition in conditions}


def _merged(before: Any, after: Any) -> Any:
    """A value for a merge patch: a field that is no longer in an object has to be named as None."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return after
    return {**{name: None for name in before if name not in after}, **after}
