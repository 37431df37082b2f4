"""The cache of backups knows whom they concern."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest
from unit.operator.backups import FINALIZER, KEY, SOURCE, completed, manifest_of
from wasession_api.kube.client import KubeClient
from wasession_api.kube.manifests import Key, Manifest
from wasession_api.v1alpha1 import BackupPhase
from wasession_operator.backups.backup import parse_backup, transform
from wasession_operator.backups.cache import BackupCache

SALES = ("ns", "sales")
COPY = ("ns", "copy")
MONDAY = "2026-01-05T03:00:00Z"
TUESDAY = "2026-01-06T03:00:00Z"


class Rig:
    def __init__(self) -> None:
        self.enqueued: list[Key] = []
        self.changed: list[Key] = []
        kube = cast(KubeClient, None)
        self.cache = BackupCache(kube, [], self.enqueued.append, lambda _: None)
        self.cache.changed = self.changed.append
        self.cache.informer._watches[None].version = "1"

    def put(self, *arguments: Any, **options: Any) -> None:
        self.cache.informer.upsert(manifest_of(*arguments, **options))

    def delete(self, name: str = "nightly") -> None:
        self.cache.informer._remove(("ns", name), manifest_of(name))


@pytest.fixture
def rig() -> Rig:
    return Rig()


def session(**spec: Any) -> Manifest:
    return {"metadata": {"namespace": "ns", "name": "sales"}, "spec": spec}


def test_only_a_completed_backup_that_stays_can_be_used(rig: Rig) -> None:
    assert rig.cache.completed("ns", "nightly") is None
    rig.put(version=2, status={"phase": "Running"})
    assert rig.cache.completed("ns", "nightly") is None
    rig.put(version=3, status=completed(MONDAY))
    found = rig.cache.completed("ns", "nightly")
    assert found is not None
    assert (found[0], found[1].phase) == ("uid-of-nightly", BackupPhase.COMPLETED)
    rig.put(version=4, status=completed(MONDAY), deletionTimestamp=TUESDAY)
    assert rig.cache.completed("ns", "nightly") is None


def test_the_latest_backup_of_a_session(rig: Rig) -> None:
    rig.put("a", status=completed(MONDAY))
    rig.put("b", status=completed(TUESDAY))
    rig.put("c", status={"phase": "Failed"})
    rig.put("other", status=completed(TUESDAY), spec={"sessionName": "other"})
    assert rig.cache.last_completed(SALES) == datetime(2026, 1, 6, 3, tzinfo=UTC)
    rig.delete("b")
    assert rig.cache.last_completed(SALES) == datetime(2026, 1, 5, 3, tzinfo=UTC)
    rig.delete("a")
    assert rig.cache.last_completed(SALES) is None
    assert {backup.name for backup in rig.cache.of(SALES)} == {"c"}


def test_a_session_hears_when_its_backup_is_completed_or_goes(rig: Rig) -> None:
    rig.put(version=2)
    rig.put(version=3, status={"phase": "Running"})
    assert rig.enqueued == []
    rig.put(version=4, status=completed(MONDAY))
    assert rig.enqueued == [SALES]
    rig.delete()
    assert rig.enqueued == [SALES, SALES]
    assert rig.changed == [("ns", "nightly")] * 4


def test_a_session_hears_of_each_change_of_what_it_begins_with(rig: Rig) -> None:
    rig.cache.upsert_session(COPY, session(bootstrap={"fromBackup": {"name": "nightly"}}))
    rig.put(version=2)
    assert rig.enqueued == [COPY]
    rig.cache.upsert_session(COPY, session(bootstrap={"fromBackup": {"name": "weekly"}}))
    rig.put(version=3)
    assert rig.enqueued == [COPY]
    rig.put("weekly")
    assert rig.enqueued == [COPY, COPY]
    rig.cache.delete_session(COPY)
    rig.delete("weekly")
    assert rig.enqueued == [COPY, COPY]
    assert not rig.cache._awaiting


def test_what_is_left_to_do(rig: Rig) -> None:
    key = ("ns", "nightly")
    rig.put(version=2)
    assert rig.cache.open == {key: SALES}
    rig.put(version=3, status={"phase": "Running", "key": KEY})
    assert (rig.cache.open_of(SALES), rig.cache.running) == ([key], {key: SALES})
    rig.put(version=4, status=completed(MONDAY), finalizers=list(FINALIZER))
    assert (rig.cache.open, rig.cache.running) == ({}, {})
    assert rig.cache.with_archive(KEY) == ("nightly",)
    gone = {"deletionTimestamp": TUESDAY}
    rig.put(version=5, status=completed(MONDAY), finalizers=list(FINALIZER), **gone)
    assert rig.cache.open == {key: SALES}
    rig.put(version=6, status=completed(MONDAY), **gone)
    assert rig.cache.open == {}, "it waits for somebody else's finalizer"
    rig.delete()
    assert rig.cache.with_archive(KEY) == ()


def test_archives_are_known_by_the_backups_of_their_namespace(rig: Rig) -> None:
    rig.put("a", status={"key": KEY})
    rig.put("b", spec={"sessionName": "sales", "key": KEY})
    rig.put("thief", spec={"sessionName": "sales", "key": "other/sales/a.age"})
    assert rig.cache.with_archive(KEY) == ("a", "b")
    assert rig.cache.with_archive("other/sales/a.age") == ()
    rig.delete("a")
    rig.delete("thief")
    assert rig.cache.with_archive(KEY) == ("b",)


IMPORT = {"importFrom": {"namespace": "other", "name": "weekly"}}


def test_an_import_hears_of_its_source_until_it_is_finished(rig: Rig) -> None:
    rig.put(version=2, spec=IMPORT)
    rig.put("weekly", version=3, namespace="other")
    assert rig.changed == [("ns", "nightly"), ("other", "weekly"), ("ns", "nightly")]
    rig.put(version=4, spec=IMPORT, status={"phase": "Running", "key": KEY})
    assert rig.cache.running == {}, "no pod uploads it"
    rig.put(version=5, spec=IMPORT, status=completed(MONDAY))
    rig.changed.clear()
    rig.put("weekly", version=6, namespace="other")
    assert rig.changed == [("other", "weekly")]
    assert not rig.cache._imports


def test_the_login_of_another_namespace_is_no_backup_of_a_session_here(rig: Rig) -> None:
    rig.put("mine", status=completed(MONDAY, source=source_of("ns")))
    rig.put("found", status=completed(TUESDAY, source=source_of("other")))
    rig.put("imported", status=completed(TUESDAY, source=source_of("other")), spec=IMPORT)
    assert rig.cache.last_completed(SALES) == datetime(2026, 1, 5, 3, tzinfo=UTC)
    assert rig.cache.completed("ns", "imported") is not None


def source_of(namespace: str) -> Manifest:
    return SOURCE.model_copy(update={"namespace": namespace}).dump()


def test_schedules_of_sessions_are_noted(rig: Rig) -> None:
    rig.cache.upsert_session(SALES, session(backup={"keep": 3}))
    assert rig.cache.own_schedules == {SALES: {"keep": 3}}
    rig.cache.upsert_session(SALES, session())
    assert rig.cache.own_schedules == {}
    rig.cache.upsert_session(SALES, session(backup={"keep": 3}))
    rig.cache.delete_session(SALES)
    assert rig.cache.own_schedules == {}


def test_a_backup_of_a_newer_version_is_left_alone(rig: Rig) -> None:
    rig.put(spec={"sessionName": "sales", "incremental": True})
    assert rig.cache.get("ns", "nightly") is None
    assert rig.cache.open == {}
    rig.delete()


def test_the_cache_holds_what_the_plan_reads() -> None:
    annotations = {"wasession.dev/abandon-archive": "true", "note": "x" * 1000}
    labels = {"wasession.dev/scheduled": "true", "team": "a"}
    status = completed(MONDAY, message=5)
    obj = manifest_of(annotations=annotations, labels=labels, managedFields=[{}], status=status)
    reduced = transform(obj)
    assert parse_backup(reduced) == parse_backup(obj)
    assert "team" not in str(reduced)
    assert "note" not in str(reduced)
    backup = parse_backup(obj)
    assert backup.is_abandoned
    assert backup.is_scheduled
    assert backup.status.message == "", "what a person wrote to the status loses nothing else"
    assert backup.status.key == KEY


def test_only_a_session_that_was_copied_here_is_in_this_cluster() -> None:
    key = f"ns/sales/20260102T030405Z-{'uid-of-nightly'[:8]}.tar.age"
    made = manifest_of(status=completed(MONDAY, key=key))
    assert parse_backup(made).is_made_here
    assert not parse_backup(made | {"spec": IMPORT}).is_made_here, "its archive may be from afar"
