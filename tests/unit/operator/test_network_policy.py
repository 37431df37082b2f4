"""The NetworkPolicy of a class in a namespace."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import ipaddress
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from unittest import mock

import pytest
from wasession_api import names
from wasession_api.kube.client import Conflict, KubeClient, Resource
from wasession_api.kube.manifests import Key, Manifest
from wasession_operator import backoff, cache_transform, network_policies, objects
from wasession_operator.effective_spec import EffectiveSpec
from wasession_operator.network_policies import NetworkPolicies
from wasession_operator.network_policy import as_stored, is_as_desired, make_network_policy
from wasession_operator.session_classes import SessionClasses

PEERS = [{"podSelector": {"matchLabels": {"app": "operator"}}, "namespaceSelector": {}}]
EGRESS = [{"to": [{"ipBlock": {"cidr": "10.0.0.7/32"}}], "ports": [{"port": 3128}]}]
POLICY = make_network_policy("ns", "gold", EGRESS, PEERS)


def test_it_selects_the_pods_of_its_class() -> None:
    labels = objects.pod_labels("sales", EffectiveSpec.model_validate({"className": "gold"}))
    selector = POLICY["spec"]["podSelector"]["matchLabels"]
    assert labels.items() >= selector.items()
    assert selector[names.LABEL_CLASS] == "gold"
    assert (POLICY["metadata"]["namespace"], POLICY["metadata"]["name"]) == ("ns", "wasession-gold")
    assert POLICY["metadata"]["labels"][names.LABEL_MANAGED_BY] == names.MANAGED_BY


def test_only_the_peers_can_connect() -> None:
    assert POLICY["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert POLICY["spec"]["ingress"] == [
        {"from": PEERS, "ports": [{"protocol": "TCP", "port": 8080}]}
    ]
    assert make_network_policy("ns", "gold", [], [])["spec"]["ingress"] == []


def reaches(address: str, port: int) -> bool:
    """Return whether a rule lets session pods connect to an address."""
    for rule in POLICY["spec"]["egress"]:
        if port not in [allowed["port"] for allowed in rule["ports"]]:
            continue
        if "to" not in rule:
            return True
        for peer in rule["to"]:
            block, ip = peer["ipBlock"], ipaddress.ip_address(address)
            inside = ip in ipaddress.ip_network(block["cidr"])
            excluded = any(ip in ipaddress.ip_network(part) for part in block.get("except", []))
            if inside and not excluded:
                return True
    return False


@pytest.mark.parametrize(
    ("address", "port", "expected"),
    [
        ("157.240.1.60", 443, True),
        ("2a03:2880:f234::1", 443, True),
        ("157.240.1.60", 80, False),
        ("157.240.1.60", 5222, False),
        ("10.96.0.10", 53, True),
        ("10.96.0.1", 443, False),
        ("172.17.3.4", 443, False),
        ("192.168.0.1", 443, False),
        ("100.64.1.1", 443, False),
        ("169.254.169.254", 443, False),
        ("169.254.169.254", 80, False),
        ("127.0.0.1", 443, False),
        ("fd00:ec2::254", 443, False),
        ("fe80::1", 443, False),
        ("::1", 443, False),
        ("0.0.0.1", 443, False),
        ("192.0.0.8", 443, False),
        ("198.19.0.1", 443, False),
        ("255.255.255.254", 443, False),
        ("64:ff9b::a00:1", 443, False),
        ("2002:a00:1::1", 443, False),
        ("10.0.0.7", 3128, True),
        ("10.0.0.8", 3128, False),
    ],
)
def test_what_session_pods_reach(address: str, port: int, expected: bool) -> None:
    assert reaches(address, port) is expected


def test_the_defaults_of_the_api_server_are_no_difference() -> None:
    peer: dict[str, Any] = {"podSelector": {"matchLabels": {}}, "namespaceSelector": {}}
    rules = [{"to": [], "ports": [{"port": 1}]}, {}, {"to": [peer], "ports": []}]
    assert as_stored(rules) == [
        {"ports": [{"port": 1, "protocol": "TCP"}]},
        {},
        {"to": [{"podSelector": {}, "namespaceSelector": {}}]},
    ]


def is_stored(policy: Manifest, desired: Manifest, normalized: str | None = None) -> bool:
    return is_as_desired(cache_transform.network_policy(policy), desired, normalized)


def test_any_other_difference_is_one() -> None:
    assert is_stored(POLICY, POLICY)
    without_peers = make_network_policy("ns", "gold", [], [])
    stored = copy.deepcopy(without_peers)
    del stored["spec"]["ingress"]
    assert is_stored(stored, without_peers)
    changes: list[Callable[[Manifest], object]] = [
        lambda policy: policy["spec"]["egress"].pop(),
        lambda policy: policy["spec"].pop("policyTypes"),
        lambda policy: policy["spec"]["podSelector"].clear(),
        lambda policy: policy["metadata"]["labels"].pop(names.LABEL_CLASS),
        lambda policy: policy["metadata"]["annotations"].clear(),
    ]
    for change in changes:
        changed = copy.deepcopy(POLICY)
        change(changed)
        assert not is_stored(changed, POLICY)
    odd = copy.deepcopy(POLICY)
    odd["spec"]["future"] = "default"
    assert is_stored(odd, POLICY, objects.digest(odd["spec"]))


@pytest.mark.parametrize("name", ["wasession-gold", "wasession-silver", "mine"])
def test_little_of_a_large_policy_is_cached(name: str) -> None:
    """Anybody with the right to create NetworkPolicies may give one the operator's labels."""
    large = copy.deepcopy(POLICY)
    large["metadata"] |= {"name": name, "uid": "uid-1", "resourceVersion": "7"}
    large["metadata"]["annotations"] = dict.fromkeys(
        (names.ANNOTATION_TEMPLATE_HASH, names.ANNOTATION_RESTART, "x"), "long" * 50_000
    )
    large["metadata"]["finalizers"] = ["example.com/long"] * 1000
    large["spec"]["egress"] *= 5000
    cached = cache_transform.network_policy(large)
    assert len(json.dumps(cached)) < 1000
    assert ("specHash" in cached) is (name == "wasession-gold")


