"""Snapshots of a login: copies of the parts of Chromium's profile that hold it.

These parts are localStorage and IndexedDB: a new profile with just these two opens WhatsApp Web
without a QR. Both are LevelDB databases. LevelDB never changes a table once written, only appends
to its logs, and recovers from a SIGKILL at any moment. So a copy is as good as what a SIGKILL would
have left, provided that nothing but the logs has changed between the first and the last file. The
tables are hard-linked during that moment, which takes almost no time, and copied afterwards.
Chromium may run and write meanwhile.

A snapshot is a directory named after its time. It gets this name once it is complete, verified and
synced to disk; a directory with any other name is not a snapshot. Files that have not changed since
the previous snapshot are hard links to its copies.
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

TIME_FORMAT = "%Y%m%dT%H%M%S.%fZ"
MANIFEST = "manifest.json"
PARTIAL = "partial"
ATTEMPTS = 50  # to catch the databases unchanged while their tables are linked
UNUSED = {"LOCK", "LOG", "LOG.old"}  # LevelDB creates them itself


class Part(StrEnum):
    """The parts of a login, as directories of the profile.

    localStorage comes first: everything that it refers to is in IndexedDB already.
    """

    LOCAL_STORAGE = "Default/Local Storage"
    INDEXED_DB = "Default/IndexedDB"

    @property
    def label(self) -> str:
        return self.rpartition("/")[2]


class SnapshotError(Exception):
    """A snapshot could not be taken or is not usable; the message is a sentence."""


class SnapshotFile(BaseModel):
    """One file of a snapshot, and the identity of the profile's file that it was copied from."""

    sha256: str
    size: int  # bytes
    inode: int
    mtime: int  # nanoseconds

    def copied_from(self, live: os.stat_result) -> bool:
        return (self.inode, self.size, self.mtime) == (live.st_ino, live.st_size, live.st_mtime_ns)


class Manifest(BaseModel):
    """A snapshot's description; ``login`` is the time of the login, which tells logins apart."""

    taken_at: datetime
    login: datetime
    files: dict[str, SnapshotFile]


def list_snapshots(store: Path) -> list[Path]:
    """Return the complete snapshots, newest first."""
    return sorted((path for path in store.glob("*Z") if (path / MANIFEST).exists()), reverse=True)


