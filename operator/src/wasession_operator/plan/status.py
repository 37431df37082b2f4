"""The status that follows from an outcome, and the Events for what has changed in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

from wasession_api import names
from wasession_api.kube.manifests import Manifest
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import (
    AccountStatus,
    Condition,
    ConditionType,
    DisconnectKind,
    LastDisconnect,
    Phase,
    PinnedDocument,
    Reason,
    RequestStatus,
    Restarts,
    Status,
    account_status,
)

from wasession_operator.plan.actions import Event
from wasession_operator.plan.conditions import Conditions
from wasession_operator.plan.delivery import delivering
from wasession_operator.plan.facts import Facts, Session
from wasession_operator.plan.manifests import (
    annotations_of,
    container,
    is_terminating,
    ownership_conflict,
    revision_of,
    state,
)
from wasession_operator.plan.pod import STOPPED, termination_reason
from wasession_operator.plan.results import Finding, Outcome, PodResult, Problem
from wasession_operator.plan.rollout import is_updating

PROGRESSING = {
    Phase.PENDING,
    Phase.STARTING,
    Phase.SYNCING,
    Phase.RESTORING,
    Phase.RECONNECTING,
    Phase.AUTHENTICATING,
}
# Phases in which the operator or the session pod is at work. Authenticating is not one: a session
# waits for a person with a phone then, perhaps for days, and GitOps tools must not wait with it.
RECONCILING = PROGRESSING - {Phase.AUTHENTICATING} | {Phase.TERMINATING}
# Why a session that is under way gets no further before a person has acted. What may pass by itself
# (a full cluster, a lost node, a network that is down, a crash) is not here.
STALLING_REASONS = {
    Reason.LOGIN_IN_USE_ELSEWHERE, Reason.POD_CREATE_FAILED, Reason.IMAGE_PULL_BACK_OFF,
    Reason.CREATE_CONTAINER_CONFIG_ERROR, Reason.CRASH_LOOP_BACK_OFF, Reason.PVC_CREATE_FAILED,
    Reason.BACKUP_NOT_FOUND, Reason.BACKUP_SOURCE_RUNNING, Reason.BACKUP_SOURCE_NOT_FENCED,
    Reason.BOOTSTRAP_FAILED, Reason.CERTIFICATE_UNTRUSTED, Reason.PROXY_BLOCKED,
    Reason.VERSION_REFUSED,
}  # fmt: skip
ROLLOUT_HALTED = Reason.ROLLOUT_HALTED
PHONE_LAST_SEEN_STEP = timedelta(hours=12)  # a smaller advance alone is not written
# Restarts that somebody has caused on purpose.
REQUESTED = {
    Reason.RESTART_REQUESTED,
    Reason.TEMPLATE_CHANGED,
    Reason.POD_DELETED,
    Reason.POD_ORPHANED,
}
RESTARTED = {
    Reason.RESTART_REQUESTED: "The pod was replaced, as requested by annotation.",
    Reason.TEMPLATE_CHANGED: "The pod was replaced, because its template has changed.",
    Reason.POD_DELETED: "The pod was deleted; another one replaces it.",
    Reason.POD_ORPHANED: "The pod of an earlier session of this name was replaced.",
    Reason.POD_FAILED: "The pod has failed; another one replaces it.",
    Reason.POD_SUCCEEDED: "The session's process has ended; another pod replaces this one.",
    Reason.EVICTED: "The pod had to leave its node; another one replaces it.",
    Reason.NODE_GONE: "The pod's node was deleted; another pod replaces this one.",
    Reason.NODE_LOST: "The pod's node is considered down; another pod replaces this one.",
    Reason.VOLUME_LOST: "The pod had lost its volume; another one replaces it.",
    Reason.VOLUME_RESTORING: "The pod was replaced to restore another backup.",
    Reason.OOM_KILLED: "The session needed more memory than its limit; it is started again.",
    Reason.CONTAINER_RESTARTED: "The session's container has exited; kubelet starts it again.",
}
DISCONNECTS = {
    DisconnectKind.LOGOUT: Reason.LOGGED_OUT_BY_PHONE,
    DisconnectKind.CONNECTION: Reason.CONNECTION_LOST,
    DisconnectKind.CONFLICT: Reason.OPENED_ELSEWHERE,
    DisconnectKind.CRASH: Reason.BROWSER_CRASHED,
    DisconnectKind.PHONE_OFFLINE: Reason.PHONE_OFFLINE,
}


def make_status(session: Session, facts: Facts, outcome: Outcome) -> Status:
    """Return the whole status of a session."""
    before, pod = session.status, outcome.pod
    report = facts.report if pod.finding.ok else None
    status = before.model_copy()  # its parts are replaced, never changed
    status.observed_generation, status.logout = session.generation, outcome.logout
    status.update, status.session_class = outcome.update, facts.session_class
    status.revision = _revision(session, facts, pod.finding)
    if outcome.token is not None:
        status.token_epoch, status.token_rotation = outcome.token.epoch, outcome.token.rotation
    if facts.pvc is not None and not _is_foreign(session, facts.pvc):
        metadata = facts.pvc["metadata"]
        status.pvc_name, status.pvc_uid = metadata["name"], metadata.get("uid")
        capacity = (facts.pvc.get("status") or {}).get("capacity") or {}
        status.pvc_capacity = capacity.get("storage")
    if outcome.storage is not None:
        status.volume_loss, status.bootstrap = outcome.storage.loss, outcome.bootstrap
    if outcome.hibernation is not None:
        status.hibernation, status.wake = outcome.hibernation.status, outcome.hibernation.wake
    status.last_backup = facts.last_backup or before.last_backup
    _count_restarts(session, status, facts)
    _acknowledge_requests(session, status, facts, pod.finding)
    if outcome.data_loss_accepted:
        status.session_valid = False
    if pod.undecided:
        status.conditions = _retained_conditions(session, facts, outcome)
        return status
    status.phase = pod.phase
    status.account_status = account_status(pod.phase)
    if outcome.step.problems and status.account_status is AccountStatus.ACTIVE:
        status.account_status = AccountStatus.DISCONNECTED  # it makes no progress
    if report is not None:
        _apply_report(before, status, report, facts.now)
    else:
        status.is_authenticated = False
        status.pairing = None
        status.restored = False
    if session.deleted_at is not None and facts.report is not None:
        # Whether the device was logged out before the end.
        status.session_valid = _validity(status, facts.report)
    if status.session_valid is None:
        status.session_valid = False
    status.conditions = _conditions(session, facts, outcome, status, report)
    return status


def invalid_spec_status(session: Session, now: datetime, message: str) -> Status:
    """Return the status of a session whose spec cannot be parsed.

    The CRD's validation should have rejected it: the CRD is older, or validation was bypassed.
    """
    status = session.status.model_copy()
    status.observed_generation, status.phase = session.generation, Phase.FAILED
    status.account_status = account_status(Phase.FAILED)
    conditions = Conditions(session.status.conditions, session.generation, whole_seconds(now))
    for kind in ConditionType:
        conditions.retain(kind)
    conditions.set(ConditionType.READY, False, Reason.INVALID_SPEC, message)
    conditions.set(ConditionType.PROGRESSING, False, Reason.INVALID_SPEC, message)
    conditions.set(ConditionType.DEGRADED, True, Reason.INVALID_SPEC, message)
    conditions.drop(ConditionType.RECONCILING)
    conditions.set(ConditionType.STALLED, True, Reason.INVALID_SPEC, message)
    status.conditions = conditions.as_list()
    return status


def whole_seconds(moment: datetime) -> datetime:
    """Return the time as Kubernetes stores it: a finer one would look like a change."""
    return moment.astimezone(UTC).replace(microsecond=0)


def _revision(session: Session, facts: Facts, pod: Finding) -> str | None:
    """Return the revision of the session's pod; while it is updated, that of the next one."""
    if session.revision is None and facts.session_class and facts.class_violation is None:
        return None  # the class has no rollout
    if pod.reason == Reason.TEMPLATE_CHANGED:
        return session.revision or session.status.revision
    if facts.pod is None or is_terminating(facts.pod) or _is_foreign(session, facts.pod):
        return session.status.revision
    if facts.template == annotations_of(facts.pod).get(names.ANNOTATION_TEMPLATE_HASH):
        # Whatever it was created as: what has changed since does not concern it.
        return session.revision or session.status.revision
    return revision_of(facts.pod) or session.status.revision


