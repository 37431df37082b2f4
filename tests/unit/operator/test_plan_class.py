"""What follows from a class that does not let its session start, and from its NetworkPolicy."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
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
    plan,
    pod,
    pvc,
    report,
    session,
    template_of,
    terminating,
)
from unit.operator.test_plan_rules import FACTS, SPECS, STATUSES
from wasession_api import names
from wasession_api.v1alpha1 import ClassReference, ConditionType, Phase, Reason, Status
from wasession_operator.network_policy import make_network_policy
from wasession_operator.plan import Backoff, Facts, Refusal, Session, update_scope
from wasession_operator.plan.actions import (
    ApplyNetworkPolicy,
    ApplySecret,
    CheckPod,
    CreatePod,
    CreatePvc,
    DeletePod,
    DeletePvc,
    ExpandPvc,
    Logout,
    RepairPod,
    SetPvcOwner,
)
from wasession_operator.plan.facts import NetworkPolicy, Violation
from wasession_operator.plan.manifests import class_of

GONE = Violation(Reason.CLASS_NOT_FOUND, "WhatsAppSessionClass gold does not exist.")
VIOLATIONS = st.sampled_from(
    [
        Violation(reason, "Why.")
        for reason in (
            Reason.CLASS_NOT_FOUND,
            Reason.INVALID_CLASS,
            Reason.CLASS_NOT_ALLOWED,
            Reason.OVERRIDE_NOT_ALLOWED,
            Reason.LIMIT_EXCEEDED,
        )
    ]
)
POLICY = make_network_policy("ns", "gold", [], [])
POLICIES = st.sampled_from([None, NetworkPolicy(POLICY), NetworkPolicy(POLICY, is_current=True)])
MISSING_POLICY = NetworkPolicy(POLICY)
GOLD_POD = pod(spec={"className": "gold"})
WELL = report(session_valid=True, is_authenticated=True)


@settings(max_examples=600)
@given(STATUSES, SPECS, st.booleans(), FACTS, st.none() | VIOLATIONS, POLICIES)
def test_a_session_that_may_not_start_is_left_as_it_is(
    status: Status,
    spec: dict[str, Any],
    deleting: bool,
    seen: Facts,
    violation: Violation | None,
    policy: NetworkPolicy | None,
) -> None:
    seen = replace(seen, class_violation=violation, network_policy=policy)
    given_session = session(status, deleting=deleting, **copy.deepcopy(spec))
    result = plan(given_session, seen, SETTINGS)
    applies = bool(of(ApplyNetworkPolicy, result))
    if of(CreatePod, result):
        assert violation is None, "no pod against its class"
        assert policy is None or policy.is_current or applies, "no pod without its policy"
        kinds = [type(action) for action in result.actions]
        assert not applies or kinds.index(ApplyNetworkPolicy) < kinds.index(CreatePod)
    if deleting:
        assert not applies
    elif violation is not None:
        assert not of(CreatePvc, result)
        assert not of(ExpandPvc, result)
        assert not of(SetPvcOwner, result)
        assert not of(DeletePvc, result)
        assert not of(CheckPod, result)
        if seen.pod is None:
            assert not of(ApplySecret, result)
            assert not applies
        ended = seen.pod is not None and seen.pod["status"]["phase"] in ("Failed", "Succeeded")
        for deletion in of(DeletePod, result):
            lost = seen.pod is not None and "deletionTimestamp" in seen.pod["metadata"]
            assert given_session.spec.suspend or ended or lost, deletion
        for repair in of(RepairPod, result):
            assert seen.pod is not None
            assert repair.labels.get(names.LABEL_CLASS) == class_of(seen.pod)
    if result.status.token_epoch > status.token_epoch:
        seen = replace(seen, token_ids=(seen.token_ids[1], "t10"))
    again = plan(session(result.status, deleting=deleting, **copy.deepcopy(spec)), seen, SETTINGS)
    assert again.status == result.status, "the same facts give the same status"
    assert again.events == [], "and emit their Events once"


def test_without_a_pod_it_says_why_there_is_none() -> None:
    result = plan(session(), facts(pod=None, pvc=None, class_violation=GONE), SETTINGS)
    assert result.actions == []
    assert result.requeue_after is None, "the class's event is what it waits for"
    assert result.status.phase is Phase.FAILED
    for kind in (ConditionType.READY, ConditionType.POD_READY):
        assert condition(result, kind) == ("False", Reason.CLASS_NOT_FOUND)
    assert condition(result, ConditionType.DEGRADED) == ("True", Reason.CLASS_NOT_FOUND)
    assert condition(result, ConditionType.PROGRESSING) == ("False", Reason.CLASS_NOT_FOUND)
    assert message(result, ConditionType.DEGRADED) == GONE.message
    assert event_reasons(result) == [Reason.CLASS_NOT_FOUND]


def test_it_starts_when_its_class_lets_it() -> None:
    refused = plan(session(), facts(pod=None, pvc=None, class_violation=GONE), SETTINGS).status
    result = plan(session(refused), facts(pod=None, pvc=None), SETTINGS)
    assert of(CreatePvc, result)
    assert of(CreatePod, result)
    assert condition(result, ConditionType.DEGRADED)[0] == "False"


@pytest.mark.parametrize("strategy", ["OnDelete", "RollingUpdate"])
def test_a_running_pod_stays_until_it_ends(strategy: str) -> None:
    changed = session(VALID, updateStrategy=strategy, browser={"locale": "de-DE"})
    result = plan(changed, facts(report=WELL, class_violation=GONE), SETTINGS)
    assert result.actions == []
    assert result.status.phase is Phase.READY
    assert condition(result, ConditionType.DEGRADED) == ("True", Reason.CLASS_NOT_FOUND)
    assert condition(result, ConditionType.PROGRESSING) == ("False", Reason.CLASS_NOT_FOUND)
    ended = plan(changed, facts(pod=None, class_violation=GONE), SETTINGS)
    assert ended.actions == []
    assert ended.status.session_valid


def test_a_requested_restart_waits() -> None:
    asking = session(VALID, annotations={"restart": "1"})
    assert plan(asking, facts(report=WELL, class_violation=GONE), SETTINGS).actions == []
    assert of(DeletePod, plan(asking, facts(report=WELL), SETTINGS))


def test_it_can_be_suspended_logged_out_and_deleted() -> None:
    seen = facts(report=WELL, class_violation=GONE)
    assert of(DeletePod, plan(session(VALID, suspend=True), seen, SETTINGS))
    assert of(Logout, plan(session(VALID, annotations={"logout": "1"}), seen, SETTINGS))
    assert of(DeletePod, plan(session(VALID, deleting=True), seen, SETTINGS))
    gone = replace(seen, pod=None, report=None)
    result = plan(session(VALID, deleting=True), gone, SETTINGS)
    assert not of(DeletePvc, result)
    assert result.done


def test_a_volume_is_left_alone() -> None:
    """Neither expanded nor given to the session, whatever its class has become."""
    spec: dict[str, Any] = {"storage": {"size": "5Gi", "retention": {"whenDeleted": "Delete"}}}
    seen = facts(report=WELL, pvc=pvc(), class_violation=GONE)
    assert plan(session(VALID, **spec), seen, SETTINGS).actions == []
    assert of(
        ExpandPvc, plan(session(VALID, **spec), replace(seen, class_violation=None), SETTINGS)
    )


def test_the_status_names_the_class() -> None:
    used = ClassReference(name="gold", generation=3)
    result = plan(session(VALID), facts(report=WELL, session_class=used), SETTINGS)
    assert result.status.dump()["class"] == {"name": "gold", "generation": 3}
    lost = plan(session(result.status), facts(report=WELL, class_violation=GONE), SETTINGS)
    assert lost.status.session_class is None


@pytest.mark.parametrize(
    ("violation", "expected"),
    [(Violation(Reason.INVALID_CLASS, "The class is invalid."), "b"), (GONE, "b"), (None, None)],
)
def test_a_session_remembers_its_revision_while_its_class_says_nothing(
    violation: Violation | None, expected: str | None
) -> None:
    """Else a rollout would begin anew with others when the class is valid again."""
    used = None if violation is GONE else ClassReference(name="gold", generation=3)
    before = VALID.model_copy(update={"revision": "b", "session_class": used})
    seen = facts(report=WELL, session_class=used, class_violation=violation)
    assert plan(session(before), seen, SETTINGS).status.revision == expected


@pytest.mark.parametrize("noted", [None, "a"])
def test_a_pod_that_a_change_does_not_concern_is_of_the_new_revision(noted: str | None) -> None:
    """The session sets itself what has changed: nothing would ever update it."""
    running = copy.deepcopy(pod())
    if noted is not None:
        running["metadata"]["annotations"][names.ANNOTATION_REVISION] = noted
    before = VALID.model_copy(update={"revision": noted})
    changed = replace(session(before), revision="b")
    result = plan(changed, facts(pod=running, report=WELL), SETTINGS)
    assert result.actions == []
    assert result.status.revision == "b"


def of_class(status: Status = VALID, **spec: Any) -> Session:
    return session(status, className="gold", **spec)


def test_a_pod_without_a_class_is_given_that_of_its_session() -> None:
    """After its policy."""
    seen = facts(report=WELL, network_policy=MISSING_POLICY)
    result = plan(of_class(), seen, SETTINGS)
    [repair] = of(RepairPod, result)
    assert repair.labels == repair.annotations == {names.LABEL_CLASS: "gold"}
    assert type(result.actions[0]) is ApplyNetworkPolicy
    violating = replace(seen, network_policy=None, class_violation=GONE)
    assert plan(of_class(), violating, SETTINGS).actions == []
    labelled = replace(seen, pod=GOLD_POD, network_policy=None)
    assert plan(of_class(), labelled, SETTINGS).actions == []


@pytest.mark.parametrize("violation", [None, GONE])
@pytest.mark.parametrize("strategy", ["OnDelete", "RollingUpdate"])
def test_a_pod_stays_of_its_class_until_it_is_replaced(
    violation: Violation | None, strategy: str
) -> None:
    """Its browser is the old class's: so is what it can reach."""
    seen = facts(pod=GOLD_POD, report=WELL, class_violation=violation)
    changed = session(VALID, className="silver", updateStrategy=strategy)
    result = plan(changed, seen, SETTINGS)
    assert not of(RepairPod, result)
    bare = copy.deepcopy(GOLD_POD)
    del bare["metadata"]["labels"][names.LABEL_CLASS]
    [repair] = of(RepairPod, plan(changed, replace(seen, pod=bare), SETTINGS))
    assert repair.labels == {names.LABEL_CLASS: "gold"}, "without it, no policy selects the pod"
    replaced = bool(of(DeletePod, result))
    assert replaced is (violation is None and strategy == "RollingUpdate")
    if violation is None and not replaced:
        assert condition(result, ConditionType.PROGRESSING)[1] == Reason.UPDATE_PENDING
        assert "template has changed" in message(result, ConditionType.PROGRESSING)


