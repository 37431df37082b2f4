"""Sessions that nobody uses sleep, and come back with their login when somebody does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from support.fakes.world import PVCS, World
from wasession_api.v1alpha1 import PLURAL

LONG_AGO = timedelta(hours=2)


async def put_to_sleep(world: World, name: str = "sales") -> None:
    """Create a session that sleeps after five minutes, and let it be idle for longer."""
    await world.create(name, hibernation={"afterIdle": "5m"})
    await world.until_phase(name)
    world.program(name).idle(datetime.now(UTC) - LONG_AGO)
    await world.until_phase(name, phase="Hibernated")


async def test_it_sleeps_until_somebody_asks(world: World) -> None:
    await world.start_operator()
    await put_to_sleep(world)
    assert world.object("pods", "sales") is None
    assert world.object(PVCS, "sales") is not None
    assert world.status("sales")["sessionValid"] is True
    await world.annotate("sales", wake="1")
    await world.until_phase("sales")
    status = world.status("sales")
    assert status["restored"] is True
    assert "hibernation" not in status
    await world.until(lambda: world.status("sales")["wake"]["done"], "the wake-up to be done")
    assert status["restarts"]["count"] == 0
    assert world.created("pods") == 2


async def test_another_replica_lets_it_sleep(world: World) -> None:
    await world.start_operator()
    await put_to_sleep(world)
    await world.kill_operator()
    await world.start_operator()
    await world.create("other")
    await world.until_phase("other")
    assert world.phase("sales") == "Hibernated"
    assert world.created("pods") == 2
    await world.annotate("sales", wake="1")
    await world.until_phase("sales")


async def test_one_that_was_restored_without_its_status_is_awake(world: World) -> None:
    """Nothing is lost by that: it falls asleep again."""
    await world.start_operator()
    await put_to_sleep(world)
    await world.stop_operator()
    await world.api.patch(PLURAL, world.namespace, "sales", {"status": None}, "status")
    await world.start_operator()
    await world.until_phase("sales")
    assert world.status("sales")["restored"] is True


async def test_a_suspended_one_does_not_wake(world: World) -> None:
    await world.start_operator()
    await put_to_sleep(world)
    await world.change("sales", suspend=True)
    await world.until_phase("sales", phase="Suspended")
    await world.annotate("sales", wake="1")
    await world.create("other")
    await world.until_phase("other")
    assert world.phase("sales") == "Suspended"
    await world.change("sales", suspend=False)
    await world.until_phase("sales")


async def test_it_can_be_deleted_in_its_sleep(world: World) -> None:
    await world.start_operator()
    await put_to_sleep(world)
    await world.delete("sales")
    await world.until_gone("sales")
    assert world.object(PVCS, "sales") is not None


async def test_a_wake_up_while_it_falls_asleep_is_not_lost(world: World) -> None:
    """Its pod still reports that it is Ready and idle when somebody asks."""
    await world.start_operator()
    await world.create("sales", hibernation={"afterIdle": "5m"})
    await world.until_phase("sales")
    world.script.stops = False
    pod, program = world.pod("sales"), world.program("sales")
    program.idle(datetime.now(UTC) - LONG_AGO)
    await world.until(
        lambda: "deletionTimestamp" in world.pod("sales")["metadata"], "the pod to terminate"
    )
    await world.annotate("sales", wake="1")
    await world.until(lambda: "wake" in world.status("sales"), "the request to be seen")
    program.idle(datetime.now(UTC) - LONG_AGO)
    assert world.status("sales")["wake"]["done"] is False
    world.script.stops = True
    world.kubelet.look_again(world.namespace)
    await world.until_replaced("sales", pod)
    await world.until(lambda: world.status("sales")["wake"]["done"], "the wake-up to be done")
