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
