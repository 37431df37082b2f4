"""Whether a LevelDB directory is whole: reads it as LevelDB would, and writes nothing but what LevelDB leaves out anyway.

Chromium keeps localStorage and IndexedDB in LevelDB, and empties a database that it finds corrupt.
So a database is read here before Chromium opens it. The formats are those of LevelDB's
``doc/impl.md``, ``log_format.md`` and ``table_format.md``.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cramjam
from crc32c import crc32c

BLOCK = 32768  # bytes; a log's records don't span the end of one
HEADER = struct.Struct("<IHB")  # of a piece of a record: checksum, length, type
FOOTER = 48  # bytes at a table's end
MAGIC = 0xDB4775248B80FB57
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4  # pieces of records
SNAPPY = 1
NEEDED_TAGS = {2, 3, 4}  # a manifest's first log, next file and last sequence
LOG, TABLE, MANIFEST = (
    re.compile(r"(\d+)\.log"),
    re.compile(r"(\d+)\.(?:ldb|sst)"),
    re.compile(r"MANIFEST-\d+"),
)


class Damaged(Exception):
    """The database can't be read whole; the message says which file and why."""


@dataclass
class Manifest:
    """What the database consists of: its tables' sizes by number, and the first log that is not in them yet."""

    tables: dict[int, int] = field(default_factory=dict)
    first_log: int = 0
    tags: set[int] = field(default_factory=set)


def check(directory: Path) -> None:
    """Reads the whole database; raises ``Damaged``. A log may end in the middle of a record: a killed process leaves that.

    A directory without files is a database that has not been made yet. A file that goes away
    meanwhile is ``FileNotFoundError``: somebody writes to the database.
    """
    names = {path.name for path in directory.iterdir()}
    if not names - {"LOCK", "LOG", "LOG.old"}:
        return
    manifest = _manifest(directory, names)
    tables = {int(match[1]): match[0] for match in map(TABLE.fullmatch, names) if match}
    for number, size in manifest.tables.items():
        if number not in tables:
            raise Damaged(f"{number:06}.ldb is missing")
        _check_table(directory / tables[number], size)
    logs = sorted((int(match[1]), match[0]) for match in map(LOG.fullmatch, names) if match)
    first = manifest.first_log
    if first and first not in dict(logs):
        raise Damaged(f"{first:06}.log is missing")
    for number, name in logs:
        if number >= first:
            for _ in _records(directory / name):
                pass


def cut_half_records(directory: Path) -> None:
    """Takes away what a log, or the manifest, ends with after its last whole record. Only while nobody has it open.

    LevelDB leaves that out when it reads. But Chromium has it go on in the files that it finds (its
    option ``reuse_logs``), right behind the half, and what is written then can't be read the next
    time. A damaged file is left as it is.
    """
    for path in directory.iterdir():
        if LOG.fullmatch(path.name) or MANIFEST.fullmatch(path.name):
            try:
                whole = max((end for _, end in _records(path)), default=0)
            except Damaged:
                continue
            if whole < path.stat().st_size:
                os.truncate(path, whole)


def _manifest(directory: Path, names: set[str]) -> Manifest:
    if "CURRENT" not in names:
        raise Damaged("CURRENT is missing")
    current = (directory / "CURRENT").read_bytes()
    name = current.decode(errors="replace").removesuffix("\n")
    if not current.endswith(b"\n") or MANIFEST.fullmatch(name) is None:
        raise Damaged("CURRENT can't be read")
    if name not in names:
        raise Damaged(f"{name} is missing")
    manifest = Manifest()
    for record, _ in _records(directory / name):
        try:
            _apply(manifest, record)
        except IndexError:
            raise Damaged(f"{name} can't be read") from None
    if not manifest.tags >= NEEDED_TAGS:
        raise Damaged(f"{name} is not complete")
    return manifest