# --- their cache ----------------------------------------------------------------------------------


class Api:
    """An API server with NetworkPolicies alone."""

    def __init__(self) -> None:
        self.stored: dict[Key, Manifest] = {}
        self.applied: list[Manifest] = []
        self.deleted: list[tuple[Key, str, str]] = []  # with UID and version

    async def get(self, _: Resource, namespace: str, name: str) -> Manifest | None:
        return self.stored.get((namespace, name))

    async def apply(self, _: Resource, manifest: Manifest) -> Manifest:
        self.applied.append(manifest)
        version = str(2 * len(self.applied) + 10)
        metadata = manifest["metadata"] | {"uid": f"uid-{version}", "resourceVersion": version}
        obj = {**copy.deepcopy(manifest), "metadata": metadata}
        self.stored[metadata["namespace"], metadata["name"]] = obj
        await asyncio.sleep(0)
        return obj

    async def delete(
        self, _: Resource, namespace: str, name: str, uid: str, *, version: str
    ) -> None:
        self.deleted.append(((namespace, name), uid, version))


class Cache:
    """The classes and policies of an operator, and what they enqueue."""

    def __init__(self) -> None:
        self.api = Api()
        self.enqueued: list[Key] = []
        self.kube = kube = cast(KubeClient, self.api)
        self.classes = SessionClasses(kube, self.enqueued.append, lambda _: None)
        self.classes.informer._accept(None)
        self.policies = NetworkPolicies(
            kube, [], PEERS, self.classes, self.enqueued.append, lambda _: None
        )

    def add_class(self, name: str = "gold", version: str = "1", **spec: Any) -> None:
        metadata = {"name": name, "uid": name, "resourceVersion": version}
        obj = {"metadata": metadata | {"generation": int(version)}, "spec": spec}
        self.classes.informer._upsert(("", name), obj)

    def add_session(self, name: str, class_name: str = "gold") -> None:
        metadata = {"namespace": "ns", "name": name, "uid": name}
        obj = {"metadata": metadata, "spec": {"className": class_name}}
        self.classes.upsert_session(("ns", name), None, obj)

    def desired(self) -> Manifest:
        policy = self.policies.of("ns", "gold")
        assert policy is not None
        return policy.manifest

    async def apply(self) -> None:
        await self.policies.apply(self.kube, self.desired())

    async def delete(self, policy: Manifest) -> None:
        await self.policies.delete(self.kube, policy)

    def is_current(self) -> bool:
        policy = self.policies.of("ns", "gold")
        return policy is not None and policy.is_current

    def edit_policy(self) -> None:
        """Open the policy, as somebody else does."""
        informer, key = self.policies.informer, ("ns", "wasession-gold")
        obj = copy.deepcopy(self.api.stored[key])
        obj["metadata"]["resourceVersion"] = str(int(obj["metadata"]["resourceVersion"]) + 1)
        obj["spec"]["egress"] = [{}]
        informer.upsert(obj)


