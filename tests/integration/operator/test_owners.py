"""What others have written on a session's objects stays, and their objects are left alone."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from kubernetes.aio import client
from support.fakes.world import PVCS, World
from wasession_api.kube.client import PVCS as PVC_RESOURCE
from wasession_api.kube.client import SESSIONS, Conflict, KubeClient, Rejected, Resource
from wasession_api.names import LABEL_OWNER, object_name


def owners(world: World) -> set[str]:
    claim = world.object(PVCS, "sales")
    assert claim is not None
    return {owner["name"] for owner in claim["metadata"].get("ownerReferences", [])}


def has_owners(world: World, names: set[str]) -> bool:
    return owners(world) == names


async def test_other_owners_of_a_claim_stay(world: World) -> None:
    await world.start_operator()
    await world.create("sales")
    await world.until_phase("sales")
    manifest = {"metadata": {"name": "backup", "namespace": world.namespace}}
    other = await world.api.create("configmaps", manifest)
    reference = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "backup",
        "uid": other["metadata"]["uid"],
    }
    metadata = {"ownerReferences": [reference]}
    await world.api.patch(PVCS, world.namespace, object_name("sales"), {"metadata": metadata})
    for when, expected in (("Delete", {"backup", "sales"}), ("Retain", {"backup"})):
        await world.change("sales", storage={"retention": {"whenDeleted": when}})
        await world.until(partial(has_owners, world, expected), f"owners of {when}")
    pod = world.pod("sales")
    await world.annotate("sales", restart="1")
    await world.until_replaced("sales", pod)
    assert owners(world) == {"backup"}
    changes = [change for change in world.changes if change.key[0] == PVCS]
    had = ["backup" in str(change.object["metadata"].get("ownerReferences")) for change in changes]
    assert had == sorted(had), "it was there from when it was added on"


@pytest.mark.parametrize(
    ("resource", "name", "patch", "sub"),
    [
        (PVC_RESOURCE, object_name("sales"), {"metadata": {"uid": "predecessor"}}, ""),
        (SESSIONS, "sales", {"metadata": {"uid": "predecessor"}}, ""),
        (
            SESSIONS,
            "sales",
            [
                {"op": "test", "path": "/metadata/uid", "value": "predecessor"},
                {"op": "add", "path": "/status", "value": {"phase": "LoggedOut"}},
            ],
            "/status",
        ),
    ],
)
async def test_a_write_for_a_predecessor_does_not_land_on_its_successor(
    world: World, resource: Resource, name: str, patch: Any, sub: str
) -> None:
    await world.start_operator()
    await world.create("sales")
    await world.until_phase("sales")
    api = client.ApiClient(client.Configuration(host=world.proxy.url))
    api.rest_client.pool_manager = world.http()
    kube = KubeClient(api, "test")
    try:
        with pytest.raises((Conflict, Rejected)):
            await kube.patch(resource, world.namespace, name, patch, sub)
    finally:
        await kube.close()
    assert world.phase("sales") == "Ready"


async def test_labels_follow_a_changed_owner(world: World) -> None:
    await world.start_operator()
    await world.create("sales", owner="alice")
    await world.until_phase("sales")
    world.script.scans = False
    await world.change("sales", owner="bob")

    def labels() -> set[str | None]:
        objects = [world.object(plural, "sales") for plural in ("pods", PVCS, "secrets")]
        return {obj["metadata"]["labels"].get(LABEL_OWNER) for obj in objects if obj is not None}

    await world.until(lambda: labels() == {"bob"}, "all objects with the new owner's label")
    assert world.phase("sales") == "Ready"
