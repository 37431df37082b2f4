"""Volumes that begin with a backup; of all sessions with one login, only one ever runs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from integration.operator.test_backups import Store, ready, store, use
from support.fakes.proxy import Call, Fault, answers, silence, slow
from support.fakes.world import PVCS, Environment, World
from wasession_api.v1alpha1 import BACKUP_PLURAL, PLURAL

__all__ = ["store"]  # the fixture
BACKUP = "before"


@pytest.fixture
async def backed_up(world: World, store: Store) -> World:
    """A world with a running session that has a backup."""
    use(world, store)
    await world.start_operator()
    await ready(world)
    await world.back_up(BACKUP)
    await world.until_backup(BACKUP)
    return world


async def restore(world: World, name: str = "copy", **spec: Any) -> None:
    await world.create(name, bootstrap={"fromBackup": {"name": BACKUP}}, **spec)


def is_running(world: World, name: str) -> bool:
    return world.object("pods", name) is not None


async def until_reason(world: World, name: str, reason: str) -> None:
    await world.until_reason(name, "Ready", reason)


async def test_a_deleted_session_comes_back_without_a_qr(backed_up: World) -> None:
    world = backed_up
    world.script.scans = False
    await world.change("sales", storage={"retention": {"whenDeleted": "Delete"}})
    await world.delete("sales")
    await world.until_gone("sales")
    await world.until(lambda: world.object(PVCS, "sales") is None, "the volume to be gone")
    await restore(world, "sales")
    await world.until_phase("sales")
    status = world.status("sales")
    assert status["restored"] is True
    assert status["bootstrap"]["state"] == "Restored"
    [init] = world.pod("sales")["spec"]["initContainers"]
    assert [entry["name"] for entry in init["volumeMounts"] if entry["name"] == "identity"]
    pod = world.pod("sales")
    await world.take_away("pods", "sales")
    pod = await world.until_replaced("sales", pod)
    assert "initContainers" not in pod["spec"], "it has its login by now"


async def test_a_copy_waits_for_its_source_to_stop_and_keeps_it_stopped(backed_up: World) -> None:
    world = backed_up
    world.script.scans = False
    await restore(world)
    await until_reason(world, "copy", "BackupSourceRunning")
    assert world.object(PVCS, "copy") is None
    assert is_running(world, "sales")
    await world.change("sales", suspend=True)
    await world.until_phase("copy")
    assert not is_running(world, "sales")
    await world.change("sales", suspend=False)
    await until_reason(world, "sales", "LoginMoved")
    assert world.phase("sales") == "Failed"
    assert not is_running(world, "sales")
    await world.delete("copy")
    await world.until_gone("copy")
    await world.until_phase("sales")


async def test_of_two_copies_the_later_one_has_the_login(backed_up: World) -> None:
    world = backed_up
    await world.change("sales", suspend=True)
    await restore(world, "first")
    await world.until_phase("first")
    await restore(world, "second")
    await until_reason(world, "second", "BackupSourceRunning")
    await world.change("first", suspend=True)
    await world.until_phase("second")
    await world.change("first", suspend=False)
    await until_reason(world, "first", "LoginMoved")
    assert world.phase("second") == "Ready"


async def test_a_copy_of_a_copy_is_the_same_login(backed_up: World) -> None:
    world = backed_up
    await world.change("sales", suspend=True)
    await restore(world, "first")
    await world.until_phase("first")
    await world.back_up("later", session="first")
    status = await world.until_backup("later")
    assert status["source"]["loginID"] == world.status("sales")["loginID"]


@pytest.mark.parametrize("fenced", [False, True])
async def test_a_login_of_another_cluster_needs_a_word(
    backed_up: World, store: Store, fenced: bool
) -> None:
    world = backed_up
    await world.change("sales", suspend=True)
    key = (await world.until_backup(BACKUP))["key"]
    manifest = json.loads(store.path(f"{key}.json").read_text())
    manifest["source"]["cluster"] = "another"
    copied = key.replace(key[-16:], "00000000.tar.age")
    store.put(copied, store.path(key).read_bytes(), manifest)
    await world.back_up("found", key=copied)
    await world.until_backup("found")
    bootstrap = {"fromBackup": {"name": "found"}, "fenced": fenced}
    await world.create("copy", bootstrap=bootstrap)
    if fenced:
        await world.until_phase("copy")
    else:
        await until_reason(world, "copy", "BackupSourceNotFenced")
        assert world.object(PVCS, "copy") is None


async def test_a_backup_that_comes_later_is_awaited(world: World, store: Store) -> None:
    use(world, store)
    await world.start_operator()
    await ready(world)
    await restore(world)
    await until_reason(world, "copy", "BackupNotFound")
    await world.change("sales", suspend=True)
    await world.until_phase("sales", phase="Suspended")
    await world.back_up(BACKUP)
    await until_reason(world, "copy", "BackupNotCompleted")
    await world.change("sales", suspend=False)
    await world.until_backup(BACKUP)
    await until_reason(world, "copy", "BackupSourceRunning")
    await world.change("sales", suspend=True)
    await world.until_phase("copy")


async def test_the_url_of_the_archive_is_in_the_secret_alone(backed_up: World) -> None:
    world = backed_up
    await world.change("sales", suspend=True)
    await restore(world)
    await world.until_phase("copy")
    secret = world.object("secrets", "copy")
    assert secret is not None
    assert "restore-url" in secret["data"]
    writes = [str(call.body) for call in world.calls if call.resource != "secrets"]
    assert not [text for text in writes if "X-Amz-Signature" in text]


@pytest.mark.parametrize("moment", ["restoring", "ready"])
async def test_another_replica_goes_on(backed_up: World, moment: str) -> None:
    """Also if all of its status is lost with the first one."""
    world = backed_up
    world.script.scans = False
    await world.change("sales", suspend=True)
    await world.until_phase("sales", phase="Suspended")
    world.script.images = moment == "ready"
    await restore(world)
    if moment == "ready":
        await world.until_phase("copy")
    else:
        await world.until(lambda: is_running(world, "copy"), "the pod")
    await world.kill_operator()
    await world.api.patch(PLURAL, world.namespace, "copy", {"status": None}, "status")
    world.script.images = True
    world.kubelet.look_again(world.namespace)
    await world.start_operator()
    await world.until_phase("copy")
    await world.until(
        lambda: world.status("copy").get("bootstrap", {}).get("state") == "Restored", "the record"
    )
    await world.change("sales", suspend=False)
    await until_reason(world, "sales", "LoginMoved")


async def test_a_volume_that_the_source_left_behind_is_still_the_same_login(
    backed_up: World,
) -> None:
    """Whoever adopts it later has a login that is in use elsewhere."""
    world = backed_up
    world.script.scans = False
    await world.delete("sales")
    await world.until_gone("sales")
    await restore(world)
    await world.until_phase("copy")
    await world.create("sales")
    await until_reason(world, "sales", "LoginMoved")
    await world.until(lambda: not is_running(world, "sales"), "its pod to be stopped")
    assert world.phase("copy") == "Ready"
    assert world.object(PVCS, "sales") is not None


async def test_the_restored_session_goes_on_when_its_source_is_resumed(backed_up: World) -> None:
    """It is the source that gives way, also when the pod of the other one is away."""
    world = backed_up
    await world.change("sales", suspend=True)
    await restore(world)
    await world.until_phase("copy")
    await world.change("sales", suspend=False)
    await until_reason(world, "sales", "LoginMoved")
    pod = world.pod("copy")
    await world.take_away("pods", "copy")
    await world.until_replaced("copy", pod)
    await world.change("copy", suspend=True)
    await world.until_phase("copy", phase="Suspended")
    await world.change("copy", suspend=False)
    await world.until_phase("copy")
    assert not is_running(world, "sales")


def reason_of(world: World, name: str) -> str | None:
    conditions = world.status(name).get("conditions", [])
    return next((one["reason"] for one in conditions if one["type"] == "Ready"), None)


async def test_a_source_whose_pod_is_just_being_created_is_not_stopped(backed_up: World) -> None:
    world = backed_up
    await world.change("sales", suspend=True)
    await world.until_phase("sales", phase="Suspended")
    creating = Fault(slow(3), lambda call: (call.verb, call.resource) == ("POST", "pods"))
    world.proxy.faults.append(creating)
    await world.change("sales", suspend=False)
    await world.proxy.until(lambda: creating.done)
    await world.change("sales", suspend=True)
    await restore(world)
    await world.until_phase("copy")
    assert_never_two_at_once(world)


async def test_the_pod_of_a_source_may_outlive_it(backed_up: World) -> None:
    """Somebody has removed its finalizer while its pod terminates."""
    world = backed_up
    world.script.stops = False
    await world.delete("sales")
    await world.until(
        lambda: "deletionTimestamp" in world.pod("sales")["metadata"], "the pod to terminate"
    )
    patch = {"metadata": {"finalizers": None}}
    await world.api.patch(PLURAL, world.namespace, "sales", patch)
    await world.until_gone("sales")
    await restore(world)
    await until_reason(world, "copy", "BackupSourceRunning")
    world.script.stops = True
    world.kubelet.look_again(world.namespace)
    await world.until_phase("copy")


async def test_nobody_gets_the_url_of_another_namespaces_archive(backed_up: World) -> None:
    """Whoever can edit the status of a backup can name any."""
    world = backed_up
    status = await world.until_backup(BACKUP)
    key = "victim/sales/20260105T030000Z-aaaaaaaa.tar.age"
    patch = {"status": {**status, "key": key}}
    await world.api.patch(BACKUP_PLURAL, world.namespace, BACKUP, patch, "status")
    await world.change("sales", suspend=True)
    await world.create("thief", bootstrap={"fromBackup": {"name": BACKUP}, "fenced": True})
    await world.until_reason("thief", "Degraded", "SecretUpdateFailed")
    assert world.object("secrets", "thief") is None


async def test_of_many_copies_at_once_exactly_one_wins(backed_up: World) -> None:
    """None is suspended by a person: all but the last one yield."""
    world = backed_up
    names = [f"copy-{number}" for number in range(4)]
    await world.change("sales", suspend=True)
    await world.until_phase("sales", phase="Suspended")
    await asyncio.gather(*(restore(world, name) for name in names))

    def winner() -> str | None:
        phases = {name: world.phase(name) for name in names}
        ready = [name for name in names if phases[name] == "Ready"]
        return ready[0] if len(ready) == 1 and "Restoring" not in phases.values() else None

    def have_yielded(others: set[str]) -> bool:
        return {reason_of(world, name) for name in others} <= {"LoginMoved", "BackupSourceRunning"}

    won = await world.until(winner, "a winner")
    await world.until(lambda: have_yielded(set(names) - {won}), "the others to yield")
    assert_never_two_at_once(world)
    await world.delete(won)
    await world.until_gone(won)
    await world.until(lambda: winner_of(world, set(names) - {won}), "the next one")
    assert_never_two_at_once(world)


def winner_of(world: World, names: set[str]) -> bool:
    return [world.phase(name) for name in names].count("Ready") == 1


def noted_login(world: World, name: str) -> str | None:
    """Return the login that a session's claim notes."""
    claim = world.object(PVCS, name)
    assert claim is not None
    noted: str | None = claim["metadata"]["annotations"].get("wasession.dev/login-id")
    return noted


