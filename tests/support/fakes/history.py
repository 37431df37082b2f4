"""The history of the tests' objects in the API server's order, and what must never be in it."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from support.fakes.api import USER_AGENT, Api, Manifest
from support.fakes.proxy import Call
from wasession_api.kube.manifests import controller

WATCHED = (
    "whatsappsessions", "whatsappsessionbackups", "pods", "persistentvolumeclaims", "secrets",
    "networkpolicies", "leases",
)  # fmt: skip
SHARD = re.compile(r"-shard-(\d+)-of-(\d+)$")  # at the end of a Lease's name
PRECONDITIONS = {"uid", "resourceVersion"}
Key = tuple[str, str, str]  # plural, namespace, name


@dataclass(frozen=True)
class Change:
    """One event of a watch. ``version``, etcd's counter, orders the changes of all kinds."""

    version: int
    plural: str
    type: str  # ADDED, MODIFIED, DELETED
    object: Manifest
    managers: frozenset[str] = frozenset()  # field managers of the status

    @property
    def key(self) -> Key:
        metadata = self.object["metadata"]
        return self.plural, metadata["namespace"], metadata["name"]


class History:
    """Watches without a gap: when a watch cannot resume where it was, every waiter fails."""

    def __init__(self, api: Api) -> None:
        self.current: dict[Key, Manifest] = {}
        self._api = api
        self._changes: dict[str, list[Change]] = defaultdict(list)  # by namespace
        self._subscribers: list[Callable[[Change], None]] = []
        self._waiting: set[asyncio.Event] = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        for plural in WATCHED:
            listed = await self._api.list(plural)
            for item in listed["items"]:
                self._take(plural, "ADDED", item)
            task = asyncio.create_task(self._follow(plural, listed["metadata"]["resourceVersion"]))
            task.add_done_callback(lambda _: self.poke())
            self._tasks.append(task)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def subscribe(self, subscriber: Callable[[Change], None]) -> None:
        self._subscribers.append(subscriber)

    def of(self, namespace: str) -> list[Change]:
        """Return all changes in a namespace, in order."""
        return sorted(self._changes[namespace], key=lambda change: change.version)

    def objects(self, plural: str, namespace: str) -> list[Manifest]:
        return [obj for key, obj in self.current.items() if key[:2] == (plural, namespace)]

    async def until(self, condition: Callable[[], Any], what: str, timeout: float = 120) -> Any:
        """Wait until ``condition()`` is true, evaluated at each change, and return its value.

        Raises ``TimeoutError`` naming ``what``.
        """
        changed = asyncio.Event()
        self._waiting.add(changed)
        try:
            async with asyncio.timeout(timeout):
                while not (value := condition()):
                    for task in self._tasks:
                        if task.done():
                            task.result()
                    changed.clear()
                    await changed.wait()
                return value
        except TimeoutError:
            raise TimeoutError(f"{what}: not within {timeout:.0f} s") from None
        finally:
            self._waiting.discard(changed)

    async def catch_up(self, namespace: str) -> None:
        """Return when the watches have delivered the current state of a namespace."""
        for plural in WATCHED:
            listed = await self._api.list(plural, namespace)
            versions = {
                item["metadata"]["name"]: int(item["metadata"]["resourceVersion"])
                for item in listed["items"]
            }

            def delivered(plural: str = plural, versions: dict[str, int] = versions) -> bool:
                seen = {
                    obj["metadata"]["name"]: int(obj["metadata"]["resourceVersion"])
                    for obj in self.objects(plural, namespace)
                }
                return all(seen.get(name, 0) >= version for name, version in versions.items())

            await self.until(delivered, f"the watch of {plural} to catch up")

    def poke(self) -> None:
        """Have all waiters evaluate their conditions."""
        for changed in self._waiting:
            changed.set()

    async def _follow(self, plural: str, version: str) -> None:
        async for event in self._api.watch(plural, version):
            if event["type"] != "BOOKMARK":
                self._take(plural, event["type"], event["object"])

    def _take(self, plural: str, kind: str, obj: Manifest) -> None:
        fields = obj["metadata"].pop("managedFields", [])
        managers = frozenset(f["manager"] for f in fields if f.get("subresource") == "status")
        change = Change(int(obj["metadata"]["resourceVersion"]), plural, kind, obj, managers)
        before = self.current.get(change.key)
        if change.type == "DELETED":
            self.current.pop(change.key, None)
        else:
            self.current[change.key] = change.object
        if before is None or not _is_renewal(change, before):
            self._changes[change.key[1]].append(change)
        for subscriber in self._subscribers:
            subscriber(change)
        self.poke()


def _is_renewal(change: Change, before: Manifest) -> bool:
    """Return whether the holder of a Lease has renewed it, and nothing else has happened."""
    is_lease = (change.plural, change.type) == ("leases", "MODIFIED")
    return is_lease and _holder(before) == _holder(change.object)


