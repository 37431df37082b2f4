"""Backups by VolumeSnapshots of the volumes, and sessions that begin with one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from integration.operator.test_backups import until_gone
from support.fakes.api import ApiError, Manifest
from support.fakes.proxy import Call, Fault, answers
from support.fakes.snapshots import PLURAL as SNAPSHOTS
from support.fakes.snapshots import RESTORE_SIZE, SnapshotController
from support.fakes.world import PVCS, Environment, World
from wasession_api.kube.manifests import amount
from wasession_api.v1alpha1 import BACKUP_PLURAL

METHOD = {"method": "VolumeSnapshot"}
BACKUP = "nightly"


async def started(world: World) -> World:
    """Let an operator without a store run, and a session whose class has no recipients."""
    world.settings["lease_duration"] = "10m"  # so that time can be let pass
    await world.start_operator()
    await world.create("sales")
    await world.until_phase("sales")
    return world


async def test_a_cluster_without_snapshots_is_told_apart(world: World) -> None:
    """The first test here: the others add the kind."""
    await started(world)
    await world.back_up(BACKUP, **METHOD)
    status = await world.until_backup(BACKUP, "Failed", "SnapshotsNotSupported")
    assert "external-snapshotter" in status["message"]
    calls = [call for call in world.calls if call.resource.startswith(SNAPSHOTS)]
    assert [(call.verb, call.watch) for call in calls] == [("POST", False)]


@pytest.fixture(scope="module")
async def controller(environment: Environment) -> AsyncIterator[SnapshotController]:
    controller = SnapshotController(environment.api, environment.kubelet)
    await controller.start()
    yield controller
    await controller.stop()


@pytest.fixture
async def ready(world: World, controller: SnapshotController) -> World:
    return await started(world)


@pytest.fixture
async def backed_up(ready: World) -> World:
    await ready.back_up(BACKUP, **METHOD)
    await ready.until_backup(BACKUP)
    return ready


async def snapshots(world: World) -> list[Manifest]:
    listed = await world.api.list(SNAPSHOTS, world.namespace)
    items: list[Manifest] = listed["items"]
    return items


async def until_created(world: World) -> Manifest:
    async with asyncio.timeout(60):
        while not (found := await snapshots(world)):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    return found[0]


async def restore(world: World, name: str = "copy", **spec: Any) -> None:
    bootstrap = {"fromBackup": {"name": BACKUP}}
    await world.create(name, **{"bootstrap": bootstrap, "clientId": "sales", **spec})


# --- a backup -------------------------------------------------------------------------------------


async def test_a_backup_needs_neither_store_nor_recipients(ready: World) -> None:
    await ready.change_class(backupPolicy={"volumeSnapshotClassName": "fast"})
    created = await ready.back_up(BACKUP, deletionPolicy="Delete", **METHOD)
    status = await ready.until_backup(BACKUP)
    [snapshot] = await snapshots(ready)
    claim, uid = ready.object(PVCS, "sales"), created["metadata"]["uid"]
    assert claim is not None
    assert snapshot["spec"] == {
        "source": {"persistentVolumeClaimName": claim["metadata"]["name"]},
        "volumeSnapshotClassName": "fast",
    }
    assert [owner["uid"] for owner in snapshot["metadata"]["ownerReferences"]] == [uid]
    assert status["volumeSnapshotName"] == snapshot["metadata"]["name"] == f"wasession-{uid}"
    assert status["takenAt"] == snapshot["status"]["creationTime"]
    assert status["size"] == amount(RESTORE_SIZE)
    assert status["source"]["loginID"] == ready.program("sales").report.login_id
    assert ready.program("sales").requests.count("PUT /v1/backup") == 0
    backup = ready.backup(BACKUP)
    assert backup is not None
    assert "finalizers" not in backup["metadata"], "garbage collection deletes the snapshot"
    await ready.until(lambda: "lastBackup" in ready.status("sales"), "the session to know it")


async def test_a_retained_snapshot_outlives_its_backup(backed_up: World) -> None:
    await backed_up.api.delete(BACKUP_PLURAL, backed_up.namespace, BACKUP)
    await until_gone(backed_up, BACKUP)
    [snapshot] = await snapshots(backed_up)
    assert "ownerReferences" not in snapshot["metadata"]


async def test_a_suspended_session_is_backed_up_as_well(ready: World) -> None:
    await ready.change("sales", suspend=True)
    await ready.until_phase("sales", phase="Suspended")
    await ready.back_up(BACKUP, **METHOD)
    await ready.until_backup(BACKUP)


async def test_a_session_without_a_login_is_waited_for(ready: World) -> None:
    ready.script.scans = False
    await ready.create("support")
    await ready.until_phase("support", phase="Authenticating")
    await ready.back_up(BACKUP, session="support", **METHOD)
    await ready.until_backup(BACKUP, "Pending", "NoLogin")
    ready.program("support").scan()
    await ready.until_backup(BACKUP)


async def test_a_key_is_that_of_an_archive(ready: World) -> None:
    with pytest.raises(ApiError, match="key is that of an Archive"):
        await ready.back_up(BACKUP, key=f"{ready.namespace}/sales/1.tar.age", **METHOD)


async def test_an_error_that_the_driver_gets_over(
    ready: World, controller: SnapshotController
) -> None:
    ready.script.snapshot_error = "rpc error: code = Unavailable"
    await ready.back_up(BACKUP, **METHOD)

    def is_shown() -> bool:
        status = (ready.backup(BACKUP) or {}).get("status", {})
        return "code = Unavailable" in status.get("message", "")

    await ready.until(is_shown, "the error in the status")
    ready.script.snapshot_error = None
    await controller.look_again(ready.namespace)
    status = await ready.until_backup(BACKUP)
    assert status["message"] == ""


@pytest.mark.parametrize(
    ("error", "passed", "reason"),
    [
        ("rpc error: code = Internal", 180, "SnapshotFailed"),
        ("cannot find CSI PersistentVolumeSource for volume pv", 0, "SnapshotsNotSupported"),
        (None, 3700, "DeadlineExceeded"),
    ],
)
async def test_one_that_does_not_become_ready(
    ready: World, error: str | None, passed: int, reason: str
) -> None:
    ready.script.snapshots, ready.script.snapshot_error = False, error
    await ready.back_up(BACKUP, **METHOD)
    if passed:
        await ready.until_backup(BACKUP, "Running", "TakingSnapshot")
        await until_created(ready)
        assert ready.operator is not None
        ready.operator.advance(passed)
    status = await ready.until_backup(BACKUP, "Failed", reason)
    assert (error or "may not run") in status["message"]


async def test_one_that_is_deleted_before_it_is_ready(ready: World) -> None:
    ready.script.snapshots = False
    await ready.back_up(BACKUP, **METHOD)
    name = (await until_created(ready))["metadata"]["name"]
    await ready.proxy.until(lambda: any(c.resource == SNAPSHOTS and c.status for c in ready.calls))
    await ready.api.delete(SNAPSHOTS, ready.namespace, name)
    await ready.until_backup(BACKUP, "Failed", "SnapshotMissing")


async def test_an_operator_without_the_right_to_waits_for_it(ready: World) -> None:
    fault = Fault(answers(403), lambda call: call.resource == SNAPSHOTS, 10**9)
    ready.proxy.faults.append(fault)
    await ready.back_up(BACKUP, **METHOD)
    status = await ready.until_backup(BACKUP, "Pending", "SnapshotsForbidden")
    assert "does not let the operator" in status["message"]
    ready.proxy.faults.remove(fault)
    await ready.until_backup(BACKUP)
    assert len(await snapshots(ready)) == 1


async def test_a_snapshot_that_the_api_server_does_not_accept(ready: World) -> None:
    ready.proxy.fail(answers(422), "POST", SNAPSHOTS)
    await ready.back_up(BACKUP, **METHOD)
    status = await ready.until_backup(BACKUP, "Failed", "SnapshotFailed")
    assert "does not let the operator" in status["message"]


@pytest.mark.parametrize(("verb", "status"), [("POST", 429), ("POST", 503), ("GET", 500)])
async def test_an_api_server_in_trouble_is_asked_again(
    ready: World, verb: str, status: int
) -> None:
    ready.script.snapshots = verb == "POST"
    fault = ready.proxy.fail(answers(status), verb, SNAPSHOTS)
    await ready.back_up(BACKUP, **METHOD)
    await ready.proxy.until(lambda: not fault.active)
    ready.script.snapshots = True
    snapshot = await until_created(ready)
    if not snapshot.get("status"):
        claim = snapshot["spec"]["source"]["persistentVolumeClaimName"]
        ready.kubelet.take_snapshot(ready.namespace, claim, snapshot["metadata"]["name"])
        done = {"status": {"readyToUse": True}}
        await ready.api.patch(
            SNAPSHOTS, ready.namespace, snapshot["metadata"]["name"], done, "status"
        )
    await ready.until_backup(BACKUP)
    assert len(await snapshots(ready)) == 1


async def test_a_schedule_keeps_the_latest(world: World, controller: SnapshotController) -> None:
    world.settings["lease_duration"] = "10m"
    await world.start_operator()
    schedule = {"schedule": "* * * * *", "keep": 1}
    await world.change_class(template={"backup": {**METHOD, **schedule}})
    await world.create("sales")
    await world.until_phase("sales")
    async with asyncio.timeout(60):
        valid = "wasession_sessions_valid 1.0"
        while valid not in (await world.get("/metrics"))[1]:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    assert world.operator is not None
    seen: set[str] = set()

    def completed() -> list[str]:
        return [
            backup["metadata"]["name"]
            for backup in world.backups
            if backup.get("status", {}).get("phase") == "Completed"
            and backup["spec"]["method"] == "VolumeSnapshot"
        ]

    for number in range(1, 4):
        world.operator.advance(60)

        def is_next(number: int = number) -> bool:
            seen.update(completed())
            return len(seen) >= number

        await world.until(is_next, f"scheduled backup {number}")
    await world.until(lambda: len(completed()) == 1 < len(seen), "the oldest to be deleted")


async def test_killed_after_any_write(
    environment: Environment, controller: SnapshotController
) -> None:
    writes = await killed(environment, lambda _: False)
    assert writes > 0
    for number in range(1, writes + 1):
        await killed(environment, number.__eq__)
    await killed(environment, lambda _: True)


async def killed(environment: Environment, dies: Callable[[int], bool]) -> int:
    """Make a backup; kill the operator after each write of it that ``dies`` accepts."""
    world = World(environment)
    await world.open()
    await started(world)
    count, dead = 0, asyncio.Event()

    def written(call: Call) -> None:
        nonlocal count
        if not call.resource.startswith((BACKUP_PLURAL, SNAPSHOTS)):
            return
        count += 1
        if dies(count):
            assert world.operator is not None
            world.operator.kill()
            dead.set()

    async def keep_running() -> None:
        while True:
            await dead.wait()
            assert world.operator is not None
            await world.operator.ended()
            dead.clear()
            await world.start_operator()

    world.proxy.written = written
    keeper = asyncio.create_task(keep_running())
    try:
        await world.back_up(BACKUP, deletionPolicy="Delete", **METHOD)
        status = await world.until_backup(BACKUP)
        [snapshot] = await snapshots(world)
        assert status["volumeSnapshotName"] == snapshot["metadata"]["name"]
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        world.proxy.written = lambda _: None
    assert await world.close() == []
    return count


# --- a restoration --------------------------------------------------------------------------------


async def test_a_deleted_session_comes_back_without_a_qr(backed_up: World) -> None:
    world = backed_up
    world.script.scans = False
    await world.change("sales", storage={"retention": {"whenDeleted": "Delete"}})
    await world.delete("sales")
    await world.until_gone("sales")
    await world.until(lambda: world.object(PVCS, "sales") is None, "the volume to be gone")
    await restore(world, "sales")
    await world.until_phase("sales")
    status, claim = world.status("sales"), world.object(PVCS, "sales")
    assert status["restored"] is True
    assert status["bootstrap"]["state"] == "Restored"
    assert claim is not None
    assert claim["spec"]["dataSource"]["kind"] == "VolumeSnapshot"
    assert amount(claim["spec"]["resources"]["requests"]["storage"]) == amount(RESTORE_SIZE)
    [init] = world.pod("sales")["spec"]["initContainers"]
    assert "identity" not in [mount["name"] for mount in init["volumeMounts"]]
    secret = world.object("secrets", "sales")
    assert secret is not None
    assert "restore-url" not in secret["data"]
    pod = await world.take_away("pods", "sales")
    pod = await world.until_replaced("sales", pod)
    assert "initContainers" not in pod["spec"], "the volume is its own by now"


async def test_a_copy_never_runs_beside_its_source(backed_up: World) -> None:
    world = backed_up
    world.script.scans = False
    await restore(world)
    await world.until_reason("copy", "Ready", "BackupSourceRunning")
    assert world.object(PVCS, "copy") is None
    await world.change("sales", suspend=True)
    await world.until_phase("copy")
    assert world.object("pods", "sales") is None
    await world.change("sales", suspend=False)
    await world.until_reason("sales", "Ready", "LoginMoved")
    assert world.object("pods", "sales") is None


async def test_a_volume_that_is_there_is_left_alone(backed_up: World) -> None:
    world = backed_up
    await world.change("sales", suspend=True)
    await world.create("copy", clientId="sales")
    await world.until_phase("copy")
    claim = await world.until(lambda: world.object(PVCS, "copy"), "the volume")
    await world.delete("copy")
    await world.until_gone("copy")
    await restore(world)
    await world.until_reason("copy", "Degraded", "BootstrapSkipped")
    present = world.object(PVCS, "copy")
    assert present is not None
    assert present["metadata"]["uid"] == claim["metadata"]["uid"]
    assert "initContainers" not in world.pod("copy")["spec"]


async def test_without_its_snapshot_there_is_no_volume(backed_up: World) -> None:
    world = backed_up
    await world.change("sales", suspend=True)
    await world.until_phase("sales", phase="Suspended")
    [snapshot] = await snapshots(world)
    await world.api.delete(SNAPSHOTS, world.namespace, snapshot["metadata"]["name"])
    await restore(world)
    condition = await world.until_reason("copy", "Ready", "BackupNotFound")
    assert snapshot["metadata"]["name"] in condition["message"]
    assert world.object(PVCS, "copy") is None


@pytest.mark.parametrize("spec", [{"clientId": "other"}, {"owner": "somebody"}])
async def test_a_copy_is_for_the_same_client_and_owner(
    backed_up: World, spec: dict[str, str]
) -> None:
    world = backed_up
    await world.change("sales", suspend=True)
    await restore(world, **spec)
    await world.until_reason("copy", "Ready", "BootstrapFailed")
    assert world.object(PVCS, "copy") is None


async def test_a_volume_is_no_larger_than_the_class_allows(backed_up: World) -> None:
    world = backed_up
    world.script.scans = False
    await world.change("sales", suspend=True)
    await world.until_phase("sales", phase="Suspended")
    await world.change_class(limits={"storage": "2Gi"})
    await restore(world, storage={"size": "1Gi"})
    condition = await world.until_reason("copy", "Ready", "LimitExceeded")
    assert BACKUP in condition["message"]
    assert "2Gi" in condition["message"]
    assert world.object(PVCS, "copy") is None
    await world.change_class(limits={"storage": "10Gi"})
    await world.until_phase("copy")


async def test_a_restoration_whose_operator_dies(backed_up: World) -> None:
    """Also if all of the session's status is lost with it."""
    world = backed_up
    world.script.scans = False
    await world.change("sales", suspend=True)
    await world.until_phase("sales", phase="Suspended")
    world.script.images = False
    await restore(world)
    await world.until(lambda: world.object("pods", "copy") is not None, "the pod")
    await world.kill_operator()
    await world.api.patch("whatsappsessions", world.namespace, "copy", {"status": None}, "status")
    world.script.images = True
    world.kubelet.look_again(world.namespace)
    await world.start_operator()
    await world.until_phase("copy")
    await world.until(
        lambda: world.status("copy").get("bootstrap", {}).get("state") == "Restored", "the record"
    )
