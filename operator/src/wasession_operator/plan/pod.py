"""The pod: when there should be one, when it has to go, and how it is."""

from __future__ import annotations

from datetime import timedelta

from wasession_api import names
from wasession_api.kube.manifests import Manifest, condition, controller
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import ConditionType, Phase, Reason, Status, UpdateStrategy

from wasession_operator import objects
from wasession_operator.plan import storage
from wasession_operator.plan.actions import CreatePod, DeletePod, RefreshToken
from wasession_operator.plan.draft import Draft
from wasession_operator.plan.facts import Facts, Session
from wasession_operator.plan.manifests import annotations_of, is_terminating, not_ours, since, state
from wasession_operator.settings import NodeLost, Settings

SCHEDULING_TAKES = timedelta(seconds=30)  # with a volume that has to be made first
STARTING_TAKES = timedelta(
    minutes=3
)  # from the pod's creation to its readiness; it includes the pull of its image
ANSWER_TAKES = timedelta(seconds=10)  # until a pod that can't be heard is said to be so
FIRST_ANSWER_TAKES = timedelta(seconds=2)  # the same for one that has only just become ready
ON_THE_WAY = {
    Phase.PENDING,
    Phase.STARTING,
    Phase.RESTORING,
}  # what is said before the pod is heard
SILENCE_IS_TROUBLE = timedelta(minutes=1)
NO_NODE_YET = "The pod waits for a node."
IMAGE_REASONS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "RegistryUnavailable",
}
CONTAINER_REFUSED = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
# The reasons of a session's usual life. Any other that is known is something to look after.
USUAL = {
    Reason.BROWSER_STARTING, Reason.PAGE_LOADING, Reason.LOGIN_RESTORING, Reason.LOGIN_WRITING, Reason.MESSAGES_SYNCING,
    Reason.CONNECTED, Reason.CONNECTION_LOST, Reason.WAITING_FOR_SCAN, Reason.WAITING_FOR_PAIRING_CODE,
    Reason.PASSKEY_REQUIRED, Reason.OPENED_ELSEWHERE, Reason.LOGGED_OUT_BY_PHONE, Reason.LOGGED_OUT_ON_REQUEST,
}  # fmt: skip
UNUSUAL = set(Reason) - USUAL
# What ends a pod: that stays the reason until the next one is there.
ENDINGS = {
    Reason.SUSPENDED, Reason.POD_FAILED, Reason.POD_SUCCEEDED, Reason.POD_ORPHANED, Reason.EVICTED, Reason.OOM_KILLED,
    Reason.NODE_GONE, Reason.NODE_LOST, Reason.VOLUME_LOST, Reason.RESTART_REQUESTED, Reason.TEMPLATE_CHANGED,
}  # fmt: skip


def plan_pod(session: Session, facts: Facts, settings: Settings, draft: Draft) -> None:
    if facts.pod is None:
        _no_pod(session, facts, draft)
        return
    problem = not_ours(session, facts.pod)
    if problem:
        draft.phase = Phase.FAILED if problem[0] is Reason.NAME_CONFLICT else Phase.PENDING
        draft.say(*problem)
        draft.pod = (False, *problem)
        if problem[0] is Reason.NAME_CONFLICT:
            draft.trouble(*problem)
        return
    draft.phase = _until_reported(session)
    if is_terminating(facts.pod):
        _terminating_pod(session, facts, facts.pod, settings, draft)
    elif facts.pod.get("status", {}).get("phase") in ("Failed", "Succeeded"):
        _ended_pod(facts.pod, draft)
    elif why := _should_end(session, facts, facts.pod, settings, draft):
        _end(facts.pod, why, draft)
    else:
        _live_pod(session, facts, facts.pod, draft)


def ending(status: Status) -> Reason | None:
    """Why the pod that the status speaks of has to end; None when nothing is known that ends it."""
    reason = next((c.reason for c in status.conditions if c.type is ConditionType.POD_READY), "")
    return Reason(reason) if reason in ENDINGS else None


# --- no pod ---------------------------------------------------------------------------------------


