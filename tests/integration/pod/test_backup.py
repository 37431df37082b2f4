"""A backup over HTTP, and the login restored from it into another session's empty volume."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from integration.pod.conftest import Pod
from integration.pod.test_delivery import JSON, events, link, texts, until_told
from support.standin import Phone
from unit.pod.archives import IDENTITY, RECIPIENT
from unit.pod.store import SIGNATURE, Store
from wasession_api.session_pod.backup import BackupState
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import DisconnectKind, Phase, Reason

Start = Callable[..., Awaitable[Pod]]
ME, FRIEND = "15551234567", "15550001111"
KEY = "crm/sales/20260102T030405Z-0123abcd.tar.age"


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with Store().serving() as store:
        yield store


def order(store: Store, uid: str = "backup-1") -> dict[str, Any]:
    return {"id": uid, "url": store.url(KEY), "recipients": [RECIPIENT]}


async def backed_up(pod: Pod, store: Store) -> Report:
    await pod.call("PUT", "/v1/backup", 202, json=order(store))
    report = await pod.until(
        lambda report: report.backup is not None and report.backup.state is not BackupState.RUNNING
    )
    assert report.backup is not None
    assert report.backup.state is BackupState.UPLOADED, report.backup.error
    return report


async def run(module: str, settings: dict[str, str]) -> None:
    """Run an init container."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        env=os.environ | {f"WASESSION_{name.upper()}": value for name, value in settings.items()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b""), output


async def restore(store: Store, report: Report, directory: Path) -> None:
    """Run the init container of session ``support``, as the operator does."""
    assert report.backup is not None
    (directory.parent / "identity").write_text(IDENTITY)
    settings = {
        "client_id": "support", "session_uid": "uid-2", "data_dir": str(directory),
        "restore_url": store.url(KEY), "restore_sha256": str(report.backup.sha256),
        "restore_size": str(report.backup.size), "restore_backup": report.backup.id,
        "restore_login_id": str(report.login_id),
        "restore_identity": str(directory.parent / "identity"),
    }  # fmt: skip
    await run("wasession_pod.restore", settings)


async def test_a_lost_volume_comes_back_under_another_name(
    start: Start, phone: Phone, store: Store, tmp_path: Path
) -> None:
    pod = await start(session_uid="uid-1")
    await link(pod, phone)
    await phone.send(FRIEND, to=ME, text="before")
    [told] = await until_told(pod, None, "before")
    report = taken = await backed_up(pod, store)
    assert report.can_back_up
    assert report.restoration is None
    await phone.send(FRIEND, to=ME, text="since")
    await until_told(pod, told["id"], "since")
    assert SIGNATURE not in pod.log
    await pod.kill()
    shutil.rmtree(pod.directory)
    await phone.send(FRIEND, to=ME, text="meanwhile")

    await restore(store, report, tmp_path / "restored")
    again = await start("restored", client_id="support", session_uid="uid-2", restoring="true")
    phases = []
    async for report in again.reports():
        phases.append(report.phase)
        if report.phase is Phase.READY:
            break
    assert Phase.AUTHENTICATING not in phases
    assert report.restored
    assert report.session_valid
    assert report.account is not None
    assert report.account.id == f"{ME}@c.us"
    assert report.restoration is not None
    assert (report.restoration.backup, report.restoration.restored) == ("backup-1", True)
    assert report.restoration.login_id == report.login_id == taken.login_id is not None

    await until_told(again, None, "meanwhile")
    await phone.send(FRIEND, to=ME, text="after")
    await until_told(again, None, "after")
    assert texts((await events(again, None))[0]) == ["meanwhile", "after"], "nothing again"
    page = await again.call(
        "GET", "/v1/events", params={"after": told["id"], "types": "message"}, headers=JSON
    )
    assert page["items"][0]["data"]["reason"] == "OutboxReplaced"
    assert texts(page["items"][1:]) == ["meanwhile", "after"]
    await again.call("POST", "/v1/messages", 201, json={"to": FRIEND, "text": "hello"})
    assert len(await phone.devices()) == 1, "it is the same linked device"
    assert await again.terminate() == 0
    once_more = await start("restored", client_id="support", session_uid="uid-2")
    assert (await once_more.ready()).restoration == report.restoration


