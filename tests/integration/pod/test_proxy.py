"""WhatsApp through a proxy that requires credentials."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from integration.pod.conftest import Pod
from integration.pod.forward_proxy import Proxy
from support.standin import Phone
from support.standin.server import Running
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import Phase, Reason

Start = Callable[..., Awaitable[Pod]]
USERNAME, PASSWORD = "someone", "swordfish-of-the-tests"
FRIEND = "15550001111"


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async with Proxy(USERNAME, PASSWORD).running() as proxy:
        yield proxy


def secret(directory: Path, **keys: str) -> str:
    """Write the files of a mounted Secret; return their directory."""
    directory = directory / "proxy"
    directory.mkdir(exist_ok=True)
    for key, value in keys.items():
        (directory / "partial").write_text(value)
        (directory / "partial").rename(directory / key)
    return str(directory)


def warned(report: Report, reason: Reason) -> bool:
    return any(notice.reason == reason for notice in report.warnings)


async def test_all_traffic_uses_the_proxy_and_the_password_is_not_exposed(
    start: Start, phone: Phone, world: Running, proxy: Proxy, tmp_path: Path
) -> None:
    server = f"http://127.0.0.1:{proxy.port}"
    directory = secret(tmp_path, server=server, username=USERNAME, password=PASSWORD)
    pod = await start(proxy_directory=directory)
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
    start: Start, proxy: Proxy, world: Running, tmp_path: Path
) -> None:
    server = f"http://{USERNAME}:{PASSWORD}@127.0.0.1:{proxy.port}"
    pod = await start(proxy_directory=secret(tmp_path, server=server))
    await pod.qr()
    assert [target for target in proxy.refused if world.url in target] == [f"GET {world.url}/"]
    assert PASSWORD not in pod.log


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("password", ["wrong", None])
async def test_a_wrong_password_is_reported_and_nothing_bypasses_the_proxy(
    start: Start, proxy: Proxy, world: Running, password: str | None, scheme: str, tmp_path: Path
) -> None:
    given = {} if password is None else {"username": USERNAME, "password": password}
    url = world.url.replace("http:", f"{scheme}:")
    directory = secret(tmp_path, server=f"http://127.0.0.1:{proxy.port}", **given)
    pod = await start(url=url, proxy_directory=directory)
    report = await pod.until(lambda report: report.reason == Reason.PROXY_FAILED)
    assert report.phase is Phase.STARTING
    assert proxy.passed == []
    assert "wrong" not in report.message


async def test_an_unreachable_proxy_is_reported(start: Start, tmp_path: Path) -> None:
    pod = await start(proxy_directory=secret(tmp_path, server="http://127.0.0.1:9"))
    await pod.until(lambda report: report.reason == Reason.PROXY_FAILED)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_never_answers_is_reported(
    start: Start, world: Running, scheme: str, tmp_path: Path
) -> None:
    """Chromium reports no more than a timeout, as if WhatsApp did not answer."""

    async def never(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = world.url.replace("http:", f"{scheme}:")
    directory = secret(tmp_path, server=f"http://127.0.0.1:{port}")
    pod = await start(url=url, proxy_directory=directory, initialization_timeout="3")
    report = await pod.until(lambda report: report.reason == Reason.PROXY_FAILED)
    assert "proxy" in report.message
    server.close()


async def test_no_browser_starts_before_there_is_a_valid_proxy(
    start: Start, world: Running, proxy: Proxy, tmp_path: Path
) -> None:
    pod = await start(proxy_directory=secret(tmp_path), reconnect_initial_delay="300")
    report = await pod.until(lambda report: report.reason == Reason.PROXY_INVALID)
    assert report.phase is Phase.FAILED
    assert "Key server of the proxy's Secret" in report.message
    assert "is missing" in report.message
    secret(tmp_path, server="http://127.0.0.1:1,direct://")
    await pod.until(lambda report: "is not an address" in report.message)
    assert not any("--type=" in " ".join(process.cmdline()) for process in pod.family())
    assert proxy.passed == []
    secret(tmp_path, username=USERNAME, password=PASSWORD)
    secret(tmp_path, server=f"http://127.0.0.1:{proxy.port}")
    await pod.qr()
    assert f"GET {world.url}/" in proxy.passed


async def test_a_proxy_that_changes_is_a_warning_and_does_not_disturb_the_session(
    start: Start, phone: Phone, proxy: Proxy, tmp_path: Path
) -> None:
    server = f"http://127.0.0.1:{proxy.port}"
    directory = secret(tmp_path, server=server, username=USERNAME, password=PASSWORD)
    pod = await start(proxy_directory=directory)
    await phone.scan(await pod.qr())
    await pod.ready()
    other = "swordfish-of-another-day"
    secret(tmp_path, password=other)
    report = await pod.until(lambda report: warned(report, Reason.PROXY_CHANGED))
    assert report.phase is Phase.READY
    (Path(directory) / "server").unlink()
    report = await pod.until(lambda report: warned(report, Reason.PROXY_INVALID))
    assert report.phase is Phase.READY
    assert not warned(report, Reason.PROXY_CHANGED), "nothing could start with it"
    secret(tmp_path, server=server, password=PASSWORD)
    await pod.until(lambda report: not report.warnings)
    async with pod.http.get(pod.base + "/metrics") as answer:
        exposed = await answer.text() + pod.log + str(await pod.call("GET", "/v1/state"))
    for text in (PASSWORD, other, USERNAME, server):
        assert text not in exposed


async def test_a_changed_proxy_takes_effect_with_the_next_browser(
    start: Start, proxy: Proxy, tmp_path: Path
) -> None:
    pod = await start(proxy_directory=secret(tmp_path, server="http://127.0.0.1:9"))
    await pod.until(lambda report: report.reason == Reason.PROXY_FAILED)
    credentials = {"username": USERNAME, "password": PASSWORD}
    secret(tmp_path, server=f"http://127.0.0.1:{proxy.port}", **credentials)
    await pod.until(lambda report: warned(report, Reason.PROXY_CHANGED))
    await pod.call("POST", "/v1/restart", 202)
    await pod.qr()
    await pod.until(lambda report: not report.warnings)
    assert proxy.passed


async def test_the_proxy_is_not_taken_from_the_environment(start: Start) -> None:
    pod = await start(proxy_server="http://127.0.0.1:9")
    assert pod.process is not None
    assert await pod.process.wait() == 1
    assert "WASESSION_PROXY_SERVER: not a setting" in pod.log
