"""The Leases of shards and replicas, as other replicas and installations see them. Pure."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from wasession_api import names
from wasession_api.kube.manifests import Key, Manifest, key_of
from wasession_api.v1alpha1 import GROUP

API_VERSION = "coordination.k8s.io/v1"
LABEL_LEASE = f"{GROUP}/lease"
ANNOTATION_OPERATOR = f"{GROUP}/operator"
ANNOTATION_NAMESPACES = f"{GROUP}/namespaces"
ANNOTATION_SHARDS = f"{GROUP}/shards"
ANNOTATION_UPDATES = f"{GROUP}/updates"
SELECTOR = f"{names.SELECTOR},{LABEL_LEASE}"
WHOLE_CLUSTER = "*"
LONGEST = 3600  # seconds that another installation's Lease is believed to last
NAME_MAXIMUM = 253  # characters


class LeaseKind(StrEnum):
    """What a Lease says of its holder: it acts on a shard, or it is there to take one over."""

    SHARD = "shard"
    MEMBER = "member"


@dataclass(frozen=True)
class Installation:
    """A release of the operator: the namespace and name of its Deployment, and what it serves."""

    namespace: str
    name: str
    namespaces: tuple[str, ...]  # whose sessions it serves; empty: of the whole cluster
    shards: int

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    def shares_leases_with(self, other: Installation) -> bool:
        """Return whether both have the same Leases: they are replicas of one release."""
        return (str(self), self.shards) == (str(other), other.shards)

    def competes_with(self, other: Installation) -> bool:
        """Return whether both would act on the same sessions, each with Leases of its own.

        The same release with another number of shards does: during an upgrade that changes it.
        """
        if str(self) == str(other):
            return self.shards != other.shards
        if not self.namespaces or not other.namespaces:
            return True
        return not set(self.namespaces).isdisjoint(other.namespaces)


@dataclass(frozen=True)
class Lease:
    """What is read from a Lease. ``renewed`` is opaque: clocks of two machines differ."""

    key: Key
    uid: str
    version: str
    kind: LeaseKind
    installation: Installation
    index: int | None  # of the shard
    holder: str  # name of the replica's pod; empty: released
    renewed: str
    duration: float  # seconds without a renewal after which the holder has lost it
    transitions: int
    updates: str  # see update_grants.py

    @property
    def state(self) -> tuple[str, ...]:
        """Return what the holder changes when it renews."""
        return self.uid, self.holder, self.renewed


def shard_of(key: Key, shards: int) -> int:
    """Return the shard of a session, by its namespace and name."""
    return shard_of_name("/".join(key), shards)


def shard_of_name(name: str, shards: int) -> int:
    """Return the shard that decides what concerns more than one session, such as for a class."""
    return zlib.crc32(name.encode()) % shards


def shard_lease_name(installation: Installation, index: int) -> str:
    return f"{installation.name}-shard-{index}-of-{installation.shards}"


def member_lease_name(installation: Installation, pod: str) -> str:
    return f"{installation.name}-member-{pod}"[-NAME_MAXIMUM:].lstrip("-.")


def parse_lease(obj: Manifest) -> Lease | None:
    """Read a Lease; None for one that is not, or no longer, an operator's: people can edit it."""
    annotations, labels = obj["metadata"].get("annotations"), obj["metadata"].get("labels")
    namespace, _, name = _text(annotations, ANNOTATION_OPERATOR).partition("/")
    served = _text(annotations, ANNOTATION_NAMESPACES)
    index, of, count = _text(annotations, ANNOTATION_SHARDS).rpartition("/")
    try:
        kind = LeaseKind(_text(labels, LABEL_LEASE))
        shards = int(count)
        shard = int(index) if kind is LeaseKind.SHARD else None
    except ValueError:
        return None
    elsewhere = namespace != obj["metadata"]["namespace"]  # it speaks for another installation
    if elsewhere or not (name and served) or shards < 1 or bool(of) != (shard is not None):
        return None
    if shard is not None and not 0 <= shard < shards:
        return None
    namespaces = () if served == WHOLE_CLUSTER else tuple(served.split(","))
    return _read(obj, kind, Installation(namespace, name, namespaces, shards), shard)


def parse_shard_lease(obj: Manifest, installation: Installation, index: int) -> Lease:
    """Read the Lease with the name of a shard's: it is one, whatever its labels say by now."""
    return _read(obj, LeaseKind.SHARD, installation, index)


def _read(obj: Manifest, kind: LeaseKind, installation: Installation, index: int | None) -> Lease:
    metadata, spec = obj["metadata"], obj.get("spec")
    return Lease(
        key_of(obj),
        metadata["uid"],
        metadata["resourceVersion"],
        kind,
        installation,
        index,
        _text(spec, "holderIdentity"),
        _text(spec, "renewTime"),
        min(max(_number(spec, "leaseDurationSeconds"), 1), LONGEST),
        max(_number(spec, "leaseTransitions"), 0),
        _text(metadata.get("annotations"), ANNOTATION_UPDATES),
    )


def _text(fields: object, key: str) -> str:
    """Return a text among fields that anybody may have edited; empty if there is none."""
    value = fields.get(key) if isinstance(fields, dict) else None
    return value if isinstance(value, str) else ""


def _number(fields: object, key: str) -> int:
    value = fields.get(key) if isinstance(fields, dict) else None
    return value if isinstance(value, int) else 0


def make_lease(
    installation: Installation,
    name: str,
    index: int | None,
    spec: Manifest,
    owners: Sequence[Manifest] = (),
) -> Manifest:
    """Return the Lease of a shard, or of a replica if there is no ``index``."""
    kind = LeaseKind.MEMBER if index is None else LeaseKind.SHARD
    shards = str(installation.shards) if index is None else f"{index}/{installation.shards}"
    return {
        "apiVersion": API_VERSION,
        "kind": "Lease",
        "metadata": {
            "namespace": installation.namespace,
            "name": name,
            "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY, LABEL_LEASE: str(kind)},
            "annotations": {
                ANNOTATION_OPERATOR: str(installation),
                ANNOTATION_NAMESPACES: ",".join(installation.namespaces) or WHOLE_CLUSTER,
                ANNOTATION_SHARDS: shards,
            },
            "ownerReferences": list(owners),
        },
        "spec": spec,
    }


def held_by(pod: str, duration: float) -> Manifest:
    """Return the spec of a Lease that a replica renews."""
    return {
        "holderIdentity": pod,
        "leaseDurationSeconds": math.ceil(duration),
        "renewTime": micro_time(),
    }


def micro_time() -> str:
    """Return the present time as a Kubernetes MicroTime; for people, as nobody compares it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
