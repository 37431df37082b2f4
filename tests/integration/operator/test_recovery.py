"""Sessions recover from failures of pods, nodes, volumes, the API server and the operator."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from support.fakes import proxy
from support.fakes.api import Manifest
from support.fakes.world import PVCS, Environment, World


async def begin(world: World, *names: str, **settings: str) -> None:
    """Start an operator with sessions that are Ready."""
    await world.start_operator(**settings)
    for name in names:
        await world.create(name)
    await world.until_phase(*names)
    world.script.scans = False  # from now on a login comes from its volume or not at all


def restored(world: World, name: str = "sales") -> bool:
    status = world.status(name)
    return bool(status["phase"] == "Ready" and status["restored"] and status["sessionValid"])


# --- pods -----------------------------------------------------------------------------------------

LOW = "The node was low on resource: memory."
ENDS: dict[str, Callable[[World, Manifest], Awaitable[object]]] = {
    "PodDeleted": lambda world, _: world.take_away("pods", "sales"),
    "Evicted": lambda world, pod: world.kubelet.end(pod, "Failed", "Evicted", LOW),
    "PodSucceeded": lambda world, pod: world.kubelet.end(pod, "Succeeded"),
    "PodFailed": lambda world, pod: world.kubelet.end(
        pod, "Failed", "NodeShutdown", "Pod was terminated"
    ),
}


@pytest.mark.parametrize("reason", ENDS)
async def test_a_pod_that_ends_is_replaced(world: World, reason: str) -> None:
    await begin(world, "sales")
    pod = world.pod("sales")
    await ENDS[reason](world, pod)
    await world.until_replaced("sales", pod)
    assert restored(world)
    assert world.status("sales")["restarts"]["count"] == 1
    assert world.status("sales")["restarts"]["reason"] == reason
    assert world.created("pods") == 2


async def test_a_container_that_ends_is_kubelets_to_start(world: World) -> None:
    await begin(world, "sales")
    pod = world.pod("sales")
    await world.kubelet.crash(pod, "OOMKilled", again=False)
    condition = await world.until_reason("sales", "Degraded", "OOMKilled")
    assert "memory" in condition["message"]
    world.kubelet.mend(pod)
    await world.until_phase("sales")
    await world.until_reason("sales", "Degraded", "AsExpected")
    await world.kubelet.crash(pod, "Error", again=False)
    await world.until_reason("sales", "Degraded", "CrashLoopBackOff")
    world.kubelet.mend(pod)
    await world.until_phase("sales")
    assert restored(world)
    assert world.created("pods") == 1


async def test_an_image_that_comes_later(world: World) -> None:
    world.script.images = False
    await world.start_operator()
    await world.create("sales")
    await world.until_reason("sales", "Degraded", "ImagePullBackOff")
    world.script.images = True
    world.kubelet.look_again(world.namespace)
    await world.until_phase("sales")
    assert world.created("pods") == 1


# --- nodes ----------------------------------------------------------------------------------------


async def gone(world: World) -> None:
    """The node is deleted: Kubernetes removes its pods after a while, and they move elsewhere."""
    spare = await world.add_node()
    await begin(world, "sales", "support")
    pods = {name: world.pod(name) for name in ("sales", "support")}
    lost = next(node for node in world.nodes if node.name == pods["sales"]["spec"]["nodeName"])
    await world.kubelet.remove_node(lost)
    for name, pod in pods.items():
        found = await world.until_replaced(name, pod)
        assert found["spec"]["nodeName"] == spare.name
        assert restored(world, name)


async def silent(world: World) -> None:
    """The evicted pod may still run: it is not replaced until its node has confirmed its end."""
    await begin(world, "sales", node_lost_after="1s")
    await world.add_node()
    pod = world.pod("sales")
    node = world.nodes[0]
    node.connected = False
    condition = await world.until_reason("sales", "Degraded", "NodeLost")
    assert node.name in condition["message"]
    await world.until(lambda: "deletionTimestamp" in world.pod("sales")["metadata"], "the eviction")
    await world.restart_operator()
    await world.until_reason("sales", "Degraded", "NodeLost")
    assert world.created("pods") == 1
    await world.kubelet.reconnect(node)
    await world.until_replaced("sales", pod)
    assert restored(world)


async def back_in_time(world: World) -> None:
    """The node was silent, but not for long enough to lose its pod."""
    await world.start_operator()
    patient = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}
    await world.change_class(podTemplate={"spec": {"tolerations": [patient]}})
    await world.create("sales")
    await world.until_phase("sales")
    pod = world.pod("sales")
    node = world.nodes[0]
    node.connected = False
    await world.until_reason("sales", "PodReady", "NodeLost")
    await world.kubelet.reconnect(node)
    await world.until_reason("sales", "PodReady", "PodRunning")
    await world.until_phase("sales")
    assert world.pod("sales")["metadata"]["uid"] == pod["metadata"]["uid"]


async def lost(world: World) -> None:
    """The machine is off for good, and the setting allows to force-delete its pods."""
    await begin(world, "sales", node_lost="ForceDelete", node_lost_after="1s")
    spare = await world.add_node()
    pod = world.pod("sales")
    world.kubelet.kill_node(world.nodes[0])
    found = await world.until_replaced("sales", pod)
    assert found["spec"]["nodeName"] == spare.name
    assert restored(world)


async def out_of_service(world: World) -> None:
    """The machine is off for good, as a user has confirmed with the taint."""
    await begin(world, "sales")
    spare = await world.add_node()
    pod = world.pod("sales")
    world.kubelet.kill_node(world.nodes[0])
    await world.until_reason("sales", "Degraded", "NodeLost")
    taint = {
        "key": "node.kubernetes.io/out-of-service",
        "value": "nodeshutdown",
        "effect": "NoExecute",
    }
    await world.api.patch("nodes", None, world.nodes[0].name, {"spec": {"taints": [taint]}})
    found = await world.until_replaced("sales", pod)
    assert found["spec"]["nodeName"] == spare.name
    assert restored(world)


async def test_nodes(environment: Environment) -> None:
    """All at once, as Kubernetes takes its time with nodes."""
    async with asyncio.TaskGroup() as group:
        for case in (gone, silent, back_in_time, lost, out_of_service):
            group.create_task(in_own_world(environment, case))


async def in_own_world(environment: Environment, case: Callable[[World], Awaitable[None]]) -> None:
    world = World(environment)
    await world.open()
    try:
        await case(world)
    except BaseException as error:
        error.add_note(f"in case {case.__name__}")
        await world.close()
        raise
    assert await world.close() == [], case.__name__


# --- volumes --------------------------------------------------------------------------------------


async def test_storage_that_comes_later(world: World) -> None:
    world.script.volumes = False
    await world.start_operator()
    await world.create("sales")
    await world.until_reason("sales", "StorageReady", "VolumePending")
    world.script.volumes = True
    await world.kubelet.provision_all(world.namespace)
    await world.until_phase("sales")


async def test_a_lost_claim_is_never_replaced(world: World) -> None:
    await begin(world, "sales")
    await world.take_away(PVCS, "sales")
    await world.take_away("pods", "sales")
    await world.until(lambda: world.object(PVCS, "sales") is None, "the claim to be gone")
    condition = await world.until_reason("sales", "StorageReady", "VolumeLost")
    assert condition["status"] == "False"
    await world.restart_operator()
    await world.annotate("sales", restart="1")
    await world.change("sales", browser={"locale": "de-DE"})
    await world.until(
        lambda: world.status("sales")["observedGeneration"] == 2, "the change to be seen"
    )
    assert world.status("sales")["phase"] == "Failed"
    assert world.status("sales")["sessionValid"] is True
    assert world.created(PVCS) == 1


async def test_a_claim_whose_volume_is_lost(world: World) -> None:
    await begin(world, "sales")
    claim = world.object(PVCS, "sales")
    assert claim is not None
    volume = claim["spec"]["volumeName"]
    await world.api.patch("persistentvolumes", None, volume, {"metadata": {"finalizers": None}})
    await world.api.delete("persistentvolumes", None, volume)
    await world.take_away("pods", "sales")
    condition = await world.until_reason("sales", "StorageReady", "VolumeLost")
    assert condition["status"] == "False"
    assert world.created(PVCS) == 1


async def test_a_volume_grows(world: World) -> None:
    await begin(world, "sales")
    pod = world.pod("sales")
    await world.change("sales", storage={"size": "2Gi"})

    def enlarged() -> bool:
        claim = world.object(PVCS, "sales") or {}
        return bool(claim["status"]["capacity"]["storage"] == "2Gi")

    await world.until(enlarged, "the volume to grow")
    assert world.pod("sales")["metadata"]["uid"] == pod["metadata"]["uid"]


# --- the API server, the operator -----------------------------------------------------------------


async def test_an_api_server_that_is_away(world: World) -> None:
    """A pod is deleted, another fails, a session is created: all is handled once it is back."""
    await begin(world, "sales", "support")
    pods = {name: world.pod(name) for name in ("sales", "support")}
    world.proxy.down = True
    world.proxy.cut()
    refused = len(world.proxy.calls)
    await world.take_away("pods", "sales")
    await world.kubelet.end(pods["support"], "Failed")
    await world.create("later")
    await world.until_calls(refused + 10)
    world.proxy.down = False
    world.script.scans = True
    for name, pod in pods.items():
        await world.until_replaced(name, pod)
        assert restored(world, name)
    await world.until_phase("later")


@pytest.mark.parametrize("plural", ["pods", "persistentvolumeclaims", "whatsappsessions"])
@pytest.mark.parametrize("fault", ["cut", "cut mid-line", "expired", "slow"])
async def test_a_watch_that_breaks_misses_nothing(world: World, plural: str, fault: str) -> None:
    await begin(world, "sales")
    actions = {
        "cut": proxy.drop_before,
        "cut mid-line": proxy.cut_mid_line(0),
        "expired": proxy.expired,
        "slow": proxy.trickle(0.2),
    }
    happening = world.proxy.fail(actions[fault], "GET", f"{plural}?watch")
    world.proxy.cut()
    pod = world.pod("sales")
    await world.take_away("pods", "sales")
    await world.create("later", suspend=True)
    await world.until_replaced("sales", pod)
    await world.until_phase("later", phase="Suspended")
    assert restored(world)
    await world.proxy.until(lambda: happening.done == 1)


@pytest.mark.parametrize("status", [403, 410, 500])
async def test_a_refused_watch_of_sessions_is_started_again(world: World, status: int) -> None:
    """kopf does not recover from a plain HTTP 410, nor from other errors that last."""
    await begin(world, "sales")
    assert world.operator is not None
    happening = world.proxy.fail(proxy.answers(status), "GET", "whatsappsessions?watch", times=6)
    world.proxy.cut()
    await world.proxy.until(lambda: happening.done == 6)
    pod = world.pod("sales")
    await world.annotate("sales", restart="1")
    await world.until_replaced("sales", pod)
    assert restored(world)
    assert world.operator.running
    assert "watch of the sessions failed" in world.operator.log.read_text()


async def test_what_happened_while_no_operator_ran(environment: Environment) -> None:
    world = World(environment)
    await world.open()
    names = ("deleted", "failed", "suspended", "removed", "untouched", "changed")
    await begin(world, *names)
    await world.until_noted(*names)
    await world.kill_operator()
    pods = {name: world.pod(name) for name in names}
    writes = len(world.proxy.writes)
    await world.take_away("pods", "deleted")
    await world.kubelet.end(pods["failed"], "Failed")
    await world.change("suspended", suspend=True)
    await world.delete("removed")
    await world.change("changed", updateStrategy="RollingUpdate", browser={"locale": "de-DE"})
    await world.create("added")
    world.script.scans = True
    await world.start_operator()
    for name in ("deleted", "failed", "changed"):
        await world.until_replaced(name, pods[name])
        assert restored(world, name)
    await world.until_gone("removed")
    await world.until_phase("added")
    await world.until(
        lambda: world.object("pods", "suspended") is None, "the suspended pod to be gone"
    )
    assert world.pod("untouched")["metadata"]["uid"] == pods["untouched"]["metadata"]["uid"]
    assert not [
        call for call in world.proxy.writes[writes:] if call.name and "untouched" in call.name
    ]
    assert await world.close() == []
