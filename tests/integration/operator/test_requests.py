"""Requests are fulfilled once each, a few at a time, also across restarts of the operator."""

from __future__ import annotations

from base64 import b64encode
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.fakes.world import PVCS, World
from wasession_api.names import object_name
from wasession_api.session_pod.token_derivation import namespace_key
from wasession_api.v1alpha1 import Phase, Reason
from wasession_operator.controller import WORKERS


def names(number: int) -> list[str]:
    return [f"s{index}" for index in range(number)]


async def begin(
    world: World, *sessions: str, spec: dict[str, Any] | None = None, **settings: str
) -> None:
    await world.start_operator(**settings)
    for name in sessions:
        await world.create(name, **(spec or {}))
    await world.until_phase(*sessions)


async def restart_operator(world: World, **settings: str) -> None:
    await world.kill_operator()
    await world.start_operator(**settings)


# --- logout ---------------------------------------------------------------------------------------


async def test_logged_out_once_for_each_value(world: World) -> None:
    await begin(world, "sales")
    program = world.program("sales")
    await world.annotate("sales", logout="1")
    await world.until(
        lambda: world.status("sales").get("logout", {}).get("done"), "the logout to be done"
    )
    assert world.status("sales")["sessionValid"] is False
    program.scan()
    await world.until_phase("sales")
    await restart_operator(world)
    await world.change("sales", owner="somebody")
    await world.until(
        lambda: (
            world.status("sales")["observedGeneration"]
            == (world.session("sales") or {})["metadata"]["generation"]
        ),
        "the new operator to have looked",
    )
    assert program.requests.count("POST /v1/logout") == 1, (
        "what was done is not done again to the new login"
    )
    await world.annotate("sales", logout="2")
    await world.until(lambda: world.status("sales")["sessionValid"] is False, "the second logout")
    assert program.requests.count("POST /v1/logout") == 2


async def test_pods_that_do_not_answer_a_logout_keep_no_other_session_waiting(world: World) -> None:
    silent = names(WORKERS)
    await begin(world, *silent)
    for name in silent:
        world.program(name).deaf = True
        await world.annotate(name, logout="1")
    await world.until(
        lambda: all("POST /v1/logout" in world.program(name).requests for name in silent),
        "all to be asked",
    )
    await world.create("sales")
    await world.until_phase("sales")
    assert all(world.status(name)["logout"]["done"] is False for name in silent)
    assert all(world.program(name).requests.count("POST /v1/logout") == 1 for name in silent)


# --- tokens ---------------------------------------------------------------------------------------


def data(world: World, name: str) -> dict[str, str]:
    found: dict[str, str] = (world.object("secrets", name) or {}).get("data") or {}
    return found


async def test_requests_are_acknowledged(world: World) -> None:
    """So ``kubectl wait`` can wait for them."""
    await begin(world, "sales")
    world.script.scans = False
    pod = world.pod("sales")
    await world.annotate("sales", restart="r1", rotate_token="t1")

    def done(field: str, request: str) -> bool:
        status = world.status("sales").get(field, {})
        return bool(status.get("request") == request and status["done"])

    await world.until(
        lambda: done("restart", "r1") and done("tokenRotation", "t1"), "both to be done"
    )
    assert world.pod("sales")["metadata"]["uid"] != pod["metadata"]["uid"]
    await world.change("sales", suspend=True)
    await world.until_phase("sales", phase="Suspended")
    assert world.object("pods", "sales") is None, "the volume is free when the status says so"


async def test_a_rotated_token_cuts_nobody_off(world: World) -> None:
    """The pod never reads the new token here; a real one takes some seconds."""
    world.script.mounts = False
    await begin(world, "sales")
    before = data(world, "sales")["token"]
    await world.annotate("sales", rotate_token="1")
    await world.until(
        lambda: data(world, "sales").get("previousToken") == before, "the token to be rotated"
    )
    token_id = (world.object("secrets", "sales") or {})["metadata"]["annotations"][
        "wasession.dev/token-id"
    ]
    await world.until(
        lambda: world.pod("sales")["metadata"]["annotations"]["wasession.dev/token-id"] == token_id,
        "the pod to be told",
    )
    await restart_operator(world)
    world.program("sales").say(Phase.RECONNECTING, Reason.CONNECTION_LOST)
    await world.until_phase("sales", phase="Reconnecting")
    assert data(world, "sales")["token"] != before


