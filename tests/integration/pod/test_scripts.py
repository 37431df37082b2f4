"""WhatsApp Web's scripts come from a host of their own; without them the pod waits and recovers."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Literal

import pytest
from integration.pod.conftest import Pod
from support.documents import SCRIPT_HOST, real_page, trust
from support.standin import Phone, running
from support.standin.server import Running
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import Phase, Reason
from wasession_pod.volume.volume import CACHES

Start = Callable[..., Awaitable[Pod]]
Wrong = Literal["missing", "hanging", "html", "reset"]
WRONG: list[Wrong] = ["missing", "hanging", "html", "reset"]


@pytest.fixture
async def world() -> AsyncIterator[Running]:
    async with running(scripts=True) as world:
        yield world


def without_scripts(report: Report) -> bool:
    return report.reason == Reason.WHATSAPP_UNREACHABLE


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_login_comes_back_once_the_scripts_do(
    start: Start, phone: Phone, wrong: Wrong
) -> None:
    settings = {"initialization_timeout": "20", "reconnect_max_delay": "1"}
    pod = await start(**settings)
    await phone.scan(await pod.qr())
    await pod.ready()
    await pod.terminate()
    for cache in CACHES:
        shutil.rmtree(pod.directory / "session-sales" / cache, ignore_errors=True)
    await phone.behave(scripts=wrong)
    pod = await start(**settings)
    report = await pod.until(without_scripts, timeout=90)
    assert (report.phase, report.session_valid) == (Phase.RESTORING, True)
    assert "static.localhost" in report.message
    await phone.behave(scripts="served")
    report = await pod.until(lambda report: report.phase is Phase.READY, timeout=90)
    assert report.restored


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_real_document_without_its_scripts(
    start: Start, tmp_path: Path, wrong: Wrong
) -> None:
    async with real_page(tmp_path) as served:
        await Phone(served.standin.url, trust(tmp_path)).behave(scripts=wrong)
        pod = await start(
            url=served.url, extra_args=json.dumps(served.flags), initialization_timeout="20"
        )
        report = await pod.until(without_scripts, timeout=90)
        assert report.phase is Phase.STARTING
        assert SCRIPT_HOST in report.message