# --- Events ---------------------------------------------------------------------------------------


def make_events(before: Status, after: Status) -> list[Event]:
    """Return one Event for each change that a person would want to read about."""
    events: list[Event] = []
    degraded, was = _degraded(after), _degraded(before)
    if degraded is not None and (was is None or was.reason != degraded.reason):
        events.append(Event("Warning", degraded.reason, degraded.message))
    halted = is_updating(after) and after.update is not None and after.update.failed
    was_halted = before.update is not None and before.update.failed
    if halted and not was_halted and (degraded is None or degraded.reason != ROLLOUT_HALTED):
        message = "The session has not recovered from its update; the rollout is halted."
        events.append(Event("Warning", ROLLOUT_HALTED, message))
    restarts = after.restarts
    if restarts.count > before.restarts.count and restarts.reason is not None:
        kind: Literal["Normal", "Warning"] = "Normal" if restarts.reason in REQUESTED else "Warning"
        events.append(Event(kind, restarts.reason, RESTARTED[Reason(restarts.reason)]))
    last = after.last_disconnect
    if last is not None and last != before.last_disconnect:
        events.append(_disconnect_event(last, before, after))
    if after.phase is not before.phase:
        events += _phase_events(before, after)
    return events


def _disconnect_event(last: LastDisconnect, before: Status, after: Status) -> Event:
    ready, logout = after.condition(ConditionType.READY), after.logout
    reason = ready.reason if ready is not None else None
    fulfilled = logout is not None and logout.done and logout != before.logout
    requested = reason == Reason.LOGGED_OUT_ON_REQUEST or (
        fulfilled and reason != Reason.LOGGED_OUT_BY_PHONE
    )
    if last.kind is DisconnectKind.LOGOUT and requested:
        message = "The device was logged out of WhatsApp, as requested."
        return Event("Normal", Reason.LOGGED_OUT_ON_REQUEST, message)
    message = f"The connection to WhatsApp ended: {last.reason}."
    return Event("Warning", DISCONNECTS[last.kind], message)


