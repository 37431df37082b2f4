"""Reads objects as the API server has them."""

from __future__ import annotations

from datetime import datetime

from wasession_api import names
from wasession_api.kube.manifests import Manifest, condition, controller
from wasession_api.v1alpha1 import KIND, Reason

from wasession_operator import objects
from wasession_operator.plan.facts import Session


def annotations_of(found: Manifest) -> dict[str, str]:
    return found["metadata"].get("annotations") or {}


def is_terminating(found: Manifest) -> bool:
    return "deletionTimestamp" in found["metadata"]


def not_ours(session: Session, found: Manifest) -> tuple[Reason, str] | None:
    """Why an object with our name must not be touched; None when it is this session's.

    A volume claim that an earlier session of the same name and client id has left is ours: that is
    what it was kept for.
    """
    metadata, owner = found["metadata"], controller(found)
    what = f"{found.get('kind', 'object')} {metadata['name']}"
    if owner is not None and owner["uid"] != session.uid:
        if (owner["kind"], owner["name"]) == (KIND, session.name):
            return (
                Reason.PREDECESSOR_TERMINATING,
                f"{what} is an earlier session's of this name and is being removed.",
            )
        return (
            Reason.NAME_CONFLICT,
            f"{what} belongs to {owner['kind']} {owner['name']}; it is left alone.",
        )
    if metadata.get("labels", {}).get(names.LABEL_MANAGED_BY) != names.MANAGED_BY:
        return Reason.NAME_CONFLICT, f"{what} was not made by this operator; it is left alone."
    client_id = annotations_of(found).get(names.ANNOTATION_CLIENT_ID)
    if owner is None and client_id != objects.client_id(session.name, session.spec):
        return (
            Reason.NAME_CONFLICT,
            f"{what} holds the login of clientId {client_id}; it is left alone.",
        )
    return None


def container(pod: Manifest) -> Manifest:
    """The status of the session's container; empty before there is one."""
    for candidate in pod.get("status", {}).get("containerStatuses") or []:
        if candidate["name"] == objects.CONTAINER:
            result: Manifest = candidate
            return result
    return {}


def state(pod: Manifest, kind: str, which: str = "state") -> Manifest:
    """The container's ``waiting``, ``running`` or ``terminated`` state; empty when it is in another."""
    result: Manifest = (container(pod).get(which) or {}).get(kind) or {}
    return result


def since(pod: Manifest, kind: str) -> datetime:
    """Since when a condition of the pod is what it is."""
    at = condition(pod, kind).get("lastTransitionTime") or pod["metadata"].get("creationTimestamp")
    return datetime.fromisoformat(at)


def amount(quantity: str) -> float:
    """A Kubernetes quantity as a number.

    See https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
    """
    number = quantity.rstrip("kKMGTPEim")
    unit = quantity[len(number) :]
    if unit.endswith("i"):
        return float(number) * 1024.0 ** ("KMGTPE".index(unit[0]) + 1)
    scale = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
    return float(number) * scale[unit]
