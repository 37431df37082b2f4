"""A cluster that was built anew finds its backups in the store."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.fakes.store import FakeStore
from unit.operator.backups import KEY, MANIFEST, SOURCE, manifest_of
from wasession_api.kube.client import BACKUPS, Conflict, KubeClient, Rejected, Resource
from wasession_api.kube.manifests import Key, Manifest
from wasession_operator.backups import store_sync
from wasession_operator.backups.cache import BackupCache
from wasession_operator.backups.store_sync import StoreSync
from wasession_operator.sharding.shards import Shards


class Api:
    """An API server that has the namespace ns."""

    def __init__(self) -> None:
        self.objects: dict[Key, Manifest] = {}
        self.namespaces: dict[str, Manifest] = {"ns": {"metadata": {"name": "ns"}}}
        self.rejects = False

    async def get(
        self, resource: Resource, namespace: str | None, name: str, *, metadata: bool = False
    ) -> Manifest | None:
        if resource is BACKUPS:
            return self.objects.get((namespace or "", name))
        if self.rejects:
            raise Rejected("forbidden")
        return self.namespaces.get(name)

    async def create(self, resource: Resource, manifest: Manifest) -> Manifest:
        assert resource is BACKUPS
        key = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        if key in self.objects:
            raise Conflict("it exists")
        self.objects[key] = manifest_of(key[1], spec=manifest["spec"])
        return self.objects[key]


class Rig:
    def __init__(self) -> None:
        self.api, self.store = Api(), FakeStore()
        kube = cast(KubeClient, self.api)
        self.cache = BackupCache(kube, [], lambda _: None, lambda _: None)
        self.cache.informer._watches[None].version = "1"
        self.cache.informer._accept(None)
        self.led = {"ns"}
        self.namespaces: list[str] = []
        shards = SimpleNamespace(
            cache=SimpleNamespace(backups=self.cache),
            store=self.store,
            settings=SimpleNamespace(namespaces=self.namespaces),
            leader_client=lambda name: kube if name in self.led else None,
        )
        self.sync = StoreSync(cast(Shards, shards))

    def add(self, key: str = KEY, **changes: Any) -> None:
        self.store.archives[key] = 100
        self.store.manifests[key] = MANIFEST.model_copy(update=changes)

    async def created(self) -> dict[str, Manifest]:
        """Return the specs of the backups that there are after a comparison, by name."""
        await self.sync.sync(self.store)
        return {name: obj["spec"] for (_, name), obj in self.api.objects.items()}


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_what_the_cluster_does_not_know_is_created(rig: Rig) -> None:
    rig.add()
    spec = {"sessionName": "sales", "method": "Archive", "deletionPolicy": "Retain", "key": KEY}
    assert await rig.created() == {"nightly": spec}
    requests = len(rig.store.requests)
    assert await rig.created() == {"nightly": spec}
    assert rig.store.requests[requests:] == ["namespaces", "keys ns"], "nothing is read twice"


async def test_what_it_knows_is_not(rig: Rig) -> None:
    rig.add()
    rig.cache.informer.upsert(manifest_of(status={"phase": "Running", "key": KEY}))
    assert await rig.created() == {}


async def test_an_import_that_has_just_been_written_is_not_created_twice(rig: Rig) -> None:
    rig.add(backup_name="copy")
    spec = {"importFrom": {"namespace": "other", "name": "nightly"}}
    written = manifest_of("copy", spec=spec, status={"phase": "Running", "key": KEY})
    rig.api.objects["ns", "copy"] = written
    assert await rig.created() == {"copy": spec}, "its watch event is late"
    rig.cache.informer.upsert(written)
    assert await rig.created() == {"copy": spec}


async def test_a_backup_whose_watch_event_is_late_is_not_created_twice(rig: Rig) -> None:
    rig.add()
    rig.api.objects["ns", "nightly"] = manifest_of(status={"phase": "Completed", "key": KEY})
    assert list(await rig.created()) == ["nightly"]


async def test_a_name_that_is_taken(rig: Rig) -> None:
    rig.add()
    rig.api.objects["ns", "nightly"] = manifest_of()
    assert list(await rig.created()) == ["nightly", f"nightly-{MANIFEST.backup_uid[:8]}"]
    rig.add("ns/sales/another.tar.age")
    assert len(await rig.created()) == 2, "both are taken; the others are not held up"
    assert len(await rig.created()) == 2


@pytest.mark.parametrize("name", ["Not A Name", ""])
async def test_an_invalid_manifest_is_left_alone(
    rig: Rig, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    rig.add(source=SOURCE.model_copy(update={"session_name": name}))
    rig.store.archives["ns/sales/b.tar.age"] = 1
    rig.store.manifests["ns/sales/b.tar.age"] = None
    rig.add("ns/sales/c.tar.age", backup_name="fine")
    assert list(await rig.created()) == ["fine"]
    await rig.created()
    ours = [record for record in caplog.records if record.name == store_sync.log.name]
    reports = [record for record in ours if record.levelno >= logging.WARNING]
    assert len(reports) == 2, "each is reported once"


async def test_a_manifest_without_its_archive_is_none(rig: Rig) -> None:
    rig.add()
    del rig.store.archives[KEY]
    assert await rig.created() == {}
    rig.store.archives[KEY] = 100
    assert list(await rig.created()) == ["nightly"]


async def test_only_namespaces_that_are_served_and_led(rig: Rig) -> None:
    rig.add()
    rig.led.clear()
    assert await rig.created() == {}
    rig.led.add("ns")
    rig.api.namespaces["ns"]["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    assert await rig.created() == {}
    del rig.api.namespaces["ns"]
    assert await rig.created() == {}, "it is another cluster's"
    rig.api.rejects = True
    assert await rig.created() == {}
    rig.namespaces.append("ns")
    assert list(await rig.created()) == ["nightly"], "it is known by its name"


async def test_a_store_that_is_away_is_asked_again(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.add()
    rig.store.down = True
    assert await rig.created() == {}
    assert "comparing the store of backups with the cluster failed" in caplog.text
    rig.store.down = False
    assert list(await rig.created()) == ["nightly"]