async def test_a_deleted_secret_is_back_when_the_container_starts_again(world: World) -> None:
    """The running pod has no need of it, and the operator does not watch Secrets."""
    await begin(world, "sales")
    token = data(world, "sales")["token"]
    await restart_operator(world)
    await world.take_away("secrets", "sales")
    await world.until_none("secrets", "sales")
    await world.kubelet.crash(world.pod("sales"), "Error")
    await world.until(lambda: data(world, "sales").get("token") == token, "the same Secret again")
    await world.until(
        lambda: world.status("sales")["restarts"]["count"] == 1 and world.phase("sales") == "Ready",
        "Ready after a restart of the container",
    )
    assert world.created("pods") == 1


async def test_a_pod_that_refuses_the_token_gets_its_secret_again(world: World) -> None:
    """Somebody has edited it."""
    await begin(world, "sales")
    token = data(world, "sales")["token"]
    await world.api.patch(*world.key("secrets", "sales"), {"data": {"token": "eA=="}})
    await world.until(lambda: world.program("sales").token == "x", "the pod to have it")
    await restart_operator(world)
    await world.until(lambda: data(world, "sales")["token"] == token, "the Secret to be repaired")
    world.program("sales").say(Phase.RECONNECTING, Reason.CONNECTION_LOST)
    await world.until_phase("sales", phase="Reconnecting")
    assert world.created("pods") == 1


async def test_a_lost_status_is_the_first_epoch(world: World) -> None:
    """The pod has the token of another one, and gets that."""
    await begin(world, "sales")
    first = data(world, "sales")["token"]
    await world.annotate("sales", rotate_token="1")
    await world.until(
        lambda: world.status("sales").get("tokenRotation", {}).get("done"), "a rotated token"
    )
    second = data(world, "sales")["token"]
    assert (world.status("sales")["tokenEpoch"], data(world, "sales")["previousToken"]) == (
        1,
        first,
    )
    await world.kill_operator()
    annotations = {"annotations": {"wasession.dev/rotate-token": None}}
    await world.api.patch("whatsappsessions", world.namespace, "sales", {"metadata": annotations})
    await world.api.patch("whatsappsessions", world.namespace, "sales", {"status": None}, "status")
    await world.start_operator()
    await world.until(lambda: data(world, "sales")["token"] == first != second, "the first token")
    await world.until_phase("sales")
    assert "previousToken" not in data(world, "sales")
    assert world.created("pods") == 1


async def test_another_master_key_gives_all_pods_other_tokens(world: World, tmp_path: Path) -> None:
    key = tmp_path / "master-key"
    key.write_bytes(b64encode(bytes(32)))
    target = f"{world.namespace}={world.namespace}/gateway-key"
    world.settings |= {"master_key_file": str(key), "gateway_keys": target}
    await begin(world, "sales")
    before = data(world, "sales")["token"]

    def gateway_key() -> str:
        secret = world.history.current.get(("secrets", world.namespace, "gateway-key")) or {}
        return str(secret.get("data", {}).get("session-key"))

    first = b64encode(namespace_key(bytes(32), world.namespace))
    await world.until(lambda: gateway_key() == b64encode(first).decode(), "the gateway's key")
    key.write_bytes(b64encode(bytes(range(32))))
    await world.until(lambda: data(world, "sales")["token"] != before, "another token")
    second = b64encode(namespace_key(bytes(range(32)), world.namespace))
    await world.until(lambda: gateway_key() == b64encode(second).decode(), "the gateway's key")
    await restart_operator(world)
    world.program("sales").say(Phase.RECONNECTING, Reason.CONNECTION_LOST)
    await world.until_phase("sales", phase="Reconnecting")
    assert world.created("pods") == 1


