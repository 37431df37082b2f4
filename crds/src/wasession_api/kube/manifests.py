"""Plain Kubernetes objects, and how to read them."""

from __future__ import annotations

from typing import Any

Manifest = dict[str, Any]
Key = tuple[str, str]
"""Namespace (empty for cluster-scoped objects) and name."""


def key_of(obj: Manifest) -> Key:
    """Return the object's namespace and name."""
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def controller(obj: Manifest) -> Manifest | None:
    """Return the owner reference of the object's controller, if any."""
    references: list[Manifest] = obj["metadata"].get("ownerReferences") or []
    return next((reference for reference in references if reference.get("controller")), None)


def condition(obj: Manifest | None, kind: str) -> Manifest:
    """Return the object's condition of type ``kind``; empty when it has none."""
    for candidate in (obj or {}).get("status", {}).get("conditions") or []:
        if candidate["type"] == kind:
            result: Manifest = candidate
            return result
    return {}


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
