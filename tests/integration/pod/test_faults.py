"""Problems that the session cannot solve: it reports the cause and preserves the login."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from integration.pod.conftest import Linked, Pod
from support.loopback import unused_port
from support.standin import Phone
from support.standin.world import LastingFault
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import DisconnectKind, Phase, Reason

Start = Callable[..., Awaitable[Pod]]
ACCOUNT = "15551234567"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("banned", Reason.ACCOUNT_BANNED),
        ("proxy", Reason.PROXY_BLOCKED),
        ("tos", Reason.ACCOUNT_BLOCKED),
        ("outdated", Reason.VERSION_REFUSED),
    ],
)
async def test_a_block_is_reported_and_waited_out(
    linked: Linked, fault: LastingFault, reason: Reason
) -> None:
    pod, phone = linked.pod, linked.phone
    await pod.ready()
    await phone.fault(fault, ACCOUNT, seconds=3600)
    report = await pod.until(lambda report: report.phase is Phase.FAILED)
    assert (report.reason, report.session_valid) == (reason, True)
    if fault == "outdated":  # a reload gets a newer version if there is one
        assert (
            await pod.metric('wasession_pod_recoveries_total{cause="VersionRefused",step="reload"}')
            == 1
        )
    await phone.heal()
    if fault in ("proxy", "tos"):  # the page stays blocked until it is reloaded, after an hour
        await pod.call("POST", "/v1/restart", 202)
    report = await pod.until(
        lambda r: r.seq > report.seq and r.phase is Phase.READY,
        timeout=180,  # a refused version is tried again after a minute
    )
    assert report.restored is False, "the process has not restarted"


async def test_a_locked_account_is_a_logout(linked: Linked) -> None:
    await linked.pod.ready()
    await linked.phone.fault("locked", ACCOUNT)
    report = await linked.pod.until(lambda report: not report.session_valid)
    assert (report.phase, report.reason) == (Phase.LOGGED_OUT, Reason.ACCOUNT_LOCKED)
    assert report.last_disconnect is not None
    assert (report.last_disconnect.kind, report.last_disconnect.reason) == (
        DisconnectKind.LOGOUT,
        "account_locked",
    )
    assert await linked.pod.qr(), "for the next login"
    assert len(list(linked.pod.directory.glob("session-sales.logged-out-*"))) == 1


async def test_a_proxy_that_cannot_be_reached_is_named(start: Start, tmp_path: Path) -> None:
    (tmp_path / "server").write_text(f"http://127.0.0.1:{unused_port()}")
    pod = await start(url="http://web.example", proxy_directory=str(tmp_path))
    report = await pod.until(lambda report: report.reason == Reason.PROXY_FAILED)
    assert "ERR_PROXY_CONNECTION_FAILED" in report.message


async def test_a_login_that_the_page_drops_for_its_storage_is_brought_back(
    start: Start, phone: Phone
) -> None:
    """WhatsApp Web drops its login when it cannot open its storage; the server still has it."""
    pod = await start()
    await phone.scan(await pod.qr(), ACCOUNT)
    await pod.ready()
    assert await pod.terminate() == 0, "a graceful stop takes a snapshot"
    pod = await start()
    await pod.ready()
    seen = []

    def recovered(report: Report) -> bool:
        seen.append(report)
        return report.phase is Phase.READY and report.last_disconnect is not None

    watching = asyncio.create_task(pod.until(recovered, timeout=90))
    await phone.fault("storage", ACCOUNT)
    report = await watching
    assert all(report.session_valid for report in seen)
    assert Phase.AUTHENTICATING not in {report.phase for report in seen}
    assert report.last_disconnect is not None
    assert report.last_disconnect.kind is DisconnectKind.CRASH
    assert report.last_disconnect.reason == "web_fail_storage_initialization"
    assert Reason.PROFILE_DAMAGED in {warning.reason for warning in report.warnings}
    assert len(list(pod.directory.glob("session-sales.damaged-*"))) == 1
    assert len(await phone.devices(ACCOUNT)) == 1