async def until_noted(world: World, name: str) -> str:
    """Wait until a session's claim notes its login; return that."""
    login: str = await world.until(lambda: noted_login(world, name), f"the note of {name}")
    assert login == world.status(name)["loginID"]
    return login


def assert_never_two_at_once(*worlds: World) -> None:
    """Check that of all pods with the one login there was never more than one."""
    running: set[str] = set()
    changes = [change for world in worlds for change in world.changes]
    for change in sorted(changes, key=lambda change: change.version):
        if change.plural == "pods" and change.type in ("ADDED", "DELETED"):
            uid = change.object["metadata"]["uid"]
            running = running - {uid} if change.type == "DELETED" else running | {uid}
            assert len(running) <= 1, change.object["metadata"]["name"]


async def test_both_of_two_that_restore_at_the_same_moment_do_not_wait_for_each_other(
    backed_up: World,
) -> None:
    """Each has written that it restores before it has seen the other."""
    world = backed_up
    await world.change("sales", suspend=True)
    await world.until_phase("sales", phase="Suspended")
    looks = Fault(slow(2), lambda call: call.resource == PLURAL and call.verb == "GET", 10)
    world.proxy.faults.append(looks)
    await asyncio.gather(restore(world, "first"), restore(world, "second"))
    await world.until(lambda: winner_of(world, {"first", "second"}), "a winner")
    assert_never_two_at_once(world)


