"""Whatever crashes or hangs in the session pod, it recovers to Ready with its login."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from integration.pod.conftest import Pod
from support.standin import Phone, running
from wasession_api.v1alpha1 import DisconnectKind, Phase, Reason

Start = Callable[..., Awaitable[Pod]]


@pytest.fixture(scope="module")
async def ready(chromium: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pod]:
    """Yield one session for all of these tests, the smaller problems first.

    It detects a hung page sooner than by default. Its outage does not end between the tests.
    """
    directory = tmp_path_factory.mktemp("survivor") / "data"
    directory.mkdir()
    async with running() as world:
        pod = Pod(
            world.url, directory, answer_timeout="3", shutdown_timeout="5", reconnect_max_delay="1"
        )
        await pod.start()
        await Phone(world.url).scan(await pod.qr())
        await pod.ready()
        yield pod
        await pod.kill()


@asynccontextmanager
async def recovers(pod: Pod, kind: DisconnectKind, reason: Reason) -> AsyncIterator[None]:
    """Cause a problem in the block; then expect this disconnect, and the session Ready again."""
    before = await pod.ready()
    yield
    report = await pod.until(
        lambda report: (
            report.phase is Phase.READY and report.last_disconnect != before.last_disconnect
        ),
        timeout=90,
    )
    assert report.session_valid
    assert report.account == before.account
    assert report.last_disconnect is not None
    assert (report.last_disconnect.kind, report.last_disconnect.reason) == (kind, reason)


async def test_a_killed_renderer_is_replaced_by_a_fresh_page(ready: Pod) -> None:
    browser = ready.process_of("browser").pid
    async with recovers(ready, DisconnectKind.CRASH, Reason.PAGE_CRASHED):
        ready.process_of("renderer").kill()
    assert ready.process_of("browser").pid == browser
    assert (
        await ready.metric('wasession_pod_recoveries_total{cause="PageCrashed",step="reload"}') == 1
    )


async def test_a_page_that_hangs_is_replaced(ready: Pod) -> None:
    async with recovers(ready, DisconnectKind.CRASH, Reason.PAGE_HUNG):
        ready.process_of("renderer").suspend()
    assert await ready.metric('wasession_pod_recoveries_total{cause="PageHung",step="reload"}') == 1


async def test_a_browser_that_hangs_is_killed_and_started_again(ready: Pod) -> None:
    browser = ready.process_of("browser").pid
    async with recovers(ready, DisconnectKind.CRASH, Reason.PAGE_HUNG):
        ready.process_of("browser").suspend()
    assert ready.process_of("browser").pid != browser
    assert (
        await ready.metric('wasession_pod_recoveries_total{cause="BrowserHung",step="restart"}')
        == 1
    )


async def test_a_killed_browser_is_replaced_by_a_new_one(ready: Pod) -> None:
    async with recovers(ready, DisconnectKind.CRASH, Reason.BROWSER_CRASHED):
        ready.process_of("browser").kill()


@pytest.mark.parametrize(
    ("version", "why"),
    [
        ("Chromium 156.0.8078.79", "it exited with status 1: a library is missing"),
        ("", "printed no version"),
    ],
)
async def test_a_browser_that_does_not_start_ends_the_process_with_a_reason(
    start: Start, tmp_path: Path, version: str, why: str
) -> None:
    (chromium := tmp_path / "chromium").write_text(
        f'#!/bin/sh\n[ "$*" = --version ] && echo {version}\n'
        "echo a library is missing >&2\nexit 1\n"
    )
    chromium.chmod(0o755)
    pod = await start(chromium=str(chromium), reconnect_initial_delay="0.01")
    assert pod.process is not None
    assert await asyncio.wait_for(pod.process.wait(), 120) == 1
    last = json.loads(pod.log.splitlines()[-1])
    assert last["reason"].startswith("BrowserFailed: Chromium did not start: ")
    assert why in last["reason"]
