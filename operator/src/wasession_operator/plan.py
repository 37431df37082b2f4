"""What should be done for a session, and what its status should say: pure.

``plan`` looks at everything that is known and answers with actions, a status and Events. It does not remember: called again
with the same facts it gives the same answer, and after its actions have worked it gives none.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from wasession_api.report import Report
from wasession_api.v1alpha1 import (
    ConditionType,
    Phase,
    Reason,
    Restarts,
    Spec,
    Status,
    UpdateStrategy,
    WhenDeleted,
    account_status,
)

from wasession_operator import names, objects
from wasession_operator.conditions import Conditions
from wasession_operator.settings import NodeLost, Settings

Manifest = dict[str, Any]
BACKOFF_FIRST = timedelta(seconds=2)
BACKOFF_LAST = timedelta(minutes=5)
LOGOUT_AGAIN = timedelta(seconds=2)
SCHEDULING_TAKES = timedelta(seconds=5)
IMAGE_REASONS = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
CONTAINER_REFUSED = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
PROGRESSING = {Phase.PENDING, Phase.STARTING, Phase.SYNCING, Phase.RESTORING, Phase.RECONNECTING, Phase.AUTHENTICATING}


# --- what goes in -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Session:
    """A WhatsAppSession as the API server has it."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: Spec
    status: Status
    deleted_at: datetime | None = None
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Failures:
    """What went wrong in a row, kept in memory: after a restart of the operator the first try comes at once."""

    count: int = 0
    last: datetime | None = None
    refused: str | None = None  # the API server's own words for what it did not accept


@dataclass(frozen=True)
class Facts:
    """Everything that is known about a session's objects."""

    now: datetime
    pod: Manifest | None = None
    pvc: Manifest | None = None
    secret: bool = False
    report: Report | None = None  # of this very pod, and only while it can be heard
    node_gone: bool = False
    node_lost_since: datetime | None = None
    may_start: bool = True  # whether it is this session's turn to start a pod
    failures: Failures = Failures()
    ended: Reason | None = None  # why the pod before this one was deleted, when the operator did it


# --- what comes out ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CreateSecret:
    pass


@dataclass(frozen=True)
class CreatePvc:
    pass


@dataclass(frozen=True)
class CreatePod:
    restoring: bool
    restart: str | None = None  # the restart annotation that this pod fulfils


@dataclass(frozen=True)
class DeletePod:
    uid: str
    reason: Reason
    grace_seconds: int | None = None
    failed: bool = False  # counts as a failure, so that the next one waits


@dataclass(frozen=True)
class Logout:
    """Asks the pod to end its login."""


@dataclass(frozen=True)
class DeletePvc:
    uid: str


@dataclass(frozen=True)
class PatchPvc:
    patch: Manifest


Action = CreateSecret | CreatePvc | CreatePod | DeletePod | DeletePvc | PatchPvc | Logout


