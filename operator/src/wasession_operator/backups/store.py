"""The store of archives: S3, GCS or Azure, by obstore.

Only the operator has credentials of it: session pods get signed URLs. Where the credentials and the
endpoint come from is said in https://developmentseed.org/obstore/latest/authentication/.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from pydantic import ValidationError
from wasession_api.session_pod.backup import ArchiveManifest

from wasession_operator.backups.backup import Archive

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, RetryConfig, S3Store

TIMEOUT = 20.0  # seconds for one request, with its retries
PUT_VALID = timedelta(hours=1)
GET_VALID = timedelta(hours=12)
MANIFEST_SUFFIX = ".json"
MANIFEST_MAXIMUM = 64 * 2**10  # bytes
RETRIES = 2
# What obstore's errors say, and what to tell: they may hold more than people should see.
HINTS = {
    "NoSuchBucket": "its bucket does not exist",
    "InvalidAccessKeyId": "it does not know the operator's credentials",
    "SignatureDoesNotMatch": "it does not accept the operator's credentials",
    "AccessDenied": "it does not let the operator in",
    "dns error": "its name cannot be resolved",
    "Connection refused": "it refuses connections",
    "BadScheme": "plain HTTP is not allowed, such as by AWS_ALLOW_HTTP=true",
}


class StoreError(Exception):
    """The store did not do what it was asked to; the message is fit for a status."""


class InvalidStore(ValueError):
    """There is no such store."""


class Store(Protocol):
    """Keys are relative to the store's prefix. Every method raises ``StoreError``."""

    async def sign_put(self, key: str) -> str:
        """Return a URL for one upload of an archive; it is valid for an hour."""

    async def sign_get(self, key: str) -> str:
        """Return a URL to download an archive; it is valid for twelve hours."""

    async def look(self, key: str) -> Archive:
        """Return what there is of an archive."""

    async def write_manifest(self, key: str, manifest: ArchiveManifest) -> None:
        """Write the manifest of an archive: the archive is complete."""

    async def copy(self, source: str, target: str) -> bool:
        """Copy an archive, without its manifest; return False if there is none."""

    async def delete(self, key: str) -> None:
        """Delete the manifest of an archive, then the archive, whatever there is of them."""

    async def namespaces(self) -> list[str]:
        """Return the namespaces that have archives."""

    async def keys(self, namespace: str) -> list[str]:
        """Return the keys of the archives of a namespace that have a manifest."""


def open_store(url: str | None) -> Store | None:
    """Return the store at a URL such as s3://bucket/prefix; None without one.

    Raise ``InvalidStore`` for anything else, and for settings without which it cannot be used.
    """
    return None if url is None else _ObjectStore(url)


class _ObjectStore:
    def __init__(self, url: str) -> None:
        import obstore
        from obstore.store import AzureStore, GCSStore, S3Store, from_url

        retry: RetryConfig = {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=TIMEOUT)}
        try:
            store = from_url(url, retry_config=retry)
        except (obstore.exceptions.BaseError, ValueError) as error:
            raise InvalidStore(_first_line(error)) from None
        if not isinstance(store, AzureStore | GCSStore | S3Store):
            raise InvalidStore("must be a URL such as s3://bucket/prefix, gs:// or az://")
        self._store: AzureStore | GCSStore | S3Store = store
        self._obstore = obstore

    async def sign_put(self, key: str) -> str:
        with self._errors():
            async with asyncio.timeout(TIMEOUT):
                return await self._obstore.sign_async(self._store, "PUT", key, PUT_VALID)

    async def sign_get(self, key: str) -> str:
        with self._errors():
            async with asyncio.timeout(TIMEOUT):
                return await self._obstore.sign_async(self._store, "GET", key, GET_VALID)

    async def look(self, key: str) -> Archive:
        payload = await self._read_manifest(key)
        size = await self._size(key)
        if payload is None:
            return Archive(size)
        with contextlib.suppress(ValidationError):
            return Archive(size, ArchiveManifest.model_validate_json(payload), has_manifest=True)
        return Archive(size, has_manifest=True)

    async def _size(self, key: str) -> int | None:
        with self._errors(), contextlib.suppress(FileNotFoundError):
            async with asyncio.timeout(TIMEOUT):
                return (await self._obstore.head_async(self._store, key))["size"]
        return None

    async def _read_manifest(self, key: str) -> bytes | None:
        """Return the manifest; empty if it is too large to be one."""
        with self._errors(), contextlib.suppress(FileNotFoundError):
            async with asyncio.timeout(TIMEOUT):
                found = await self._obstore.get_async(self._store, f"{key}{MANIFEST_SUFFIX}")
                if found.meta["size"] > MANIFEST_MAXIMUM:
                    return b""
                return bytes(await found.bytes_async())
        return None

    async def write_manifest(self, key: str, manifest: ArchiveManifest) -> None:
        with self._errors():
            async with asyncio.timeout(TIMEOUT):
                await self._obstore.put_async(
                    self._store, f"{key}{MANIFEST_SUFFIX}", manifest.encoded(), use_multipart=False
                )

    async def copy(self, source: str, target: str) -> bool:
        with self._errors():
            try:
                async with asyncio.timeout(TIMEOUT):
                    await self._obstore.copy_async(self._store, source, target)
            except FileNotFoundError:
                return False
        return True

    async def delete(self, key: str) -> None:
        for path in (f"{key}{MANIFEST_SUFFIX}", key):  # never a manifest without its archive
            with self._errors(), contextlib.suppress(FileNotFoundError):
                async with asyncio.timeout(TIMEOUT):
                    await self._obstore.delete_async(self._store, path)

    async def namespaces(self) -> list[str]:
        with self._errors():
            async with asyncio.timeout(TIMEOUT):
                found = await self._obstore.list_with_delimiter_async(self._store)
        return [prefix.rstrip("/").rpartition("/")[2] for prefix in found["common_prefixes"]]

    async def keys(self, namespace: str) -> list[str]:
        keys: list[str] = []
        pages = self._obstore.list(self._store, prefix=f"{namespace}/")
        with self._errors():
            while True:
                async with asyncio.timeout(TIMEOUT):
                    page = await anext(pages, None)
                if page is None:
                    break
                keys += [
                    entry["path"].removesuffix(MANIFEST_SUFFIX)
                    for entry in page
                    if entry["path"].endswith(MANIFEST_SUFFIX)
                ]
        return keys

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        exceptions = self._obstore.exceptions
        try:
            yield
        except TimeoutError:
            raise StoreError("The store did not answer in time.") from None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError):
            raise StoreError("The store does not let the operator in.") from None
        except FileNotFoundError:
            raise
        except (exceptions.BaseError, ValueError, OSError) as error:
            text = str(error)
            hint = next((said for part, said in HINTS.items() if part in text), None)
            problem = f"The store cannot be used: {hint or 'it cannot be reached, or has failed'}."
            raise StoreError(problem) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
