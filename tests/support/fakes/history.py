"""Everything that happened to the objects of the tests, in the API server's own order, and what must never be in it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from support.fakes.api import Api, Manifest

WATCHED = ("whatsappsessions", "pods", "persistentvolumeclaims", "secrets")
Key = tuple[str, str, str]  # plural, namespace, name


@dataclass(frozen=True)
class Change:
    """One event of a watch. ``version`` orders the changes of all kinds: it is etcd's own counter."""

    version: int
    plural: str
    type: str  # ADDED, MODIFIED, DELETED
    object: Manifest

    @property
    def key(self) -> Key:
        metadata = self.object["metadata"]
        return self.plural, metadata["namespace"], metadata["name"]


class History:
    """Watches from the very beginning, without a gap: a watch that can't go on where it was fails whoever waits."""

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
        """All changes in a namespace in their order."""
        return sorted(self._changes[namespace], key=lambda change: change.version)

    def objects(self, plural: str, namespace: str) -> list[Manifest]:
        return [found for key, found in self.current.items() if key[:2] == (plural, namespace)]

    async def until(self, condition: Callable[[], Any], what: str, timeout: float = 120) -> Any:
        """Waits until ``condition()`` is true of what has been seen, and returns its value; ``TimeoutError`` says ``what``."""
        changed = asyncio.Event()
        self._waiting.add(changed)
        try:
            async with asyncio.timeout(timeout):
                while not (found := condition()):
                    for task in self._tasks:
                        if task.done():
                            task.result()
                    changed.clear()
                    await changed.wait()
                return found
        except TimeoutError:
            raise TimeoutError(f"{what}: not within {timeout:.0f} s") from None
        finally:
            self._waiting.discard(changed)

    async def catch_up(self, namespace: str) -> None:
        """Returns when the watches have told all that the API server knows of a namespace now."""
        for plural in WATCHED:
            listed = await self._api.list(plural, namespace)
            versions = {
                item["metadata"]["name"]: int(item["metadata"]["resourceVersion"])
                for item in listed["items"]
            }

            def told(plural: str = plural, versions: dict[str, int] = versions) -> bool:
                seen = {
                    found["metadata"]["name"]: int(found["metadata"]["resourceVersion"])
                    for found in self.objects(plural, namespace)
                }
                return all(seen.get(name, 0) >= version for name, version in versions.items())

            await self.until(told, f"the watch of {plural} to catch up")

    def poke(self) -> None:
        """Has everybody who waits look again."""
        for changed in self._waiting:
            changed.set()

    async def _follow(self, plural: str, version: str) -> None:
        async for event in self._api.watch(plural, version):
            found = event["object"]
            if event["type"] != "BOOKMARK":
                self._take(
                    Change(int(found["metadata"]["resourceVersion"]), plural, event["type"], found)
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
    """What must never happen, in words: pure.

    At most one pod per volume claim at any time; a claim whose session has a valid login is neither
    deleted nor replaced, except that its session is deleted; a session gets one token and one
    claim, whatever happens meanwhile. ``deleted_by_test`` are objects that somebody else than the
    operator took away.
    """
    excused = set(deleted_by_test)
    sessions: dict[tuple[str, str], Manifest] = {}
    users: dict[tuple[str, str], Manifest] = {}  # the pod of each claim
    made: set[tuple[Key, str]] = set()
    for change in sorted(changes, key=lambda change: change.version):
        found, metadata = change.object, change.object["metadata"]
        where = (metadata["namespace"], metadata["name"])
        if change.plural == "whatsappsessions":
            if change.type == "DELETED":
                sessions.pop(where, None)
            else:
                sessions[where] = found
            continue
        if change.plural == "pods":
            for claim in _claims(found):
                place = (metadata["namespace"], claim)
                other = users.get(place)
                if change.type == "DELETED":
                    users.pop(place, None)
                elif other is not None and other["metadata"]["uid"] != metadata["uid"]:
                    yield f"{change.version}: pod {metadata['name']} was created while another one had claim {claim}"
                else:
                    users[place] = found
            continue
        session = sessions.get(
            (metadata["namespace"], metadata.get("labels", {}).get("wasession.dev/session", ""))
        )
        if session is None:
            continue
        valid = (
            session.get("status", {}).get("sessionValid")
            and "deletionTimestamp" not in session["metadata"]
        )
        if change.type == "ADDED":
            if (change.key, session["metadata"]["uid"]) in made and change.key not in excused:
                yield f"{change.version}: {change.plural} {where[1]} was created twice for one session"
            made.add((change.key, session["metadata"]["uid"]))
            if valid and change.plural == "persistentvolumeclaims":
                yield f"{change.version}: an empty claim took the place of {where[1]}, whose login was valid"
        going = change.type == "DELETED" or "deletionTimestamp" in metadata
        if (
            going
            and valid
            and change.plural == "persistentvolumeclaims"
            and change.key not in excused
        ):
            yield f"{change.version}: claim {where[1]} was deleted while its login was valid"


def _claims(pod: Manifest) -> list[str]:
    volumes = pod["spec"].get("volumes", [])
    return [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in volumes
        if "persistentVolumeClaim" in volume
    ]
