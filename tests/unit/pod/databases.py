"""Profiles without a browser: a login's databases, written by LevelDB itself."""

from __future__ import annotations

from pathlib import Path

import plyvel

LOCAL_STORAGE = Path("Default/Local Storage/leveldb")
INDEXED_DB = Path("Default/IndexedDB/https_web.whatsapp.com_0.indexeddb.leveldb")


def write(directory: Path, numbers: range, *, compact: bool = False) -> None:
    """Write an entry of half a kilobyte for each number; with ``compact`` into tables."""
    directory.mkdir(parents=True, exist_ok=True)
    with plyvel.DB(str(directory), create_if_missing=True, write_buffer_size=65536) as database:
        for number in numbers:
            # Half of it can be compressed and half not, as in real life.
            database.put(b"%08d" % number, bytes(number * i % 251 for i in range(256)) + b"x" * 256)
        if compact:
            database.compact_range()


def read(directory: Path) -> dict[bytes, bytes]:
    """Return all entries; raise ``plyvel.Error`` with LevelDB's strictest checks."""
    with plyvel.DB(str(directory), paranoid_checks=True) as database:
        return dict(database.iterator(verify_checksums=True))


def login(profile: Path, entries: int = 400, *, compact: bool = True) -> Path:
    """Create a profile with a login's two databases, each with tables and a log."""
    for database in (LOCAL_STORAGE, INDEXED_DB):
        write(profile / database, range(entries), compact=compact)
        write(profile / database, range(entries, entries + 20))
    return profile