def _no_pod(session: Session, facts: Facts, draft: Draft) -> None:
    draft.phase = _until_reported(session, pending=True)
    if session.spec.suspend:
        draft.phase = Phase.SUSPENDED
        draft.say(Reason.SUSPENDED, "The session is suspended; its volume is kept.")
    elif storage.holds_up(draft):
        pass
    elif not draft.secret:  # its part has said why
        draft.phase = Phase.FAILED if draft.reason == Reason.NAME_CONFLICT else draft.phase
    elif (wait := facts.failures.wait(facts.now)) > timedelta(0):
        draft.say(Reason.BACK_OFF, "The pod has failed and is started again after a pause.")
        draft.look_again(wait)
    elif facts.may_start is None:
        draft.keep = True
    elif not facts.may_start:
        draft.say(Reason.START_QUEUED, "Other sessions start first.")
    else:
        draft.say(Reason.POD_CREATED, "The pod is being created.")
        restoring = bool(session.status.session_valid) and not draft.given_up
        restart = session.annotations.get(names.ANNOTATION_RESTART)
        if refusal := draft.attempt(CreatePod(restoring, restart), facts):
            draft.blocked(refusal.reason, refusal.message)
    draft.pod = (False, draft.reason, draft.message)


# --- pods that end --------------------------------------------------------------------------------


def _terminating_pod(
    session: Session, facts: Facts, pod: Manifest, settings: Settings, draft: Draft
) -> None:
    reason, words = (
        ending(session.status),
        "The pod is ending; the next one starts when it is gone.",
    )
    disrupted, why = _disruption(pod)
    if disrupted is not None and reason in (None, disrupted):
        reason, words = disrupted, f"{why} {words}"
    reason = reason or Reason.POD_TERMINATING
    draft.say(reason, words)
    if session.spec.suspend:
        draft.phase = Phase.SUSPENDED
        draft.say(Reason.POD_TERMINATING, "The pod is being stopped.")
    draft.pod = (False, reason, draft.message)
    take_from_node(facts, pod, settings, draft)


def _disruption(pod: Manifest) -> tuple[Reason | None, str]:
    """Why Kubernetes itself ends a pod: https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions"""
    found = condition(pod, "DisruptionTarget")
    if found.get("status") != "True":
        return None, ""
    reason = Reason.NODE_GONE if found.get("reason") == "DeletionByPodGC" else Reason.EVICTED
    return reason, found.get("message") or "The pod has to leave its node."


def take_from_node(facts: Facts, pod: Manifest, settings: Settings, draft: Draft) -> None:
    """An ending pod whose node can't confirm its end: it is only taken away where it surely does not run any more."""
    node, uid = facts.node, pod["metadata"]["uid"]
    if node is None:
        return
    silent = facts.now - node.silent_since if node.silent_since is not None else None
    if node.gone:
        draft.actions.append(DeletePod(uid, Reason.NODE_GONE, grace_seconds=0))
        draft.say(Reason.NODE_GONE, f"Node {node.name} is gone, and the pod with it.")
        draft.pod = (False, draft.reason, draft.message)
    elif silent is None:
        return
    elif node.out_of_service or (
        settings.node_lost is NodeLost.FORCE_DELETE and silent >= settings.node_lost_after
    ):
        draft.actions.append(DeletePod(uid, Reason.NODE_LOST, grace_seconds=0))
        draft.say(Reason.NODE_LOST, f"Node {node.name} is given up, and the pod with it.")
        draft.pod = (False, draft.reason, draft.message)
    else:
        draft.blocked(
            Reason.NODE_LOST,
            f"Node {node.name} does not answer; the pod on it may still run. Bring the node back; or, when its machine is "
            f"switched off for good, delete it or taint it node.kubernetes.io/out-of-service.",
        )
        if settings.node_lost is NodeLost.FORCE_DELETE:
            draft.look_again(settings.node_lost_after - silent)