async def test_a_volume_as_a_snapshot_has_it_goes_on_elsewhere(
    start: Start, phone: Phone, tmp_path: Path
) -> None:
    """Nothing was told to hold still: Chromium and the pod are cut off in the middle."""
    pod = await start(session_uid="uid-1")
    await link(pod, phone)
    await phone.send(FRIEND, to=ME, text="before")
    [told] = await until_told(pod, None, "before")
    taken = await pod.ready()
    await pod.kill()
    shutil.copytree(pod.directory, tmp_path / "copy", symlinks=True)
    await phone.send(FRIEND, to=ME, text="meanwhile")

    settings = {
        "client_id": taken.client_id, "session_uid": "uid-2", "data_dir": str(tmp_path / "copy"),
        "restore_backup": "backup-1", "restore_login_id": str(taken.login_id),
    }  # fmt: skip
    await run("wasession_pod.restore_snapshot", settings)
    again = await start("copy", session_uid="uid-2", restoring="true")
    report = await again.ready()
    assert report.restored
    assert report.restoration is not None
    assert (report.restoration.backup, report.restoration.restored) == ("backup-1", True)
    assert report.login_id == report.restoration.login_id == taken.login_id is not None
    await until_told(again, None, "meanwhile")
    assert texts((await events(again, None))[0]) == ["meanwhile"], "nothing again"
    page = await again.call(
        "GET", "/v1/events", params={"after": told["id"], "types": "message"}, headers=JSON
    )
    assert page["items"][0]["data"]["reason"] == "OutboxReplaced"
    assert len(await phone.devices()) == 1, "it is the same linked device"


def has_stood_down(report: Report) -> bool:
    return report.reason == Reason.LOGIN_IN_USE_ELSEWHERE


