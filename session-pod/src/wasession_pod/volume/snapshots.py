"""Snapshots of a login: copies of the part of Chromium's profile that holds it, taken while Chromium runs.

The part is localStorage and IndexedDB; a new profile with these two in it opens without a QR. Both
are LevelDB, whose tables are never changed once written, whose log only grows, and which comes back
from a SIGKILL at any moment. So a copy is what a SIGKILL would have left when no file but the logs
has changed from before the first was taken until after the last. Tables are linked for that moment,
which takes no time, and copied afterwards.

A snapshot is a directory named by its time. It gets that name when it is complete, read through and
on disk; whatever has another name is not a snapshot. Files that have not changed since the snapshot
before are links to its copies.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ValidationError

from wasession_pod.volume import leveldb

STAMP = "%Y%m%dT%H%M%S.%fZ"
MANIFEST = "manifest.json"
PARTIAL = "partial"
TRIES = 50  # to find the databases quiet for as long as linking their tables takes
UNUSED = {"LOCK", "LOG", "LOG.old"}  # LevelDB makes them anew


class Part(StrEnum):
    """What a login consists of, as directories of the profile. localStorage comes first: what it says is in IndexedDB, is."""

    LOCAL_STORAGE = "Default/Local Storage"
    INDEXED_DB = "Default/IndexedDB"

    @property
    def words(self) -> str:
        return self.rpartition("/")[2]


class SnapshotError(Exception):
    """No snapshot was taken, or the one that there is can't be used; the message is a sentence."""


class File(BaseModel):
    """A file of a snapshot, and which file of the profile it was: size and times in bytes and nanoseconds."""

    sha256: str
    size: int
    inode: int
    mtime: int

    def was(self, live: os.stat_result) -> bool:
        return (self.inode, self.size, self.mtime) == (live.st_ino, live.st_size, live.st_mtime_ns)


class Manifest(BaseModel):
    """What a snapshot says of itself; ``login`` is since when the login is on the volume, which tells logins apart."""

    taken_at: datetime
    login: datetime
    files: dict[str, File]


def taken(store: Path) -> list[Path]:
    """The snapshots there are, the newest first."""
    return sorted((path for path in store.glob("*Z") if (path / MANIFEST).exists()), reverse=True)


