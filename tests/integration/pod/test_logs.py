"""Logs contain neither credentials nor anything about people or their messages."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from integration.pod.conftest import TOKEN, Pod
from support.standin import Phone
from wasession_api.v1alpha1 import Phase

Start = Callable[..., Awaitable[Pod]]
ACCOUNT, FRIEND, STRANGER = "15551234567", "15550001111", "19999999999"
SENT, RECEIVED = "meet me where nobody looks", "i shall be there at nine"


async def test_a_session_with_all_that_happens_to_it(start: Start, phone: Phone) -> None:
    pod = await start(namespace="ns", session="sales", session_uid="uid-1")
    secrets = {TOKEN, SENT, RECEIVED, FRIEND, STRANGER, "wrong-token"}
    qr = await pod.qr()
    secrets |= {part for part in qr.split(",") if part}
    await phone.scan(qr, ACCOUNT)
    await pod.ready()
    await pod.call("POST", "/v1/messages", 201, json={"to": FRIEND, "text": SENT})
    await pod.call("POST", "/v1/messages", 404, json={"to": STRANGER, "text": SENT})
    await pod.call("POST", "/v1/messages", 422, json={"to": FRIEND, "text": [SENT]})
    await pod.call("GET", "/v1/state", 401, headers={"Authorization": "Bearer wrong-token"})
    async with pod.stream("message") as events:
        await phone.send(FRIEND, ACCOUNT, RECEIVED)
        async for event in events:
            if event.kind == "message" and event.json["text"] == RECEIVED:
                break
    await phone.fault("send_fails")
    await pod.call("POST", "/v1/messages", 502, json={"to": FRIEND, "text": SENT})
    before = await pod.ready()
    pod.process_of("renderer").kill()
    await pod.until(
        lambda report: (
            report.last_disconnect != before.last_disconnect and report.phase is Phase.READY
        )
    )
    await phone.logout(ACCOUNT)
    await pod.until(lambda report: not report.session_valid)
    secrets |= {part for part in (await pod.qr()).split(",") if part}
    assert await pod.terminate() == 0
    lines = [json.loads(line) for line in pod.log.splitlines()]
    assert {"phase changed", "recovery step started", "session stopped"} <= {
        line["message"] for line in lines
    }
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    about = {"namespace": "ns", "session": "sales", "uid": "uid-1"}
    assert all(about.items() <= line.items() for line in lines), "as the operator's"
    assert [secret for secret in secrets if secret in pod.log] == []


async def test_a_pairing_code(start: Start, phone: Phone) -> None:
    pod = await start(pairing_method="PairingCode", phone_number=ACCOUNT)
    code = await pod.qr()
    await phone.type_code(code, ACCOUNT)
    await pod.ready()
    assert await pod.terminate() == 0
    assert code not in pod.log
    assert TOKEN not in pod.log


async def test_settings_that_are_wrong(start: Start) -> None:
    pod = await start(
        port="many",
        token="secret\nwith a second line",
        phone_number="+1 555",
        pairing_method="Telepathy",
    )
    assert pod.process is not None
    assert await pod.process.wait() == 1
    reason = json.loads(pod.log.splitlines()[-1])["reason"]
    for name in ("WASESSION_PORT", "WASESSION_PHONE_NUMBER", "WASESSION_PAIRING_METHOD"):
        assert f"{name}: " in reason
    assert "secret" not in pod.log
