"""The volume claim in every state; that of a login is never replaced without consent."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from unit.operator.situations import (
    LOST,
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
    terminating,
    unschedulable,
)
from wasession_api.kube.manifests import amount
from wasession_api.names import ANNOTATION_PREVIOUS_OWNERS as PREVIOUS_OWNERS
from wasession_api.v1alpha1 import ConditionType, Phase, Reason, Status
from wasession_operator import objects
from wasession_operator.plan import Backoff, Refusal
from wasession_operator.plan.actions import (
    ApplySecret,
    CreatePod,
    CreatePvc,
    DeletePod,
    DeletePvc,
    ExpandPvc,
    RepairPvc,
    SetPvcOwner,
)

STORAGE = ConditionType.STORAGE_READY
ACCEPTED = {"accept-data-loss": "n1"}


def test_a_new_session_gets_claim_secret_and_pod_at_once() -> None:
    result = plan(session(), facts(pod=None, pvc=None), SETTINGS)
    create = CreatePod(restoring=False, token_id="t1")
    assert result.actions == [CreatePvc(), ApplySecret(0), create]
    assert result.status.phase is Phase.PENDING
    assert condition(result, ConditionType.READY) == ("False", Reason.POD_CREATED)


def test_a_lost_claim_of_a_valid_login_is_never_replaced() -> None:
    for missing in (None, pvc("Lost")):
        result = plan(session(VALID), facts(pod=None, pvc=missing), SETTINGS)
        assert result.actions == []
        assert condition(result, STORAGE) == ("False", Reason.VOLUME_LOST)
        assert result.status.phase is Phase.FAILED
        assert result.status.session_valid
        assert Reason.VOLUME_LOST in event_reasons(result)
        loss = result.status.volume_loss
        assert loss is not None
        assert (loss.pvc_uid, loss.at) == ("pvc-uid", NOW)
        assert f"wasession.dev/accept-data-loss={loss.nonce}" in message(result, STORAGE)
        later = facts(pod=None, pvc=missing, now=NOW + timedelta(minutes=1))
        assert plan(session(result.status), later, SETTINGS).status.volume_loss == loss


def test_a_login_without_a_claim_is_lost_even_if_its_claim_is_not_known() -> None:
    """A status that was restored from a backup, or written by hand."""
    result = plan(session(Status(session_valid=True)), facts(pod=None, pvc=None), SETTINGS)
    assert result.actions == []
    assert condition(result, STORAGE) == ("False", Reason.VOLUME_LOST)


def test_a_person_may_accept_the_loss_of_a_missing_claim() -> None:
    asked = session(LOST, annotations=ACCEPTED)
    result = plan(asked, facts(pod=None, pvc=None), SETTINGS)
    assert result.actions == [
        CreatePvc(),
        ApplySecret(0),
        CreatePod(restoring=False, token_id="t1"),
    ]
    assert result.status.session_valid is False
    assert Reason.DATA_LOSS_ACCEPTED in event_reasons(result)
    again = plan(session(result.status, annotations=ACCEPTED), facts(pod=None, pvc=None), SETTINGS)
    assert again.actions == [CreatePvc(), ApplySecret(0), CreatePod(restoring=False, token_id="t1")]
    assert again.events == []


def test_a_person_may_accept_the_loss_of_a_claim_without_volume() -> None:
    asked, lost = session(LOST, annotations=ACCEPTED), pvc("Lost")
    running = plan(asked, facts(pvc=lost, report=report()), SETTINGS)
    assert running.actions == [DeletePod("pod-uid", Reason.VOLUME_LOST)], (
        "the pod has to release it first"
    )
    released = session(running.status, annotations=ACCEPTED)
    assert plan(released, facts(pod=None, pvc=lost), SETTINGS).actions == [DeletePvc("pvc-uid")]
    gone = plan(released, facts(pod=None, pvc=None), SETTINGS)
    assert of(CreatePvc, gone)


def test_the_consent_counts_for_one_loss_only() -> None:
    """The annotation stays in place; the next loss has another nonce."""
    new_claim = pvc(uid="pvc-uid-2")
    replaced = plan(session(LOST, annotations=ACCEPTED), facts(pvc=new_claim), SETTINGS)
    assert replaced.status.volume_loss is None
    linked = replaced.status.model_copy(update={"session_valid": True})
    for missing in (None, pvc("Lost", uid="pvc-uid-2")):
        result = plan(session(linked, annotations=ACCEPTED), facts(pod=None, pvc=missing), SETTINGS)
        assert result.actions == []
        assert condition(result, STORAGE) == ("False", Reason.VOLUME_LOST)
        again = plan(
            session(result.status, annotations=ACCEPTED), facts(pod=None, pvc=missing), SETTINGS
        )
        assert again.actions == []
        assert again.status.session_valid


@pytest.mark.parametrize("value", ["pvc-uid", "n1", "true"])
def test_no_annotation_counts_before_the_loss(value: str) -> None:
    """Neither the claim's UID nor anything else that is known while the claim exists."""
    asked = session(VALID, annotations={"accept-data-loss": value})
    for claim in (pvc(), None, pvc("Lost")):
        result = plan(asked, facts(pod=None, pvc=claim), SETTINGS)
        assert of(CreatePvc, result) == of(DeletePvc, result) == []
        assert result.status.session_valid


