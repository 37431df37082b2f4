"""An informer: a cache of one resource, listed once and then watched.

kopf watches WhatsAppSessions. It does not suit the objects that sessions consist of: it reports no
objects that were deleted while its watch was down, and spends milliseconds on each event.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wasession_api.kube.client import (
    PAGE_SIZE,
    KubeClient,
    Rejected,
    Resource,
    ResourceExpired,
    Unavailable,
)
from wasession_api.kube.manifests import Key, Manifest, key_of

log = logging.getLogger(__name__)
OnChange = Callable[[Manifest | None, Manifest | None], None]  # the object before and after
Transform = Callable[[Manifest], Manifest]
RETRY_FIRST, RETRY_LAST = 0.5, 15.0  # seconds
RELIST_AFTER = 3  # failures of a watch in a row
LARGER_PAGES, LARGEST_PAGE = 5, 2500  # times; objects
REJECTED_AFTER = 60.0  # seconds for which the API server answers others but not a watch


class ClusterRestored(Exception):
    """The API server has an older state than it had before: etcd was restored from a snapshot.

    Nothing that a process knows of the cluster counts any more, and resource versions are used
    again: a watch would be silent until the old one is reached. So start again.
    """


def log_failure(logger: logging.Logger, message: str, error: BaseException | None) -> None:
    """Log why a process exits. Unless etcd was restored, it is a bug, with its traceback."""
    if (restored := _restoration_in(error)) is not None:
        logger.critical("ClusterRestored: starting again", extra={"error": str(restored)})
    else:
        logger.critical(message, exc_info=error)


def _restoration_in(error: BaseException | None) -> ClusterRestored | None:
    """Return the ``ClusterRestored`` that an error is, or a group of errors has; None if none."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(_restoration_in, error.exceptions)), None)
    return error if isinstance(error, ClusterRestored) else None


def without_managed_fields(obj: Manifest) -> Manifest:
    """Return the object without ``managedFields``, which are most of its size."""
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**obj, "metadata": metadata}


@dataclass(slots=True)
class _Watch:
    """The watch of one namespace, or of the cluster. Times are monotonic."""

    version: str | None = None  # the latest that was seen; None before the first list
    relist: bool = True  # before it can be watched from that version
    page_size: int = PAGE_SIZE  # objects, of the next list
    listed: bool = False  # at least once
    error: str | None = None  # why the API server rejects it
    last_event: float = field(default_factory=time.monotonic)
    failures: int = 0  # since the last event
    failing_since: float | None = None  # since the last event or list