async def test_only_garbage_collection_deletes_secrets(world: World) -> None:
    """A Secret without an owner is somebody's, whatever its labels say."""
    await begin(world, "sales", cleanup_interval="1s")
    secret = world.object("secrets", "sales")
    assert secret is not None
    labels = secret["metadata"]["labels"]
    owner = secret["metadata"]["ownerReferences"][0] | {"name": "gone", "uid": "gone"}
    for name, owners in (("ownerless", []), ("gone", [owner])):
        metadata = {
            "name": world.key("secrets", name)[2],
            "namespace": world.namespace,
            "labels": labels | {"wasession.dev/session": name},
            "ownerReferences": owners,
        }
        await world.api.create("secrets", {**secret, "metadata": metadata})
        await world.until(partial(world.object, "secrets", name), f"Secret {name}")
    world.deleted.add(world.key("secrets", "gone"))
    await world.until(lambda: world.object("secrets", "gone") is None, "the orphan to be gone")
    await world.take_away("secrets", "sales")
    pod = world.pod("sales")
    await world.annotate("sales", restart="1")
    await world.until_replaced("sales", pod)
    assert world.object("secrets", "sales") is not None
    assert not [c for c in world.proxy.calls if (c.verb, c.resource) == ("DELETE", "secrets")]
    assert world.object("secrets", "ownerless") is not None


# --- storage --------------------------------------------------------------------------------------


async def test_a_class_that_cannot_grow_says_so(world: World) -> None:
    """The session goes on; the expansion is retried once the class allows it."""
    name = f"fake-rigid-{world.namespace}"
    rigid = {
        "metadata": {"name": name},
        "provisioner": "fake.wasession.dev",
        "allowVolumeExpansion": False,
    }
    await world.api.create("storageclasses", rigid)
    await begin(world, "sales", spec={"storage": {"storageClassName": name}})
    await world.change("sales", storage={"size": "2Gi"})
    condition = await world.until_reason("sales", "Degraded", "PVCExpandFailed")
    assert "resize" in condition["message"]
    assert world.phase("sales") == "Ready"
    await world.api.patch("storageclasses", None, name, {"allowVolumeExpansion": True})
    await world.until_reason("sales", "Degraded", "AsExpected")
    assert world.created("pods") == 1


# --- a few at a time ------------------------------------------------------------------------------


def phases(world: World) -> list[tuple[str, str]]:
    """Return the phases that a session has had, in order."""
    found: list[tuple[str, str]] = []
    last: dict[str, str] = {}
    for change in world.changes:
        if change.plural == "whatsappsessions":
            name, phase = change.key[2], change.object.get("status", {}).get("phase")
            if phase and last.get(name) != phase:
                last[name] = phase
                found.append((name, phase))
    return found


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ({"runtimeClassName": "missing"}, 'RuntimeClass "missing" not found'),
        ({"priorityClassName": "missing"}, "no PriorityClass with name missing"),
    ],
)
async def test_a_pod_runs_on_if_the_next_one_is_rejected(
    world: World, template: dict[str, Any], message: str
) -> None:
    await begin(world, "sales", spec={"updateStrategy": "RollingUpdate"})
    pod = world.pod("sales")
    await world.change_class(podTemplate={"spec": template})
    for restart in (None, "1"):
        if restart:
            await world.annotate("sales", restart=restart)
        condition = await world.until_reason("sales", "Degraded", "UpdateRefused")
        assert message in condition["message"]
    assert world.phase("sales") == "Ready"
    assert world.pod("sales")["metadata"]["uid"] == pod["metadata"]["uid"]
    await world.create("support")
    condition = await world.until_reason("support", "Degraded", "PodCreateFailed")
    assert message in condition["message"]
    world.script.scans = False
    await world.change_class(podTemplate={"spec": dict.fromkeys(template)})
    await world.until_replaced("sales", pod)
    await world.until_reason("sales", "Degraded", "AsExpected")


