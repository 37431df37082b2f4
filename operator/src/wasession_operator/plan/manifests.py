"""Read pods, claims and Secrets as the API server has them."""

from __future__ import annotations

from datetime import datetime

from wasession_api import names
from wasession_api.kube.manifests import Manifest, condition, controller
from wasession_api.v1alpha1 import KIND, Reason

from wasession_operator import objects
from wasession_operator.plan.facts import Session
from wasession_operator.plan.results import Finding, Step, report_problem


def annotations_of(obj: Manifest) -> dict[str, str]:
    return obj["metadata"].get("annotations") or {}


def is_terminating(obj: Manifest) -> bool:
    return "deletionTimestamp" in obj["metadata"]


def ownership_conflict(session: Session, obj: Manifest) -> Finding | None:
    """Return why an object with the session's name must not be touched; None when it may.

    A claim that an earlier session of the same name and clientId has left behind belongs to this
    session: it was retained for that.
    """
    metadata, owner = obj["metadata"], controller(obj)
    which = f"{obj.get('kind', 'object')} {metadata['name']}"
    if owner is not None and owner["uid"] != session.uid:
        if (owner["kind"], owner["name"]) == (KIND, session.name):
            message = f"{which} belongs to a deleted session of the same name and is being removed."
            return Finding(False, Reason.PREDECESSOR_TERMINATING, message)
        conflict = f"belongs to {owner['kind']} {owner['name']}"
    elif metadata.get("labels", {}).get(names.LABEL_MANAGED_BY) != names.MANAGED_BY:
        conflict = "was not created by this operator"
    elif owner is None and _client_id(obj) != objects.client_id(session.name, session.spec):
        conflict = f"holds the login of clientId {_client_id(obj)}"
    else:
        return None
    return Finding(False, Reason.NAME_CONFLICT, f"{which} {conflict}; it is left alone.")


def report_conflict(conflict: Finding) -> Step:
    """Report a name conflict; what an earlier session has left goes away by itself."""
    if conflict.reason == Reason.PREDECESSOR_TERMINATING:
        return Step()
    return report_problem(conflict.reason, conflict.message)


def container(pod: Manifest) -> Manifest:
    """Return the status of the session's container; empty before there is one."""
    for candidate in pod.get("status", {}).get("containerStatuses") or []:
        if candidate["name"] == objects.CONTAINER:
            result: Manifest = candidate
            return result
    return {}


def state(pod: Manifest, kind: str, which: str = "state") -> Manifest:
    """Return the container's ``waiting``, ``running`` or ``terminated`` state.

    Empty when the container is in another state. ``which`` may also be ``lastState``.
    """
    result: Manifest = (container(pod).get(which) or {}).get(kind) or {}
    return result


def since(pod: Manifest, kind: str) -> datetime:
    """Return since when a condition of the pod has had its status: at first, from its creation."""
    at = condition(pod, kind).get("lastTransitionTime") or pod["metadata"].get("creationTimestamp")
    return datetime.fromisoformat(at)


def amount(quantity: str) -> float:
    """Return a Kubernetes quantity as a number.

    See https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
    """
    number = quantity.rstrip("kKMGTPEim")
    unit = quantity[len(number) :]
    if unit.endswith("i"):
        return float(number) * 1024.0 ** ("KMGTPE".index(unit[0]) + 1)
    scale = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
    return float(number) * scale[unit]


def _client_id(obj: Manifest) -> str | None:
    return annotations_of(obj).get(names.ANNOTATION_CLIENT_ID)