class Informer:
    """Keep ``objects`` equal to what the API server has; call ``on_change`` for each change.

    The objects of the first list are changes too. ``transform`` reduces an object to what the
    cache holds of it: at least namespace, name, uid and resourceVersion. ``objects`` may be a
    mapping that stores them more compactly than a dict.

    Namespaces are independent: one that is deleted or forbidden holds up no other, and neither does
    one for which the API server has only errors while it answers everything else. ``on_sync`` is
    called with a namespace (None: the cluster) when it has synced, or is rejected.

    A watch that fails goes on where it was. One that fails repeatedly starts again from a list, in
    case that its resource version is what the API server cannot cope with; so a cache is never
    older than a few retries as long as lists succeed. ``run`` raises ``ClusterRestored`` when the
    API server has gone back in time.
    """

    def __init__(
        self,
        kube: KubeClient,
        resource: Resource,
        namespaces: Sequence[str],
        selector: str,
        on_change: OnChange,
        transform: Transform = without_managed_fields,
        objects: MutableMapping[Key, Manifest] | None = None,
        on_sync: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        """Watch ``namespaces``, or the whole cluster when there are none."""
        self.resource = resource
        self.objects = {} if objects is None else objects
        self._kube = kube
        self._selector = selector
        self._on_change = on_change
        self._transform = transform
        self._on_sync = on_sync
        scopes: Sequence[str | None] = namespaces if resource.namespaced else ()
        self._watches: dict[str | None, _Watch] = {scope: _Watch() for scope in scopes or (None,)}
        self._synced = asyncio.Event()

    async def run(self) -> None:
        """List and watch until cancelled."""
        await asyncio.gather(*(self._list_and_watch(namespace) for namespace in self._watches))

    async def wait_for_sync(self) -> None:
        """Return once everything has been listed."""
        await self._synced.wait()

    @property
    def is_synced(self) -> bool:
        return self._synced.is_set()

    def has_synced(self, namespace: str | None) -> bool:
        """Return whether the cache has the objects of a namespace, and follows their changes."""
        watch = self._watch_of(namespace)
        return watch.listed and watch.error is None

    def rejection(self, namespace: str | None) -> str | None:
        """Return why the API server does not let a namespace be listed or watched, if so."""
        return self._watch_of(namespace).error

    @property
    def age(self) -> float:
        """Seconds since the last event or list; of several namespaces, the oldest counts.

        Namespaces that the API server rejects do not count: their watch is not silent.
        """
        events = [watch.last_event for watch in self._watches.values() if watch.error is None]
        return time.monotonic() - min(events) if events else 0.0

    def upsert(self, obj: Manifest) -> None:
        """Add the answer to a write, ahead of its watch event, which may never come."""
        if obj.get("kind", self.resource.kind) != self.resource.kind:
            return
        key = key_of(obj)
        cached = self.objects.get(key)
        known = cached["metadata"]["resourceVersion"] if cached else self._watch_of(key[0]).version
        if known is None or is_newer(obj["metadata"]["resourceVersion"], known):
            self._upsert(key, self._transform(obj))

    async def read(self, key: Key) -> Manifest | None:
        """Return an object as the API server has it, even one that the selector does not match.

        The cache stays as it is: no event would tell it when such an object changes.
        """
        obj = await self._kube.get(self.resource, *key)
        return None if obj is None else {**self._transform(obj), "kind": self.resource.kind}

    # --- one namespace, or the cluster ------------------------------------------------------------

    async def _list_and_watch(self, namespace: str | None) -> None:
        watch, delay = self._watches[namespace], RETRY_FIRST
        while True:
            began = time.monotonic()
            try:
                if watch.relist:
                    await self._list(namespace)
                elif watch.failures:
                    await self._check_history(namespace)
                await self._watch(namespace)
            except ResourceExpired as error:
                watch.relist = True
                self._fail(namespace, f"expired {error}".rstrip())
            except Unavailable as error:
                self._fail(namespace, str(error))
            except Rejected as error:
                self._fail(namespace, str(error))
                self._reject(namespace, str(error))
            # A watch that lasted is reopened at once; one that fails at once must not spin.
            delay = (
                RETRY_FIRST if time.monotonic() - began > RETRY_LAST else min(delay * 2, RETRY_LAST)
            )
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311

    async def _list(self, namespace: str | None) -> None:
        before = {key for key in self.objects if namespace is None or key[0] == namespace}
        listed: set[Key] = set()
        version = ""
        watch = self._watches[namespace]
        try:
            async for page in self._kube.pages(
                self.resource, namespace, self._selector, page_size=watch.page_size
            ):
                version = self._version_of(page, watch)
                for obj in page["items"]:
                    listed.add(key_of(obj))
                    self._upsert(key_of(obj), self._transform(obj))
        except ResourceExpired:
            # etcd is compacted every five minutes: a slow API server needs more for small pages.
            watch.page_size = min(watch.page_size * LARGER_PAGES, LARGEST_PAGE)
            raise
        for key in before - listed:
            cached = self.objects.get(key)
            if cached is not None and not is_newer(cached["metadata"]["resourceVersion"], version):
                self._remove(key, cached)
        watch.version, watch.page_size, watch.relist = version, PAGE_SIZE, False
        self._accept(namespace)

    async def _check_history(self, namespace: str | None) -> None:
        """Raise ``ClusterRestored`` if the version to watch from is one of a lost future."""
        pages = self._kube.pages(self.resource, namespace, self._selector, page_size=1)
        async with contextlib.aclosing(pages):
            self._version_of(await anext(pages), self._watches[namespace])

    def _version_of(self, page: Manifest, watch: _Watch) -> str:
        """Return the version of a list, which is never older than what was seen before it."""
        version: str = page["metadata"]["resourceVersion"]
        if watch.version is not None and is_newer(watch.version, version):
            raise ClusterRestored(
                f"{self.resource.plural} are at version {version}, and were at {watch.version}: "
                "etcd was restored from an older snapshot"
            )
        return version

    async def _watch(self, namespace: str | None) -> None:
        """Follow changes until the watch ends. The API server ends none before its first event."""
        watch, opened, events_seen = self._watches[namespace], False, False
        assert watch.version is not None
        async with contextlib.aclosing(
            self._kube.watch(self.resource, namespace, self._selector, watch.version)
        ) as events:
            async for event in events:
                self._accept(namespace)
                opened, events_seen = True, opened
                if events_seen:
                    self._recover(namespace)
                obj = event["object"]
                if event["type"] in ("ADDED", "MODIFIED"):
                    self._upsert(key_of(obj), self._transform(obj))
                elif event["type"] == "DELETED":
                    self._remove(key_of(obj), obj)
                watch.version = obj["metadata"]["resourceVersion"]
        if not events_seen:
            raise Unavailable("the watch has ended, or was silent, without an event")

    def _accept(self, namespace: str | None) -> None:
        """Note that a namespace has been listed, or that its watch has delivered something."""
        watch = self._watches[namespace]
        watch.last_event, watch.failing_since = time.monotonic(), None
        if watch.listed and watch.error is None:
            return
        watch.listed, watch.error = True, None
        if all(watch.listed for watch in self._watches.values()):
            self._synced.set()
        self._on_sync(namespace)

    def _fail(self, namespace: str | None, error: str) -> None:
        """Note that a list or a watch has failed; it is retried."""
        watch, now = self._watches[namespace], time.monotonic()
        watch.failures += 1
        watch.failing_since = watch.failing_since or now
        if watch.failures >= RELIST_AFTER:
            watch.relist = True
        if is_worth_logging(watch.failures):
            log.warning(
                "watch failed; retrying",
                extra={**self._extra(namespace), "error": error, "failures": watch.failures},
            )
        answers = self._kube.answers
        if answers.last - max(watch.failing_since, answers.since) > REJECTED_AFTER:
            self._reject(namespace, error)

    def _recover(self, namespace: str | None) -> None:
        """Note that a watch delivers events."""
        watch = self._watches[namespace]
        if watch.failures > 1:
            log.info(
                "watch works again",
                extra={**self._extra(namespace), "failures": watch.failures},
            )
        watch.failures = 0

    def _reject(self, namespace: str | None, error: str) -> None:
        """Note why a namespace cannot be listed or watched; it is retried like any other."""
        watch = self._watches[namespace]
        if watch.error is not None:
            return
        watch.error = error
        log.warning(
            "watch rejected; retrying, and what depends on it waits",
            extra={**self._extra(namespace), "error": error},
        )
        self._on_sync(namespace)

    def _upsert(self, key: Key, obj: Manifest) -> None:
        before = self.objects.get(key)
        if before is not None:
            cached, version = (
                before["metadata"]["resourceVersion"],
                obj["metadata"]["resourceVersion"],
            )
            if cached == version or is_newer(cached, version):
                return  # a write's answer was ahead of the watch
        self.objects[key] = after = {**obj, "kind": self.resource.kind}
        self._on_change(before, after)

    def _remove(self, key: Key, obj: Manifest) -> None:
        before = self.objects.get(key)
        if before is not None and before["metadata"]["uid"] == obj["metadata"]["uid"]:
            del self.objects[key]
            self._on_change(before, None)

    def _watch_of(self, namespace: str | None) -> _Watch:
        return self._watches.get(namespace) or self._watches[None]

    def _extra(self, namespace: str | None) -> dict[str, Any]:
        return {"resource": self.resource.plural, "namespace": namespace}


def is_worth_logging(failures: int) -> bool:
    """Return whether the failure of this number in a row should be logged: 1, 2, 4, 8 and so on."""
    return failures & (failures - 1) == 0


def is_newer(version: str, other: str) -> bool:
    """Return whether a resource version is later than another.

    They are growing numbers, by contract since Kubernetes 1.35:
    https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
    """
    return version.isdecimal() and other.isdecimal() and int(version) > int(other)
