"""What changes in a status, and how long writing it may wait: pure."""

from __future__ import annotations

from wasession_api.kube.manifests import Manifest
from wasession_api.v1alpha1 import ConditionType, Phase, Status

from wasession_operator.plan.pod import termination_reason

MIN_INTERVAL = 0.1  # seconds between two patches of one status, however often its pod changes
DEBOUNCE_DETAILS = 1.0  # seconds to collect changes of details, such as a reason
DEBOUNCE_START = 1.0  # seconds between two phases of a start: most pods pass them more quickly
DEBOUNCE_PROGRESS = 30.0  # seconds for progress towards a phase, and for messages
URGENT = (
    "session_valid",
    "restorations",
    "restarts",
    "logout",
    "restart",
    "token_rotation",
    "update",
    "pvc_uid",
    "volume_loss",
    "observed_generation",
)
START = {Phase.PENDING, Phase.STARTING, Phase.RESTORING, Phase.SYNCING}
PROGRESS = {(ConditionType.POD_READY, "True"), (ConditionType.STORAGE_READY, "True")}


def changed_fields(stored: Manifest, desired: Manifest) -> list[str]:
    """Return the fields in which the stored status differs from the desired one."""
    names = stored.keys() | desired.keys()
    return sorted(name for name in names if stored.get(name) != desired.get(name))


def debounce(before: Status, after: Status) -> float:
    """Return the seconds for which a change may wait for others to be written with it.

    A phase is written at once, as people wait for it, unless it only follows another one of a
    start; so is what the operator relies on before it acts. A pod or volume that becomes ready is
    progress towards a phase and is written with it.
    """
    old, new = _conditions(before), _conditions(after)
    turned = {
        (kind, status)
        for kind, (status, _) in new.items()
        if kind not in old or old[kind][0] != status
    }
    urgent = any(getattr(before, name) != getattr(after, name) for name in URGENT)
    moved = before.phase is not after.phase
    urgent = urgent or (moved and not {before.phase, after.phase} <= START)
    if urgent or termination_reason(before) is not termination_reason(after) or turned - PROGRESS:
        return 0.0
    if moved:
        return DEBOUNCE_START
    explained = any(old[kind] != new[kind] for kind in new if kind not in dict(turned))
    if explained or _details(before) != _details(after):
        return DEBOUNCE_DETAILS
    return DEBOUNCE_PROGRESS


def _conditions(status: Status) -> dict[ConditionType, tuple[str, str]]:
    """Return status and reason of each condition."""
    return {condition.type: (condition.status, condition.reason) for condition in status.conditions}


def _details(status: Status) -> Status:
    """Return what is not in the conditions; the pod and its node are written with the phase."""
    return status.model_copy(update={"conditions": [], "pod_name": None, "node_name": None})