async def test_changed_metadata_reaches_the_running_pod(world: World) -> None:
    metadata = {"labels": {"team": "a"}, "annotations": {"note": "1", "old": "x"}}
    await world.change_class(podTemplate={"metadata": metadata})
    await begin(world, "sales")
    changed = {"labels": {"team": "b"}, "annotations": {"note": "2", "old": None}}
    await world.change_class(podTemplate={"metadata": changed})
    await world.until(
        lambda: world.pod("sales")["metadata"]["labels"]["team"] == "b", "the label to be patched"
    )
    annotations = world.pod("sales")["metadata"]["annotations"]
    assert annotations["note"] == "2"
    assert "old" not in annotations
    assert world.created("pods") == 1


async def test_so_many_updates_at_a_time(world: World) -> None:
    sessions = names(5)
    await begin(
        world, *sessions, spec={"updateStrategy": "RollingUpdate"}, max_concurrent_updates="2"
    )
    before = {name: world.pod(name) for name in sessions}
    seen = len(phases(world))
    for name in sessions:
        await world.change(name, browser={"locale": "de-DE"})
    for name in sessions:
        await world.until_replaced(name, before[name])
    away: set[str] = set()
    for name, phase in phases(world)[seen:]:
        away = away - {name} if phase == "Ready" else away | {name}
        assert len(away) <= 2


async def test_an_update_that_goes_wrong_stops_the_others(world: World) -> None:
    sessions = names(3)
    await begin(
        world, *sessions, spec={"updateStrategy": "RollingUpdate"}, max_concurrent_updates="1"
    )
    world.script.images = False
    await world.change_class(image="later:1")

    def broken() -> list[str]:
        return [
            name
            for name in sessions
            if world.condition(name, "Degraded").get("reason") == "ImagePullBackOff"
        ]

    await world.until(broken, "an update to go wrong")
    await restart_operator(world, max_concurrent_updates="1")
    waiting = [name for name in sessions if name not in broken()]
    for name in waiting:
        await world.until_reason(name, "Progressing", "UpdatePending")
        assert world.phase(name) == "Ready"
    assert len(waiting) == 2
    world.script.images = True
    await world.change_class(image="mended:1")
    for name in sessions:
        await world.until_reason(name, "Progressing", "Connected")
        assert world.status(name)["restarts"]["reason"] == "TemplateChanged"


async def test_an_update_that_logs_a_session_out_stops_the_others(world: World) -> None:
    """They go on once it is Ready again, for as long as the setting says."""
    sessions = names(3)
    rolling = {"updateStrategy": "RollingUpdate"}
    await begin(world, *sessions, spec=rolling, update_min_ready="5s")
    before = {name: world.pod(name)["metadata"]["uid"] for name in sessions}
    for name in sessions:
        await world.change(name, browser={"locale": "de-DE"})

    def updated() -> list[str]:
        pods = {name: world.object("pods", name) for name in sessions}
        return [
            name for name, pod in pods.items() if pod and pod["metadata"]["uid"] != before[name]
        ]

    [hurt] = await world.until(updated, "the first update")
    await world.until_phase(hurt)
    world.script.scans = False
    program = world.program(hurt)
    program.volume.login = False
    program.say(
        Phase.LOGGED_OUT, Reason.LOGGED_OUT_BY_PHONE, session_valid=False, is_authenticated=False
    )
    condition = await world.until_reason(hurt, "Degraded", "RolloutHalted")
    assert "wasession.dev/accept-update=" in condition["message"]
    waiting = [name for name in sessions if name != hurt]

    def halted() -> bool:
        conditions = [world.condition(name, "Progressing") for name in waiting]
        return all("another session" in condition.get("message", "") for condition in conditions)

    await world.until(halted, "the others to say so")
    await restart_operator(world, update_min_ready="5s")
    await world.change(hurt, logoutOnDelete=True)
    await world.until(
        lambda: (
            world.status(hurt)["observedGeneration"]
            == (world.session(hurt) or {})["metadata"]["generation"]
        ),
        "the new operator to have looked",
    )
    assert updated() == [hurt]
    program.scan()
    await world.until(lambda: len(updated()) == len(sessions), "the updates of the others")
    await world.until(
        lambda: all(world.status(name)["update"]["done"] for name in sessions), "the end"
    )


