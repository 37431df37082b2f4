"""Snapshots of a login: complete or absent, and restored as they were."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import plyvel
import pytest
from unit.pod import databases
from wasession_pod.volume import leveldb, snapshots
from wasession_pod.volume.snapshots import Part, SnapshotError

SINCE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROOM = 2**30
ALL = tuple(Part)


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    return databases.login(tmp_path / "profile")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "snapshots"


def take(profile: Path, store: Path, minutes: int = 0, room: int = ROOM) -> Path:
    snapshots.take(profile, store, SINCE, SINCE + timedelta(minutes=minutes), room)
    [snapshot] = snapshots.list_snapshots(store)
    return snapshot


def contents(profile: Path) -> list[dict[bytes, bytes]]:
    return [
        databases.read(profile / database)
        for database in (databases.LOCAL_STORAGE, databases.INDEXED_DB)
    ]


def test_a_profile_made_of_one_holds_the_same(profile: Path, store: Path, tmp_path: Path) -> None:
    snapshot = take(profile, store)
    snapshots.restore(dict.fromkeys(ALL, snapshot), tmp_path / "restored")
    assert contents(tmp_path / "restored") == contents(profile)


def test_it_outlives_the_files_that_it_was_made_of(
    profile: Path, store: Path, tmp_path: Path
) -> None:
    before = contents(profile)
    snapshot = take(profile, store)
    for path in profile.rglob("*"):
        if path.is_file():
            path.write_bytes(b"garbage")
    snapshots.restore(dict.fromkeys(ALL, snapshot), tmp_path / "restored")
    assert contents(tmp_path / "restored") == before


def test_half_a_record_is_not_part_of_it(profile: Path, store: Path) -> None:
    """So truncating it in the profile too does not count as a loss."""
    log = max((profile / databases.INDEXED_DB).glob("*.log"))
    before = log.read_bytes()
    with log.open("ab") as file:
        file.write(leveldb.HEADER.pack(0, 100, 1) + b"half")
    snapshot = take(profile, store)
    assert (snapshot / log.relative_to(profile)).read_bytes() == before
    snapshots.truncate_partial_records(profile)
    assert log.read_bytes() == before
    assert snapshots.find_damage(profile, snapshots.read_manifest(snapshot)) == {}


def test_the_next_one_copies_only_what_is_new(profile: Path, store: Path) -> None:
    first = {path.name: path.stat().st_ino for path in take(profile, store).rglob("*.ldb")}
    databases.write(profile / databases.INDEXED_DB, range(1000, 1400))
    second = {path.name: path.stat().st_ino for path in take(profile, store, 1).rglob("*.ldb")}
    assert first.items() <= second.items()
    live = {path.stat().st_ino for path in profile.rglob("*")}
    assert not live & set(second.values())


@pytest.mark.parametrize("room", [0, 100_000])
def test_without_room_the_one_before_stays(profile: Path, store: Path, room: int) -> None:
    before = take(profile, store)
    databases.write(profile / databases.INDEXED_DB, range(1000, 1400), compact=True)
    with pytest.raises(SnapshotError, match="too little space"):
        snapshots.take(profile, store, SINCE, SINCE + timedelta(hours=1), room)
    assert [path.name for path in store.iterdir()] == [before.name]


def test_a_damaged_login_is_no_snapshot(profile: Path, store: Path) -> None:
    before = take(profile, store)
    table = next((profile / databases.INDEXED_DB).glob("*.ldb"))
    table.write_bytes(table.read_bytes()[:-100])
    with pytest.raises(SnapshotError, match=table.name):
        snapshots.take(profile, store, SINCE, SINCE + timedelta(hours=1), ROOM)
    assert [path.name for path in store.iterdir()] == [before.name]


def test_a_copy_that_was_damaged_is_not_used_again(
    profile: Path, store: Path, tmp_path: Path
) -> None:
    for table in take(profile, store).rglob("*.ldb"):
        inode = table.stat().st_ino
        table.write_bytes(b"x" + table.read_bytes()[1:])
        assert table.stat().st_ino == inode
    snapshot = take(profile, store, 1)
    snapshots.restore(dict.fromkeys(ALL, snapshot), tmp_path / "restored")
    assert contents(tmp_path / "restored") == contents(profile)


def test_no_login_no_snapshot(store: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SnapshotError):
        snapshots.take(tmp_path / "empty", store, SINCE, SINCE, ROOM)
    assert snapshots.list_snapshots(store) == []


def test_taken_while_both_databases_are_written_to(store: Path, tmp_path: Path) -> None:
    """Each snapshot is of one moment: it has every number up to the last, in both entries."""
    profile = tmp_path / "profile"
    written = threading.Barrier(3)
    stop = threading.Event()

    def write(directory: Path) -> None:
        directory.mkdir(parents=True)
        with plyvel.DB(str(directory), create_if_missing=True, write_buffer_size=65536) as database:
            number = 0
            while not stop.is_set():
                number += 1
                with database.write_batch() as batch:
                    batch.put(b"a%08d" % number, b"%d" % number * 100)
                    batch.put(b"b%08d" % number, b"%d" % number * 100)
                if number == 3000:
                    written.wait(60)
                stop.wait(0.0002)

    writers = [
        threading.Thread(target=write, args=[profile / path])
        for path in (databases.LOCAL_STORAGE, databases.INDEXED_DB)
    ]
    for writer in writers:
        writer.start()
    try:
        written.wait(60)
        for number in range(5):
            snapshot = take(profile, store, number)
            restored = tmp_path / f"restored-{number}"
            snapshots.restore(dict.fromkeys(ALL, snapshot), restored)
            for content in contents(restored):
                count = len(content) // 2
                assert count >= 3000
                expected = {
                    b"%s%08d" % (letter, n): b"%d" % n * 100
                    for n in range(1, count + 1)
                    for letter in (b"a", b"b")
                }
                assert content == expected
    finally:
        stop.set()
        for writer in writers:
            writer.join()


# --- damage ---------------------------------------------------------------------------------------


def test_a_login_without_damage(profile: Path, store: Path) -> None:
    snapshot = take(profile, store)
    databases.write(profile / databases.LOCAL_STORAGE, range(5000, 5100))
    assert snapshots.find_damage(profile, snapshots.read_manifest(snapshot)) == {}
    assert snapshots.find_damage(profile, None) == {}


@pytest.mark.parametrize(
    ("database", "part"),
    [(databases.LOCAL_STORAGE, Part.LOCAL_STORAGE), (databases.INDEXED_DB, Part.INDEXED_DB)],
)
def test_the_damaged_part_is_named(profile: Path, database: Path, part: Part) -> None:
    (profile / database / "CURRENT").unlink()
    assert snapshots.find_damage(profile, None) == {part: f"{part.label}: CURRENT is missing"}


def test_an_empty_profile_has_lost_both_parts(tmp_path: Path) -> None:
    assert set(snapshots.find_damage(tmp_path, None)) == set(Part)


def test_a_log_that_is_shorter_than_in_the_snapshot_has_lost_something(
    profile: Path, store: Path
) -> None:
    manifest = snapshots.read_manifest(take(profile, store))
    log = next((profile / databases.INDEXED_DB).glob("*.log"))
    os.truncate(log, 100)
    leveldb.check(log.parent)  # LevelDB would not notice
    assert set(snapshots.find_damage(profile, manifest)) == {Part.INDEXED_DB}


# --- restore --------------------------------------------------------------------------------------


def test_parts_come_from_where_they_are_wanted_from(
    profile: Path, store: Path, tmp_path: Path
) -> None:
    snapshot = take(profile, store)
    databases.write(profile / databases.LOCAL_STORAGE, range(7000, 7010))
    databases.write(profile / databases.INDEXED_DB, range(7000, 7010))
    snapshots.restore(
        {Part.LOCAL_STORAGE: snapshot, Part.INDEXED_DB: profile}, tmp_path / "restored"
    )
    local_storage, indexed_db = contents(tmp_path / "restored")
    assert b"%08d" % 7000 not in local_storage
    assert b"%08d" % 7000 in indexed_db


@pytest.mark.parametrize("what", ["changed", "missing", "more", "manifest"])
def test_a_snapshot_that_is_not_what_was_written_is_refused(
    profile: Path, store: Path, tmp_path: Path, what: str
) -> None:
    snapshot = take(profile, store)
    log = next((snapshot / databases.LOCAL_STORAGE).glob("*.log"))
    match what:
        case "changed":
            log.write_bytes(log.read_bytes()[:-1])
        case "missing":
            log.unlink()
        case "more":
            log.with_name("000099.log").write_bytes(b"")
        case "manifest":
            (snapshot / snapshots.MANIFEST).write_text("{")
    with pytest.raises(SnapshotError):
        snapshots.restore(dict.fromkeys(ALL, snapshot), tmp_path / "restored")