def _holder(lease: Manifest) -> str:
    return lease.get("spec", {}).get("holderIdentity") or ""


def violations(
    changes: Iterable[Change], deleted_by_test: Iterable[Key] = (), calls: Iterable[Call] = ()
) -> Iterator[str]:
    """Describe what has happened and must never happen; pure.

    A volume claim has at most one pod at any time. A claim whose session has a valid login is
    neither deleted nor replaced unless its session is deleted. A session gets one token and one
    claim, and its status has one writer. Only the holder of a session's shard writes to it, and
    patches or deletes only what it has seen. ``deleted_by_test`` are objects that the test has
    deleted, not the operator; ``calls`` are those of all replicas.
    """
    changes = sorted(changes, key=lambda change: change.version)
    writes = [call for call in calls if call.uid and not call.dry_run]
    yield from _shared_claims(change for change in changes if change.plural == "pods")
    yield from _lost_or_duplicate_objects(changes, set(deleted_by_test))
    yield from _several_managers(changes)
    yield from _writes_without_shard(changes, writes)
    yield from _unconditional_writes(writes)


def _shared_claims(changes: Iterable[Change]) -> Iterator[str]:
    """Describe pods that were created while another pod had their claim."""
    users: dict[tuple[str, str], str] = {}  # claim -> UID of its pod
    for change in changes:
        metadata = change.object["metadata"]
        for name in _claims(change.object):
            claim = (metadata["namespace"], name)
            if change.type == "DELETED":
                users.pop(claim, None)
            elif users.setdefault(claim, metadata["uid"]) != metadata["uid"]:
                yield (
                    f"{change.version}: pod {metadata['name']} was created "
                    f"while another one had claim {name}"
                )


def _lost_or_duplicate_objects(changes: Iterable[Change], excused: set[Key]) -> Iterator[str]:
    """Describe claims and Secrets that were created twice, or lost with a valid login."""
    sessions: dict[tuple[str, str], Manifest] = {}
    created: set[tuple[Key, str]] = set()
    for change in changes:
        obj, metadata = change.object, change.object["metadata"]
        if change.plural == "whatsappsessions":
            sessions[change.key[1:]] = obj
            if change.type == "DELETED":
                del sessions[change.key[1:]]
            continue
        label = metadata.get("labels", {}).get("wasession.dev/session", "")
        session = sessions.get((metadata["namespace"], label))
        if session is None or change.plural == "pods":
            continue
        # A late write for a deleted session may come after its successor has been created.
        owner = controller(obj)
        name, uid = metadata["name"], (owner or session["metadata"])["uid"]
        with_login = change.plural == "persistentvolumeclaims" and _has_login(session)
        if change.type == "ADDED":
            again = (change.key, uid) in created and uid == session["metadata"]["uid"]
            if again and change.key not in excused:
                yield f"{change.version}: {change.plural} {name} was created twice for one session"
            created.add((change.key, uid))
            if with_login and not _is_loss_accepted(session):
                yield f"{change.version}: an empty claim replaced {name}, whose login was valid"
        deleted = change.type == "DELETED" or "deletionTimestamp" in metadata
        if deleted and with_login and change.key not in excused:
            yield f"{change.version}: claim {name} was deleted while its login was valid"


def _several_managers(changes: Iterable[Change]) -> Iterator[str]:
    """Describe sessions whose status has been written under more than one name."""
    for change in changes:
        managers = change.managers - {USER_AGENT}
        if change.plural == "whatsappsessions" and len(managers) > 1:
            names = " and ".join(sorted(managers))
            yield f"{change.version}: {names} wrote the status of session {change.key[2]}"


def _writes_without_shard(changes: list[Change], writes: list[Call]) -> Iterator[str]:
    """Describe writes to sessions by replicas that did not hold their shard, or not alone.

    A replica has a shard from its own write of the Lease until another replica's; what a person
    does to a Lease takes nothing away before that. Two installations, or one whose number of shards
    changes, have different Leases for a session: of two holders, only one may act.

    A creation has no precondition: what the network delivers too late takes effect if nobody else
    has created that name. Who has sent it has to have had the shard then.
    """
    leases = [write for write in writes if write.resource == "leases"]
    holders = _holders(leases)
    sessions = _sessions_of(changes)
    deletions = {
        change.object["metadata"]["uid"]: change.version
        for change in changes
        if change.type == "DELETED"
    }
    last: dict[tuple[str, str], tuple[int, str]] = {}  # session -> last write and its replica
    dated = [
        (write.version or deletions.get(write.uid, 0), sessions[write.uid], write)
        for write in writes
        if write.uid in sessions
        and write.resource != "events"
        and _has_effect(write)
        # Those of archives that are found in the store are created by who leads the namespace.
        and (write.verb, write.resource) != ("POST", "whatsappsessionbackups")
    ]
    times = Counter(version for version, _, _ in dated)
    for version, session, write in sorted(dated, key=lambda entry: entry[0]):
        since = _holds_since(write.replica, session, holders, version)
        if since is None and write.apply and times[version] > 1:
            continue  # it has applied what an earlier holder had applied already
        if since is None and write.verb == "POST":
            answered = [lease for lease in leases if lease.sent + lease.seconds <= write.sent]
            newest = max((lease.version for lease in answered), default=0)
            if _holds_since(write.replica, session, holders, newest + 1) is not None:
                continue
        what = (
            f"{version}: {write.replica!r} wrote {write.resource} of session {session[1]} "
            f"({write.seconds:.1f} s after it had sent it)"
        )
        before, writer = last.get(session, (0, write.replica))
        if since is None:
            yield f"{what} without its shard"
        elif before > since and writer != write.replica:
            yield f"{what}, and so did {writer!r} at {before}"
        last[session] = (version, write.replica)


