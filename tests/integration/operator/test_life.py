"""The life of a session: created, changed, suspended, restarted, deleted."""

from __future__ import annotations

import asyncio

import pytest
from support.fakes.world import PVCS, World


async def test_from_a_resource_to_ready_and_to_nothing(world: World) -> None:
    """With a plain ``python -m wasession_operator``."""
    world.imported = False
    await world.start_operator()
    world.script.scans = False
    await world.create("sales")
    await world.until_phase("sales", phase="Authenticating")
    assert world.status("sales")["sessionValid"] is False
    world.program("sales").scan()
    await world.until_phase("sales")
    assert world.status("sales")["sessionValid"] is True
    assert world.status("sales")["account"]["id"].endswith("@c.us")
    await world.delete("sales")
    await world.until_gone("sales")
    assert world.object("pods", "sales") is None
    assert world.object(PVCS, "sales") is not None
    await world.stop_operator()
    created = [call.resource for call in world.proxy.writes if call.status == 201]
    assert sorted(created) == ["networkpolicies", "persistentvolumeclaims", "pods", "secrets"]


async def test_suspended_and_resumed(world: World) -> None:
    await world.start_operator()
    await world.create("sales")
    await world.until_phase("sales")
    await world.change("sales", suspend=True)
    await world.until(lambda: world.object("pods", "sales") is None, "the pod to be stopped")
    await world.until_phase("sales", phase="Suspended")
    await world.change("sales", suspend=False)
    await world.until_phase("sales")
    assert world.status("sales")["restored"] is True
    assert world.created("pods") == 2


async def test_a_change_waits_for_the_next_start_or_makes_it(world: World) -> None:
    await world.start_operator()
    await world.create("sales")
    await world.until_phase("sales")
    pod = world.pod("sales")
    await world.change("sales", browser={"locale": "de-DE"})
    generation = 2
    await world.until(
        lambda: world.status("sales")["observedGeneration"] == generation, "the change to be seen"
    )
    assert world.pod("sales")["metadata"]["uid"] == pod["metadata"]["uid"]
    await world.change("sales", updateStrategy="RollingUpdate")
    pod = await world.until_replaced("sales", pod)
    assert {"name": "WASESSION_LOCALE", "value": "de-DE"} in pod["spec"]["containers"][0]["env"]


async def test_restarted_once_for_each_new_value(world: World) -> None:
    await world.start_operator()
    await world.create("sales")
    await world.until_phase("sales")
    for number in range(1, 3):
        pod = world.pod("sales")
        await world.annotate("sales", restart=str(number))
        await world.until_replaced("sales", pod)
        assert world.status("sales")["restarts"]["count"] == number
        assert world.status("sales")["restarts"]["reason"] == "RestartRequested"
    assert world.created("pods") == 3


@pytest.mark.parametrize("asked", ["annotation", "spec"])
async def test_logged_out_before_it_is_deleted_where_that_is_asked_for(
    world: World, asked: str
) -> None:
    await world.start_operator()
    await world.create("sales", logoutOnDelete=asked == "spec")
    await world.until_phase("sales")
    program = world.program("sales")
    if asked == "annotation":
        await world.annotate("sales", logout="true")
    await world.delete("sales")
    await world.until_gone("sales")
    assert "POST /v1/logout" in program.requests
    assert program.volume.login is False


async def test_a_pod_that_is_not_heard_does_not_keep_a_deletion_up(world: World) -> None:
    await world.start_operator()
    await world.create("sales", logoutOnDelete=True, timeouts={"logout": "5s"})
    await world.until_phase("sales")
    program = world.program("sales")
    program.deaf = True
    await world.delete("sales")
    await world.until_gone("sales")
    assert program.volume.login is True


async def test_a_suspended_session_that_is_deleted_says_that_its_device_stays_linked(
    world: World,
) -> None:
    await world.start_operator()
    await world.create("sales", logoutOnDelete=True)
    await world.until_phase("sales")
    volume = world.program("sales").volume
    await world.change("sales", suspend=True)
    await world.until(lambda: world.object("pods", "sales") is None, "the pod to be stopped")
    before = (await world.api.list("events", world.namespace))["metadata"]["resourceVersion"]
    await world.delete("sales")
    await world.until_gone("sales")
    async with asyncio.timeout(60):
        async for event in world.api.watch("events", before, world.namespace):
            if event["object"].get("reason") == "LogoutFailed":
                break
    assert "Unlink it on the phone" in event["object"]["message"]
    assert volume.login is True


async def test_a_kept_login_is_taken_up_again(world: World) -> None:
    await world.start_operator()
    await world.create("sales", storage={"retention": {"whenDeleted": "Retain"}})
    await world.until_phase("sales")
    await world.delete("sales")
    await world.until_gone("sales")
    world.script.scans = False
    await world.create("sales")
    await world.until_phase("sales")
    assert world.status("sales")["restored"] is True
    assert world.created(PVCS) == 1


async def test_a_login_of_another_client_id_is_left_alone(world: World) -> None:
    await world.start_operator()
    await world.create("sales")
    await world.until_phase("sales")
    await world.delete("sales")
    await world.until_gone("sales")
    await world.create("sales", clientId="other")
    condition = await world.until_reason("sales", "StorageReady", "NameConflict")
    assert "clientId sales" in condition["message"]
    assert world.created("pods") == 1


async def test_everything_goes_where_that_is_asked_for(world: World) -> None:
    await world.start_operator()
    await world.create("sales", storage={"retention": {"whenDeleted": "Delete"}})
    await world.until_phase("sales")
    await world.delete("sales")
    await world.until_gone("sales")
    for plural in (PVCS, "secrets", "pods"):
        await world.until_none(plural, "sales")
