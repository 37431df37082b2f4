"""Rolling updates of sessions in several shards, by several replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from integration.operator.test_replicas import LEASE_DURATION, until_holders
from support.fakes.world import World
from wasession_api.v1alpha1 import PLURAL

NAMES = tuple(f"session-{number}" for number in range(8))
SHARDS = 4


@pytest.fixture
async def world(world: World) -> World:
    world.settings |= {"lease_duration": LEASE_DURATION, "shards": str(SHARDS)}
    return world


def being_updated(world: World) -> Iterator[set[str]]:
    """Yield after each change of a session which of them are being updated, by their status."""
    updating: set[str] = set()
    for change in world.changes:
        if change.plural == PLURAL:
            update = change.object.get("status", {}).get("update")
            name = change.object["metadata"]["name"]
            if change.type != "DELETED" and update and not update.get("done"):
                updating.add(name)
            else:
                updating.discard(name)
            yield set(updating)


async def until_updated(world: World, locale: str) -> None:
    def updated() -> bool:
        settled = all((world.status(name).get("update") or {}).get("done", True) for name in NAMES)
        return settled and all(locale in str(world.object("pods", name)) for name in NAMES)

    await world.until(updated, f"all to have {locale}", timeout=240)
    await world.until_phase(*NAMES)


@pytest.mark.parametrize("event", ["kill", "stop", "join"])
async def test_one_session_of_a_class_is_updated_at_a_time(world: World, event: str) -> None:
    """Whatever shards they are in, and whoever holds these."""
    await world.change_class(template={"updateStrategy": "RollingUpdate"})
    await world.start_operator()
    first = world.replicas[0]
    second = await world.add_replica()
    await until_holders(world, first, second, shards=SHARDS)
    await asyncio.gather(*(world.create(name) for name in NAMES))
    await world.until_phase(*NAMES)
    await world.change_class(template={"browser": {"locale": "de-DE"}})
    await world.until(lambda: any(being_updated(world)), "an update")
    match event:
        case "kill":
            await first.kill()
        case "stop":
            await second.stop()
        case "join":
            await world.add_replica()
    await until_updated(world, "de-DE")
    assert max(map(len, being_updated(world))) == 1


async def test_many_owners_change_their_sessions_at_once(world: World) -> None:
    """Each scope has a shard that leads it, whatever the owner is called."""
    await world.change_class(template={"updateStrategy": "RollingUpdate"})
    await world.start_operator()
    first = world.replicas[0]
    second = await world.add_replica()
    await until_holders(world, first, second, shards=SHARDS)
    await asyncio.gather(*(world.create(name, owner=f'owner/"of" {name}') for name in NAMES))
    await world.until_phase(*NAMES)
    await asyncio.gather(*(world.change(name, browser={"locale": "de-DE"}) for name in NAMES))
    await until_updated(world, "de-DE")
