"""Verify LevelDB databases, and truncate partial records that LevelDB itself would skip.

Chromium stores localStorage and IndexedDB in LevelDB, and empties a database that it considers
corrupt. So every database is read here before Chromium opens it. The formats are described in
LevelDB's ``doc/impl.md``, ``doc/log_format.md`` and ``doc/table_format.md``.
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

BLOCK = 32768  # bytes; a fragment of a log record never crosses a block boundary
HEADER = struct.Struct("<IHB")  # of a log record's fragment: checksum, length, type
FOOTER = 48  # bytes at the end of a table
MAGIC = 0xDB4775248B80FB57
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4  # types of fragments
SNAPPY = 1
REQUIRED_TAGS = {2, 3, 4}  # of a manifest: log number, next file number, last sequence
LOG, TABLE, MANIFEST = (
    re.compile(r"(\d+)\.log"),
    re.compile(r"(\d+)\.(?:ldb|sst)"),
    re.compile(r"MANIFEST-\d+"),
)


class Damaged(Exception):
    """The database is corrupt or incomplete; the message names the file and the cause."""


@dataclass
class Manifest:
    """The live files: table sizes in bytes by number, and the first log not yet in a table."""

    tables: dict[int, int] = field(default_factory=dict)
    first_log: int = 0
    tags: set[int] = field(default_factory=set)


def check(directory: Path) -> None:
    """Read the whole database; raise ``Damaged`` if it is not intact.

    A partial record at the end of a log is fine: a killed process leaves one behind. An empty
    directory is fine too: the database has not been created yet. Raises ``FileNotFoundError`` if a
    file disappears during the check, which means that another process is writing to the database.
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


def truncate_partial_records(directory: Path) -> None:
    """Truncate logs and manifests after their last complete record; no process may have them open.

    LevelDB skips a partial record when it reads. But Chromium enables ``reuse_logs``, so LevelDB
    appends to the existing file right after the partial record, and cannot read those writes the
    next time. Damaged files are left unchanged.
    """
    for path in directory.iterdir():
        if LOG.fullmatch(path.name) or MANIFEST.fullmatch(path.name):
            try:
                complete = max((end for _, end in _records(path)), default=0)
            except Damaged:
                continue
            if complete < path.stat().st_size:
                os.truncate(path, complete)


def _manifest(directory: Path, names: set[str]) -> Manifest:
    if "CURRENT" not in names:
        raise Damaged("CURRENT is missing")
    current = (directory / "CURRENT").read_bytes()
    name = current.decode(errors="replace").removesuffix("\n")
    if not current.endswith(b"\n") or MANIFEST.fullmatch(name) is None:
        raise Damaged("CURRENT is not readable")
    if name not in names:
        raise Damaged(f"{name} is missing")
    manifest = Manifest()
    for record, _ in _records(directory / name):
        try:
            _apply(manifest, record)
        except IndexError:
            raise Damaged(f"{name} is not readable") from None
    if not manifest.tags >= REQUIRED_TAGS:
        raise Damaged(f"{name} is incomplete")
    return manifest


def _apply(manifest: Manifest, edit: bytes) -> None:
    """Apply one VersionEdit; raise ``IndexError`` if it is malformed."""
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
    """Yield each complete record of a log and the offset of its end; raise ``Damaged``.

    A partial record at the end of the file is skipped.
    """
    content = path.read_bytes()
    record = b""
    at = 0
    while at + HEADER.size <= len(content):
        left = BLOCK - at % BLOCK
        if left < HEADER.size:
            at += left
            continue
        checksum, length, kind = HEADER.unpack_from(content, at)
        if kind == length == checksum == 0:  # preallocated space that was never written
            at += left
            record = b""
            continue
        end = at + HEADER.size + length
        if end > len(content):
            return
        if length > left - HEADER.size or kind not in (WHOLE, FIRST, MIDDLE, LAST):
            raise Damaged(f"{path.name} is not readable at byte {at}")
        if not _intact(checksum, content[at + 6 : end]):
            raise Damaged(f"{path.name} has a wrong checksum at byte {at}")
        if (kind in (WHOLE, FIRST)) == bool(record):
            raise Damaged(f"{path.name} has an incomplete record before byte {at}")
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
    """Return a table's block, decompressed; raise ``ValueError`` if its checksum is wrong."""
    offset, size = handle
    end = offset + size
    if end + 5 > len(content):
        raise ValueError("a block extends past the end of the file")
    (checksum,) = struct.unpack_from("<I", content, end + 1)
    if not _intact(checksum, content[offset : end + 1]):
        raise ValueError(f"wrong checksum at byte {offset}")
    block = content[offset:end]
    return bytes(cramjam.snappy.decompress_raw(block)) if content[end] == SNAPPY else block


def _values(block: bytes) -> Iterator[bytes]:
    """Yield the values of a block, without their keys."""
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
    """Compare content with its masked checksum; LevelDB masks (rotates) the CRCs that it stores."""
    rotated = masked - 0xA282EAD8 & 0xFFFFFFFF
    return crc32c(content) == (rotated >> 17 | rotated << 15) & 0xFFFFFFFF
