"""A backup is restored into an empty volume, wholly or not at all, and nowhere else."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from unit.pod import archives, store
from unit.pod.store import SIGNATURE, Store
from unit.pod.test_volume import Killed, contents, failing
from wasession_api.session_pod.backup import Restoration
from wasession_pod import restore, termination
from wasession_pod.messages.database import Database
from wasession_pod.restore import RestoreError, RestoreSettings
from wasession_pod.volume import archive, snapshots
from wasession_pod.volume.archive import ArchiveError
from wasession_pod.volume.volume import RESTORED, Login, Volume

KEY = "crm/sales/20260102T030405Z-0123abcd.tar.age"


class Backup(NamedTuple):
    """An archive, and what it holds."""

    path: Path
    login: Login
    contents: list[dict[bytes, bytes]]
    outbox: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> Backup:
    directory = tmp_path_factory.mktemp("source")
    volume = archives.logged_in(directory / "volume", 20)
    database = Database(directory / "volume" / "messages.sqlite")
    outbox = archives.heard(database, "1", "2").outbox.id
    archives.make(volume, database, directory / "archive")
    login = volume.login
    assert login is not None
    return Backup(directory / "archive", login, contents(volume.profile), outbox)


@pytest.fixture
def remote() -> Iterator[Store]:
    with store.in_a_thread() as one:
        yield one


def settings(backup: Backup, directory: Path, url: str = "", **fields: Any) -> RestoreSettings:
    identity = directory.parent / "identity"
    identity.write_text(archives.IDENTITY)
    values = {
        "client_id": "support", "session_uid": "uid-2", "owner": "alice",
        "data_dir": directory, "minimum_free_bytes": 0, "restore_url": url,
        "restore_sha256": backup.sha256, "restore_size": backup.path.stat().st_size,
        "restore_backup": "backup-1", "restore_login_id": backup.login.id,
        "restore_identity": identity,
    }  # fmt: skip
    return RestoreSettings.model_validate(values | fields)


def opened(directory: Path) -> Volume:
    volume = Volume(directory, "support", "uid-2", owner="alice")
    volume.open()
    return volume


def assert_restored(directory: Path, backup: Backup) -> None:
    """The session finds the whole login, as its own."""
    volume = opened(directory)
    assert volume.login == backup.login
    assert contents(volume.profile) == backup.contents
    assert volume.find_damage() == {}
    restoration = volume.restoration
    assert restoration is not None
    assert (restoration.backup, restoration.restored) == ("backup-1", True)
    assert restoration.login_id == backup.login.id
    volume.close()
    row, told = archives.told(directory / "messages.sqlite")
    assert row.id != backup.outbox
    assert (row.last, row.expired, told) == (2, 2, [])
    names = {path.name for path in directory.iterdir()}
    assert names == {
        "lock", "login.json", "messages.sqlite", "owner.json", "restoration.json", "run.json",
        "session-support",
    }  # fmt: skip


def assert_empty(directory: Path) -> None:
    """The session finds no login, and nobody's profile."""
    volume = opened(directory)
    assert volume.login is None
    assert volume.has_login is False
    assert list(volume.profile.iterdir()) == []
    assert volume.restoration is None
    volume.close()
    assert {path.name for path in directory.iterdir()} == {
        "lock", "owner.json", "run.json", "session-support",
    }  # fmt: skip


