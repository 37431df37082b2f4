"""The page itself: whether it shows the account as online, whose it is, and how often it loads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from integration.pod.conftest import Pod
from support.standin import Phone
from wasession_api.v1alpha1 import Reason

Start = Callable[..., Awaitable[Pod]]
ME = "15551234567"


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that the stand-in's server knows."""
    async with asyncio.timeout(30):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.05)  # between two looks


@pytest.mark.parametrize(("setting", "shown"), [({}, False), ({"presence": "Available"}, True)])
async def test_presence(start: Start, phone: Phone, setting: dict[str, str], shown: bool) -> None:
    async def said() -> bool:
        [device] = await phone.devices(ME)
        return device.available is shown

    pod = await start(**setting)
    await phone.scan(await pod.qr())
    await pod.ready()
    await until(said)
    await phone.fault("drop", ME)
    await pod.until(lambda report: report.phase != "Ready")
    await pod.ready()
    await until(said)
    assert (await phone.presences(ME))[-1] is shown


# --- whose it is ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "account"),
    [
        (["phone"], f"{ME}@c.us"),
        (["phone", "device"], f"{ME}@c.us"),
        (["phone", "device", "conn"], f"9{ME}@lid"),
        (["phone", "device", "conn", "lid"], f"{ME}@c.us"),  # as login.json has it
    ],
)
async def test_the_account_is_known_from_elsewhere(
    start: Start, phone: Phone, missing: list[str], account: str
) -> None:
    pod = await start()
    await phone.scan(await pod.qr())
    await pod.ready()
    await pod.terminate()
    await phone.behave(missing_me=missing)
    await pod.start()
    report = await pod.ready()
    assert report.restored
    assert report.account is not None
    assert report.account.id == account


async def test_an_account_that_nothing_tells_is_incompatible(start: Start, phone: Phone) -> None:
    await phone.behave(missing_me=["phone", "device", "conn", "lid"])
    pod = await start(initialization_timeout="8")
    await phone.scan(await pod.qr())
    report = await pod.until(lambda report: report.phase == "Failed")
    assert report.reason == Reason.PAGE_INCOMPATIBLE
    assert "which account" in report.message
    assert pod.process is not None
    assert pod.process.returncode is None


# --- how often it loads ---------------------------------------------------------------------------


async def test_a_page_that_reloads_itself_for_ever_is_a_warning(start: Start, phone: Phone) -> None:
    pod = await start()
    await phone.scan(await pod.qr())
    await pod.ready()
    assert (await pod.call("GET", "/v1/state"))["warnings"] == []
    await phone.behave(reload_ms=2500)
    await pod.call("POST", "/v1/restart", 202)
    statuses: set[int] = set()

    async def send() -> None:
        while True:
            answer = await pod.answer(
                "POST", "/v1/messages", json={"to": "15550001111", "text": "hello"}
            )
            statuses.add(answer.status)
            if answer.status == 503:
                assert int(answer.headers["Retry-After"]) > 0
            assert "TypeError" not in answer.body.decode()
            await asyncio.sleep(0.05)  # between two sends

    sending = asyncio.create_task(send())
    report = await pod.until(lambda report: bool(report.warnings), timeout=90)
    sending.cancel()
    assert [warning.reason for warning in report.warnings] == [Reason.PAGE_RELOADING]
    assert await pod.metric("wasession_pod_page_loads_total") >= 7
    assert statuses <= {201, 503, 504}, "504 while it is being sent"
    assert 503 in statuses
    with pytest.raises(asyncio.CancelledError):
        await sending


async def test_pages_that_the_pod_opens_are_no_reloads(start: Start, phone: Phone) -> None:
    pod = await start()
    await phone.scan(await pod.qr())
    for _ in range(6):
        await pod.ready()
        await pod.call("POST", "/v1/restart", 202)
        await pod.until(lambda report: report.phase != "Ready")
    report: Any = await pod.ready()
    assert report.warnings == []
