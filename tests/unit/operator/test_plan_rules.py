"""Invariants of the plan, as properties over all combinations of facts."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from unit.operator.situations import (
    LOST,
    NOW,
    SETTINGS,
    VALID,
    of,
    owned_by,
    plan,
    pod,
    pvc,
    report,
    session,
    silent,
    terminating,
    waiting,
)
from wasession_api.v1alpha1 import LogoutStatus, Phase, Reason, Status
from wasession_operator.plan import Backoff, Facts, Node, Refusal
from wasession_operator.plan.actions import (
    ApplySecret,
    CreatePod,
    CreatePvc,
    DeletePod,
    DeletePvc,
    ExpandPvc,
    Logout,
    NoteLogout,
    RefreshToken,
    RemoveFinalizer,
    SetPvcOwner,
)
from wasession_operator.plan.facts import AppliedSecret

POD_STATES = st.sampled_from(
    [
        None,
        pod(),
        pod(ready=False),
        pod(ready=False, phase="Pending"),
        pod(ready=False, phase="Pending", containerStatuses=waiting("ImagePullBackOff")),
        pod(ready=False, phase="Failed"),
        pod(ready=False, phase="Succeeded"),
        terminating(),
        {**pod(), "metadata": {**pod()["metadata"], "labels": {}}},
        owned_by(pod(), "ReplicaSet", "web"),
    ]
)
PVC_STATES = st.sampled_from(
    [
        None,
        pvc(),
        pvc("Pending"),
        pvc("Lost"),
        terminating(pvc()),
        owned_by(pvc(), "StatefulSet", "db"),
        owned_by(pvc(), "WhatsAppSession", "sales", "uid-1"),
        pvc(uid="pvc-uid-2"),
    ]
)
STATUSES = st.sampled_from(
    [
        Status(),
        VALID,
        Status(session_valid=False, pod_uid="old"),
        VALID.model_copy(update={"pvc_uid": None}),
        LOST,
        VALID.model_copy(update={"logout": LogoutStatus(request="1", at=NOW, done=True)}),
    ]
)
SPECS: Any = st.fixed_dictionaries(
    {},
    optional={
        "suspend": st.booleans(),
        "updateStrategy": st.sampled_from(["OnDelete", "RollingUpdate"]),
        "storage": st.sampled_from([{"retention": {"whenDeleted": "Delete"}}, {"size": "2Gi"}]),
        "browser": st.just({"locale": "de-DE"}),
        "annotations": st.dictionaries(
            st.sampled_from(["restart", "logout", "rotate-token", "accept-data-loss"]),
            st.sampled_from(["1", "pvc-uid", "n1"]),
        ),
    },
)
RETRIED = (
    ApplySecret,
    CreatePvc,
    SetPvcOwner,
    ExpandPvc,
    DeletePvc,
    CreatePod,
    RefreshToken,
    RemoveFinalizer,
    DeletePod,
    Logout,
    NoteLogout,
)
REFUSALS = st.builds(
    Refusal,
    st.just(Reason.POD_CREATE_FAILED),
    st.just("no"),
    st.sampled_from([Backoff(1, NOW), Backoff(1, NOW + timedelta(seconds=1))]),
)
FACTS = st.builds(
    Facts,
    now=st.just(NOW),
    pod=POD_STATES,
    pvc=PVC_STATES,
    token_ids=st.sampled_from([("t1", "t2"), ("t0", "t1"), ("t8", "t9")]),
    secret_applied=st.sampled_from(
        [
            None,
            AppliedSecret("t1", NOW),
            AppliedSecret("t8", NOW),
            AppliedSecret("t1", NOW - timedelta(hours=1)),
        ]
    ),
    unauthorized=st.booleans(),
    report=st.sampled_from(
        [
            None,
            report(),
            report(session_valid=True, is_authenticated=True),
            report(Phase.AUTHENTICATING),
            report(Phase.FAILED, reason="AccountBlocked"),
        ]
    ),
    silent_since=st.sampled_from([None, NOW, NOW - timedelta(minutes=2)]),
    node=st.sampled_from(
        [None, Node("node-1"), Node("node-1", gone=True), silent(0.1), silent(60)]
    ),
    may_start=st.sampled_from([None, False, True]),
    may_update=st.booleans(),
    accepted_template=st.sampled_from([None, mock.ANY]),
    failures=st.sampled_from(
        [Backoff(), Backoff(1, NOW + timedelta(seconds=1)), Backoff(3, NOW - timedelta(hours=1))]
    ),
    refusals=st.dictionaries(st.sampled_from(RETRIED), REFUSALS),
    conflicting_session=st.sampled_from([None, "older"]),
)


@settings(max_examples=1000)
@given(STATUSES, SPECS, st.booleans(), FACTS)
def test_the_invariants(status: Status, spec: dict[str, Any], deleting: bool, seen: Facts) -> None:
    before = copy.deepcopy((status, seen.pod, seen.pvc))
    given_session = session(status, deleting=deleting, **copy.deepcopy(spec))
    result = plan(given_session, seen, SETTINGS)
    assert (status, seen.pod, seen.pvc) == before, "plan changes nothing it is given"
    ours = seen.pod is not None and _owner(seen.pod) == "uid-1"
    if seen.pod is not None:
        assert not of(CreatePod, result), "never a second pod"
    if of(CreatePod, result):
        assert seen.pvc is not None or of(CreatePvc, result), "never a pod without its claim"
        assert result.actions.index(ApplySecret(result.status.token_epoch)) < [
            type(action) for action in result.actions
        ].index(CreatePod), "never a pod without its token"
    for deletion in of(DeletePod, result):
        assert seen.pod is not None
        assert deletion.uid == seen.pod["metadata"]["uid"]
        assert ours, "never the pod of another owner"
        if deletion.grace_seconds == 0:
            assert seen.node is not None
            assert seen.node.gone, "by default only a pod of a deleted node is force-deleted"
    asked = given_session.annotations.get("wasession.dev/accept-data-loss")
    accepted = status.volume_loss is not None and asked == status.volume_loss.nonce
    for deletion in of(DeletePvc, result):
        assert seen.pod is None or not ours, "a claim outlives its pod"
        assert _owner(seen.pvc or {}) in (None, "uid-1"), "never the claim of another owner"
        assert (deleting and given_session.spec.storage.retention.when_deleted == "Delete") or (
            accepted and status.pvc_uid == deletion.uid and seen.pvc == pvc("Lost")
        )
    retained = given_session.spec.storage.retention.when_deleted == "Retain"
    if of(RemoveFinalizer, result) and retained and seen.pvc not in (None, terminating(pvc())):
        assert _owner(seen.pvc or {}) != "uid-1", "a retained claim is not garbage"
    if of(CreatePvc, result):
        assert seen.pvc is None, "never a second claim"
        assert not result.status.session_valid, "an empty volume never takes a login's place"
    if status.session_valid and result.status.session_valid is False:
        assert accepted or (seen.report is not None and seen.report.session_valid is False), (
            "a login ends only when its pod reports so, or a person accepts its loss"
        )
    if of(Logout, result):
        assert "wasession.dev/logout" in given_session.annotations, (
            "never a logout without a request"
        )
        assert not of(DeletePod, result)
    assert all(a.epoch == result.status.token_epoch for a in of(ApplySecret, result))
    assert 0 <= result.status.token_epoch - status.token_epoch <= 1
    if of(RefreshToken, result):
        applied = seen.secret_applied and seen.secret_applied.token_id
        [refresh] = of(RefreshToken, result)
        assert of(ApplySecret, result) or applied == refresh.token_id, "the Secret comes first"
    for action in result.actions:
        failed = seen.refusals.get(type(action))
        assert failed is None or failed.retry.wait(NOW) <= timedelta(0), "never within the backoff"
    if result.status.token_epoch > status.token_epoch:
        seen = replace(seen, token_ids=(seen.token_ids[1], "t10"))
    again = plan(session(result.status, deleting=deleting, **copy.deepcopy(spec)), seen, SETTINGS)
    assert again.status == result.status, "the same facts give the same status"
    assert again.events == [], "and emit their Events once"


def _owner(obj: dict[str, Any]) -> str | None:
    owners = obj.get("metadata", {}).get("ownerReferences") or []
    return owners[0]["uid"] if owners else None
