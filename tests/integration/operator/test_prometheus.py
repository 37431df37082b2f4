"""A real Prometheus scrapes a real operator, and answers what alerts and board ask."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from support import prometheus
from support.fakes.world import World
from support.loopback import unused_port
from support.prometheus import Prometheus
from wasession_api.v1alpha1 import Phase, Reason


@pytest.fixture(name="prometheus", scope="module")
def built() -> Path:
    return prometheus.program("prometheus")


@asynccontextmanager
async def scraped(world: World, directory: Path) -> AsyncIterator[Prometheus]:
    """Yield a Prometheus, which reaches the operator's network through this process."""

    async def forward(_: web.Request) -> web.Response:
        status, text = await world.get("/metrics")
        return web.Response(status=status, text=text)

    app = web.Application()
    app.router.add_get("/metrics", forward)
    runner, port = web.AppRunner(app), unused_port()
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        async with Prometheus(directory, [f"127.0.0.1:{port}"], prometheus.RULES) as server:
            yield server
    finally:
        await runner.cleanup()


@pytest.mark.usefixtures("prometheus")
async def test_a_session_in_trouble_has_series_and_alerts_until_it_is_well(
    world: World, tmp_path: Path
) -> None:
    await world.start_operator()
    await world.create("sales")
    await world.create("calm")
    await world.until_phase("sales", "calm")
    async with scraped(world, tmp_path) as server:
        of_sales = f'{{namespace="{world.namespace}",name="sales"}}'
        await server.until('sum(wasession_sessions{phase="Ready"}) == 2')
        assert await server.query("wasession_session_condition") == []
        world.program("sales").say(Phase.LOGGED_OUT, Reason.LOGGED_OUT_BY_PHONE)
        [found] = await server.until(f"wasession_session_condition{of_sales}")
        assert found["metric"]["type"] == "Ready"
        assert found["metric"]["reason"] == "LoggedOutByPhone"
        [alert] = await server.until('ALERTS{alertname="WasessionLoginLost"}')
        assert alert["metric"]["namespace"] == world.namespace
        assert alert["metric"]["name"] == "sales"
        assert alert["metric"]["alertstate"] == "pending"
        world.program("sales").scan()
        await server.until("sum(wasession_sessions{phase='Ready'}) == 2")
        await server.until(f"absent(wasession_session_condition{of_sales})")
        await server.until('absent(ALERTS{alertname="WasessionLoginLost"})')


@pytest.mark.usefixtures("prometheus")
async def test_every_question_of_alerts_and_board_is_answered(world: World, tmp_path: Path) -> None:
    """Those about the operator have results; gateway and session pods are not scraped here."""
    await world.start_operator()
    world.script.scans = False
    await world.create("waiting")
    await world.until_phase("waiting", phase="Authenticating")
    asked = prometheus.board_queries("1m")
    async with scraped(world, tmp_path) as server:
        await server.until("sum(wasession_sessions) == 1")
        for alert in prometheus.alerts():
            await server.query(alert["expr"])
        for title in ("Sessions by phase", "Valid logins", "What needs attention", "Shards held"):
            [query] = [query for name, query in asked if name == title]
            assert await server.until(query), title
        for _, query in asked:
            await server.query(query)
