"""What the cache holds of each object: only what the plan reads, as there are thousands. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping

from pydantic_core import from_json, to_json
from wasession_api import names
from wasession_api.kube.manifests import Key, Manifest
from wasession_api.v1alpha1 import GROUP

from wasession_operator import objects
from wasession_operator.network_policy import class_of_policy, spec_hash

METADATA = (
    "namespace", "name", "uid", "resourceVersion", "generation",
    "creationTimestamp", "deletionTimestamp", "finalizers",
)  # fmt: skip
LABEL_ZONE = "topology.kubernetes.io/zone"
ANNOTATION_SELECTED_NODE = "volume.kubernetes.io/selected-node"  # that a volume was provisioned for


class PackedStore(MutableMapping[Key, Manifest]):
    """Objects stored as JSON: one allocation each instead of a hundred. Reading returns a copy."""

    def __init__(self) -> None:
        self._packed: dict[Key, bytes] = {}

    def __getitem__(self, key: Key) -> Manifest:
        obj: Manifest = from_json(self._packed[key])
        return obj

    def __setitem__(self, key: Key, obj: Manifest) -> None:
        self._packed[key] = to_json(obj)

    def __delitem__(self, key: Key) -> None:
        del self._packed[key]

    def __contains__(self, key: object) -> bool:
        return key in self._packed

    def __iter__(self) -> Iterator[Key]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


def session(obj: Manifest) -> Manifest:
    """Reduce a session. Of its annotations, any user sets as many and as large ones as they like.

    Requests are also copied to the pod and the status.
    """
    reduced = _metadata(obj) | _pick(obj, ("spec", "status"))
    annotations = _pick(reduced["metadata"].pop("annotations", {}), names.ANNOTATIONS_OF_SESSION)
    if annotations:
        reduced["metadata"]["annotations"] = {
            name: names.request_id(value) for name, value in annotations.items()
        }
    return reduced


def pod(obj: Manifest) -> Manifest:
    full = obj.get("status") or {}
    status = _pick(full, ("phase", "reason", "message", "podIP"))
    status["conditions"] = _filter(
        full.get("conditions"), "type", ("Ready", "PodScheduled", "DisruptionTarget")
    )
    for statuses, name in (
        ("containerStatuses", objects.CONTAINER),
        ("initContainerStatuses", objects.RESTORE_CONTAINER),
    ):
        status[statuses] = [
            _pick(container, ("name", "restartCount", "state", "lastState"))
            for container in _filter(full.get(statuses), "name", (name,))
        ]
    return _metadata(obj) | {"spec": _pick(obj["spec"], ("nodeName",)), "status": status}


def pvc(obj: Manifest) -> Manifest:
    spec = _pick(obj["spec"], ("storageClassName", "resources", "dataSource"))
    status = _pick(obj.get("status") or {}, ("phase", "capacity", "conditions"))
    metadata = _metadata(obj, annotations=(ANNOTATION_SELECTED_NODE,))
    return metadata | {"spec": spec, "status": status}


def network_policy(obj: Manifest) -> Manifest:
    """Reduce a policy to what is compared: a namespace's users may create large ones."""
    full = obj["metadata"]
    metadata = _pick(full, ("namespace", "name", "uid", "resourceVersion"))
    metadata["labels"] = _pick(full.get("labels") or {}, names.LABELS)
    if class_of_policy(obj) is None:
        return {"metadata": metadata}
    noted = _pick(full.get("annotations") or {}, (names.ANNOTATION_TEMPLATE_HASH,))
    metadata["annotations"] = {name: names.request_id(value) for name, value in noted.items()}
    return {"metadata": metadata, "specHash": spec_hash(obj.get("spec") or {})}


def node(obj: Manifest) -> Manifest:
    conditions = [
        _pick(condition, ("type", "status", "lastTransitionTime"))
        for condition in _filter((obj.get("status") or {}).get("conditions"), "type", ("Ready",))
    ]
    spec = _pick(obj["spec"], ("taints", "unschedulable"))
    metadata = _metadata(obj, labels=(LABEL_ZONE,))
    return metadata | {"spec": spec, "status": {"conditions": conditions}}


def _metadata(
    obj: Manifest, *, labels: tuple[str, ...] = (), annotations: tuple[str, ...] = ()
) -> Manifest:
    """Reduce the metadata. Foreign labels and annotations may be large; few are read."""
    full = obj["metadata"]
    kept_labels = _pick(full.get("labels") or {}, names.LABELS + labels)
    kept_annotations = {
        name: value
        for name, value in (full.get("annotations") or {}).items()
        if name.startswith(f"{GROUP}/") or name in annotations
    }
    owners = [
        _pick(owner, ("kind", "name", "uid", "controller"))
        for owner in full.get("ownerReferences") or []
    ]
    optional = {
        "labels": kept_labels,
        "annotations": kept_annotations,
        "ownerReferences": owners,
    }
    present = {field: value for field, value in optional.items() if value}
    return {"metadata": _pick(full, METADATA) | present}


def _pick(obj: Manifest, fields: Iterable[str]) -> Manifest:
    return {field: obj[field] for field in fields if field in obj}


def _filter(entries: list[Manifest] | None, field: str, values: tuple[str, ...]) -> list[Manifest]:
    return [entry for entry in entries or [] if entry[field] in values]
