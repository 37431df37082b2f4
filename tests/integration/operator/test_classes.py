"""Classes appear, change and disappear; sessions follow, and running ones stay."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.fakes.api import Manifest
from support.fakes.proxy import answers
from support.fakes.world import PVCS, World
from wasession_api.session_pod.report import Notice
from wasession_api.v1alpha1 import CLASS_PLURAL, Override, Phase, Reason, WaJS

DEFAULT = {"wasession.dev/is-default-class": "true"}
OBJECTS = ("pods", PVCS, "secrets")


async def refused(world: World, name: str, reason: str) -> Manifest:
    """Wait until a session may not start for this reason."""
    await world.until_phase(name, phase="Failed")
    await world.until_reason(name, "Ready", reason)
    return await world.until_reason(name, "Degraded", reason)


def has_nothing(world: World, name: str) -> bool:
    return not any(world.object(plural, name) for plural in OBJECTS)


async def test_a_session_waits_for_its_class(world: World) -> None:
    """It appears, and when it disappears the pod stays until it ends."""
    gold = f"{world.namespace}-gold"
    await world.start_operator()
    await world.create("sales", className=gold)
    condition = await refused(world, "sales", "ClassNotFound")
    assert condition["message"] == f"WhatsAppSessionClass {gold} does not exist."
    assert has_nothing(world, "sales")
    await world.create_class(gold)
    await world.until_phase("sales")
    assert world.status("sales")["class"] == {"name": gold, "generation": 1}
    assert world.pod("sales")["metadata"]["labels"]["wasession.dev/class"] == gold
    pod = world.pod("sales")
    await world.delete_class(gold)
    await world.until_reason("sales", "Degraded", "ClassNotFound")
    assert world.phase("sales") == "Ready"
    assert world.pod("sales")["metadata"] == pod["metadata"]
    await world.take_away("pods", "sales")
    await refused(world, "sales", "ClassNotFound")
    assert world.object("pods", "sales") is None
    assert world.object(PVCS, "sales") is not None
    await world.create_class(gold)
    await world.until_phase("sales")
    assert world.status("sales")["restorations"] == 1


async def test_a_session_without_its_class_can_be_suspended_and_deleted(world: World) -> None:
    """Its volume is retained: that the class deletes it is not known any more."""
    gold = f"{world.namespace}-gold"
    template = {"storage": {"retention": {"whenDeleted": "Delete"}}}
    await world.create_class(gold, template=template)
    await world.start_operator()
    await world.create("sales", className=gold)
    await world.create("support", className=gold)
    await world.until_phase("sales", "support")
    await world.delete_class(gold)
    for name in ("sales", "support"):
        await world.until_reason(name, "Degraded", "ClassNotFound")
    await world.change("sales", suspend=True)
    await world.until_phase("sales", phase="Suspended")
    for name in ("sales", "support"):
        await world.delete(name)
        await world.until_gone(name)
        claim = world.object(PVCS, name)
        assert claim is not None
        assert not claim["metadata"].get("ownerReferences")


async def test_a_volume_is_not_deleted_against_the_will_of_the_class(world: World) -> None:
    """A session that names no class any more does not decide either."""
    gold = f"{world.namespace}-gold"
    await world.create_class(gold)
    await world.start_operator()
    await world.create("sales", className=gold)
    await world.until_phase("sales")
    retention = {"retention": {"whenDeleted": "Delete"}}
    await world.change("sales", className=f"{gold}-2", storage=retention)
    await world.delete("sales")
    await world.until_gone("sales")
    claim = world.object(PVCS, "sales")
    assert claim is not None
    assert not claim["metadata"].get("ownerReferences")


async def test_what_a_claim_was_created_with_is_no_violation(world: World) -> None:
    """The field is immutable: the session could not do without it."""
    await world.start_operator()
    await world.create("sales", storage={"accessMode": "ReadWriteOnce"})
    await world.until_phase("sales")
    pod = world.pod("sales")
    await world.change_class(overrides=["updateStrategy"])
    await world.create("support", storage={"accessMode": "ReadWriteOnce"})
    await refused(world, "support", "OverrideNotAllowed")
    await world.take_away("pods", "sales")
    await world.until_replaced("sales", pod)
    assert world.condition("sales", "Degraded")["status"] == "False"


async def test_a_class_that_becomes_tighter_stops_no_pod(world: World) -> None:
    await world.start_operator()
    await world.create("sales", browser={"locale": "de-DE"}, updateStrategy="RollingUpdate")
    await world.until_phase("sales")
    pod = world.pod("sales")
    await world.change_class(overrides=["updateStrategy"], image="other:1")
    condition = await world.until_reason("sales", "Degraded", "OverrideNotAllowed")
    assert "spec.browser.locale" in condition["message"]
    await world.until_reason("sales", "Progressing", "OverrideNotAllowed")
    assert world.pod("sales")["metadata"]["uid"] == pod["metadata"]["uid"]
    await world.change("sales", browser=None)
    replacement = await world.until_replaced("sales", pod)
    assert replacement["spec"]["containers"][0]["image"] == "other:1"
    assert world.condition("sales", "Degraded")["status"] == "False"


async def test_a_class_that_changes_restarts_pods_only_for_their_template(world: World) -> None:
    await world.change_class(template={"updateStrategy": "RollingUpdate"})
    await world.start_operator()
    await world.create("sales")
    await world.until_phase("sales")
    pod = world.pod("sales")
    await world.change_class(limits={"storage": "8Gi"})

    def noticed() -> bool:
        return bool(world.status("sales")["class"]["generation"] == 3)

    await world.until(noticed, "the class's generation in the status")
    assert world.pod("sales")["metadata"]["uid"] == pod["metadata"]["uid"]
    await world.change_class(template={"browser": {"locale": "de-DE"}})
    pod = await world.until_replaced("sales", pod)
    await world.change_class(limits={"cpu": "8"})
    pod = await world.until_replaced("sales", pod)
    assert pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] == "8"


async def test_namespaces_and_limits(world: World) -> None:
    await world.start_operator()
    await world.change_class(allowedNamespaces=["elsewhere-*"])
    await world.create("sales", storage={"size": "2Gi"})
    await refused(world, "sales", "ClassNotAllowed")
    await world.change_class(allowedNamespaces=[f"{world.namespace}*"], limits={"storage": "1Gi"})
    condition = await refused(world, "sales", "LimitExceeded")
    assert "spec.storage.size is 2Gi" in condition["message"]
    assert has_nothing(world, "sales")
    await world.change_class(limits={"storage": "2Gi"})
    await world.until_phase("sales")


async def test_the_default_class(world: World) -> None:
    first, second = f"{world.namespace}-b", f"{world.namespace}-a"
    await world.start_operator()
    await world.create("sales", className=None)
    await refused(world, "sales", "ClassNotFound")
    await world.create_class(first)
    await annotate_class(world, first, DEFAULT)
    await world.until_phase("sales")
    assert world.status("sales")["class"]["name"] == first
    await world.create_class(second, annotations=DEFAULT)

    await world.until(
        lambda: world.status("sales")["class"]["name"] == second, "the newer of two default classes"
    )
    await world.until_reason("sales", "Progressing", "UpdatePending")
    assert world.pod("sales")["metadata"]["labels"]["wasession.dev/class"] == first
    await annotate_class(world, second, dict.fromkeys(DEFAULT))
    await world.until(
        lambda: world.status("sales")["class"]["name"] == first, "the only default class"
    )
    await world.delete_class(first)
    await world.until_reason("sales", "Degraded", "ClassNotFound")
    assert world.phase("sales") == "Ready"


async def test_the_oldest_sessions_of_an_owner_are_served(world: World) -> None:
    await world.change_class(limits={"sessionsPerOwner": 2})
    await world.start_operator()
    for name in ("a", "b"):
        await world.create(name, owner="user-1")
    await world.until_phase("a", "b")
    await asyncio.sleep(1)  # creation times are in whole seconds
    await world.create("c", owner="user-1")
    await world.create("d", owner="user-2")
    await refused(world, "c", "LimitExceeded")
    await world.until_phase("d")
    assert has_nothing(world, "c")
    await world.delete("a")
    await world.until_phase("c")
    await world.until_phase("b")
    # Over the limit later, a running one stays, also for an operator that has just started.
    await world.change_class(limits={"sessionsPerOwner": 1})
    await world.until_reason("c", "Degraded", "LimitExceeded")
    before = len(world.proxy.writes)
    await world.restart_operator()
    await world.until_reason("c", "Degraded", "LimitExceeded")
    await world.create("e", owner="user-3")
    await world.until_phase("e")
    about_c = [call for call in world.proxy.writes[before:] if call.name == "c"]
    assert about_c == []
    assert world.phase("c") == "Ready"


async def test_the_status_of_a_class_says_who_uses_it(world: World) -> None:
    name = f"{world.namespace}/operator"
    await world.start_operator(operator_name=name)
    other = {"operator": "another/operator", "sessions": 7, "namespaces": 3}
    await world.api.patch(
        CLASS_PLURAL, None, world.class_name, {"status": {"usedBy": [other]}}, "status"
    )
    for session in ("a", "b"):
        await world.create(session)
    await until_used(world, [{"operator": name, "sessions": 2, "namespaces": 1}, other])
    for session in ("a", "b"):
        await world.delete(session)
    await until_used(world, [other])


@pytest.mark.parametrize("status", [403, 404])
async def test_without_classes_nothing_starts(world: World, status: int) -> None:
    """Because of RBAC, or because their CRD is not installed. What runs can still be ended."""
    await world.start_operator()
    for name in ("sales", "hotline", "newsletter"):
        await world.create(name, storage={"retention": {"whenDeleted": "Delete"}})
    await world.until_phase("sales", "hotline", "newsletter")
    await world.kill_operator()
    forbidden = world.proxy.fail(answers(status), "GET", CLASS_PLURAL, times=10**6)
    await world.create("support")
    await world.start_operator()
    await world.proxy.until(lambda: forbidden.done > 0)
    async with asyncio.timeout(60):
        while not (answer := await unserved(world)):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.1)
    assert "injected by the proxy" in answer
    condition = await refused(world, "support", "ClassNotFound")
    assert "injected by the proxy" in condition["message"]
    assert has_nothing(world, "support")
    await world.until_reason("sales", "Degraded", "ClassNotFound")
    assert world.phase("sales") == "Ready"
    await world.change("hotline", suspend=True)
    await world.until_phase("hotline", phase="Suspended")
    await world.delete("newsletter")
    await world.until_gone("newsletter")
    assert world.object(PVCS, "newsletter") is not None, "its class may reserve that"
    forbidden.times = 0
    await world.until_phase("sales", "support")


async def test_known_classes_count_while_they_cannot_be_watched(world: World) -> None:
    await world.start_operator()
    await world.create("sales", storage={"retention": {"whenDeleted": "Delete"}})
    await world.until_phase("sales")
    pod = world.pod("sales")
    forbidden = [
        world.proxy.fail(answers(403), "GET", resource, times=10**6)
        for resource in (CLASS_PLURAL, f"{CLASS_PLURAL}?watch")
    ]
    world.proxy.cut()
    async with asyncio.timeout(60):
        while not await unserved(world):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.1)
    await world.take_away("pods", "sales")
    await world.until_replaced("sales", pod)
    await world.delete("sales")
    await world.until_gone("sales")
    await world.until(lambda: world.object(PVCS, "sales") is None, "the deletion of the claim")
    for fault in forbidden:
        fault.times = 0


async def unserved(world: World) -> str:
    try:
        status, body = await world.get("/readyz")
    except OSError:  # it does not listen yet
        return ""
    return body if status == 503 and "unserved" in body else ""


async def annotate_class(
    world: World, name: str, annotations: dict[str, str] | dict[str, None]
) -> None:
    metadata = {"metadata": {"annotations": annotations}}
    await world.api.patch(CLASS_PLURAL, None, name, metadata)


async def until_used(world: World, expected: list[dict[str, Any]]) -> None:
    """Wait until the status of the world's class has exactly these uses."""
    by_operator = {use["operator"]: use for use in expected}
    async with asyncio.timeout(60):
        while True:
            obj = await world.api.get(CLASS_PLURAL, None, world.class_name)
            uses = obj.get("status", {}).get("usedBy", [])
            if {use["operator"]: use for use in uses} == by_operator:
                return
            await asyncio.sleep(0.2)