def _ended_pod(pod: Manifest, draft: Draft) -> None:
    """A pod that has ended stays so, and is never started again by anybody but us, whatever its exit code was."""
    status = pod["status"]
    disrupted, words = _disruption(pod)
    why = disrupted or (Reason.EVICTED if status.get("reason") == "Evicted" else Reason.POD_FAILED)
    if status["phase"] == "Succeeded":
        why = Reason.POD_SUCCEEDED
    if state(pod, "terminated").get("reason") == "OOMKilled":
        why = Reason.OOM_KILLED
    words = (
        status.get("message")
        or words
        or f"The pod has ended: {status.get('reason') or status['phase']}."
    )
    draft.actions.append(DeletePod(pod["metadata"]["uid"], why, failed=True))
    draft.blocked(why, words)
    draft.pod = (False, why, words)


def _should_end(
    session: Session, facts: Facts, pod: Manifest, settings: Settings, draft: Draft
) -> Reason | None:
    """Why a pod that nothing is wrong with should go; None when it should stay."""
    if storage.keeps_login(session, draft):
        return None
    if draft.leave_volume:
        return Reason.VOLUME_LOST
    if (
        controller(pod) is None
    ):  # what an earlier session has left: its token and its UID are not ours
        return Reason.POD_ORPHANED
    if session.spec.suspend:
        return Reason.SUSPENDED
    asked = session.annotations.get(names.ANNOTATION_RESTART)
    if asked is not None and asked != annotations_of(pod).get(names.ANNOTATION_RESTART):
        return Reason.RESTART_REQUESTED
    wanted = objects.desired_hash(
        session.namespace, session.name, session.uid, session.spec, settings
    )
    if annotations_of(pod).get(names.ANNOTATION_TEMPLATE_HASH) == wanted:
        return None
    if pod.get("status", {}).get("phase") == "Pending":
        return (
            Reason.TEMPLATE_CHANGED
        )  # it has never run and has nothing to lose: the change may be what mends it
    if session.spec.update_strategy is UpdateStrategy.ON_DELETE:
        draft.update_pending = "The pod's template has changed; that takes effect when the pod is started the next time."
    elif not facts.may_update and ending(session.status) is not Reason.TEMPLATE_CHANGED:
        draft.update_pending = (
            "The pod's template has changed; the pod is replaced when it is its turn."
        )
    else:
        return Reason.TEMPLATE_CHANGED
    return None


def _end(pod: Manifest, why: Reason, draft: Draft) -> None:
    draft.actions.append(DeletePod(pod["metadata"]["uid"], why))
    words = "The pod is replaced by a new one."
    if why is Reason.SUSPENDED:
        draft.phase, words = Phase.SUSPENDED, "The pod is being stopped."
    draft.say(Reason.POD_TERMINATING if why is Reason.SUSPENDED else why, words)
    draft.pod = (False, why, words)


# --- pods that run, or are about to ---------------------------------------------------------------


def _live_pod(session: Session, facts: Facts, pod: Manifest, draft: Draft) -> None:
    _refresh_token(facts, pod, draft)
    ready = condition(pod, "Ready").get("status") == "True"
    if ready:
        draft.pod = (True, Reason.POD_RUNNING, "")
        _heard(facts, session, draft)
        return
    scheduling = condition(pod, "PodScheduled")
    if pod.get("status", {}).get("phase", "Pending") == "Pending":
        draft.phase = _until_reported(session, pending=True)
    if facts.node is not None and facts.node.gone:
        draft.blocked(
            Reason.NODE_GONE, f"Node {facts.node.name} is gone; Kubernetes takes the pod away."
        )
    elif facts.node is not None and facts.node.silent_since is not None:
        draft.blocked(
            Reason.NODE_LOST, f"Node {facts.node.name} does not answer. The session waits for it."
        )
    elif problem := _container_problem(pod):
        draft.blocked(*problem)
    elif scheduling.get("status") == "False":
        _unschedulable(scheduling, facts, pod, draft)
    else:
        _starting(facts, pod, draft)
    draft.pod = (False, draft.reason, draft.message)


