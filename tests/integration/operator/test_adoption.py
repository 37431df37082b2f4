"""What belongs to a session stays its own, whatever people do to labels."""

from __future__ import annotations

from typing import Any

import pytest
from support.fakes.world import PVCS, World
from wasession_api.names import object_name


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


@pytest.mark.parametrize("plural", [PVCS, "secrets"])
@pytest.mark.parametrize("restarted", [False, True])
async def test_an_object_that_has_lost_its_labels_is_still_the_sessions(
    world: World, plural: str, restarted: bool
) -> None:
    await world.start_operator()
    await world.create("sales")
    await world.until_phase("sales")
    if restarted:
        await world.kill_operator()
    before = await take_labels_off(world, plural, "sales")
    if restarted:
        await world.start_operator()
    await world.until(lambda: has_labels_of(world, plural, "sales", before), "its labels back")
    assert world.created(plural) == 1
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
