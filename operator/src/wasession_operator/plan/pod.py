"""The pod: when there should be one, when it has to go, and what its state says of the session."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import NamedTuple

from wasession_api import names
from wasession_api.kube.manifests import Manifest, condition, controller
from wasession_api.session_pod import PORT
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import ConditionType, Phase, Reason, Status, UpdateStrategy

from wasession_operator import objects
from wasession_operator.plan.actions import (
    CheckPod,
    CreatePod,
    DeletePod,
    RepairPod,
)
from wasession_operator.plan.facts import Facts, Session
from wasession_operator.plan.manifests import (
    annotations_of,
    class_of,
    is_of_template,
    is_terminating,
    metadata_repair,
    ownership_conflict,
    previous_owners,
    report_conflict,
    since,
    state,
)
from wasession_operator.plan.results import (
    BootstrapResult,
    Finding,
    NetworkPolicyResult,
    PodResult,
    Problem,
    Step,
    StorageResult,
    TokenResult,
    attempt,
    report_problem,
)
from wasession_operator.plan.rollout import changed_files, is_updating
from wasession_operator.plan.secret import create_with_secret, refresh_secret
from wasession_operator.plan.storage import expects_login, login_ends_with_pod
from wasession_operator.settings import NodeLost, Settings

SCHEDULING_PATIENCE = timedelta(seconds=30)  # includes the provisioning of a volume
STARTING_PATIENCE = timedelta(minutes=3)  # from creation to readiness; includes the image pull
ANSWER_PATIENCE = timedelta(seconds=10)  # until a pod that has answered before is unreachable
FIRST_ANSWER_PATIENCE = timedelta(seconds=2)  # the same for one that has just become ready
UNREACHABLE_PATIENCE = timedelta(minutes=1)  # until an unreachable pod is a problem
BEFORE_REPORT = {Phase.PENDING, Phase.STARTING, Phase.RESTORING}  # before the pod's first report
RELEASE_AFTER = timedelta(seconds=1)  # until the status of a linked session should be written
LINKING = {Phase.AUTHENTICATING, Phase.PASSKEY_REQUIRED, Phase.SYNCING}
RUNNING = Finding(True, Reason.POD_RUNNING)
START_QUEUED = "Other sessions start first: {budget} has no start budget left."
STOPPING = "The pod is being stopped."
HIBERNATED = (
    "The session sleeps until somebody uses it through the gateway, or sets the annotation "
    "{annotation}; its volume is retained, and WhatsApp keeps what comes."
)
NO_NODE_YET = "The pod waits for a node."
VOLUME_RESTORING = "The pod restores the backup into its empty volume."
NEXT_POD = "The pod is terminating; the next one is created when it is gone."
FILES_ON_DELETE = (
    "The proxy or the CA bundle has changed; the change takes effect the next time the pod is "
    "created."
)
UPDATE_ON_DELETE = (
    "The pod's template has changed; the change takes effect the next time the pod is created."
)
UPDATE_CHECKED = "The new pod is being validated by a server-side dry run."
UPDATE_HALTED = (
    "The pod's template has changed. The rollout is halted, because another session of its scope "
    "has not recovered from its update."
)
UPDATE_QUEUED = "The pod's template has changed; other sessions are updated first."
HELD_BACK = {
    Reason.SUSPENDED: "The session is not suspended while its PVC is being deleted.",
    Reason.RESTART_REQUESTED: "The pod is not restarted while its PVC is being deleted.",
    Reason.TEMPLATE_CHANGED: "The pod is not updated while its PVC is being deleted.",
}
NODE_NOT_READY = (
    "Node {name} is not Ready; its pod may still be running. Restore the node. If it is "
    "permanently down, delete it or taint it with node.kubernetes.io/out-of-service."
)
# The reasons for which kubelet lets a container wait.
IMAGE_PULL_ERRORS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "RegistryUnavailable",
}
CONTAINER_ERRORS = {
    Reason.CREATE_CONTAINER_CONFIG_ERROR,
    Reason.CREATE_CONTAINER_ERROR,
    Reason.RUN_CONTAINER_ERROR,
}
# Reports with these reasons are business as usual; any other known one needs attention.
EXPECTED_REASONS = {
    Reason.BROWSER_STARTING, Reason.PAGE_LOADING, Reason.LOGIN_RESTORING, Reason.LOGIN_WRITING,
    Reason.MESSAGES_SYNCING, Reason.CONNECTED, Reason.CONNECTION_LOST, Reason.WAITING_FOR_SCAN,
    Reason.WAITING_FOR_PAIRING_CODE, Reason.PASSKEY_REQUIRED, Reason.OPENED_ELSEWHERE,
    Reason.LOGGED_OUT_BY_PHONE, Reason.LOGGED_OUT_ON_REQUEST,
}  # fmt: skip
UNEXPECTED_REASONS = set(Reason) - EXPECTED_REASONS
# Why a pod terminates. The condition PodReady has the reason until the next pod is there.
TERMINATION_REASONS = {
    Reason.SUSPENDED, Reason.HIBERNATED, Reason.LOGIN_MOVED, Reason.VOLUME_RESTORING,
    Reason.POD_FAILED, Reason.POD_SUCCEEDED,
    Reason.POD_ORPHANED, Reason.EVICTED,
    Reason.OOM_KILLED, Reason.NODE_GONE, Reason.NODE_LOST, Reason.VOLUME_LOST,
    Reason.RESTART_REQUESTED, Reason.TEMPLATE_CHANGED,
}  # fmt: skip
STOPPED = {Reason.SUSPENDED, Reason.HIBERNATED, Reason.LOGIN_MOVED}  # the next pod is no restart
# No pod can be created before a person has acted.
FATAL_REASONS = {
    Reason.VOLUME_LOST, Reason.VOLUME_MISSING, Reason.NAME_CONFLICT, Reason.LOGIN_MOVED,
}  # fmt: skip


def plan_pod(
    session: Session,
    facts: Facts,
    settings: Settings,
    storage: StorageResult,
    token: TokenResult,
    policy: NetworkPolicyResult,
    bootstrap: BootstrapResult,
    stop: Reason | None = None,
) -> PodResult:
    """Return what follows for the pod; ``stop`` is why there is to be none, if so."""
    pod = facts.pod
    if pod is None and stop is not None:
        return _stopped(session, stop)
    if pod is None:
        return _without_pod(session, facts, storage, token, policy, bootstrap)
    if conflict := ownership_conflict(session, pod):
        phase = Phase.FAILED if conflict.reason in FATAL_REASONS else Phase.PENDING
        return _not_ready(phase, conflict.reason, conflict.message, report_conflict(conflict))
    result = _own_pod(session, facts, settings, storage, token, pod, stop)
    step = policy.step + _repair(session, facts, token, pod) + result.step
    return replace(result, step=step)


def _repair(
    session: Session,
    facts: Facts,
    token: TokenResult,
    pod: Manifest,
) -> Step:
    """Give the pod its labels and annotations: back, or after a change in its template.

    Those of the Secret, which is not read, follow from the same spec. A pod whose session may not
    start only gets back what it had.
    """
    repair = metadata_repair(session, pod)
    record = annotations_of(pod).get(names.ANNOTATION_TEMPLATE_METADATA)
    linking = _is_linking(session, record)
    labels, annotations = objects.template_metadata(session.spec, linking=linking).changes(record)
    if facts.class_violation is not None:
        labels, annotations = {}, {}
    if repair is not None:
        labels |= repair.labels
        annotations |= repair.annotations
    if facts.class_violation is not None and class_of(pod) is None:
        labels.pop(names.LABEL_CLASS, None)
        annotations.pop(names.ANNOTATION_CLASS, None)
    if not labels and not annotations:
        report = facts.report  # the status will have it, which wakes nobody
        ends = report is not None and _ends_linking(report.phase, report.session_valid)
        return Step(requeue_after=RELEASE_AFTER) if linking and ends else Step()
    step = attempt(RepairPod(pod["metadata"]["uid"], labels, annotations), facts)
    if repair is not None and step.actions:
        return attempt(token.apply, facts) + step
    return step


def _is_linking(session: Session, record: str | None) -> bool:
    """Return whether the pod should be kept from evictions because a phone is being linked.

    By the status as it is written, so that a start takes no more writes: the pod has been created
    with it, and is released when the session is Ready. In other phases it stays as its record says.
    """
    status = session.status
    if status.phase in LINKING and not status.session_valid:
        return True
    if _ends_linking(status.phase, status.session_valid):
        return False
    return record == objects.template_metadata(session.spec, linking=True).record()


def _ends_linking(phase: Phase | None, valid: bool | None) -> bool:
    return phase is Phase.FAILED or (phase is Phase.READY and bool(valid))


def _own_pod(
    session: Session,
    facts: Facts,
    settings: Settings,
    storage: StorageResult,
    token: TokenResult,
    pod: Manifest,
    stop: Reason | None,
) -> PodResult:
    if is_terminating(pod):
        return _terminating_pod(session, facts, pod, settings, stop)
    if pod.get("status", {}).get("phase") in ("Failed", "Succeeded"):
        return _ended_pod(session, facts, pod)
    replacement = _replacement(session, facts, pod, storage, stop)
    if replacement.reason is not None:
        return _delete(session, facts, pod, replacement.reason)
    ready = _is_ready(pod)
    result = (_running_pod if ready else _starting_pod)(session, facts, pod, storage)
    starting = not ready and "nodeName" in pod["spec"] and not _waits_for_node(facts)
    secret = refresh_secret(facts, pod, token, starting=starting)
    step = result.step + replacement.step + secret
    return replace(result, step=step, pending=replacement.pending)


def termination_reason(status: Status) -> Reason | None:
    """Return why the pod that the status describes terminates; None when it is to stay."""
    pod_ready = status.condition(ConditionType.POD_READY)
    if pod_ready is None or pod_ready.reason not in TERMINATION_REASONS:
        return None
    return Reason(pod_ready.reason)


def _not_ready(phase: Phase, reason: str, message: str, step: Step | None = None) -> PodResult:
    """Return the result for a pod that is not ready, which explains the session's phase."""
    return PodResult(phase, reason, message, Finding(False, reason, message), step or Step())


