"""Multipart forms with a file, which is written to disk as it arrives."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path, PurePosixPath

from aiohttp import BodyPartReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import ValidationError
from wasession_api.http.problem import HTTPProblem, to_problem
from wasession_api.session_pod.messages import SendMedia

from wasession_pod.messages.outgoing import Attachment, OutgoingMessage

CHUNK = 2**18  # bytes
MAXIMUM_FIELD = 2**14  # bytes
MAXIMUM_PARTS = 16
FORM_OVERHEAD = 2**16  # bytes of a form besides its file
READ_TIMEOUT = 30.0  # seconds that a client may pause in the middle of its body
RETRY_SOON = {"Retry-After": "5"}  # seconds
RETRY_LATER = {"Retry-After": "10"}
FILE = "file"
MIME_TYPE = re.compile(r"(?=.{1,127}$)[a-z0-9]+/[!-~]+")
PREFIX, LOCK = "wasession-uploads-", "lock"


class Uploads:
    """Receives one form per call, each with a file of up to ``limit`` bytes.

    At most ``maximum_files`` may be waiting to be sent. The files are in a directory of this
    process below the system's temporary directory; the next process deletes what a killed one has
    left behind.
    """

    def __init__(self, limit: int, maximum_files: int = 6) -> None:
        self._limit = limit
        self._maximum_files = maximum_files
        _delete_leftovers()
        self.directory = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        # Locked under another name first: another process must never see it unlocked.
        self._lock = (self.directory / "unlocked").open("x")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        (self.directory / "unlocked").rename(self.directory / LOCK)

    def close(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        self._lock.close()

    async def receive(self, request: web.Request) -> OutgoingMessage:
        """Return the form's message; raise ``HTTPProblem``."""
        if (request.content_length or 0) > self._limit + FORM_OVERHEAD:
            raise self._too_large()
        if sum(path.is_dir() for path in self.directory.iterdir()) >= self._maximum_files:
            detail = f"{self._maximum_files} files are being sent already"
            raise HTTPProblem(503, "Busy", detail, RETRY_SOON)
        try:
            directory = Path(tempfile.mkdtemp(dir=self.directory))
            try:
                return await self._read(request, directory / FILE)
            except BaseException:
                shutil.rmtree(directory, ignore_errors=True)
                raise
        except Exception as error:
            raise _to_problem(error) from None

    async def _read(self, request: web.Request, path: Path) -> OutgoingMessage:
        fields: dict[str, str] = {}
        attachment = None
        form = await request.multipart()
        for _ in range(MAXIMUM_PARTS):
            async with asyncio.timeout(READ_TIMEOUT):
                part = await form.next()
            if part is None:
                break
            if not isinstance(part, BodyPartReader) or not part.name:
                raise HTTPProblem(400, "Malformed form", "each part of the form must have a name")
            if (
                hdrs.CONTENT_TRANSFER_ENCODING in part.headers
                or hdrs.CONTENT_ENCODING in part.headers
            ):
                raise HTTPProblem(
                    400, "Malformed form", "parts of the form must not have an encoding"
                )
            if part.name in fields or (part.name == FILE and attachment is not None):
                raise HTTPProblem(422, "Bad request", f"{part.name}: given more than once")
            if part.name == FILE:
                attachment = await self._store(part, path)
            else:
                fields[part.name] = await _read_field(part)
        else:
            raise HTTPProblem(422, "Bad request", "the form has too many parts")
        body = SendMedia.model_validate(fields)
        if attachment is None:
            raise HTTPProblem(422, "Bad request", "file: Field required")
        return OutgoingMessage(body, attachment)

    async def _store(self, part: BodyPartReader, path: Path) -> Attachment:
        size, digest = 0, hashlib.sha256()
        with path.open("xb") as stream:
            while chunk := await _read_chunk(part):
                size += len(chunk)
                if size > self._limit:
                    raise self._too_large()
                digest.update(chunk)
                await asyncio.to_thread(stream.write, chunk)
        if not size:
            raise HTTPProblem(422, "Bad request", "file: must not be empty")
        return Attachment(
            path,
            digest.hexdigest(),
            _file_name(part.filename),
            _mime_type(part.headers.get(hdrs.CONTENT_TYPE)),
        )

    def _too_large(self) -> HTTPProblem:
        return HTTPProblem(413, "File too large", f"a file may have at most {self._limit} bytes")


def _delete_leftovers() -> None:
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), (directory / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its process is alive
            shutil.rmtree(directory)


async def _read_chunk(part: BodyPartReader) -> bytes:
    async with asyncio.timeout(READ_TIMEOUT):
        return await part.read_chunk(CHUNK)


async def _read_field(part: BodyPartReader) -> str:
    value = b""
    while chunk := await _read_chunk(part):
        value += chunk
        if len(value) > MAXIMUM_FIELD:
            detail = f"a field of the form may have at most {MAXIMUM_FIELD} bytes"
            raise HTTPProblem(413, "Field too large", detail)
    return value.decode()


def _to_problem(error: Exception) -> Exception:
    """Return the problem that answers a form which could not be read."""
    match error:
        case ValidationError():
            return to_problem(error)
        case TimeoutError():
            detail = f"no data arrived for {READ_TIMEOUT:.0f} s"
            return HTTPProblem(408, "Request timeout", detail)
        case (
            ValueError() | AssertionError() | HttpProcessingError()
        ):  # aiohttp's for malformed forms
            detail = "the body is not a form as declared by its Content-Type"
            return HTTPProblem(400, "Malformed form", detail)
        case OSError() if not isinstance(error, ConnectionError):
            detail = f"the file cannot be stored: {error.strerror}"
            return HTTPProblem(507, "No space", detail, RETRY_LATER)
    return error


def _file_name(declared: str | None) -> str | None:
    """Return the name without folders and control characters, at most 255 bytes."""
    name = PurePosixPath((declared or "").replace("\\", "/")).name
    name = "".join(character for character in name if character.isprintable())
    return name.encode()[:255].decode(errors="ignore").strip() or None


def _mime_type(declared: str | None) -> str | None:
    """Return the declared type; None if it is not specific, so that the content decides."""
    kind = (declared or "").partition(";")[0].strip().lower()
    return kind if MIME_TYPE.fullmatch(kind) and kind != "application/octet-stream" else None
