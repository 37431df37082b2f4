"""The NetworkPolicies of session pods: one for each namespace and class."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from wasession_api import names
from wasession_api.kube.client import NETWORK_POLICIES, Conflict, KubeClient
from wasession_api.kube.informer import Informer
from wasession_api.kube.manifests import Key, Manifest, controller, key_of

from wasession_operator import cache_transform
from wasession_operator.backoff import next_backoff
from wasession_operator.network_policy import (
    class_of_policy,
    is_as_desired,
    make_network_policy,
    policy_name,
    spec_hash,
)
from wasession_operator.plan.facts import Backoff, NetworkPolicy
from wasession_operator.plan.manifests import class_label, is_managed
from wasession_operator.session_classes import SessionClasses

FOREIGN = (
    "NetworkPolicy {name} was not created by this operator; it will not be modified. Delete it or "
    "give it another name."
)
UNDONE = (
    "Something else, such as another operator with other settings, changes NetworkPolicy {name} "
    "each time it is applied; it is applied again with backoff."
)
REPAIRS_AT_ONCE = 3  # of one policy, before its repairs are backed off


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
        self._peers = peers
        self._classes = classes
        self._enqueue = enqueue
        # By namespace and class label: the names of the pods, and of the sessions they belong to.
        self._pods: defaultdict[Key, dict[str, str | None]] = defaultdict(dict)
        self._locks: defaultdict[Key, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._normalized: dict[str, str] = {}  # hash of a desired spec -> of the stored one
        self._applied: dict[Key, tuple[str, Backoff]] = {}  # hash of the spec applied last

    def of(self, namespace: str, class_name: str | None) -> NetworkPolicy | None:
        """Return the policy of a class in a namespace; None while the classes are not known.

        Pods may be left of a class that is gone, or is invalid: its policy has no rules of its own.
        """
        if class_name is None or not self._classes.informer.is_synced:
            return None
        session_class = self._classes.get(class_name)
        egress = [] if session_class is None else session_class.spec.egress
        desired = make_network_policy(namespace, class_name, egress, self._peers)
        return NetworkPolicy(desired, self._is_current(desired))

    async def apply(self, kube: KubeClient, desired: Manifest) -> None:
        """Apply a policy unless it is current by now.

        Raise ``Conflict`` for a foreign one, or for one that something else changes each time.
        """
        key = key_of(desired)
        async with self._locks[key]:
            if self._is_current(desired):
                return
            applied = self._backoff(key, desired)
            present = self.informer.objects.get(key) or await kube.get(NETWORK_POLICIES, *key)
            if present is not None and not is_managed(present):
                raise Conflict(FOREIGN.format(name=key[1]))
            obj = await kube.apply(NETWORK_POLICIES, desired)
            self._applied[key] = _hash(desired), next_backoff(applied)
            self._normalized[_hash(desired)] = spec_hash(obj.get("spec") or {})
            self.informer.upsert(obj)

    def enqueue_outdated(self) -> None:
        """Enqueue sessions whose pods are of a class that they have left, and that has changed."""
        for namespace, of in self._pods:
            if not self._classes.is_used(of, namespace):
                self._enqueue_unless_current(namespace, of)

    def unused(self) -> list[Manifest]:
        """Return the policies in namespaces without sessions or pods of their class."""
        return [policy for policy in self.informer.objects.values() if self._is_unused(policy)]

    async def delete(self, kube: KubeClient, policy: Manifest) -> None:
        """Delete this very policy, not another one of its name, unless it is used by now.

        Raise ``Conflict`` when somebody has changed it meanwhile.
        """
        key, metadata = key_of(policy), policy["metadata"]
        async with self._locks[key]:
            if self._is_unused(policy):
                await kube.delete(
                    NETWORK_POLICIES, *key, metadata["uid"], version=metadata["resourceVersion"]
                )

    def pod_changed(self, before: Manifest | None, after: Manifest | None) -> None:
        """Note the pods of each class: they need its policy even if their session has another."""
        of_before, of_after = _class_label(before), _class_label(after)
        pod = after or before
        if pod is None or of_before == of_after:
            return
        namespace, name = key_of(pod)
        if of_before is not None:
            pods = self._pods[namespace, of_before]
            pods.pop(name, None)
            if not pods:
                del self._pods[namespace, of_before]
        if of_after is not None:
            owner = controller(pod)
            self._pods[namespace, of_after][name] = None if owner is None else owner["name"]
        self._classes.changed.set()

    def _is_unused(self, policy: Manifest) -> bool:
        namespace, of = policy["metadata"]["namespace"], class_of_policy(policy)
        if of is None or (namespace, of) in self._pods:
            return False
        return not self._classes.is_used(of, namespace)

    def _is_current(self, desired: Manifest) -> bool:
        actual = self.informer.objects.get(key_of(desired))
        normalized = self._normalized.get(_hash(desired))
        return actual is not None and is_as_desired(actual, desired, normalized)

    def _backoff(self, key: Key, desired: Manifest) -> Backoff:
        """Return the backoff of a policy's repairs. Raise ``Conflict`` until it is over."""
        last_hash, backoff = self._applied.get(key, ("", Backoff()))
        if last_hash != _hash(desired):
            return Backoff()
        waits = backoff.wait(datetime.now(UTC)) > timedelta(0)
        if waits and backoff.count > REPAIRS_AT_ONCE:
            raise Conflict(UNDONE.format(name=key[1]))
        return backoff

    def _changed(self, before: Manifest | None, after: Manifest | None) -> None:
        """Enqueue the sessions of a policy that is not, or no longer, as it should be."""
        policy = after or before
        assert policy is not None
        namespace, name = key_of(policy)
        of = name.removeprefix(policy_name(""))
        if of == name:
            return
        self._classes.changed.set()
        self._enqueue_unless_current(namespace, of)

    def _enqueue_unless_current(self, namespace: str, of: str) -> None:
        desired = self.of(namespace, of)
        if desired is None or desired.is_current:
            return
        sessions = self._pods.get((namespace, of), {}).values()
        of_pods = {(namespace, session) for session in sessions if session is not None}
        for key in of_pods.union(self._classes.sessions(of, namespace)):
            self._enqueue(key)


def _class_label(pod: Manifest | None) -> str | None:
    return None if pod is None else class_label(pod)


def _hash(desired: Manifest) -> str:
    hashed: str = desired["metadata"]["annotations"][names.ANNOTATION_TEMPLATE_HASH]
    return hashed