def _stalled(phase: Phase, reason: str, message: str, step: Step | None = None) -> PodResult:
    """Return the same, as a problem: the session stays there until somebody acts."""
    problem = report_problem(reason, message)
    return _not_ready(phase, reason, message, problem + (step or Step()))


def _phase_without_report(session: Session, *, pending: bool = False) -> Phase:
    if session.status.session_valid:
        return Phase.RESTORING
    return Phase.PENDING if pending else Phase.STARTING


def _is_ready(pod: Manifest) -> bool:
    return condition(pod, "Ready").get("status") == "True"


# --- no pod ---------------------------------------------------------------------------------------


def _stopped(session: Session, stop: Reason) -> PodResult:
    if stop is Reason.SUSPENDED:
        message = "The session is suspended; its volume is retained."
        return _not_ready(Phase.SUSPENDED, stop, message)
    annotation = names.ANNOTATION_WAKE
    return _not_ready(Phase.HIBERNATED, stop, HIBERNATED.format(annotation=annotation))


def _without_pod(
    session: Session,
    facts: Facts,
    storage: StorageResult,
    token: TokenResult,
    policy: NetworkPolicyResult,
    bootstrap: BootstrapResult,
) -> PodResult:
    phase = _phase_without_report(session, pending=True)
    if facts.class_violation is not None:
        return _not_ready(Phase.FAILED, *facts.class_violation)
    if not bootstrap.finding.ok:
        _, reason, message = bootstrap.finding
        phase = Phase.FAILED if reason in FATAL_REASONS else phase
        return _not_ready(phase, reason, message)
    finding = storage.finding
    if not finding.ok and finding.reason != Reason.VOLUME_PENDING:
        phase = Phase.FAILED if finding.reason in FATAL_REASONS else phase
        return _not_ready(phase, finding.reason, finding.message)
    wait = facts.failures.wait(facts.now)
    if wait > timedelta(0):
        message = "The pod has failed; the next one is created after a backoff."
        return _not_ready(phase, Reason.BACK_OFF, message, Step(requeue_after=wait))
    if facts.may_start is None:
        return replace(_not_ready(phase, Reason.POD_MISSING, ""), undecided=True)
    if not facts.may_start:
        message = START_QUEUED.format(budget=facts.awaited_budget)
        return _not_ready(phase, Reason.START_QUEUED, message)
    if not policy.finding.ok:
        return _not_ready(phase, policy.finding.reason, policy.finding.message, policy.step)
    if bootstrap.data_source is not None and facts.pvc is None:
        # Its pod waits until the claim is seen to be from the VolumeSnapshot: it may be another.
        return _not_ready(phase, Reason.VOLUME_PENDING, finding.message)
    valid = bool(session.status.session_valid) and not storage.data_loss_accepted
    restoring = valid or expects_login(session) or bootstrap.restore is not None
    restart = session.annotations.get(names.ANNOTATION_RESTART)
    create = CreatePod(restoring, restart, token.id, previous_owners(facts.pvc), bootstrap.restore)
    step = policy.step + create_with_secret(attempt(create, facts), facts, token)
    if step.problems:
        phase = Phase.FAILED if step.problems[0].reason in FATAL_REASONS else phase
        return _not_ready(phase, *step.problems[0], step)
    return _not_ready(phase, Reason.POD_CREATED, "The pod is being created.", step)


