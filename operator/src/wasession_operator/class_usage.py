"""What follows from the use of classes: their status, and the end of unused NetworkPolicies."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

from wasession_api.kube.client import CLASSES, Conflict, KubeClient, Rejected, Unavailable
from wasession_api.kube.manifests import Manifest, condition, key_of
from wasession_api.v1alpha1 import (
    API_VERSION,
    CLASS_KIND,
    OPERATOR_CONFLICT,
    ClassCondition,
    ClassUse,
)

from wasession_operator.sharding.shards import Shards

log = logging.getLogger(__name__)
DEBOUNCE = 5.0  # seconds to collect changes
RETRY_AFTER = 30.0  # seconds
SEVERAL = (
    "Operator {operator} acts on sessions of this class. {rivals} would act on them too, and "
    "waits: uninstall one of them, or let them watch different namespaces."
)
ONE = "Operator {operator} is the only one again."


class ClassUsage:
    """One replica writes the status of a class, and one deletes the policies in a namespace."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._cache = shards.cache
        self._operator = shards.settings.operator_name

    async def run(self) -> None:
        """Follow changes until cancelled."""
        changed = self._cache.classes.changed
        self._shards.leases.rivals_changed = changed.set
        await self._cache.wait_for_sync()
        while True:
            await _first(changed, self._shards.acquired)
            await asyncio.sleep(DEBOUNCE)
            changed.clear()
            self._shards.acquired.clear()
            if not await self._update():
                changed.set()
                await asyncio.sleep(RETRY_AFTER)

    async def _update(self) -> bool:
        """Bring everything up to date; return whether all of it succeeded."""
        written = [
            await self._write_status(kube, session_class)
            for session_class in list(self._cache.classes.informer.objects.values())
            if (kube := self._shards.leader_client(session_class["metadata"]["name"])) is not None
        ]
        policies = self._cache.network_policies
        if policies is None:
            return all(written)
        policies.enqueue_outdated()
        deleted = [
            await self._delete_policy(kube, policy)
            for policy in policies.unused()
            if (kube := self._shards.leader_client(policy["metadata"]["namespace"])) is not None
        ]
        return all([*written, *deleted])

    async def _write_status(self, kube: KubeClient, session_class: Manifest) -> bool:
        """Write which of this operator's sessions use a class, unless its status says so."""
        name = session_class["metadata"]["name"]
        sessions, namespaces = self._cache.classes.usage(name)
        use = ClassUse(operator=self._operator, sessions=sessions, namespaces=namespaces)
        desired = [use.dump()] if sessions else []
        status = session_class.get("status") or {}
        uses = [
            entry for entry in status.get("usedBy") or [] if entry.get("operator") == self._operator
        ]
        present = condition(session_class, OPERATOR_CONFLICT)
        conflict = conflict_condition(present, self._operator, self._shards.leases.plan.rivals)
        if uses == desired and conflict in (None, present):
            return True
        manifest = {
            "apiVersion": API_VERSION,
            "kind": CLASS_KIND,
            "metadata": {"name": name},
            "status": {"usedBy": desired, "conditions": [conflict] if conflict else []},
        }
        try:
            obj = await kube.apply(CLASSES, manifest, "/status", manager=self._operator)
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

    async def _delete_policy(self, kube: KubeClient, policy: Manifest) -> bool:
        """Delete a NetworkPolicy of a class that its namespace uses no longer."""
        namespace, name = key_of(policy)
        policies = self._cache.network_policies
        if policies is None or not self._cache.is_served(namespace):
            return True
        try:
            await policies.delete(kube, policy)
        except (Rejected, Conflict, Unavailable) as error:
            log.warning(
                "deleting an unused NetworkPolicy failed; retrying in %d s",
                RETRY_AFTER,
                extra={"namespace": namespace, "network_policy": name, "error": str(error)},
            )
            return False
        return True


def conflict_condition(present: Manifest, operator: str, rivals: frozenset[str]) -> Manifest | None:
    """Return the class's condition that says whether several operators serve the same sessions.

    None for one that is not this operator's to write: it is about others, or nothing has ever
    happened. One that names this operator as waiting is outdated: now it is the one that acts.
    """
    is_true = present.get("status") == "True"
    is_named = f" {operator} " in str(present.get("message"))
    if not is_named and (is_true or not rivals):
        return None
    message = (SEVERAL if rivals else ONE).format(
        operator=operator, rivals=" and ".join(sorted(rivals))
    )
    changed = is_true is not bool(rivals) or not present
    made: Manifest = ClassCondition(
        type=OPERATOR_CONFLICT,
        status="True" if rivals else "False",
        reason="SeveralOperators" if rivals else "OneOperator",
        message=message,
        last_transition_time=datetime.now(UTC) if changed else present["lastTransitionTime"],
    ).dump()
    return made


async def _first(*events: asyncio.Event) -> None:
    """Return when one of the events is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