async def test_an_owners_own_change_halts_no_rollout_of_the_class(world: World) -> None:
    rolling = {"updateStrategy": "RollingUpdate"}
    await begin(world, "sales", "support", spec=rolling, update_min_ready="1h")
    pods = {name: world.pod(name) for name in ("sales", "support")}
    await world.change("sales", browser={"locale": "de-DE"})
    await world.until_replaced("sales", pods["sales"])
    world.program("sales").say(
        Phase.LOGGED_OUT, Reason.LOGGED_OUT_BY_PHONE, session_valid=False, is_authenticated=False
    )
    await world.until_reason("sales", "Degraded", "RolloutHalted")
    assert world.status("sales")["update"]["own"]
    await world.change_class(template={"browser": {"timezone": "Europe/Berlin"}})
    await world.until_replaced("support", pods["support"])
    assert not world.status("support")["update"]["own"]


async def test_valid_logins_start_first(world: World) -> None:
    await begin(world, "old")
    await world.change("old", suspend=True)
    await world.until(
        lambda: world.phase("old") == "Suspended" and world.object("pods", "old") is None,
        "old to be stopped",
    )
    await world.stop_operator()
    await world.change("old", suspend=False)
    for name in names(3):
        await world.create(name)
    mark = len(world.changes)
    await world.start_operator(max_concurrent_starts_per_node="1", restoration_delay="15s")
    await world.until_phase("old", *names(3))
    started = [
        change.key[2]
        for change in world.changes[mark:]
        if change.plural == "pods" and change.type == "ADDED"
    ]
    assert started[0] == object_name("old")
    assert len(started) == 4


# --- names ----------------------------------------------------------------------------------------


async def test_one_client_id_for_two_sessions_is_told(world: World) -> None:
    """The younger one is Degraded: either, as creation times have whole seconds."""
    await begin(world, "first", spec={"clientId": "shared"})
    await world.create("second", clientId="shared")

    def sharing() -> list[str]:
        reasons = {
            name: world.condition(name, "Degraded").get("reason") for name in ("first", "second")
        }
        return [name for name, reason in reasons.items() if reason == "ClientIdShared"]

    [told] = await world.until(sharing, "one of them to be told")
    other = "first" if told == "second" else "second"
    assert other in world.condition(told, "Degraded")["message"]
    await world.until_phase("first", "second")
    assert sharing() == [told]
    await world.delete(other)
    await world.until_gone(other)
    await world.until_reason(told, "Degraded", "AsExpected")


async def test_a_pod_that_loses_its_labels_gets_them_back(world: World) -> None:
    """It is the session's: its controller says so. It runs on, also for another operator."""
    await begin(world, "sales")
    labels = world.pod("sales")["metadata"]["labels"]
    bare = {"metadata": {"labels": dict.fromkeys(labels)}}
    for again in (False, True):
        if again:
            await world.kill_operator()
        await world.api.patch("pods", world.namespace, object_name("sales"), bare)
        if again:
            await world.start_operator()
        await world.until(
            lambda: world.pod("sales")["metadata"].get("labels") == labels, "the labels to be back"
        )
    await world.until_phase("sales")
    assert world.condition("sales", "Degraded")["reason"] == "AsExpected"
    assert world.created("pods") == 1


