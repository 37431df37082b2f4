"""Files that are sent to the pod: a form, whose file goes to the disk as it comes in."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath

from aiohttp import BodyPartReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import ValidationError
from wasession_api.http.problem import HTTPProblem, describe_error
from wasession_api.session_pod.messages import SendMedia

from wasession_pod.messages.sending import File, Order

CHUNK = 2**18  # bytes
LONGEST_FIELD = 2**14  # bytes
MOST_PARTS = 16
SILENCE = 30.0  # seconds that a client may be silent in the middle of its file
FORM_AROUND = 2**16  # bytes of a form that are not its file
FILE = "file"
PREFIX, LOCK = "wasession-uploads-", "lock"


class Uploads:
    """Takes one form per call, each with a file of up to ``limit`` bytes; at most ``at_once`` files wait to be sent.

    The files lie in a directory of this process's own, in the system's for temporary files. What a
    process left behind that was killed is taken out by the next one.
    """

    def __init__(self, limit: int, at_once: int = 6) -> None:
        self._limit = limit
        self._at_once = at_once
        _take_out_what_is_left()
        self.directory = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        self._lock = (self.directory / "taking-lock").open("x")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        (self.directory / "taking-lock").rename(
            self.directory / LOCK
        )  # locked before anybody can find it

    def close(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        self._lock.close()

    async def receive(self, request: web.Request) -> Order:
        """The order that the form is; raises ``HTTPProblem``."""
        if (request.content_length or 0) > self._limit + FORM_AROUND:
            raise self._too_large()
        if sum(path.is_dir() for path in self.directory.iterdir()) >= self._at_once:
            raise HTTPProblem(
                503, "Busy", "as many files are under way as may be at a time", {"Retry-After": "5"}
            )
        try:
            directory = Path(tempfile.mkdtemp(dir=self.directory))
            try:
                return await self._read(request, directory / FILE)
            except BaseException:
                shutil.rmtree(directory, ignore_errors=True)
                raise
        except Exception as error:
            raise _worded(error) from None

    async def _read(self, request: web.Request, path: Path) -> Order:
        fields: dict[str, str] = {}
        received = None
        form = await request.multipart()
        for _ in range(MOST_PARTS):
            async with asyncio.timeout(SILENCE):
                part = await form.next()
            if part is None:
                break
            if not isinstance(part, BodyPartReader) or not part.name:
                raise HTTPProblem(400, "Malformed form", "each part of the form needs a name")
            if (
                hdrs.CONTENT_TRANSFER_ENCODING in part.headers
                or hdrs.CONTENT_ENCODING in part.headers
            ):
                raise HTTPProblem(
                    400,
                    "Malformed form",
                    "the parts of a form are sent as they are, without an encoding",
                )
            if part.name in fields or (part.name == FILE and received is not None):
                raise HTTPProblem(422, "Bad request", f"{part.name}: only one is taken")
            if part.name == FILE:
                received = await self._store(part, path)
            else:
                fields[part.name] = await _field(part)
        else:
            raise HTTPProblem(422, "Bad request", "the form has too many parts")
        body = SendMedia.model_validate(fields)
        if received is None:
            raise HTTPProblem(422, "Bad request", "file: Field required")
        return Order(body, received)

    async def _store(self, part: BodyPartReader, path: Path) -> File:
        size, digest = 0, hashlib.sha256()
        with path.open("xb") as stream:
            while chunk := await _chunk(part):
                size += len(chunk)
                if size > self._limit:
                    raise self._too_large()
                digest.update(chunk)
                await asyncio.to_thread(stream.write, chunk)
        if not size:
            raise HTTPProblem(422, "Bad request", "file: it is empty")
        return File(
            path,
            digest.hexdigest(),
            _file_name(part.filename),
            _mime_type(part.headers.get(hdrs.CONTENT_TYPE)),
        )

    def _too_large(self) -> HTTPProblem:
        return HTTPProblem(413, "File too large", f"a file may have {self._limit} bytes")


def _take_out_what_is_left() -> None:
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), (directory / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused as long as its process lives
            shutil.rmtree(directory)


async def _chunk(part: BodyPartReader) -> bytes:
    async with asyncio.timeout(SILENCE):
        return await part.read_chunk(CHUNK)


async def _field(part: BodyPartReader) -> str:
    value = b""
    while chunk := await _chunk(part):
        value += chunk
        if len(value) > LONGEST_FIELD:
            raise HTTPProblem(
                413, "Field too large", f"a field of the form may have {LONGEST_FIELD} bytes"
            )
    return value.decode()


def _worded(error: Exception) -> Exception:
    """What the caller is told when a form cannot be read."""
    match error:
        case ValidationError():
            return HTTPProblem(422, "Bad request", describe_error(error))
        case TimeoutError():
            return HTTPProblem(408, "Too slow", f"nothing came for {SILENCE:.0f} s")
        case (
            ValueError() | AssertionError() | HttpProcessingError()
        ):  # aiohttp's words for what is no form
            return HTTPProblem(
                400, "Malformed form", "the body is not a form as its Content-Type says"
            )
        case OSError() if not isinstance(error, ConnectionError):
            return HTTPProblem(
                507,
                "No space",
                f"the file cannot be stored: {error.strerror}",
                {"Retry-After": "10"},
            )
    return error


def _file_name(given: str | None) -> str | None:
    """The name without folders and control characters, at most 255 bytes."""
    name = PurePosixPath((given or "").replace("\\", "/")).name
    name = "".join(character for character in name if character.isprintable())
    return name.encode()[:255].decode(errors="ignore").strip() or None


def _mime_type(given: str | None) -> str | None:
    """The declared type; None when it says nothing, so that it is found out from the content."""
    kind = (given or "").partition(";")[0].strip().lower()
    main, _, sub = kind.partition("/")
    said = (
        main.isalnum()
        and main.isascii()
        and sub
        and sub.isascii()
        and sub.isprintable()
        and len(kind) <= 127
    )
    return kind if said and " " not in kind and kind != "application/octet-stream" else None
