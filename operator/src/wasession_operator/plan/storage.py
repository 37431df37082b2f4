"""The volume claim."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from wasession_api import names
from wasession_api.kube.manifests import Manifest, condition
from wasession_api.v1alpha1 import Reason

from wasession_operator import objects
from wasession_operator.plan.actions import CreatePvc, DeletePvc, ExpandPvc, SetPvcOwner
from wasession_operator.plan.facts import Facts, Session
from wasession_operator.plan.manifests import (
    amount,
    is_terminating,
    ownership_conflict,
    repair_metadata,
    report_conflict,
)
from wasession_operator.plan.results import Finding, Step, StorageResult, attempt, report_problem

RESIZE_CONDITIONS = ("FileSystemResizePending", "ControllerResizeError", "NodeResizeError")
TERMINATING = "The volume claim is being deleted."
LOGIN_AT_RISK = (
    "The volume claim is being deleted: it is removed, and the login with it, as soon as the pod "
    "ends. Until then the operator does not stop the pod. Copy the volume, then delete the session."
)
LOST_RECHECK = timedelta(seconds=30)  # a claim restored without its labels gives no event
CLAIM_MISSING = (
    "The volume claim of a valid login is missing. The operator does not replace it with an empty "
    "one: restore it from a backup."
)
CLAIM_LOST = "The volume claim has lost its volume."
ACCEPT = "To continue with an empty volume: kubectl annotate wasession {name} {annotation}={uid}"


def plan_storage(session: Session, facts: Facts) -> StorageResult:
    """Create, adopt and expand the claim; never replace one that held a valid login on a guess."""
    accepted = _data_loss_accepted(session, facts)
    if facts.pvc is None:
        result = _missing(session, facts, accepted)
        return replace(result, data_loss_accepted=accepted)
    if conflict := ownership_conflict(session, facts.pvc):
        return StorageResult(conflict, report_conflict(conflict), data_loss_accepted=accepted)
    if is_terminating(facts.pvc):
        result = _terminating(session, facts)
    elif facts.pvc.get("status", {}).get("phase") == "Lost":
        result = _lost(session, facts, facts.pvc)
    else:
        result = _present(session, facts, facts.pvc)
    repair = repair_metadata(session, facts.pvc, facts)
    return replace(result, step=repair + result.step, data_loss_accepted=accepted)


def login_ends_with_pod(session: Session, storage: StorageResult) -> bool:
    """Return whether the claim of a valid login is being deleted and only its pod holds it back."""
    return bool(session.status.session_valid) and (
        storage.finding.reason == Reason.VOLUME_TERMINATING
    )


def _data_loss_accepted(session: Session, facts: Facts) -> bool:
    """Return whether a person has accepted the loss of the session's previous volume.

    The annotation names the UID of the lost claim, so that one left in place never accepts a later
    loss.
    """
    lost = session.status.pvc_uid
    present = facts.pvc["metadata"].get("uid") if facts.pvc else None
    return lost is not None and lost != present and _accepted_uid(session) == lost


def _accepted_uid(session: Session) -> str | None:
    return session.annotations.get(names.ANNOTATION_ACCEPT_DATA_LOSS)


def _missing(session: Session, facts: Facts, accepted: bool) -> StorageResult:
    lost = session.status.pvc_uid
    if session.status.session_valid and lost is not None and not accepted:
        return _volume_lost(CLAIM_MISSING, session, lost)
    step = attempt(CreatePvc(), facts)
    failure = next((Finding(False, *problem) for problem in step.problems), None)
    pending = Finding(False, Reason.VOLUME_PENDING, "The volume claim is being created.")
    return StorageResult(failure or pending, step)


def _terminating(session: Session, facts: Facts) -> StorageResult:
    if facts.pod is not None and session.status.session_valid:
        finding = Finding(False, Reason.VOLUME_TERMINATING, LOGIN_AT_RISK)
        return StorageResult(finding, report_problem(finding.reason, finding.message))
    return StorageResult(Finding(False, Reason.VOLUME_TERMINATING, TERMINATING))


def _lost(session: Session, facts: Facts, pvc: Manifest) -> StorageResult:
    uid = pvc["metadata"]["uid"]
    result = _volume_lost(CLAIM_LOST, session, uid)
    if _accepted_uid(session) != uid:
        return result
    delete = attempt(DeletePvc(uid), facts) if facts.pod is None else Step()
    return replace(result, step=result.step + delete, release_volume=True)


def _volume_lost(message: str, session: Session, uid: str) -> StorageResult:
    accept = ACCEPT.format(name=session.name, annotation=names.ANNOTATION_ACCEPT_DATA_LOSS, uid=uid)
    finding = Finding(False, Reason.VOLUME_LOST, f"{message} {accept}")
    step = report_problem(finding.reason, finding.message)
    return StorageResult(finding, step + Step(requeue_after=LOST_RECHECK))


def _present(session: Session, facts: Facts, pvc: Manifest) -> StorageResult:
    if pvc.get("status", {}).get("phase") == "Bound":
        finding = _bound(pvc)
    else:
        finding = Finding(False, Reason.VOLUME_PENDING, _describe_pending(facts, pvc))
    desired = objects.make_pvc(session.namespace, session.name, session.uid, session.spec)
    owners = desired["metadata"].get("ownerReferences")
    step = Step()
    present = pvc["metadata"].get("ownerReferences") or []
    if bool(owners) != any(owner["uid"] == session.uid for owner in present):
        step += attempt(SetPvcOwner(owners), facts)
    if amount(session.spec.storage.size) > amount(pvc["spec"]["resources"]["requests"]["storage"]):
        step += attempt(ExpandPvc(session.spec.storage.size), facts)
    return StorageResult(finding, step)


def _bound(pvc: Manifest) -> Finding:
    requested = pvc["spec"]["resources"]["requests"]["storage"]
    capacity = pvc["status"].get("capacity", {}).get("storage")
    if capacity is None or amount(capacity) >= amount(requested):
        return Finding(True, Reason.VOLUME_BOUND)
    details = (condition(pvc, kind).get("message") for kind in RESIZE_CONDITIONS)
    message = f"The volume is being expanded from {capacity} to {requested}."
    return Finding(True, Reason.VOLUME_RESIZING, " ".join([message, *filter(None, details)]))


def _describe_pending(facts: Facts, pvc: Manifest) -> str:
    storage_class = pvc["spec"].get("storageClassName")
    provider = f"of StorageClass {storage_class}" if storage_class else "without a StorageClass"
    message = f"The volume claim waits for a volume {provider}."
    scheduled = condition(facts.pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return f"{message} {scheduled.get('message', '')}".strip()
    return message