def test_the_consent_is_refused_while_the_claim_exists() -> None:
    """It may come back: the volume of a Lost claim, for one."""
    result = plan(session(LOST, annotations=ACCEPTED), facts(report=report()), SETTINGS)
    assert result.status.volume_loss is None
    assert Reason.DATA_LOSS_ACCEPTED not in event_reasons(result)
    back = plan(session(LOST, annotations=ACCEPTED), facts(pod=None), SETTINGS)
    assert back.status.session_valid
    assert back.actions == [ApplySecret(0), CreatePod(restoring=True, token_id="t1")]


def test_the_consent_to_one_claim_is_none_to_the_next() -> None:
    second = pvc("Lost", uid="pvc-uid-2")
    result = plan(session(LOST, annotations=ACCEPTED), facts(pod=None, pvc=second), SETTINGS)
    assert result.actions == []
    assert result.status.volume_loss is not None
    assert result.status.volume_loss.pvc_uid == "pvc-uid-2"


def test_a_restored_claim_ends_the_loss() -> None:
    restored = pvc(uid="pvc-uid-2")
    result = plan(session(LOST), facts(pod=None, pvc=restored), SETTINGS)
    assert result.actions == [ApplySecret(0), CreatePod(restoring=True, token_id="t1")]
    assert result.status.volume_loss is None
    assert result.status.pvc_uid == "pvc-uid-2"


def test_the_consent_counts_also_after_a_restart_of_the_operator() -> None:
    """The new claim was created, but the status does not show the loss yet."""
    result = plan(
        session(LOST, annotations=ACCEPTED), facts(pod=None, pvc=pvc(uid="pvc-uid-2")), SETTINGS
    )
    assert result.status.session_valid is False
    assert result.status.pvc_uid == "pvc-uid-2"
    assert result.actions == [ApplySecret(0), CreatePod(restoring=False, token_id="t1")]


# --- before the first claim -----------------------------------------------------------------------


def test_a_suspended_session_creates_no_claim() -> None:
    """A backup may still be restoring it."""
    result = plan(session(suspend=True), facts(pod=None, pvc=None), SETTINGS)
    assert of(CreatePvc, result) == []
    assert result.status.phase is Phase.SUSPENDED
    assert condition(result, STORAGE) == ("False", Reason.VOLUME_PENDING)
    resumed = plan(session(result.status), facts(pod=None, pvc=None), SETTINGS)
    assert of(CreatePvc, resumed)


def test_a_session_that_expects_a_login_waits_for_its_claim() -> None:
    expecting: dict[str, Any] = {"annotations": {"expects-login": "true"}}
    result = plan(session(**expecting), facts(pod=None, pvc=None), SETTINGS)
    assert result.actions == []
    assert condition(result, STORAGE) == ("False", Reason.VOLUME_MISSING)
    assert condition(result, ConditionType.DEGRADED) == ("True", Reason.VOLUME_MISSING)
    assert "wasession-sales" in message(result, STORAGE)
    assert result.requeue_after is not None
    restored = plan(session(result.status, **expecting), facts(pod=None), SETTINGS)
    assert restored.actions == [ApplySecret(0), CreatePod(restoring=True, token_id="t1")]
    once = Status(session_valid=False, last_connected=NOW)
    assert of(CreatePvc, plan(session(once, **expecting), facts(pod=None, pvc=None), SETTINGS))