# --- pods that end --------------------------------------------------------------------------------


def _terminating_pod(
    session: Session, facts: Facts, pod: Manifest, settings: Settings, stop: Reason | None
) -> PodResult:
    reason, message = _why_terminating(session, pod)
    result = _not_ready(_phase_without_report(session), reason, message)
    if stop is not None:
        result = _stopping(reason)
    lost = force_delete_if_node_lost(facts, pod, settings)
    if lost is None:
        return result
    finding = Finding(False, lost.reason, lost.message) if lost.deletes else result.finding
    return replace(
        result, reason=lost.reason, message=lost.message, finding=finding, step=lost.step
    )


def _stopping(reason: Reason) -> PodResult:
    """Return the result for the time until the pod is gone: its volume is in use until then."""
    finding = Finding(False, reason, STOPPING)
    return PodResult(Phase.PENDING, Reason.POD_TERMINATING, STOPPING, finding)


def _why_terminating(session: Session, pod: Manifest) -> tuple[Reason, str]:
    recorded = termination_reason(session.status)
    disruption = _disruption(pod)
    if disruption is not None and recorded in (None, disruption[0]):
        reason, message = disruption
        return reason, f"{message} {NEXT_POD}"
    return recorded or Reason.POD_TERMINATING, NEXT_POD


