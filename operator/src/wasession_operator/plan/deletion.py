"""The end of a session: the pod first; then the claim where the retention says so; then nothing is left to do."""

from __future__ import annotations

from datetime import timedelta

from wasession_api import names
from wasession_api.kube.manifests import Manifest, condition
from wasession_api.v1alpha1 import Phase, Reason, WhenDeleted

from wasession_operator.plan import logout
from wasession_operator.plan.actions import DeletePod, DeletePvc, Logout, RemoveFinalizer
from wasession_operator.plan.draft import Draft
from wasession_operator.plan.facts import Facts, Session
from wasession_operator.plan.manifests import is_terminating, not_ours
from wasession_operator.plan.pod import ANSWER_TAKES, take_from_node
from wasession_operator.settings import Settings

LOGOUT_AGAIN = timedelta(seconds=2)


def plan_deletion(session: Session, facts: Facts, settings: Settings, draft: Draft) -> None:
    draft.phase = Phase.TERMINATING
    draft.say(Reason.TERMINATING, "The session is being deleted.")
    pod = facts.pod if facts.pod is not None and not_ours(session, facts.pod) is None else None
    pvc = facts.pvc if facts.pvc is not None and not_ours(session, facts.pvc) is None else None
    if pod is None:
        delete = session.spec.storage.retention.when_deleted is WhenDeleted.DELETE
        if delete and pvc is not None and not is_terminating(pvc):
            draft.actions.append(DeletePvc(pvc["metadata"]["uid"]))
        if names.FINALIZER in session.finalizers:
            draft.actions.append(RemoveFinalizer(session.finalizers))
        draft.done = True
        logging_out = False
    else:
        logging_out = _end_pod(session, facts, pod, settings, draft)
    if _wants_logout(session) and session.status.session_valid and not logging_out:
        words = "The device was not logged out: its session was not Ready. Unlink it on the phone."
        draft.trouble(Reason.LOGOUT_FAILED, words)
    draft.pod = (False, Reason.TERMINATING, draft.message)


def _end_pod(
    session: Session, facts: Facts, pod: Manifest, settings: Settings, draft: Draft
) -> bool:
    """Returns whether the pod is still there to log the device out."""
    draft.message = "The pod is being stopped."
    if is_terminating(pod):
        take_from_node(facts, pod, settings, draft)
    elif _can_log_out(session, facts):
        draft.message = "The device is being logged out of WhatsApp."
        draft.attempt(Logout(), facts)
        draft.look_again(LOGOUT_AGAIN)
        return True
    elif _may_answer(session, facts, pod):
        draft.message = "The device is logged out of WhatsApp as soon as its pod answers."
        draft.look_again(LOGOUT_AGAIN)
        return True
    else:
        draft.actions.append(DeletePod(pod["metadata"]["uid"], Reason.TERMINATING))
    return False


def _wants_logout(session: Session) -> bool:
    return session.spec.logout_on_delete or logout.request(session) is not None


def _in_time(session: Session, facts: Facts) -> bool:
    assert session.deleted_at is not None
    return facts.now < session.deleted_at + session.spec.timeouts.logout + LOGOUT_AGAIN


def _can_log_out(session: Session, facts: Facts) -> bool:
    ready = facts.report is not None and facts.report.phase is Phase.READY
    return ready and _wants_logout(session) and _in_time(session, facts)


def _may_answer(session: Session, facts: Facts, pod: Manifest) -> bool:
    """Whether the pod may yet be heard: a new operator has only just called it."""
    runs = condition(pod, "Ready").get("status") == "True"
    called_for = facts.now - (facts.silent_since or facts.now)
    return (
        runs
        and facts.report is None
        and called_for < ANSWER_TAKES
        and _wants_logout(session)
        and _in_time(session, facts)
    )