@pytest.mark.parametrize("plural", ["secrets", PVCS])
async def test_a_name_that_somebody_else_has(world: World, plural: str) -> None:
    """It is reported and left alone; the session goes on once the name is free."""
    metadata = {"name": world.key(plural, "sales")[2], "namespace": world.namespace}
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "",
    }
    spec = {"spec": claim} if plural == PVCS else {}
    await world.api.create(plural, {"metadata": metadata, **spec})
    await world.until(lambda: world.object(plural, "sales"), "the name to be taken")
    foreign = world.object(plural, "sales")
    await world.start_operator()
    await world.create("sales")
    condition = await world.until_reason("sales", "Degraded", "NameConflict")
    known = {"secrets": "is not the session's", PVCS: "was not created by this operator"}
    assert known[plural] in condition["message"]
    assert world.object(plural, "sales") == foreign
    await world.take_away(plural, "sales")
    await world.until_phase("sales")


async def test_a_pod_with_the_secret_of_an_earlier_build(world: World) -> None:
    """It had the pod's name, another token and the type Opaque. The next pod has another one."""
    name = object_name("sales")
    secret = {
        "metadata": {"name": name, "namespace": world.namespace},
        "data": {"token": b64encode(b"earlier").decode()},
    }
    await world.api.create("secrets", secret)
    await begin(world, "sales")
    await world.kill_operator()
    pod = await world.take_away("pods", "sales")
    await world.until_none("pods", "sales")
    fields = ("name", "namespace", "labels", "annotations", "ownerReferences")
    metadata = {field: pod["metadata"][field] for field in fields}
    token = next(volume for volume in pod["spec"]["volumes"] if volume["name"] == "token")
    token["secret"]["secretName"] = name
    del pod["spec"]["nodeName"]
    await world.api.create("pods", {"metadata": metadata, "spec": pod["spec"]})
    await world.until(lambda: world.object("pods", "sales"), "the earlier build's pod")
    earlier = world.pod("sales")
    await world.start_operator()
    await world.until_reason("sales", "Ready", "PodUnreachable")
    assert world.program("sales").token == "earlier"
    assert world.pod("sales")["metadata"]["uid"] == earlier["metadata"]["uid"]
    await world.annotate("sales", restart="1")
    await world.until_replaced("sales", earlier)
    assert world.condition("sales", "Degraded")["reason"] == "AsExpected"
    left = world.history.current["secrets", world.namespace, name]
    assert (left["type"], left["data"]) == ("Opaque", secret["data"])


async def test_a_session_that_is_deleted_without_what_it_owns(world: World) -> None:
    """``kubectl delete --cascade=orphan`` leaves no pod: a successor would share its login."""
    await begin(world, "sales")
    await world.api.delete("whatsappsessions", world.namespace, "sales", propagationPolicy="Orphan")
    await world.until_gone("sales")
    assert world.object("pods", "sales") is None
    secret, claim = world.object("secrets", "sales"), world.object(PVCS, "sales")
    assert secret is not None
    await world.create("sales")
    await world.until_phase("sales")
    assert world.object(PVCS, "sales") == claim
    assert world.status("sales")["restored"] is True
    taken = world.object("secrets", "sales")
    assert taken is not None
    assert (
        taken["metadata"]["ownerReferences"][0]["uid"]
        == (world.session("sales") or {})["metadata"]["uid"]
    )
    assert taken["data"]["token"] != secret["data"]["token"]


async def test_the_longest_name(world: World) -> None:
    name = "a" * 251 + ".b"
    await begin(world, name, spec={"clientId": "long", "owner": "x" * 253})
    assert len(world.pod(name)["metadata"]["name"]) <= 63
    await world.delete(name)
    await world.until_gone(name)


async def test_a_name_that_is_used_again_at_once(world: World) -> None:
    await begin(world, "sales")
    for _ in range(5):
        await world.delete("sales")
        await world.until_gone("sales")
        await world.create("sales")
        await world.until_phase("sales")
        assert world.status("sales")["restored"] is True
    assert world.created("pods") == 6
