"""The operator's decisions, one situation at a time, and the rules that hold in all of them."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wasession_api.report import Report
from wasession_api.v1alpha1 import AccountStatus, ConditionType, Phase, Reason, Spec, Status
from wasession_operator import objects
from wasession_operator.plan import (
    Action,
    CreatePod,
    CreatePvc,
    CreateSecret,
    DeletePod,
    DeletePvc,
    Facts,
    Failures,
    Logout,
    PatchPvc,
    Plan,
    Session,
    plan,
)
from wasession_operator.settings import NodeLost, Settings

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SETTINGS = Settings(session_image="session-pod:1")


def session(status: Status | None = None, *, deleting: bool = False, uid: str = "uid-1", **spec: Any) -> Session:
    annotations = spec.pop("annotations", {})
    deleted_at = NOW if deleting else None
    return Session("ns", "sales", uid, 3, Spec.model_validate(spec), status or Status(), deleted_at, annotations)


def pvc(phase: str = "Bound", **changes: Any) -> dict[str, Any]:
    claim = objects.make_pvc("ns", "sales", "uid-1", Spec.model_validate(changes.pop("spec", {})))
    claim["status"] = {"phase": phase}
    claim["metadata"] |= {"uid": "pvc-uid", **changes}
    return claim


def pod(ready: bool = True, phase: str = "Running", spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    found = objects.make_pod("ns", "sales", "uid-1", Spec.model_validate(spec or {}), SETTINGS, restoring=False)
    found["metadata"]["uid"] = "pod-uid"
    found["spec"]["nodeName"] = "node-1"
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}, *status.pop("conditions", [])]
    found["status"] = {"phase": phase, "conditions": conditions, **status}
    return found


def waiting(reason: str, message: str = "", **last: Any) -> list[dict[str, Any]]:
    return [{"name": "session", "state": {"waiting": {"reason": reason, "message": message}}, "lastState": last}]


def unschedulable(since: timedelta) -> dict[str, str]:
    at = (NOW - since).isoformat()
    return {"type": "PodScheduled", "status": "False", "message": "0/2 nodes", "lastTransitionTime": at}


def report(phase: Phase = Phase.READY, **fields: Any) -> Report:
    defaults: dict[str, Any] = {"client_id": "sales", "started_at": NOW, "seq": 1, "reason": "Connected", "phase": phase}
    return Report(**defaults | fields)


def facts(**changes: Any) -> Facts:
    return replace(Facts(now=NOW, pvc=pvc(), pod=pod(), secret=True), **changes)


def condition(result: Plan, kind: ConditionType) -> tuple[str, str]:
    found = {c.type: c for c in result.status.conditions}[kind]
    return found.status, found.reason


VALID = Status(session_valid=True, pvc_name="wasession-sales", pod_uid="pod-uid", last_connected=NOW)


# --- what is created --------------------------------------------------------------------------------------------------


def test_a_new_session_gets_secret_claim_and_pod_at_once() -> None:
    result = plan(session(), facts(pod=None, pvc=None, secret=False), SETTINGS)
    assert result.actions == [CreatePvc(), CreateSecret(), CreatePod(restoring=False)]
    assert result.status.phase is Phase.PENDING
    assert condition(result, ConditionType.READY) == ("False", Reason.POD_CREATED)


def test_a_session_with_everything_needs_nothing() -> None:
    result = plan(session(), facts(report=report()), SETTINGS)
    assert result.actions == []
    assert result.status.phase is Phase.READY
    assert result.status.account_status is AccountStatus.READY


def test_a_missing_pod_of_a_valid_login_is_a_restoration() -> None:
    result = plan(session(VALID), facts(pod=None), SETTINGS)
    assert result.actions == [CreatePod(restoring=True)]
    assert result.status.phase is Phase.RESTORING
    assert result.status.session_valid


def test_a_lost_claim_of_a_valid_login_is_never_replaced() -> None:
    for missing in (None, pvc("Lost")):
        result = plan(session(VALID), facts(pod=None, pvc=missing), SETTINGS)
        assert result.actions == []
        assert condition(result, ConditionType.STORAGE_READY) == ("False", Reason.VOLUME_LOST)
        assert result.status.phase is Phase.FAILED
        assert [event.reason for event in result.events] == [Reason.VOLUME_LOST]


def test_it_waits_for_its_turn() -> None:
    result = plan(session(), facts(pod=None, may_start=False), SETTINGS)
    assert result.actions == []
    assert condition(result, ConditionType.READY) == ("False", Reason.WAITING_FOR_TURN)


# --- pods that end ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"phase": "Failed"}, Reason.POD_FAILED),
        ({"phase": "Succeeded"}, Reason.POD_ENDED),
        ({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}, Reason.EVICTED),
    ],
)
def test_a_pod_that_has_ended_is_deleted_and_counts_as_a_failure(status: dict[str, Any], reason: Reason) -> None:
    result = plan(session(VALID), facts(pod=pod(ready=False, **status)), SETTINGS)
    assert result.actions == [DeletePod("pod-uid", reason, failed=True)]
    assert condition(result, ConditionType.DEGRADED) == ("True", reason)


def test_the_next_pod_waits_until_the_old_one_is_gone() -> None:
    ending = pod()
    ending["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:00Z"
    result = plan(session(VALID), facts(pod=ending), SETTINGS)
    assert result.actions == []
    assert condition(result, ConditionType.READY) == ("False", Reason.POD_TERMINATING)


def test_after_a_failure_it_waits_longer_each_time() -> None:
    waits = []
    for count in (1, 2, 3, 20):
        result = plan(session(), facts(pod=None, failures=Failures(count, NOW)), SETTINGS)
        assert result.actions == []
        waits.append(result.requeue_after)
    assert waits == [timedelta(seconds=2), timedelta(seconds=4), timedelta(seconds=8), timedelta(minutes=5)]
    later = facts(pod=None, failures=Failures(1, NOW - timedelta(seconds=2)))
    assert plan(session(), later, SETTINGS).actions == [CreatePod(restoring=False)]


def test_what_the_api_server_refuses_is_said_in_its_words() -> None:
    result = plan(session(), facts(pod=None, failures=Failures(1, NOW, refused="exceeded quota")), SETTINGS)
    assert condition(result, ConditionType.READY) == ("False", Reason.POD_REFUSED)
    assert result.requeue_after == timedelta(seconds=2)


# --- nodes ------------------------------------------------------------------------------------------------------------


def test_a_pod_on_a_node_without_power_is_left_where_it_is() -> None:
    lost = facts(pod=pod(ready=False), node_lost_since=NOW - timedelta(hours=1), report=report())
    result = plan(session(VALID), lost, SETTINGS)
    assert result.actions == []
    assert result.status.phase is Phase.RESTORING
    assert condition(result, ConditionType.READY) == ("False", Reason.NODE_LOST)
    assert result.status.session_valid


def test_an_ending_pod_on_a_lost_node_goes_by_the_setting() -> None:
    ending = pod()
    ending["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:00Z"
    lost = facts(pod=ending, node_lost_since=NOW - timedelta(minutes=5))
    assert plan(session(VALID), lost, SETTINGS).actions == []
    force = SETTINGS.model_copy(update={"node_lost": NodeLost.FORCE_DELETE})
    assert plan(session(VALID), lost, force).actions == [DeletePod("pod-uid", Reason.NODE_LOST, grace_seconds=0)]
    early = replace(lost, node_lost_since=NOW - timedelta(minutes=4))
    assert plan(session(VALID), early, force).actions == []


def test_an_ending_pod_whose_node_is_gone_is_taken_away() -> None:
    ending = pod()
    ending["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:00Z"
    result = plan(session(VALID), facts(pod=ending, node_gone=True), SETTINGS)
    assert result.actions == [DeletePod("pod-uid", Reason.NODE_GONE, grace_seconds=0)]


# --- pods that don't get going ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        ({"containerStatuses": waiting("ImagePullBackOff", "not found: x")}, Reason.IMAGE_UNAVAILABLE, "not found: x"),
        ({"containerStatuses": waiting("ErrImageNeverPull")}, Reason.IMAGE_UNAVAILABLE, "ErrImageNeverPull"),
        ({"containerStatuses": waiting("CreateContainerConfigError", "no secret")}, Reason.POD_REFUSED, "no secret"),
        (
            {"containerStatuses": waiting("CrashLoopBackOff", terminated={"reason": "OOMKilled"})},
            Reason.OUT_OF_MEMORY,
            "memory",
        ),
        (
            {"containerStatuses": waiting("CrashLoopBackOff", terminated={"reason": "Error", "message": "bad settings"})},
            Reason.CRASH_LOOP,
            "bad settings",
        ),
        (
            {"conditions": [unschedulable(timedelta(seconds=5))]},
            Reason.UNSCHEDULABLE,
            "0/2 nodes",
        ),
    ],
)
def test_what_holds_a_pod_up_is_said(status: dict[str, Any], reason: Reason, words: str) -> None:
    result = plan(session(), facts(pod=pod(ready=False, phase="Pending", **status)), SETTINGS)
    assert result.actions == []
    assert condition(result, ConditionType.POD_READY) == ("False", reason)
    assert condition(result, ConditionType.DEGRADED) == ("True", reason)
    assert any(words in c.message for c in result.status.conditions)
    assert [event.reason for event in result.events] == [reason]


def test_a_pod_that_waits_for_its_volume_a_moment_is_no_trouble() -> None:
    young = pod(ready=False, phase="Pending", conditions=[unschedulable(timedelta(seconds=2))])
    result = plan(session(), facts(pod=young, pvc=pvc("Pending")), SETTINGS)
    assert condition(result, ConditionType.DEGRADED) == ("False", Reason.AS_EXPECTED)
    assert result.events == []
    assert result.requeue_after == timedelta(seconds=3)


def test_a_claim_without_a_volume_names_its_class() -> None:
    old = pod(ready=False, phase="Pending", conditions=[unschedulable(timedelta(minutes=1))])
    waiting_claim = pvc("Pending", spec={"storage": {"storageClassName": "later"}})
    result = plan(session(storage={"storageClassName": "later"}), facts(pod=old, pvc=waiting_claim), SETTINGS)
    assert condition(result, ConditionType.STORAGE_READY) == ("False", Reason.VOLUME_PENDING)
    assert condition(result, ConditionType.DEGRADED) == ("True", Reason.VOLUME_PENDING)
    assert any("StorageClass later" in c.message for c in result.status.conditions)


def test_a_trouble_is_told_once() -> None:
    stuck = facts(pod=pod(ready=False, phase="Pending", containerStatuses=waiting("ImagePullBackOff", "x")))
    first = plan(session(), stuck, SETTINGS)
    again = plan(session(first.status), replace(stuck, now=NOW + timedelta(minutes=1)), SETTINGS)
    assert again.events == []
    assert again.status == first.status


# --- the report -------------------------------------------------------------------------------------------------------


def test_a_restoration_is_counted_once() -> None:
    before = Status(session_valid=True, restorations=4, last_connected=NOW - timedelta(hours=1), pod_uid="pod-uid")
    seen = facts(report=report(restored=True, session_valid=True, last_connected=NOW + timedelta(seconds=4)))
    first = plan(session(before), seen, SETTINGS)
    assert first.status.restorations == 5
    assert first.status.restored
    assert condition(first, ConditionType.RESTORED) == ("True", Reason.RESTORED)
    again = plan(session(first.status), seen, SETTINGS)
    assert again.status == first.status


def test_a_reconnection_is_no_restoration() -> None:
    before = Status(session_valid=True, restorations=4, last_connected=NOW + timedelta(minutes=1), pod_uid="pod-uid")
    seen = facts(report=report(restored=True, session_valid=True, last_connected=NOW + timedelta(minutes=5)))
    assert plan(session(before), seen, SETTINGS).status.restorations == 4


def test_what_was_known_stays_when_the_pod_is_not_heard() -> None:
    first = plan(session(), facts(report=report(session_valid=True, last_connected=NOW)), SETTINGS)
    silent = plan(session(first.status), facts(), SETTINGS)
    assert silent.status.session_valid
    assert silent.status.last_connected == NOW
    assert silent.status.phase is Phase.RESTORING
    assert condition(silent, ConditionType.AUTHENTICATED) == ("Unknown", Reason.POD_UNREACHABLE)


def test_a_proven_logout_ends_the_login() -> None:
    result = plan(session(VALID), facts(report=report(Phase.AUTHENTICATING, reason="WaitingForScan")), SETTINGS)
    assert result.status.session_valid is False
    assert condition(result, ConditionType.RESTORED) == ("False", Reason.NO_LOGIN)


# --- spec changes -----------------------------------------------------------------------------------------------------


def test_a_changed_template_restarts_the_pod_only_when_told_so() -> None:
    changed: dict[str, Any] = {"browser": {"locale": "de-DE"}}
    assert plan(session(VALID, **changed), facts(report=report()), SETTINGS).actions == []
    rolling = session(VALID, **changed, updateStrategy="RollingUpdate")
    assert plan(rolling, facts(report=report()), SETTINGS).actions == [DeletePod("pod-uid", Reason.TEMPLATE_CHANGED)]


def test_a_pod_that_never_ran_is_replaced_by_the_changed_one() -> None:
    stuck = pod(ready=False, phase="Pending", containerStatuses=waiting("ImagePullBackOff"))
    result = plan(session(browser={"image": "other"}), facts(pod=stuck), SETTINGS)
    assert result.actions == [DeletePod("pod-uid", Reason.TEMPLATE_CHANGED)]


def test_suspend_stops_the_pod_and_keeps_the_claim() -> None:
    result = plan(session(VALID, suspend=True), facts(report=report()), SETTINGS)
    assert result.actions == [DeletePod("pod-uid", Reason.SUSPENDED)]
    stopped = plan(session(VALID, suspend=True), facts(pod=None), SETTINGS)
    assert stopped.actions == []
    assert stopped.status.phase is Phase.SUSPENDED
    assert stopped.status.session_valid


def test_a_claim_grows_and_changes_hands_by_the_spec() -> None:
    grown = plan(session(storage={"size": "2Gi"}), facts(), SETTINGS)
    assert grown.actions == [PatchPvc({"spec": {"resources": {"requests": {"storage": "2Gi"}}}})]
    owned = plan(session(storage={"retention": {"whenDeleted": "Delete"}}), facts(), SETTINGS)
    assert owned.actions == [PatchPvc({"metadata": {"ownerReferences": [objects.owner_reference("sales", "uid-1")]}})]


# --- names that others have -------------------------------------------------------------------------------------------


def test_a_foreign_pod_is_reported_and_left_alone() -> None:
    foreign = pod()
    foreign["metadata"]["ownerReferences"][0] |= {"uid": "other", "name": "other"}
    result = plan(session(), facts(pod=foreign, report=report()), SETTINGS)
    assert result.actions == []
    assert condition(result, ConditionType.READY) == ("False", Reason.NAME_TAKEN)


def test_a_kept_claim_is_adopted_by_name_and_client_id_only() -> None:
    adopting = session(uid="uid-2")
    assert plan(adopting, facts(pod=None), SETTINGS).actions == [CreatePod(restoring=False)]
    other = session(uid="uid-2", clientId="other")
    result = plan(other, facts(pod=None), SETTINGS)
    assert result.actions == []
    assert condition(result, ConditionType.STORAGE_READY) == ("False", Reason.NAME_TAKEN)


# --- deletion ---------------------------------------------------------------------------------------------------------


def test_deletion_takes_the_pod_first_and_keeps_the_claim() -> None:
    first = plan(session(VALID, deleting=True), facts(), SETTINGS)
    assert first.actions == [DeletePod("pod-uid", Reason.TERMINATING)]
    assert not first.done
    last = plan(session(VALID, deleting=True), facts(pod=None), SETTINGS)
    assert last.actions == []
    assert last.done


def test_deletion_takes_the_claim_where_the_retention_says_so() -> None:
    going = session(VALID, deleting=True, storage={"retention": {"whenDeleted": "Delete"}})
    assert plan(going, facts(), SETTINGS).actions == [DeletePod("pod-uid", Reason.TERMINATING)]
    last = plan(going, facts(pod=None), SETTINGS)
    assert last.actions == [DeletePvc("pvc-uid")]
    assert last.done


def test_a_login_is_ended_before_deletion_only_when_asked_for() -> None:
    live = facts(report=report(session_valid=True))
    assert plan(session(VALID, deleting=True), live, SETTINGS).actions == [DeletePod("pod-uid", Reason.TERMINATING)]
    by_spec = session(VALID, deleting=True, logoutOnDelete=True)
    by_annotation = session(VALID, deleting=True, annotations={"wasession.dev/logout": "true"})
    for asked in (by_spec, by_annotation):
        assert plan(asked, live, SETTINGS).actions == [Logout()]
        over = facts(report=report(Phase.LOGGED_OUT, reason="LoggedOutByPhone"))
        assert plan(asked, over, SETTINGS).actions == [DeletePod("pod-uid", Reason.TERMINATING)]
        late = replace(live, now=NOW + timedelta(seconds=32))
        assert plan(asked, late, SETTINGS).actions == [DeletePod("pod-uid", Reason.TERMINATING)]
        assert plan(asked, facts(), SETTINGS).actions == [DeletePod("pod-uid", Reason.TERMINATING)]


def test_a_restart_is_done_once_for_each_value() -> None:
    asked = session(VALID, annotations={"wasession.dev/restart": "1"})
    assert plan(asked, facts(report=report()), SETTINGS).actions == [DeletePod("pod-uid", Reason.RESTART_REQUESTED)]
    assert plan(asked, facts(pod=None), SETTINGS).actions == [CreatePod(restoring=True, restart="1")]
    restarted = objects.make_pod("ns", "sales", "uid-1", Spec(), SETTINGS, restoring=True, restart="1")
    done = pod()
    done["metadata"]["annotations"] = restarted["metadata"]["annotations"]
    assert plan(asked, facts(pod=done, report=report()), SETTINGS).actions == []


# --- rules that hold in every situation -------------------------------------------------------------------------------

POD_STATES = st.sampled_from(
    [
        None,
        pod(),
        pod(ready=False),
        pod(ready=False, phase="Pending"),
        pod(ready=False, phase="Pending", containerStatuses=waiting("ImagePullBackOff")),
        pod(ready=False, phase="Failed"),
        pod(ready=False, phase="Succeeded"),
        {**pod(), "metadata": pod()["metadata"] | {"deletionTimestamp": "2026-01-02T03:04:00Z"}},
        {**pod(), "metadata": pod()["metadata"] | {"labels": {}}},
    ]
)
PVC_STATES = st.sampled_from([None, pvc(), pvc("Pending"), pvc("Lost"), pvc(deletionTimestamp="2026-01-02T03:04:00Z")])
STATUSES = st.sampled_from([Status(), VALID, Status(session_valid=False, pod_uid="old")])
SPECS: Any = st.fixed_dictionaries(
    {},
    optional={
        "suspend": st.booleans(),
        "updateStrategy": st.sampled_from(["OnDelete", "RollingUpdate"]),
        "storage": st.sampled_from([{"retention": {"whenDeleted": "Delete"}}, {"size": "2Gi"}]),
        "browser": st.just({"locale": "de-DE"}),
    },
)
FACTS = st.builds(
    Facts,
    now=st.just(NOW),
    pod=POD_STATES,
    pvc=PVC_STATES,
    secret=st.booleans(),
    report=st.sampled_from([None, report(), report(Phase.AUTHENTICATING), report(Phase.FAILED, reason="AccountBlocked")]),
    node_gone=st.booleans(),
    node_lost_since=st.sampled_from([None, NOW - timedelta(seconds=1), NOW - timedelta(hours=1)]),
    may_start=st.booleans(),
    failures=st.sampled_from([Failures(), Failures(1, NOW), Failures(3, NOW - timedelta(hours=1))]),
)


def of(kind: type[Action], result: Plan) -> list[Any]:
    return [action for action in result.actions if isinstance(action, kind)]


@settings(max_examples=1000)
@given(STATUSES, SPECS, st.booleans(), FACTS)
def test_the_rules(status: Status, spec: dict[str, Any], deleting: bool, seen: Facts) -> None:
    before = copy.deepcopy((status, seen.pod, seen.pvc))
    result = plan(session(status, deleting=deleting, **spec), seen, SETTINGS)
    assert (status, seen.pod, seen.pvc) == before, "plan changes nothing it is given"
    if seen.pod is not None:
        assert not of(CreatePod, result), "never a second pod"
    if of(CreatePod, result):
        assert seen.pvc is not None or of(CreatePvc, result), "never a pod without its claim"
    for deletion in of(DeletePod, result):
        assert seen.pod is not None
        assert deletion.uid == seen.pod["metadata"]["uid"]
        assert seen.pod["metadata"]["labels"], "never another's pod"
        if deletion.grace_seconds == 0:
            assert seen.node_gone, "by default only a pod of a node that is gone is taken by force"
    if of(DeletePvc, result):
        assert deleting
        assert session(**spec).spec.storage.retention.when_deleted == "Delete"
        assert seen.pod is None or not seen.pod["metadata"]["labels"]
    if result.status.session_valid and seen.pvc is None and status.pvc_name:
        assert not of(CreatePvc, result), "an empty volume never takes a login's place"
    if status.session_valid and result.status.session_valid is False:
        assert seen.report is not None, "a login is over only when its pod says so"
    again = plan(session(result.status, deleting=deleting, **spec), seen, SETTINGS)
    assert again.status == result.status, "the same facts give the same status"
    assert again.events == [], "and are told once"
