"""WhatsApp through a proxy that requires credentials."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from integration.pod.conftest import Pod
from integration.pod.forward_proxy import Proxy
from support.standin import Phone
from support.standin.server import Running
from wasession_api.v1alpha1 import Phase, Reason

Start = Callable[..., Awaitable[Pod]]
USERNAME, PASSWORD = "someone", "swordfish-of-the-tests"
FRIEND = "15550001111"


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async with Proxy(USERNAME, PASSWORD).running() as proxy:
        yield proxy


async def test_all_traffic_uses_the_proxy_and_the_password_is_not_exposed(
    start: Start, phone: Phone, world: Running, proxy: Proxy
) -> None:
    pod = await start(
        proxy_server=f"http://127.0.0.1:{proxy.port}",
        proxy_username=USERNAME,
        proxy_password=PASSWORD,
    )
    await phone.scan(await pod.qr())
    await pod.ready()
    await pod.call("POST", "/v1/messages", 201, json={"to": FRIEND, "text": "through the proxy"})
    host = world.url.removeprefix("http://")
    assert f"GET {world.url}/" in proxy.passed
    assert f"CONNECT {host}" in proxy.passed, "WhatsApp's own connection"
    for process in pod.family():
        assert PASSWORD not in " ".join(process.cmdline())
        assert not any(PASSWORD in value for value in process.environ().values()), process
    assert PASSWORD not in pod.log
    assert PASSWORD not in str(await pod.call("GET", "/v1/state"))


async def test_the_password_may_be_in_the_url_and_is_requested_once(
    start: Start, proxy: Proxy, world: Running
) -> None:
    pod = await start(proxy_server=f"http://{USERNAME}:{PASSWORD}@127.0.0.1:{proxy.port}")
    await pod.qr()
    assert [target for target in proxy.refused if world.url in target] == [f"GET {world.url}/"]
    assert PASSWORD not in pod.log


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("password", ["wrong", None])
async def test_a_wrong_password_is_reported_and_nothing_bypasses_the_proxy(
    start: Start, proxy: Proxy, world: Running, password: str | None, scheme: str
) -> None:
    given = {} if password is None else {"proxy_username": USERNAME, "proxy_password": password}
    url = world.url.replace("http:", f"{scheme}:")
    pod = await start(url=url, proxy_server=f"http://127.0.0.1:{proxy.port}", **given)
    report = await pod.until(lambda report: report.reason == Reason.PROXY_FAILED)
    assert report.phase is Phase.STARTING
    assert proxy.passed == []
    assert "wrong" not in report.message


async def test_an_unreachable_proxy_is_reported(start: Start) -> None:
    pod = await start(proxy_server="http://127.0.0.1:9")
    await pod.until(lambda report: report.reason == Reason.PROXY_FAILED)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_never_answers_is_reported(
    start: Start, world: Running, scheme: str
) -> None:
    """Chromium reports no more than a timeout, as if WhatsApp did not answer."""

    async def never(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = world.url.replace("http:", f"{scheme}:")
    pod = await start(url=url, proxy_server=f"http://127.0.0.1:{port}", initialization_timeout="3")
    report = await pod.until(lambda report: report.reason == Reason.PROXY_FAILED)
    assert "proxy" in report.message
    server.close()
