"""Backups from their creation to their deletion, with a real store and an operator that dies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.fakes.api import ApiError, Manifest
from support.fakes.network import Network
from support.fakes.proxy import Call
from support.fakes.world import Environment, World
from support.s3 import S3Server
from unit.operator.backups import RECIPIENT
from wasession_api.v1alpha1 import API_VERSION, BACKUP_KIND, BACKUP_PLURAL

FINALIZER = "wasession.dev/backup"
PREFIX = "login-archives"


class Store(S3Server):
    """An S3 server in the operators' network."""

    def __init__(self, directory: Path, network: Network) -> None:
        super().__init__(directory)
        self._network = network

    def _spawn(self) -> None:
        self._network.run(super()._spawn)

    async def _listens(self) -> bool:
        async with aiohttp.ClientSession(connector=self._network.connector()) as http:
            try:
                async with http.get(self.endpoint):
                    return True
            except aiohttp.ClientError:
                return False

    def path(self, key: str) -> Path:
        return self.bucket / PREFIX / key

    def keys(self, namespace: str) -> set[str]:
        """Return what there is below a namespace."""
        root = self.bucket / PREFIX
        found = (path for path in (root / namespace).rglob("*") if path.is_file())
        return {str(path.relative_to(root)) for path in found}

    def put(self, key: str, payload: bytes, manifest: Manifest | None) -> None:
        """Put an archive there behind everybody's back."""
        self.path(key).parent.mkdir(parents=True, exist_ok=True)
        self.path(key).write_bytes(payload)
        if manifest is not None:
            self.path(f"{key}.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="session")
async def store(
    environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Store]:
    server = Store(tmp_path_factory.mktemp("s3"), environment.network)
    await server.start()
    yield server
    server.kill()


def use(world: World, store: Store) -> None:
    """Let the world's operators have the store."""
    world.settings["lease_duration"] = "10m"  # so that time can be let pass
    world.settings["backup_store"] = f"{store.url}/{PREFIX}"
    world.variables |= store.environment


@pytest.fixture
async def stored(world: World, store: Store) -> World:
    """A world with a store, and a running session whose class has recipients."""
    use(world, store)
    await world.start_operator()
    await ready(world)
    return world


async def ready(world: World, **spec: Any) -> None:
    await world.change_class(backupPolicy={"recipients": [RECIPIENT]})
    await world.create("sales", **spec)
    await world.until_phase("sales")


async def until_valid_logins(world: World, number: int) -> None:
    """Wait until the operator's watch has delivered as many sessions with a valid login."""
    async with asyncio.timeout(60):
        valid = f"wasession_sessions_valid {number}.0"
        while valid not in (await world.get("/metrics"))[1]:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


async def delete(world: World, name: str) -> None:
    await world.api.delete(BACKUP_PLURAL, world.namespace, name)


async def until_gone(world: World, name: str) -> None:
    await world.until(lambda: world.backup(name) is None, f"backup {name} to be gone")


def finalizers(world: World, name: str) -> list[str]:
    backup = world.backup(name)
    assert backup is not None
    found: list[str] = backup["metadata"].get("finalizers", [])
    return found


async def test_a_backup_from_its_creation_to_its_deletion(stored: World, store: Store) -> None:
    await stored.back_up("before", deletionPolicy="Delete")
    status = await stored.until_backup("before")
    key, archive = status["key"], stored.program("sales").archive
    session = stored.session("sales")
    assert session is not None
    assert key.startswith(f"{stored.namespace}/sales/")
    assert store.path(key).read_bytes() == archive
    manifest = json.loads(store.path(f"{key}.json").read_text())
    assert manifest["size"] == status["size"] == len(archive)
    assert manifest["sha256"] == status["sha256"]
    assert manifest["source"] == status["source"]
    assert status["source"]["sessionUID"] == session["metadata"]["uid"]
    assert status["attempts"] == 1
    assert finalizers(stored, "before") == [FINALIZER]
    log = stored.operator.log.read_text() if stored.operator else ""
    for secret in ("X-Amz", store.environment["AWS_SECRET_ACCESS_KEY"]):
        assert secret not in log
        assert secret not in json.dumps(stored.backup("before"))
    await delete(stored, "before")
    await until_gone(stored, "before")
    assert store.keys(stored.namespace) == set()


async def test_a_retained_archive_outlives_its_backup_and_can_be_named(
    stored: World, store: Store
) -> None:
    await stored.back_up("first")
    status = await stored.until_backup("first")
    assert finalizers(stored, "first") == []
    await delete(stored, "first")
    await until_gone(stored, "first")
    await stored.back_up("again", key=status["key"])
    again = await stored.until_backup("again")
    same = ("key", "size", "sha256", "takenAt", "source")
    assert [again[field] for field in same] == [status[field] for field in same]
    assert "startedAt" not in again, "nothing was uploaded"


async def test_an_archive_that_two_backups_have_goes_with_the_last_one(
    stored: World, store: Store
) -> None:
    await stored.back_up("first", deletionPolicy="Delete")
    status = await stored.until_backup("first")
    await stored.back_up("second", key=status["key"], deletionPolicy="Delete")
    await stored.until_backup("second")
    await delete(stored, "first")
    await until_gone(stored, "first")
    assert store.path(status["key"]).exists()
    await delete(stored, "second")
    await until_gone(stored, "second")
    assert store.keys(stored.namespace) == set()


async def test_what_it_waits_for_is_in_its_status(stored: World) -> None:
    await stored.back_up("early", session="support")
    await stored.until_backup("early", "Pending", "SessionNotFound")
    stored.script.scans = False
    await stored.create("support")
    await stored.until_backup("early", "Pending", "NoLogin")
    await stored.until_phase("support", phase="Authenticating")
    stored.program("support").scan()
    await stored.until_backup("early")


async def test_a_suspended_session_is_backed_up_when_it_runs_again(stored: World) -> None:
    await stored.change("sales", suspend=True)
    await stored.until_phase("sales", phase="Suspended")
    await stored.back_up("late")
    await stored.until_backup("late", "Pending", "SessionNotRunning")
    await stored.change("sales", suspend=False)
    await stored.until_backup("late")


async def test_without_recipients_or_a_store_it_fails_at_once(world: World, store: Store) -> None:
    await world.start_operator()
    await world.create("sales")
    await world.until_phase("sales")
    await world.back_up("nowhere")
    status = await world.until_backup("nowhere", "Failed", "StoreNotConfigured")
    assert "WASESSION_BACKUP_STORE" in status["message"]
    await world.stop_operator()
    use(world, store)
    await world.start_operator()
    await world.back_up("for-nobody")
    await world.until_backup("for-nobody", "Failed", "RecipientsMissing")


async def test_an_upload_that_fails_is_tried_again(stored: World) -> None:
    stored.program("sales").failing_uploads = 1
    await stored.back_up("torn")
    status = await stored.until_backup("torn", "Running", "UploadFailed")
    assert status["message"] == "The upload has failed: PUT ….", "its URL is secret"
    assert stored.operator is not None
    stored.operator.advance(30)
    status = await stored.until_backup("torn")
    assert status["attempts"] == 2


async def test_an_upload_that_the_store_has_not_got_is_none(stored: World, store: Store) -> None:
    program = stored.program("sales")
    program.may_upload.clear()
    await stored.back_up("lost")
    status = await stored.until_backup("lost", "Running")
    store.path(status["key"]).mkdir(parents=True)  # so that the upload to it fails
    program.may_upload.set()
    status = await stored.until_backup("lost", "Running", "UploadFailed")
    assert "completedAt" not in status


async def test_only_so_many_are_uploaded_at_the_same_time(world: World, store: Store) -> None:
    use(world, store)
    await world.start_operator(max_concurrent_backups="1")
    await ready(world)
    await world.create("support")
    await world.until_phase("support")
    for name in ("sales", "support"):
        world.program(name).may_upload.clear()
        await world.back_up(name, session=name)

    def phases() -> list[Any]:
        return sorted(str(b.get("status", {}).get("reason")) for b in world.backups)

    await world.until(lambda: phases() == ["Queued", "Uploading"], "one to wait for the other")
    for name in ("sales", "support"):
        world.program(name).may_upload.set()
    for name in ("sales", "support"):
        await world.until_backup(name)


async def test_a_pod_that_restarts_is_asked_again(stored: World) -> None:
    stored.program("sales").may_upload.clear()
    await stored.back_up("interrupted")
    await stored.until_backup("interrupted", "Running", "Uploading")
    pod = await stored.take_away("pods", "sales")
    await stored.until_replaced("sales", pod)
    await stored.until_backup("interrupted", "Running", "UploadFailed")
    assert stored.operator is not None
    stored.operator.advance(30)
    status = await stored.until_backup("interrupted")
    assert status["attempts"] == 2


async def test_a_store_that_is_away_holds_up_the_deletion_until_it_is_back(
    stored: World, environment: Environment, tmp_path: Path
) -> None:
    own = Store(tmp_path, environment.network)
    await own.start()
    await stored.stop_operator()
    use(stored, own)
    await stored.start_operator()
    for name in ("patient", "abandoned"):
        await stored.back_up(name, deletionPolicy="Delete")
        await stored.until_backup(name)
    own.kill()
    for name in ("patient", "abandoned"):
        await delete(stored, name)
        status = await stored.until_backup(name, "Completed", "StoreUnavailable")
        assert "wasession.dev/abandon-archive=true" in status["message"]
    annotations = {"annotations": {"wasession.dev/abandon-archive": "true"}}
    await stored.api.patch(BACKUP_PLURAL, stored.namespace, "abandoned", {"metadata": annotations})
    await until_gone(stored, "abandoned")
    await own.start()
    assert stored.operator is not None
    stored.operator.advance(600)
    await until_gone(stored, "patient")
    left = own.keys(stored.namespace)
    assert len(left) == 2, "the archive and the manifest of the abandoned one"
    own.kill()


@pytest.mark.parametrize(
    "changed",
    [
        {"deletionPolicy": "Delete"},
        {"sessionName": "support"},
        {"key": "a.age"},
        {"sessionName": None, "importFrom": {"namespace": "a", "name": "b"}},
    ],
    ids=lambda changed: ",".join(changed),
)
async def test_a_spec_is_immutable(world: World, changed: Manifest) -> None:
    await world.back_up("fixed")
    with pytest.raises(ApiError, match="is immutable, except exportTo"):
        await world.api.patch(BACKUP_PLURAL, world.namespace, "fixed", {"spec": changed})


async def test_exports_can_be_changed(world: World) -> None:
    await world.back_up("open")
    for namespaces in (["a"], ["b", "c"], []):
        await world.export_backup("open", *namespaces)


IMPORT = {"importFrom": {"namespace": "other", "name": "before"}}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "must have either sessionName or importFrom"),
        ({"sessionName": "sales", **IMPORT}, "must have either sessionName or importFrom"),
        ({**IMPORT, "key": "other/sales/1.age"}, "importFrom is for an Archive"),
        ({**IMPORT, "method": "VolumeSnapshot"}, "importFrom is for an Archive"),
        ({"importFrom": {"namespace": "../a", "name": "b"}}, "must be a name of lower-case"),
        ({"importFrom": {"namespace": "a"}}, "importFrom.name: Required value"),
        (
            {"sessionName": "sales", "method": "VolumeSnapshot", "exportTo": ["a"]},
            "a VolumeSnapshot cannot leave its namespace",
        ),
        ({"sessionName": "sales", "exportTo": ["*"]}, "must be a name of lower-case"),
        ({"sessionName": "sales", "exportTo": ["a.b"]}, "must be a name of lower-case"),
        ({"sessionName": "sales", "exportTo": ["a", "a"]}, "Duplicate value"),
        ({"sessionName": "sales", "exportTo": [f"a{n}" for n in range(17)]}, "at most 16 items"),
    ],
)
async def test_what_the_api_server_refuses(world: World, spec: Manifest, message: str) -> None:
    manifest = {
        "apiVersion": API_VERSION,
        "kind": BACKUP_KIND,
        "metadata": {"name": "invalid", "namespace": world.namespace},
        "spec": spec,
    }
    with pytest.raises(ApiError, match=message):
        await world.api.create(BACKUP_PLURAL, manifest)