def test_another_class_is_an_update_of_whoever_has_changed_it() -> None:
    """The session by its className, or its platform team by the default class."""
    seen = copy.deepcopy(GOLD_POD)
    changed = session(VALID, className="silver", updateStrategy="RollingUpdate")
    assert update_scope(changed, seen, WELL, VALID, template_of(changed)) == ("class", "silver")
    seen["metadata"]["annotations"][names.ANNOTATION_OWN_SPEC] = "earlier"
    assert update_scope(changed, seen, WELL, VALID, template_of(changed))[0] == "owner"


def test_the_label_counts_when_the_annotation_is_no_class() -> None:
    edited = copy.deepcopy(GOLD_POD)
    edited["metadata"]["annotations"][names.ANNOTATION_CLASS] = "../x"
    assert class_of(edited) == "gold"
    [repair] = of(RepairPod, plan(of_class(), facts(pod=edited, report=WELL), SETTINGS))
    assert repair.annotations == {names.ANNOTATION_CLASS: "gold"}


def test_a_class_does_not_change_the_template() -> None:
    """A class's label or generation alone restarts no pod."""
    strategy: dict[str, Any] = {"updateStrategy": "RollingUpdate"}
    seen = facts(report=WELL, session_class=ClassReference(name="gold", generation=9))
    assert not of(DeletePod, plan(of_class(**strategy), seen, SETTINGS))