def _phase_events(before: Status, after: Status) -> list[Event]:
    ready = after.condition(ConditionType.READY)
    match after.phase:
        case Phase.READY if after.restorations > before.restorations:
            reason, message = Reason.RESTORED, "The session was restored from its stored login."
        case Phase.READY if not before.session_valid:
            reason, message = Reason.NEW_LOGIN, "A phone was linked, and its login is stored."
        case Phase.READY:
            reason, message = Reason.CONNECTED, "The session is ready."
        case Phase.AUTHENTICATING if ready is not None and _degraded(after) is None:
            return [Event("Normal", ready.reason, ready.message)]
        case Phase.SUSPENDED:
            reason, message = Reason.SUSPENDED, "The session is suspended; its volume is retained."
        case Phase.HIBERNATED:
            reason, message = Reason.HIBERNATED, "The session sleeps until somebody uses it."
        case _:
            return []
    return [Event("Normal", reason, message)]


def _degraded(status: Status) -> Condition | None:
    degraded = status.condition(ConditionType.DEGRADED)
    return degraded if degraded is not None and degraded.status == "True" else None


# --- requests -------------------------------------------------------------------------------------


def _acknowledge_requests(session: Session, status: Status, facts: Facts, pod: Finding) -> None:
    """Record the restart that an annotation requests, and whether it is done."""
    before, now = session.status, whole_seconds(facts.now)
    requested, key = session.annotations.get(names.ANNOTATION_RESTART), names.ANNOTATION_RESTART
    done = pod.ok and _notes(facts.pod, key) == requested
    status.restart = _acknowledge(before.restart, requested, now, done=done)


def _notes(obj: Manifest | None, annotation: str) -> str | None:
    return None if obj is None else annotations_of(obj).get(annotation)


def _acknowledge(
    before: RequestStatus | None, request: str | None, now: datetime, *, done: bool
) -> RequestStatus | None:
    """Return the record of a request; what is done once stays done."""
    if request is None:
        return before
    if before is None or before.request != request:
        return RequestStatus(request=request, at=now, done=done)
    return before.model_copy(update={"done": before.done or done})


# --- report and pod -------------------------------------------------------------------------------


def _is_foreign(session: Session, obj: Manifest) -> bool:
    """Return whether an object is somebody else's: the status must never claim its UID."""
    conflict = ownership_conflict(session, obj)
    return conflict is not None and conflict.reason == Reason.NAME_CONFLICT