async def test_a_backup_of_another_namespace_is_refused(stored: World, store: Store) -> None:
    store.put("other/sales/1.tar.age", b"secret", None)
    await stored.back_up("stolen", key="other/sales/1.tar.age", deletionPolicy="Delete")
    status = await stored.until_backup("stolen", "Failed", "ArchiveInvalid")
    assert f"must begin with {stored.namespace}/" in status["message"]
    await delete(stored, "stolen")
    await until_gone(stored, "stolen")
    assert store.path("other/sales/1.tar.age").exists()


async def test_a_cluster_that_was_built_anew_finds_its_backups(world: World, store: Store) -> None:
    key = f"{world.namespace}/sales/20260105T030000Z-0b5f2a10.tar.age"
    source = {
        "cluster": "gone",
        "namespace": world.namespace,
        "sessionName": "sales",
        "sessionUID": "u",
        "loginID": "u",
        "clientId": "sales",
    }
    manifest = {
        "version": 1,
        "backupName": "nightly",
        "backupUID": "0b5f2a10-0000-4000-8000-000000000001",
        "source": source,
        "takenAt": "2026-01-05T03:00:00Z",
        "size": 5,
        "sha256": "a" * 64,
    }
    store.put(key, b"12345", manifest)
    store.put(f"{world.namespace}/sales/torn.tar.age", b"123", None)
    use(world, store)
    await world.start_operator(backup_sync_interval="1s")
    status = await world.until_backup("nightly")
    assert status["key"] == key
    assert status["source"] == source
    [backup] = world.backups
    assert backup["spec"]["deletionPolicy"] == "Retain"


