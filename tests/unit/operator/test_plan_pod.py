"""The pod in every state: when it is created and deleted, and what the status says of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.operator.situations import (
    NOW,
    SETTINGS,
    VALID,
    condition,
    event_reasons,
    facts,
    message,
    of,
    owned_by,
    plan,
    pod,
    pvc,
    report,
    session,
    silent,
    template_of,
    terminating,
    unschedulable,
    waiting,
)
from wasession_api import names
from wasession_api.session_pod.report import Notice
from wasession_api.v1alpha1 import (
    AccountStatus,
    Condition,
    ConditionType,
    DeliveryState,
    DeliveryStatus,
    Phase,
    Reason,
    Status,
)
from wasession_operator import objects
from wasession_operator.plan import Backoff, Node, Plan, Refusal, update_scope
from wasession_operator.plan.actions import (
    ApplySecret,
    CheckPod,
    CreatePod,
    DeletePod,
    RepairPod,
)
from wasession_operator.settings import NodeLost

READY, POD_READY, DEGRADED = ConditionType.READY, ConditionType.POD_READY, ConditionType.DEGRADED
FORCE = SETTINGS.model_copy(update={"node_lost": NodeLost.FORCE_DELETE})


def test_a_complete_session_needs_no_action() -> None:
    result = plan(session(), facts(report=report()), SETTINGS)
    assert result.actions == []
    assert result.status.phase is Phase.READY
    assert result.status.account_status is AccountStatus.READY


def test_a_missing_pod_of_a_valid_login_is_a_restoration() -> None:
    result = plan(session(VALID), facts(pod=None), SETTINGS)
    assert result.actions == [ApplySecret(0), CreatePod(restoring=True, token_id="t1")]
    assert result.status.phase is Phase.RESTORING
    assert result.status.session_valid


def test_a_session_waits_for_a_start_slot() -> None:
    result = plan(session(), facts(pod=None, may_start=False), SETTINGS)
    assert result.actions == []
    assert condition(result, READY) == ("False", Reason.START_QUEUED)


def test_a_session_says_whose_start_budget_it_awaits() -> None:
    seen = facts(pod=None, may_start=False, awaited_budget="node worker-1")
    result = plan(session(), seen, SETTINGS)
    ready = result.status.condition(READY)
    assert ready is not None
    assert ready.message == "Other sessions start first: node worker-1 has no start budget left."


def test_before_slots_are_granted_the_status_stays_as_it_is() -> None:
    """So a starting operator writes nothing that it takes back a moment later."""
    before = plan(session(VALID), facts(pod=None), SETTINGS).status
    result = plan(session(before), facts(pod=None, may_start=None), SETTINGS)
    assert result.actions == []
    assert result.status == before


# --- pods that terminate --------------------------------------------------------------------------


def disrupted(reason: str) -> dict[str, str]:
    return {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": "PodGC: node no longer exists",
    }


OOM = [{"name": "session", "state": {"terminated": {"reason": "OOMKilled"}}}]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"phase": "Failed"}, Reason.POD_FAILED),
        ({"phase": "Succeeded"}, Reason.POD_SUCCEEDED),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."},
            Reason.EVICTED,
        ),
        ({"phase": "Failed", "conditions": [disrupted("TerminationByKubelet")]}, Reason.EVICTED),
        ({"phase": "Failed", "conditions": [disrupted("DeletionByPodGC")]}, Reason.NODE_GONE),
        ({"phase": "Failed", "containerStatuses": OOM}, Reason.OOM_KILLED),
    ],
)
def test_a_pod_that_has_ended_is_deleted_and_counts_as_a_failure(
    status: dict[str, Any], reason: Reason
) -> None:
    result = plan(session(VALID), facts(pod=pod(ready=False, **status)), SETTINGS)
    assert result.actions == [DeletePod("pod-uid", reason, failed=True)]
    assert condition(result, DEGRADED) == ("True", reason)
    # The reason stays until the next pod is there; the restart is counted under it.
    going = plan(
        session(result.status), facts(pod=terminating(pod(ready=False, **status))), SETTINGS
    )
    assert condition(going, POD_READY) == ("False", reason)
    gone = plan(session(going.status), facts(pod=None), SETTINGS)
    assert (gone.status.restarts.count, gone.status.restarts.reason) == (1, reason)
    assert reason in event_reasons(gone)


def test_the_next_pod_waits_until_the_old_one_is_gone() -> None:
    result = plan(session(VALID), facts(pod=terminating()), SETTINGS)
    assert result.actions == []
    assert condition(result, READY) == ("False", Reason.POD_TERMINATING)


def test_an_eviction_is_distinguished_from_a_deletion() -> None:
    target = {"type": "DisruptionTarget", "status": "True", "message": "Eviction API: evicting"}
    evicted = plan(session(VALID), facts(pod=terminating(pod(conditions=[target]))), SETTINGS)
    assert condition(evicted, POD_READY) == ("False", Reason.EVICTED)
    assert "Eviction API" in message(evicted, POD_READY)
    assert (
        plan(session(evicted.status), facts(pod=None), SETTINGS).status.restarts.reason
        == Reason.EVICTED
    )
    deleted = plan(session(VALID), facts(pod=terminating()), SETTINGS)
    assert (
        plan(session(deleted.status), facts(pod=None), SETTINGS).status.restarts.reason
        == Reason.POD_DELETED
    )


def test_a_pod_that_was_replaced_unseen_is_counted() -> None:
    before = VALID.model_copy(update={"pod_uid": "older"})
    result = plan(session(before), facts(report=report()), SETTINGS)
    assert (result.status.restarts.count, result.status.restarts.reason) == (1, Reason.POD_DELETED)
    assert result.status.pod_uid == "pod-uid"


def test_starts_of_the_container_are_counted_too() -> None:
    def started(times: int, reason: str) -> list[dict[str, Any]]:
        last = {"terminated": {"reason": reason}}
        return [
            {"name": "session", "restartCount": times, "state": {"running": {}}, "lastState": last}
        ]

    first = plan(
        session(VALID), facts(pod=pod(containerStatuses=started(2, "OOMKilled"))), SETTINGS
    )
    assert (first.status.restarts.count, first.status.restarts.reason) == (2, Reason.OOM_KILLED)
    assert Reason.OOM_KILLED in event_reasons(first)
    same = plan(
        session(first.status), facts(pod=pod(containerStatuses=started(2, "OOMKilled"))), SETTINGS
    )
    assert same.status.restarts == first.status.restarts
    more = plan(
        session(first.status), facts(pod=pod(containerStatuses=started(3, "Error"))), SETTINGS
    )
    assert (more.status.restarts.count, more.status.restarts.reason) == (
        3,
        Reason.CONTAINER_RESTARTED,
    )
    gone = plan(session(more.status), facts(pod=None), SETTINGS)
    assert (gone.status.restarts.count, gone.status.restarts.container) == (4, 0)


def test_the_next_pod_waits_for_the_backoff() -> None:
    failed = facts(pod=None, failures=Backoff(1, NOW + timedelta(seconds=2)))
    result = plan(session(), failed, SETTINGS)
    assert result.actions == []
    assert result.requeue_after == timedelta(seconds=2)
    assert condition(result, READY) == ("False", Reason.BACK_OFF)
    assert plan(session(), replace(failed, now=NOW + timedelta(seconds=2)), SETTINGS).actions == [
        ApplySecret(0),
        CreatePod(restoring=False, token_id="t1"),
    ]


def test_the_backoff_grows_and_resets() -> None:
    backoff, now, waits = Backoff(), NOW, []
    for _ in range(10):
        backoff = backoff.after(now, jitter=1)
        waits.append(backoff.wait(now).total_seconds())
        now += backoff.wait(now)
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert backoff.after(now + timedelta(minutes=10), jitter=1).count == 11
    assert backoff.after(now + timedelta(minutes=11), jitter=1).count == 1
    assert Backoff().after(now, jitter=1.2).wait(now) == timedelta(seconds=2.4)


def test_a_pod_that_the_api_server_rejects_shows_its_message() -> None:
    refusal = Refusal(
        Reason.POD_CREATE_FAILED, "exceeded quota", Backoff(1, NOW + timedelta(seconds=2))
    )
    result = plan(session(), facts(pod=None, refusals={CreatePod: refusal}), SETTINGS)
    assert condition(result, READY) == ("False", Reason.POD_CREATE_FAILED)
    assert condition(result, DEGRADED) == ("True", Reason.POD_CREATE_FAILED)
    assert message(result, READY) == "exceeded quota"
    assert result.requeue_after == timedelta(seconds=2)


# --- nodes ----------------------------------------------------------------------------------------


def test_a_pod_on_a_silent_node_stays_where_it_is() -> None:
    result = plan(
        session(VALID), facts(pod=pod(ready=False), node=silent(60), report=report()), SETTINGS
    )
    assert result.actions == []
    assert result.status.phase is Phase.RESTORING
    assert result.status.account_status is AccountStatus.DISCONNECTED
    assert condition(result, READY) == ("False", Reason.NODE_LOST)
    assert result.status.session_valid


@pytest.mark.parametrize(
    ("node", "settings", "taken"),
    [
        (silent(60), SETTINGS, None),
        (silent(4), FORCE, None),
        (silent(5), FORCE, Reason.NODE_LOST),
        (silent(0, out_of_service=True), SETTINGS, Reason.NODE_LOST),
        (Node("node-1", out_of_service=True), SETTINGS, None),
        (Node("node-1"), FORCE, None),
        (Node("node-1", gone=True), SETTINGS, Reason.NODE_GONE),
    ],
)
@pytest.mark.parametrize("deleting", [False, True])
def test_a_terminating_pod_is_force_deleted_only_where_it_cannot_run(
    node: Node, settings: Any, taken: Reason | None, deleting: bool
) -> None:
    result = plan(session(VALID, deleting=deleting), facts(pod=terminating(), node=node), settings)
    assert result.actions == ([DeletePod("pod-uid", taken, grace_seconds=0)] if taken else [])
    if node.not_ready_since and not taken:
        assert condition(result, DEGRADED) == ("True", Reason.NODE_LOST)
        assert "out-of-service" in message(result, DEGRADED)


def test_the_plan_is_requeued_for_the_end_of_the_grace_of_a_lost_node() -> None:
    result = plan(session(VALID), facts(pod=terminating(), node=silent(4)), FORCE)
    assert result.requeue_after == timedelta(minutes=1)


def test_a_pod_of_a_deleted_node_is_removed_by_kubernetes() -> None:
    result = plan(
        session(VALID), facts(pod=pod(ready=False), node=Node("node-1", gone=True)), SETTINGS
    )
    assert result.actions == []
    assert condition(result, DEGRADED) == ("True", Reason.NODE_GONE)


# --- pods that do not start -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "reason", "text"),
    [
        (
            {"containerStatuses": waiting("ImagePullBackOff", "not found: x")},
            Reason.IMAGE_PULL_BACK_OFF,
            "not found: x",
        ),
        (
            {"containerStatuses": waiting("ErrImageNeverPull")},
            Reason.IMAGE_PULL_BACK_OFF,
            "ErrImageNeverPull",
        ),
        (
            {"containerStatuses": waiting("CreateContainerConfigError", "no secret")},
            Reason.CREATE_CONTAINER_CONFIG_ERROR,
            "no secret",
        ),
        (
            {"containerStatuses": waiting("CreateContainerError", "name in use")},
            Reason.CREATE_CONTAINER_ERROR,
            "name in use",
        ),
        (
            {"containerStatuses": waiting("RunContainerError")},
            Reason.RUN_CONTAINER_ERROR,
            "cannot be started",
        ),
        (
            {"containerStatuses": waiting("CrashLoopBackOff", terminated={"reason": "OOMKilled"})},
            Reason.OOM_KILLED,
            "memory",
        ),
        (
            {
                "containerStatuses": waiting(
                    "CrashLoopBackOff", terminated={"reason": "Error", "message": "bad settings"}
                )
            },
            Reason.CRASH_LOOP_BACK_OFF,
            "bad settings",
        ),
        (
            {"conditions": [unschedulable(timedelta(seconds=30))]},
            Reason.UNSCHEDULABLE,
            "0/2 nodes",
        ),
    ],
)
def test_a_stalled_pod_has_a_reason(status: dict[str, Any], reason: Reason, text: str) -> None:
    result = plan(session(), facts(pod=pod(ready=False, phase="Pending", **status)), SETTINGS)
    assert result.actions == []
    assert condition(result, POD_READY) == ("False", reason)
    assert condition(result, DEGRADED) == ("True", reason)
    assert any(text in c.message for c in result.status.conditions)
    assert event_reasons(result) == [reason]


def test_a_short_wait_for_the_volume_is_no_problem() -> None:
    young = pod(ready=False, phase="Pending", conditions=[unschedulable(timedelta(seconds=2))])
    result = plan(session(), facts(pod=young, pvc=pvc("Pending")), SETTINGS)
    assert condition(result, DEGRADED) == ("False", Reason.AS_EXPECTED)
    assert result.events == []
    assert result.requeue_after == timedelta(seconds=28)


def test_a_pod_that_never_becomes_ready_is_a_problem() -> None:
    starting = facts(pod=pod(ready=False))
    result = plan(session(), starting, SETTINGS)
    assert condition(result, READY) == ("False", Reason.POD_NOT_READY)
    assert condition(result, DEGRADED)[0] == "False"
    assert result.requeue_after == timedelta(minutes=1), "the Secret may be missing"
    late = plan(session(), replace(starting, now=NOW + timedelta(minutes=3)), SETTINGS)
    assert condition(late, DEGRADED) == ("True", Reason.POD_NOT_READY)


def test_a_pod_that_the_scheduler_has_not_seen_yet_waits_for_a_node() -> None:
    """So does one that it has just failed to place: the status does not change."""
    fresh, refused = (
        pod(ready=False, phase="Pending"),
        {"type": "PodScheduled", "status": "False", "message": "no volume"},
    )
    del fresh["spec"]["nodeName"]
    waiting = {
        **fresh,
        "status": {**fresh["status"], "conditions": [*fresh["status"]["conditions"], refused]},
    }
    for candidate in (fresh, waiting):
        assert condition(plan(session(VALID), facts(pod=candidate), SETTINGS), READY) == (
            "False",
            Reason.POD_PENDING,
        )


def test_a_problem_is_emitted_once() -> None:
    stuck = facts(
        pod=pod(ready=False, phase="Pending", containerStatuses=waiting("ImagePullBackOff", "x"))
    )
    first = plan(session(), stuck, SETTINGS)
    again = plan(session(first.status), replace(stuck, now=NOW + timedelta(minutes=1)), SETTINGS)
    assert again.events == []
    assert again.status == first.status


# --- pods that do not answer ----------------------------------------------------------------------


def reported() -> Status:
    return plan(
        session(VALID), facts(report=report(session_valid=True, last_connected=NOW)), SETTINGS
    ).status


def unanswered(before: Status, seconds: float) -> Plan:
    called = facts(silent_since=NOW, report=None)
    return plan(session(before), replace(called, now=NOW + timedelta(seconds=seconds)), SETTINGS)


def test_the_last_report_stands_for_a_while_without_an_answer() -> None:
    """So a new operator, or a broken stream, writes nothing."""
    before = reported()
    result = unanswered(before, 9)
    assert result.status == before
    assert result.events == []
    assert result.requeue_after == timedelta(seconds=1)


def test_a_pod_that_does_not_answer_is_no_problem_at_first() -> None:
    result = unanswered(reported(), 10)
    assert result.status.phase is Phase.RESTORING
    assert result.status.session_valid
    assert result.status.last_connected == NOW
    assert condition(result, READY) == ("False", Reason.POD_UNREACHABLE)
    assert condition(result, DEGRADED)[0] == "False"
    late = unanswered(result.status, 60)
    assert condition(late, DEGRADED) == ("True", Reason.POD_UNREACHABLE)


@pytest.mark.parametrize("error", ["the pod answered 503", "no free file descriptor"])
def test_a_pod_that_does_not_answer_is_reported_with_the_cause(error: str) -> None:
    called = facts(silent_since=NOW, report=None, watch_error=error)
    late = replace(called, now=NOW + timedelta(minutes=2))
    result = plan(session(reported()), late, SETTINGS)
    assert error in message(result, DEGRADED)
    assert "NetworkPolicy" not in message(result, DEGRADED)


def test_a_new_pod_has_no_report_to_stand() -> None:
    result = unanswered(VALID.model_copy(update={"pod_uid": "older"}), 1)
    assert condition(result, READY) == ("False", Reason.POD_UNREACHABLE)


@pytest.mark.parametrize("phase", [Phase.PENDING, Phase.STARTING, Phase.RESTORING])
def test_a_pod_that_has_just_become_ready_has_a_moment_to_answer(phase: Phase) -> None:
    """Its first report follows at once, and is written together with its readiness."""
    before = VALID.model_copy(update={"phase": phase, "pod_uid": "pod-uid"})
    result = unanswered(before, 1)
    assert result.status.phase is phase
    assert condition(result, POD_READY) == ("True", Reason.POD_RUNNING)
    assert result.requeue_after == timedelta(seconds=1)
    assert condition(unanswered(before, 2), READY) == ("False", Reason.POD_UNREACHABLE)


def test_the_report_of_another_pod_does_not_stand() -> None:
    result = unanswered(VALID.model_copy(update={"phase": Phase.READY, "pod_uid": "older"}), 1)
    assert result.status.phase is Phase.RESTORING


def test_the_time_before_the_pod_was_ready_does_not_count_as_silence() -> None:
    young = pod()
    young["status"]["conditions"][0]["lastTransitionTime"] = (
        NOW - timedelta(seconds=5)
    ).isoformat()
    result = plan(session(), facts(pod=young, silent_since=NOW - timedelta(minutes=5)), SETTINGS)
    assert condition(result, DEGRADED)[0] == "False"


# --- reports --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "reason", "degraded"),
    [
        (Phase.RESTORING, Reason.LOGIN_RESTORING, False),
        (Phase.AUTHENTICATING, Reason.WAITING_FOR_SCAN, False),
        (Phase.RECONNECTING, Reason.CONNECTION_LOST, False),
        (Phase.LOGGED_OUT, Reason.LOGGED_OUT_BY_PHONE, False),
        (Phase.AUTHENTICATING, Reason.RESTORATION_FAILED, True),
        (Phase.RESTORING, Reason.WHATSAPP_UNREACHABLE, True),
        (Phase.STARTING, Reason.BROWSER_FAILED, True),
        (Phase.FAILED, Reason.VOLUME_FULL, True),
        (Phase.FAILED, "SomethingNew", True),
        (Phase.SYNCING, "SomethingNew", False),
    ],
)
def test_reports_that_need_attention_degrade_the_session(
    phase: Phase, reason: str, degraded: bool
) -> None:
    result = plan(
        session(VALID), facts(report=report(phase, reason=reason, message="Why.")), SETTINGS
    )
    assert result.status.phase is phase
    assert condition(result, READY) == ("False", reason)
    assert (condition(result, DEGRADED) == ("True", reason)) is degraded


def test_a_warning_degrades_a_session_that_works() -> None:
    warned = report(warnings=[Notice(reason="PhoneOffline", message="Not seen for 10 days.")])
    result = plan(session(VALID), facts(report=warned), SETTINGS)
    assert result.status.phase is Phase.READY
    assert condition(result, READY)[0] == "True"
    assert condition(result, DEGRADED) == ("True", Reason.PHONE_OFFLINE)
    assert Reason.PHONE_OFFLINE in event_reasons(result)


# --- spec changes ---------------------------------------------------------------------------------


def test_a_changed_template_replaces_the_pod_only_with_rolling_updates() -> None:
    changed: dict[str, Any] = {"browser": {"locale": "de-DE"}}
    on_delete = plan(session(VALID, **changed), facts(report=report()), SETTINGS)
    assert on_delete.actions == []
    assert condition(on_delete, ConditionType.PROGRESSING) == ("False", Reason.UPDATE_PENDING)
    rolling = session(VALID, **changed, updateStrategy="RollingUpdate")
    assert plan(rolling, facts(report=report()), SETTINGS).actions == [
        DeletePod("pod-uid", Reason.TEMPLATE_CHANGED)
    ]


def test_an_update_waits_for_a_slot() -> None:
    rolling = session(VALID, browser={"locale": "de-DE"}, updateStrategy="RollingUpdate")
    result = plan(rolling, facts(report=report(), may_update=False), SETTINGS)
    assert result.actions == []
    assert condition(result, ConditionType.PROGRESSING) == ("False", Reason.UPDATE_PENDING)


CHANGES: Any = st.sampled_from(
    [
        {"browser": {"locale": "de-DE"}, "updateStrategy": "RollingUpdate"},
        {"annotations": {"restart": "1"}},
    ]
)


@given(CHANGES)
def test_a_working_pod_runs_until_the_api_server_accepts_the_next_one(spec: dict[str, Any]) -> None:
    changed = session(VALID, **spec)
    template = objects.desired_hash("ns", "sales", "uid-1", changed.spec, SETTINGS)
    unknown = facts(report=report(session_valid=True), accepted_template=None)
    checked = plan(changed, unknown, SETTINGS)
    assert checked.actions == [CheckPod(template)]
    assert checked.status.phase is Phase.READY
    accepted = replace(unknown, accepted_template=template)
    assert of(DeletePod, plan(changed, accepted, SETTINGS))
    another = replace(unknown, accepted_template="of another spec")
    assert not of(DeletePod, plan(changed, another, SETTINGS))


@given(CHANGES)
def test_a_pod_is_not_replaced_by_one_that_the_api_server_rejects(spec: dict[str, Any]) -> None:
    refusal = Refusal(Reason.UPDATE_REFUSED, "not a valid operator", Backoff(1, NOW))
    refused = facts(
        report=report(session_valid=True), accepted_template=None, refusals={CheckPod: refusal}
    )
    result = plan(session(VALID, **spec), refused, SETTINGS)
    assert [type(action) for action in result.actions] == [CheckPod], "it is checked again"
    assert result.status.phase is Phase.READY
    assert condition(result, DEGRADED) == ("True", Reason.UPDATE_REFUSED)
    assert condition(result, ConditionType.PROGRESSING) == ("False", Reason.UPDATE_REFUSED)
    assert "not a valid operator" in message(result, DEGRADED)
    assert event_reasons(result)[0] == Reason.UPDATE_REFUSED


def test_a_pod_that_has_failed_needs_no_check() -> None:
    mended = session(VALID, annotations={"restart": "1"})
    broken = pod(ready=False, containerStatuses=waiting("CrashLoopBackOff"))
    result = plan(mended, facts(pod=broken, accepted_template=None), SETTINGS)
    assert of(DeletePod, result) == [DeletePod("pod-uid", Reason.RESTART_REQUESTED)]


def test_an_update_under_way_continues() -> None:
    """The operator has restarted since it recorded the update, and no slots are granted yet."""
    changed: dict[str, Any] = {"browser": {"locale": "de-DE"}, "updateStrategy": "RollingUpdate"}
    begun = plan(session(VALID, **changed), facts(report=report()), SETTINGS).status
    result = plan(session(begun, **changed), facts(report=report(), may_update=False), SETTINGS)
    assert result.actions == [DeletePod("pod-uid", Reason.TEMPLATE_CHANGED)]
    assert result.status == begun


def test_a_pod_that_has_never_run_is_replaced_at_once() -> None:
    stuck = pod(ready=False, phase="Pending", containerStatuses=waiting("ImagePullBackOff"))
    result = plan(session(image="other"), facts(pod=stuck, may_update=False), SETTINGS)
    assert result.actions == [DeletePod("pod-uid", Reason.TEMPLATE_CHANGED)]


@pytest.mark.parametrize(
    "broken",
    [
        pod(ready=False, containerStatuses=waiting("CrashLoopBackOff")),
        pod(ready=False, containerStatuses=waiting("CreateContainerConfigError")),
        pod(ready=False, phase="Pending", conditions=[unschedulable(timedelta(minutes=1))]),
        pod(ready=False),
    ],
)
@pytest.mark.parametrize("strategy", ["OnDelete", "RollingUpdate"])
def test_a_pod_that_does_not_work_is_replaced_when_its_template_changes(
    broken: dict[str, Any], strategy: str
) -> None:
    """It has nothing to lose, and the change may be what repairs it; so it has no turn to await."""
    mended = session(VALID, browser={"locale": "de-DE"}, updateStrategy=strategy)
    late = facts(pod=broken, now=NOW + timedelta(minutes=3), may_update=False)
    assert of(DeletePod, plan(mended, late, SETTINGS)) == [
        DeletePod("pod-uid", Reason.TEMPLATE_CHANGED)
    ]
    same = replace(mended, spec=session(updateStrategy=strategy).spec)
    assert of(DeletePod, plan(same, late, SETTINGS)) == []


@pytest.mark.parametrize("reason", [Reason.BROWSER_FAILED, Reason.PROXY_FAILED])
def test_a_session_that_has_failed_is_replaced_when_its_template_changes(reason: Reason) -> None:
    failed = facts(report=report(Phase.FAILED, reason=reason, session_valid=True))
    mended = session(VALID, browser={"locale": "de-DE"})
    assert of(DeletePod, plan(mended, failed, SETTINGS)) == [
        DeletePod("pod-uid", Reason.TEMPLATE_CHANGED)
    ]


@pytest.mark.parametrize("young", [pod(ready=False), pod()])
def test_a_pod_that_may_still_work_is_not_replaced_on_delete(young: dict[str, Any]) -> None:
    changed = session(VALID, browser={"locale": "de-DE"})
    assert plan(changed, facts(pod=young), SETTINGS).actions == []
    away = facts(pod=pod(ready=False), node=silent(60), now=NOW + timedelta(hours=1))
    assert plan(changed, away, SETTINGS).actions == [], "its node is what does not work"


def template(labels: dict[str, str], annotations: dict[str, str]) -> dict[str, Any]:
    return {"podTemplate": {"metadata": {"labels": labels, "annotations": annotations}}}


@pytest.mark.parametrize("strategy", ["OnDelete", "RollingUpdate"])
def test_changed_labels_and_annotations_are_patched_onto_the_running_pod(strategy: str) -> None:
    before = template({"team": "a", "tier": "x"}, {"note": "1", "old": "y"})
    after = template({"team": "b"}, {"note": "2", "new": "z"}) | {"updateStrategy": strategy}
    running = facts(pod=pod(spec=before), report=report(session_valid=True))
    changed = session(VALID, **after)
    [patch] = plan(changed, running, SETTINGS).actions
    assert isinstance(patch, RepairPod)
    assert patch.labels == {"team": "b", "tier": None}
    record = pod(spec=after)["metadata"]["annotations"][names.ANNOTATION_TEMPLATE_METADATA]
    assert {**patch.annotations} == {
        "note": "2",
        "new": "z",
        "old": None,
        objects.SAFE_TO_EVICT: "true",
        names.ANNOTATION_TEMPLATE_METADATA: record,
    }
    patched = running.pod or {}
    patched["metadata"]["labels"] |= patch.labels
    patched["metadata"]["annotations"] |= patch.annotations
    assert plan(changed, replace(running, pod=patched), SETTINGS).actions == []


def annotations_by(result: Plan) -> dict[str, str | None]:
    """Return the annotations that a plan patches onto the pod, without the record of them."""
    [patch] = of(RepairPod, result)
    assert patch.labels == {}
    return {k: v for k, v in patch.annotations.items() if k != names.ANNOTATION_TEMPLATE_METADATA}


EVICTABLE = {objects.SAFE_TO_EVICT: "true"}
PROTECTED = {objects.SAFE_TO_EVICT: "false", objects.DO_NOT_DISRUPT: "true"}


def noted(status: Status, phase: Phase) -> Status:
    return status.model_copy(update={"phase": phase})


@pytest.mark.parametrize("status", [noted(VALID, Phase.READY), noted(Status(), Phase.FAILED)])
def test_a_pod_may_be_evicted_when_its_phone_is_linked_or_nobody_will(status: Status) -> None:
    seen = report(status.phase or Phase.READY, session_valid=status.session_valid or False)
    new = facts(pod=pod(restoring=False), report=seen)
    assert annotations_by(plan(session(status), new, SETTINGS)) == EVICTABLE | {
        objects.DO_NOT_DISRUPT: None
    }
    released = replace(new, pod=pod())
    assert not of(RepairPod, plan(session(status), released, SETTINGS))


def test_a_login_that_is_not_on_the_volume_yet_keeps_its_pod() -> None:
    seen = facts(pod=pod(restoring=False), report=report())
    result = plan(session(noted(Status(), Phase.READY)), seen, SETTINGS)
    assert not of(RepairPod, result)
    assert result.requeue_after is None, "its next report comes by itself"


def test_a_pod_is_released_only_after_the_status_is_written() -> None:
    """So a start takes as many writes as without it."""
    linked = facts(pod=pod(restoring=False), report=report(session_valid=True))
    first = plan(session(noted(Status(), Phase.SYNCING)), linked, SETTINGS)
    assert not of(RepairPod, first)
    assert first.status.phase is Phase.READY
    assert first.requeue_after == timedelta(seconds=1)
    second = plan(session(first.status), linked, SETTINGS)
    assert of(RepairPod, second)


@pytest.mark.parametrize(
    "phase", [Phase.AUTHENTICATING, Phase.PASSKEY_REQUIRED, Phase.SYNCING], ids=str
)
def test_a_pod_is_kept_while_a_phone_is_linked_again(phase: Phase) -> None:
    seen = facts(report=report(phase))
    assert annotations_by(plan(session(noted(Status(), phase)), seen, SETTINGS)) == PROTECTED
    kept = replace(seen, pod=pod(restoring=False))
    assert not of(RepairPod, plan(session(noted(Status(), phase)), kept, SETTINGS))


@pytest.mark.parametrize("restoring", [True, False])
def test_other_phases_leave_the_pod_as_it_is(restoring: bool) -> None:
    """A restoration takes no write for it: neither while messages sync, nor after."""
    seen = facts(pod=pod(restoring=restoring))
    for phase in (Phase.STARTING, Phase.RESTORING, Phase.RECONNECTING, Phase.CONFLICT):
        assert not of(RepairPod, plan(session(noted(VALID, phase)), seen, SETTINGS))
    syncing = replace(seen, report=report(Phase.SYNCING, session_valid=True))
    assert not of(RepairPod, plan(session(noted(VALID, Phase.SYNCING)), syncing, SETTINGS))


def test_a_class_has_the_last_word_on_evictions() -> None:
    spec = template({}, {objects.SAFE_TO_EVICT: "false"})
    made = pod(spec=spec)["metadata"]["annotations"]
    assert made[objects.SAFE_TO_EVICT] == "false"
    assert objects.DO_NOT_DISRUPT not in made


def test_a_template_cannot_replace_the_operators_own_metadata() -> None:
    own = {"wasession.dev/restart": "9", "wasession.dev/template-hash": "x"}
    made = pod(spec=template({"wasession.dev/session": "other"}, own))
    assert made["metadata"]["labels"]["wasession.dev/session"] == "sales"
    assert "wasession.dev/restart" not in made["metadata"]["annotations"]
    given = session(VALID, **template({"wasession.dev/session": "other"}, own))
    assert plan(given, facts(pod=made, report=report()), SETTINGS).actions == []


def test_suspend_stops_the_pod_and_retains_the_claim() -> None:
    result = plan(session(VALID, suspend=True), facts(report=report()), SETTINGS)
    assert result.actions == [DeletePod("pod-uid", Reason.SUSPENDED)]
    going = plan(session(result.status, suspend=True), facts(pod=terminating()), SETTINGS)
    assert going.actions == []
    for stopping in (result, going):
        assert stopping.status.phase is Phase.PENDING, "the volume is still in use"
        assert condition(stopping, READY) == ("False", Reason.POD_TERMINATING)
    stopped = plan(session(going.status, suspend=True), facts(pod=None), SETTINGS)
    assert stopped.actions == []
    assert stopped.status.phase is Phase.SUSPENDED
    assert event_reasons(stopped) == [Reason.SUSPENDED]
    assert stopped.status.session_valid
    assert condition(stopped, READY) == ("False", Reason.SUSPENDED)
    resumed = plan(session(stopped.status), facts(pod=None), SETTINGS)
    assert resumed.actions == [ApplySecret(0), CreatePod(restoring=True, token_id="t1")]
    assert resumed.status.restarts.count == 0, "a requested stop is no restart"


def test_a_restart_is_done_once_for_each_value() -> None:
    asked = session(VALID, annotations={"restart": "1"})
    assert plan(asked, facts(report=report()), SETTINGS).actions == [
        DeletePod("pod-uid", Reason.RESTART_REQUESTED)
    ]
    assert plan(asked, facts(pod=None), SETTINGS).actions == [
        ApplySecret(0),
        CreatePod(restoring=True, restart="1", token_id="t1"),
    ]
    restarted = objects.make_pod(
        "ns", "sales", "uid-1", asked.spec, SETTINGS, restoring=True, restart="1", token_id="t1"
    )
    done = pod()
    done["metadata"]["annotations"] = restarted["metadata"]["annotations"]
    assert plan(asked, facts(pod=done, report=report()), SETTINGS).actions == []


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"suspend": True}, "suspended"),
        ({"annotations": {"restart": "1"}}, "restarted"),
        ({"browser": {"locale": "de-DE"}}, "updated"),
    ],
)
def test_what_waits_for_the_volume_is_shown(spec: dict[str, Any], text: str) -> None:
    """The claim is being deleted; the login would be lost with the pod."""
    held = facts(pvc=terminating(pvc()), report=report(session_valid=True))
    result = plan(session(VALID, **spec), held, SETTINGS)
    assert of(DeletePod, result) == []
    assert condition(result, ConditionType.PROGRESSING) == ("False", Reason.VOLUME_TERMINATING)
    assert text in message(result, ConditionType.PROGRESSING)


# --- ownership ------------------------------------------------------------------------------------


def test_a_foreign_pod_is_reported_and_left_alone() -> None:
    result = plan(
        session(), facts(pod=owned_by(pod(), "ReplicaSet", "web"), report=report()), SETTINGS
    )
    assert result.actions == []
    assert result.status.phase is Phase.FAILED
    assert condition(result, READY) == ("False", Reason.NAME_CONFLICT)


@pytest.mark.parametrize("obj", [pod(), pod(ready=False), terminating()])
def test_a_pod_without_its_labels_is_the_sessions_and_gets_them_back(obj: dict[str, Any]) -> None:
    """Its controller is the session: anybody may edit labels."""
    bare = {**obj, "metadata": {**obj["metadata"], "labels": {"mine": "1"}}}
    seen = facts(pod=bare, report=report(session_valid=True))
    result = plan(session(VALID), seen, SETTINGS)
    [repair] = of(RepairPod, result)
    assert [type(action) for action in result.actions] == [ApplySecret, RepairPod]
    assert isinstance(repair, RepairPod)
    assert repair.uid == "pod-uid"
    assert repair.labels == obj["metadata"]["labels"]
    with_labels = plan(session(VALID), replace(seen, pod=obj), SETTINGS)
    assert with_labels.actions == []
    assert result.status == with_labels.status


def test_the_pod_of_an_earlier_session_is_awaited() -> None:
    result = plan(
        session(), facts(pod=owned_by(pod(), "WhatsAppSession", "sales", "uid-0")), SETTINGS
    )
    assert result.actions == []
    assert condition(result, READY) == ("False", Reason.PREDECESSOR_TERMINATING)
    assert condition(result, DEGRADED)[0] == "False"


def test_a_pod_without_owner_is_replaced() -> None:
    """``--cascade=orphan`` leaves one behind, with the token and UID of a deleted session."""
    orphan = pod()
    del orphan["metadata"]["ownerReferences"]
    assert plan(session(), facts(pod=orphan), SETTINGS).actions == [
        DeletePod("pod-uid", Reason.POD_ORPHANED)
    ]


def test_a_shared_client_id_is_a_problem_but_works() -> None:
    result = plan(session(VALID), facts(report=report(), conflicting_session="older"), SETTINGS)
    assert result.status.phase is Phase.READY
    assert condition(result, DEGRADED) == ("True", Reason.CLIENT_ID_SHARED)
    assert "older" in message(result, DEGRADED)


def test_secret_and_pod_are_created_together() -> None:
    result = plan(session(VALID), facts(pod=None), SETTINGS)
    assert result.actions == [ApplySecret(0), CreatePod(restoring=True, token_id="t1")]


def test_all_conditions_are_set() -> None:
    state = DeliveryStatus(name="crm", state=DeliveryState.DELIVERING, since=NOW)
    known = facts(report=report(sandboxed=True, delivery_revision="1", deliveries=[state]))
    webhook = {"name": "crm", "url": "https://crm.example.com/", "signingKey": "crm"}
    kinds = [c.type for c in plan(session(webhooks=[webhook]), known, SETTINGS).status.conditions]
    only_while_true = [ConditionType.RECONCILING, ConditionType.STALLED]
    assert kinds == [kind for kind in ConditionType if kind not in only_while_true]
    assert all(
        isinstance(c, Condition) for c in plan(session(), facts(), SETTINGS).status.conditions
    )


# --- the proxy and the CA bundle ------------------------------------------------------------------

FILES: dict[str, Any] = {
    "browser": {"proxySecretRef": {"name": "wasession-proxy-sales"}},
    "caBundle": {"configMapName": "company-ca", "key": "ca.crt"},
}


@pytest.mark.parametrize("reason", [Reason.PROXY_CHANGED, Reason.CA_BUNDLE_CHANGED])
def test_files_that_the_browser_has_not_read_are_an_update(reason: Reason) -> None:
    changed = report(session_valid=True, warnings=[{"reason": reason}])
    seen = facts(report=changed, pod=pod(spec=FILES))
    waiting = plan(session(VALID, **FILES), seen, SETTINGS)
    assert not of(DeletePod, waiting)
    assert condition(waiting, ConditionType.PROGRESSING)[1] == Reason.UPDATE_PENDING
    assert "CA bundle" in message(waiting, ConditionType.PROGRESSING)
    assert condition(waiting, DEGRADED) == ("True", reason)
    rolling = session(VALID, updateStrategy="RollingUpdate", **FILES)
    queued = plan(rolling, replace(seen, may_update=False), SETTINGS)
    assert not of(DeletePod, queued)
    replaced = plan(rolling, seen, SETTINGS)
    assert of(DeletePod, replaced) == [DeletePod("pod-uid", Reason.TEMPLATE_CHANGED)]
    assert replaced.status.update is not None
    own = reason is Reason.PROXY_CHANGED
    assert replaced.status.update.own is own, "the CA bundle is the class's"
    scope = update_scope(rolling, seen.pod, changed, VALID, template_of(rolling))
    assert scope[0] == ("owner" if own else "class")


@pytest.mark.parametrize(
    ("reason", "given"),
    [(Reason.PROXY_CHANGED, "caBundle"), (Reason.CA_BUNDLE_CHANGED, "browser")],
)
def test_a_pod_is_not_believed_to_have_files_that_it_was_not_given(
    reason: Reason, given: str
) -> None:
    """Else it could have itself replaced, and halt the rollout of its class by not recovering."""
    spec = {given: FILES[given]}
    changed = report(session_valid=True, warnings=[{"reason": reason}])
    rolling = session(VALID, updateStrategy="RollingUpdate", **spec)
    result = plan(rolling, facts(report=changed, pod=pod(spec=spec)), SETTINGS)
    assert not of(DeletePod, result)
    assert result.status.update is None
    edited = pod(spec=spec)
    edited["metadata"]["annotations"]["wasession.dev/own-spec"] = None
    assert update_scope(rolling, edited, changed, VALID, template_of(rolling))[0] == "owner"
