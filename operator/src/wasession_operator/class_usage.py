"""What follows from the use of classes: their status, and the end of unused NetworkPolicies."""

from __future__ import annotations

import asyncio
import logging

from wasession_api.kube.client import CLASSES, Conflict, KubeClient, Rejected, Unavailable
from wasession_api.kube.manifests import Manifest, key_of
from wasession_api.v1alpha1 import API_VERSION, CLASS_KIND, ClassUse

from wasession_operator.controller import Controller

log = logging.getLogger(__name__)
DEBOUNCE = 5.0  # seconds to collect changes
RETRY_AFTER = 30.0  # seconds
POLL_INTERVAL = 0.5  # seconds until all sessions are known


class ClassUsage:
    """Acts on changes alone, from when all sessions are known."""

    def __init__(self, kube: KubeClient, controller: Controller) -> None:
        self._kube = kube
        self._controller = controller
        self._cache = controller.cache
        self._operator = controller.settings.operator_name

    async def run(self) -> None:
        """Follow changes until cancelled."""
        changed = self._cache.classes.changed
        await self._cache.wait_for_sync()
        while not self._controller.starts.is_open:  # noqa: ASYNC110 - once, at the start
            await asyncio.sleep(POLL_INTERVAL)
        while True:
            await changed.wait()
            await asyncio.sleep(DEBOUNCE)
            changed.clear()
            if not await self._update():
                changed.set()
                await asyncio.sleep(RETRY_AFTER)

    async def _update(self) -> bool:
        """Bring everything up to date; return whether all of it succeeded."""
        classes = list(self._cache.classes.informer.objects.values())
        written = [await self._write_status(session_class) for session_class in classes]
        policies = self._cache.network_policies
        if policies is None:
            return all(written)
        policies.enqueue_outdated()
        deleted = [await self._delete_policy(policy) for policy in policies.unused()]
        return all([*written, *deleted])

    async def _write_status(self, session_class: Manifest) -> bool:
        """Write which of this operator's sessions use a class, unless its status says so."""
        name = session_class["metadata"]["name"]
        sessions, namespaces = self._cache.classes.usage(name)
        use = ClassUse(operator=self._operator, sessions=sessions, namespaces=namespaces)
        desired = [use.dump()] if sessions else []
        uses = (session_class.get("status") or {}).get("usedBy") or []
        if [entry for entry in uses if entry.get("operator") == self._operator] == desired:
            return True
        manifest = {
            "apiVersion": API_VERSION,
            "kind": CLASS_KIND,
            "metadata": {"name": name},
            "status": {"usedBy": desired},
        }
        try:
            obj = await self._kube.apply(CLASSES, manifest, "/status", manager=self._operator)
        except (Rejected, Conflict, Unavailable) as error:
            if ("", name) not in self._cache.classes.informer.objects:
                return True  # it is gone
            log.warning(
                "writing the status of class %s failed; retrying in %d s",
                name,
                RETRY_AFTER,
                extra={"class": name, "error": str(error)},
            )
            return False
        self._cache.classes.informer.upsert(obj)
        return True

    async def _delete_policy(self, policy: Manifest) -> bool:
        """Delete a NetworkPolicy of a class that its namespace uses no longer."""
        namespace, name = key_of(policy)
        policies = self._cache.network_policies
        if policies is None or not self._cache.is_served(namespace):
            return True
        try:
            await policies.delete(policy)
        except (Rejected, Conflict, Unavailable) as error:
            log.warning(
                "deleting an unused NetworkPolicy failed; retrying in %d s",
                RETRY_AFTER,
                extra={"namespace": namespace, "network_policy": name, "error": str(error)},
            )
            return False
        return True
