"""Backups that the operator asks for: one at a time, each once, and none holds the session up."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from unit.pod import archives
from unit.pod.archives import RECIPIENT
from unit.pod.store import SIGNATURE, Store
from unit.pod.test_restore import KEY
from wasession_api.session_pod.backup import BackupOrder, BackupReport, BackupState
from wasession_api.v1alpha1 import Phase
from wasession_pod import transfer
from wasession_pod.backup import BackupRunning, Backups, NoLogin
from wasession_pod.messages.database import Database
from wasession_pod.session import NotReady, Session
from wasession_pod.settings import Settings
from wasession_pod.volume import archive, snapshots
from wasession_pod.volume.volume import Volume

FAILED, RUNNING, UPLOADED = BackupState.FAILED, BackupState.RUNNING, BackupState.UPLOADED


@dataclass
class Pod:
    """The part of a session pod that has to do with backups."""

    backups: Backups
    store: Store
    volume: Volume
    reports: list[BackupReport]

    def request(self, uid: str = "backup-1", url: str | None = None) -> None:
        self.backups.request(order(uid, self.store.url(KEY) if url is None else url))

    async def ended(self) -> BackupReport:
        """Make and upload the archive that is due."""
        await self.backups.take()
        if self.backups._uploading is not None:
            await self.backups._uploading
        assert self.backups.report is not None
        return self.backups.report


def order(uid: str, url: str) -> BackupOrder:
    return BackupOrder(id=uid, url=SecretStr(url), recipients=[RECIPIENT])


@pytest.fixture
async def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pod]:
    monkeypatch.setattr(transfer, "RETRY_DELAY", 0)
    volume = archives.logged_in(tmp_path / "volume", 20)
    database = Database(tmp_path / "volume" / "messages.sqlite")
    archives.heard(database, "1")
    reports: list[BackupReport] = []

    def note() -> None:
        assert backups.report is not None
        reports.append(backups.report)

    backups = Backups(volume, database, note)
    async with Store().serving() as store:
        yield Pod(backups, store, volume, reports)
        await backups.close()
    database.close()
    volume.close()


async def test_the_archive_is_in_the_store(pod: Pod, tmp_path: Path) -> None:
    pod.request()
    report = await pod.ended()
    content = pod.store.objects[KEY]
    assert report == BackupReport(
        id="backup-1",
        state=UPLOADED,
        taken_at=report.taken_at,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    assert [one.state for one in pod.reports] == [RUNNING, UPLOADED]
    [(request, headers)] = pod.store.requests
    assert request == f"PUT /{KEY}?X-Amz-Credential=a%2Fb&{SIGNATURE}", "the URL is as signed"
    assert headers["Content-Length"] == str(len(content))
    assert "Transfer-Encoding" not in headers
    assert "Content-Type" not in headers
    (tmp_path / "archive").write_bytes(content)
    archive.decrypt(tmp_path / "archive", archives.IDENTITY, tmp_path / "plain")


async def test_each_is_done_once(pod: Pod) -> None:
    pod.request()
    pod.request()
    await pod.ended()
    pod.request()
    assert not pod.backups.due
    assert len(pod.store.requests) == 1
    pod.request("backup-2")
    assert (await pod.ended()).id == "backup-2"
    assert len(pod.store.requests) == 2


async def test_one_at_a_time(pod: Pod) -> None:
    pod.store.gate = asyncio.Event()
    pod.request()
    with pytest.raises(BackupRunning, match="backup-1 is under way"):
        pod.request("backup-2")
    await pod.backups.take()
    pod.request()
    assert not pod.backups.due
    with pytest.raises(BackupRunning):
        pod.request("backup-2")
    pod.store.gate.set()
    assert pod.backups._uploading is not None
    await pod.backups._uploading
    pod.request("backup-2")


@pytest.mark.parametrize("status", [500, 503])
async def test_an_upload_is_tried_again_once(pod: Pod, status: int) -> None:
    pod.store.statuses = [status]
    pod.request()
    assert (await pod.ended()).state is UPLOADED
    assert len(pod.store.requests) == 2
    pod.store.statuses = [status, status]
    pod.request("backup-2")
    report = await pod.ended()
    assert (report.state, report.error) == (FAILED, f"the store refuses the upload (HTTP {status})")
    assert len(pod.store.requests) == 4


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (403, "the store forbids the upload (HTTP 403): its URL may have expired"),
        (404, "the store does not know the upload (HTTP 404)"),
        (302, "the store refuses the upload (HTTP 302)"),
        (400, "the store refuses the upload (HTTP 400)"),
    ],
)
async def test_a_refusal_is_reported_and_the_operator_may_ask_again(
    pod: Pod, status: int, error: str
) -> None:
    pod.store.statuses = [status]
    pod.request()
    report = await pod.ended()
    assert (report.state, report.error) == (FAILED, error)
    assert len(pod.store.requests) == 1
    pod.request()
    assert (await pod.ended()).state is UPLOADED


async def test_nobody_is_told_the_url(pod: Pod, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for number, url in enumerate(
        [
            f"http://127.0.0.1:9/{KEY}?{SIGNATURE}",
            f"http://no-such-host.invalid/{KEY}?{SIGNATURE}",
            f"https{pod.store.base.removeprefix('http')}/{KEY}?{SIGNATURE}",
            f"nonsense?{SIGNATURE}",
            f"ftp://host/{KEY}?{SIGNATURE}",
            pod.store.url(KEY),
        ]
    ):
        pod.request(str(number), url)
        report = await pod.ended()
        assert SIGNATURE not in report.model_dump_json()
        assert KEY not in report.model_dump_json()
    assert SIGNATURE not in caplog.text
    assert SIGNATURE not in repr([vars(record) for record in caplog.records])
    assert [report.state for report in pod.reports[1::2]] == [FAILED] * 5 + [UPLOADED]


async def test_an_upload_that_does_not_end(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "UPLOAD_TIMEOUT", 0.1)
    pod.store.gate = asyncio.Event()
    pod.request()
    report = await pod.ended()
    pod.store.gate.set()
    assert report.state is FAILED
    assert report.error is not None
    assert "did not end within" in report.error


@pytest.mark.parametrize(
    ("cause", "error"),
    [
        (snapshots.SnapshotError("the files change"), "the files change"),
        (OSError(28, "No space left on device"), "cannot be written: No space left on device"),
        (ZeroDivisionError("a secret"), "unexpected error: ZeroDivisionError"),
    ],
)
async def test_an_archive_that_cannot_be_made(
    pod: Pod, monkeypatch: pytest.MonkeyPatch, cause: Exception, error: str
) -> None:
    def fail() -> None:
        raise cause

    monkeypatch.setattr(pod.volume, "take_snapshot", fail)
    pod.request()
    report = await pod.ended()
    assert report.state is FAILED
    assert report.error is not None
    assert report.error.endswith(error)
    assert pod.store.requests == []


async def test_one_that_is_closed_ends_soon(pod: Pod) -> None:
    pod.request()
    pod.backups.stop()
    report = await pod.ended()
    assert (report.state, report.error) == (FAILED, "the session stops")


async def test_no_file_is_left(pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even by a process that is killed: the temporary file has no name."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    pod.store.gate = asyncio.Event()
    pod.request()
    await pod.backups.take()
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not list((tmp_path / "volume").glob("*.copy*"))
    pod.store.gate.set()


# --- the session ----------------------------------------------------------------------------------


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[Session]:
    volume = archives.logged_in(tmp_path / "volume", 20)
    volume.close()
    session = Session(Settings(client_id="sales", token="t", data_dir=tmp_path / "volume"))
    yield session
    await session._shut_down()


async def test_before_the_volume_is_open_there_is_none(session: Session) -> None:
    with pytest.raises(NotReady):
        session.back_up(order("backup-1", "http://127.0.0.1:9/"))
    assert session.report.can_back_up
    assert session.report.backup is None


async def test_without_a_valid_login_there_is_none(session: Session) -> None:
    await session._open_volume()
    session._set_state(replace(session._state, session_valid=False))
    with pytest.raises(NoLogin):
        session.back_up(order("backup-1", "http://127.0.0.1:9/"))


async def test_the_session_reports_it(session: Session) -> None:
    await session._open_volume()
    assert session._state.phase is not Phase.READY, "a login can be copied without a connection"
    async with Store().serving() as store:
        session.back_up(order("backup-1", store.url(KEY)))
        assert session.report.backup == BackupReport(id="backup-1", state=RUNNING)
        session._begin_backup()
        await session._await_snapshot()
        async for report in session.reports(10):
            if report and report.backup and report.backup.state is UPLOADED:
                break
        assert session.report.backup is not None
        assert session.report.backup.size == len(store.objects[KEY])


async def test_the_profile_does_not_move_meanwhile(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a snapshot begin; a caller that gives up does not end it."""
    await session._open_volume()
    began, end = asyncio.Event(), asyncio.Event()

    async def take() -> None:
        session._backups._order = None
        began.set()
        await end.wait()

    monkeypatch.setattr(session._backups, "take", take)
    session.back_up(order("backup-1", "http://127.0.0.1:9/"))
    session._begin_backup()
    await began.wait()
    task = session._snapshot_task
    session.back_up(order("backup-1", "http://127.0.0.1:9/"))
    session._begin_backup()
    assert session._snapshot_task is task
    closing = asyncio.create_task(session._await_snapshot())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    assert task is not None
    assert not task.done()
    end.set()
    await session._await_snapshot()


# --- what it costs the others ---------------------------------------------------------------------


def test_a_pod_that_makes_none_imports_nothing_for_it() -> None:
    program = (
        "import sys, wasession_pod.run as run; run.import_api();"
        "print(*{'pyrage', 'tarfile', 'wasession_pod.transfer', 'wasession_pod.volume.archive',"
        "'wasession_pod.restore'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == []


async def test_the_loop_never_waits_for_it(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is read or written on the loop's own thread."""
    loop_thread, used = threading.main_thread(), set[Any]()

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            used.add(threading.current_thread())
            return function(*arguments)

        return call

    monkeypatch.setattr(archive, "make", noting(archive.make))
    monkeypatch.setattr(snapshots, "take", noting(snapshots.take))
    pod.request()
    assert (await pod.ended()).state is UPLOADED
    assert used
    assert loop_thread not in used
