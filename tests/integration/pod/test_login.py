"""Pair a phone, restore its login, and never lose it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from integration.pod.conftest import Pod
from support.standin import PasskeyRequired, Phone
from wasession_api.v1alpha1 import DisconnectKind, Phase, Reason

Start = Callable[..., Awaitable[Pod]]
FRIEND = "15550001111"


async def paired(start: Start, phone: Phone) -> Pod:
    pod = await start()
    await phone.scan(await pod.qr())
    await pod.ready()
    return pod


async def test_a_scanned_qr_makes_it_ready_and_the_login_comes_back(
    start: Start, phone: Phone
) -> None:
    pod = await paired(start, phone)
    report = await pod.ready()
    assert report.session_valid
    assert report.is_authenticated
    assert not report.restored
    assert report.account is not None
    assert report.account.id == "15551234567@c.us"
    await pod.call("POST", "/v1/messages", 201, json={"to": FRIEND, "text": "first"})
    assert await pod.terminate() == 0

    again = await start()
    phases = []
    async for report in again.reports():
        phases.append(report.phase)
        if report.phase is Phase.READY:
            break
    assert phases[0] in (Phase.RESTORING, Phase.STARTING)
    assert Phase.AUTHENTICATING not in phases
    assert report.restored
    assert report.session_valid
    assert report.last_shutdown is not None
    assert report.last_shutdown.graceful
    await again.call("POST", "/v1/messages", 201, json={"to": FRIEND, "text": "second"})
    assert [message.text for message in await phone.messages()] == ["first", "second"]


@pytest.mark.parametrize("delay", [0, 0.1, 0.5])
async def test_a_kill_after_session_valid_loses_nothing(
    start: Start, phone: Phone, delay: float
) -> None:
    pod = await start()
    await phone.scan(await pod.qr())
    await pod.until(lambda report: report.session_valid)
    await asyncio.sleep(delay)  # the moment of the kill, not a wait
    await pod.kill()
    again = await start()
    report = await again.ready()
    assert report.restored
    assert report.last_shutdown is not None
    assert not report.last_shutdown.graceful


async def test_a_logout_on_the_phone_quarantines_the_profile(start: Start, phone: Phone) -> None:
    pod = await paired(start, phone)
    await phone.logout("15551234567")
    report = await pod.until(lambda report: not report.session_valid)
    assert report.last_disconnect is not None
    assert report.last_disconnect.kind is DisconnectKind.LOGOUT
    await phone.scan(await pod.qr(), "15557654321")
    report = await pod.ready()
    assert not report.restored
    assert report.account is not None
    assert report.account.id == "15557654321@c.us"
    assert len(list(pod.directory.glob("session-sales.logged-out-*"))) == 1


async def test_a_logout_through_the_api(start: Start, phone: Phone) -> None:
    pod = await paired(start, phone)
    logged_out = asyncio.create_task(pod.until(lambda report: not report.session_valid))
    await pod.call("POST", "/v1/logout")
    assert (await logged_out).reason == Reason.LOGGED_OUT_ON_REQUEST
    await pod.until(lambda report: report.phase is Phase.AUTHENTICATING)
    assert await phone.devices() == []


async def test_a_lost_connection_comes_back_by_itself(start: Start, phone: Phone) -> None:
    pod = await paired(start, phone)
    before = await pod.ready()
    reconnecting = asyncio.create_task(pod.until(lambda report: report.phase is Phase.RECONNECTING))
    await phone.fault("refuse", seconds=2)
    report = await reconnecting
    assert report.session_valid
    report = await pod.until(lambda report: report.phase is Phase.READY and report.seq > before.seq)
    assert report.last_disconnect is not None
    assert report.last_disconnect.kind is DisconnectKind.CONNECTION
    assert (
        await pod.metric('wasession_pod_recoveries_total{cause="ConnectionLost",step="page"}') == 1
    )
    assert await pod.metric('wasession_pod_disconnects_total{cause="ConnectionLost"}') == 1


async def test_a_conflict_is_reported(start: Start, phone: Phone) -> None:
    pod = await paired(start, phone)
    await phone.fault("replaced")
    report = await pod.until(lambda report: report.phase is Phase.CONFLICT)
    assert report.session_valid
    assert report.last_disconnect is not None
    assert report.last_disconnect.kind is DisconnectKind.CONFLICT


async def test_a_takeover_resolves_a_conflict(start: Start, phone: Phone) -> None:
    pod = await start(takeover="Always")
    await phone.scan(await pod.qr())
    before = await pod.ready()
    await phone.fault("replaced")
    report = await pod.until(lambda report: report.phase is Phase.READY and report.seq > before.seq)
    assert report.last_disconnect is not None
    assert report.last_disconnect.kind is DisconnectKind.CONFLICT


async def test_a_crashed_browser_is_restarted(start: Start, phone: Phone) -> None:
    pod = await paired(start, phone)
    before = await pod.ready()
    pod.process_of("browser").kill()
    report = await pod.until(lambda report: report.phase is Phase.RESTORING)
    assert report.last_disconnect is not None
    assert report.last_disconnect.kind is DisconnectKind.CRASH
    report = await pod.until(lambda report: report.phase is Phase.READY and report.seq > before.seq)
    assert report.session_valid


async def test_used_up_qrs_are_renewed_until_the_last_round(start: Start, phone: Phone) -> None:
    await phone.behave(first_ref_ms=300, next_ref_ms=300, refs=2)
    pod = await start(max_rounds="2")
    rounds = set()
    async for report in pod.reports():
        if report.pairing is not None:
            rounds.add(report.pairing.attempt)
        if report.phase is Phase.FAILED:
            break
    assert rounds == {1, 2}
    assert report.reason == "PairingExpired"
    await phone.behave(first_ref_ms=60_000)
    await pod.call("POST", "/v1/pairing/refresh", 202)
    await phone.scan(await pod.qr())
    await pod.ready()


async def test_a_pairing_code_links_the_phone_it_names(start: Start, phone: Phone) -> None:
    pod = await start(pairing_method="PairingCode", phone_number="15551234567")
    code = await pod.qr()
    await pod.call(
        "GET", "/v1/pairing", 406, headers={"Accept": "image/png"}
    )  # it is typed, not scanned
    await phone.type_code(code, "15551234567")
    report = await pod.ready()
    assert report.account is not None
    assert report.account.id == "15551234567@c.us"


async def test_a_required_passkey_is_reported(start: Start, phone: Phone) -> None:
    await phone.behave(passkey_accounts=["15551234567"])
    pod = await start()
    with pytest.raises(PasskeyRequired):
        await phone.scan(await pod.qr())
    report = await pod.until(lambda report: report.phase is Phase.PASSKEY_REQUIRED)
    assert not report.session_valid
    await phone.confirm_passkey("15551234567")
    await pod.ready()


async def test_a_login_that_does_not_reach_the_disk_is_reported(start: Start, phone: Phone) -> None:
    """Chromium writes to another directory than the one that the pod looks into."""
    pod = await start(extra_args='["--profile-directory=Other"]')
    await phone.scan(await pod.qr())
    report = await pod.until(lambda report: report.reason == Reason.LOGIN_NOT_WRITTEN, 120)
    assert (report.phase, report.session_valid) == (Phase.SYNCING, False)
    assert not (pod.directory / "login.json").exists()
