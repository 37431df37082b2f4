"""Decide what to do for a session, and what its status should be: pure.

``plan`` looks at everything known about a session (``facts``) and returns actions, a status and
Events (``actions``). It has no memory: the same facts give the same plan, and once its actions have
succeeded there are none left.
"""

from __future__ import annotations

from dataclasses import replace

from wasession_api import names
from wasession_api.v1alpha1 import Reason

from wasession_operator.plan.actions import Action, AddFinalizer, Event, Plan
from wasession_operator.plan.bootstrap import plan_bootstrap
from wasession_operator.plan.deletion import plan_deletion
from wasession_operator.plan.delivery import plan_delivery
from wasession_operator.plan.facts import Backoff, Facts, Node, Refusal, Session
from wasession_operator.plan.hibernation import is_asleep, plan_hibernation
from wasession_operator.plan.logout import plan_logout
from wasession_operator.plan.network_policy import plan_network_policy
from wasession_operator.plan.parse import parse_session
from wasession_operator.plan.pod import plan_pod
from wasession_operator.plan.results import (
    HibernationResult,
    LogoutResult,
    Outcome,
    Step,
    attempt,
    report_problem,
)
from wasession_operator.plan.rollout import Scope, is_updating, plan_update, update_scope
from wasession_operator.plan.secret import plan_token
from wasession_operator.plan.status import (
    invalid_spec_status,
    make_events,
    make_status,
)
from wasession_operator.plan.storage import login_ends_with_pod, plan_storage
from wasession_operator.settings import Settings

__all__ = [
    "Action",
    "Backoff",
    "Event",
    "Facts",
    "Node",
    "Plan",
    "Refusal",
    "Scope",
    "Session",
    "invalid_spec_status",
    "is_asleep",
    "is_updating",
    "make_events",
    "parse_session",
    "plan",
    "update_scope",
]  # fmt: skip


def plan(session: Session, facts: Facts, settings: Settings) -> Plan:
    """Return the next step for a session."""
    outcome = _outcome(session, facts, settings)
    status = make_status(session, facts, outcome)
    if status.session_valid != session.status.session_valid:
        # What the pod reports about its login counts at once, not only after it has been written.
        known = session.status.model_copy(update={"session_valid": status.session_valid})
        updated = replace(session, status=known)
        outcome = _outcome(updated, facts, settings)
        status = make_status(updated, facts, outcome)
    events = make_events(session.status, status)
    if outcome.data_loss_accepted and session.status.session_valid:
        message = "The loss of the volume was accepted by annotation; an empty one replaces it."
        events.append(Event("Warning", Reason.DATA_LOSS_ACCEPTED, message))
    step = outcome.step
    return Plan(list(step.actions), status, events, step.requeue_after, outcome.done)


def _outcome(session: Session, facts: Facts, settings: Settings) -> Outcome:
    if session.deleted_at is not None:
        return plan_deletion(session, facts, settings)
    bootstrap = plan_bootstrap(session, facts)
    storage = plan_storage(session, facts, bootstrap)
    hibernation = plan_hibernation(session, facts)
    if login_ends_with_pod(session, storage):
        hibernation = replace(hibernation, status=None)
    token = plan_token(session, facts, bootstrap)
    policy = plan_network_policy(facts)
    stop = _why_stopped(session, hibernation) or bootstrap.stop
    pod = plan_pod(session, facts, settings, storage, token, policy, bootstrap, stop)
    logout = LogoutResult(session.status.logout)
    if pod.finding.ok:
        logout = plan_logout(session, facts)
    update = plan_update(session, facts, settings, pod)
    hold, violation = _hold(session, facts), _report_violation(facts)
    delivery = plan_delivery(session, facts) if pod.finding.ok else Step()
    parts = (
        violation, hold, bootstrap.step, storage.step, hibernation.step, pod.step, logout.step,
        update.step, delivery,
    )  # fmt: skip
    shared = _report_shared_account(session, facts)
    step = sum((*parts, _report_duplicate(facts), shared), Step())
    return Outcome(
        pod, storage, logout.status, update.status, step, token, bootstrap.status, hibernation
    )


def _why_stopped(session: Session, hibernation: HibernationResult) -> Reason | None:
    """Return why the session is to have no pod, if so."""
    if session.spec.suspend:
        return Reason.SUSPENDED
    return Reason.HIBERNATED if hibernation.is_asleep else None


def _hold(session: Session, facts: Facts) -> Step:
    """Add the finalizer before there is anything that garbage collection must not just remove."""
    held = names.FINALIZER in session.finalizers
    if held or (facts.pod is None and not session.status.session_valid):
        return Step()
    return attempt(AddFinalizer(session.finalizers), facts)


def _report_violation(facts: Facts) -> Step:
    return Step() if facts.class_violation is None else report_problem(*facts.class_violation)


def _report_duplicate(facts: Facts) -> Step:
    if facts.conflicting_session is None:
        return Step()
    message = (
        f"WhatsAppSession {facts.conflicting_session} has the same owner and clientId; "
        "each of the two has its own volume."
    )
    return report_problem(Reason.CLIENT_ID_SHARED, message)


def _report_shared_account(session: Session, facts: Facts) -> Step:
    """Report two logins of one account: a copied volume holds the login of another session."""
    if facts.account_shared_with is None or not session.status.session_valid:
        return Step()
    message = (
        f"{facts.account_shared_with} reports the same WhatsApp account. If the volume of one is a "
        "copy of the other's, they end each other's login: suspend one of them."
    )
    return report_problem(Reason.ACCOUNT_SHARED, message)
