"""What belongs to a session stays its own, whatever people do to labels."""

from __future__ import annotations

from typing import Any

import pytest
from support.fakes.world import PVCS, World
from wasession_api.names import object_name
from wasession_api.v1alpha1 import API_VERSION, KIND, PLURAL


async def take_labels_off(world: World, plural: str, name: str) -> dict[str, Any]:
    """Take off the labels and annotations that the operator has set; return the object before."""
    obj = world.object(plural, name)
    assert obj is not None
    metadata = {
        "labels": dict.fromkeys(obj["metadata"]["labels"]),
        "annotations": dict.fromkeys(obj["metadata"].get("annotations") or {}),
    }
    await world.api.patch(plural, world.namespace, object_name(name), {"metadata": metadata})
    return obj


def has_labels_of(world: World, plural: str, name: str, before: dict[str, Any]) -> bool:
    obj = world.object(plural, name) or {"metadata": {}}
    return bool(
        obj["metadata"].get("labels") == before["metadata"]["labels"]
        and obj["metadata"]["uid"] == before["metadata"]["uid"]
    )


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_claim_that_has_lost_its_labels_is_still_the_sessions(
    world: World, restarted: bool
) -> None:
    await world.start_operator()
    await world.create("sales")
    await world.until_phase("sales")
    if restarted:
        await world.kill_operator()
    before = await take_labels_off(world, PVCS, "sales")
    if restarted:
        await world.start_operator()
    await world.until(lambda: has_labels_of(world, PVCS, "sales", before), "its labels back")
    assert world.created(PVCS) == 1
    reasons = {
        condition["reason"]
        for change in world.changes
        if change.plural == "whatsappsessions"
        for condition in change.object.get("status", {}).get("conditions", [])
    }
    assert not reasons & {"VolumeLost", "NameConflict"}
    assert world.created("pods") == 1


async def test_a_retained_claim_is_not_taken_over_by_another_owner(world: World) -> None:
    await world.start_operator()
    await world.create("sales", owner="alice")
    await world.until_phase("sales")
    await world.delete("sales")
    await world.until_gone("sales")
    await world.create("sales", owner="mallory")
    condition = await world.until_reason("sales", "Degraded", "NameConflict")
    assert "another owner" in condition["message"]
    assert world.created("pods") == 1
    await world.delete("sales")
    await world.until_gone("sales")
    await world.create("sales", owner="alice")
    await world.until_phase("sales")
    assert world.status("sales")["restored"] is True


# --- backups --------------------------------------------------------------------------------------


async def create_with(world: World, name: str, **annotations: str) -> None:
    """Create a session with annotations from the start, as a backup or GitOps does."""
    metadata = {
        "name": name,
        "namespace": world.namespace,
        "annotations": {
            f"wasession.dev/{key.replace('_', '-')}": value for key, value in annotations.items()
        },
    }
    spec = {"className": world.class_name}
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}
    await world.api.create(PLURAL, body)


async def test_a_session_that_is_created_again_is_not_logged_out_again(world: World) -> None:
    await world.start_operator()
    await world.create("sales")
    await world.until_phase("sales")
    await world.annotate("sales", logout="1")
    await world.until(
        lambda: world.status("sales").get("logout", {}).get("done"), "the logout to be done"
    )
    world.program("sales").scan()
    await world.until_phase("sales")
    await world.delete("sales")
    await world.until_gone("sales")
    await create_with(world, "sales", logout="1")
    await world.until(
        lambda: world.status("sales").get("logout", {}).get("done"), "the request to be known"
    )
    await world.until_phase("sales")
    assert world.status("sales")["sessionValid"] is True
    assert world.program("sales").requests.count("POST /v1/logout") == 0


async def test_a_session_that_expects_a_login_waits_for_its_claim(world: World) -> None:
    await world.start_operator()
    await world.create("sales")
    await world.until_phase("sales")
    await world.delete("sales")
    await world.until_gone("sales")
    saved = await world.take_away(PVCS, "sales")
    await world.until_none(PVCS, "sales")
    await create_with(world, "sales", expects_login="true")
    await world.until_reason("sales", "StorageReady", "VolumeMissing")
    assert world.created(PVCS) == 1
    volume = saved["spec"]["volumeName"]
    await world.api.patch("persistentvolumes", None, volume, {"spec": {"claimRef": None}})
    metadata = {key: saved["metadata"][key] for key in ("name", "namespace", "annotations")}
    await world.api.create(PVCS, {"metadata": metadata, "spec": saved["spec"]})
    await world.until_phase("sales")
    assert world.status("sales")["restored"] is True


async def test_a_loss_is_accepted_by_the_nonce_that_the_status_shows(world: World) -> None:
    await world.start_operator()
    await world.create("sales")
    await world.until_phase("sales")
    lost = world.status("sales")["pvcUID"]
    await world.annotate("sales", accept_data_loss=lost)
    await world.take_away(PVCS, "sales")
    await world.take_away("pods", "sales")
    await world.until_reason("sales", "StorageReady", "VolumeLost")
    assert world.created(PVCS) == 1
    loss = world.status("sales")["volumeLoss"]
    assert loss["pvcUID"] == lost
    await world.annotate("sales", accept_data_loss=loss["nonce"])
    await world.until_phase("sales")
    assert world.status("sales")["restored"] is False
    assert "volumeLoss" not in world.status("sales")
    assert world.created(PVCS) == 2