async def test_what_a_claim_notes_of_its_login_keeps_its_new_session_from_starting(
    backed_up: World,
) -> None:
    """The volume of a deleted source: its new session has no pod, not for a second."""
    world = backed_up
    noted = world.status("sales")["loginID"]
    await world.delete("sales")
    await world.until_gone("sales")
    await restore(world)
    await world.until_phase("copy")
    assert noted_login(world, "sales") == noted_login(world, "copy") == noted
    pods = world.created("pods")
    await world.create("sales")
    await until_reason(world, "sales", "LoginMoved")
    assert world.created("pods") == pods
    await world.delete("copy")
    await world.until_gone("copy")
    await world.until_phase("sales")
    assert world.status("sales")["restored"] is True


async def test_a_claim_that_nobody_has_seen_yet_is_read_first(backed_up: World) -> None:
    """The watch of claims is behind that of sessions."""
    world = backed_up
    await world.delete("sales")
    await world.until_gone("sales")
    await restore(world)
    await world.until_phase("copy")
    await world.kill_operator()
    silent = world.proxy.break_watches(silence, [PVCS], lists=False)
    claim = world.object(PVCS, "sales")
    assert claim is not None
    labels = dict.fromkeys(claim["metadata"]["labels"])
    await world.api.patch(*world.key(PVCS, "sales"), {"metadata": {"labels": labels}})
    await world.start_operator()
    pods = world.created("pods")
    await world.create("sales")
    await until_reason(world, "sales", "LoginMoved")
    assert world.created("pods") == pods
    silent.end()