def _disruption(pod: Manifest) -> tuple[Reason, str] | None:
    """Return why Kubernetes itself terminates the pod, if it does.

    See https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions
    """
    target = condition(pod, "DisruptionTarget")
    if target.get("status") != "True":
        return None
    reason = Reason.NODE_GONE if target.get("reason") == "DeletionByPodGC" else Reason.EVICTED
    return reason, target.get("message") or "The pod has to leave its node."


@dataclass(frozen=True)
class LostNode:
    """A terminating pod on a node that cannot confirm its end."""

    reason: Reason
    message: str
    step: Step
    deletes: bool = True  # whether the pod is deleted without the node's confirmation


def force_delete_if_node_lost(facts: Facts, pod: Manifest, settings: Settings) -> LostNode | None:
    """Delete a terminating pod without waiting for its node, but only where it cannot run any more.

    None while the node answers, or is not known.
    """
    node, uid = facts.node, pod["metadata"]["uid"]
    if node is None:
        return None
    if node.gone:
        delete = attempt(DeletePod(uid, Reason.NODE_GONE, grace_seconds=0), facts)
        message = f"Node {node.name} was deleted, and the pod with it."
        return LostNode(Reason.NODE_GONE, message, delete)
    if node.not_ready_since is None:
        return None
    force = settings.node_lost is NodeLost.FORCE_DELETE
    remaining = settings.node_lost_after - (facts.now - node.not_ready_since)
    if node.out_of_service or (force and remaining <= timedelta(0)):
        delete = attempt(DeletePod(uid, Reason.NODE_LOST, grace_seconds=0), facts)
        message = f"Node {node.name} is considered down; the pod on it is deleted."
        return LostNode(Reason.NODE_LOST, message, delete)
    message = NODE_NOT_READY.format(name=node.name)
    step = report_problem(Reason.NODE_LOST, message)
    if force:
        step += Step(requeue_after=remaining)
    return LostNode(Reason.NODE_LOST, message, step, deletes=False)