@pytest.fixture
def cache() -> Cache:
    cache = Cache()
    cache.add_class()
    return cache


async def test_a_policy_is_applied_once_however_many_ask(cache: Cache) -> None:
    assert not cache.is_current()
    await asyncio.gather(*(cache.apply() for _ in range(10)))
    assert len(cache.api.applied) == 1
    assert cache.is_current()


async def test_a_class_that_changes_changes_its_policy(cache: Cache) -> None:
    await cache.apply()
    cache.add_class(version="2", egress=EGRESS)
    assert not cache.is_current()
    await cache.apply()
    assert cache.is_current()
    assert cache.api.applied[-1] == POLICY


def test_pods_of_a_missing_or_invalid_class_reach_what_those_of_any_class_do(cache: Cache) -> None:
    base = make_network_policy("ns", "gold", [], PEERS)
    cache.add_class(version="2", egress=EGRESS)
    assert cache.desired() == POLICY
    cache.add_class(version="3", egress=EGRESS, limits=7)
    assert cache.desired() == base
    cache.classes.informer._remove(("", "gold"), {"metadata": {"uid": "gold"}})
    assert cache.desired() == base


def test_no_policy_is_known_without_a_class_or_before_all_classes_are_known(cache: Cache) -> None:
    assert cache.policies.of("ns", None) is None
    cache.classes.informer._synced.clear()
    assert cache.policies.of("ns", "gold") is None


async def test_the_policy_of_a_pod_is_repaired_whatever_the_class_of_its_session(
    cache: Cache,
) -> None:
    owner = {"kind": "WhatsAppSession", "name": "sales", "uid": "sales", "controller": True}
    metadata = {"namespace": "ns", "name": "wasession-sales", "ownerReferences": [owner]}
    pod = {"metadata": metadata | {"labels": {names.LABEL_CLASS: "gold"}}}
    cache.policies.pod_changed(None, pod)
    await cache.apply()
    cache.classes.informer._remove(("", "gold"), {"metadata": {"uid": "gold"}})
    cache.edit_policy()
    assert cache.enqueued == [("ns", "sales")]
    await cache.apply()
    cache.policies.enqueue_outdated()
    assert cache.enqueued == [("ns", "sales")]
    cache.add_class(version="2", egress=EGRESS)
    cache.policies.enqueue_outdated()
    assert cache.enqueued == [("ns", "sales")] * 2


