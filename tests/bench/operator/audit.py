"""The API server's audit log of all writes, to the microsecond: the source of times and counts."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

VERBS = ("create", "update", "patch", "delete")
LEASES = {"group": "coordination.k8s.io", "resources": ["leases"]}
POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "omitManagedFields": True,
    "rules": [
        # With their contents: who holds them.
        {"level": "RequestResponse", "verbs": VERBS, "resources": [LEASES]},
        {"level": "Metadata", "verbs": [*VERBS, "deletecollection"]},
        {"level": "None"},
    ],
}
TIMED_OUT = 504  # the client has hung up: the write may have been carried out all the same
NO_STATE = {"events", "leases"}
_SHARD_LEASE = re.compile(r".*-shard-(\d+)-of-\d+")


@dataclass(frozen=True, slots=True)
class Write:
    """One request that was carried out, or may have been."""

    user: str
    replica: str  # of the operator, by its User-Agent; else empty or anything
    verb: str
    resource: str  # with the subresource, such as "pods/status"
    namespace: str
    name: str
    received: float  # seconds since 1970
    done: float
    holder: str = ""  # of a Lease, after the write
    timed_out: bool = False


class Audit:
    """Reads what has been appended to the log since the last time.

    When the API server has rotated the log, it goes on with the new file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def new(self) -> list[Write]:
        return list(self._read())

    def _read(self) -> Iterator[Write]:
        if not self._path.exists():
            return
        if self._path.stat().st_size < self._at:
            self._at = 0
        with self._path.open("rb") as log:
            log.seek(self._at)
            for line in log:
                if not line.endswith(b"\n"):
                    return
                self._at += len(line)
                event = json.loads(line)
                if "objectRef" in event and event["verb"] in VERBS:
                    code = event["responseStatus"]["code"]
                    if code < 400 or code == TIMED_OUT:
                        yield _write(event)


def _write(event: dict[str, Any]) -> Write:
    target = event["objectRef"]
    spec = event.get("responseObject", {}).get("spec", {})
    return Write(
        user=event["user"]["username"],
        replica=event.get("userAgent", "").partition("/")[2],
        verb=event["verb"],
        resource="/".join(filter(None, (target["resource"], target.get("subresource")))),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        received=_seconds(event["requestReceivedTimestamp"]),
        done=_seconds(event["stageTimestamp"]),
        holder=spec.get("holderIdentity") or "" if event["verb"] != "delete" else "",
        timed_out=event["responseStatus"]["code"] == TIMED_OUT,
    )


def latencies(causes: list[Write], effects: list[Write]) -> list[float]:
    """Return the milliseconds from each cause's request to the end of its effect.

    That is the first effect of the same name after it, one that timed out only if there is no
    other; raises ``LookupError`` if there is none.
    """
    effects_by_name: dict[str, list[Write]] = {}
    for effect in effects:
        effects_by_name.setdefault(effect.name, []).append(effect)
    waits = []
    for cause in causes:
        later = [e for e in effects_by_name.get(cause.name, []) if e.done >= cause.received]
        if not later:
            raise LookupError(f"no effect on {cause.name}")
        first = min(later, key=lambda effect: (effect.timed_out, effect.done))
        waits.append((first.done - cause.received) * 1000)
    return waits


def by_kind(writes: Iterable[Write]) -> dict[str, int]:
    """Count writes by verb and resource, without Events and Leases."""
    return dict(Counter(f"{w.verb} {w.resource}" for w in writes if w.resource not in NO_STATE))


def late(writes: Iterable[Write], shard_of: Callable[[Write], int]) -> list[Write]:
    """Return what replicas wrote to sessions of a shard whose Lease was not theirs any more.

    ``writes`` are those of the operator, to Leases and to sessions and their objects. Before the
    first write to a shard's Lease, nothing is known of its holder.
    """
    holders: dict[int, str] = {}
    found = []
    for write in sorted(writes, key=lambda write: write.done):
        if write.resource == "leases":
            if not write.timed_out and (match := _SHARD_LEASE.fullmatch(write.name)):
                holders[int(match[1])] = write.holder
        elif holders.get(shard_of(write), write.replica) != write.replica:
            found.append(write)
    return found


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
