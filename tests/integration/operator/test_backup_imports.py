"""Backups that one namespace exports and another one imports, with a real store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from integration.operator.test_backups import (
    Store,
    delete,
    ready,
    store,
    until_gone,
    use,
    writes_of,
)
from support.fakes.proxy import Call
from support.fakes.world import Environment, World
from wasession_api.v1alpha1 import BACKUP_PLURAL

__all__ = ["store"]  # the fixture
BACKUP = "before"
SAME = ("size", "sha256", "takenAt", "source")


class Pair:
    """Two namespaces with one operator; ``sales`` has a running session with a backup."""

    def __init__(self, sales: World, support: World) -> None:
        self.sales, self.support = sales, support

    async def start(self, **settings: str) -> None:
        served = f"{self.sales.namespace},{self.support.namespace}"
        await self.sales.start_operator(**{"namespaces": served, **settings})


@pytest.fixture
async def pair(world: World, environment: Environment, store: Store) -> AsyncIterator[Pair]:
    support = World(environment)
    await support.open()
    use(world, store)
    pair = Pair(world, support)
    await pair.start(backup_sync_interval="1s")
    await ready(world)
    await world.back_up(BACKUP)
    await world.until_backup(BACKUP)
    yield pair
    assert await support.close() == []


async def test_an_import_from_its_creation_to_its_deletion(pair: Pair, store: Store) -> None:
    sales, support = pair.sales, pair.support
    original = await sales.until_backup(BACKUP)
    created = await support.import_backup(BACKUP, sales, deletionPolicy="Delete")
    status = await support.until_backup(BACKUP, "Pending", "NotExported")
    assert f"export {BACKUP} --to {support.namespace}" in status["message"]
    assert store.keys(support.namespace) == set()
    await sales.export_backup(BACKUP, support.namespace)
    status = await support.until_backup(BACKUP)
    assert [status[field] for field in SAME] == [original[field] for field in SAME]
    key = status["key"]
    assert key.startswith(f"{support.namespace}/sales/")
    assert store.path(key).read_bytes() == store.path(original["key"]).read_bytes()
    manifest = json.loads(store.path(f"{key}.json").read_text())
    assert manifest["backupUID"] == created["metadata"]["uid"]
    assert manifest["source"] == original["source"]
    log = sales.operator.log.read_text() if sales.operator else ""
    assert f"archive of namespace {sales.namespace} copied for backup {BACKUP}" in log

    manifest |= {"backupName": "found", "backupUID": "0b5f2a10-0000-4000-8000-000000000001"}
    store.put(f"{support.namespace}/sales/found.tar.age", store.path(key).read_bytes(), manifest)
    await support.until_backup("found")
    names = {backup["metadata"]["name"] for backup in support.backups}
    assert names == {BACKUP, "found"}, "the store has been compared, and nothing appears twice"

    await sales.export_backup(BACKUP)
    await delete(support, "found")
    await support.import_backup("another", sales)
    await support.until_backup("another", "Pending", "NotExported")
    assert (await support.until_backup(BACKUP)) == status, "what was imported stays"
    await delete(support, BACKUP)
    await until_gone(support, BACKUP)
    assert not store.path(key).exists()
    assert store.path(original["key"]).exists()


async def test_what_was_imported_outlives_its_source_and_can_be_exported(
    pair: Pair, environment: Environment, store: Store
) -> None:
    sales, support = pair.sales, pair.support
    third = World(environment)
    await third.open()
    try:
        await sales.stop_operator()
        served = f"{sales.namespace},{support.namespace},{third.namespace}"
        await pair.start(namespaces=served)
        await sales.export_backup(BACKUP, support.namespace)
        await support.import_backup(BACKUP, sales)
        original = await support.until_backup(BACKUP)
        await delete(sales, BACKUP)
        await until_gone(sales, BACKUP)
        await support.export_backup(BACKUP, third.namespace)
        await third.import_backup(BACKUP, support)
        status = await third.until_backup(BACKUP)
        assert status["source"] == original["source"]
        assert status["key"].startswith(f"{third.namespace}/sales/")
    finally:
        assert await third.close() == []


async def test_an_import_waits_for_its_source(pair: Pair) -> None:
    sales, support = pair.sales, pair.support
    program = sales.program("sales")
    program.may_upload.clear()
    await support.import_backup("later", sales)
    await support.until_backup("later", "Pending", "NotExported")
    await sales.back_up("later", exportTo=[support.namespace])
    await support.until_backup("later", "Pending", "SourceNotCompleted")
    program.may_upload.set()
    await support.until_backup("later")


async def test_what_cannot_be_imported_fails(pair: Pair, store: Store) -> None:
    sales, support = pair.sales, pair.support
    to = [support.namespace]
    await sales.change_class(backupPolicy={"recipients": []})
    await sales.back_up("failed", exportTo=to)
    await sales.until_backup("failed", "Failed", "RecipientsMissing")
    await support.import_backup("failed", sales)
    await support.until_backup("failed", "Failed", "SourceNotCompleted")

    key = (await sales.until_backup(BACKUP))["key"]
    whole = store.path(key).read_bytes()
    store.path(key).write_bytes(whole[:-1])
    await sales.export_backup(BACKUP, *to)
    await support.import_backup(BACKUP, sales)
    status = await support.until_backup(BACKUP, "Failed", "ArchiveInvalid")
    assert f"has {len(whole) - 1} bytes; it had {len(whole)} bytes" in status["message"]
    assert store.keys(support.namespace) == set(), "no half of it stays"

    store.path(key).unlink()
    await delete(support, BACKUP)
    await until_gone(support, BACKUP)
    await support.import_backup(BACKUP, sales)
    await support.until_backup(BACKUP, "Failed", "ArchiveMissing")
    assert store.keys(support.namespace) == set()


async def test_a_namespace_that_the_operator_does_not_serve(pair: Pair) -> None:
    sales, support = pair.sales, pair.support
    await sales.export_backup(BACKUP, support.namespace)
    await sales.stop_operator()
    await pair.start(namespaces=support.namespace)
    await support.import_backup(BACKUP, sales)
    status = await support.until_backup(BACKUP, "Failed", "SourceNotServed")
    assert status["message"] == f"The operator does not serve the namespace {sales.namespace}."


async def test_without_a_store(pair: Pair) -> None:
    sales, support = pair.sales, pair.support
    await sales.export_backup(BACKUP, support.namespace)
    await sales.stop_operator()
    del sales.settings["backup_store"]
    await pair.start()
    await support.import_backup(BACKUP, sales)
    await support.until_backup(BACKUP, "Failed", "StoreNotConfigured")


async def test_an_import_that_is_killed_before_its_manifest_is_not_there_yet(
    pair: Pair, store: Store
) -> None:
    """The copy is whole, but nobody can know that without the manifest."""
    sales, support = pair.sales, pair.support
    created = await support.import_backup(BACKUP, sales)
    await support.until_backup(BACKUP, "Pending", "NotExported")
    at = (await sales.until_backup(BACKUP))["takenAt"].replace("-", "").replace(":", "")
    key = f"{support.namespace}/sales/{at}-{created['metadata']['uid'][:8]}.tar.age"
    blocked = store.path(f"{key}.json")
    blocked.mkdir(parents=True)  # so that the manifest cannot be written
    await sales.export_backup(BACKUP, support.namespace)
    await support.until_backup(BACKUP, "Running", "StoreUnavailable")
    await support.until(lambda: store.path(key).exists(), "the copy")
    await sales.kill_operator()
    blocked.rmdir()
    await sales.export_backup(BACKUP)
    await support.back_up("thief", key=key)
    await pair.start(backup_sync_interval="1s")
    await support.until_backup("thief", "Failed", "ArchiveInvalid")
    await support.until_backup(BACKUP, "Pending", "NotExported")
    assert store.keys(support.namespace) == {key}, "without the export, it does not go on"
    await sales.export_backup(BACKUP, support.namespace)
    status = await support.until_backup(BACKUP)
    assert (status["key"], status["attempts"]) == (key, 1)
    assert store.keys(support.namespace) == {key, f"{key}.json"}


@pytest.mark.parametrize("number", [1, 2])
async def test_killed_after_any_write(pair: Pair, store: Store, number: int) -> None:
    """SIGKILL hits the operator before it receives the response."""
    sales, support = pair.sales, pair.support
    await support.import_backup(BACKUP, sales)
    await support.until_backup(BACKUP, "Pending", "NotExported")
    await until_answered(sales)
    count, killed = 0, asyncio.Event()

    def written(call: Call) -> None:
        nonlocal count
        if call.resource.startswith(BACKUP_PLURAL) and call.namespace == support.namespace:
            count += 1
            if count == number and sales.operator is not None:
                sales.operator.kill()
                killed.set()

    sales.proxy.written = written
    await sales.export_backup(BACKUP, support.namespace)
    await killed.wait()
    assert sales.operator is not None
    await sales.operator.ended()
    phase = (await support.api.get(BACKUP_PLURAL, support.namespace, BACKUP))["status"]["phase"]
    assert phase == ("Running" if number == 1 else "Completed")
    await pair.start(backup_sync_interval="1s")
    status = await support.until_backup(BACKUP)
    assert store.keys(support.namespace) == {status["key"], f"{status['key']}.json"}
    await until_answered(sales)
    assert count == 2, "what is to happen is written, and what has happened"


async def until_answered(world: World) -> None:
    """Wait until the operator's writes to backups have been answered, and so are counted."""
    await world.proxy.until(lambda: all(call.status for call in writes_of(world)))


@pytest.mark.parametrize("fenced", [False, True])
async def test_a_login_of_another_cluster_needs_a_word_here_too(
    pair: Pair, store: Store, fenced: bool
) -> None:
    """The import was made in this cluster; the session of its login was not."""
    sales, support = pair.sales, pair.support
    key = (await sales.until_backup(BACKUP))["key"]
    manifest = json.loads(store.path(f"{key}.json").read_text())
    manifest["source"] |= {"cluster": "another", "loginID": "of-another-cluster"}
    manifest |= {"backupName": "moved", "backupUID": "0b5f2a10-0000-4000-8000-000000000001"}
    store.put(f"{sales.namespace}/sales/moved.tar.age", store.path(key).read_bytes(), manifest)
    await sales.until_backup("moved")
    await sales.export_backup("moved", support.namespace)
    await support.import_backup("moved", sales)
    await support.until_backup("moved")
    bootstrap = {"fromBackup": {"name": "moved"}, "fenced": fenced}
    await support.create("copy", className=sales.class_name, bootstrap=bootstrap)
    if fenced:
        await support.until_phase("copy")
    else:
        await support.until_reason("copy", "Ready", "BackupSourceNotFenced")
