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
from typing import Any

from wasession_api.kube.client import KubeClient, Rejected, Resource, ResourceExpired, Unavailable
from wasession_api.kube.manifests import Key, Manifest, key_of

log = logging.getLogger(__name__)
OnChange = Callable[[Manifest | None, Manifest | None], None]  # the object before and after
Transform = Callable[[Manifest], Manifest]
RETRY_FIRST, RETRY_LAST = 0.5, 15.0  # seconds


def without_managed_fields(obj: Manifest) -> Manifest:
    """Return the object without ``managedFields``, which are most of its size."""
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**obj, "metadata": metadata}


class Informer:
    """Keep ``objects`` equal to what the API server has; call ``on_change`` for each change.

    The objects of the first list are changes too. ``transform`` reduces an object to what the
    cache holds of it: at least namespace, name, uid and resourceVersion. ``objects`` may be a
    mapping that stores them more compactly than a dict.
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
    ) -> None:
        """Watch ``namespaces``, or the whole cluster when there are none."""
        self.resource = resource
        self.objects = {} if objects is None else objects
        self._kube = kube
        self._selector = selector
        self._on_change = on_change
        self._transform = transform
        self._versions: dict[str | None, str | None] = dict.fromkeys(
            namespaces if resource.namespaced else ()
        ) or {None: None}
        self._last_event: dict[str | None, float] = dict.fromkeys(self._versions, time.monotonic())
        self._listed: set[str | None] = set()
        self._synced = asyncio.Event()

    async def run(self) -> None:
        """List and watch until cancelled."""
        await asyncio.gather(*(self._list_and_watch(namespace) for namespace in self._versions))

    async def wait_for_sync(self) -> None:
        """Return once everything has been listed."""
        await self._synced.wait()

    @property
    def is_synced(self) -> bool:
        return self._synced.is_set()

    @property
    def age(self) -> float:
        """Seconds since the last event or list; of several namespaces, the oldest counts."""
        return time.monotonic() - min(self._last_event.values())

    def upsert(self, obj: Manifest) -> None:
        """Add the answer to a write, ahead of its watch event, which may never come."""
        if obj.get("kind", self.resource.kind) != self.resource.kind:
            return
        key = key_of(obj)
        cached = self.objects.get(key)
        known = cached["metadata"]["resourceVersion"] if cached else self._version(key)
        if known is None or is_newer(obj["metadata"]["resourceVersion"], known):
            self._upsert(key, self._transform(obj))

    # --- one namespace, or the cluster ------------------------------------------------------------

    async def _list_and_watch(self, namespace: str | None) -> None:
        delay = RETRY_FIRST
        while True:
            began = time.monotonic()
            try:
                if self._versions[namespace] is None:
                    await self._list(namespace)
                await self._watch(namespace)
            except ResourceExpired:
                log.info("watch expired; listing again", extra=self._extra(namespace))
                self._versions[namespace] = None
            except (Unavailable, Rejected) as error:
                log.warning(
                    "watch failed; retrying", extra={**self._extra(namespace), "error": str(error)}
                )
            # A watch that lasted is reopened at once; one that fails at once must not spin.
            delay = (
                RETRY_FIRST if time.monotonic() - began > RETRY_LAST else min(delay * 2, RETRY_LAST)
            )
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311

    async def _list(self, namespace: str | None) -> None:
        before = {key for key in self.objects if namespace is None or key[0] == namespace}
        listed: set[Key] = set()
    async def read(self, key: Key) -> Manifest | None:
        """Return an object as the API server has it, even one that the selector does not match.

        The cache stays as it is: no event would tell it when such an object changes.
        """
        obj = await self._kube.get(self.resource, *key)
        return None if obj is None else {**self._transform(obj), "kind": self.resource.kind}

        version = ""
        async for page in self._kube.pages(self.resource, namespace, self._selector):
            version = page["metadata"]["resourceVersion"]
            for obj in page["items"]:
                listed.add(key_of(obj))
                self._upsert(key_of(obj), self._transform(obj))
        for key in before - listed:
            cached = self.objects.get(key)
            if cached is not None and not is_newer(cached["metadata"]["resourceVersion"], version):
                self._remove(key, cached)
        self._versions[namespace] = version
        self._last_event[namespace] = time.monotonic()
        self._listed.add(namespace)
        if len(self._listed) == len(self._versions):
            self._synced.set()

    async def _watch(self, namespace: str | None) -> None:
        version = self._versions[namespace]
        assert version is not None
        async with contextlib.aclosing(
            self._kube.watch(self.resource, namespace, self._selector, version)
        ) as events:
            async for event in events:
                self._last_event[namespace] = time.monotonic()
                obj = event["object"]
                if event["type"] in ("ADDED", "MODIFIED"):
                    self._upsert(key_of(obj), self._transform(obj))
                elif event["type"] == "DELETED":
                    self._remove(key_of(obj), obj)
                self._versions[namespace] = obj["metadata"]["resourceVersion"]

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

    def _version(self, key: Key) -> str | None:
        return self._versions.get(key[0], self._versions.get(None))

    def _extra(self, namespace: str | None) -> dict[str, Any]:
        return {"resource": self.resource.plural, "namespace": namespace}


def is_newer(version: str, other: str) -> bool:
    """Return whether a resource version is later than another.

    They are growing numbers, by contract since Kubernetes 1.35:
    https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
    """
    return version.isdecimal() and other.isdecimal() and int(version) > int(other)
