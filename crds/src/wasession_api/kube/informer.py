"""Keeps one kind of object as the API server has it: listed once, watched ever after.

kopf does this for WhatsAppSessions. For what sessions are made of it does not do: it tells nobody
of objects that went away while its watch was cut off, and it spends some milliseconds on each
event.
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
Changed = Callable[[Manifest | None, Manifest | None], None]  # as it was, as it is
Transform = Callable[[Manifest], Manifest]  # what is kept of an object
RETRY_FIRST, RETRY_LAST = 0.5, 15.0  # seconds


def without_managed_fields(found: Manifest) -> Manifest:
    """An object without the notes about who has written what of it, which are most of it."""
    return {
        **found,
        "metadata": {
            name: value for name, value in found["metadata"].items() if name != "managedFields"
        },
    }


class Informer:
    """``objects`` are the present ones. ``changed`` is called for each difference, also for the ones found at the start.

    ``kept`` says what of each is held in memory: its namespace, name, uid and resourceVersion at
    least; and ``objects`` may be something else than a dict.
    """

    def __init__(
        self,
        kube: KubeClient,
        resource: Resource,
        namespaces: Sequence[str],
        selector: str,
        changed: Changed,
        kept: Transform = without_managed_fields,
        objects: MutableMapping[Key, Manifest] | None = None,
    ) -> None:
        self.resource = resource
        self.objects = {} if objects is None else objects
        self._kube = kube
        self._selector = selector
        self._changed = changed
        self._kept = kept
        self._versions: dict[str | None, str | None] = dict.fromkeys(
            namespaces if resource.namespaced else ()
        ) or {None: None}
        self._heard: dict[str | None, float] = dict.fromkeys(self._versions, time.monotonic())
        self._listed: set[str | None] = set()
        self._synced = asyncio.Event()

    async def run(self) -> None:
        """Never returns."""
        await asyncio.gather(*(self._follow(namespace) for namespace in self._versions))

    async def synced(self) -> None:
        """Returns when everything has been listed once."""
        await self._synced.wait()

    @property
    def is_synced(self) -> bool:
        return self._synced.is_set()

    @property
    def age(self) -> float:
        """Seconds since the API server has last been heard, in the namespace where that is the longest ago."""
        return time.monotonic() - min(self._heard.values())

    def remember(self, found: Manifest) -> None:
        """Takes what the API server has answered to a call, which the watch tells only later, and possibly never."""
        if found.get("kind", self.resource.kind) != self.resource.kind:
            return
        key, present = key_of(found), self.objects.get(key_of(found))
        known = present["metadata"]["resourceVersion"] if present else self._version(key)
        if known is None or is_newer(found["metadata"]["resourceVersion"], known):
            self._keep(key, self._kept(found))

    # --- one namespace, or the cluster ------------------------------------------------------------

    async def _follow(self, namespace: str | None) -> None:
        delay = RETRY_FIRST
        while True:
            began = time.monotonic()
            try:
                if self._versions[namespace] is None:
                    await self._list(namespace)
                await self._stream(namespace)
            except ResourceExpired:
                log.info("watch is too old, listing anew", extra=self._where(namespace))
                self._versions[namespace] = None
            except (Unavailable, Rejected) as error:
                log.warning("watch cut off", extra={**self._where(namespace), "error": str(error)})
            # A stream that has lasted is opened again at once; whatever ends at once must not do so
            # in a tight loop.
            delay = (
                RETRY_FIRST if time.monotonic() - began > RETRY_LAST else min(delay * 2, RETRY_LAST)
            )
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311

    async def _list(self, namespace: str | None) -> None:
        before = {key for key in self.objects if namespace is None or key[0] == namespace}
        present: set[Key] = set()
        version = ""
        async for page in self._kube.pages(self.resource, namespace, self._selector):
            version = page["metadata"]["resourceVersion"]
            for item in page["items"]:
                present.add(key_of(item))
                self._keep(key_of(item), self._kept(item))
        for key in before - present:
            item = self.objects.get(key)
            if item is not None and not is_newer(item["metadata"]["resourceVersion"], version):
                self._remove(key, item)
        self._versions[namespace] = version
        self._heard[namespace] = time.monotonic()
        self._listed.add(namespace)
        if len(self._listed) == len(self._versions):
            self._synced.set()

    async def _stream(self, namespace: str | None) -> None:
        version = self._versions[namespace]
        assert version is not None
        async with contextlib.aclosing(
            self._kube.watch(self.resource, namespace, self._selector, version)
        ) as events:
            async for event in events:
                self._heard[namespace] = time.monotonic()
                found = event["object"]
                if event["type"] in ("ADDED", "MODIFIED"):
                    self._keep(key_of(found), self._kept(found))
                elif event["type"] == "DELETED":
                    self._remove(key_of(found), found)
                self._versions[namespace] = found["metadata"]["resourceVersion"]

    def _keep(self, key: Key, found: Manifest) -> None:
        before = self.objects.get(key)
        if before is not None and is_newer(
            before["metadata"]["resourceVersion"], found["metadata"]["resourceVersion"]
        ):
            return  # a call's answer was ahead of the watch
        if (
            before is not None
            and before["metadata"]["resourceVersion"] == found["metadata"]["resourceVersion"]
        ):
            return
        self.objects[key] = after = {**found, "kind": self.resource.kind}
        self._changed(before, after)

    def _remove(self, key: Key, found: Manifest) -> None:
        before = self.objects.get(key)
        if before is not None and before["metadata"]["uid"] == found["metadata"]["uid"]:
            del self.objects[key]
            self._changed(before, None)

    def _version(self, key: Key) -> str | None:
        return self._versions.get(key[0], self._versions.get(None))

    def _where(self, namespace: str | None) -> dict[str, Any]:
        return {"resource": self.resource.plural, "namespace": namespace}


def is_newer(one: str, other: str) -> bool:
    """Whether a resource version is later than another: they are numbers that grow, since Kubernetes 1.35 by contract.

    See https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
    """
    return one.isdecimal() and other.isdecimal() and int(one) > int(other)
