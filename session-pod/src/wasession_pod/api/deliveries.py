"""The handlers of deliveries to webhooks and sinks."""

from __future__ import annotations

from datetime import UTC, datetime

from aiohttp import web
from wasession_api.http.routes import PATH
from wasession_api.session_pod.delivery import (
    Configuration,
    DeadLetter,
    DeliveryDetails,
    Replay,
    Replayed,
)
from wasession_api.session_pod.messages import Page

from wasession_pod.api.operations import DeliveryPath
from wasession_pod.api.requests import SESSION, json_response, read_body
from wasession_pod.delivery.deliveries import Deliveries
from wasession_pod.delivery.delivery import Delivery


async def configure(request: web.Request) -> web.Response:
    configuration = Configuration.model_validate_json(await read_body(request))
    await request.app[SESSION].deliveries.configure(configuration)
    return web.json_response({})


async def list_deliveries(request: web.Request) -> web.Response:
    return json_response(Page(items=await details(request.app[SESSION].deliveries)))


async def list_dead_letters(request: web.Request) -> web.Response:
    path: DeliveryPath = request[PATH]
    letters = await request.app[SESSION].deliveries.dead_letters(path.name)
    items = [
        DeadLetter(
            event_id=one.event_id,
            kind=one.kind,
            at=datetime.fromtimestamp(one.died_at, UTC),
            attempts=one.attempts,
            error=one.error,
        )
        for one in letters
    ]
    return json_response(Page(items=items))


async def replay_dead_letters(request: web.Request) -> web.Response:
    path: DeliveryPath = request[PATH]
    count = await request.app[SESSION].deliveries.replay_dead(path.name)
    return json_response(Replayed(count=count), 202)


async def replay(request: web.Request) -> web.Response:
    path: DeliveryPath = request[PATH]
    body = Replay.model_validate_json(await read_body(request))
    request.app[SESSION].deliveries.replay(path.name, body.after)
    return web.Response(status=202)


async def pause(request: web.Request) -> web.Response:
    _delivery(request).pause(paused=True)
    return web.Response(status=204)


async def resume(request: web.Request) -> web.Response:
    _delivery(request).pause(paused=False)
    return web.Response(status=204)


def _delivery(request: web.Request) -> Delivery:
    path: DeliveryPath = request[PATH]
    return request.app[SESSION].deliveries.get(path.name)


async def details(deliveries: Deliveries) -> list[DeliveryDetails]:
    """Return how the deliveries are doing; raise ``DatabaseError``."""
    return [await _details(deliveries, one) for one in deliveries]


async def _details(deliveries: Deliveries, delivery: Delivery) -> DeliveryDetails:
    status, oldest = delivery.status, delivery.oldest
    return DeliveryDetails(
        name=status.name,
        place=delivery.kept.destination.place,
        state=status.state,
        since=status.since,
        error=delivery.error,
        pending=delivery.pending,
        oldest=_moment(oldest),
        last_delivered=_moment(delivery.last_delivered),
        dead_letters=await deliveries.count_dead(status.name),
    )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
