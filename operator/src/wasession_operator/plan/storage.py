"""The volume claim."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta

from wasession_api import names
from wasession_api.kube.manifests import Manifest, amount, condition
from wasession_api.v1alpha1 import Reason, VolumeLoss

from wasession_operator import objects
from wasession_operator.plan.actions import (
    CreatePvc,
    DeletePvc,
    ExpandPvc,
    RepairPvc,
    SetPvcOwner,
)
from wasession_operator.plan.facts import Facts, Session
from wasession_operator.plan.manifests import (
    is_terminating,
    ownership_conflict,
    repair_metadata,
    report_conflict,
)
from wasession_operator.plan.results import (
    BootstrapResult,
    Finding,
    Step,
    StorageResult,
    attempt,
    report_problem,
)

RESIZE_CONDITIONS = ("FileSystemResizePending", "ControllerResizeError", "NodeResizeError")
TERMINATING = "The PVC is being deleted."
LOGIN_AT_RISK = (
    "The PVC is being deleted: it is removed, and the login with it, as soon as the pod ends. "
    "Until then the operator does not stop the pod. Copy the volume, then delete the session."
)
LOST_RECHECK = timedelta(seconds=10)  # a claim restored without its labels gives no event
CLAIM_MISSING = (
    "The PVC of a valid login is missing. The operator does not replace it with an empty one: "
    "restore it from a backup."
)
CLAIM_LOST = "The PVC has lost its volume."
ACCEPT = "To continue with an empty volume: kubectl annotate wasession {name} {annotation}={nonce}"
SUSPENDED = "The PVC is created when the session is resumed."
AWAITS_START = "The PVC is created when the session may start."
EXPECTED = (
    "The session is annotated {annotation}, so no empty PVC is created: restore PVC {claim} or "
    "remove the annotation."
)


def plan_storage(session: Session, facts: Facts, bootstrap: BootstrapResult) -> StorageResult:
    """Create, adopt and expand the claim; never replace one that held a valid login on a guess."""
    accepted, loss = _is_loss_accepted(session, facts), _loss(session, facts)
    result = _plan_claim(session, facts, loss, accepted, bootstrap)
    if facts.class_violation is not None:  # nothing but its metadata is touched
        repairs = tuple(a for a in result.step.actions if isinstance(a, RepairPvc))
        result = replace(result, step=replace(result.step, actions=repairs))
    return replace(result, data_loss_accepted=accepted, loss=loss)


def _plan_claim(
    session: Session,
    facts: Facts,
    loss: VolumeLoss | None,
    accepted: bool,
    bootstrap: BootstrapResult,
) -> StorageResult:
    if facts.pvc is None:
        return _missing(session, facts, None if accepted else loss, bootstrap)
    if conflict := ownership_conflict(session, facts.pvc):
        return StorageResult(conflict, report_conflict(conflict))
    if is_terminating(facts.pvc):
        result = _terminating(session, facts)
    elif loss is not None:
        result = _lost(session, facts, loss, accepted and loss == session.status.volume_loss)
    else:
        result = _present(session, facts, facts.pvc)
    return replace(result, step=repair_metadata(session, facts.pvc, facts) + result.step)


def login_ends_with_pod(session: Session, storage: StorageResult) -> bool:
    """Return whether the claim of a valid login is being deleted and only its pod holds it back."""
    return bool(session.status.session_valid) and (
        storage.finding.reason == Reason.VOLUME_TERMINATING
    )


def expects_login(session: Session) -> bool:
    """Return whether a person has noted that the session's login is still to be restored."""
    noted = session.annotations.get(names.ANNOTATION_EXPECTS_LOGIN) == "true"
    return noted and session.status.last_connected is None


def _is_loss_accepted(session: Session, facts: Facts) -> bool:
    """Return whether a person has accepted the loss of the session's previous volume.

    The annotation has the nonce that the status shows of a loss, and no other loss has: so it
    accepts this loss alone, and only once it has happened. While the claim exists nothing is lost.
    """
    loss, pvc = session.status.volume_loss, facts.pvc
    if loss is None or session.annotations.get(names.ANNOTATION_ACCEPT_DATA_LOSS) != loss.nonce:
        return False
    return pvc is None or _is_lost(pvc) or pvc["metadata"]["uid"] != loss.pvc_uid