def _ended_pod(session: Session, facts: Facts, pod: Manifest) -> PodResult:
    """Delete a pod that has failed or succeeded: it never runs again, whatever its exit code."""
    status, disruption = pod["status"], _disruption(pod)
    if state(pod, "terminated").get("reason") == "OOMKilled":
        reason = Reason.OOM_KILLED
    elif status["phase"] == "Succeeded":
        reason = Reason.POD_SUCCEEDED
    elif disruption is not None:
        reason = disruption[0]
    else:
        reason = Reason.EVICTED if status.get("reason") == "Evicted" else Reason.POD_FAILED
    message = status.get("message") or (
        disruption[1]
        if disruption is not None
        else f"The pod has ended: {status.get('reason') or status['phase']}."
    )
    delete = attempt(DeletePod(pod["metadata"]["uid"], reason, failed=True), facts)
    # A refused deletion is the problem to show: without it there would be another pod by now.
    result = _not_ready if delete.problems else _stalled
    return result(_phase_without_report(session), reason, message, delete)


class _Replacement(NamedTuple):
    """Whether the pod has to go although it may work."""

    reason: Reason | None = None  # why it has to go now
    pending: Problem | None = None  # why it has to go, but not yet
    step: Step = Step()


def _replacement(
    session: Session, facts: Facts, pod: Manifest, storage: StorageResult, stop: Reason | None
) -> _Replacement:
    template = facts.template
    reason = stop or _replacement_reason(session, facts, pod, template)
    if login_ends_with_pod(session, storage):
        return _Replacement(pending=_held_back(reason))
    if facts.class_violation is not None and stop is None:
        return _Replacement(pending=None if reason is None else Problem(*facts.class_violation))
    if storage.release_volume:
        return _Replacement(Reason.VOLUME_LOST)
    if controller(pod) is None:
        # Left behind by an earlier session: it has that one's token and UID.
        return _Replacement(Reason.POD_ORPHANED)
    if stop is not None:
        return _Replacement(stop)
    begun = reason is termination_reason(session.status)
    if reason is None or begun or _has_failed(facts, pod):
        return _Replacement(reason)
    update = reason is Reason.TEMPLATE_CHANGED
    if update and session.spec.update_strategy is UpdateStrategy.ON_DELETE:
        files = is_of_template(session, pod, template)
        message = FILES_ON_DELETE if files else UPDATE_ON_DELETE
        return _Replacement(pending=Problem(Reason.UPDATE_PENDING, message))
    if facts.accepted_template != template:
        return _check(facts, template)
    if update and not facts.may_roll_out and not is_updating(session.status):
        if facts.rollout_halted:
            return _Replacement(pending=Problem(Reason.UPDATE_PENDING, UPDATE_HALTED))
        if not facts.may_update:
            return _Replacement(pending=Problem(Reason.UPDATE_PENDING, UPDATE_QUEUED))
    return _Replacement(reason)


