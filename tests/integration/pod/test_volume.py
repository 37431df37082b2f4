"""Unusable volumes: reported and waited for, and never at the cost of a login."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from integration.pod.conftest import Pod
from playwright.async_api import async_playwright
from support.standin import Phone, PhoneError
from support.standin.server import Running
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import Phase, Reason
from wasession_pod.browser.launch import FLAGS

Start = Callable[..., Awaitable[Pod]]
MIB = 2**20


class Disk:
    """A volume of a given size, in memory."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        path.mkdir()
        _run("mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(path))

    def leave(self, free: int) -> None:
        """Fill the volume until ``free`` MiB are left, or free space again."""
        (self.path / "ballast").unlink(missing_ok=True)
        with (
            (self.path / "ballast").open("ab", buffering=0) as ballast,
            contextlib.suppress(OSError),
        ):
            while shutil.disk_usage(self.path).free > free * MIB:
                ballast.write(bytes(MIB))  # the last write may be partial

    def mount_again(self, options: str) -> None:
        _run("mount", "-o", f"remount,{options}", str(self.path))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() != 0:
        pytest.skip("only root mounts volumes")
    disk = Disk(tmp_path / "data", size=500)
    yield disk
    _run("umount", "--lazy", str(disk.path))


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


async def paired(start: Start, phone: Phone) -> Pod:
    pod = await start()
    await phone.scan(await pod.qr())
    await pod.ready()
    return pod


def failed(reason: Reason) -> Callable[[Report], bool]:
    return lambda report: report.phase is Phase.FAILED and report.reason == reason


def no_browser(pod: Pod) -> bool:
    return not any("chromium" in process.name() for process in pod.family())


async def test_a_start_waits_for_space_on_a_full_volume(disk: Disk, start: Start) -> None:
    disk.leave(20)
    pod = await start(reconnect_max_delay="0.5")
    report = await pod.until(failed(Reason.VOLUME_FULL))
    assert "20 MiB free; 100 MiB are needed" in report.message
    assert report.session_valid is None
    assert no_browser(pod)
    disk.leave(400)
    await pod.qr()


async def test_a_start_makes_room_on_a_full_volume(disk: Disk, start: Start, phone: Phone) -> None:
    pod = await paired(start, phone)
    await pod.terminate()
    (ended := disk.path / "session-sales.logged-out-20260101T000000Z").mkdir()
    (ended / "History").write_bytes(bytes(100 * MIB))
    (disk.path / "session-sales" / "Default" / "Cache" / "old").write_bytes(bytes(50 * MIB))
    disk.leave(0)
    pod = await start(reconnect_max_delay="0.5")
    report = await pod.ready()
    assert report.restored
    assert not ended.exists()


@pytest.mark.parametrize("free", [40, 0])
async def test_a_volume_that_fills_up_ends_no_login(
    disk: Disk, start: Start, phone: Phone, free: int
) -> None:
    """Slowly, after a warning, or at once, while messages are being stored."""
    pod = await paired(start, phone)
    if free:
        disk.leave(150)
        report = await pod.until(
            lambda report: any(warning.reason == "VolumeLow" for warning in report.warnings)
        )
        assert report.phase is Phase.READY
    disk.leave(free)
    await phone.send("15550001111", to="15551234567", text="x" * 10_000)
    report = await pod.until(failed(Reason.VOLUME_FULL))
    assert report.session_valid
    assert no_browser(pod)
    await pod.kill()  # a restart does not help
    pod = await start(reconnect_max_delay="0.5")
    report = await pod.until(failed(Reason.VOLUME_FULL))
    assert report.session_valid
    disk.leave(400)
    report = await pod.ready()
    assert report.restored
    assert len(await phone.devices()) == 1
    await pod.call("POST", "/v1/messages", 201, json={"to": "15550001111", "text": "still here"})


async def test_a_volume_that_is_full_when_a_phone_is_linked_has_no_valid_login(
    disk: Disk, start: Start, phone: Phone
) -> None:
    pod = await start(reconnect_max_delay="0.5")
    code = await pod.qr()
    disk.leave(0)
    # The pod may close the page of a full volume before the phone has a confirmation.
    with contextlib.suppress(PhoneError):
        await phone.scan(code)
    report = await pod.until(failed(Reason.VOLUME_FULL))
    assert not report.session_valid
    assert not (disk.path / "login.json").exists()
    disk.leave(400)
    report = await pod.until(
        lambda report: report.phase is Phase.READY or report.pairing is not None
    )
    if report.phase is not Phase.READY:  # Chromium had no space for the keys
        await phone.scan(await pod.qr())
        report = await pod.ready()
    await pod.kill()
    pod = await start()
    assert (await pod.ready()).restored


async def test_a_start_waits_for_a_writable_volume(disk: Disk, start: Start, phone: Phone) -> None:
    pod = await paired(start, phone)
    await pod.terminate()
    before = sorted(str(path) for path in disk.path.rglob("*"))
    disk.mount_again("ro")
    pod = await start(reconnect_max_delay="0.5")
    report = await pod.until(failed(Reason.VOLUME_READ_ONLY))
    assert report.session_valid
    assert no_browser(pod)
    assert sorted(str(path) for path in disk.path.rglob("*")) == before
    disk.mount_again("rw")
    assert (await pod.ready()).restored


async def test_another_clients_volume_is_not_touched(start: Start) -> None:
    pod = await start()
    await pod.qr()
    await pod.terminate()
    before = {
        path: path.lstat().st_mtime_ns for path in pod.directory.rglob("*") if path.name != "lock"
    }
    other = await start(client_id="other")
    report = await other.until(failed(Reason.VOLUME_OF_ANOTHER_SESSION))
    assert "sales" in report.message
    assert {
        path: path.lstat().st_mtime_ns for path in pod.directory.rglob("*") if path.name != "lock"
    } == before


async def test_chromium_may_not_delete_the_login_for_lack_of_space(
    disk: Disk, world: Running, chromium: Path
) -> None:
    """Without ``--unlimited-storage`` Chromium evicts IndexedDB when a disk is nine tenths full.

    It does so, even for an open page, five minutes after its start, which is too long for a test.
    The quota shows it at once: all free space, and not the gigabyte or more that Chromium reserves
    and evicts data for.
    """
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            str(disk.path), executable_path=str(chromium), chromium_sandbox=False, args=list(FLAGS)
        )
        page = context.pages[0]
        await page.goto(world.url + "/healthz")
        quota = await page.evaluate("async () => (await navigator.storage.estimate()).quota")
        await context.close()
    free = shutil.disk_usage(disk.path).free
    assert abs(quota - free) < 50 * MIB