def _loss(session: Session, facts: Facts) -> VolumeLoss | None:
    """Return the loss that the status shows, while it lasts, or else one that has happened."""
    known, pvc = session.status.volume_loss, facts.pvc
    if known is not None and (pvc is None or _is_lost(pvc, known.pvc_uid)):
        return known
    lost = session.status.session_valid if pvc is None else _is_lost(pvc)
    if not lost:
        return None
    uid = session.status.pvc_uid if pvc is None else pvc["metadata"]["uid"]
    at = facts.now.replace(microsecond=0)
    nonce = hashlib.sha256(f"{session.uid} {uid} {at.isoformat()}".encode()).hexdigest()[:16]
    return VolumeLoss(nonce=nonce, pvc_uid=uid, at=at)


def _is_lost(pvc: Manifest, uid: str | None = None) -> bool:
    """Return whether a claim, that with the given UID if any, has lost its volume."""
    lost: bool = pvc.get("status", {}).get("phase") == "Lost"
    return lost and uid in (None, pvc["metadata"]["uid"])


def _missing(
    session: Session, facts: Facts, loss: VolumeLoss | None, bootstrap: BootstrapResult
) -> StorageResult:
    if loss is not None and session.status.session_valid:
        return _volume_lost(CLAIM_MISSING, session, loss)
    if session.spec.suspend:
        return StorageResult(Finding(False, Reason.VOLUME_PENDING, SUSPENDED))
    if expects_login(session):
        claim = names.object_name(session.name)
        message = EXPECTED.format(claim=claim, annotation=names.ANNOTATION_EXPECTS_LOGIN)
        finding = Finding(False, Reason.VOLUME_MISSING, message)
        step = report_problem(finding.reason, finding.message)
        return StorageResult(finding, step + Step(requeue_after=LOST_RECHECK))
    may_start = facts.may_start is not None and bootstrap.finding.ok
    if facts.class_violation is not None or not may_start:
        return StorageResult(Finding(False, Reason.VOLUME_PENDING, AWAITS_START))
    step = attempt(CreatePvc(bootstrap.restore), facts)
    failure = next((Finding(False, *problem) for problem in step.problems), None)
    pending = Finding(False, Reason.VOLUME_PENDING, "The PVC is being created.")
    return StorageResult(failure or pending, step)


def _terminating(session: Session, facts: Facts) -> StorageResult:
    if facts.pod is not None and session.status.session_valid:
        finding = Finding(False, Reason.VOLUME_TERMINATING, LOGIN_AT_RISK)
        return StorageResult(finding, report_problem(finding.reason, finding.message))
    return StorageResult(Finding(False, Reason.VOLUME_TERMINATING, TERMINATING))


def _lost(session: Session, facts: Facts, loss: VolumeLoss, accepted: bool) -> StorageResult:
    assert facts.pvc is not None
    result = _volume_lost(CLAIM_LOST, session, loss)
    if not accepted:
        return result
    uid = facts.pvc["metadata"]["uid"]
    delete = attempt(DeletePvc(uid), facts) if facts.pod is None else Step()
    return replace(result, step=result.step + delete, release_volume=True)


def _volume_lost(message: str, session: Session, loss: VolumeLoss) -> StorageResult:
    annotation, nonce = names.ANNOTATION_ACCEPT_DATA_LOSS, loss.nonce
    accept = ACCEPT.format(name=session.name, annotation=annotation, nonce=nonce)
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
        step += _expand(session, facts, pvc)
    return StorageResult(finding, step)


def _expand(session: Session, facts: Facts, pvc: Manifest) -> Step:
    """Expand the claim; say how to do without it while that fails."""
    step = attempt(ExpandPvc(session.spec.storage.size), facts)
    capacity = pvc.get("status", {}).get("capacity", {}).get("storage")
    if capacity is None:
        return step
    back = f"To continue without it, set spec.storage.size back to {capacity}."
    problems = [problem._replace(message=f"{problem.message} {back}") for problem in step.problems]
    return replace(step, problems=tuple(problems))


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
    message = f"The PVC waits for a volume {provider}."
    scheduled = condition(facts.pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return f"{message} {scheduled.get('message', '')}".strip()
    return message
