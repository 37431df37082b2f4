"""Our verdict on a LevelDB directory, compared with LevelDB's own."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import hypothesis
import plyvel
import pytest
from hypothesis import strategies as st
from unit.pod import databases
from wasession_pod.volume.leveldb import BLOCK, HEADER, Damaged, check, truncate_partial_records

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with tables on two levels and a log of more than a block."""
    directory = tmp_path_factory.mktemp("leveldb") / "whole"
    databases.write(directory, range(900), compact=True)
    databases.write(directory, range(900, 1200))
    databases.write(directory, range(1200, 1280))
    assert len(list(directory.glob("*.ldb"))) > 2
    assert max(path.stat().st_size for path in directory.glob("*.log")) > BLOCK
    return directory


@pytest.fixture
def database(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_a_database_is_whole_at_any_size(tmp_path: Path) -> None:
    check(tmp_path)  # not made yet
    for entries in (1, 10, 100, 1000):
        directory = tmp_path / str(entries)
        databases.write(directory, range(entries))
        check(directory)
        databases.write(directory, range(entries), compact=True)
        check(directory)


def test_a_copy_made_while_it_is_written_to_is_whole(tmp_path: Path) -> None:
    """As a killed process leaves it: without the last table, with the log cut anywhere."""
    live = tmp_path / "live"
    live.mkdir()
    with plyvel.DB(str(live), create_if_missing=True) as database:
        for number in range(60):
            database.put(b"%d" % number, b"x" * number * 50)
            copy = Path(shutil.copytree(live, tmp_path / f"copy-{number}"))
            check(copy)
            log = next(copy.glob("*.log"))
            log.write_bytes(log.read_bytes()[: -number - 1])
            check(copy)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_by_one(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    """As a file system leaves a file whose data a loss of power has taken."""
    path.write_bytes(bytes(path.stat().st_size))


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))  # noqa: S311


def garbage_inside(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 3
    content[middle : middle + 8] = b"\xde\xad\xbe\xef\xde\xad\xbe\xef"
    path.write_bytes(content[: path.stat().st_size])


@pytest.mark.parametrize(
    "change", [Path.unlink, cut, cut_by_one, empty, zeros, garbage, garbage_inside]
)
@pytest.mark.parametrize("kind", ["CURRENT", "MANIFEST-*", "*.ldb", "*.log"])
def test_damage_to_each_kind_of_file_is_found(database: Path, kind: str, change: Change) -> None:
    path = max(database.glob(kind))
    change(path)
    if path.suffix == ".log" and change in (cut, cut_by_one, empty, zeros):
        check(database)  # a SIGKILL leaves the like, and LevelDB goes on with what there is
        assert databases.read(database)
        return
    with pytest.raises(Damaged) as error:
        check(database)
    assert path.stem in str(error.value) or "ldb" in str(error.value)


def test_every_table_is_read(database: Path, whole: Path) -> None:
    for table in database.glob("*.ldb"):
        garbage_inside(table)
        with pytest.raises(Damaged, match=table.name):
            check(database)
        shutil.copy(whole / table.name, table)
    check(database)


@pytest.mark.parametrize("name", ["LOG", "LOG.old", "LOCK"])
def test_what_leveldb_only_says_of_itself_does_not_matter(database: Path, name: str) -> None:
    (database / name).write_bytes(b"garbage")
    check(database)


@hypothesis.given(data=st.data())
def test_a_changed_byte_is_found_or_changes_nothing(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """LevelDB reads the same content as before from a database that passes the check.

    Only the last records of the log may be missing.
    """
    database = Path(shutil.copytree(whole, tmp_path_factory.mktemp("changed") / "copy"))
    path = data.draw(
        st.sampled_from(
            sorted(p for p in database.iterdir() if not p.name.startswith(("LOG", "LOCK")))
        )
    )
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        check(database)
    except Damaged:
        return
    expected = databases.read(whole)
    content_after = databases.read(database)
    assert path.suffix == ".log" or path.name.startswith("MANIFEST") or content_after == expected
    assert content_after.items() <= expected.items()


@hypothesis.given(content=st.binary(max_size=200))
def test_any_manifest_and_log_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    directory = tmp_path_factory.mktemp("any")
    (directory / "CURRENT").write_text("MANIFEST-000001\n")
    (directory / "MANIFEST-000001").write_bytes(content)
    (directory / "000003.log").write_bytes(content)
    with pytest.raises(Damaged):
        check(directory)


def test_a_record_that_is_cut_off_at_the_end_is_none(tmp_path: Path) -> None:
    databases.write(tmp_path, range(1))
    log = next(tmp_path.glob("*.log"))
    with log.open("ab") as file:
        file.write(HEADER.pack(0, 100, 1) + b"half")
    check(tmp_path)


# --- half records ---------------------------------------------------------------------------------


def log_of(directory: Path) -> Path:
    return max(directory.glob("*.log"))


def test_what_follows_half_a_record_can_be_read_once_the_half_is_gone(tmp_path: Path) -> None:
    """As Chromium goes on in a log."""
    one, other = tmp_path / "one", tmp_path / "other"
    databases.write(one, range(1))
    databases.write(other, range(1, 2))
    half, following = HEADER.pack(0, 100, 1) + b"half", log_of(other).read_bytes()
    left = shutil.copytree(one, tmp_path / "left")
    with log_of(left).open("ab") as log:
        log.write(half + following)
    with pytest.raises(Damaged):
        check(left)
    before = log_of(one).read_bytes()
    with log_of(one).open("ab") as log:
        log.write(half)
    truncate_partial_records(one)
    assert log_of(one).read_bytes() == before
    with log_of(one).open("ab") as log:
        log.write(following)
    assert databases.read(one).keys() == {b"%08d" % number for number in range(2)}


@pytest.mark.parametrize(
    ("missing", "zeros"),
    [
        *((number, 0) for number in (0, 1, 6, 7, 300, 520, 5_000, BLOCK)),
        (0, 3),
        (0, 100),
        (0, 2 * BLOCK),
    ],
)
def test_nothing_is_taken_away_that_leveldb_reads(
    database: Path, tmp_path: Path, missing: int, zeros: int
) -> None:
    """Also where a loss of power has left preallocated space that was never written."""
    log = log_of(database)
    log.write_bytes(log.read_bytes()[: log.stat().st_size - missing] + bytes(zeros))
    cut = shutil.copytree(database, tmp_path / "cut")
    truncate_partial_records(cut)
    assert log_of(cut).stat().st_size <= log.stat().st_size
    before = log_of(cut).read_bytes()
    truncate_partial_records(cut)
    assert log_of(cut).read_bytes() == before
    assert databases.read(cut) == databases.read(database)


def test_a_damaged_log_is_left_as_it_is(database: Path) -> None:
    log = log_of(database)
    content = bytearray(log.read_bytes() + HEADER.pack(0, 100, 1) + b"half")
    content[100] ^= 1
    log.write_bytes(content)
    truncate_partial_records(database)
    assert log.read_bytes() == content