@dataclass(frozen=True)
class Event:
    """A Kubernetes Event, posted once per transition."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    actions: list[Action]
    status: Status
    events: list[Event]
    requeue_after: timedelta | None = None
    done: bool = False  # a deleted session has nothing left


@dataclass
class _Draft:
    """What one pass of ``plan`` finds out."""

    phase: Phase = Phase.PENDING
    reason: str = Reason.POD_PENDING
    message: str = ""
    actions: list[Action] = field(default_factory=list)
    pod: tuple[bool, str, str] = (False, Reason.POD_MISSING, "")
    storage: tuple[bool, str, str] = (False, Reason.VOLUME_PENDING, "")
    trouble: tuple[str, str] | None = None
    requeue: timedelta | None = None
    done: bool = False

    def blocked(self, reason: str, message: str) -> None:
        """Nothing can go on until somebody or something changes this."""
        self.reason, self.message, self.trouble = reason, message, (reason, message)


def plan(session: Session, facts: Facts, settings: Settings) -> Plan:
    """The next step for a session."""
    result = _plan(session, facts, settings)
    if result.status.session_valid != session.status.session_valid:
        # What the pod has just said of its login counts at once, not only when it has been written.
        known = session.status.model_copy(update={"session_valid": result.status.session_valid})
        result = _plan(replace(session, status=known), facts, settings)
    return result


def _plan(session: Session, facts: Facts, settings: Settings) -> Plan:
    draft = _Draft()
    if session.deleted_at is not None:
        _delete(session, facts, draft)
    else:
        _storage(session, facts, draft)
        if not facts.secret:
            draft.actions.append(CreateSecret())
        _pod(session, facts, settings, draft)
    status = _status(session, facts, draft)
    return Plan(draft.actions, status, _events(session.status, status), draft.requeue, draft.done)


# --- the volume -------------------------------------------------------------------------------------------------------


def _storage(session: Session, facts: Facts, draft: _Draft) -> None:
    pvc = facts.pvc
    if pvc is None:
        if session.status.session_valid and session.status.pvc_name:
            words = "The claim of a valid login is gone. No empty one takes its place: restore it, or delete the session."
            draft.storage = (False, Reason.VOLUME_LOST, words)
        else:
            draft.actions.append(CreatePvc())
            draft.storage = (False, Reason.VOLUME_PENDING, "The volume claim is being created.")
        return
    metadata, phase = pvc["metadata"], pvc.get("status", {}).get("phase", "Pending")
    problem = _not_ours(session, pvc)
    if problem:
        draft.storage = (False, Reason.NAME_TAKEN, problem)
    elif metadata.get("deletionTimestamp"):
        draft.storage = (False, Reason.VOLUME_TERMINATING, "The volume claim is being deleted.")
    elif phase == "Lost":
        draft.storage = (False, Reason.VOLUME_LOST, "The volume claim has lost its volume.")
    elif phase != "Bound":
        storage_class = pvc["spec"].get("storageClassName")
        words = f"The volume claim waits for a volume of {f'StorageClass {storage_class}' if storage_class else 'no class'}."
        scheduling = _condition(facts.pod, "PodScheduled")
        if scheduling.get("status") == "False":
            words = f"{words} {scheduling.get('message', '')}".strip()
        draft.storage = (False, Reason.VOLUME_PENDING, words)
    else:
        draft.storage = (True, Reason.VOLUME_BOUND, "")
    if problem is None and not metadata.get("deletionTimestamp"):
        patch = _pvc_patch(session, pvc)
        if patch:
            draft.actions.append(PatchPvc(patch))


def _not_ours(session: Session, found: Manifest) -> str | None:
    """Why an object with our name must not be touched; None when it is this session's.

    A volume claim that an earlier session of the same name and client id has left is ours: that is what it was kept for.
    """
    metadata = found["metadata"]
    owner = next((o for o in metadata.get("ownerReferences", []) if o.get("controller")), None)
    what = f"{found.get('kind', 'object')} {metadata['name']}"
    if owner is not None and owner["uid"] != session.uid:
        return f"{what} belongs to {owner['kind']} {owner['name']}; it is left alone."
    if metadata.get("labels", {}).get(names.LABEL_MANAGED_BY) != names.MANAGED_BY:
        return f"{what} was not made by this operator; it is left alone."
    client_id = metadata.get("annotations", {}).get(names.ANNOTATION_CLIENT_ID)
    if owner is None and client_id != objects.client_id(session.name, session.spec):
        return f"{what} holds the login of clientId {client_id}; it is left alone."
    return None


def _pvc_patch(session: Session, pvc: Manifest) -> Manifest:
    """What has to change on an existing claim: its owner by the retention, its size when more is wanted."""
    desired = objects.make_pvc(session.namespace, session.name, session.uid, session.spec)
    patch: Manifest = {}
    wanted, present = desired["metadata"].get("ownerReferences"), pvc["metadata"].get("ownerReferences")
    if bool(wanted) != bool(present):
        patch["metadata"] = {"ownerReferences": wanted}
    size = desired["spec"]["resources"]["requests"]["storage"]
    if _bytes(size) > _bytes(pvc["spec"]["resources"]["requests"]["storage"]):
        patch["spec"] = {"resources": {"requests": {"storage": size}}}
    return patch


def _bytes(quantity: str) -> float:
    units = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    units |= {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
    number = quantity.rstrip("kKMGTim")
    return float(number) * units.get(quantity[len(number) :], 1)


# --- the pod ----------------------------------------------------------------------------------------------------------


def _pod(session: Session, facts: Facts, settings: Settings, draft: _Draft) -> None:
    if facts.pod is None:
        _no_pod(session, facts, draft)
        return
    pod, metadata = facts.pod, facts.pod["metadata"]
    problem = _not_ours(session, pod)
    if problem:
        draft.phase = Phase.FAILED
        draft.blocked(Reason.NAME_TAKEN, problem)
        draft.pod = (False, Reason.NAME_TAKEN, problem)
        return
    draft.phase = _until_reported(session)
    if metadata.get("deletionTimestamp"):
        _terminating_pod(session, facts, settings, draft)
    elif session.spec.suspend:
        draft.actions.append(DeletePod(metadata["uid"], Reason.SUSPENDED))
        draft.phase, draft.reason = Phase.SUSPENDED, Reason.POD_TERMINATING
        draft.pod = (False, Reason.POD_TERMINATING, "The pod is being stopped.")
    elif pod.get("status", {}).get("phase") in ("Failed", "Succeeded"):
        _ended_pod(facts, draft)
    elif why := _wants_restart(session, settings, pod):
        draft.actions.append(DeletePod(metadata["uid"], why))
        draft.reason, draft.message = why, "The pod is replaced by a new one."
        draft.pod = (False, why, draft.message)
    else:
        _live_pod(session, facts, draft)


def _no_pod(session: Session, facts: Facts, draft: _Draft) -> None:
    draft.phase = _until_reported(session, pending=True)
    if session.spec.suspend:
        draft.phase, draft.reason = Phase.SUSPENDED, Reason.SUSPENDED
        draft.message = "The session is suspended; its volume is kept."
        draft.pod = (False, Reason.SUSPENDED, "")
        return
    bound, reason, message = draft.storage
    if not bound and reason in (Reason.VOLUME_LOST, Reason.NAME_TAKEN, Reason.VOLUME_TERMINATING):
        if reason != Reason.VOLUME_TERMINATING:
            draft.phase = Phase.FAILED
        draft.blocked(reason, message)
        return
    wait = _backoff(facts.failures, facts.now)
    if facts.failures.refused is not None:
        draft.blocked(Reason.POD_REFUSED, facts.failures.refused)
    if wait > timedelta(0):
        if facts.failures.refused is None:
            draft.reason, draft.message = Reason.WAITING_TO_RETRY, "The pod has failed and is started again after a pause."
        draft.requeue = wait
        draft.pod = (False, draft.reason, draft.message)
    elif not facts.may_start:
        draft.reason, draft.message = Reason.WAITING_FOR_TURN, "Other sessions start first."
        draft.pod = (False, draft.reason, draft.message)
    else:
        restart = session.annotations.get(names.ANNOTATION_RESTART)
        draft.actions.append(CreatePod(restoring=bool(session.status.session_valid), restart=restart))
        if facts.failures.refused is None:
            draft.reason, draft.message = Reason.POD_CREATED, "The pod is being created."
        draft.pod = (False, draft.reason, draft.message)


def _terminating_pod(session: Session, facts: Facts, settings: Settings, draft: _Draft) -> None:
    assert facts.pod is not None
    uid = facts.pod["metadata"]["uid"]
    draft.reason, draft.message = Reason.POD_TERMINATING, "The old pod is ending; the next one starts when it is gone."
    if session.spec.suspend:
        draft.phase = Phase.SUSPENDED
    lost = facts.node_lost_since is not None and facts.now - facts.node_lost_since >= settings.node_lost_after
    if facts.node_gone:
        draft.actions.append(DeletePod(uid, Reason.NODE_GONE, grace_seconds=0))
    elif lost and settings.node_lost is NodeLost.FORCE_DELETE:
        draft.actions.append(DeletePod(uid, Reason.NODE_LOST, grace_seconds=0))
    elif facts.node_lost_since is not None:
        node = facts.pod["spec"].get("nodeName")
        draft.blocked(
            Reason.NODE_LOST, f"Node {node} does not answer; the pod on it may still run. Bring the node back or delete it."
        )
    draft.pod = (False, draft.reason, draft.message)


def _ended_pod(facts: Facts, draft: _Draft) -> None:
    assert facts.pod is not None
    status = facts.pod["status"]
    why = Reason.EVICTED if status.get("reason") == "Evicted" else Reason.POD_FAILED
    if status["phase"] == "Succeeded":
        why = Reason.POD_ENDED
    if _container_state(facts.pod, "terminated").get("reason") == "OOMKilled":
        why = Reason.OUT_OF_MEMORY
    words = status.get("message") or f"The pod has ended: {status.get('reason') or status['phase']}."
    draft.actions.append(DeletePod(facts.pod["metadata"]["uid"], why, failed=True))
    draft.reason, draft.message, draft.trouble = why, words, (why, words)
    draft.pod = (False, why, words)


def _wants_restart(session: Session, settings: Settings, pod: Manifest) -> Reason | None:
    """Why a pod that nothing is wrong with should be replaced; None when it should not."""
    annotations = pod["metadata"].get("annotations", {})
    asked = session.annotations.get(names.ANNOTATION_RESTART)
    if asked is not None and asked != annotations.get(names.ANNOTATION_RESTART):
        return Reason.RESTART_REQUESTED
    # A pod that has never run has nothing to lose: the change that is to mend it must reach it.
    running = pod.get("status", {}).get("phase") != "Pending"
    if running and session.spec.update_strategy is not UpdateStrategy.ROLLING_UPDATE:
        return None
    wanted = objects.desired_hash(session.namespace, session.name, session.uid, session.spec, settings)
    return None if annotations.get(names.ANNOTATION_TEMPLATE_HASH) == wanted else Reason.TEMPLATE_CHANGED


def _live_pod(session: Session, facts: Facts, draft: _Draft) -> None:
    """A pod that runs or is about to."""
    assert facts.pod is not None
    ready = _condition(facts.pod, "Ready").get("status") == "True"
    problem = _container_problem(facts.pod)
    scheduling = _condition(facts.pod, "PodScheduled")
    if ready:
        draft.pod = (True, Reason.POD_RUNNING, "")
    elif facts.node_lost_since is not None:
        node = facts.pod["spec"].get("nodeName")
        draft.blocked(Reason.NODE_LOST, f"Node {node} does not answer. The session waits for it.")
    elif problem:
        draft.blocked(*problem)
    elif scheduling.get("status") == "False":
        _unschedulable(scheduling, facts, draft)
    else:
        draft.reason, draft.message = Reason.POD_NOT_READY, "The pod is starting."
    if not ready:
        if facts.pod.get("status", {}).get("phase") == "Pending":
            draft.phase = _until_reported(session, pending=True)
        draft.pod = (False, draft.reason, draft.message)
        return
    report = facts.report
    if report is None:
        draft.reason, draft.message = Reason.POD_UNREACHABLE, "The session pod has not been heard yet."
        return
    draft.phase, draft.reason, draft.message = report.phase, report.reason, report.message
    if report.phase is Phase.FAILED or report.reason in (
        Reason.WHATSAPP_UNREACHABLE, Reason.BROWSER_FAILED, Reason.RESTORATION_FAILED, Reason.INITIALIZATION_TIMEOUT,
        Reason.PAGE_CRASHED, Reason.BROWSER_CRASHED,
    ):  # fmt: skip
        draft.trouble = (report.reason, report.message)


def _unschedulable(scheduling: Manifest, facts: Facts, draft: _Draft) -> None:
    """No node takes the pod. A moment of that is usual, while the volume is made: only what lasts is a trouble."""
    since = datetime.fromisoformat(scheduling["lastTransitionTime"])
    patience = since + SCHEDULING_TAKES - facts.now
    if patience > timedelta(0):
        draft.reason, draft.message, draft.requeue = Reason.POD_PENDING, "The pod waits for a node.", patience
    elif not draft.storage[0]:
        draft.blocked(draft.storage[1], draft.storage[2])
    else:
        draft.blocked(Reason.UNSCHEDULABLE, scheduling.get("message") or "No node takes the pod.")


def _container_problem(pod: Manifest) -> tuple[str, str] | None:
    waiting = _container_state(pod, "waiting")
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in IMAGE_REASONS:
        return Reason.IMAGE_UNAVAILABLE, message or f"The image cannot be pulled: {reason}."
    if reason in CONTAINER_REFUSED:
        return Reason.POD_REFUSED, message or f"The container cannot be made: {reason}."
    last = _container_state(pod, "terminated", "lastState")
    if reason == "CrashLoopBackOff":
        if last.get("reason") == "OOMKilled":
            return Reason.OUT_OF_MEMORY, "The session needs more memory than its limit; it is started again."
        return Reason.CRASH_LOOP, last.get("message") or f"The session's process ends again and again: {last.get('reason')}."
    return None


def _container_state(pod: Manifest, kind: str, which: str = "state") -> Manifest:
    for container in pod.get("status", {}).get("containerStatuses", []):
        if container["name"] == objects.CONTAINER:
            found: Manifest = container.get(which, {}).get(kind) or {}
            return found
    return {}


def _condition(found: Manifest | None, kind: str) -> Manifest:
    for condition in (found or {}).get("status", {}).get("conditions", []):
        if condition["type"] == kind:
            result: Manifest = condition
            return result
    return {}


def _backoff(failures: Failures, now: datetime) -> timedelta:
    """How long to wait still before the next try."""
    if failures.count == 0 or failures.last is None:
        return timedelta(0)
    delay = min(BACKOFF_FIRST * 2 ** min(failures.count - 1, 16), BACKOFF_LAST)
    wait: timedelta = failures.last + delay - now
    return wait


def _until_reported(session: Session, *, pending: bool = False) -> Phase:
    """The phase of a session whose pod can't be asked."""
    if session.status.session_valid:
        return Phase.RESTORING
    return Phase.PENDING if pending else Phase.STARTING


