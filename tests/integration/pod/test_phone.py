"""The account's phone: its last activity, and what happens without any."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from integration.pod.conftest import Pod
from support.standin import Phone
from wasession_api.v1alpha1 import DisconnectKind, Phase, Reason

Start = Callable[..., Awaitable[Pod]]
ACCOUNT, FRIEND = "15551234567", "15550001111"


async def inactive_for(days: float, start: Start, phone: Phone) -> Pod:
    """Start a session whose phone has been inactive for some days."""
    pod = await start()
    await phone.scan(await pod.qr(), ACCOUNT)
    report = await pod.until(lambda report: report.phase is Phase.READY)
    assert report.phone_last_seen is not None
    assert report.warnings == []
    assert await pod.terminate() == 0
    path = pod.directory / "login.json"
    login = json.loads(path.read_text()) | {
        "phone_last_seen": str(datetime.now(UTC) - timedelta(days=days))
    }
    path.write_text(json.dumps(login))
    return await start()


async def until_recorded(pod: Pod, at: datetime) -> None:
    """Wait until the volume has the phone's last activity, which follows the report."""

    def recorded() -> datetime:
        login = json.loads((pod.directory / "login.json").read_text())
        return datetime.fromisoformat(login["phone_last_seen"])

    async with asyncio.timeout(30):
        while True:
            if abs((await asyncio.to_thread(recorded)) - at) < timedelta(seconds=1):
                return
            await asyncio.sleep(0.05)  # between two looks


@pytest.mark.parametrize("activity", ["receipt", "message"])
async def test_an_inactive_phone_is_a_warning_until_it_is_active(
    start: Start, phone: Phone, activity: str
) -> None:
    pod = await inactive_for(12, start, phone)
    report = await pod.ready()
    assert [warning.reason for warning in report.warnings] == [Reason.PHONE_OFFLINE]
    assert await pod.metric('wasession_pod_warning{reason="PhoneOffline"}') == 1
    await phone.send(FRIEND, ACCOUNT, "not from the phone")
    if activity == "receipt":
        await pod.call(
            "POST", "/v1/messages", 201, json={"to": FRIEND, "text": "the phone gets a copy"}
        )
    else:
        await phone.send(ACCOUNT, FRIEND, "written on the phone")
    report = await pod.until(lambda report: report.warnings == [])
    assert report.phone_last_seen is not None
    age = datetime.now(UTC) - report.phone_last_seen
    assert age < timedelta(minutes=10)
    seen = await pod.metric("wasession_pod_phone_last_seen_timestamp_seconds")
    await until_recorded(pod, report.phone_last_seen)
    await pod.kill()
    again = await start()
    report = await again.ready()
    assert report.phone_last_seen is not None
    assert abs(report.phone_last_seen.timestamp() - seen) < 1, "stored on the volume"


async def test_activity_of_others_does_not_count(start: Start, phone: Phone) -> None:
    await phone.behave(phone_online=False)
    pod = await inactive_for(12, start, phone)
    await pod.ready()
    sent = await pod.call(
        "POST", "/v1/messages", 201, json={"to": FRIEND, "text": "the phone is off"}
    )
    async with pod.stream("ack") as acks:
        await phone.send(FRIEND, ACCOUNT, "an answer")
        await phone.read((await phone.messages())[0].id)
        async for event in acks:
            if event.kind == "ack" and (event.json["id"], event.json["ack"]) == (sent["id"], 3):
                break
    assert [warning.reason for warning in (await pod.ready()).warnings] == [Reason.PHONE_OFFLINE]


async def test_a_logout_after_14_days_without_the_phone_names_the_cause(
    start: Start, phone: Phone
) -> None:
    pod = await inactive_for(14.5, start, phone)
    await pod.ready()
    await phone.absent(ACCOUNT, 15)
    report = await pod.until(lambda report: not report.session_valid)
    assert (report.phase, report.reason) == (Phase.LOGGED_OUT, Reason.PHONE_OFFLINE)
    assert report.last_disconnect is not None
    assert report.last_disconnect.kind is DisconnectKind.LOGOUT
    assert report.phone_last_seen is None
