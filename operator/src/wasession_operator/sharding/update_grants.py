"""Rolling updates across shards: each one requests, and the one that leads a scope grants. Pure.

A scope, such as a class, has sessions in all shards. Each shard notes in its Lease which of them
would be updated next, and the shard that leads the scope notes in its own which of them may. Only
the holder of a Lease can write it, and a successor finds what was granted before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from pydantic.dataclasses import dataclass as validated
from pydantic_core import from_json, to_json

# Bytes of requests, and as many of grants. The API server rejects annotations of more than 256 KiB
# in all, and a Lease that cannot be written cannot be renewed.
ROOM = 32 * 2**10


@dataclass(frozen=True)
class UpdateNotes:
    """What the Lease of a shard says. Scopes are written as ``class/gold``.

    ``requests``: by scope, sessions (``namespace/name``) and the ID of their request. ``grants``:
    by scope, the IDs of requests. An ID is never used twice, so a grant that is outdated fits no
    request. ``admitted``: by class, the name of a revision, and the sessions that its rollout has
    reached.
    """

    requests: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    grants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    admitted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def dump(self) -> str:
        """Return the annotation, with what there is room for; empty if there is nothing to say."""
        if not self.requests and not self.grants and not self.admitted:
            return ""
        requests = fit_requests(
            (scope, *entry) for scope, entries in self.requests.items() for entry in entries.items()
        )
        grants: dict[str, list[str]] = {}
        for scope, granted in _fit((name, id_) for name, ids in self.grants.items() for id_ in ids):
            grants.setdefault(scope, []).append(granted)
        said: dict[str, Any] = {"requests": requests, "grants": dict(sorted(grants.items()))}
        admitted: dict[str, list[str]] = {}
        for name, revision, session in _fit(
            (name, revision, session)
            for name, (revision, *sessions) in self.admitted.items()
            for session in sessions
        ):
            admitted.setdefault(name, [revision]).append(session)
        return to_json(said | ({"admitted": admitted} if admitted else {})).decode()


@validated(frozen=True)
class _Notes:
    requests: dict[str, dict[str, str]]
    grants: dict[str, list[str]]
    admitted: dict[str, list[str]] = field(default_factory=dict)


def fit_requests(requests: Iterable[tuple[str, ...]]) -> dict[str, dict[str, str]]:
    """Return the requests that there is room for; each is a scope, a session and an ID.

    The first ones fit; the others have their turn when some of these are fulfilled.
    """
    fitting: dict[str, dict[str, str]] = {}
    for scope, session, request in _fit(requests):
        fitting.setdefault(scope, {})[session] = request
    return fitting


def _fit(entries: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Yield entries until there is no room for the next one."""
    room = ROOM
    for entry in entries:
        room -= len(to_json(entry))
        if room < 0:
            return
        yield entry


def parse_notes(annotation: str) -> UpdateNotes:
    """Read an annotation; what somebody has edited to nonsense says nothing."""
    if not annotation:
        return UpdateNotes()
    try:
        payload: Any = from_json(annotation)
        notes = _Notes(**payload)
    except (ValueError, TypeError, ValidationError):
        return UpdateNotes()
    return UpdateNotes(
        notes.requests,
        {scope: tuple(ids) for scope, ids in notes.grants.items()},
        {name: tuple(entry) for name, entry in notes.admitted.items()},
    )


def grant(
    limit: int,
    requests: Mapping[str, str],
    granted: Iterable[str],
    updating: Iterable[str],
    *,
    halted: bool,
) -> tuple[str, ...]:
    """Return the IDs of the requests of a scope that are granted.

    ``requests``: of all shards, by session. ``granted``: the IDs so far. ``updating``: sessions of
    the scope that are being updated; they count in any case. While the scope is ``halted``, nothing
    new is granted.
    """
    granted, updating = set(granted), set(updating)
    kept = {
        session
        for session, request in requests.items()
        if request in granted or session in updating
    }
    free = 0 if halted else max(limit - len(kept | updating), 0)
    new = sorted(requests.keys() - kept)[:free]
    return tuple(sorted(requests[session] for session in [*kept, *new]))