# --- deletion ---------------------------------------------------------------------------------------------------------


def _delete(session: Session, facts: Facts, draft: _Draft) -> None:
    """The pod first; then the claim where the retention says so; then nothing is left to do."""
    draft.phase, draft.reason = Phase.TERMINATING, Reason.TERMINATING
    pod = facts.pod if facts.pod is not None and _not_ours(session, facts.pod) is None else None
    pvc = facts.pvc if facts.pvc is not None and _not_ours(session, facts.pvc) is None else None
    if pod is not None:
        draft.message = "The pod is being stopped."
        if facts.node_gone:
            draft.actions.append(DeletePod(pod["metadata"]["uid"], Reason.NODE_GONE, grace_seconds=0))
        elif _wants_logout(session, facts):
            draft.message = "The device is being logged out of WhatsApp."
            draft.actions.append(Logout())
            draft.requeue = LOGOUT_AGAIN
        elif not pod["metadata"].get("deletionTimestamp"):
            draft.actions.append(DeletePod(pod["metadata"]["uid"], Reason.TERMINATING))
        return
    delete = session.spec.storage.retention.when_deleted is WhenDeleted.DELETE
    if delete and pvc is not None and not pvc["metadata"].get("deletionTimestamp"):
        draft.actions.append(DeletePvc(pvc["metadata"]["uid"]))
    draft.done = True