async def test_a_schedule_makes_backups_and_deletes_the_oldest(world: World, store: Store) -> None:
    use(world, store)
    await world.start_operator()
    await ready(world, backup={"schedule": "* * * * *", "keep": 1})
    await until_valid_logins(world, 1)
    assert world.operator is not None

    def completed() -> list[Manifest]:
        done = [b for b in world.backups if b.get("status", {}).get("phase") == "Completed"]
        return sorted(done, key=lambda backup: str(backup["metadata"]["name"]))

    world.operator.advance(60)
    [first] = await world.until(completed, "a scheduled backup")
    assert first["metadata"]["labels"] == {"wasession.dev/scheduled": "true"}

    def replaced() -> bool:
        names = [backup["metadata"]["name"] for backup in completed()]
        return len(names) == 1 and names != [first["metadata"]["name"]]

    world.operator.advance(60)
    await world.until(lambda: first not in completed() or len(completed()) > 1, "another one")
    world.operator.advance(60)
    await world.until(replaced, "the oldest one to be deleted")
    await world.until(
        lambda: f"{first['status']['key']}.json" not in store.keys(world.namespace),
        "its archive to go with it",
    )


async def test_the_archives_of_a_deleted_namespace_stay(
    environment: Environment, store: Store
) -> None:
    world = World(environment)
    await world.open()
    use(world, store)
    await world.start_operator()
    await ready(world)
    await world.back_up("last", deletionPolicy="Delete")
    status = await world.until_backup("last")
    await world.api.delete("namespaces", None, world.namespace)
    await until_gone(world, "last")
    assert store.path(status["key"]).exists()
    assert store.path(f"{status['key']}.json").exists()
    await world.stop_operator()