def _count_restarts(session: Session, status: Status, facts: Facts) -> None:
    """Count replaced pods, and the starts of the present container beyond its first."""
    before, pod = session.status, facts.pod
    if pod is not None and _is_foreign(session, pod):
        pod = None
    uid = pod["metadata"]["uid"] if pod else None
    status.pod_name = pod["metadata"]["name"] if pod else None
    status.node_name = pod["spec"].get("nodeName") if pod else None
    status.pod_uid = uid
    status.replicas = 1 if pod else 0
    status.selector = f"{names.SELECTOR},{names.LABEL_SESSION}={names.label_value(session.name)}"
    if before.pod_uid not in (None, uid):
        reason = termination_reason(before) or Reason.POD_DELETED
        status.restarts = status.restarts.model_copy(update={"container": 0})
        if reason not in STOPPED and session.deleted_at is None:
            _add_restarts(status, 1, facts, reason)
    starts = container(pod).get("restartCount", 0) if pod else 0
    if pod is not None and starts > status.restarts.container:
        oom = state(pod, "terminated", "lastState").get("reason") == "OOMKilled"
        reason = Reason.OOM_KILLED if oom else Reason.CONTAINER_RESTARTED
        _add_restarts(status, starts - status.restarts.container, facts, reason)
        status.restarts = status.restarts.model_copy(update={"container": starts})


def _add_restarts(status: Status, times: int, facts: Facts, reason: Reason) -> None:
    status.restarts = Restarts(
        count=status.restarts.count + times,
        last=whole_seconds(facts.now),
        reason=reason.value,
        container=status.restarts.container,
    )


def _apply_report(before: Status, status: Status, report: Report, now: datetime) -> None:
    status.login_id = report.login_id or before.login_id
    status.restored = report.phase is Phase.READY and report.restored
    counted = before.last_connected is not None and before.last_connected >= report.started_at
    if status.restored and not counted:
        status.restorations = before.restorations + 1
    status.session_valid = _validity(before, report)
    status.is_authenticated = report.is_authenticated
    status.auth_state = report.auth_state
    status.pairing = report.pairing
    status.last_connected = report.last_connected or before.last_connected
    status.last_disconnect = report.last_disconnect or before.last_disconnect
    status.account = report.account or before.account
    if status.session_valid is False and not report.is_authenticated:
        status.last_account = status.account or before.last_account
        status.account = status.login_id = None
    status.whatsapp_web_version = report.whatsapp_web_version or before.whatsapp_web_version
    status.wa_js = report.wa_js or before.wa_js
    status.whatsapp_document = _pinned_document(before, report, now)
    status.last_shutdown = report.last_shutdown or before.last_shutdown
    if report.delivery_revision is not None:
        status.delivery = report.deliveries
    seen, known = report.phone_last_seen, before.phone_last_seen
    if seen is None:
        return
    if known is None or seen < known or seen - known >= PHONE_LAST_SEEN_STEP:
        status.phone_last_seen = seen


def _pinned_document(before: Status, report: Report, now: datetime) -> PinnedDocument | None:
    """Return the pinned document, with the time of the first report of it."""
    sha256, known = report.document_sha256, before.whatsapp_document
    if sha256 is None or (known is not None and known.sha256 == sha256):
        return known if sha256 is not None else None
    return PinnedDocument(sha256=sha256, since=whole_seconds(now))


def _validity(before: Status, report: Report) -> bool | None:
    """Return whether the login is valid: as before, unless the report proves otherwise."""
    proven = report.proven_validity
    return before.session_valid if proven is None else proven


# --- conditions -----------------------------------------------------------------------------------


def _conditions(
    session: Session, facts: Facts, outcome: Outcome, status: Status, report: Report | None
) -> list[Condition]:
    pod, problems = outcome.pod, outcome.step.problems
    conditions = Conditions(session.status.conditions, session.generation, whole_seconds(facts.now))
    conditions.set(ConditionType.READY, pod.phase is Phase.READY, pod.reason, pod.message)
    conditions.set(ConditionType.POD_READY, *pod.finding)
    if outcome.storage is None:
        conditions.retain(ConditionType.STORAGE_READY)
    else:
        conditions.set(ConditionType.STORAGE_READY, *outcome.storage.finding)
    _set_authenticated(conditions, outcome, status, report)
    _set_restored(conditions, outcome, status, report)
    progressing = pod.phase in PROGRESSING and not problems
    if pod.pending is not None and not progressing:
        conditions.set(ConditionType.PROGRESSING, False, *pod.pending)
    else:
        conditions.set(ConditionType.PROGRESSING, progressing, pod.reason, pod.message)
    conditions.set(ConditionType.DEGRADED, bool(problems), *_main_problem(outcome))
    if _is_stalled(pod, problems):
        conditions.set(ConditionType.STALLED, True, pod.reason, pod.message)
    elif pod.phase in RECONCILING:
        conditions.set(ConditionType.RECONCILING, True, pod.reason, pod.message)
    _set_sandboxed(conditions, report)
    _set_delivering(conditions, session, status)
    return conditions.as_list()


