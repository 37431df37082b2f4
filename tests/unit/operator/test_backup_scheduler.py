"""Scheduled backups are created once, for sessions of this replica that can be backed up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest
from unit.operator.backups import completed, manifest_of
from wasession_api.kube.client import BACKUPS, Conflict, KubeClient, Resource, Unavailable
from wasession_api.kube.manifests import Manifest
from wasession_operator.backups import scheduler as scheduler_module
from wasession_operator.backups.scheduler import Scheduler
from wasession_operator.cluster_cache import ClusterCache
from wasession_operator.sharding.shards import Shards

THREE = datetime(2026, 1, 5, 3, 0, tzinfo=UTC)
DAILY = {"schedule": "0 3 * * *"}
DAY = timedelta(days=1)


class Api:
    def __init__(self) -> None:
        self.created: list[str] = []
        self.deleted: list[str] = []
        self.error: Exception | None = None

    async def create(self, resource: Resource, manifest: Manifest) -> Manifest:
        assert resource is BACKUPS
        if self.error is not None:
            raise self.error
        name = manifest["metadata"]["name"]
        self.created.append(name)
        return manifest_of(name, labels=manifest["metadata"]["labels"], spec=manifest["spec"])

    async def delete(self, _: Resource, __: str, name: str, uid: str, *, version: str) -> None:
        assert uid == f"uid-of-{name}"
        assert version == "6"
        self.deleted.append(name)


class Rig:
    def __init__(self) -> None:
        self.api = Api()
        kube = cast(KubeClient, self.api)
        self.cache = ClusterCache(kube, [], mock.Mock(), watch_nodes=False)
        self.held = {("ns", "sales"), ("ns", "support")}
        controller = SimpleNamespace(kube=kube, writing=contextlib.nullcontext)
        shards = SimpleNamespace(
            cache=self.cache,
            holds=lambda key: key in self.held,
            controller_of=lambda key: controller if key in self.held else None,
        )
        self.scheduler = Scheduler(cast(Shards, shards))
        self.cache.backups.informer._watches[None].version = "1"
        self._version = 10

    def add_session(self, name: str = "sales", *, valid: bool = True, **spec: Any) -> None:
        self._version += 1
        metadata = {"namespace": "ns", "name": name, "uid": name}
        metadata |= {"resourceVersion": str(self._version)}
        metadata["creationTimestamp"] = "2026-01-01T12:00:00Z"
        status = {"sessionValid": valid}
        self.cache.upsert_session({"metadata": metadata, "spec": spec, "status": status})

    def add_class(self, **backup: Any) -> None:
        metadata = {"name": "gold", "uid": "gold", "resourceVersion": "3"}
        spec = {"template": {"backup": backup}}
        self.cache.classes.informer._upsert(("", "gold"), {"metadata": metadata, "spec": spec})

    def add_backup(self, at: datetime, phase: str = "Completed") -> str:
        name = at.strftime("sales-%Y%m%d%H%M")
        status = completed(at.isoformat()) | {"phase": phase}
        labels = {"wasession.dev/scheduled": "true"}
        self.cache.backups.informer.upsert(
            manifest_of(name, version=6, labels=labels, status=status)
        )
        return name

    async def tick(self, at: datetime = THREE) -> list[str]:
        """Return what is created at a time."""
        self.api.created.clear()
        await self.scheduler.tick(at)
        return self.api.created[:]


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    with mock.patch.object(rig.cache, "is_served", return_value=True):
        yield rig


async def test_a_backup_is_created_once_at_its_time(rig: Rig) -> None:
    rig.add_session(backup=DAILY)
    assert await rig.tick(THREE) == ["sales-202601050300"]
    assert await rig.tick(THREE + timedelta(minutes=1)) == []
    rig.add_backup(THREE)
    assert await rig.tick(THREE + DAY - timedelta(minutes=1)) == []
    assert await rig.tick(THREE + DAY) == ["sales-202601060300"]


async def test_another_replica_has_created_it(rig: Rig) -> None:
    rig.add_session(backup=DAILY)
    rig.api.error = Conflict("it exists")
    assert await rig.tick() == []
    rig.api.error = None
    assert await rig.tick(THREE + timedelta(minutes=1)) == [], "its watch event will come"


async def test_what_has_failed_is_tried_again(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.add_session(backup=DAILY)
    rig.api.error = Unavailable("no answer")
    assert await rig.tick() == []
    assert "was not created" in caplog.text
    rig.api.error = None
    assert await rig.tick(THREE + timedelta(minutes=1)) == ["sales-202601050300"]


async def test_one_that_was_deleted_is_not_made_again(rig: Rig) -> None:
    rig.add_session(backup=DAILY)
    [name] = await rig.tick()
    rig.cache.backups.informer._remove(("ns", name), manifest_of(name))
    assert await rig.tick(THREE + timedelta(minutes=2)) == []


async def test_only_a_valid_login_that_is_to_run_is_backed_up(rig: Rig) -> None:
    rig.add_session(backup=DAILY, valid=False)
    assert await rig.tick() == []
    rig.add_session(backup=DAILY, suspend=True)
    assert await rig.tick() == []
    rig.add_session(backup=DAILY)
    assert await rig.tick(THREE + 3 * DAY) == ["sales-202601080300"], "the latest one missed"


async def test_only_this_replicas_sessions(rig: Rig) -> None:
    rig.add_session("foreign", backup=DAILY)
    assert await rig.tick() == []


async def test_the_schedule_of_the_class_counts_unless_the_session_has_one(rig: Rig) -> None:
    rig.add_class(**DAILY, keep=1)
    rig.add_session("sales", className="gold")
    rig.add_session("support", className="gold", backup={"schedule": "0 4 * * *"})
    assert sorted(await rig.tick()) == ["sales-202601050300", "support-202601040400"]


@pytest.mark.parametrize(
    ("own", "of_class", "left"), [({"keep": 2}, {}, 2), ({}, {"keep": 3}, 3), ({}, {}, 4)]
)
async def test_superfluous_ones_are_deleted(
    rig: Rig, own: dict[str, Any], of_class: dict[str, Any], left: int
) -> None:
    rig.add_class(**DAILY, **of_class)
    rig.add_session(className="gold", backup=own)
    names = [rig.add_backup(THREE - days * DAY) for days in range(4)]
    await rig.tick(THREE + timedelta(minutes=1))
    assert rig.api.deleted == names[left:]


async def test_superfluous_ones_are_deleted_when_a_new_one_is_completed(rig: Rig) -> None:
    rig.add_session(backup=DAILY | {"keep": 1})
    rig.add_backup(THREE - DAY)
    await rig.tick()
    assert rig.api.deleted == []
    rig.add_backup(THREE)
    await rig.tick(THREE + timedelta(minutes=1))
    assert rig.api.deleted == ["sales-202601040300"]


async def test_an_invalid_schedule_is_reported_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = mock.Mock()
    monkeypatch.setattr(scheduler_module, "EventRecorder", recorder)
    rig.add_session(backup={"schedule": "61 3 * * *"})
    for minutes in range(3):
        assert await rig.tick(THREE + timedelta(minutes=minutes)) == []
    [call] = recorder.return_value.emit.call_args_list
    session, [event], _ = call.args
    assert (session.name, event.type, event.reason) == ("sales", "Warning", "InvalidBackupSchedule")
    assert "'61 3 * * *' is no schedule as for cron: Bad minute." in event.message
    assert rig.scheduler.overdue(THREE) == 1


async def test_sessions_whose_backup_is_overdue_are_counted(rig: Rig) -> None:
    rig.add_session(backup=DAILY)
    rig.add_session("support", backup=DAILY, valid=False)
    late = THREE + timedelta(hours=2)
    rig.add_backup(THREE - DAY)
    assert rig.scheduler.overdue(late - timedelta(minutes=1)) == 0
    assert rig.scheduler.overdue(late) == 1, "one without a login cannot have any"
    rig.add_backup(THREE)
    assert rig.scheduler.overdue(late) == 0