def profile_of(pod: Pod) -> dict[str, str]:
    """Return the content of a profile's files by their names, as hashes."""
    return {
        str(path.relative_to(pod.directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (pod.directory / "session-sales").rglob("*")
        if path.is_file() and not path.is_symlink()
    }


async def stays_ready(pod: Pod, seconds: float) -> None:
    """Fail when a Ready session becomes anything else within a time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            async for report in pod.reports():
                assert report.phase is Phase.READY, (report.phase, report.reason)


async def test_of_two_with_one_login_the_one_that_connected_later_stays(
    start: Start, phone: Phone, store: Store, tmp_path: Path
) -> None:
    """Nobody knows of both, as in two clusters; also, a copy disturbs its source by nothing."""
    pod = await start(session_uid="uid-1", restart="first")
    await link(pod, phone)
    await restore(store, await backed_up(pod, store), tmp_path / "restored")
    assert (await pod.ready()).phase is Phase.READY
    await phone.send(FRIEND, to=ME, text="before")
    await until_told(pod, None, "before")
    browser = pod.process_of("browser")
    displaced = asyncio.create_task(pod.until(has_stood_down))
    copy = await start("restored", client_id="support", session_uid="uid-2")
    await copy.ready()
    report = await displaced
    assert (report.phase, report.session_valid) == (Phase.CONFLICT, True)
    assert report.last_disconnect is not None
    assert report.last_disconnect.kind is DisconnectKind.CONFLICT
    _, alive = await asyncio.to_thread(psutil.wait_procs, [browser], timeout=30)
    assert not alive, "its browser is closed"

    # Neither time nor new processes bring it back: of whatever cause, as a drain or a crash.
    login, profile = (pod.directory / "login.json").read_bytes(), profile_of(pod)
    await pod.kill()
    steady = asyncio.create_task(stays_ready(copy, 20))
    for _ in range(2):
        pod = await start(session_uid="uid-1", restart="first", takeover="Always")
        report = await pod.until(has_stood_down)
        assert (report.phase, report.session_valid) == (Phase.CONFLICT, True)
        assert report.account is None
        answer = await pod.answer("POST", "/v1/messages", json={"to": FRIEND, "text": "no"})
        assert answer.status == 503
        assert await pod.terminate() == 0
    await steady
    assert (pod.directory / "login.json").read_bytes() == login
    assert profile_of(pod) == profile
    assert not list(pod.directory.glob("session-*.*")), "nothing is quarantined"
    assert len(await phone.devices()) == 1, "nobody was logged out"

    # A person's word does, as soon as the other one has stopped, and nothing is lost.
    assert await copy.terminate() == 0
    await phone.send(FRIEND, to=ME, text="meanwhile")
    pod = await start(session_uid="uid-1", restart="second")
    report = await pod.ready()
    assert report.restored
    await until_told(pod, None, "meanwhile")
    assert texts((await events(pod, None))[0]) == ["before", "meanwhile"]
    assert await pod.terminate() == 0
    pod = await start(session_uid="uid-1", restart="second")
    assert (await pod.ready()).session_valid, "what it noted is of the past"


async def test_of_two_that_take_over_one_stays(start: Start, phone: Phone, tmp_path: Path) -> None:
    """Both by the volume itself, which somebody has copied; each is to take the login back."""
    pod = await start(takeover="Always")
    await link(pod, phone)
    await pod.kill()
    shutil.copytree(pod.directory, tmp_path / "copy", symlinks=True)
    pods = [await start(name, takeover="Always") for name in ("data", "copy")]
    stopped = {asyncio.create_task(pod.until(has_stood_down, 120)): pod for pod in pods}
    done, pending = await asyncio.wait(stopped, return_when=asyncio.FIRST_COMPLETED)
    [first] = done
    assert (await first).session_valid
    [other] = [pod for task, pod in stopped.items() if task in pending]
    assert (await other.ready()).session_valid
    await stays_ready(other, 10)
    [task] = pending
    task.cancel()
    assert len(await phone.devices()) == 1, "nobody was logged out"

    # Over HTTP too a person says where it goes on: what that one took over is not undone.
    displaced = asyncio.create_task(other.until(has_stood_down, 120))
    await stopped[first].call("POST", "/v1/restart", 202)
    await displaced
    assert (await stopped[first].ready()).session_valid


async def test_messages_come_in_while_a_backup_is_made(
    start: Start, phone: Phone, store: Store
) -> None:
    pod = await start()
    await link(pod, phone)
    store.gate = asyncio.Event()
    await pod.call("PUT", "/v1/backup", 202, json=order(store))
    await pod.call("PUT", "/v1/backup", 202, json=order(store))
    answer = await pod.answer("PUT", "/v1/backup", json=order(store, "backup-2"))
    assert (answer.status, answer.json["title"]) == (409, "Backup running")
    for number in range(10):
        await phone.send(FRIEND, to=ME, text=str(number))
    told = await until_told(pod, None, "9")
    assert texts(told) == [str(number) for number in range(10)]
    store.gate.set()
    await pod.until(
        lambda report: report.backup is not None and report.backup.state is BackupState.UPLOADED
    )
    assert len(store.requests) == 1


async def test_an_upload_in_progress_does_not_hold_up_a_stop(
    start: Start, phone: Phone, store: Store
) -> None:
    pod = await start()
    await link(pod, phone)
    store.gate = asyncio.Event()
    await pod.call("PUT", "/v1/backup", 202, json=order(store))
    async with asyncio.timeout(30):
        while not store.requests:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)
    assert await pod.terminate() == 0
    store.gate.set()


async def test_without_a_login_there_is_no_backup(waiting: Pod, store: Store) -> None:
    answer = await waiting.answer("PUT", "/v1/backup", json=order(store))
    assert (answer.status, answer.json["title"]) == (409, "No login")
    for body, status in (
        ("{", 400),
        (json.dumps(order(store) | {"recipients": []}), 422),
        (json.dumps(order(store) | {"recipients": ["age1x"]}), 422),
        (json.dumps(order(store) | {"more": 1}), 422),
    ):
        answer = await waiting.answer("PUT", "/v1/backup", data=body)
        assert answer.status == status
        assert SIGNATURE not in answer.body.decode()
    headers = {"Authorization": "Bearer wrong"}
    answer = await waiting.answer("PUT", "/v1/backup", json=order(store), headers=headers)
    assert answer.status == 401