def test_a_missing_claim_without_a_login_is_recreated() -> None:
    never = Status(session_valid=False, pvc_name="wasession-sales", pvc_uid="pvc-uid")
    assert of(CreatePvc, plan(session(never), facts(pod=None, pvc=None), SETTINGS))


def test_the_deletion_of_a_claim_is_awaited() -> None:
    result = plan(session(), facts(pod=None, pvc=terminating(pvc())), SETTINGS)
    assert result.actions == []
    assert condition(result, STORAGE) == ("False", Reason.VOLUME_TERMINATING)


@pytest.mark.parametrize(
    "spec",
    [
        {"suspend": True},
        {"browser": {"locale": "de-DE"}, "updateStrategy": "RollingUpdate"},
        {"annotations": {"restart": "1"}},
    ],
)
def test_a_pod_is_not_deleted_while_its_login_would_be_lost(spec: dict[str, Any]) -> None:
    """A claim that is being deleted exists only as long as its pod."""
    result = plan(
        session(VALID, **spec),
        facts(pvc=terminating(pvc()), report=report(session_valid=True)),
        SETTINGS,
    )
    assert result.actions == []
    assert result.status.phase is Phase.READY
    assert condition(result, ConditionType.DEGRADED) == ("True", Reason.VOLUME_TERMINATING)


def test_a_pending_claim_names_its_storage_class() -> None:
    old = pod(ready=False, phase="Pending", conditions=[unschedulable(timedelta(minutes=1))])
    waiting_claim = pvc("Pending", spec={"storage": {"storageClassName": "later"}})
    result = plan(
        session(storage={"storageClassName": "later"}), facts(pod=old, pvc=waiting_claim), SETTINGS
    )
    assert condition(result, STORAGE) == ("False", Reason.VOLUME_PENDING)
    assert condition(result, ConditionType.DEGRADED) == ("True", Reason.VOLUME_PENDING)
    assert "StorageClass later" in message(result, STORAGE)


def test_a_rejected_claim_is_a_problem_and_is_retried() -> None:
    refusal = Refusal(
        Reason.PVC_CREATE_FAILED, "exceeded quota", Backoff(1, NOW + timedelta(seconds=2))
    )
    early = facts(pod=None, pvc=None, refusals={CreatePvc: refusal})
    result = plan(session(), early, SETTINGS)
    assert result.actions == []
    assert condition(result, STORAGE) == ("False", Reason.PVC_CREATE_FAILED)
    assert condition(result, ConditionType.DEGRADED) == ("True", Reason.PVC_CREATE_FAILED)
    assert result.requeue_after == timedelta(seconds=2)
    late = replace(early, now=NOW + timedelta(seconds=2))
    assert plan(session(), late, SETTINGS).actions == [CreatePvc()]


# --- size and owner -------------------------------------------------------------------------------


def test_size_and_owner_of_the_claim_follow_the_spec() -> None:
    assert plan(session(storage={"size": "2Gi"}), facts(), SETTINGS).actions == [ExpandPvc("2Gi")]
    owned = plan(session(storage={"retention": {"whenDeleted": "Delete"}}), facts(), SETTINGS)
    assert owned.actions == [SetPvcOwner([objects.owner_reference("sales", "uid-1")])]
    with_owner = pvc(spec={"storage": {"retention": {"whenDeleted": "Delete"}}})
    assert plan(session(), facts(pvc=with_owner), SETTINGS).actions == [SetPvcOwner(None)]