def _replacement_reason(
    session: Session, facts: Facts, pod: Manifest, template: str
) -> Reason | None:
    """Return what the spec or an annotation wants the pod to be replaced for."""
    requested, present = session.annotations.get(names.ANNOTATION_RESTART), annotations_of(pod)
    if requested is not None and requested != present.get(names.ANNOTATION_RESTART):
        return Reason.RESTART_REQUESTED
    files_changed = _is_ready(pod) and bool(changed_files(session, facts.report))
    if files_changed or not is_of_template(session, pod, template):
        return Reason.TEMPLATE_CHANGED
    return None


def _held_back(reason: Reason | None) -> Problem | None:
    """Return what waits because the login would end with the pod."""
    return None if reason is None else Problem(Reason.VOLUME_TERMINATING, HELD_BACK[reason])


def _check(facts: Facts, template: str) -> _Replacement:
    """Let the API server check the next pod while this one still runs."""
    step = attempt(CheckPod(template), facts)
    pending = Problem(Reason.UPDATE_PENDING, UPDATE_CHECKED)
    return _Replacement(None, next(iter(step.problems), pending), step)


def _has_failed(facts: Facts, pod: Manifest) -> bool:
    """Return whether a pod does not work, so that a change can only repair it.

    Not if it may work, or if its node is the problem.
    """
    if pod.get("status", {}).get("phase") == "Pending" or _container_problem(pod):
        return True
    if _is_ready(pod):
        return facts.report is not None and facts.report.phase is Phase.FAILED
    return not _waits_for_node(facts) and facts.now - since(pod, "Ready") >= STARTING_PATIENCE


def _waits_for_node(facts: Facts) -> bool:
    """Return whether the pod's node does not answer."""
    return facts.node is not None and (facts.node.gone or facts.node.not_ready_since is not None)


def _delete(session: Session, facts: Facts, pod: Manifest, reason: Reason) -> PodResult:
    delete = attempt(DeletePod(pod["metadata"]["uid"], reason), facts)
    if reason in STOPPED:
        return replace(_stopping(reason), step=delete)
    message = "The pod is replaced by a new one."
    return _not_ready(_phase_without_report(session), reason, message, delete)


# --- pods that run, or are about to ---------------------------------------------------------------


def _running_pod(
    session: Session, facts: Facts, pod: Manifest, _storage: StorageResult
) -> PodResult:
    if facts.report is not None:
        phase, reason, message = facts.report.phase, facts.report.reason, facts.report.message
        return PodResult(phase, reason, message, RUNNING, _reported_problems(facts.report))
    phase, reason = _phase_without_report(session), Reason.POD_UNREACHABLE
    message = "The operator has no connection to the session pod yet."
    silence = facts.now - max(facts.silent_since or facts.now, since(pod, "Ready"))
    patience = _answer_patience(session, pod)
    if silence < patience:
        step = Step(requeue_after=patience - silence)
        return PodResult(phase, reason, message, RUNNING, step, undecided=True)
    if silence < UNREACHABLE_PATIENCE:
        step = Step(requeue_after=UNREACHABLE_PATIENCE - silence)
        return PodResult(phase, reason, message, RUNNING, step)
    cause = facts.watch_error or "the pod does not answer"
    message = f"The operator cannot follow the session pod on port {PORT}: {cause}."
    return PodResult(phase, reason, message, RUNNING, report_problem(reason, message))


def _answer_patience(session: Session, pod: Manifest) -> timedelta:
    """Return how long the present status stands while the pod does not answer."""
    if _is_reported(session, pod):
        return ANSWER_PATIENCE
    return FIRST_ANSWER_PATIENCE if session.status.phase in BEFORE_REPORT else timedelta(0)


def _is_reported(session: Session, pod: Manifest) -> bool:
    """Return whether the status shows a report of this very pod."""
    ready = session.status.condition(ConditionType.READY)
    pod_ready = session.status.condition(ConditionType.POD_READY)
    if ready is None or pod_ready is None or session.status.pod_uid != pod["metadata"]["uid"]:
        return False
    return pod_ready.status == "True" and ready.reason != Reason.POD_UNREACHABLE