# --- an operator that dies ------------------------------------------------------------------------


async def test_an_upload_goes_on_while_no_operator_runs(stored: World) -> None:
    program = stored.program("sales")
    program.may_upload.clear()
    await stored.back_up("slow")
    await stored.until_backup("slow", "Running", "Uploading")
    await stored.until(lambda: program.report.backup, "the pod to be asked")
    await stored.kill_operator()
    program.may_upload.set()
    await stored.start_operator()
    status = await stored.until_backup("slow")
    assert status["attempts"] == 1
    assert program.requests.count("PUT /v1/backup") == 1


async def test_another_replica_goes_on_with_it(stored: World) -> None:
    program = stored.program("sales")
    program.may_upload.clear()
    await stored.back_up("passed-on")
    await stored.until_backup("passed-on", "Running", "Uploading")
    await stored.until(lambda: program.report.backup, "the pod to be asked")
    await stored.add_replica()
    await stored.stop_operator()
    program.may_upload.set()
    status = await stored.until_backup("passed-on")
    assert status["attempts"] == 1


async def test_what_an_operator_has_completed_before_it_died_is_complete(
    stored: World, store: Store
) -> None:
    program = stored.program("sales")
    program.may_upload.clear()
    created = await stored.back_up("nearly")
    status = await stored.until_backup("nearly", "Running", "Uploading")
    await stored.kill_operator()
    manifest = {
        "version": 1,
        "backupName": "nearly",
        "backupUID": created["metadata"]["uid"],
        "source": status["source"],
        "takenAt": "2026-01-05T03:00:00Z",
        "size": 5,
        "sha256": "a" * 64,
    }
    store.put(status["key"], b"12345", manifest)
    await stored.take_away("pods", "sales")
    await stored.start_operator()
    status = await stored.until_backup("nearly")
    assert (status["attempts"], status["size"]) == (1, 5)
    assert store.path(status["key"]).read_bytes() == b"12345", "nothing is uploaded over it"


