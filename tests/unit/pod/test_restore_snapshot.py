"""A volume that is made from a VolumeSnapshot becomes its session's: whole, once, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from unit.pod import archives
from unit.pod.test_volume import Killed, failing
from wasession_pod import restore_snapshot
from wasession_pod.messages.database import Database
from wasession_pod.restore import BackupSettings, RestoreError
from wasession_pod.volume.volume import Login, Volume


class Source(NamedTuple):
    """A volume as a power cut has left it, and what it holds."""

    path: Path
    client_id: str
    login: Login
    outbox: str


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    directory = tmp_path_factory.mktemp("source") / "volume"
    volume = archives.logged_in(directory, 20)
    database = Database(directory / "messages.sqlite")
    outbox = archives.heard(database, "1", "2").outbox.id
    login = volume.login
    assert login is not None
    # While both are open: what is still in SQLite's log comes along.
    copy = directory.with_name("cut")
    shutil.copytree(directory, copy, symlinks=True)
    database.close()
    return Source(copy, volume.client_id, login, outbox)


@pytest.fixture
def directory(source: Source, tmp_path: Path) -> Path:
    return shutil.copytree(source.path, tmp_path / "volume", symlinks=True)


def settings(source: Source, directory: Path, **fields: Any) -> BackupSettings:
    values = {
        "client_id": source.client_id, "session_uid": "uid-2", "owner": "alice",
        "data_dir": directory, "minimum_free_bytes": 0, "restore_backup": "backup-1",
        "restore_login_id": source.login.id,
    }  # fmt: skip
    return BackupSettings.model_validate(values | fields)


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != "lock"
    }


def assert_adopted(directory: Path, source: Source) -> None:
    volume = Volume(directory, source.client_id, "uid-2", owner="alice")
    volume.open()
    assert volume.login == source.login
    assert volume.find_damage() == {}
    restoration = volume.restoration
    assert restoration is not None
    assert (restoration.backup, restoration.restored) == ("backup-1", True)
    assert restoration.login_id == source.login.id
    volume.close()
    row, told = archives.told(directory / "messages.sqlite")
    assert row.id != source.outbox, "cursors of the source are not its own"
    assert (row.last, told) == (2, [])


def test_a_copy_becomes_the_sessions(source: Source, directory: Path) -> None:
    assert restore_snapshot.adopt(settings(source, directory))
    assert_adopted(directory, source)
    present = files(directory)
    assert not restore_snapshot.adopt(settings(source, directory)), "once"
    assert files(directory) == present


def test_a_copy_of_a_copy(source: Source, directory: Path) -> None:
    restore_snapshot.adopt(settings(source, directory, restore_backup="backup-0"))
    assert restore_snapshot.adopt(settings(source, directory))
    assert_adopted(directory, source)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"client_id": "support"}, "the VolumeSnapshot has the volume of clientId"),
        ({"restore_login_id": "another"}, "has another login than the backup says"),
    ],
)
def test_another_volume_is_left_alone(
    source: Source, directory: Path, fields: dict[str, Any], error: str
) -> None:
    before = files(directory)
    with pytest.raises(RestoreError, match=error):
        restore_snapshot.adopt(settings(source, directory, **fields))
    assert files(directory) == before


@pytest.mark.parametrize(
    ("name", "error"), [("owner.json", "of no session"), ("login.json", "has no login")]
)
def test_a_volume_of_something_else(source: Source, directory: Path, name: str, error: str) -> None:
    (directory / name).unlink()
    before = files(directory)
    with pytest.raises(RestoreError, match=error):
        restore_snapshot.adopt(settings(source, directory))
    assert files(directory) == before


@pytest.mark.parametrize(
    "failure", [Killed(), OSError(28, "No space left on device")], ids=["killed", "full"]
)
def test_a_failure_at_any_call_is_made_up_for(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)  # slow, and irrelevant here
    directory, at, failed = tmp_path / "volume", 0, True
    while failed:
        at += 1
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(source.path, directory, symlinks=True)
        with contextlib.suppress(Killed, RestoreError), failing(at, failure) as calls:
            restore_snapshot.adopt(settings(source, directory))
        failed = calls[0] >= at
        restore_snapshot.adopt(settings(source, directory))
        assert_adopted(directory, source)
    assert at > 5


def test_the_program_says_what_is_wrong(
    source: Source, directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import runpy

    one = settings(source, directory, restore_login_id="another")
    for name, value in one.model_dump(mode="json", exclude_none=True).items():
        if name != "previous_owners":
            monkeypatch.setenv(f"WASESSION_{name.upper()}", str(value))
    monkeypatch.setattr(sys, "argv", ["restore_snapshot"])
    with pytest.raises(SystemExit):
        runpy.run_module("wasession_pod.restore_snapshot", run_name="__main__")
    assert "another login than the backup says" in capsys.readouterr().err