def _wants_logout(session: Session, facts: Facts) -> bool:
    """Whether the login should be ended first: when that was asked for, it can be done, and it isn't taking too long."""
    asked = session.spec.logout_on_delete or session.annotations.get(names.ANNOTATION_LOGOUT) == "true"
    possible = facts.report is not None and facts.report.phase is Phase.READY
    assert session.deleted_at is not None
    in_time = facts.now < session.deleted_at + session.spec.timeouts.logout + LOGOUT_AGAIN
    return asked and possible and in_time


# --- the status -------------------------------------------------------------------------------------------------------


def _status(session: Session, facts: Facts, draft: _Draft) -> Status:
    before, report = session.status, facts.report if draft.pod[0] else None
    status = before.model_copy(deep=True)
    status.observed_generation = session.generation
    status.phase = draft.phase
    status.account_status = account_status(draft.phase)
    status.pvc_name = facts.pvc["metadata"]["name"] if facts.pvc else before.pvc_name
    status.pod_name = facts.pod["metadata"]["name"] if facts.pod else None
    status.node_name = facts.pod["spec"].get("nodeName") if facts.pod else None
    _count_restart(status, facts)
    if report is not None:
        _take_report(before, status, report)
    else:
        status.is_authenticated = False
        status.pairing = None
        status.restored = False
    if status.session_valid is None:
        status.session_valid = False
    status.conditions = _conditions(session, facts, draft, status, report)
    return status