def test_a_failed_expansion_is_a_problem_but_the_session_continues() -> None:
    explanation = "storageclass that provisions the pvc must support resize"
    refusal = Refusal(Reason.PVC_EXPAND_FAILED, explanation, Backoff(3, NOW + timedelta(minutes=1)))
    wanted = facts(report=report(), refusals={ExpandPvc: refusal})
    result = plan(session(storage={"size": "2Gi"}), wanted, SETTINGS)
    assert result.actions == []
    assert result.status.phase is Phase.READY
    assert condition(result, STORAGE) == ("True", Reason.VOLUME_BOUND)
    assert condition(result, ConditionType.DEGRADED) == ("True", Reason.PVC_EXPAND_FAILED)
    assert message(result, ConditionType.DEGRADED) == explanation


def test_an_expansion_that_failed_can_be_taken_back() -> None:
    claim = pvc()
    claim["status"] |= {"capacity": {"storage": "1Gi"}}
    refusal = Refusal(Reason.PVC_EXPAND_FAILED, "no.", Backoff(3, NOW + timedelta(minutes=1)))
    failed = facts(pvc=claim, report=report(), refusals={ExpandPvc: refusal})
    result = plan(session(storage={"size": "2Gi"}), failed, SETTINGS)
    assert "set spec.storage.size back to 1Gi" in message(result, ConditionType.DEGRADED)
    back = plan(session(result.status, storage={"size": "1Gi"}), failed, SETTINGS)
    assert back.actions == []
    assert condition(back, ConditionType.DEGRADED) == ("False", Reason.AS_EXPECTED)


def test_an_expansion_is_reported() -> None:
    growing = pvc(spec={"storage": {"size": "2Gi"}})
    growing["status"] |= {"capacity": {"storage": "1Gi"}}
    growing["status"]["conditions"] = [
        {"type": "FileSystemResizePending", "status": "True", "message": "waiting for the node"}
    ]
    result = plan(session(storage={"size": "2Gi"}), facts(pvc=growing), SETTINGS)
    assert condition(result, STORAGE) == ("True", Reason.VOLUME_RESIZING)
    assert "from 1Gi to 2Gi" in message(result, STORAGE)
    assert "waiting for the node" in message(result, STORAGE)


@pytest.mark.parametrize(
    ("quantity", "number"),
    [
        ("1", 1),
        ("500m", 0.5),
        ("1k", 1e3),
        ("1Ki", 1024),
        ("2Gi", 2 * 2**30),
        ("1.5Ti", 1.5 * 2**40),
        ("1E", 1e18),
    ],
)
def test_amounts(quantity: str, number: float) -> None:
    assert amount(quantity) == number


# --- ownership ------------------------------------------------------------------------------------


def test_a_retained_claim_is_adopted_by_its_session() -> None:
    specs: list[dict[str, Any]] = [{}, {"owner": "alice"}, {"owner": "alice", "clientId": "main"}]
    for spec in specs:
        retained = facts(pod=None, pvc=pvc(spec=spec))
        assert plan(session(uid="uid-2", **spec), retained, SETTINGS).actions == [
            ApplySecret(0),
            CreatePod(restoring=False, token_id="t1"),
        ]


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ({}, {"clientId": "other"}, "holds the login of clientId sales"),
        ({"owner": "alice"}, {"owner": "mallory"}, "holds the login of another owner"),
        ({"owner": "alice"}, {}, "holds the login of another owner"),
        ({}, {"owner": "mallory"}, "holds the login of another owner"),
    ],
)
def test_a_retained_claim_of_somebody_else_is_reported_and_left_alone(
    before: dict[str, Any], after: dict[str, Any], why: str
) -> None:
    retained = facts(pod=None, pvc=pvc(spec=before))
    result = plan(session(uid="uid-2", **after), retained, SETTINGS)
    assert result.actions == []
    assert condition(result, STORAGE) == ("False", Reason.NAME_CONFLICT)
    assert result.status.phase is Phase.FAILED
    assert why in message(result, STORAGE)
    assert "alice" not in message(result, STORAGE)
    again = plan(session(result.status, uid="uid-2", **after), retained, SETTINGS)
    assert condition(again, STORAGE) == ("False", Reason.NAME_CONFLICT)
    assert of(RepairPvc, again) == []
    assert result.status.pvc_uid is None