async def test_every_override_is_known_to_the_api_server(world: World) -> None:
    """The world's own class allows all of them."""
    obj = await world.api.get(CLASS_PLURAL, None, world.class_name)
    assert obj["spec"]["overrides"] == list(Override)


def wa_js(sha256: str) -> Manifest:
    return {"configMapName": f"wa-js-{sha256[:4]}", "sha256": sha256}


async def test_another_wa_js_is_rolled_out_until_a_pod_does_not_start_with_it(world: World) -> None:
    """The first pod that has no such file, or a wrong one, halts it; a corrected class goes on."""
    wrong, right = "a" * 64, "b" * 64
    sessions = ["sales", "support"]
    await world.change_class(template={"updateStrategy": "RollingUpdate"})
    await world.start_operator(update_min_ready="5s", max_concurrent_updates="1")
    for name in sessions:
        await world.create(name)
    await world.until_phase(*sessions)
    before = {name: world.pod(name)["metadata"]["uid"] for name in sessions}

    def updated() -> list[str]:
        pods = {name: world.object("pods", name) for name in sessions}
        return [
            name for name, pod in pods.items() if pod and pod["metadata"]["uid"] != before[name]
        ]

    await world.change_class(waJS=wa_js(wrong))
    [first] = await world.until(updated, "the first update")
    await world.until_phase(first)
    message = f"wa-js has the SHA-256 {right} instead of {wrong}."
    world.program(first).say(Phase.FAILED, Reason.WA_JS_INVALID, message)
    ready = await world.until_reason(first, "Ready", "WaJSInvalid")
    assert ready["message"] == message
    assert world.condition(first, "Degraded")["status"] == "True"
    assert world.status(first)["sessionValid"] is True
    assert world.status(first)["update"]["own"] is False

    def halted() -> bool:
        [other] = set(sessions) - {first}
        return "another session" in world.condition(other, "Progressing").get("message", "")

    await world.until(halted, "the other session to wait")
    assert updated() == [first]
    await world.change_class(waJS=wa_js(right))
    await world.until(
        lambda: all(world.status(name).get("update", {}).get("done") for name in sessions),
        "the end of the update",
    )
    for name in sessions:
        [volume] = [v for v in world.pod(name)["spec"]["volumes"] if v["name"] == "wa-js"]
        assert volume["configMap"]["name"] == "wa-js-bbbb"
        [container] = world.pod(name)["spec"]["containers"]
        assert {"name": "WASESSION_WA_JS_SHA256", "value": right} in container["env"]
        assert world.phase(name) == "Ready"


async def test_the_status_says_what_the_page_runs(world: World) -> None:
    await world.start_operator()
    await world.create("sales")
    await world.until_phase("sales")
    program, sha256 = world.program("sales"), "c" * 64
    outdated = [Notice(reason=Reason.DOCUMENT_OUTDATED, message="WhatsApp wants a newer one.")]
    program.say(
        Phase.READY,
        Reason.CONNECTED,
        wa_js=WaJS(version="4.6.0", sha256="d" * 64),
        document_sha256=sha256,
        warnings=outdated,
    )
    await world.until_reason("sales", "Degraded", "DocumentOutdated")
    assert world.status("sales")["waJS"] == {"version": "4.6.0", "sha256": "d" * 64}
    pinned = world.status("sales")["whatsappDocument"]
    assert pinned["sha256"] == sha256
    program.say(Phase.READY, Reason.CONNECTED, document_sha256=None, warnings=[])
    await world.until_reason("sales", "Degraded", "AsExpected")
    assert "whatsappDocument" not in world.status("sales")
    assert world.phase("sales") == "Ready"
