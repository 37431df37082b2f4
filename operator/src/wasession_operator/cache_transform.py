"""What is kept in memory of each object: what the plan looks at, and no more, since there are thousands of each. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping

from pydantic_core import from_json, to_json
from wasession_api import names
from wasession_api.kube.manifests import Key, Manifest
from wasession_api.v1alpha1 import GROUP

from wasession_operator import objects

METADATA = (
    "namespace", "name", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "finalizers",
)  # fmt: skip


class Packed(MutableMapping[Key, Manifest]):
    """Objects, each held as JSON: one piece of memory where a dict is a hundred small ones. What is taken out is a copy."""

    def __init__(self) -> None:
        self._packed: dict[Key, bytes] = {}

    def __getitem__(self, key: Key) -> Manifest:
        found: Manifest = from_json(self._packed[key])
        return found

    def __setitem__(self, key: Key, found: Manifest) -> None:
        self._packed[key] = to_json(found)

    def __delitem__(self, key: Key) -> None:
        del self._packed[key]

    def __contains__(self, key: object) -> bool:
        return key in self._packed

    def __iter__(self) -> Iterator[Key]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


def session(found: Manifest) -> Manifest:
    return _metadata(found) | _some(found, ("spec", "status"))


def pod(found: Manifest) -> Manifest:
    status = found.get("status") or {}
    kept = _some(status, ("phase", "reason", "message", "podIP"))
    kept["conditions"] = _of(
        status.get("conditions"), "type", ("Ready", "PodScheduled", "DisruptionTarget")
    )
    kept["containerStatuses"] = [
        _some(container, ("name", "restartCount", "state", "lastState"))
        for container in _of(status.get("containerStatuses"), "name", (objects.CONTAINER,))
    ]
    return _metadata(found) | {"spec": _some(found["spec"], ("nodeName",)), "status": kept}


def pvc(found: Manifest) -> Manifest:
    spec = _some(found["spec"], ("storageClassName", "resources"))
    status = _some(found.get("status") or {}, ("phase", "capacity", "conditions"))
    return _metadata(found) | {"spec": spec, "status": status}


def secret(found: Manifest) -> Manifest:
    data = _some(found.get("data") or {}, ("token", "previousToken"))
    return _metadata(found) | {"data": data}


def node(found: Manifest) -> Manifest:
    conditions = _of((found.get("status") or {}).get("conditions"), "type", ("Ready",))
    told = [_some(condition, ("type", "status", "lastTransitionTime")) for condition in conditions]
    return _metadata(found) | {
        "spec": _some(found["spec"], ("taints",)),
        "status": {"conditions": told},
    }


def _metadata(found: Manifest) -> Manifest:
    """Of labels and annotations only the project's own: people may hang whole files on their objects."""
    metadata = found["metadata"]
    kept = _some(metadata, METADATA)
    labels = _some(metadata.get("labels") or {}, (names.LABEL_MANAGED_BY,))
    annotations = {
        key: text
        for key, text in (metadata.get("annotations") or {}).items()
        if key.startswith(f"{GROUP}/")
    }
    owners = [
        _some(owner, ("kind", "name", "uid", "controller"))
        for owner in metadata.get("ownerReferences") or []
    ]
    more = {"labels": labels, "annotations": annotations, "ownerReferences": owners}
    return {"metadata": kept | {field: value for field, value in more.items() if value}}


def _some(found: Manifest, fields: Iterable[str]) -> Manifest:
    return {field: found[field] for field in fields if field in found}


def _of(entries: list[Manifest] | None, field: str, wanted: tuple[str, ...]) -> list[Manifest]:
    return [entry for entry in entries or [] if entry[field] in wanted]
