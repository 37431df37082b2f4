"""The volume has one user, belongs to one session, is never emptied, and survives any failure."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from unit.pod import databases
from wasession_api.v1alpha1 import Reason
from wasession_pod.volume import snapshots
from wasession_pod.volume.snapshots import Part, SnapshotError
from wasession_pod.volume.volume import (
    MIB,
    TIME_FORMAT,
    Repair,
    Source,
    StorageError,
    Volume,
    next_source,
)

LOCAL_STORAGE, INDEXED_DB = Part.LOCAL_STORAGE, Part.INDEXED_DB
BOTH = frozenset(Part)
ACCOUNT = "15551234567@c.us"


def opened(directory: Path, client_id: str = "sales", uid: str | None = "uid-1") -> Volume:
    volume = Volume(directory, client_id, uid)
    volume.open()
    return volume


def logged_in(directory: Path, *, snapshot: bool = True) -> Volume:
    """Return a volume with a valid login and, by default, a snapshot of it."""
    volume = opened(directory)
    databases.login(volume.profile, 100)
    volume.record_login(ACCOUNT)
    if snapshot:
        volume.take_snapshot()
    return volume


def refused(volume: Volume) -> Reason:
    with pytest.raises(StorageError) as error:
        volume.open()
    return error.value.reason


def contents(profile: Path) -> list[dict[bytes, bytes]]:
    copy = profile.with_name("read")
    shutil.copytree(profile, copy)
    databases_read = [
        databases.read(copy / database)
        for database in (databases.LOCAL_STORAGE, databases.INDEXED_DB)
    ]
    shutil.rmtree(copy)
    return databases_read


# --- open -----------------------------------------------------------------------------------------


def test_open_returns_how_the_last_use_ended(tmp_path: Path) -> None:
    volume = Volume(tmp_path, "sales", None)
    assert volume.open() is None
    volume.record_graceful_close()
    volume.close()
    graceful = Volume(tmp_path, "sales", None).open()
    assert graceful is not None
    assert graceful.graceful


def test_a_killed_process_is_told_apart(tmp_path: Path) -> None:
    opened(tmp_path).close()
    left = Volume(tmp_path, "sales", "uid-1").open()
    assert left is not None
    assert not left.graceful


def test_the_login_of_a_volume_that_cannot_be_opened_is_known(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.record_login("15551234567@c.us")
    second = Volume(tmp_path, "sales", "uid-2")
    assert refused(second) == Reason.VOLUME_IN_USE
    login = second.peek_login()
    assert login is not None
    assert login.account == "15551234567@c.us"


def test_anothers_login_is_not_ours(tmp_path: Path) -> None:
    opened(tmp_path).record_login("15551234567@c.us")
    assert Volume(tmp_path, "other", "uid-2").peek_login() is None


@pytest.mark.parametrize("name", ["owner.json", "login.json"])
def test_a_login_that_cannot_be_read_is_not_known(tmp_path: Path, name: str) -> None:
    opened(tmp_path).record_login("15551234567@c.us")
    (tmp_path / name).write_text("{")
    assert Volume(tmp_path, "sales", "uid-1").peek_login() is None


def test_two_processes_never_share_it(tmp_path: Path) -> None:
    first = opened(tmp_path)
    (first.profile / "SingletonLock").symlink_to("host-17")
    second = Volume(tmp_path, "sales", "uid-1")
    assert refused(second) == Reason.VOLUME_IN_USE
    assert (first.profile / "SingletonLock").is_symlink()
    first.close()
    second.open()


def test_a_chromium_that_has_outlived_its_process_is_left_alone(tmp_path: Path) -> None:
    profile = tmp_path / "session-sales"
    opened(tmp_path, uid=None).close()
    address = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as chromium:
        chromium.bind(str(address))
        chromium.listen()
        (profile / "SingletonSocket").symlink_to(address)
        (profile / "SingletonLock").symlink_to("host-17")
        volume = Volume(tmp_path, "sales", None)
        assert refused(volume) == Reason.VOLUME_IN_USE
        assert (profile / "SingletonLock").is_symlink()
    volume.open()
    assert not (profile / "SingletonLock").is_symlink()


def test_another_clients_volume_is_left_alone(tmp_path: Path) -> None:
    opened(tmp_path).close()
    before = sorted(path.name for path in tmp_path.iterdir())
    assert refused(Volume(tmp_path, "other", "uid-1")) == Reason.VOLUME_OF_ANOTHER_SESSION
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_profile_of_nobody_known_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "session-other").mkdir()
    assert refused(Volume(tmp_path, "sales", "uid-1")) == Reason.VOLUME_OF_ANOTHER_SESSION


def test_an_unreadable_owner_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "owner.json").write_text("{")
    assert refused(Volume(tmp_path, "sales", "uid-1")) == Reason.VOLUME_OF_ANOTHER_SESSION
    assert (tmp_path / "owner.json").read_text() == "{"


def test_a_new_session_object_adopts_it(tmp_path: Path) -> None:
    opened(tmp_path, uid="uid-1").close()
    opened(tmp_path, uid="uid-2").close()


def owned(directory: Path, owner: str | None, uid: str) -> Volume:
    return Volume(directory, "sales", uid, owner=owner)


@pytest.mark.parametrize(("before", "after"), [("alice", "mallory"), ("alice", ""), ("", "bob")])
def test_another_owners_volume_is_left_alone(tmp_path: Path, before: str, after: str) -> None:
    first = owned(tmp_path, before, "uid-1")
    first.open()
    first.record_login("15551234567@c.us")
    first.close()
    content = (tmp_path / "owner.json").read_text()
    other = owned(tmp_path, after, "uid-2")
    assert refused(other) == Reason.VOLUME_OF_ANOTHER_SESSION
    assert other.peek_login() is None
    other.close()
    assert (tmp_path / "owner.json").read_text() == content
    owned(tmp_path, before, "uid-2").open()


def test_the_owner_of_a_session_may_change(tmp_path: Path) -> None:
    for owner in ("alice", "bob"):
        volume = owned(tmp_path, owner, "uid-1")
        volume.open()
        volume.close()
    owned(tmp_path, "bob", "uid-2").open()


def test_a_session_of_the_claims_new_owner_may_use_the_volume(tmp_path: Path) -> None:
    """The owner was changed, the session deleted and created again, without a pod in between."""
    first = owned(tmp_path, "alice", "uid-1")
    first.open()
    first.record_login("15551234567@c.us")
    first.close()
    again = Volume(tmp_path, "sales", "uid-2", owner="bob", previous_owners=["alice"])
    again.open()
    assert again.login is not None
    again.close()
    assert refused(owned(tmp_path, "alice", "uid-3")) == Reason.VOLUME_OF_ANOTHER_SESSION


def test_a_volume_without_an_owner_gets_one(tmp_path: Path) -> None:
    """An earlier version did not note it; the operator decides whose the volume is."""
    (tmp_path / "owner.json").write_text('{"client_id": "sales", "session_uid": "uid-1"}')
    volume = owned(tmp_path, "alice", "uid-2")
    volume.open()
    volume.close()
    other = owned(tmp_path, "mallory", "uid-3")
    assert refused(other) == Reason.VOLUME_OF_ANOTHER_SESSION
    other.close()
    unknown = owned(tmp_path, None, "uid-3")
    unknown.open()
    unknown.close()
    owned(tmp_path, "alice", "uid-4").open()


def test_a_volume_that_cannot_be_a_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refused(Volume(tmp_path / "file", "sales", None)) == Reason.VOLUME_READ_ONLY


def test_a_lock_of_another_host_is_removed_under_ours(tmp_path: Path) -> None:
    profile = tmp_path / "session-sales"
    profile.mkdir()
    (tmp_path / "owner.json").write_text('{"client_id": "sales", "session_uid": null}')
    (profile / "SingletonLock").symlink_to("another-host-17")
    opened(tmp_path, uid=None)
    assert not (profile / "SingletonLock").is_symlink()


# --- space ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free", "running", "reason"),
    [
        (500, False, None),
        (199, False, Reason.VOLUME_LOW),
        (100, False, Reason.VOLUME_LOW),
        (99, False, Reason.VOLUME_FULL),
        (99, True, Reason.VOLUME_LOW),
        (50, True, Reason.VOLUME_LOW),
        (49, True, Reason.VOLUME_FULL),
    ],
)
def test_a_volume_that_fills_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, running: bool, reason: Reason | None
) -> None:
    volume = Volume(tmp_path, "sales", None, minimum_free_bytes=100 * MIB)
    stat = os.statvfs_result((4096, 4096, 10**6, free * 256, free * 256, 1000, 500, 500, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: stat)
    if reason == Reason.VOLUME_FULL:
        with pytest.raises(StorageError, match=f"{free} MiB free") as error:
            volume.check_space(running=running)
        assert error.value.reason == reason
    else:
        notice = volume.check_space(running=running)
        assert (notice.reason if notice else None) == reason


@pytest.mark.parametrize(
    ("flags", "inodes", "reason"),
    [(os.ST_RDONLY, 1, Reason.VOLUME_READ_ONLY), (0, 0, Reason.VOLUME_FULL)],
)
def test_a_volume_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: int, inodes: int, reason: Reason
) -> None:
    stat = os.statvfs_result((4096, 4096, 10**6, 10**6, 10**6, 1000, inodes, inodes, flags, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: stat)
    assert refused(Volume(tmp_path, "sales", None)) == reason


# --- the login ------------------------------------------------------------------------------------


def test_an_ended_login_is_quarantined_with_its_snapshots(tmp_path: Path) -> None:
    volume = logged_in(tmp_path)
    before = contents(volume.profile)
    quarantined_paths = [volume.quarantine()]
    assert volume.login is None
    assert volume.snapshot is None
    assert contents(quarantined_paths[0]) == before
    assert list((quarantined_paths[0] / "snapshots").iterdir())
    assert list(volume.profile.iterdir()) == []
    quarantined_paths.append(volume.quarantine())
    assert len(set(quarantined_paths)) == 2


def test_a_displaced_login_is_so_for_its_session_until_another_request(tmp_path: Path) -> None:
    volume = logged_in(tmp_path)
    assert not volume.is_displaced(None)
    volume.record_displacement("first")
    assert volume.is_displaced("first")
    assert not volume.is_displaced("second"), "a person has asked for a restart since"
    assert volume.is_displaced(None), "to forget a request is none"
    volume.close()
    assert opened(tmp_path).is_displaced("first"), "a new process is no reason"

    shutil.copytree(tmp_path, copy := tmp_path.with_name("copy"))
    adopted = opened(copy, uid="uid-2")
    assert not adopted.is_displaced("first"), "a person has created another session"


def test_a_new_login_is_not_displaced(tmp_path: Path) -> None:
    volume = logged_in(tmp_path)
    volume.record_displacement(None)
    volume.record_login(ACCOUNT)
    assert not volume.is_displaced(None)


def test_a_displacement_can_be_called_off(tmp_path: Path) -> None:
    volume = logged_in(tmp_path)
    volume.clear_displacement()
    volume.record_displacement(None)
    volume.clear_displacement()
    assert not volume.is_displaced(None)


def test_a_requested_logout_is_fulfilled_once_the_login_has_ended(tmp_path: Path) -> None:
    volume = logged_in(tmp_path)
    volume.record_logout("1", done=False)
    assert volume.fulfilled_logout is None
    volume.quarantine()
    assert volume.fulfilled_logout == "1"
    volume.record_login(ACCOUNT)
    volume.close()
    again = opened(tmp_path)
    assert again.fulfilled_logout == "1", "it outlives the profile, and the next login"
    again.record_logout("2", done=True)
    assert again.fulfilled_logout == "2"


def test_a_login_is_known_after_a_restart(tmp_path: Path) -> None:
    volume = opened(tmp_path)
    assert volume.login is None
    volume.record_login(ACCOUNT)
    volume.close()
    again = opened(tmp_path)
    assert again.login is not None
    assert again.login.account == ACCOUNT


def test_a_snapshot_is_of_one_login_only(tmp_path: Path) -> None:
    volume = logged_in(tmp_path)
    assert volume.snapshot is not None
    volume.record_login("15557654321@c.us")
    assert volume.snapshot is None
    volume.take_snapshot()
    assert volume.snapshot is not None


def test_without_a_login_there_is_no_snapshot(tmp_path: Path) -> None:
    volume = opened(tmp_path)
    databases.login(volume.profile, 10)
    with pytest.raises(SnapshotError):
        volume.take_snapshot()


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("earlier", "damaged", "has_snapshot", "source"),
    [
        (None, {LOCAL_STORAGE}, True, Source.SNAPSHOT),
        (None, BOTH, True, Source.SNAPSHOT),
        (None, BOTH, False, Source.NOTHING),
        (None, set(), True, Source.PROFILE),
        (None, set(), False, Source.PROFILE),
        (Source.PROFILE, set(), True, None),
        (Source.PROFILE, BOTH, True, Source.SNAPSHOT),
        (Source.PROFILE, BOTH, False, Source.NOTHING),
        (Source.SNAPSHOT, BOTH, True, Source.NOTHING),
        (Source.SNAPSHOT, set(), True, None),
        (Source.NOTHING, BOTH, True, None),
        (Source.NOTHING, set(), False, None),
    ],
)
def test_what_is_tried_next(
    earlier: Source | None, damaged: Collection[Part], has_snapshot: bool, source: Source | None
) -> None:
    before = Repair(source=earlier, because="", quarantined_as="") if earlier else None
    assert next_source(before, damaged, has_snapshot) == source


def test_an_undamaged_login_needs_nothing(tmp_path: Path) -> None:
    volume = logged_in(tmp_path)
    assert volume.find_damage() == {}


def test_before_the_first_login_nothing_is_missing(tmp_path: Path) -> None:
    assert opened(tmp_path).find_damage() == {}


def test_damaged_local_storage_comes_from_the_snapshot_and_indexed_db_stays(tmp_path: Path) -> None:
    volume = logged_in(tmp_path)
    databases.write(volume.profile / databases.INDEXED_DB, range(900, 950))
    local_storage, indexed_db = contents(volume.profile)
    next((volume.profile / databases.LOCAL_STORAGE).glob("*.log")).write_bytes(b"")
    damage = volume.find_damage()
    assert set(damage) == {LOCAL_STORAGE}
    repair = volume.replace_profile(damage[LOCAL_STORAGE], damage)
    assert repair is not None
    assert repair.source is Source.SNAPSHOT
    assert repair.snapshot is not None
    assert contents(volume.profile) == [local_storage, indexed_db]
    assert (tmp_path / repair.quarantined_as / databases.LOCAL_STORAGE).is_dir()
    assert volume.login is not None


def test_the_snapshot_is_tried_once_and_then_a_new_profile_once(tmp_path: Path) -> None:
    volume = logged_in(tmp_path)
    for source in (Source.SNAPSHOT, Source.NOTHING):
        repair = opened_again(volume).replace_profile("a QR", BOTH)
        assert repair is not None
        assert repair.source is source
        volume = opened_again(volume)
    assert volume.replace_profile("a QR", BOTH) is None
    assert len(list(tmp_path.glob("session-sales.damaged-*"))) == 2
    assert volume.login is not None  # nothing has proven that it has ended
    volume.record_login(ACCOUNT)
    assert volume.repair is None


def opened_again(volume: Volume) -> Volume:
    volume.close()
    volume.open()
    return volume


def test_a_snapshot_that_is_damaged_as_well_is_passed_over(tmp_path: Path) -> None:
    volume = logged_in(tmp_path)
    log = next((tmp_path / "snapshots").rglob("*.log"))
    log.write_bytes(log.read_bytes()[:-1])
    repair = volume.replace_profile("a QR", BOTH)
    assert repair is not None
    assert repair.source is Source.NOTHING
    assert "does not match its manifest" in repair.because
    assert list((tmp_path / repair.quarantined_as).iterdir())


def test_a_profile_that_chromium_does_not_start_on_gives_its_login_to_another(
    tmp_path: Path,
) -> None:
    volume = logged_in(tmp_path, snapshot=False)
    (volume.profile / "Local State").write_text("garbage")
    before = contents(volume.profile)
    repair = volume.replace_profile("Chromium does not start", set())
    assert repair is not None
    assert repair.source is Source.PROFILE
    assert contents(volume.profile) == before
    assert sorted(path.name for path in volume.profile.iterdir()) == ["Default"]
    assert volume.replace_profile("Chromium does not start", set()) is None


# --- space ----------------------------------------------------------------------------------------


class Disk:
    """A volume whose free space depends on what has been deleted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path, size: int) -> None:
        self._directory, self._size, self._statvfs = directory, size, os.statvfs
        monkeypatch.setattr(os, "statvfs", self._stat)

    def _stat(self, path: Path) -> os.statvfs_result:
        used = sum(p.stat().st_size for p in self._directory.rglob("*.big"))
        result = list(self._statvfs(path))
        result[0] = result[1] = 1  # f_bsize, f_frsize
        result[3] = result[4] = self._size - used  # f_bfree, f_bavail
        return os.statvfs_result(result)