async def test_a_copied_volume_does_not_start_beside_the_one_that_it_is_a_copy_of(
    backed_up: World,
) -> None:
    """Someone has cloned the claim, annotations included."""
    world = backed_up
    await until_noted(world, "sales")
    claim = world.object(PVCS, "sales")
    assert claim is not None
    own = {**claim["metadata"]["annotations"], "wasession.dev/client-id": "clone"}
    metadata = {
        "name": world.key(PVCS, "clone")[2],
        "namespace": world.namespace,
        "annotations": own,
    }
    spec = {key: claim["spec"][key] for key in ("accessModes", "resources")}
    clone = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    await world.api.create(PVCS, {**clone, "metadata": metadata, "spec": spec})
    await world.create("clone")
    await until_reason(world, "clone", "BackupSourceRunning")
    assert not is_running(world, "clone")
    assert is_running(world, "sales")


@pytest.mark.parametrize("edited", [None, "anything"], ids=["removed", "changed"])
async def test_a_note_that_a_person_has_edited_is_repaired(
    backed_up: World, edited: str | None
) -> None:
    world = backed_up
    login = await until_noted(world, "sales")
    metadata = {"annotations": {"wasession.dev/login-id": edited}}
    await world.api.patch(*world.key(PVCS, "sales"), {"metadata": metadata})
    await world.until(lambda: noted_login(world, "sales") == login, "the note")
    world.program("sales").log_out()
    await world.until(lambda: noted_login(world, "sales") is None, "no note of an ended login")


async def test_a_source_of_another_namespace_starts_only_when_the_copy_is_known(
    world: World, environment: Environment, store: Store
) -> None:
    """Each namespace has a watch of its own, and that of the copy's delivers nothing any more."""
    other = World(environment)
    await other.open()
    try:
        await restored_elsewhere(world, other, store)
        await world.change("sales", suspend=False)
        await until_reason(world, "sales", "LoginMoved")
        assert_never_two_at_once(world, other)
        assert not is_running(world, "sales")
    finally:
        assert await other.close() == []


def is_patch_of(call: Call, name: str) -> bool:
    return (call.verb, call.resource, call.name) == ("PATCH", PLURAL, name)


async def restored_elsewhere(world: World, other: World, store: Store) -> None:
    """Restore a copy into another namespace, of which the operator sees nothing any more."""
    await backed_up_for(world, other, store)
    await until_reason(other, "copy", "BackupSourceRunning")
    world.proxy.break_watches(silence, [PLURAL], other.namespace, mute=True)
    finalizer = Fault(answers(503), lambda call: is_patch_of(call, "copy"), 10**9)
    world.proxy.faults.append(finalizer)  # its response would show it too
    await world.change("sales", suspend=True)
    await other.until_phase("copy")


