"""Failed requests: each is reported under its own reason, and retried after its backoff."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast, get_args
from unittest import mock

import pytest
from hypothesis import given as given_any
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from unit.operator.situations import (
    LOST,
    NOW,
    SETTINGS,
    VALID,
    condition,
    event_reasons,
    facts,
    master_key,
    message,
    plan,
    pod,
    pvc,
    report,
    session,
    terminating,
)
from wasession_api.kube.client import (
    PODS,
    PVCS,
    SESSIONS,
    Conflict,
    KubeClient,
    Rejected,
    Resource,
    Unavailable,
)
from wasession_api.kube.manifests import Key, Manifest
from wasession_api.v1alpha1 import ConditionType, Reason
from wasession_operator import action_executor
from wasession_operator.action_executor import ActionExecutor
from wasession_operator.cluster_cache import ClusterCache
from wasession_operator.network_policy import make_network_policy
from wasession_operator.plan import Action, Backoff, Facts, Node, Plan, Refusal, Session
from wasession_operator.plan.actions import (
    AddFinalizer,
    ApplyNetworkPolicy,
    ApplySecret,
    CheckPod,
    ConfigureDelivery,
    CreatePod,
    CreatePvc,
    DeletePod,
    DeletePvc,
    ExpandPvc,
    Logout,
    NoteLogout,
    RefreshToken,
    RemoveFinalizer,
    RepairPod,
    RepairPvc,
    SetPvcOwner,
)
from wasession_operator.plan.facts import NetworkPolicy
from wasession_operator.reconcile_state import ReconcileState

RUNNING = facts(report=report(session_valid=True))
GONE = Node("node-1", gone=True)
POLICY = make_network_policy("ns", "standard", [], [])
DELETE: dict[str, Any] = {"retention": {"whenDeleted": "Delete"}}


def without_labels(obj: dict[str, Any]) -> dict[str, Any]:
    return {**obj, "metadata": {**obj["metadata"], "labels": {}}}


# For each action: when it is due, and the reason of its failure.
ATTEMPTS: list[tuple[Session, Facts, type[Action], Reason]] = [
    (session(), facts(pod=None), CreatePod, Reason.POD_CREATE_FAILED),
    (
        session(VALID),
        replace(RUNNING, token_ids=("t2", "t3")),
        RefreshToken,
        Reason.POD_UPDATE_FAILED,
    ),
    (session(VALID, suspend=True), RUNNING, DeletePod, Reason.POD_DELETE_FAILED),
    (session(VALID, deleting=True), RUNNING, DeletePod, Reason.POD_DELETE_FAILED),
    (session(VALID), facts(pod=pod(phase="Failed")), DeletePod, Reason.POD_DELETE_FAILED),
    (
        session(VALID),
        facts(pod=terminating(), node=GONE),
        DeletePod,
        Reason.POD_DELETE_FAILED,
    ),
    (session(), facts(pod=None, pvc=None), CreatePvc, Reason.PVC_CREATE_FAILED),
    (session(VALID, storage=DELETE), RUNNING, SetPvcOwner, Reason.PVC_UPDATE_FAILED),
    (session(VALID, storage={"size": "2Gi"}), RUNNING, ExpandPvc, Reason.PVC_EXPAND_FAILED),
    (
        session(LOST, annotations={"accept-data-loss": "n1"}),
        facts(pod=None, pvc=pvc("Lost")),
        DeletePvc,
        Reason.PVC_DELETE_FAILED,
    ),
    (session(), facts(pod=None), ApplySecret, Reason.SECRET_UPDATE_FAILED),
    (
        session(),
        facts(pod=None, network_policy=NetworkPolicy(POLICY)),
        ApplyNetworkPolicy,
        Reason.NETWORK_POLICY_FAILED,
    ),
    (
        session(VALID),
        replace(RUNNING, network_policy=NetworkPolicy(POLICY)),
        ApplyNetworkPolicy,
        Reason.NETWORK_POLICY_FAILED,
    ),
    (
        session(VALID, annotations={"rotate-token": "1"}),
        RUNNING,
        ApplySecret,
        Reason.SECRET_UPDATE_FAILED,
    ),
    (
        replace(session(VALID), finalizers=()),
        RUNNING,
        AddFinalizer,
        Reason.SESSION_UPDATE_FAILED,
    ),
    (
        session(VALID, deleting=True),
        facts(pod=None),
        RemoveFinalizer,
        Reason.SESSION_UPDATE_FAILED,
    ),
    (
        session(VALID),
        replace(RUNNING, pod=without_labels(pod())),
        RepairPod,
        Reason.POD_UPDATE_FAILED,
    ),
    (
        session(VALID),
        replace(RUNNING, pvc=without_labels(pvc())),
        RepairPvc,
        Reason.PVC_UPDATE_FAILED,
    ),
    (
        session(VALID, annotations={"logout": "1"}),
        RUNNING,
        Logout,
        Reason.LOGOUT_FAILED,
    ),
    (
        session(VALID, annotations={"restart": "1"}),
        replace(RUNNING, accepted_template=None),
        CheckPod,
        Reason.UPDATE_REFUSED,
    ),
    (
        session(VALID),
        replace(RUNNING, report=report(session_valid=True, delivery_revision="earlier")),
        ConfigureDelivery,
        Reason.DELIVERY_NOT_ACCEPTED,
    ),
]


def test_every_action_may_fail() -> None:
    unreported = {NoteLogout}  # what the volume lacks is recorded when it can be
    assert {action for _, _, action, _ in ATTEMPTS} == set(get_args(Action)) - unreported
    assert set(action_executor.FAILURE_REASONS) == set(get_args(Action))


@pytest.mark.parametrize(("given", "circumstances", "action", "reason"), ATTEMPTS)
def test_a_failed_request_is_reported_and_retried(
    given: Session, circumstances: Facts, action: type[Action], reason: Reason
) -> None:
    assert any(
        isinstance(planned, action) for planned in plan(given, circumstances, SETTINGS).actions
    )
    refusal = Refusal(reason, "denied by policy", Backoff(1, NOW + timedelta(seconds=2)))
    failed = replace(circumstances, refusals={action: refusal})
    waiting = plan(given, failed, SETTINGS)
    assert not any(isinstance(planned, action) for planned in waiting.actions)
    assert waiting.requeue_after is not None
    assert waiting.requeue_after <= timedelta(seconds=2)
    assert condition(waiting, ConditionType.DEGRADED)[0] == "True"
    due = plan(given, replace(failed, now=NOW + timedelta(seconds=2)), SETTINGS)
    assert any(isinstance(planned, action) for planned in due.actions)


def test_a_pod_that_cannot_be_deleted_says_why() -> None:
    refusal = Refusal(Reason.POD_DELETE_FAILED, "denied by policy", Backoff(1, NOW))
    failed = replace(RUNNING, refusals={DeletePod: refusal})
    result = plan(session(VALID, deleting=True), failed, SETTINGS)
    assert condition(result, ConditionType.DEGRADED) == ("True", Reason.POD_DELETE_FAILED)
    assert message(result, ConditionType.DEGRADED) == "denied by policy"
    assert event_reasons(result) == [Reason.POD_DELETE_FAILED]
    assert not result.done


# --- attempts -------------------------------------------------------------------------------------


SESSION: Manifest = {
    "metadata": {"name": "sales", "namespace": "ns", "uid": "uid-1", "resourceVersion": "1"},
    "spec": {},
}


class RefusingApi:
    """An API server that refuses every write with ``error``, and counts them."""

    def __init__(self, error: Exception, circumstances: Facts) -> None:
        self.error = error
        self.attempts: Counter[str] = Counter()
        self._present = {SESSIONS: SESSION, PODS: circumstances.pod, PVCS: circumstances.pvc}

    async def get(self, resource: Resource, *_: Any) -> Manifest | None:
        """Return what exists; a foreign object where a creation has conflicted is no session's."""
        obj = self._present.get(resource)
        return obj and {**obj, "metadata": {**obj["metadata"], "resourceVersion": "1"}}

    def check_fence(self) -> None:
        """It may act."""

    async def create(self, resource: Resource, *_: Any, **__: Any) -> None:
        self._refuse(f"create {resource.plural}")

    async def apply(self, resource: Resource, *_: Any) -> None:
        self._refuse(f"apply {resource.plural}")

    async def patch(self, resource: Resource, *_: Any) -> None:
        self._refuse(f"patch {resource.plural}")

    async def delete(self, resource: Resource, *_: Any) -> None:
        self._refuse(f"delete {resource.plural}")

    def _refuse(self, call: str) -> None:
        self.attempts[call] += 1
        raise self.error