def _apply(manifest: Manifest, edit: bytes) -> None:
    """One VersionEdit; raises ``IndexError`` when it is not one."""
    at = 0

    def number() -> int:
        nonlocal at
        value, at = _varint(edit, at)
        return value

    def text() -> None:
        nonlocal at
        length = number()
        at += length
        if at > len(edit):
            raise IndexError

    while at < len(edit):
        tag = number()
        manifest.tags.add(tag)
        match tag:
            case 1:  # comparator
                text()
            case 2:
                manifest.first_log = number()
            case 3 | 4 | 9:  # next file, last sequence, previous log
                number()
            case 5:  # compaction pointer
                number()
                text()
            case 6:  # deleted table
                number()
                manifest.tables.pop(number(), None)
            case 7:  # new table
                number()
                table = number()
                manifest.tables[table] = number()
                text()
                text()
            case _:
                raise IndexError


def _records(path: Path) -> Iterator[tuple[bytes, int]]:
    """The log's records and where each ends; what is cut off at the file's end is left out. Raises ``Damaged``."""
    content = path.read_bytes()
    record = b""
    at = 0
    while at + HEADER.size <= len(content):
        left = BLOCK - at % BLOCK
        if left < HEADER.size:
            at += left
            continue
        checksum, length, kind = HEADER.unpack_from(content, at)
        if kind == length == checksum == 0:  # space that was set aside and not written to
            at += left
            record = b""
            continue
        end = at + HEADER.size + length
        if end > len(content):
            return
        if length > left - HEADER.size or kind not in (WHOLE, FIRST, MIDDLE, LAST):
            raise Damaged(f"{path.name} can't be read at byte {at}")
        if not _intact(checksum, content[at + 6 : end]):
            raise Damaged(f"{path.name} has a wrong checksum at byte {at}")
        if (kind in (WHOLE, FIRST)) == bool(record):
            raise Damaged(f"{path.name} has half a record before byte {at}")
        record += content[at + HEADER.size : end]
        if kind in (WHOLE, LAST):
            yield record, end
            record = b""
        at = end


def _check_table(path: Path, size: int) -> None:
    content = path.read_bytes()
    if len(content) != size:
        raise Damaged(f"{path.name} has {len(content)} bytes instead of {size}")
    footer = content[-FOOTER:]
    if len(footer) < FOOTER or struct.unpack_from("<Q", footer, FOOTER - 8)[0] != MAGIC:
        raise Damaged(f"{path.name} is not a table")
    try:
        _, at = _handle(footer, 0)
        index, _ = _handle(footer, at)
        for handle in _values(_block(content, index)):
            _block(content, _handle(handle, 0)[0])
    except (IndexError, ValueError, struct.error, cramjam.DecompressionError) as error:
        raise Damaged(f"{path.name}: {error}") from None


def _block(content: bytes, handle: tuple[int, int]) -> bytes:
    """A table's block, which ends with its compression and checksum; raises ``ValueError``."""
    offset, size = handle
    end = offset + size
    if end + 5 > len(content):
        raise ValueError("a block lies outside")
    (checksum,) = struct.unpack_from("<I", content, end + 1)
    if not _intact(checksum, content[offset : end + 1]):
        raise ValueError(f"wrong checksum at byte {offset}")
    block = content[offset:end]
    return bytes(cramjam.snappy.decompress_raw(block)) if content[end] == SNAPPY else block


def _values(block: bytes) -> Iterator[bytes]:
    """The values of a block; its keys are left out."""
    (restarts,) = struct.unpack_from("<I", block, len(block) - 4)
    end = len(block) - 4 - 4 * restarts
    at = 0
    while at < end:
        _, at = _varint(block, at)
        key, at = _varint(block, at)
        value, at = _varint(block, at)
        at += key
        yield block[at : at + value]
        at += value


def _handle(content: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = _varint(content, at)
    size, at = _varint(content, at)
    return (offset, size), at


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _intact(masked: int, content: bytes) -> bool:
    """LevelDB stores its checksums rotated, so that a checksum of checksums is worth something."""
    rotated = masked - 0xA282EAD8 & 0xFFFFFFFF
    return crc32c(content) == (rotated >> 17 | rotated << 15) & 0xFFFFFFFF
