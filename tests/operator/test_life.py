"""One session's life, from a CR to nothing."""

from __future__ import annotations

from fakes.world import World


async def test_from_a_resource_to_ready(world: World) -> None:
    await world.start_operator()
    world.script.scans = False
    await world.create("sales")
    await world.until_phase("sales", phase="Authenticating")
    assert world.status("sales")["sessionValid"] is False
    world.program("sales").scan()
    await world.until_phase("sales")
    assert world.status("sales")["sessionValid"] is True
    assert world.status("sales")["account"]["id"] == "15551234567@c.us"
