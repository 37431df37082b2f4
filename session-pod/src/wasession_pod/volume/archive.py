"""Archives: a login outside its volume, in one encrypted file.

An archive is a tar file, encrypted with age (https://age-encryption.org/v1). Its first member,
``archive.json``, has the size and checksum of each other one: the files of a snapshot of the login
(``login/…``), a copy of ``messages.sqlite``, and ``login.json``.

Anybody who can write to the store can put an archive there that can be decrypted, because its
recipients are public. So nothing that an archive says is believed before it is verified.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Annotated, BinaryIO, Literal, NamedTuple

import pyrage
from pydantic import BaseModel, Field, StringConstraints, ValidationError

from wasession_pod.messages.database import Database
from wasession_pod.volume import snapshots
from wasession_pod.volume.snapshots import Part
from wasession_pod.volume.volume import Login, Volume

VERSION = 1
INDEX, LOGIN, MESSAGES = "archive.json", "login.json", "messages.sqlite"
SNAPSHOT = "login/"  # before the names of a snapshot's files
# Bytes that an archive may have on the way to the store. The pod's /tmp has 512 MiB, for files that
# are being sent as well.
MAXIMUM_SIZE = 384 * 2**20
MAXIMUM_INDEX = 16 * 2**20  # bytes
MAXIMUM_NAME = 1024  # characters
MEMBER_OVERHEAD, OVERHEAD = 2048, 2**20  # bytes, at most: of a member, and of an archive
CHUNK = 2**18  # bytes
BLOCK = tarfile.BLOCKSIZE
NO_KEY = "No matching keys found"  # age's words


class ArchiveError(Exception):
    """An archive could not be made, or is not usable; the message is a sentence."""


class Invalid(ArchiveError):
    """It is not what ``make`` writes."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"the archive is not valid: {cause}")


class Entry(BaseModel):
    """Size, in bytes, and checksum of a member."""

    size: int = Field(ge=0)
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Index(BaseModel):
    """``archive.json``: whose login it is, and the other members by name."""

    version: Literal[1] = 1
    client_id: str  # of the session that has made it
    account: str
    login: datetime  # since when there is the login
    taken_at: datetime
    files: dict[str, Entry]


class Version(BaseModel):
    version: int = Field(ge=1)


class Made(NamedTuple):
    """An archive: ``size`` in bytes, ``sha256``, and the moment that it is of."""

    size: int
    sha256: str
    taken_at: datetime


class Source(NamedTuple):
    """A member of an archive that is being made."""

    entry: Entry
    content: Path | bytes


# --- making one -----------------------------------------------------------------------------------


def make(
    volume: Volume,
    database: Database,
    recipients: Sequence[str],
    target: IO[bytes],
    stop: threading.Event,
) -> Made:
    """Write an archive of the volume's login to ``target``; the browser may run meanwhile.

    The profile must not move. Raises ``ArchiveError``, also soon after ``stop`` is set,
    ``SnapshotError``, ``StorageError``, ``DatabaseError`` and ``OSError``.
    """
    try:
        readers = [pyrage.x25519.Recipient.from_str(recipient) for recipient in recipients]
    except pyrage.RecipientError:
        raise ArchiveError("one of the recipients is not valid: its checksum is wrong") from None
    # In this order: what the page has stored by then is known to the outbox.
    volume.take_snapshot()
    usable, login = volume.usable_snapshot(), volume.login
    if usable is None or login is None:
        raise ArchiveError("the login has ended meanwhile")
    snapshot, manifest = usable
    with _copy_of(database, volume) as messages:
        sources = {
            f"{SNAPSHOT}{name}": Source(Entry(size=file.size, sha256=file.sha256), snapshot / name)
            for name, file in manifest.files.items()
        }
        if messages is not None:
            sources[MESSAGES] = Source(_entry(_chunks(messages)), messages)
        content = login.model_dump_json().encode()
        sources[LOGIN] = Source(_entry([content]), content)
        index = Index(
            client_id=volume.client_id,
            account=login.account,
            login=login.since,
            taken_at=manifest.taken_at,
            files={name: source.entry for name, source in sources.items()},
        )
        _require_space(target, sources)
        encoded = index.model_dump_json().encode()
        members = {INDEX: Source(_entry([encoded]), encoded), **sources}
        made = _encrypt(_tar(members, stop), target, readers)
    return Made(made.size, made.sha256, manifest.taken_at)