async def made(world: World) -> None:
    await world.until_backup("before")


async def gone(world: World) -> None:
    await until_gone(world, "before")


async def with_backup(world: World) -> None:
    await ready(world)
    await world.back_up("before", deletionPolicy="Delete")
    await made(world)


Step = Callable[[World], Awaitable[Any]]
SCENARIOS: dict[str, tuple[Step, Step, Step]] = {
    "made": (ready, lambda world: world.back_up("before", deletionPolicy="Delete"), made),
    "deleted": (with_backup, lambda world: delete(world, "before"), gone),
}


@pytest.mark.parametrize("name", SCENARIOS)
async def test_killed_after_any_write(environment: Environment, store: Store, name: str) -> None:
    undisturbed, writes = await run(environment, store, name, lambda _: False)
    assert writes > 0
    for number in range(1, writes + 1):
        end, _ = await run(environment, store, name, number.__eq__)
        assert end == undisturbed, f"killed after write {number} of {writes}"
    end, _ = await run(environment, store, name, lambda _: True)
    assert end == undisturbed, "killed after each write"


async def run(
    environment: Environment, store: Store, name: str, dies: Callable[[int], bool]
) -> tuple[object, int]:
    """Run a scenario, and kill the operator after each write to a backup that ``dies`` accepts.

    SIGKILL hits it before it receives the response. Return the end state and the number of writes.
    """
    prepare, act, end = SCENARIOS[name]
    world = World(environment)
    await world.open()
    use(world, store)
    await world.start_operator()
    await prepare(world)
    count, killed = 0, asyncio.Event()

    def written(call: Call) -> None:
        nonlocal count
        if not call.resource.startswith(BACKUP_PLURAL):
            return
        count += 1
        if dies(count):
            assert world.operator is not None
            world.operator.kill()
            killed.set()

    async def keep_running() -> None:
        while True:
            await killed.wait()
            assert world.operator is not None
            await world.operator.ended()
            killed.clear()
            await world.start_operator()

    world.proxy.written = written
    keeper = asyncio.create_task(keep_running())
    try:
        await act(world)
        await end(world)
        await world.proxy.until(lambda: all(call.status for call in writes_of(world)))
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        world.proxy.written = lambda _: None
    assert await world.close() == []
    return outcome(world, store), count


def writes_of(world: World) -> list[Call]:
    return [call for call in world.proxy.writes if call.resource.startswith(BACKUP_PLURAL)]


def outcome(world: World, store: Store) -> object:
    """Return the end state, without what differs from run to run."""
    backup = world.backup("before")
    if backup is None:
        return store.keys(world.namespace)
    status = backup["status"]
    archive = store.path(status["key"]).read_bytes()
    manifest = json.loads(store.path(f"{status['key']}.json").read_text())
    return (
        {field: status[field] for field in ("phase", "reason", "message", "size", "sha256")},
        backup["metadata"]["finalizers"],
        archive,
        manifest["backupUID"] == backup["metadata"]["uid"],
        manifest["source"]["sessionName"],
    )


async def test_a_backup_waits_for_the_login_and_names_it(stored: World) -> None:
    stored.script.scans = False
    await stored.create("later")
    await stored.until_phase("later", phase="Authenticating")
    await stored.back_up("early", session="later")
    await stored.until_backup("early", "Pending", "NoLogin")
    stored.program("later").scan()
    status = await stored.until_backup("early")
    assert status["source"]["loginID"] == stored.program("later").report.login_id is not None


async def test_a_session_does_not_fall_asleep_before_its_backup_is_made(stored: World) -> None:
    await stored.change("sales", hibernation={"afterIdle": "5m"})
    program = stored.program("sales")
    program.failing_uploads = 1
    await stored.back_up("torn")
    await stored.until_backup("torn", "Running", "UploadFailed")
    program.idle(datetime.now(UTC) - timedelta(hours=2))
    await stored.until_backup("torn")
    await stored.until_phase("sales", phase="Hibernated")
