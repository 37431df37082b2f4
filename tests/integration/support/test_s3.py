"""The S3 server of the tests does what S3 does, as far as tests rely on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import obstore
import pytest
from obstore.exceptions import BaseError, PermissionDeniedError
from obstore.store import S3Store
from support.s3 import S3Server

KEY = "team-a/sales/20260105T030000Z-1a2b3c4d.tar.age"
CONTENT = b"an archive, as far as a store can tell"
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[S3Server]:
    server = S3Server(tmp_path)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    await server.start()
    yield server
    server.kill()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as http:
        yield http


def open_store(server: S3Server, **options: Any) -> S3Store:
    return S3Store.from_url(
        f"{server.url}/installation", retry_config={"max_retries": 0}, **options
    )


async def keys(store: S3Store, prefix: str) -> list[str]:
    return [str(one["path"]) for one in await obstore.list(store, prefix).collect_async()]


async def test_objects_are_put_read_listed_and_deleted(s3: S3Server) -> None:
    store = open_store(s3)
    await obstore.put_async(store, KEY, CONTENT)
    await obstore.put_async(store, f"{KEY}.json", b"{}")
    await obstore.put_async(store, "team-b/sales/1.tar.age", b"another team's")
    assert (await obstore.head_async(store, KEY))["size"] == len(CONTENT)
    assert bytes(await (await obstore.get_async(store, KEY)).bytes_async()) == CONTENT
    assert await keys(store, "team-a") == [KEY, f"{KEY}.json"]
    await obstore.delete_async(store, KEY)
    with pytest.raises(FileNotFoundError):
        await obstore.head_async(store, KEY)
    assert await keys(store, "team-a") == [f"{KEY}.json"]


async def test_an_object_is_a_file(s3: S3Server) -> None:
    store, file = open_store(s3), s3.bucket / "installation" / KEY
    await obstore.put_async(store, KEY, CONTENT)
    assert file.read_bytes() == CONTENT
    for changed in (CONTENT[:7], b"in place of the archive: " + CONTENT):
        file.write_bytes(changed)
        assert (await obstore.head_async(store, KEY))["size"] == len(changed)
        assert bytes(await (await obstore.get_async(store, KEY)).bytes_async()) == changed
    file.unlink()
    with pytest.raises(FileNotFoundError):
        await obstore.head_async(store, KEY)


async def test_a_signed_url_needs_no_credentials(s3: S3Server, http: aiohttp.ClientSession) -> None:
    store = open_store(s3)
    upload = await obstore.sign_async(store, "PUT", KEY, MINUTE)
    async with http.put(upload, data=CONTENT) as response:
        assert response.request_info.headers["Content-Length"] == str(len(CONTENT))
        assert response.status == 200
    assert (await obstore.head_async(store, KEY))["size"] == len(CONTENT)
    async with http.get(await obstore.sign_async(store, "GET", KEY, MINUTE)) as response:
        assert response.status == 200
        assert await response.read() == CONTENT


async def test_a_signature_is_for_one_object_one_method_and_one_time(
    s3: S3Server, http: aiohttp.ClientSession
) -> None:
    store = open_store(s3)
    await obstore.put_async(store, KEY, CONTENT)
    url = await obstore.sign_async(store, "PUT", KEY, MINUTE)
    unsigned = url.partition("?")[0]
    stranger = open_store(s3, secret_access_key="somebody-else's")
    for wrong in (
        unsigned,
        url.replace(KEY, f"{KEY}.json"),
        url.replace("X-Amz-Expires=60", "X-Amz-Expires=600"),
        await obstore.sign_async(store, "GET", KEY, MINUTE),
        await obstore.sign_async(stranger, "PUT", KEY, MINUTE),
        await obstore.sign_async(open_store(s3, access_key_id="stranger"), "PUT", KEY, MINUTE),
    ):
        assert wrong != url
        async with http.put(wrong, data=b"not the archive") as response:
            assert response.status == 403, wrong
    with pytest.raises(PermissionDeniedError):
        await obstore.put_async(stranger, KEY, b"not the archive")
    assert await keys(store, "") == [KEY]
    assert (s3.bucket / "installation" / KEY).read_bytes() == CONTENT


async def test_a_signature_expires(s3: S3Server, http: aiohttp.ClientSession) -> None:
    store = open_store(s3)
    await obstore.put_async(store, KEY, CONTENT)
    url = await obstore.sign_async(store, "GET", KEY, timedelta(seconds=1))
    async with asyncio.timeout(20):
        while True:
            async with http.get(url) as response:
                if response.status != 200:
                    break
            await asyncio.sleep(0.1)
    assert response.status == 403
    async with http.get(url) as response:
        assert "expired" in await response.text()


async def test_a_torn_upload_leaves_what_was_there(s3: S3Server) -> None:
    store = open_store(s3)
    await obstore.put_async(store, KEY, CONTENT)
    for key in (KEY, "team-a/new.tar.age"):
        url = urlsplit(await obstore.sign_async(store, "PUT", key, MINUTE))
        reader, writer = await asyncio.open_connection("127.0.0.1", s3.port)
        request = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\n"
        writer.write(f"{request}Content-Length: 1000\r\n\r\nhalf of it".encode())
        writer.write_eof()
        answer = await reader.read()
        assert b" 200 " not in answer.partition(b"\r\n")[0]
        writer.close()
    assert await keys(store, "") == [KEY]
    assert bytes(await (await obstore.get_async(store, KEY)).bytes_async()) == CONTENT


async def test_objects_outlive_the_server(s3: S3Server) -> None:
    store = open_store(s3)
    await obstore.put_async(store, KEY, CONTENT)
    for end in (s3.stop, s3.kill):
        end()
        with pytest.raises(BaseError):
            await obstore.head_async(store, KEY)
        await s3.start()
        assert (await obstore.head_async(store, KEY))["size"] == len(CONTENT)


async def test_a_frozen_server_answers_once_it_goes_on(s3: S3Server) -> None:
    store = open_store(s3)
    await obstore.put_async(store, KEY, CONTENT)
    s3.freeze()
    answer = asyncio.ensure_future(obstore.head_async(store, KEY))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(answer), 0.3)
    s3.resume()
    assert (await answer)["size"] == len(CONTENT)