async def restored_and_served_no_more(world: World, other: World, store: Store) -> None:
    """Restore a copy into another namespace, which the operator then does not serve any more."""
    await backed_up_for(world, other, store)
    await world.change("sales", suspend=True)
    await other.until_phase("copy")
    await world.stop_operator()
    await world.start_operator(namespaces=world.namespace)


async def backed_up_for(world: World, other: World, store: Store) -> None:
    """Link a session, import its backup into another namespace, and let a session there begin."""
    use(world, store)
    await world.start_operator(namespaces=f"{world.namespace},{other.namespace}")
    await ready(world)
    await world.back_up(BACKUP, exportTo=[other.namespace])
    await other.import_backup(BACKUP, world)
    await other.until_backup(BACKUP)
    bootstrap = {"fromBackup": {"name": BACKUP}}
    await other.create("copy", className=world.class_name, bootstrap=bootstrap)


def is_list_of_all_sessions(call: Call) -> bool:
    listed = (call.verb, call.resource, call.namespace, call.watch)
    return listed == ("GET", PLURAL, None, False)


async def test_a_copy_in_a_namespace_that_is_not_served_any_more_counts(
    world: World, environment: Environment, store: Store
) -> None:
    """It goes on without an operator; one that is not allowed to list it cannot be sure."""
    other = World(environment)
    await other.open()
    try:
        await restored_and_served_no_more(world, other, store)
        await restore(world, "late")
        waiting = await world.until_reason("late", "Ready", "BackupSourceRunning")
        assert f"{other.namespace}/copy" in waiting["message"]
        await world.change("sales", suspend=False)
        await until_reason(world, "sales", "LoginMoved")
        forbidden = Fault(answers(403), is_list_of_all_sessions, 10**9)
        world.proxy.faults.append(forbidden)
        await world.change("sales", suspend=True)
        await until_reason(world, "late", "BackupSourceNotFenced")
        world.proxy.faults.remove(forbidden)  # as by a ClusterRole: no event tells of it
        await until_reason(world, "late", "BackupSourceRunning")
        world.proxy.faults.append(forbidden)
        assert world.object(PVCS, "late") is None
        assert_never_two_at_once(world, other)
        await other.take_away("pods", "copy")
        await world.change("late", bootstrap={"fenced": True})
        await world.until_phase("late")
    finally:
        assert await other.close() == []


async def test_a_session_that_comes_back_without_a_status_does_not_start_beside_a_copy_unseen(
    world: World, store: Store
) -> None:
    use(world, store)
    await world.start_operator(namespaces=world.namespace)
    await ready(world)
    await world.back_up(BACKUP)
    await world.until_backup(BACKUP)
    await world.change("sales", suspend=True)
    await world.until_phase("sales", phase="Suspended")
    await world.kill_operator()
    await world.api.patch(PLURAL, world.namespace, "sales", {"status": None}, "status")
    await world.change("sales", suspend=False)
    forbidden = Fault(answers(403), is_list_of_all_sessions, 10**9)
    world.proxy.faults.append(forbidden)
    await world.start_operator(namespaces=world.namespace)
    await until_reason(world, "sales", "BackupSourceNotFenced")
    assert not is_running(world, "sales")
    world.proxy.faults.remove(forbidden)
    await world.until_phase("sales")


async def test_a_login_comes_back_when_the_copy_that_no_event_tells_of_is_gone(
    world: World, environment: Environment, store: Store
) -> None:
    other = World(environment)
    await other.open()
    try:
        await restored_and_served_no_more(world, other, store)
        await world.change("sales", suspend=False)
        await until_reason(world, "sales", "LoginMoved")
        await other.api.patch(PLURAL, other.namespace, "copy", {"metadata": {"finalizers": None}})
        await other.take_away("pods", "copy")
        await other.until(lambda: not is_running(other, "copy"), "the copy to have stopped")
        await other.delete("copy")
        await world.until_phase("sales")
        assert_never_two_at_once(world, other)
    finally:
        assert await other.close() == []