Shard = tuple[str, int, int]  # name of its Lease, index, number of shards


def _holders(writes: Iterable[Call]) -> dict[Shard, list[tuple[int, str]]]:
    """Return who has had each shard from which version on, by the writes of their Leases."""
    holders: dict[Shard, list[tuple[int, str]]] = defaultdict(list)
    for write in sorted(writes, key=lambda write: write.version):
        spec = (write.body or {}).get("spec", {})
        name = write.name or write.body["metadata"]["name"]
        if (match := SHARD.search(name)) and "holderIdentity" in spec:
            known = holders[name, int(match[1]), int(match[2])]
            if not known or known[-1][1] != spec["holderIdentity"]:
                known.append((write.version, spec["holderIdentity"]))
    return holders


def _holds_since(
    replica: str,
    session: tuple[str, str],
    holders: dict[Shard, list[tuple[int, str]]],
    version: int,
) -> int | None:
    """Return since when a replica holds a shard with the session; None if it holds none."""
    number = zlib.crc32("/".join(session).encode())
    present = [
        [entry for entry in known if entry[0] < version][-1:]
        for (_, index, count), known in holders.items()
        if number % count == index
    ]
    return max(
        (since for [(since, holder)] in filter(None, present) if holder == replica), default=None
    )


def _unconditional_writes(writes: list[Call]) -> Iterator[str]:
    """Describe patches and deletes that would have hit another object, or another version."""
    for write in writes:
        if write.verb not in ("PATCH", "DELETE") or write.apply:
            continue
        if write.resource in ("leases", "events"):  # an Event only reports
            continue
        if missing := PRECONDITIONS - _preconditions(write).keys():
            conditions = " and ".join(sorted(missing))
            yield f"{write.version}: {write.verb} {write.resource} {write.name}: no {conditions}"


def _preconditions(write: Call) -> Manifest:
    """Return the UID and the version that an object must have for a write to take effect."""
    if isinstance(write.body, list):  # a JSON patch
        return {
            operation["path"].removeprefix("/metadata/"): operation["value"]
            for operation in write.body
            if operation["op"] in ("test", "replace")
        }
    field = "preconditions" if write.verb == "DELETE" else "metadata"
    conditions: Manifest = write.body.get(field, {})
    return conditions


def _has_effect(write: Call) -> bool:
    """Return whether a write has not left its object at the version that it was meant for."""
    return _preconditions(write).get("resourceVersion") != str(write.version)


def _sessions_of(changes: list[Change]) -> dict[str, tuple[str, str]]:
    """Return the namespace and name of the session of each object, by the object's UID."""
    sessions = {}
    for change in changes:
        metadata = change.object["metadata"]
        name = metadata.get("labels", {}).get("wasession.dev/session")
        if change.plural == "whatsappsessions":
            name = metadata["name"]
        elif change.plural == "whatsappsessionbackups":
            spec = change.object["spec"]
            name = spec.get("sessionName") or spec["importFrom"]["name"]
        if name is not None:
            sessions[metadata["uid"]] = (metadata["namespace"], name)
    return sessions


def _is_loss_accepted(session: Manifest) -> bool:
    loss = session.get("status", {}).get("volumeLoss", {})
    annotations = session["metadata"].get("annotations", {})
    accepted = annotations.get("wasession.dev/accept-data-loss")
    return accepted is not None and accepted == loss.get("nonce")


def _has_login(session: Manifest) -> bool:
    """Return whether the session has a valid login that must survive."""
    deleting = "deletionTimestamp" in session["metadata"]
    return bool(session.get("status", {}).get("sessionValid")) and not deleting


def _claims(pod: Manifest) -> list[str]:
    volumes = pod["spec"].get("volumes", [])
    return [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in volumes
        if "persistentVolumeClaim" in volume
    ]