def _count_restart(status: Status, facts: Facts) -> None:
    uid = facts.pod["metadata"]["uid"] if facts.pod else None
    if uid is None or uid == status.pod_uid:
        return
    if status.pod_uid is not None:
        why = facts.ended or Reason.POD_DELETED
        status.restarts = Restarts(count=status.restarts.count + 1, last=_seconds(facts.now), reason=why.value)
    status.pod_uid = uid


def _take_report(before: Status, status: Status, report: Report) -> None:
    restored_now = report.phase is Phase.READY and report.restored
    counted = before.last_connected is not None and before.last_connected >= report.started_at
    if restored_now and not counted:
        status.restorations = before.restorations + 1
    status.restored = restored_now
    status.session_valid = report.session_valid
    status.is_authenticated = report.is_authenticated
    status.auth_state = report.auth_state
    status.pairing = report.pairing
    status.last_connected = report.last_connected or before.last_connected
    status.last_disconnect = report.last_disconnect or before.last_disconnect
    status.account = report.account or before.account
    status.whatsapp_web_version = report.whatsapp_web_version or before.whatsapp_web_version
    status.last_shutdown = report.last_shutdown or before.last_shutdown


def _conditions(session: Session, facts: Facts, draft: _Draft, status: Status, report: Report | None) -> Any:
    found = Conditions(session.status.conditions, session.generation, _seconds(facts.now))
    is_ready = draft.phase is Phase.READY
    found.set(ConditionType.READY, is_ready, draft.reason, draft.message)
    found.set(ConditionType.POD_READY, *draft.pod)
    if session.deleted_at is not None:
        found.keep(ConditionType.STORAGE_READY)
    else:
        found.set(ConditionType.STORAGE_READY, *draft.storage)
    if report is not None:
        found.set(ConditionType.AUTHENTICATED, report.is_authenticated, report.reason, report.message)
    elif status.session_valid:
        found.set(ConditionType.AUTHENTICATED, "Unknown", draft.reason, draft.message)
    else:
        found.set(ConditionType.AUTHENTICATED, False, Reason.NO_LOGIN, "No phone has been linked.")
    _restored(found, draft, status, report)
    going_on = draft.phase in PROGRESSING and draft.trouble is None
    found.set(ConditionType.PROGRESSING, going_on, draft.reason, draft.message)
    found.set(ConditionType.DEGRADED, draft.trouble is not None, *(draft.trouble or (Reason.AS_EXPECTED, "")))
    return found.listed()


