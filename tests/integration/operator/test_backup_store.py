"""The store of archives, with a real S3 server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from support.s3 import S3Server
from unit.operator.backups import KEY, MANIFEST
from wasession_operator.backups import store as store_module
from wasession_operator.backups.backup import Archive
from wasession_operator.backups.store import (
    MANIFEST_MAXIMUM,
    InvalidStore,
    Store,
    StoreError,
    open_store,
)

ARCHIVE = b"x" * MANIFEST.size


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    await server.start()
    yield server
    server.kill()


@pytest.fixture
def store(
    server: S3Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Store:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    opened = open_store(f"{server.url}/prefix/{request.node.name[:40]}")
    assert opened is not None
    return opened


async def upload(store: Store, key: str = KEY, payload: bytes = ARCHIVE) -> None:
    url = await store.sign_put(key)
    async with aiohttp.ClientSession() as http, http.put(url, data=payload) as response:
        response.raise_for_status()


async def test_a_signed_url_is_all_that_a_pod_needs(store: Store) -> None:
    await upload(store)
    assert await store.look(KEY) == Archive(MANIFEST.size)
    async with aiohttp.ClientSession() as http:
        async with http.get(await store.sign_get(KEY)) as response:
            assert await response.read() == ARCHIVE
        async with http.get(await store.sign_put(KEY)) as response:
            assert response.status == 403, "a URL is for one method"


async def test_an_archive_from_its_upload_to_its_end(store: Store) -> None:
    assert await store.look(KEY) == Archive()
    assert await store.namespaces() == []
    await upload(store)
    assert await store.keys("ns") == [], "it is not complete"
    await store.write_manifest(KEY, MANIFEST)
    await store.write_manifest(KEY, MANIFEST)
    assert await store.look(KEY) == Archive(MANIFEST.size, MANIFEST, has_manifest=True)
    await store.write_manifest("ns-b/sales/a.tar.age", MANIFEST)
    assert await store.keys("ns") == [KEY]
    assert sorted(await store.namespaces()) == ["ns", "ns-b"]
    await store.delete(KEY)
    await store.delete(KEY)
    assert await store.look(KEY) == Archive()
    assert await store.keys("ns") == []


async def test_a_copy_is_made_inside_the_store(store: Store) -> None:
    copy = "ns-b/sales/copy.tar.age"
    assert not await store.copy(KEY, copy), "there is nothing to copy"
    assert await store.look(copy) == Archive()
    await upload(store)
    await store.write_manifest(KEY, MANIFEST)
    for _ in range(2):
        assert await store.copy(KEY, copy)
    assert await store.look(copy) == Archive(MANIFEST.size), "its manifest comes last"
    assert await store.keys("ns-b") == []
    await store.delete(KEY)
    async with aiohttp.ClientSession() as http, http.get(await store.sign_get(copy)) as response:
        assert await response.read() == ARCHIVE


async def test_many_archives_are_all_listed(server: S3Server, store: Store) -> None:
    await store.write_manifest("ns/sales/0000.tar.age", MANIFEST)
    [first] = server.bucket.rglob("0000.tar.age.json")
    for number in range(1, 1100):  # a page has 1000
        first.with_name(f"{number:04}.tar.age.json").touch()
    keys = [f"ns/sales/{number:04}.tar.age" for number in range(1100)]
    assert sorted(await store.keys("ns")) == keys


@pytest.mark.parametrize("payload", [b"", b"{}", b"\xff", b" " * (MANIFEST_MAXIMUM + 1)])
async def test_a_manifest_may_be_anything(store: Store, payload: bytes) -> None:
    await upload(store)
    await upload(store, f"{KEY}.json", payload)
    assert await store.look(KEY) == Archive(MANIFEST.size, None, has_manifest=True)


async def every_request(store: Store) -> None:
    """Make each request to the store, and expect that it fails with a sentence."""
    for request in (
        store.look(KEY),
        store.write_manifest(KEY, MANIFEST),
        store.copy(KEY, "ns-b/sales/copy.tar.age"),
        store.delete(KEY),
        store.namespaces(),
        store.keys("ns"),
    ):
        with pytest.raises(StoreError, match=r"^The store [^\n]*\.$") as error:
            await request
        assert "http" not in str(error.value)
        assert error.value.__cause__ is None


async def test_every_failure_is_a_sentence_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = S3Server(tmp_path)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(store_module, "RETRIES", 0)
    away = open_store(server.url)
    assert away is not None
    await every_request(away)
    await server.start()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    stranger = open_store(server.url)
    assert stranger is not None
    await every_request(stranger)
    server.kill()


async def test_a_store_that_does_not_answer_blocks_nobody_for_ever(
    server: S3Server, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "TIMEOUT", 0.2)
    server.freeze()
    try:
        await every_request(store)
    finally:
        server.resume()


@pytest.mark.parametrize("url", ["file:///tmp/a", "memory:///", "s4://a", "http://a/b", "s3:"])
def test_what_is_no_store(url: str) -> None:
    with pytest.raises(InvalidStore):
        open_store(url)


def test_without_a_url_there_is_none() -> None:
    assert open_store(None) is None
