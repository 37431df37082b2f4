"""Deletion of a session: first its pod, then the claim if the retention says so.

A session that violates its class, or has none, cannot decide that its volume goes: the claim is
retained.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import NamedTuple

from wasession_api import names
from wasession_api.kube.manifests import Manifest, condition
from wasession_api.v1alpha1 import Phase, Reason, WhenDeleted

from wasession_operator.plan.actions import (
    DeletePod,
    DeletePvc,
    Logout,
    RemoveFinalizer,
    SetPvcOwner,
)
from wasession_operator.plan.facts import Facts, Session
from wasession_operator.plan.logout import pending_request
from wasession_operator.plan.manifests import is_terminating, ownership_conflict, repair_metadata
from wasession_operator.plan.pod import ANSWER_PATIENCE, force_delete_if_node_lost
from wasession_operator.plan.results import (
    Finding,
    Outcome,
    PodResult,
    Step,
    attempt,
    report_problem,
)
from wasession_operator.settings import Settings

LOGOUT_RETRY = timedelta(seconds=2)
STOPPING = "The pod is being stopped."
LOGGING_OUT = "The device is being logged out of WhatsApp."
AWAITING_POD = "The device will be logged out of WhatsApp when its pod responds."
NOT_LOGGED_OUT = (
    "The device was not logged out, because its session was not Ready. Unlink it on the phone."
)


STILL_LINKED = (
    "The volume with the login is deleted, but the device stays linked: unlink it on the phone. "
    "spec.logoutOnDelete does that before the volume is deleted."
)


class _Shutdown(NamedTuple):
    """How far the deletion has come."""

    message: str
    step: Step
    reason: Reason = Reason.TERMINATING
    can_log_out: bool = False  # the pod is still there to log the device out


def plan_deletion(session: Session, facts: Facts, settings: Settings) -> Outcome:
    pod = _own(session, facts.pod)
    if pod is None:
        shutdown = _Shutdown("The session is being deleted.", _finish(session, facts))
    else:
        shutdown = _stop_pod(session, facts, pod, settings)
    step = shutdown.step
    if _wants_logout(session, facts) and session.status.session_valid and not shutdown.can_log_out:
        step += report_problem(Reason.LOGOUT_FAILED, NOT_LOGGED_OUT)
    elif _deletes_login(session, facts) and not _wants_logout(session, facts):
        step += report_problem(Reason.DEVICE_STILL_LINKED, STILL_LINKED)
    finding = Finding(False, Reason.TERMINATING, shutdown.message)
    result = PodResult(Phase.TERMINATING, shutdown.reason, shutdown.message, finding, step)
    done = pod is None and not _retains_owned_claim(session, facts)
    return Outcome(result, None, session.status.logout, session.status.update, step, done=done)


def _own(session: Session, obj: Manifest | None) -> Manifest | None:
    """Return the object if it is the session's."""
    return None if obj is None or ownership_conflict(session, obj) else obj


def _deletes_volume(session: Session, facts: Facts) -> bool:
    delete = session.spec.storage.retention.when_deleted is WhenDeleted.DELETE
    return delete and facts.class_violation is None


def _deletes_login(session: Session, facts: Facts) -> bool:
    return _deletes_volume(session, facts) and bool(session.status.session_valid)


def _retains_owned_claim(session: Session, facts: Facts) -> bool:
    """Return whether garbage collection would delete a claim that is to be retained.

    The claim has the owner reference of an earlier ``whenDeleted: Delete``.
    """
    pvc = facts.pvc
    if pvc is None or is_terminating(pvc) or _deletes_volume(session, facts):
        return False
    owners = pvc["metadata"].get("ownerReferences") or []
    return any(owner["uid"] == session.uid for owner in owners)


def _finish(session: Session, facts: Facts) -> Step:
    if _retains_owned_claim(session, facts):
        return attempt(SetPvcOwner(None), facts)
    step, pvc = Step(), _own(session, facts.pvc)
    if pvc is not None and not is_terminating(pvc):
        if _deletes_volume(session, facts):
            step += attempt(DeletePvc(pvc["metadata"]["uid"]), facts)
        else:
            step += repair_metadata(session, pvc, facts)  # the last who knows of its login
    if names.FINALIZER in session.finalizers:
        step += attempt(RemoveFinalizer(session.finalizers), facts)
    return step


def _stop_pod(session: Session, facts: Facts, pod: Manifest, settings: Settings) -> _Shutdown:
    again = Step(requeue_after=LOGOUT_RETRY)
    if _can_log_out(session, facts):
        # A failed attempt is retried until the time is up; only then is it reported. A pod that is
        # terminating may still do it: with its namespace, everything is deleted at once.
        logout = replace(attempt(_logout(session, facts), facts), problems=())
        return _Shutdown(LOGGING_OUT, logout + again, can_log_out=True)
    if is_terminating(pod):
        lost = force_delete_if_node_lost(facts, pod, settings)
        return (
            _Shutdown(STOPPING, Step())
            if lost is None
            else _Shutdown(lost.message, lost.step, lost.reason)
        )
    if _may_answer(session, facts, pod):
        return _Shutdown(AWAITING_POD, again, can_log_out=True)
    return _Shutdown(
        STOPPING, attempt(DeletePod(pod["metadata"]["uid"], Reason.TERMINATING), facts)
    )


def _wants_logout(session: Session, facts: Facts) -> bool:
    return session.spec.logout_on_delete or pending_request(session, facts.report) is not None


def _logout(session: Session, facts: Facts) -> Logout:
    return Logout(pending_request(session, facts.report))


def _in_time(session: Session, facts: Facts) -> bool:
    assert session.deleted_at is not None
    return facts.now < session.deleted_at + session.spec.timeouts.logout + LOGOUT_RETRY


def _can_log_out(session: Session, facts: Facts) -> bool:
    ready = facts.report is not None and facts.report.phase is Phase.READY
    return ready and _wants_logout(session, facts) and _in_time(session, facts)


def _may_answer(session: Session, facts: Facts, pod: Manifest) -> bool:
    """Return whether the pod may still answer: another replica has only just connected to it."""
    running = condition(pod, "Ready").get("status") == "True"
    silence = facts.now - (facts.silent_since or facts.now)
    return (
        running
        and facts.report is None
        and silence < ANSWER_PATIENCE
        and _wants_logout(session, facts)
        and _in_time(session, facts)
    )