def test_a_retained_claim_that_does_not_say_whose_it_is_is_not_taken() -> None:
    """An earlier version did not note the owner."""
    retained = pvc()
    del retained["metadata"]["annotations"]["wasession.dev/owner"]
    result = plan(session(uid="uid-2", owner="alice"), facts(pod=None, pvc=retained), SETTINGS)
    assert of(CreatePod, result) == []
    assert condition(result, STORAGE) == ("False", Reason.NAME_CONFLICT)
    assert "'wasession.dev/owner=alice'" in message(result, STORAGE)
    known = plan(session(VALID, owner="alice"), facts(pvc=retained, report=report()), SETTINGS)
    assert of(RepairPvc, known)[0].annotations == {"wasession.dev/owner": "alice"}
    assert condition(known, STORAGE) == ("True", Reason.VOLUME_BOUND)


def test_a_foreign_claim_is_reported_and_left_alone() -> None:
    result = plan(session(), facts(pod=None, pvc=owned_by(pvc(), "StatefulSet", "db")), SETTINGS)
    assert result.actions == []
    assert condition(result, STORAGE) == ("False", Reason.NAME_CONFLICT)
    assert "StatefulSet db" in message(result, STORAGE)


def test_the_claim_of_an_earlier_session_is_awaited() -> None:
    before = owned_by(pvc(), "WhatsAppSession", "sales", uid="uid-0")
    result = plan(session(), facts(pod=None, pvc=before), SETTINGS)
    assert result.actions == []
    assert condition(result, STORAGE) == ("False", Reason.PREDECESSOR_TERMINATING)
    assert result.status.phase is Phase.PENDING
    assert event_reasons(result) == []


@pytest.mark.parametrize(
    ("when", "owned", "references"),
    [("Retain", False, None), ("Retain", True, 0), ("Delete", False, 1), ("Delete", True, None)],
)
def test_other_owners_of_a_claim_are_no_reason_to_change_its_owner(
    when: str, owned: bool, references: int | None
) -> None:
    others = [{"kind": "ConfigMap", "name": "backup", "uid": "uid-of-backup"}]
    own = [{"kind": "WhatsAppSession", "name": "sales", "uid": "uid-1", "controller": True}]
    claim = pvc(ownerReferences=[*others, *(own if owned else [])])
    result = plan(
        session(VALID, storage={"retention": {"whenDeleted": when}}), facts(pvc=claim), SETTINGS
    )
    changes = [len(action.references or []) for action in of(SetPvcOwner, result)]
    assert changes == ([] if references is None else [references])


# --- accounts -------------------------------------------------------------------------------------


def test_two_logins_of_one_account_are_reported() -> None:
    shared = facts(report=report(session_valid=True), account_shared_with="WhatsAppSession copy")
    result = plan(session(VALID), shared, SETTINGS)
    assert condition(result, ConditionType.DEGRADED) == ("True", Reason.ACCOUNT_SHARED)
    assert "WhatsAppSession copy reports the same" in message(result, ConditionType.DEGRADED)
    assert result.status.phase is Phase.READY
    logged_out = facts(report=report(), account_shared_with="WhatsAppSession copy")
    ended = plan(session(VALID), logged_out, SETTINGS)
    assert condition(ended, ConditionType.DEGRADED) == ("False", Reason.AS_EXPECTED)


def test_a_claim_notes_the_owners_that_its_session_had() -> None:
    """The volume records a new owner only when the next pod starts, be it another session's."""
    claim = pvc(spec={"owner": "alice"})
    for owner, noted in (("bob", ["alice"]), ("carol", ["alice", "bob"])):
        (repair,) = of(RepairPvc, plan(session(VALID, owner=owner), facts(pvc=claim), SETTINGS))
        claim["metadata"]["annotations"] |= repair.annotations
        assert json.loads(claim["metadata"]["annotations"][PREVIOUS_OWNERS]) == noted
    again = session(owner="carol", uid="uid-2")
    (creation,) = of(CreatePod, plan(again, facts(pvc=claim, pod=None), SETTINGS))
    assert creation.previous_owners == ("alice", "bob")
    claim["metadata"]["annotations"][PREVIOUS_OWNERS] = "edited"
    (creation,) = of(CreatePod, plan(again, facts(pvc=claim, pod=None), SETTINGS))
    assert creation.previous_owners == ()