async def test_repairs_are_backed_off_while_something_else_undoes_them(cache: Cache) -> None:
    """Two operators with different peers would apply theirs in turn, as fast as they can."""
    now = datetime(2026, 1, 2, tzinfo=UTC)
    with (
        mock.patch.object(network_policies, "datetime") as clock,
        mock.patch.object(backoff, "datetime", clock),
    ):
        clock.now.return_value = now
        rejected = None
        for _ in range(20):
            try:
                await cache.apply()
            except Conflict as error:
                rejected = str(error)
            else:
                cache.edit_policy()
        assert len(cache.api.applied) == 1 + network_policies.REPAIRS_AT_ONCE
        assert rejected is not None
        assert "changes NetworkPolicy wasession-gold each time it is applied" in rejected
        cache.add_class(version="2", egress=EGRESS)
        await cache.apply()
        assert cache.is_current(), "another policy is another attempt"
        cache.add_class(version="3")
        for minutes in range(60):
            clock.now.return_value = now + timedelta(minutes=minutes)
            with contextlib.suppress(Conflict):
                await cache.apply()
                cache.edit_policy()
    assert 10 < len(cache.api.applied) < 25, "it is never given up"


async def test_a_foreign_policy_is_left_alone(cache: Cache) -> None:
    metadata = {"namespace": "ns", "name": "wasession-gold", "labels": {"team": "x"}}
    cache.api.stored["ns", "wasession-gold"] = {"metadata": metadata, "spec": {}}
    with pytest.raises(Conflict, match="NetworkPolicy wasession-gold was not created by"):
        await cache.apply()
    assert cache.api.applied == []


async def test_a_changed_or_deleted_policy_is_applied_again(cache: Cache) -> None:
    cache.add_session("sales")
    cache.add_session("other", "silver")
    await cache.apply()
    assert cache.enqueued == [], "its own write is no change"
    informer, key = cache.policies.informer, ("ns", "wasession-gold")
    cache.edit_policy()
    assert cache.enqueued == [("ns", "sales")]
    assert not cache.is_current()
    informer._remove(key, informer.objects[key])
    assert cache.enqueued == [("ns", "sales")] * 2


async def test_a_policy_is_unused_without_sessions_and_pods(cache: Cache) -> None:
    cache.add_session("sales")
    await cache.apply()
    assert cache.policies.unused() == []
    labels = {names.LABEL_CLASS: "gold"}
    pod = {"metadata": {"namespace": "ns", "name": "wasession-sales", "labels": labels}}
    cache.policies.pod_changed(None, pod)
    spec = {"className": "gold"}
    cache.classes.delete_session(("ns", "sales"), {"metadata": {"uid": "sales"}, "spec": spec})
    assert cache.policies.unused() == [], "its pod still runs"
    cache.classes.changed.clear()
    other = {"metadata": pod["metadata"] | {"labels": {names.LABEL_CLASS: "silver"}}}
    cache.policies.pod_changed(pod, other)
    assert cache.classes.changed.is_set()
    cache.policies.pod_changed(other, pod)
    assert cache.policies.unused() == []
    cache.policies.pod_changed(pod, None)
    [unused] = cache.policies.unused()
    cache.add_session("late")
    await cache.delete(unused)
    assert cache.api.deleted == [], "it is used again by now"
    cache.classes.delete_session(("ns", "late"), {"metadata": {"uid": "late"}, "spec": spec})
    await cache.delete(unused)
    metadata = unused["metadata"]
    deleted = ("ns", "wasession-gold"), metadata["uid"], metadata["resourceVersion"]
    assert cache.api.deleted == [deleted], "this very one"


async def test_a_policy_of_another_name_is_never_unused(cache: Cache) -> None:
    await cache.apply()
    informer = cache.policies.informer
    [stored] = informer.objects.values()
    metadata = stored["metadata"] | {"name": "mine", "uid": "mine"}
    informer._upsert(("ns", "mine"), {**stored, "metadata": metadata})
    assert [policy["metadata"]["name"] for policy in cache.policies.unused()] == ["wasession-gold"]
