"""Events of what happens on purpose are no warnings."""

from __future__ import annotations

from support.fakes.api import Manifest
from support.fakes.world import World


async def events(world: World) -> list[Manifest]:
    listed = await world.api.list("events", world.namespace)
    return [
        event for event in listed["items"] if event["involvedObject"]["kind"] == "WhatsAppSession"
    ]


async def test_a_deleted_pod_is_no_warning(world: World) -> None:
    await world.start_operator()
    await world.create("sales")
    await world.until_phase("sales")
    world.script.scans = False
    for _ in range(2):
        pod = world.pod("sales")
        await world.take_away("pods", "sales")
        await world.until_replaced("sales", pod)
    await world.annotate("sales", restart="1")
    await world.until(lambda: world.created("pods") == 4, "a restart")
    await world.until_phase("sales")
    await world.stop_operator()  # which waits for the Events that it is emitting
    emitted = await events(world)
    assert {event["type"] for event in emitted} == {"Normal"}
    assert {"PodDeleted", "RestartRequested"} <= {event["reason"] for event in emitted}
    [deleted] = [event for event in emitted if event["reason"] == "PodDeleted"]
    assert deleted["count"] == 2, "the same Event again is counted"
    managers = {
        entry["manager"] for event in emitted for entry in event["metadata"]["managedFields"]
    }
    assert managers == {"wasession-operator"}
