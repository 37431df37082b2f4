"""The Secret with a session's proxy may be missing, come later, and change."""

from __future__ import annotations

from support.fakes.world import World

REFERENCE = {"proxySecretRef": {"name": "proxy"}}


async def test_a_proxys_secret_that_comes_later_and_changes(world: World) -> None:
    await world.start_operator(cleanup_interval="1s")
    await world.create("sales", browser=REFERENCE)
    condition = await world.until_reason("sales", "Degraded", "ProxySecretMissing")
    assert "Secret proxy" in condition["message"]
    assert world.created("pods") == 0
    metadata = {"name": "proxy", "namespace": world.namespace}
    manifest = {"metadata": metadata, "stringData": {"server": "http://proxy:3128"}}
    await world.api.create("secrets", manifest)
    await world.until_phase("sales")
    await world.until_reason("sales", "Degraded", "AsExpected")
    pod = world.pod("sales")
    await world.api.patch(
        "secrets", world.namespace, "proxy", {"stringData": {"server": "http://other:3128"}}
    )
    await world.until_reason("sales", "Progressing", "UpdatePending")
    assert world.pod("sales")["metadata"]["uid"] == pod["metadata"]["uid"]
    await world.annotate("sales", restart="1")
    await world.until_replaced("sales", pod)
    await world.until(
        lambda: world.condition("sales", "Progressing").get("reason") != "UpdatePending",
        "the update to be done",
    )