def read(snapshot: Path) -> Manifest:
    try:
        return Manifest.model_validate_json((snapshot / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        raise SnapshotError("the snapshot's manifest can't be read") from None


def take(profile: Path, store: Path, login: datetime, now: datetime, room: int) -> Manifest:
    """Takes a snapshot with at most ``room`` bytes and lets go of those before; raises ``SnapshotError``.

    Chromium may run and write meanwhile. Whatever goes wrong, the snapshot before stays.
    """
    partial = store / PARTIAL
    before = taken(store)
    try:
        files = _copied(profile, partial, before[0] if before else None, room)
        manifest = Manifest(taken_at=now, login=login, files=files)
        (partial / MANIFEST).write_text(manifest.model_dump_json())
        sync_tree(partial)
        partial.rename(store / now.strftime(STAMP))
        sync(store)
        for old in before:
            shutil.rmtree(old, ignore_errors=True)
    except leveldb.Damaged as error:
        raise SnapshotError(f"the login's files are damaged: {error}") from None
    except OSError as error:
        raise SnapshotError(f"the snapshot could not be written: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def damage(profile: Path, snapshot: Manifest | None) -> dict[Part, str]:
    """What of a login's files is missing or damaged, in words. Only for a profile that Chromium does not run on.

    A log that has fewer bytes than when the snapshot was taken has lost some, also where LevelDB
    finds nothing wrong with it.
    """
    found = {}
    for part in Part:
        try:
            for database in _databases(profile / part):
                leveldb.check(database)
            for name, file in snapshot.files.items() if snapshot else ():
                _check_length(profile, part, name, file)
        except (leveldb.Damaged, FileNotFoundError) as error:
            found[part] = f"{part.words}: {error}"
    return found


def cut_half_records(profile: Path) -> None:
    """Has Chromium go on behind whole records only. For a profile that it does not run on, with or without a login."""
    for part in Part:
        for database in (profile / part).glob("*leveldb"):
            leveldb.cut_half_records(database)


def restore(sources: Mapping[Part, Path], target: Path) -> None:
    """Makes a profile of parts of snapshots or of other profiles, on disk when it returns.

    Files of a snapshot are compared with its manifest, and all are read through. Raises
    ``SnapshotError`` when the sources are no good, ``OSError`` when the target can't be written.
    There must be no target yet.
    """
    for part, source in sources.items():
        expected = None
        if (source / MANIFEST).exists():
            expected = {
                name: file.sha256
                for name, file in read(source).files.items()
                if name.startswith(part)
            }
        copied = {}
        for name in _names(source, part):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            copied[name] = _copy(source / name, target / name)
        if expected is not None and copied != expected:
            raise SnapshotError(f"the snapshot's {part.words} is not what was written")
    if broken := damage(target, None):
        raise SnapshotError("; ".join(broken.values()))
    sync_tree(target)


def sync_tree(top: Path) -> None:
    """Has the kernel write all files below, and their names; those that go away meanwhile need none."""
    for directory, _, files in os.walk(top):
        for path in (Path(directory), *(Path(directory) / name for name in files)):
            with contextlib.suppress(FileNotFoundError):
                sync(path)


def sync(path: Path) -> None:
    """Has the kernel write a file, or a directory's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- the parts of take ----------------------------------------------------------------------------


def _copied(profile: Path, partial: Path, previous: Path | None, room: int) -> dict[str, File]:
    """Copies the login's files as they are at one moment, and reads the copies through; raises ``Damaged``."""
    live = _caught(profile, partial)
    cut_half_records(partial)
    known = {}
    with contextlib.suppress(SnapshotError):
        known = read(previous).files if previous else {}
    files = {}
    for name, was in live.items():
        before = known.get(name)
        if (
            previous
            and before is not None
            and before.was(was)
            and _linked(previous / name, partial / name)
        ):
            files[name] = before
            continue
        room -= was.st_size
        if room < 0:
            raise SnapshotError("there is no room for a snapshot")
        files[name] = _own(partial / name, was)
    try:
        for part in Part:
            for database in _databases(partial / part):
                leveldb.check(database)
    except leveldb.Damaged:
        if previous is None:
            raise
        return _copied(
            profile, partial, None, room
        )  # it may be the copy of the snapshot before that is damaged
    return files


def _caught(profile: Path, partial: Path) -> dict[str, os.stat_result]:
    """Gets hold of all files as they are at one moment; what they were in the profile, by name."""
    for _ in range(TRIES):
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):  # a compaction has replaced it
            before = _look(profile)
            for name in before:
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                _link_or_copy(profile / name, partial / name)
            if _same(before, _look(profile)):
                return before
    raise SnapshotError("the login was written to all the time")


def _look(profile: Path) -> dict[str, os.stat_result]:
    return {name: (profile / name).stat() for part in Part for name in _names(profile, part)}


def _same(before: dict[str, os.stat_result], after: dict[str, os.stat_result]) -> bool:
    """Whether nothing has happened but that logs have grown."""
    if before.keys() != after.keys():
        return False
    for name, was in before.items():
        now = after[name]
        if was.st_ino != now.st_ino or now.st_size < was.st_size:
            return False
        if not leveldb.LOG.fullmatch(Path(name).name) and (was.st_size, was.st_mtime_ns) != (
            now.st_size,
            now.st_mtime_ns,
        ):
            return False
    return True


def _link_or_copy(source: Path, target: Path) -> None:
    """Links what is never changed; not every file system can, and then it is copied."""
    if leveldb.TABLE.fullmatch(source.name) or ".indexeddb.blob/" in str(source):
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copyfile(source, target)


def _linked(earlier: Path, path: Path) -> bool:
    """Puts a link to an earlier copy in a file's place, where the file system can."""
    new = path.with_name(f"{path.name}.new")
    try:
        os.link(earlier, new)
    except OSError:
        return False
    new.rename(path)
    return True


def _own(path: Path, live: os.stat_result) -> File:
    """Puts a copy of its own in a file's place."""
    new = path.with_name(f"{path.name}.new")
    sha256 = _copy(path, new)
    new.rename(path)
    return File(sha256=sha256, size=path.stat().st_size, inode=live.st_ino, mtime=live.st_mtime_ns)


# --- small things ---------------------------------------------------------------------------------


def _databases(part: Path) -> list[Path]:
    """The part's LevelDB directories; raises ``Damaged`` when there is none."""
    found = [
        path
        for path in part.glob("*leveldb")
        if any(file.name not in UNUSED for file in path.iterdir())
    ]
    if not found:
        raise leveldb.Damaged("there is none")
    return sorted(found)


def _names(profile: Path, part: Part) -> list[str]:
    """The part's files as paths in the profile."""
    files = (
        path
        for path in (profile / part).rglob("*")
        if path.name not in UNUSED and not path.is_dir()
    )
    return sorted(path.relative_to(profile).as_posix() for path in files)


def _check_length(profile: Path, part: Part, name: str, file: File) -> None:
    with contextlib.suppress(FileNotFoundError):
        now = (profile / name).stat()
        if name.startswith(part) and now.st_size < file.size:
            raise leveldb.Damaged(f"{Path(name).name} has lost {file.size - now.st_size} bytes")


def _copy(source: Path, target: Path) -> str:
    """Copies a file and returns the copy's checksum; raises ``SnapshotError`` when the source can't be read."""
    sha256 = hashlib.sha256()
    with source.open("rb") as old, target.open("xb") as new:
        while chunk := _chunk(old):
            sha256.update(chunk)
            new.write(chunk)
    return sha256.hexdigest()


def _chunk(file: BinaryIO) -> bytes:
    try:
        return file.read(2**20)
    except OSError as error:
        raise SnapshotError(f"{Path(file.name).name} can't be read: {error.strerror}") from error