@contextlib.contextmanager
def _copy_of(database: Database, volume: Volume) -> Iterator[Path | None]:
    """Yield a copy of the messages, which is deleted afterwards; None if there are none."""
    if not database.exists:
        yield None
        return
    with database.copied(volume.room()) as copy:
        yield copy


def _require_space(target: IO[bytes], sources: Mapping[str, Source]) -> None:
    needed = sum(source.entry.size + MEMBER_OVERHEAD for source in sources.values()) + OVERHEAD
    stat = os.fstatvfs(target.fileno())
    free = min(stat.f_bavail * stat.f_frsize, MAXIMUM_SIZE)
    if needed > free:
        raise ArchiveError(
            f"the archive would have {needed // 2**20} MiB, and there is temporary space for "
            f"{free // 2**20} MiB"
        )


def _tar(members: Mapping[str, Source], stop: threading.Event) -> Iterator[bytes]:
    """Yield a tar file; raise ``ArchiveError`` if a member is not what its entry says."""
    for name, (entry, content) in members.items():
        info = tarfile.TarInfo(name)
        info.size, info.mode = entry.size, 0o600
        yield info.tobuf(tarfile.PAX_FORMAT)
        sha256, size = hashlib.sha256(), 0
        for chunk in [content] if isinstance(content, bytes) else _chunks(content):
            if stop.is_set():
                raise ArchiveError("the session stops")
            sha256.update(chunk)
            size += len(chunk)
            yield chunk
        if (size, sha256.hexdigest()) != (entry.size, entry.sha256):
            raise ArchiveError(f"{name} is damaged, or has changed meanwhile")
        yield bytes(-size % BLOCK)
    yield bytes(2 * BLOCK)


def _encrypt(
    plain: Iterator[bytes], target: IO[bytes], recipients: Sequence[pyrage.x25519.Recipient]
) -> Entry:
    source, sink = _Input(plain), _Output(target)
    try:
        pyrage.encrypt_io(source, sink, recipients)
    except (pyrage.EncryptError, OSError) as error:
        raise source.error or sink.error or ArchiveError(f"encryption failed: {error}") from None
    target.flush()
    return Entry(size=sink.size, sha256=sink.sha256.hexdigest())


# --- reading one ----------------------------------------------------------------------------------


def decrypt(archive: Path, identities: str, target: Path) -> None:
    """Decrypt an archive with one of the identities of a text, one in a line, as age-keygen writes.

    Raises ``ArchiveError`` and ``OSError``.
    """
    keys = _parse(identities)
    with target.open("xb") as plain:
        source, sink = _Input(_chunks(archive)), _Output(plain)
        try:
            pyrage.decrypt_io(source, sink, keys)
        except (pyrage.DecryptError, OSError) as error:
            if (cause := source.error or sink.error) is not None:
                raise cause from None
            if str(error) == NO_KEY:
                message = "none of the identities can decrypt the archive: it has other recipients"
                raise ArchiveError(message) from None
            raise ArchiveError("the archive is damaged: it cannot be decrypted") from None


def _parse(identities: str) -> list[pyrage.x25519.Identity]:
    lines = [line.strip() for line in identities.splitlines()]
    try:
        keys = [
            pyrage.x25519.Identity.from_str(line)
            for line in lines
            if line and not line.startswith("#")
        ]
    except pyrage.IdentityError:
        raise ArchiveError("an identity is not one of age (AGE-SECRET-KEY-1…)") from None
    if not keys:
        raise ArchiveError("there is no identity of age (AGE-SECRET-KEY-1…)")
    return keys


def extract(plain: Path, target: Path, profile: str) -> Index:
    """Extract a decrypted archive into an empty directory, with the login's files in ``profile``.

    Every member is compared with ``archive.json``, and the login's databases are verified. Raises
    ``ArchiveError``, after which what is in ``target`` is worthless, and ``OSError``.
    """
    try:
        with tarfile.open(plain, "r:") as tar:
            members = iter(tar)
            index = _read_index(tar, next(members, None), plain.stat().st_size)
            pending = dict(index.files)
            for member in members:
                entry = pending.pop(member.name, None)
                if entry is None:
                    raise Invalid("it has a member that is not in its index, or has it twice")
                _extract(tar, member, entry, _place(member.name, target, profile))
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError):
        raise Invalid("it is no tar file") from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError):  # "a" as well as "a/b"
        raise Invalid("a file is a directory as well") from None
    if pending:
        raise Invalid("it has fewer members than its index")
    _verify_login(index, target, profile)
    return index


