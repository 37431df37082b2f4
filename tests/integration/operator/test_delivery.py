"""Session pods are told their webhooks and sinks without a restart, and report on them."""

from __future__ import annotations

from typing import Any

import pytest
from support.fakes.api import ApiError
from support.fakes.session_pods import delivery
from support.fakes.world import World
from wasession_api.v1alpha1 import DeliveryState, Reason

WEBHOOK = {"name": "crm", "url": "https://crm.example.com/", "signingKey": "crm"}
NATS = {"servers": ["tls://nats.example.com:4222"], "stream": "WHATSAPP"}
SINK = {"name": "events", "nats": NATS}


async def begin(world: World, **spec: Any) -> None:
    await world.start_operator()
    await world.create("sales", **spec)
    await world.until_phase("sales")


async def until_told(world: World, *urls: str) -> None:
    await world.until(
        lambda: [one.url for one in world.program("sales").volume.delivery.webhooks] == [*urls],
        "the pod to be told its webhooks",
    )


async def test_a_pod_is_told_its_webhooks_and_each_change_without_a_restart(world: World) -> None:
    await begin(world, webhooks=[WEBHOOK])
    await until_told(world, WEBHOOK["url"])
    await world.until(
        lambda: world.condition("sales", "Delivering").get("status") == "True",
        "the condition Delivering",
    )
    pod = world.status("sales")["podUID"]
    await world.change("sales", webhooks=[{**WEBHOOK, "url": "https://other.example.com/"}])
    await until_told(world, "https://other.example.com/")
    await world.change("sales", webhooks=None)
    await until_told(world)
    await world.until(lambda: not world.status("sales").get("delivery"), "no delivery")
    assert world.status("sales")["podUID"] == pod
    assert world.program("sales").requests.count("PUT /v1/deliveries") == 3


async def test_a_session_without_webhooks_is_told_nothing(world: World) -> None:
    await begin(world)
    assert "PUT /v1/deliveries" not in world.program("sales").requests
    assert world.condition("sales", "Delivering") == {}


async def test_a_pod_keeps_its_webhooks_across_restarts(world: World) -> None:
    await begin(world, webhooks=[WEBHOOK])
    await until_told(world, WEBHOOK["url"])
    await world.annotate("sales", restart="1")
    await world.until(
        lambda: world.status("sales").get("restart", {}).get("done"), "the restart to be done"
    )
    await world.until_phase("sales")
    assert "PUT /v1/deliveries" not in world.program("sales").requests


async def test_what_fails_is_in_the_status_until_it_works_again(world: World) -> None:
    await begin(world, webhooks=[WEBHOOK])
    await until_told(world, WEBHOOK["url"])
    program = world.program("sales")
    program.report_deliveries(delivery("crm", DeliveryState.FAILING, "HTTP 500"))
    await world.until(
        lambda: world.condition("sales", "Delivering").get("reason") == Reason.DELIVERY_FAILING,
        "the failure in the status",
    )
    assert "crm (HTTP 500)" in world.condition("sales", "Delivering")["message"]
    assert world.condition("sales", "Degraded")["reason"] == Reason.DELIVERY_FAILING
    [state] = world.status("sales")["delivery"]
    assert (state["name"], state["state"], state["error"]) == ("crm", "Failing", "HTTP 500")
    program.report_deliveries(delivery("crm"))
    await world.until(
        lambda: world.condition("sales", "Degraded")["status"] == "False", "all to be well"
    )


@pytest.mark.parametrize(
    "webhooks",
    [
        [{**WEBHOOK, "url": "ftp://crm.example.com/"}],
        [{**WEBHOOK, "url": "https://user:secret@crm.example.com/"}],
        [{**WEBHOOK, "timeout": "2h"}],
        [{**WEBHOOK, "events": ["unknown"]}],
        [{"name": "crm", "url": "https://crm.example.com/"}],
        [WEBHOOK, WEBHOOK],
    ],
)
async def test_the_api_server_rejects_webhooks_that_make_no_sense(
    world: World, webhooks: list[dict[str, Any]]
) -> None:
    with pytest.raises(ApiError) as error:
        await world.create("sales", webhooks=webhooks)
    assert error.value.status == 422


@pytest.mark.parametrize(
    "sink",
    [
        {**SINK, "name": "crm"},
        {"name": "events"},
        {**SINK, "timeout": "2h"},
        {**SINK, "nats": {**NATS, "servers": ["https://nats.example.com"]}},
        {**SINK, "nats": {**NATS, "subject": "whatsapp.>"}},
    ],
)
async def test_the_api_server_rejects_sinks_that_make_no_sense(
    world: World, sink: dict[str, Any]
) -> None:
    with pytest.raises(ApiError) as error:
        await world.create("sales", webhooks=[WEBHOOK], sinks=[sink])
    assert error.value.status == 422


async def test_a_pod_is_told_its_sinks(world: World) -> None:
    await begin(world, sinks=[SINK])
    await world.until(
        lambda: [one.name for one in world.program("sales").volume.delivery.sinks] == ["events"],
        "the pod to be told its sinks",
    )
    await world.until(
        lambda: [one["name"] for one in world.status("sales").get("delivery", [])] == ["events"],
        "the sink in the status",
    )
    assert world.condition("sales", "Delivering")["status"] == "True"
