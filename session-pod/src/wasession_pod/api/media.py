"""Stream the file of a message, or a part of it, without holding it in memory."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from typing import NamedTuple

from aiohttp import hdrs, web
from wasession_api.http.problem import HTTPProblem

from wasession_pod.api.operations import BINARY_TYPE, SAFE_TYPES
from wasession_pod.browser.bridge import (
    Bridge,
    MediaBusy,
    MediaGone,
    MediaTooLarge,
    OpenMedia,
)
from wasession_pod.browser.errors import BrowserError

CHUNK = 512 * 2**10  # bytes
WRITE_TIMEOUT = 30.0  # seconds that a client may leave a chunk unread
SAFE_HEADERS = {
    "Accept-Ranges": "bytes",
    "Cache-Control": "private, no-store",
    "Content-Disposition": "attachment",
    "Content-Security-Policy": "sandbox",
    "X-Content-Type-Options": "nosniff",
}
RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))")


class Part(NamedTuple):
    """The bytes from ``start`` up to, but without, ``end``."""

    start: int
    end: int


class NotSatisfiable(ValueError):
    """No byte of the file is in the range."""


def parse_range(header: str, size: int) -> Part | None:
    """Return the part that a Range header asks for; None if it is not to be heeded.

    That is one which is not valid, or has several ranges (RFC 9110, 14.2). Raises
    ``NotSatisfiable``.
    """
    match = RANGE.fullmatch(header.replace(" ", ""))
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        start, end = max(size - int(suffix), 0), size
        if not int(suffix):
            raise NotSatisfiable
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= size:
        raise NotSatisfiable
    return Part(start, end)


def content_type(declared: str | None) -> str:
    """Return the declared type if it is harmless."""
    kind = (declared or "").partition(";")[0].strip().lower()
    return kind if kind in SAFE_TYPES else BINARY_TYPE


def etag_of(message_id: str, media: OpenMedia) -> str:
    """Return the file's entity tag: the file of a message never changes."""
    content = f"{message_id} {media.size}"
    return f'"{hashlib.blake2b(content.encode(), digest_size=12).hexdigest()}"'


async def respond(request: web.Request, page: Bridge, message_id: str) -> web.StreamResponse:
    """Respond with a message's file; raise ``HTTPProblem`` and ``BrowserError``."""
    try:
        media = await page.open_media(message_id)
    except MediaGone:
        detail = "WhatsApp no longer has the file; the phone may still have it"
        raise HTTPProblem(410, "File gone", detail) from None
    except MediaTooLarge as error:
        raise HTTPProblem(413, "File too large", str(error)) from None
    except MediaBusy as error:
        raise HTTPProblem(503, "Busy", str(error), {"Retry-After": "5"}) from None
    if media is None:
        detail = "WhatsApp Web has no message with this ID, or it has no file"
        raise HTTPProblem(404, "File not found", detail)
    try:
        return await _respond(request, page, message_id, media)
    finally:
        with contextlib.suppress(BrowserError):
            await page.close_media(media.handle)


async def _respond(
    request: web.Request, page: Bridge, message_id: str, media: OpenMedia
) -> web.StreamResponse:
    etag = etag_of(message_id, media)
    headers = SAFE_HEADERS | {"ETag": etag}
    if _matches(request.headers.get(hdrs.IF_NONE_MATCH, ""), etag):
        return web.Response(status=304, headers=headers)
    part = None
    if request.headers.get(hdrs.IF_RANGE, etag) == etag:
        try:
            part = parse_range(request.headers.get(hdrs.RANGE, ""), media.size)
        except NotSatisfiable:
            detail = f"the file has {media.size} bytes"
            unsatisfied = {"Content-Range": f"bytes */{media.size}"}
            raise HTTPProblem(416, "Range not satisfiable", detail, unsatisfied) from None
    response = web.StreamResponse(status=200 if part is None else 206, headers=headers)
    if part is not None:
        response.headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{media.size}"
    else:
        part = Part(0, media.size)
    response.content_type = content_type(media.mime_type)
    response.content_length = part.end - part.start
    # The first chunk comes before the head: until then, what fails has a status of its own.
    chunk = await _read(page, media, part.start, part.end)
    await response.prepare(request)
    try:
        await _stream(response, page, media, part, chunk)
    except (BrowserError, ConnectionError, TimeoutError):
        if request.transport is not None:
            request.transport.abort()  # so that the client cannot take it for the whole
    return response


async def _stream(
    response: web.StreamResponse, page: Bridge, media: OpenMedia, part: Part, chunk: bytes
) -> None:
    position = part.start
    while True:
        async with asyncio.timeout(WRITE_TIMEOUT):
            await response.write(chunk)
        position += len(chunk)
        if position >= part.end:
            return
        chunk = await _read(page, media, position, part.end)


async def _read(page: Bridge, media: OpenMedia, start: int, end: int) -> bytes:
    if start == end:
        return b""
    chunk = await page.read_media(media.handle, start, min(CHUNK, end - start))
    if not chunk:
        raise BrowserError("the page has no more of the file")
    return chunk


def _matches(if_none_match: str, etag: str) -> bool:
    given = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return etag in given or "*" in given