def _read_index(tar: tarfile.TarFile, member: tarfile.TarInfo | None, size: int) -> Index:
    """Return the first member, ``archive.json``, of an archive of ``size`` bytes."""
    if member is None or member.name != INDEX:
        raise Invalid(f"its first member is not {INDEX}")
    content = b"".join(_content(tar, member, min(MAXIMUM_INDEX, size)))
    try:
        version = Version.model_validate_json(content).version
        if version > VERSION:
            raise ArchiveError(
                f"the archive's version is {version}, and this image knows {VERSION}: use a newer "
                "image"
            )
        index = Index.model_validate_json(content)
    except ValidationError:
        raise Invalid(f"its {INDEX} is not readable") from None
    if LOGIN not in index.files:
        raise Invalid(f"it has no {LOGIN}")
    if sum(entry.size for entry in index.files.values()) > size:
        raise Invalid("its members would be larger than it is itself")
    return index


def _place(name: str, target: Path, profile: str) -> Path:
    """Return where a member goes; raise ``ArchiveError`` for one that may not be there."""
    if name in (LOGIN, MESSAGES):
        return target / name
    inner = name.removeprefix(SNAPSHOT)
    parts = inner.split("/")
    known = name.startswith(SNAPSHOT) and inner.startswith(tuple(f"{part}/" for part in Part))
    plain = all(part not in ("", ".", "..") and "\0" not in part for part in parts)
    if not known or not plain or len(name) > MAXIMUM_NAME or max(map(len, parts)) > 255:
        raise Invalid("it has a member that does not belong to a login")
    return target / profile / inner


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, entry: Entry, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sha256, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for chunk in _content(tar, member, entry.size):
            sha256.update(chunk)
            size += len(chunk)
            file.write(chunk)
    if (size, sha256.hexdigest()) != (entry.size, entry.sha256):
        raise Invalid(f"{path.name} does not match its checksum")


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, maximum: int) -> Iterator[bytes]:
    """Yield what is in a regular file."""
    file = tar.extractfile(member) if member.isreg() and not member.issparse() else None
    if file is None or member.size > maximum:
        raise Invalid("it has a member that is no file of the right size")
    while chunk := file.read(CHUNK):
        yield chunk


def _verify_login(index: Index, target: Path, profile: str) -> None:
    try:
        login = Login.model_validate_json((target / LOGIN).read_bytes())
    except ValidationError:
        raise ArchiveError(f"the archive's {LOGIN} is not readable") from None
    if (login.account, login.since) != (index.account, index.login):
        raise ArchiveError(f"the archive's {LOGIN} is of another login")
    if damage := snapshots.find_damage(target / profile, None):
        raise ArchiveError(f"the archive's login is damaged: {'; '.join(damage.values())}")


# --- streams --------------------------------------------------------------------------------------


class _Input:
    """What age reads. It makes an error of its own from any, so ``error`` keeps the first one."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")
        self.error: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            while not self._rest:
                self._rest = memoryview(next(self._chunks))  # chunks may be empty
        except StopIteration:
            return b""
        except Exception as error:
            self.error = error
            raise
        size = len(self._rest) if size < 0 else size
        result, self._rest = self._rest[:size], self._rest[size:]
        return bytes(result)


class _Output:
    """What age writes, with its size and checksum; like ``_Input``."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target
        self.size, self.sha256 = 0, hashlib.sha256()
        self.error: Exception | None = None

    def write(self, chunk: bytes) -> int:
        try:
            self._target.write(chunk)
        except OSError as error:
            self.error = error
            raise
        self.size += len(chunk)
        self.sha256.update(chunk)
        return len(chunk)

    def flush(self) -> None:
        self._target.flush()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from _read(file)


def _read(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def _entry(chunks: Iterable[bytes]) -> Entry:
    sha256, size = hashlib.sha256(), 0
    for chunk in chunks:
        sha256.update(chunk)
        size += len(chunk)
    return Entry(size=size, sha256=sha256.hexdigest())
