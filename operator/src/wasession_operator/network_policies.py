"""The NetworkPolicies of session pods: one for each namespace and class."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from wasession_api import names
from wasession_api.kube.client import NETWORK_POLICIES, Conflict, KubeClient
from wasession_api.kube.informer import Informer
from wasession_api.kube.manifests import Key, Manifest, key_of

from wasession_operator import cache_transform, objects
from wasession_operator.network_policy import (
    is_as_desired,
    make_network_policy,
    policy_name,
    without_empty_rules,
)
from wasession_operator.plan.facts import NetworkPolicy
from wasession_operator.plan.session_class import SessionClass
from wasession_operator.session_classes import SessionClasses

FOREIGN = (
    "NetworkPolicy {name} was not created by this operator; it will not be modified. Delete it or "
    "give it another name."
)


class NetworkPolicies:
    """Watches them, applies those that differ, and knows which nobody needs any more."""

    def __init__(
        self,
        kube: KubeClient,
        namespaces: Sequence[str],
        peers: Sequence[Manifest],
        classes: SessionClasses,
        enqueue: Callable[[Key], None],
        on_sync: Callable[[str | None], None],
    ) -> None:
        self.informer = Informer(
            kube, NETWORK_POLICIES, namespaces, names.SELECTOR,
            self._changed, cache_transform.network_policy, on_sync=on_sync,
        )  # fmt: skip
        self._kube = kube
        self._peers = peers
        self._classes = classes
        self._enqueue = enqueue
        self._pods: Counter[Key] = Counter()  # by namespace and class label
        self._locks: defaultdict[Key, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._normalized: dict[str, str] = {}  # hash of a desired spec -> of the stored one

    def of(self, namespace: str, session_class: SessionClass | None) -> NetworkPolicy | None:
        """Return the policy of a class in a namespace; None for no class, or an invalid one."""
        if session_class is None or session_class.error is not None:
            return None
        egress = session_class.spec.egress
        desired = make_network_policy(namespace, session_class.name, egress, self._peers)
        return NetworkPolicy(desired, self._is_current(desired))

    async def apply(self, desired: Manifest) -> None:
        """Apply a policy unless it is current by now. Raise ``Conflict`` for a foreign one."""
        key = key_of(desired)
        async with self._locks[key]:
            if self._is_current(desired):
                return
            present = self.informer.objects.get(key) or await self._kube.get(NETWORK_POLICIES, *key)
            if present is not None and not _is_ours(present):
                raise Conflict(FOREIGN.format(name=key[1]))
            obj = await self._kube.apply(NETWORK_POLICIES, desired)
            stored = objects.digest(without_empty_rules(obj.get("spec") or {}))
            self._normalized[_hash(desired)] = stored
            self.informer.upsert(obj)

    def unused(self) -> list[Manifest]:
        """Return the policies in namespaces without sessions or pods of their class."""
        return [
            policy
            for (namespace, name), policy in self.informer.objects.items()
            if (of := _class_of(policy)) is not None
            and name == policy_name(of)
            and not self._classes.is_used(of, namespace)
            and not self._pods[namespace, of]
        ]

    async def delete(self, policy: Manifest) -> None:
        """Delete this very policy, not another one of its name."""
        metadata = policy["metadata"]
        namespace, name, uid = metadata["namespace"], metadata["name"], metadata["uid"]
        await self._kube.delete(NETWORK_POLICIES, namespace, name, uid)

    def pod_changed(self, before: Manifest | None, after: Manifest | None) -> None:
        """Count the pods of each class: they need its policy even if their session has another."""
        of_before, of_after = _class_of(before), _class_of(after)
        pod = after or before
        if pod is None or of_before == of_after:
            return
        namespace = pod["metadata"]["namespace"]
        for of, change in ((of_before, -1), (of_after, 1)):
            if of is not None:
                self._pods[namespace, of] += change
        self._classes.changed.set()

    def _is_current(self, desired: Manifest) -> bool:
        actual = self.informer.objects.get(key_of(desired))
        normalized = self._normalized.get(_hash(desired))
        return actual is not None and is_as_desired(actual, desired, normalized)

    def _changed(self, before: Manifest | None, after: Manifest | None) -> None:
        """Enqueue the sessions of a policy that is not, or no longer, as it should be."""
        policy = after or before
        assert policy is not None
        self._classes.changed.set()
        namespace, name = key_of(policy)
        of = name.removeprefix(policy_name(""))
        desired = self.of(namespace, self._classes.get(of))
        if desired is not None and not desired.is_current:
            for key in self._classes.sessions(of, namespace):
                self._enqueue(key)


def _is_ours(policy: Manifest) -> bool:
    labels = policy["metadata"].get("labels") or {}
    return bool(labels.get(names.LABEL_MANAGED_BY) == names.MANAGED_BY)


def _class_of(obj: Manifest | None) -> str | None:
    if obj is None:
        return None
    of: str | None = (obj["metadata"].get("labels") or {}).get(names.LABEL_CLASS)
    return of


def _hash(desired: Manifest) -> str:
    hashed: str = desired["metadata"]["annotations"][names.ANNOTATION_TEMPLATE_HASH]
    return hashed