def big(path: Path, size: int) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    with (path / "data.big").open("wb") as file:
        file.truncate(size * MIB)
    return path


@pytest.fixture
def crowded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for a volume of 1000 MiB, of which a start requires 100."""
    Disk(monkeypatch, tmp_path / "data", 1000 * MIB)
    return tmp_path / "data"


def reopened(volume: Volume, directory: Path) -> Volume:
    volume.close()
    volume = Volume(directory, "sales", "uid-1", 100 * MIB)
    volume.open()
    return volume


def test_caches_go_first_when_space_is_low(crowded: Path) -> None:
    volume = logged_in(crowded)
    cache = big(volume.profile / "Default" / "Cache" / "Cache_Data", 600)
    ended = big(quarantined(crowded, "logged-out", OLD), 250)
    before = contents(volume.profile)
    volume = reopened(volume, crowded)
    assert not cache.exists()
    assert ended.exists()
    assert contents(volume.profile) == before
    assert volume.find_damage() == {}


def test_caches_stay_while_there_is_space(crowded: Path) -> None:
    volume = logged_in(crowded)
    cache = big(volume.profile / "Default" / "Cache" / "Cache_Data", 700)
    reopened(volume, crowded)
    assert cache.exists()


def test_then_the_oldest_ended_logins_go_and_never_a_damaged_profile(crowded: Path) -> None:
    volume = logged_in(crowded)
    damaged = big(quarantined(crowded, "damaged", OLD - timedelta(days=1)), 500)
    oldest = big(quarantined(crowded, "logged-out", OLD), 200)
    newest = big(quarantined(crowded, "logged-out", NEW), 250)
    volume = reopened(volume, crowded)
    assert [path.exists() for path in (damaged, oldest, newest)] == [True, False, True]
    big(crowded / "ballast", 240)
    volume.make_room()
    assert [path.exists() for path in (damaged, newest)] == [True, False]
    big(crowded / "ballast", 450)
    volume.make_room()
    with pytest.raises(StorageError, match="MiB free"):
        volume.check_space()
    assert damaged.exists()
    assert volume.login is not None


def test_nothing_is_deleted_on_anothers_volume(crowded: Path) -> None:
    volume = logged_in(crowded)
    cache = big(volume.profile / "Default" / "Cache", 950)
    ended = quarantined(crowded, "logged-out", OLD)
    volume.close()
    assert refused(Volume(crowded, "support", "uid-2", 100 * MIB)) in (
        Reason.VOLUME_FULL,
        Reason.VOLUME_OF_ANOTHER_SESSION,
    )
    assert cache.exists()
    assert ended.exists()


def test_a_quarantined_profile_has_no_caches(tmp_path: Path) -> None:
    volume = logged_in(tmp_path)
    cache = volume.profile / "Default" / "Code Cache"
    cache.mkdir()
    assert not (volume.quarantine() / "Default" / "Code Cache").exists()
    volume = logged_in(tmp_path / "other")
    (volume.profile / "Default" / "Code Cache").mkdir()
    repair = volume.replace_profile("test", BOTH)
    assert repair is not None
    assert not (tmp_path / "other" / repair.quarantined_as / "Default" / "Code Cache").exists()


# --- quarantine -----------------------------------------------------------------------------------

OLD, NEW = datetime.now(UTC) - timedelta(days=31), datetime.now(UTC) - timedelta(days=29)


def quarantined(directory: Path, why: str, at: datetime) -> Path:
    path = directory / f"session-sales.{why}-{at.strftime(TIME_FORMAT)}"
    (path / "Default").mkdir(parents=True)
    return path


def test_what_is_old_is_removed_and_nothing_else(tmp_path: Path) -> None:
    volume = logged_in(tmp_path)
    old = [
        quarantined(tmp_path, "logged-out", OLD),
        quarantined(tmp_path, "damaged", OLD),
        quarantined(tmp_path, "logged-out-", OLD),
    ]
    remaining = [
        quarantined(tmp_path, "logged-out", NEW),
        quarantined(tmp_path, "damaged", NEW),
        old.pop(),
        tmp_path / "session-sales",
        tmp_path / "session-sales.mine",
        tmp_path / "session-other.damaged-20200101T000000Z",
        tmp_path / "snapshots",
    ]
    for path in remaining:
        path.mkdir(exist_ok=True)
    assert volume.purge_quarantine(timedelta(0)) == []
    assert sorted(volume.purge_quarantine(timedelta(days=30))) == sorted(path.name for path in old)
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in remaining)


def test_the_only_copy_of_a_valid_login_is_never_removed(tmp_path: Path) -> None:
    volume = logged_in(tmp_path, snapshot=False)
    repair = volume.replace_profile("a QR", BOTH)
    assert repair is not None
    old = quarantined(tmp_path, "damaged", OLD)
    (tmp_path / repair.quarantined_as).rename(old.with_name(f"{old.name}-2"))
    assert volume.purge_quarantine(timedelta(days=30)) == []
    volume.clear_repair()
    assert len(volume.purge_quarantine(timedelta(days=30))) == 2


# --- whatever fails -------------------------------------------------------------------------------


class Killed(BaseException):
    """The process has ended here."""


CALLS = [
    (os, "fsync"), (os, "rename"), (os, "replace"), (os, "link"),
    (os, "mkdir"), (os, "unlink"), (os, "open"),
    (Path, "open"), (Path, "rename"), (Path, "mkdir"), (Path, "unlink"), (Path, "write_text"),
]  # fmt: skip


@contextlib.contextmanager
def failing(at: int, error: BaseException) -> Iterator[list[int]]:
    """Fail the volume's file system call number ``at``; after ``Killed`` all later ones too."""
    calls = [0]

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            calls[0] += 1
            if calls[0] == at or (calls[0] > at and isinstance(error, Killed)):
                raise error
            return function(*args, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in CALLS:
            patch.setattr(owner, name, wrap(getattr(owner, name)))
        yield calls


def story(volume: Volume) -> Iterator[str]:
    """Make every call that writes to the volume, in a realistic order."""
    volume.open()
    yield "opened"
    volume.record_login(ACCOUNT)
    yield "recorded"
    volume.take_snapshot()
    yield "snapshot"
    volume.take_snapshot()
    yield "snapshot again"
    os.truncate(volume.profile / databases.LOCAL_STORAGE / "CURRENT", 0)
    assert volume.replace_profile("damaged", volume.find_damage()) is not None
    yield "replaced"
    volume.clear_repair()
    volume.record_graceful_close()
    yield "closed"


FAILURES: dict[str, Callable[[], BaseException]] = {
    "killed": Killed,
    "full": lambda: OSError(errno.ENOSPC, "No space left on device"),
    "broken": lambda: OSError(errno.EIO, "Input/output error"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_login_survives_a_failure_at_any_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    """Kill the process, fill the disk or break it at every single call that writes."""
    monkeypatch.setattr(os, "fsync", lambda file: None)  # slow, and irrelevant here
    template = databases.login(tmp_path / "template", 20)
    at = 0
    failed = True
    while failed:
        at += 1
        directory = tmp_path / "volume"
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(template, directory / "session-sales")
        volume = Volume(directory, "sales", "uid-1")
        reached = "nothing"
        with (
            contextlib.suppress(Killed, StorageError, SnapshotError),
            failing(at, FAILURES[failure]()) as calls,
        ):
            for step in story(volume):
                reached = step
        failed = calls[0] >= at
        if volume._lock is not None:
            volume._lock.close()

        again = opened(directory)
        if reached in ("nothing", "opened"):
            continue
        assert again.login is not None, (at, reached)
        assert again.login.account == ACCOUNT
        if damage := again.find_damage():
            repair = again.replace_profile("damaged", damage)
            assert repair is not None, (at, reached)
            assert repair.source is Source.SNAPSHOT, (at, reached)
        assert snapshots.find_damage(again.profile, None) == {}, (at, reached)
        assert not list((directory / "snapshots").glob("instead-of-*"))
        again.close()
    assert [len(content) for content in contents(again.profile)] == [40, 40]
    assert at > 100


def test_a_login_that_has_ended_is_forgotten_on_a_full_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = Volume(tmp_path, "sales", None)
    volume.open()
    databases.login(volume.profile, 10)
    volume.record_login("15551234567@c.us")
    volume.record_logout("request-1", done=False)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(volume, "_write", full)
    with pytest.raises(StorageError):
        volume.quarantine()
    monkeypatch.undo()
    volume.close()
    after = Volume(tmp_path, "sales", None)
    after.open()
    content = after.read()
    assert content.has_login is False
    assert content.fulfilled_logout == "request-1", "nothing is left that it could end"
    databases.login(after.profile, 20)
    after.record_login("15551234567@c.us")
    assert after.fulfilled_logout == "request-1", "it does not end the next login"