@pytest.fixture
def local(backup: Backup, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let downloads come from a file; return their URLs."""
    urls: list[str] = []

    async def download(url: str, target: Path, size: int, sha256: str) -> None:
        urls.append(url)
        with target.open("xb") as file:
            file.write(backup.path.read_bytes())

    monkeypatch.setattr(restore, "download", download)
    return urls


# --- into an empty volume -------------------------------------------------------------------------


def test_an_empty_volume_gets_the_login(backup: Backup, remote: Store, tmp_path: Path) -> None:
    remote.objects[KEY] = backup.path.read_bytes()
    assert restore.restore(settings(backup, tmp_path / "volume", remote.url(KEY)))
    assert_restored(tmp_path / "volume", backup)
    [(request, _)] = remote.requests
    assert request == f"GET /{KEY}?X-Amz-Credential=a%2Fb&{SIGNATURE}", "the URL is as signed"


def test_what_file_systems_have_by_themselves_is_nothing(
    backup: Backup, local: list[str], tmp_path: Path
) -> None:
    directory = tmp_path / "volume"
    for name in ("lost+found", ".snapshot"):
        (directory / name).mkdir(parents=True)
    (directory / "lock").touch()
    assert restore.restore(settings(backup, directory))
    assert opened(directory).login == backup.login


def test_it_is_done_once(backup: Backup, local: list[str], tmp_path: Path) -> None:
    """Also after the login has ended, and a phone was linked again."""
    directory = tmp_path / "volume"
    assert restore.restore(settings(backup, directory, "first"))
    assert not restore.restore(settings(backup, directory, "second"))
    volume = opened(directory)
    volume.quarantine()
    ended = volume.restoration
    assert ended is not None
    assert (ended.restored, ended.login_id) == (True, None)
    volume.record_login("15557654321@c.us")
    linked = volume.restoration
    assert linked is not None
    assert linked.login_id is None, "it is not the login of the backup any more"
    volume.close()
    assert not restore.restore(settings(backup, directory, "third"))
    assert not restore.restore(settings(backup, directory, "fourth", restore_backup="backup-2"))
    volume = opened(directory)
    assert volume.login is not None
    assert volume.login.account == "15557654321@c.us"
    assert volume.restoration == linked
    assert local == ["first"]


def test_an_archive_of_another_login_is_refused(
    backup: Backup, local: list[str], tmp_path: Path
) -> None:
    with pytest.raises(restore.RestoreError, match="another login than the backup says"):
        restore.restore(settings(backup, tmp_path / "volume", restore_login_id="another"))
    assert opened(tmp_path / "volume").login is None


def test_the_login_is_known_while_its_record_cannot_be_read(
    backup: Backup, local: list[str], tmp_path: Path
) -> None:
    restore.restore(settings(backup, tmp_path / "volume"))
    (tmp_path / "volume" / "login.json").write_text("{")
    restoration = opened(tmp_path / "volume").restoration
    assert restoration is not None
    assert restoration.login_id == backup.login.id


# --- a volume that is not empty -------------------------------------------------------------------


def with_a_login(directory: Path) -> None:
    volume = Volume(directory, "support", "uid-2")
    volume.open()
    volume.record_login("15557654321@c.us")
    volume.close()


def used_once(directory: Path) -> None:
    opened(directory).close()


def with_a_file(directory: Path) -> None:
    directory.mkdir()
    (directory / "notes.txt").write_text("mine")


def listing(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("fill", [with_a_login, used_once, with_a_file])
def test_a_volume_that_is_not_empty_is_left_alone(
    backup: Backup, local: list[str], tmp_path: Path, fill: Callable[[Path], None]
) -> None:
    directory = tmp_path / "volume"
    fill(directory)
    before = listing(directory)
    for _ in range(2):
        assert not restore.restore(settings(backup, directory))
    after = listing(directory)
    record = Restoration.model_validate_json(after.pop("restoration.json"))
    assert (record.backup, record.restored, record.login_id) == ("backup-1", False, None)
    for name in ("owner.json", "lock"):  # which the session would write as well
        before.pop(name, None)
        after.pop(name, None)
    assert after == before
    assert local == []
    assert not restore.restore(settings(backup, directory, restore_backup="backup-2"))
    restoration = opened(directory).restoration
    assert restoration is not None
    assert (restoration.backup, restoration.restored) == ("backup-2", False)


def of_another_client(directory: Path) -> None:
    volume = Volume(directory, "other", "uid-9")
    volume.open()
    volume.record_login("15557654321@c.us")
    volume.close()


def of_another_owner(directory: Path) -> None:
    volume = Volume(directory, "support", "uid-9", owner="mallory")
    volume.open()
    volume.close()


def of_nobody_known(directory: Path) -> None:
    (directory / "session-sales").mkdir(parents=True)


@pytest.mark.parametrize("fill", [of_another_client, of_another_owner, of_nobody_known])
def test_another_sessions_volume_is_not_touched(
    backup: Backup, local: list[str], tmp_path: Path, fill: Callable[[Path], None]
) -> None:
    directory = tmp_path / "volume"
    fill(directory)
    before = listing(directory)
    assert not restore.restore(settings(backup, directory))
    after = listing(directory)
    after.pop("lock")
    before.pop("lock", None)
    assert after == before


def test_a_volume_in_use_is_waited_for(backup: Backup, local: list[str], tmp_path: Path) -> None:
    holder = opened(tmp_path / "volume")
    with pytest.raises(RestoreError, match="another process is using the volume"):
        restore.restore(settings(backup, tmp_path / "volume"))
    holder.close()


# --- whatever fails -------------------------------------------------------------------------------


def cut(content: bytes) -> bytes:
    return content[:-1]


def grown(content: bytes) -> bytes:
    return content + b"x"


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (cut, r"has \d+ bytes instead of \d+: it is torn"),
        (grown, "is larger than the"),
        (flipped, "does not match the checksum of the backup"),
    ],
)
def test_another_file_is_not_even_decrypted(
    backup: Backup,
    remote: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[bytes], bytes],
    error: str,
) -> None:
    monkeypatch.setattr(archive, "decrypt", lambda *_: pytest.fail("decrypted"))
    remote.objects[KEY] = change(backup.path.read_bytes())
    with pytest.raises(RestoreError, match=error):
        restore.restore(settings(backup, tmp_path / "volume", remote.url(KEY)))
    assert_empty(tmp_path / "volume")


@pytest.mark.parametrize(
    ("statuses", "error"),
    [
        ([403], r"forbids the download \(HTTP 403\): its URL may have expired"),
        ([404], r"does not know the download \(HTTP 404\)"),
        ([500], r"refuses the download \(HTTP 500\)"),
        ([307], r"refuses the download \(HTTP 307\)"),
    ],
)
def test_a_store_that_refuses(
    backup: Backup, remote: Store, tmp_path: Path, statuses: list[int], error: str
) -> None:
    remote.statuses = statuses
    with pytest.raises(RestoreError, match=error) as raised:
        restore.restore(settings(backup, tmp_path / "volume", remote.url(KEY)))
    assert SIGNATURE not in str(raised.value)
    assert len(remote.requests) == 1
    assert_empty(tmp_path / "volume")


@pytest.mark.parametrize(
    ("url", "error"),
    [
        (f"http://127.0.0.1:9/{KEY}?{SIGNATURE}", "cannot connect: Connect"),
        (f"nonsense?{SIGNATURE}", "no valid URL"),
        (f"file:///etc/passwd?{SIGNATURE}", "no valid URL"),
        (f"http://[::1/?{SIGNATURE}", "no valid URL"),
    ],
)
def test_a_url_that_leads_nowhere(backup: Backup, tmp_path: Path, url: str, error: str) -> None:
    with pytest.raises(RestoreError, match=error) as raised:
        restore.restore(settings(backup, tmp_path / "volume", url))
    assert SIGNATURE not in str(raised.value)
    assert_empty(tmp_path / "volume")


def test_a_volume_without_space(backup: Backup, local: list[str], tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match=r"MiB free; \d+ MiB are needed"):
        restore.restore(settings(backup, tmp_path / "volume", minimum_free_bytes=2**60))
    assert local == []
    assert_empty(tmp_path / "volume")


@pytest.mark.parametrize("content", [None, b"\xff", b""])
def test_without_an_identity(
    backup: Backup, local: list[str], tmp_path: Path, content: bytes | None
) -> None:
    one = settings(backup, tmp_path / "volume", restore_identity=tmp_path / "none")
    if content is not None:
        (tmp_path / "none").write_bytes(content)
    with pytest.raises(RestoreError, match=r"no readable key identity|no identity of age"):
        restore.restore(one)
    assert_empty(tmp_path / "volume")


def test_messages_that_are_damaged_do_not_prevent_it(
    backup: Backup, local: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a pod that finds its own damaged: it begins a new outbox."""
    extract = archive.extract

    def damage(plain: Path, target: Path, profile: str) -> Any:
        index = extract(plain, target, profile)
        (target / "messages.sqlite").write_bytes(b"nonsense" * 1000)
        return index

    monkeypatch.setattr(archive, "extract", damage)
    assert restore.restore(settings(backup, tmp_path / "volume"))
    volume = opened(tmp_path / "volume")
    assert volume.login == backup.login
    assert archives.told(tmp_path / "volume" / "messages.sqlite")[0].last == 0
    assert list((tmp_path / "volume").glob("messages.sqlite.damaged-*"))


@pytest.mark.parametrize("then", ["restore", "start"])
@pytest.mark.parametrize(
    "failure", [Killed(), OSError(28, "No space left on device")], ids=["killed", "full"]
)
def test_a_failure_at_any_call_leaves_all_or_nothing(
    backup: Backup,
    local: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    then: str,
) -> None:
    """Kill the process or fill the disk at every single call, then restore again, or start."""
    monkeypatch.setattr(os, "fsync", lambda file: None)  # slow, and irrelevant here
    directory, at, failed = tmp_path / "volume", 0, True
    whole = 0
    while failed:
        at += 3 if then == "restore" else 1  # which takes as long again
        shutil.rmtree(directory, ignore_errors=True)
        one = settings(backup, directory)
        with contextlib.suppress(Killed, RestoreError), failing(at, failure) as calls:
            restore.restore(one)
        failed = calls[0] >= at
        if then == "restore":
            restore.restore(one)
            assert_restored(directory, backup)
            continue
        directory.mkdir(exist_ok=True)
        if (directory / RESTORED).exists() or (directory / "login.json").exists():
            assert_restored(directory, backup)
            whole += 1
        else:
            assert_empty(directory)
    assert at > 30
    assert then == "restore" or 3 < whole < at


def test_the_volume_keeps_no_more_than_the_login(
    backup: Backup, local: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a failed restoration has left goes at the next one."""

    def fail(*_: Any) -> None:
        raise ArchiveError("damaged")

    with monkeypatch.context() as patch:
        patch.setattr(snapshots, "find_damage", fail)
        with pytest.raises(RestoreError, match="damaged"):
            restore.restore(settings(backup, tmp_path / "volume"))
    assert (tmp_path / "volume" / "restoring").exists()
    assert restore.restore(settings(backup, tmp_path / "volume"))
    assert_restored(tmp_path / "volume", backup)


# --- the program ----------------------------------------------------------------------------------


def run(one: RestoreSettings, **changes: str) -> subprocess.CompletedProcess[str]:
    values = {
        name: value.get_secret_value() if hasattr(value, "get_secret_value") else value
        for name, value in one
        if value not in (None, [])
    }
    environment = {f"WASESSION_{name.upper()}": str(value) for name, value in values.items()}
    return subprocess.run(
        [sys.executable, "-m", "wasession_pod.restore"],
        env=os.environ | environment | changes,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_program(backup: Backup, remote: Store, tmp_path: Path) -> None:
    remote.objects[KEY] = backup.path.read_bytes()
    one = settings(backup, tmp_path / "volume", remote.url(KEY))
    done = run(one)
    assert (done.returncode, done.stderr) == (0, "")
    assert "backup restored" in done.stdout
    done = run(one)
    assert (done.returncode, done.stderr) == (0, "")
    assert "left as it is" in done.stdout
    assert SIGNATURE not in done.stdout
    assert len(remote.requests) == 1
    assert_restored(tmp_path / "volume", backup)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"WASESSION_RESTORE_SIZE": "1"}, "the archive is larger than the 1 bytes of the backup"),
        ({"WASESSION_RESTORE_SIZE": "-1"}, "invalid settings: WASESSION_RESTORE_SIZE: Input"),
        ({"WASESSION_CLIENT_ID": "../x"}, "invalid settings: WASESSION_CLIENT_ID: must"),
    ],
)
def test_an_error_is_one_sentence(
    backup: Backup, remote: Store, tmp_path: Path, changes: dict[str, str], error: str
) -> None:
    remote.objects[KEY] = backup.path.read_bytes()
    done = run(settings(backup, tmp_path / "volume", remote.url(KEY)), **changes)
    assert done.returncode == 1
    assert done.stderr.startswith(f"The backup was not restored: {error}")
    assert done.stderr.count("\n") == 1
    assert SIGNATURE not in done.stdout + done.stderr


def test_an_error_is_the_termination_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(termination, "TERMINATION_LOG", tmp_path / "log")
    (tmp_path / "log").touch()
    with pytest.raises(SystemExit, match="1"):
        restore.fail("the key is wrong")
    assert (tmp_path / "log").read_text() == "The backup was not restored: the key is wrong."
    assert capsys.readouterr().err == "The backup was not restored: the key is wrong.\n"
