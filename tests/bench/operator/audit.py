"""The API server's audit log of all writes, to the microsecond: the source of times and counts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "omitManagedFields": True,
    "rules": [
        {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
        {"level": "None"},
    ],
}
WRITES = {"create", "update", "patch", "delete"}


@dataclass(frozen=True)
class Write:
    """One successful request."""

    user: str
    verb: str
    resource: str  # with the subresource, such as "pods/status"
    namespace: str
    name: str
    received: float  # seconds since 1970
    done: float


class Audit:
    """Reads what has been appended to the log since the last time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def new(self) -> list[Write]:
        return list(self._read())

    def _read(self) -> Iterator[Write]:
        if not self._path.exists():
            return
        with self._path.open("rb") as log:
            log.seek(self._at)
            for line in log:
                if not line.endswith(b"\n"):
                    return
                self._at += len(line)
                event = json.loads(line)
                what = event.get("objectRef")
                if (
                    what is None
                    or event["responseStatus"]["code"] >= 400
                    or event["verb"] not in WRITES
                ):
                    continue
                resource = "/".join(filter(None, (what["resource"], what.get("subresource"))))
                times = (
                    _seconds(event["requestReceivedTimestamp"]),
                    _seconds(event["stageTimestamp"]),
                )
                yield Write(
                    event["user"]["username"],
                    event["verb"],
                    resource,
                    what.get("namespace", ""),
                    what.get("name", ""),
                    *times,
                )


def latencies(causes: list[Write], effects: list[Write]) -> list[float]:
    """Return the milliseconds from each cause's request to the end of its effect.

    That is the first effect of the same name after it; raises ``LookupError`` if there is none.
    """
    effects_by_name: dict[str, list[float]] = {}
    for effect in effects:
        effects_by_name.setdefault(effect.name, []).append(effect.done)
    waits = []
    for cause in causes:
        later = [done for done in effects_by_name.get(cause.name, []) if done >= cause.received]
        if not later:
            raise LookupError(f"no effect on {cause.name}")
        waits.append((min(later) - cause.received) * 1000)
    return waits


def by_kind(writes: list[Write]) -> dict[str, int]:
    """Count writes by verb and resource, without Events, which are not state."""
    return dict(
        Counter(f"{write.verb} {write.resource}" for write in writes if write.resource != "events")
    )


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