def _reported_problems(report: Report) -> Step:
    unexpected = report.reason in UNEXPECTED_REASONS or report.phase is Phase.FAILED
    problems = [Problem(report.reason, report.message)] if unexpected else []
    problems += [Problem(warning.reason, warning.message) for warning in report.warnings]
    return Step(problems=tuple(problems))


def _starting_pod(
    session: Session, facts: Facts, pod: Manifest, storage: StorageResult
) -> PodResult:
    pending = pod.get("status", {}).get("phase", "Pending") == "Pending"
    phase, node = _phase_without_report(session, pending=pending), facts.node
    if node is not None and node.gone:
        message = f"Node {node.name} was deleted; Kubernetes is about to remove the pod."
        return _stalled(phase, Reason.NODE_GONE, message)
    if node is not None and node.not_ready_since is not None:
        message = f"Node {node.name} is not Ready; the session waits for it."
        return _stalled(phase, Reason.NODE_LOST, message)
    if problem := _restoration_problem(pod) or _container_problem(pod):
        return _stalled(phase, problem.reason, problem.message)
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return _unschedulable(phase, scheduled, facts, pod, storage)
    remaining = since(pod, "Ready") + STARTING_PATIENCE - facts.now
    if remaining <= timedelta(0):
        minutes = int(STARTING_PATIENCE.total_seconds() / 60)
        message = f"The pod has not become ready within {minutes} minutes; see its Events."
        return _stalled(phase, Reason.POD_NOT_READY, message)
    if state(pod, "running", of=objects.RESTORE_CONTAINER):
        reason, message = Reason.VOLUME_RESTORING, VOLUME_RESTORING
    elif "nodeName" in pod["spec"]:
        reason, message = Reason.POD_NOT_READY, "The pod is starting."
    else:
        reason, message = Reason.POD_PENDING, NO_NODE_YET
    return _not_ready(phase, reason, message, Step(requeue_after=remaining))


def _unschedulable(
    phase: Phase, scheduled: Manifest, facts: Facts, pod: Manifest, storage: StorageResult
) -> PodResult:
    """Report a pod that no node takes, but not at once: its volume may have to be provisioned."""
    remaining = since(pod, "PodScheduled") + SCHEDULING_PATIENCE - facts.now
    if remaining > timedelta(0):
        return _not_ready(phase, Reason.POD_PENDING, NO_NODE_YET, Step(requeue_after=remaining))
    if not storage.finding.ok:
        return _stalled(phase, storage.finding.reason, storage.finding.message)
    message = scheduled.get("message") or "The scheduler finds no node for the pod."
    return _stalled(phase, Reason.UNSCHEDULABLE, message)


def _restoration_problem(pod: Manifest) -> Problem | None:
    """Return why the pod cannot restore the backup; kubelet tries again with backoff."""
    for which in ("lastState", "state"):
        ended = state(pod, "terminated", which, of=objects.RESTORE_CONTAINER)
        if ended and ended.get("exitCode") != 0:
            message = ended.get("message") or f"The restoration has failed: {ended.get('reason')}."
            return Problem(Reason.BOOTSTRAP_FAILED, message.strip())
    return None


def _container_problem(pod: Manifest) -> Problem | None:
    """Return why kubelet cannot start the session's container, if it cannot."""
    waiting = state(pod, "waiting")
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in IMAGE_PULL_ERRORS:
        message = message or f"The image cannot be pulled: {reason}."
        return Problem(Reason.IMAGE_PULL_BACK_OFF, message)
    if reason in CONTAINER_ERRORS:
        return Problem(reason, message or "The container cannot be started.")
    if reason != "CrashLoopBackOff":
        return None
    last = state(pod, "terminated", "lastState")
    if last.get("reason") == "OOMKilled":
        message = "The session needs more memory than its limit; its container is restarted."
        return Problem(Reason.OOM_KILLED, message)
    message = f"The session's process keeps exiting: {last.get('reason')}."
    return Problem(Reason.CRASH_LOOP_BACK_OFF, last.get("message") or message)
