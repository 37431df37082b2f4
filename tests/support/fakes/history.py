"""The history of the tests' objects in the API server's order, and what must never be in it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from support.fakes.api import Api, Manifest
from wasession_api.kube.manifests import controller

WATCHED = (
    "whatsappsessions", "pods", "persistentvolumeclaims", "secrets", "networkpolicies",
)  # fmt: skip
Key = tuple[str, str, str]  # plural, namespace, name


@dataclass(frozen=True)
class Change:
    """One event of a watch. ``version``, etcd's counter, orders the changes of all kinds."""

    version: int
    plural: str
    type: str  # ADDED, MODIFIED, DELETED
    object: Manifest

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
                self._take(Change(int(item["metadata"]["resourceVersion"]), plural, "ADDED", item))
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
            obj = event["object"]
            if event["type"] != "BOOKMARK":
                self._take(
                    Change(int(obj["metadata"]["resourceVersion"]), plural, event["type"], obj)
                )

    def _take(self, change: Change) -> None:
        change.object["metadata"].pop("managedFields", None)
        if change.type == "DELETED":
            self.current.pop(change.key, None)
        else:
            self.current[change.key] = change.object
        self._changes[change.key[1]].append(change)
        for subscriber in self._subscribers:
            subscriber(change)
        self.poke()


def violations(changes: Iterable[Change], deleted_by_test: Iterable[Key] = ()) -> Iterator[str]:
    """Describe what has happened and must never happen; pure.

    A volume claim has at most one pod at any time. A claim whose session has a valid login is
    neither deleted nor replaced unless its session is deleted. A session gets one token and one
    claim. ``deleted_by_test`` are objects that the test has deleted, not the operator.
    """
    changes = sorted(changes, key=lambda change: change.version)
    yield from _shared_claims(change for change in changes if change.plural == "pods")
    yield from _lost_or_duplicate_objects(changes, set(deleted_by_test))


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
            if (change.key, uid) in created and change.key not in excused:
                yield f"{change.version}: {change.plural} {name} was created twice for one session"
            created.add((change.key, uid))
            if with_login and not _is_loss_accepted(session):
                yield f"{change.version}: an empty claim replaced {name}, whose login was valid"
        deleted = change.type == "DELETED" or "deletionTimestamp" in metadata
        if deleted and with_login and change.key not in excused:
            yield f"{change.version}: claim {name} was deleted while its login was valid"


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