class Simulation:
    """Plans and executes against a refusing API server, with a clock of its own."""

    def __init__(self, circumstances: Facts, error: Exception) -> None:
        self.api = RefusingApi(error, circumstances)
        self.state = ReconcileState(("ns", "sales"), "uid-1")
        self.now = circumstances.now
        self.enqueued = False
        self._facts = circumstances
        kube = cast(KubeClient, self.api)
        cache = ClusterCache(kube, [], cast(Any, self), watch_nodes=False, network_policy_peers=[])
        cache.upsert_session(SESSION)
        self._executor = ActionExecutor(SETTINGS, kube, cache, master_key(), self.enqueue)

    def enqueue(self, _: Key) -> None:
        self.enqueued = True

    async def run(self, session: Session, until: datetime) -> Plan:
        """Reconcile whenever it is due, for at most a thousand times; return the last plan."""
        for _ in range(1000):
            epoch = session.status.token_epoch
            seen = replace(
                self._facts,
                now=self.now,
                refusals=dict(self.state.refusals),
                token_ids=self._facts.token_ids if epoch == 0 else ("t2", "t3"),
            )
            result = plan(session, seen, SETTINGS)
            session = replace(session, status=result.status)
            self.now += await self._execute(session, result)
            if self.now > until:
                break
        return result

    async def _execute(self, session: Session, result: Plan) -> timedelta:
        """Return when the session is reconciled the next time."""
        self.enqueued = False
        for action in result.actions:
            await self._executor.execute(session, self.state, action)
        if self.enqueued:
            return timedelta(milliseconds=1)
        return result.requeue_after or timedelta(days=1)

    def next_backoff(self, before: Backoff) -> Backoff:
        return before.after(self.now, 1)


@hypothesis_settings(max_examples=200, deadline=None)
@given_any(
    st.sampled_from(ATTEMPTS),
    st.sampled_from([Rejected("no"), Conflict("no"), Unavailable("no"), Unavailable("no", 1.0)]),
)
async def test_a_refused_request_is_retried_seldom_and_shows(
    attempt: tuple[Session, Facts, type[Action], Reason], error: Exception
) -> None:
    given, circumstances, _, _ = attempt
    simulation = Simulation(circumstances, error)
    with mock.patch.object(action_executor, "next_backoff", simulation.next_backoff):
        result = await simulation.run(given, NOW + timedelta(minutes=1))
    assert simulation.now > NOW + timedelta(minutes=1), "it goes on for ever without a pause"
    # After 0, 2, 6, 14, 30 and 62 seconds; patches of one object may have several causes.
    for call, times in simulation.api.attempts.items():
        assert times <= 6 * (3 if call.startswith("patch") else 1), call
    assert condition(result, ConditionType.DEGRADED)[0] == "True"
    assert "no" in message(result, ConditionType.DEGRADED)
    assert result.requeue_after is not None, "it is retried"