def _restored(found: Conditions, draft: _Draft, status: Status, report: Report | None) -> None:
    kind = ConditionType.RESTORED
    if status.restored:
        found.set(kind, True, Reason.RESTORED, "The session came back from its stored login.")
    elif report is not None and report.reason == Reason.RESTORATION_FAILED:
        found.set(kind, False, report.reason, report.message)
    elif draft.trouble is not None and status.session_valid:
        found.set(kind, False, *draft.trouble)
    elif draft.phase is Phase.READY:
        found.set(kind, False, Reason.NEW_LOGIN, "The phone was linked since the pod's start.")
    elif status.session_valid:
        found.set(kind, "Unknown", draft.reason, draft.message)
    else:
        found.set(kind, False, Reason.NO_LOGIN, "There is no login to restore.")


def _events(before: Status, after: Status) -> list[Event]:
    """One Event for each thing that has changed and that a person would want to read."""
    events = []
    old = {condition.type: condition for condition in before.conditions}
    new = {condition.type: condition for condition in after.conditions}
    degraded, was = new[ConditionType.DEGRADED], old.get(ConditionType.DEGRADED)
    if degraded.status == "True" and (was is None or (was.status, was.reason) != ("True", degraded.reason)):
        events.append(Event("Warning", degraded.reason, degraded.message))
    if after.phase is not before.phase and after.phase is not None:
        match after.phase:
            case Phase.READY:
                words = "The session is restored." if after.restored else "The session is ready."
                events.append(Event("Normal", "Restored" if after.restored else "Ready", words))
            case Phase.AUTHENTICATING:
                events.append(Event("Normal", "WaitingForPairing", "A phone can be linked now."))
            case Phase.SUSPENDED:
                events.append(Event("Normal", Reason.SUSPENDED, "The session is suspended; its volume is kept."))
    gone, was_gone = after.last_disconnect, before.last_disconnect
    if gone is not None and gone != was_gone:
        events.append(Event("Warning", f"Disconnected{gone.kind.value}", f"WhatsApp was lost: {gone.reason}."))
    return events


def _seconds(moment: datetime) -> datetime:
    """Kubernetes keeps whole seconds: a finer time would look like a change."""
    return moment.astimezone(UTC).replace(microsecond=0)