def test_a_policy_that_is_missing_is_applied_before_the_pod() -> None:
    seen = facts(pod=None, network_policy=MISSING_POLICY)
    kinds = [type(action) for action in plan(session(VALID), seen, SETTINGS).actions]
    assert kinds == [ApplyNetworkPolicy, ApplySecret, CreatePod]
    running = facts(report=WELL, network_policy=MISSING_POLICY)
    assert of(ApplyNetworkPolicy, plan(session(VALID), running, SETTINGS))
    unprotected = replace(running, class_violation=GONE)
    assert of(ApplyNetworkPolicy, plan(session(VALID), unprotected, SETTINGS))
    ending = facts(pod=terminating(), network_policy=MISSING_POLICY)
    assert not of(CreatePod, plan(session(VALID), ending, SETTINGS))


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (Refusal(Reason.NETWORK_POLICY_FAILED, "forbidden"), Reason.NETWORK_POLICY_FAILED),
        (Refusal(Reason.NETWORK_POLICY_FAILED, "", transient=True), Reason.POD_PENDING),
    ],
)
def test_without_its_policy_there_is_no_pod(refusal: Refusal, reason: Reason) -> None:
    later = replace(refusal, retry=Backoff(1, NOW + timedelta(seconds=3)))
    seen = facts(pod=None, network_policy=MISSING_POLICY, refusals={ApplyNetworkPolicy: later})
    result = plan(session(VALID), seen, SETTINGS)
    assert result.actions == []
    assert result.requeue_after == timedelta(seconds=3)
    assert condition(result, ConditionType.READY) == ("False", reason)
    assert (condition(result, ConditionType.DEGRADED)[0] == "True") is not refusal.transient
