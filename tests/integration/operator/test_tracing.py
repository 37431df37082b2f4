"""The start of a session is one trace: from its creation, through its pod, until it is Ready."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from integration.operator.test_idle import writes_in_two_rounds
from support.collector import Behaviour, Collector, collecting
from support.fakes.api import Manifest
from support.fakes.world import Environment, World
from wasession_api.names import ANNOTATION_TEMPLATE_HASH

OF_PODS = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
PHONE = "15551234567"


@pytest.fixture
async def collector(environment: Environment) -> AsyncIterator[Collector]:
    """A collector in the network of the operators."""
    async with collecting(environment.network.listen("127.0.0.1", 0)) as collector:
        yield collector


def environment_of(pod: Manifest) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in pod["spec"]["containers"][0]["env"]}


def template_hash(pod: Manifest) -> str:
    value: str = pod["metadata"]["annotations"][ANNOTATION_TEMPLATE_HASH]
    return value


async def test_a_new_session(world: World, collector: Collector) -> None:
    world.variables = collector.environment
    await world.start_operator(session_tracing=json.dumps(OF_PODS))
    await world.create("sales", pairing={"method": "PairingCode", "phoneNumber": PHONE})
    await world.until_phase("sales")
    start = await collector.one("session start")
    assert start.parent == ""
    assert not start.failed
    assert start.attributes == {
        "k8s.namespace.name": world.namespace,
        "wasession.session.name": "sales",
        "wasession.phase": "Ready",
        "wasession.reason": "Connected",
    }
    assert start.resource["service.name"] == "wasession-operator"
    assert start.resource["k8s.pod.name"] == "operator-1"
    children = collector.children(start)
    passes = [one for one in children if one.name == "reconcile"]
    assert passes[0].start <= start.start + 10**9
    writes = [write for one in passes for write in collector.children(one)]
    names = [write.name for write in writes]
    assert names.index("create persistentvolumeclaims") < names.index("create pods")
    assert {"patch secrets", "patch whatsappsessions/status"} <= set(names)
    assert all(write.kind == "CLIENT" for write in writes)
    steps = [one for one in children if one not in passes]
    assert steps
    assert all(one.attributes["wasession.reason"] == one.name for one in steps)
    variables = environment_of(world.pod("sales"))
    assert variables.items() >= OF_PODS.items()
    assert variables["WASESSION_TRACEPARENT"].startswith(f"00-{start.trace}-{start.id}-")
    assert PHONE.encode() not in collector.everything
    await world.stop_operator()
    assert collector.named("session start") == [start], "nothing is traced once it is Ready"
    late = [one for one in collector.spans if one.start > start.end]
    assert late == []


async def test_traces_change_no_pod(world: World, collector: Collector) -> None:
    """Neither when they are switched on nor off; a pod that is made has what there is then."""
    await world.start_operator(session_tracing=json.dumps(OF_PODS))
    await world.create("sales")
    await world.until_phase("sales")
    first = world.pod("sales")
    assert "WASESSION_TRACEPARENT" not in environment_of(first)
    world.variables = collector.environment
    world.settings["session_tracing"] = json.dumps(OF_PODS)
    await world.restart_operator()
    while await writes_in_two_rounds(world):
        pass
    assert world.pod("sales")["metadata"]["uid"] == first["metadata"]["uid"]
    assert collector.spans == []
    await world.take_away("pods", "sales")
    second = await world.until_replaced("sales", first)
    start = await collector.one("session start")
    traceparent = environment_of(second)["WASESSION_TRACEPARENT"]
    assert traceparent.startswith(f"00-{start.trace}-{start.id}-")
    assert "create pods" in [one.name for one in collector.children(start)]
    assert template_hash(second) == template_hash(first)
    assert start.attributes["wasession.phase"] == "Ready"


@pytest.mark.parametrize("behaviour", [Behaviour.FAIL, Behaviour.HANG, Behaviour.BREAK])
async def test_a_collector_that_fails_hurts_no_session(
    behaviour: Behaviour, world: World, collector: Collector
) -> None:
    collector.behaviour = behaviour
    world.variables = {**collector.environment, "OTEL_EXPORTER_OTLP_TIMEOUT": "3600"}
    await world.start_operator()
    names = [f"session-{number}" for number in range(10)]
    for name in names:
        await world.create(name)
    await world.until_phase(*names)
    await collector.until(lambda: collector.requests)
    assert not {"WASESSION_TRACEPARENT", *OF_PODS} & environment_of(world.pod(names[0])).keys()
    await world.stop_operator()  # which fails after 30 s
