"""Each namespace has the NetworkPolicies of the classes that its sessions use."""

from __future__ import annotations

import asyncio
from typing import Any

from support.fakes.api import Manifest
from support.fakes.world import World

PLURAL = "networkpolicies"
EGRESS = [{"to": [{"ipBlock": {"cidr": "10.0.0.7/32"}}], "ports": [{"port": 3128}]}]


def policy(world: World, class_name: str | None = None) -> Manifest | None:
    name = f"wasession-{class_name or world.class_name}"
    return world.history.current.get((PLURAL, world.namespace, name))


async def until_policy(world: World, of: Any, what: str) -> None:
    def as_expected() -> bool:
        present = policy(world)
        return present is not None and of(present)

    await world.until(as_expected, what)


async def test_a_policy_comes_before_the_pod_and_is_repaired(world: World) -> None:
    await world.start_operator()
    await world.create("sales")
    await world.until_phase("sales")
    order = [c.plural for c in world.changes if c.type == "ADDED" and c.plural in (PLURAL, "pods")]
    assert order == [PLURAL, "pods"]
    first = policy(world)
    assert first is not None
    selector = first["spec"]["podSelector"]["matchLabels"]
    assert world.pod("sales")["metadata"]["labels"].items() >= selector.items()
    name = first["metadata"]["name"]
    opened = {"spec": {"egress": [{}], "policyTypes": ["Egress"]}}
    await world.api.patch(PLURAL, world.namespace, name, opened)
    await until_policy(world, lambda p: p["spec"] == first["spec"], "the repaired policy")
    await world.api.delete(PLURAL, world.namespace, name)
    uid = first["metadata"]["uid"]
    await until_policy(world, lambda p: p["metadata"]["uid"] != uid, "another policy")
    await world.change_class(egress=EGRESS)
    await until_policy(
        world, lambda p: p["spec"]["egress"][-1]["to"] == EGRESS[0]["to"], "the class's rule"
    )
    assert len([c for c in world.changes if c.plural == "pods" and c.type == "ADDED"]) == 1


async def test_a_running_pod_stays_of_its_class(world: World) -> None:
    """Whatever the class of its session, and even if the class is gone."""
    gold = f"{world.namespace}-gold"
    await world.create_class(gold, egress=EGRESS)
    await world.start_operator()
    await world.create("sales", className=gold)
    await world.until_phase("sales")
    await world.change("sales", className=world.class_name)
    await world.until_reason("sales", "Progressing", "UpdatePending")
    pod, confined = world.pod("sales"), policy(world, gold)
    assert pod["metadata"]["labels"]["wasession.dev/class"] == gold
    assert confined is not None
    assert confined["spec"]["egress"][-1]["to"] == EGRESS[0]["to"]
    await world.delete_class(gold)
    await world.api.delete(PLURAL, world.namespace, f"wasession-{gold}")
    unlabelled = {"metadata": {"labels": {"wasession.dev/class": None}}}
    await world.api.patch("pods", world.namespace, pod["metadata"]["name"], unlabelled)

    def is_confined() -> bool:
        labels, restored = world.pod("sales")["metadata"]["labels"], policy(world, gold)
        return labels.get("wasession.dev/class") == gold and restored is not None

    await world.until(is_confined, "the policy without the class's rules")
    restored = policy(world, gold)
    assert restored is not None
    assert restored["metadata"]["uid"] != confined["metadata"]["uid"]
    assert restored["spec"]["egress"] == confined["spec"]["egress"][:-1]
    await world.change("sales", updateStrategy="RollingUpdate")
    replaced = await world.until_replaced("sales", pod)
    assert replaced["metadata"]["labels"]["wasession.dev/class"] == world.class_name
    await world.until(lambda: policy(world, gold) is None, "no more policy of the class")


async def test_repairs_that_are_undone_are_backed_off(world: World) -> None:
    """Another operator of the same namespace may want other peers."""
    await world.start_operator()
    await world.create("sales")
    await world.until_phase("sales")
    first = policy(world)
    assert first is not None
    opened = {"spec": {"egress": [{}], "policyTypes": ["Egress"]}}
    edits = 0
    async with asyncio.timeout(60):
        while world.condition("sales", "Degraded")["reason"] != "NetworkPolicyFailed":
            if (present := policy(world)) is not None and present["spec"] == first["spec"]:
                edits += 1
                assert edits < 10
                await world.api.patch(PLURAL, world.namespace, first["metadata"]["name"], opened)
            await asyncio.sleep(0.05)
    assert first["metadata"]["name"] in world.condition("sales", "Degraded")["message"]
    assert world.phase("sales") == "Ready"


async def test_a_foreign_policy_is_left_alone(world: World) -> None:
    name = f"wasession-{world.class_name}"
    metadata = {"name": name, "namespace": world.namespace}
    foreign = await world.api.create(
        PLURAL,
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": metadata,
            "spec": {"podSelector": {"matchLabels": {"app": "mine"}}},
        },
    )
    await world.start_operator()
    await world.create("sales")
    condition = await world.until_reason("sales", "Degraded", "NetworkPolicyFailed")
    assert name in condition["message"]
    assert world.object("pods", "sales") is None
    present = policy(world)
    assert present is not None
    assert present["metadata"]["resourceVersion"] == foreign["metadata"]["resourceVersion"]
    await world.api.delete(PLURAL, world.namespace, name)
    await world.until_phase("sales")


async def test_an_unused_policy_is_deleted(world: World) -> None:
    """Not while a session or a pod of the class is left, and no other one."""
    gold = f"{world.namespace}-gold"
    await world.create_class(gold)
    await world.start_operator()
    await world.create("sales", className=gold)
    await world.create("support")
    await world.until_phase("sales", "support")
    assert policy(world, gold) is not None
    await world.delete("sales")
    await world.until(lambda: policy(world, gold) is None, "no more policy of the class")
    gone = [c.plural for c in world.changes if c.type == "DELETED"]
    assert gone.index("pods") < gone.index(PLURAL)
    assert policy(world) is not None


async def test_there_are_none_when_they_are_switched_off(world: World) -> None:
    await world.start_operator(network_policy_enabled="false")
    await world.create("sales")
    await world.until_phase("sales")
    assert policy(world) is None
    assert not any(call.resource == PLURAL for call in world.proxy.calls)