def read_manifest(snapshot: Path) -> Manifest:
    """Return the snapshot's manifest; raise ``SnapshotError`` if it is not readable."""
    try:
        return Manifest.model_validate_json((snapshot / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        raise SnapshotError("the snapshot's manifest is not readable") from None


def take(profile: Path, store: Path, login: datetime, now: datetime, room: int) -> Manifest:
    """Take a snapshot that copies at most ``room`` bytes, then delete the previous ones.

    Raises ``SnapshotError``; the previous snapshot survives any failure.
    """
    partial = store / PARTIAL
    previous = list_snapshots(store)
    try:
        files = _copy_login(profile, partial, previous[0] if previous else None, room)
        manifest = Manifest(taken_at=now, login=login, files=files)
        (partial / MANIFEST).write_text(manifest.model_dump_json())
        sync_tree(partial)
        partial.rename(store / now.strftime(TIME_FORMAT))
        sync(store)
        for old in previous:
            shutil.rmtree(old, ignore_errors=True)
    except leveldb.Damaged as error:
        raise SnapshotError(f"the login's files are damaged: {error}") from None
    except OSError as error:
        raise SnapshotError(f"the snapshot could not be written: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def find_damage(profile: Path, snapshot: Manifest | None) -> dict[Part, str]:
    """Describe what is missing or damaged in a login's files; Chromium must not be running on them.

    A log with fewer bytes than at the time of the snapshot has lost some, even where LevelDB
    notices nothing.
    """
    damage = {}
    for part in Part:
        try:
            for database in _databases(profile / part):
                leveldb.check(database)
            for name, file in snapshot.files.items() if snapshot else ():
                _check_length(profile, part, name, file)
        except (leveldb.Damaged, FileNotFoundError) as error:
            damage[part] = f"{part.label}: {error}"
    return damage


def truncate_partial_records(profile: Path) -> None:
    """Let Chromium append to complete records only; it must not be running on the profile."""
    for part in Part:
        for database in (profile / part).glob("*leveldb"):
            leveldb.truncate_partial_records(database)


def restore(sources: Mapping[Part, Path], target: Path) -> None:
    """Build a profile from parts of snapshots or of other profiles, synced to disk on return.

    Files of a snapshot are compared with its manifest, and every database is verified. Raises
    ``SnapshotError`` if a source is not usable, ``OSError`` if the target can't be written. The
    target must not exist.
    """
    for part, source in sources.items():
        expected = None
        if (source / MANIFEST).exists():
            expected = {
                name: file.sha256
                for name, file in read_manifest(source).files.items()
                if name.startswith(part)
            }
        copied = {}
        for name in _names(source, part):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            copied[name] = _copy(source / name, target / name)
        if expected is not None and copied != expected:
            raise SnapshotError(f"the snapshot's {part.label} does not match its manifest")
    if damage := find_damage(target, None):
        raise SnapshotError("; ".join(damage.values()))
    sync_tree(target)


def sync_tree(top: Path) -> None:
    """Sync all files and directories below ``top`` to disk; skip those that disappear meanwhile."""
    for directory, _, files in os.walk(top):
        for path in (Path(directory), *(Path(directory) / name for name in files)):
            with contextlib.suppress(FileNotFoundError):
                sync(path)


def sync(path: Path) -> None:
    """Sync a file's content, or a directory's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- steps of take --------------------------------------------------------------------------------


def _copy_login(
    profile: Path, partial: Path, previous: Path | None, room: int
) -> dict[str, SnapshotFile]:
    """Copy the login's files as of one moment and verify the copies; raise ``Damaged``."""
    captured = _capture(profile, partial)
    truncate_partial_records(partial)
    previous_files = {}
    with contextlib.suppress(SnapshotError):
        previous_files = read_manifest(previous).files if previous else {}
    files = {}
    for name, live in captured.items():
        earlier = previous_files.get(name)
        if (
            previous
            and earlier is not None
            and earlier.copied_from(live)
            and _replace_with_link(partial / name, previous / name)
        ):
            files[name] = earlier
            continue
        room -= live.st_size
        if room < 0:
            raise SnapshotError("the volume has too little space for a snapshot")
        files[name] = _replace_with_copy(partial / name, live)
    try:
        for part in Part:
            for database in _databases(partial / part):
                leveldb.check(database)
    except leveldb.Damaged:
        if previous is None:
            raise
        # The damage may be in the previous snapshot's copies; copy everything from the profile.
        return _copy_login(profile, partial, None, room)
    return files


def _capture(profile: Path, partial: Path) -> dict[str, os.stat_result]:
    """Link or copy all files as of one moment; return their state in the profile by name."""
    for _ in range(ATTEMPTS):
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):  # replaced by a compaction
            before = _stat_files(profile)
            for name in before:
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                _link_or_copy(profile / name, partial / name)
            if _only_logs_grew(before, _stat_files(profile)):
                return before
    raise SnapshotError("the login's files changed during every attempt to copy them")


def _stat_files(profile: Path) -> dict[str, os.stat_result]:
    return {name: (profile / name).stat() for part in Part for name in _names(profile, part)}


def _only_logs_grew(before: dict[str, os.stat_result], after: dict[str, os.stat_result]) -> bool:
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
    """Hard-link files that never change, where the file system supports it; copy the others."""
    if leveldb.TABLE.fullmatch(source.name) or ".indexeddb.blob/" in str(source):
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copyfile(source, target)


def _replace_with_link(path: Path, earlier: Path) -> bool:
    """Replace a file with a hard link to an earlier copy; return whether that worked."""
    new = path.with_name(f"{path.name}.new")
    try:
        os.link(earlier, new)
    except OSError:
        return False
    new.rename(path)
    return True


def _replace_with_copy(path: Path, live: os.stat_result) -> SnapshotFile:
    """Replace a file, which may be a hard link into the profile, with a copy of its own."""
    new = path.with_name(f"{path.name}.new")
    sha256 = _copy(path, new)
    new.rename(path)
    return SnapshotFile(
        sha256=sha256, size=path.stat().st_size, inode=live.st_ino, mtime=live.st_mtime_ns
    )


# --- files ----------------------------------------------------------------------------------------


def _databases(part: Path) -> list[Path]:
    """Return the part's LevelDB directories; raise ``Damaged`` if there are none."""
    databases = [
        path
        for path in part.glob("*leveldb")
        if any(file.name not in UNUSED for file in path.iterdir())
    ]
    if not databases:
        raise leveldb.Damaged("there is no database")
    return sorted(databases)


def _names(profile: Path, part: Part) -> list[str]:
    """Return the part's files as paths relative to the profile."""
    files = (
        path
        for path in (profile / part).rglob("*")
        if path.name not in UNUSED and not path.is_dir()
    )
    return sorted(path.relative_to(profile).as_posix() for path in files)


def _check_length(profile: Path, part: Part, name: str, file: SnapshotFile) -> None:
    with contextlib.suppress(FileNotFoundError):
        size = (profile / name).stat().st_size
        if name.startswith(part) and size < file.size:
            raise leveldb.Damaged(f"{Path(name).name} has lost {file.size - size} bytes")


def _copy(source: Path, target: Path) -> str:
    """Copy a file and return its checksum; raise ``SnapshotError`` if the source can't be read."""
    sha256 = hashlib.sha256()
    with source.open("rb") as old, target.open("xb") as new:
        while chunk := _read_chunk(old):
            sha256.update(chunk)
            new.write(chunk)
    return sha256.hexdigest()


def _read_chunk(file: BinaryIO) -> bytes:
    try:
        return file.read(2**20)
    except OSError as error:
        raise SnapshotError(f"{Path(file.name).name} can't be read: {error.strerror}") from error
