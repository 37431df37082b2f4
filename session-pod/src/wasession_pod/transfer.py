"""One file to the store or from it, by a URL that the operator has signed.

The URL is a secret: whoever has it can do the same. So no error has it, or a part of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO

import aiohttp
from yarl import URL

from wasession_pod.delivery.sender import tls
from wasession_pod.delivery.webhook import describe

UPLOAD_TIMEOUT = 600.0  # seconds
DOWNLOAD_TIMEOUT = 1800.0  # seconds
SILENCE_TIMEOUT = 60.0  # seconds without a byte
RETRY_DELAY = 2.0  # seconds
CHUNK = 2**18  # bytes
# Azure requires it, S3 and Google Cloud Storage ignore it.
BLOB_TYPE = {"x-ms-blob-type": "BlockBlob"}


class TransferError(Exception):
    """The file was not transferred; the message is a sentence without the URL."""


class _Unavailable(TransferError):
    """It may work the next time."""


async def upload(url: str, file: IO[bytes], size: int) -> None:
    """Send ``size`` bytes of a file, twice at most. Raises ``TransferError``."""
    try:
        async with asyncio.timeout(UPLOAD_TIMEOUT), _client() as http:
            try:
                await _put(http, url, file, size)
            except _Unavailable:
                await asyncio.sleep(RETRY_DELAY)
                await _put(http, url, file, size)
    except TimeoutError:
        message = f"the upload did not end within {UPLOAD_TIMEOUT / 60:.0f} minutes"
        raise TransferError(message) from None


async def _put(http: aiohttp.ClientSession, url: str, file: IO[bytes], size: int) -> None:
    headers = {"Content-Length": str(size), **BLOB_TYPE}
    file.seek(0)
    with _described("upload"):
        async with http.put(
            URL(url, encoded=True),
            data=_chunks(file),
            headers=headers,
            skip_auto_headers=("Content-Type",),  # a signature may cover it
            allow_redirects=False,
        ) as response:
            _check(response.status, "upload")


async def _chunks(file: IO[bytes]) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, CHUNK):
        yield chunk


async def download(url: str, target: Path, size: int, sha256: str) -> None:
    """Fetch a file of a known size and checksum. Raises ``TransferError`` and ``OSError``."""
    digest, received = hashlib.sha256(), 0
    try:
        async with asyncio.timeout(DOWNLOAD_TIMEOUT), _client() as http:
            with _described("download"):
                silence = aiohttp.ClientTimeout(None, sock_read=SILENCE_TIMEOUT)
                async with http.get(
                    URL(url, encoded=True), allow_redirects=False, timeout=silence
                ) as response:
                    _check(response.status, "download")
                    with target.open("xb") as file:
                        async for chunk in response.content.iter_chunked(CHUNK):
                            received += len(chunk)
                            if received > size:
                                raise TransferError(
                                    f"the archive is larger than the {size} bytes of the backup"
                                )
                            digest.update(chunk)
                            await asyncio.to_thread(file.write, chunk)
    except TimeoutError:
        message = f"the download did not end within {DOWNLOAD_TIMEOUT / 60:.0f} minutes"
        raise TransferError(message) from None
    if received < size:
        raise TransferError(f"the archive has {received} bytes instead of {size}: it is torn")
    if digest.hexdigest() != sha256:
        raise TransferError("the archive does not match the checksum of the backup")


@contextlib.asynccontextmanager
async def _client() -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a client that trusts the system's authorities alone, and heeds no proxies."""
    connector = aiohttp.TCPConnector(ssl=await asyncio.to_thread(tls, None))
    timeout = aiohttp.ClientTimeout(None)  # callers have one of their own
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=timeout,
        auto_decompress=False,
    ) as http:
        yield http


@contextlib.contextmanager
def _described(what: str) -> Iterator[None]:
    try:
        yield
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError):
        raise TransferError(f"the {what} has no valid URL") from None
    except TimeoutError:
        raise _Unavailable(f"the {what} has failed: the store is silent") from None
    except (aiohttp.ClientError, ConnectionError) as error:
        raise _Unavailable(f"the {what} has failed: {describe(error)}") from None


def _check(status: int, what: str) -> None:
    """Raise ``TransferError`` for a status that is not one of success."""
    if 200 <= status < 300:
        return
    if status == 403:
        raise TransferError(f"the store forbids the {what} (HTTP 403): its URL may have expired")
    if status == 404:
        raise TransferError(f"the store does not know the {what} (HTTP 404)")
    kind = _Unavailable if status >= 500 else TransferError
    raise kind(f"the store refuses the {what} (HTTP {status})")