def _is_stalled(pod: PodResult, problems: tuple[Problem, ...]) -> bool:
    """Return whether a person must act, because nothing progresses by itself."""
    if pod.phase in (Phase.FAILED, Phase.LOGGED_OUT):
        return pod.reason != Reason.LOGGED_OUT_ON_REQUEST
    return pod.reason in STALLING_REASONS and any(it.reason == pod.reason for it in problems)


def _set_sandboxed(conditions: Conditions, report: Report | None) -> None:
    """Tell whether Chromium has its sandbox, once the pod has reported it."""
    if report is None or report.sandboxed is None:
        conditions.retain(ConditionType.SANDBOXED)
    elif report.sandboxed:
        conditions.set(ConditionType.SANDBOXED, True, Reason.AS_EXPECTED, "")
    else:
        message = "The node or the pod's seccomp profile prevents Chromium from using its sandbox."
        conditions.set(ConditionType.SANDBOXED, False, Reason.SANDBOX_UNAVAILABLE, message)


def _set_delivering(conditions: Conditions, session: Session, status: Status) -> None:
    """Tell whether all webhooks and sinks are delivered to, as the pod has reported last."""
    wanted = session.spec.webhooks or session.spec.sinks
    if wanted and (finding := delivering(status.delivery)) is not None:
        conditions.set(ConditionType.DELIVERING, *finding)


def _retained_conditions(session: Session, facts: Facts, outcome: Outcome) -> list[Condition]:
    """Return the present conditions with only the news from the API server on pod and claim."""
    conditions = Conditions(session.status.conditions, session.generation, whole_seconds(facts.now))
    for kind in ConditionType:
        conditions.retain(kind)
    if facts.pod is not None:
        conditions.set(ConditionType.POD_READY, *outcome.pod.finding)
    if outcome.storage is not None:
        conditions.set(ConditionType.STORAGE_READY, *outcome.storage.finding)
    return conditions.as_list()


def _main_problem(outcome: Outcome) -> Problem:
    """Return the problem to show: the one that explains why the session is not Ready, if any."""
    problems = outcome.step.problems
    explaining = [problem for problem in problems if problem.reason == outcome.pod.reason]
    return next(iter((*explaining, *problems)), Problem(Reason.AS_EXPECTED, ""))


def _set_authenticated(
    conditions: Conditions, outcome: Outcome, status: Status, report: Report | None
) -> None:
    kind, pod = ConditionType.AUTHENTICATED, outcome.pod
    if report is not None:
        conditions.set(kind, report.is_authenticated, report.reason, report.message)
    elif status.session_valid:
        conditions.set(kind, "Unknown", pod.reason, pod.message)
    else:
        conditions.set(kind, False, Reason.NO_LOGIN, "No phone has been linked.")


def _set_restored(
    conditions: Conditions, outcome: Outcome, status: Status, report: Report | None
) -> None:
    """Set the condition ``Restored``; ``wasession_api.restoration`` reads it.

    Once the pod has connected, the restoration is over: what happens later is no failure of it.
    """
    kind, pod = ConditionType.RESTORED, outcome.pod
    connected = status.session_valid and report is not None and _has_connected(report)
    if status.restored or (connected and report is not None and report.restored):
        message = "The session came back from its stored login."
        conditions.set(kind, True, Reason.RESTORED, message)
    elif report is not None and report.reason in (Reason.RESTORATION_FAILED, Reason.LOGIN_MISSING):
        conditions.set(kind, False, report.reason, report.message)
    elif pod.phase is Phase.READY or connected:
        conditions.set(kind, False, Reason.NEW_LOGIN, "The phone was linked since the pod started.")
    elif outcome.step.problems and status.session_valid:
        conditions.set(kind, False, *_main_problem(outcome))
    elif status.session_valid:
        conditions.set(kind, "Unknown", pod.reason, pod.message)
    else:
        conditions.set(kind, False, Reason.NO_LOGIN, "There is no login to restore.")


def _has_connected(report: Report) -> bool:
    """Whether the session has been Ready since its pod started."""
    return report.last_connected is not None and report.last_connected >= report.started_at
