"""A session's proxy is a mounted Secret: the pod says what is wrong with it, or has changed."""

from __future__ import annotations

from support.fakes.world import World
from wasession_api.session_pod.report import Notice
from wasession_api.v1alpha1 import Phase, Reason

REFERENCE = {"proxySecretRef": {"name": "wasession-proxy-sales"}}
CHANGED = [Notice(reason=Reason.PROXY_CHANGED, message="The proxy's Secret has changed.")]


async def test_a_pod_starts_without_its_proxys_secret_to_say_so(world: World) -> None:
    await world.start_operator()
    await world.create("sales", browser=REFERENCE)
    await world.until_phase("sales")
    [volume] = [v for v in world.pod("sales")["spec"]["volumes"] if v["name"] == "proxy"]
    assert volume["secret"]["secretName"] == "wasession-proxy-sales"
    assert volume["secret"]["optional"] is True


async def test_a_changed_proxy_takes_effect_at_the_next_start(world: World) -> None:
    await world.start_operator()
    await world.create("sales", browser=REFERENCE)
    await world.until_phase("sales")
    world.script.scans = False
    pod = world.pod("sales")
    world.program("sales").say(Phase.READY, Reason.CONNECTED, warnings=CHANGED)
    await world.until_reason("sales", "Progressing", "UpdatePending")
    await world.until_reason("sales", "Degraded", "ProxyChanged")
    assert world.pod("sales")["metadata"]["uid"] == pod["metadata"]["uid"]
    await world.change("sales", updateStrategy="RollingUpdate")
    await world.until_replaced("sales", pod)
    await world.until_reason("sales", "Degraded", "AsExpected")
    assert world.status("sales")["restored"] is True