def _heard(facts: Facts, session: Session, draft: Draft) -> None:
    report = facts.report
    if report is not None:
        draft.phase = report.phase
        draft.say(report.reason, report.message)
        for trouble in _troubles(report):
            draft.trouble(*trouble)
        return
    assert facts.pod is not None
    silence = facts.now - max(facts.silent_since or facts.now, since(facts.pod, "Ready"))
    patience = timedelta(0)
    if _was_heard(session, facts.pod):
        patience = ANSWER_TAKES
    elif session.status.phase in ON_THE_WAY:
        patience = FIRST_ANSWER_TAKES
    if silence < patience:
        draft.keep = True
        draft.look_again(patience - silence)
    elif silence < SILENCE_IS_TROUBLE:
        draft.say(Reason.POD_UNREACHABLE, "The session pod has not been heard yet.")
        draft.look_again(SILENCE_IS_TROUBLE - silence)
    else:
        words = "The session pod does not answer the operator on port 8080. A NetworkPolicy may be in the way."
        draft.blocked(Reason.POD_UNREACHABLE, words)


def _was_heard(session: Session, pod: Manifest) -> bool:
    """Whether the status tells what this very pod has said."""
    found = {c.type: c for c in session.status.conditions}
    if session.status.pod_uid != pod["metadata"]["uid"] or not {
        ConditionType.READY,
        ConditionType.POD_READY,
    } <= set(found):
        return False
    return (
        found[ConditionType.POD_READY].status == "True"
        and found[ConditionType.READY].reason != Reason.POD_UNREACHABLE
    )


def _troubles(report: Report) -> list[tuple[str, str]]:
    unusual = report.reason in UNUSUAL or report.phase is Phase.FAILED
    found = [(str(report.reason), report.message)] if unusual else []
    return found + [(str(warning.reason), warning.message) for warning in report.warnings]


def _refresh_token(facts: Facts, pod: Manifest, draft: Draft) -> None:
    if facts.secret is None:
        return
    token_id = annotations_of(facts.secret).get(names.ANNOTATION_TOKEN_ID)
    if token_id is not None and annotations_of(pod).get(names.ANNOTATION_TOKEN_ID) != token_id:
        draft.attempt(RefreshToken(token_id), facts)


def _starting(facts: Facts, pod: Manifest, draft: Draft) -> None:
    patience = since(pod, "Ready") + STARTING_TAKES - facts.now
    if patience > timedelta(0):
        bound = "nodeName" in pod["spec"]
        reason, words = (
            (Reason.POD_NOT_READY, "The pod is starting.")
            if bound
            else (Reason.POD_PENDING, NO_NODE_YET)
        )
        draft.say(reason, words)
        draft.look_again(patience)
    else:
        minutes = int(STARTING_TAKES.total_seconds() / 60)
        draft.blocked(
            Reason.POD_NOT_READY,
            f"The pod has not become ready in {minutes} minutes; its Events say more.",
        )


def _unschedulable(scheduling: Manifest, facts: Facts, pod: Manifest, draft: Draft) -> None:
    """No node takes the pod. A moment of that is usual, while the volume is made: only what lasts is a trouble."""
    patience = since(pod, "PodScheduled") + SCHEDULING_TAKES - facts.now
    if patience > timedelta(0):
        draft.say(Reason.POD_PENDING, NO_NODE_YET)
        draft.look_again(patience)
    elif not draft.storage[0]:
        draft.blocked(draft.storage[1], draft.storage[2])
    else:
        draft.blocked(Reason.UNSCHEDULABLE, scheduling.get("message") or "No node takes the pod.")


def _container_problem(pod: Manifest) -> tuple[Reason, str] | None:
    waiting = state(pod, "waiting")
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in IMAGE_REASONS:
        return Reason.IMAGE_PULL_BACK_OFF, message or f"The image cannot be pulled: {reason}."
    if reason in CONTAINER_REFUSED:
        return Reason.POD_REFUSED, message or f"The container cannot be made: {reason}."
    last = state(pod, "terminated", "lastState")
    if reason == "CrashLoopBackOff":
        if last.get("reason") == "OOMKilled":
            return (
                Reason.OOM_KILLED,
                "The session needs more memory than its limit; it is started again.",
            )
        return Reason.CRASH_LOOP_BACK_OFF, last.get(
            "message"
        ) or f"The session's process ends again and again: {last.get('reason')}."
    return None


def _until_reported(session: Session, *, pending: bool = False) -> Phase:
    """The phase of a session whose pod can't be asked."""
    if session.status.session_valid:
        return Phase.RESTORING
    return Phase.PENDING if pending else Phase.STARTING
