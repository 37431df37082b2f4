"""The volume claim: what should be done about it, and how it is."""

from __future__ import annotations

from wasession_api import names
from wasession_api.kube.manifests import Manifest, condition
from wasession_api.v1alpha1 import Phase, Reason

from wasession_operator import objects
from wasession_operator.plan.actions import CreatePvc, DeletePvc, GrowPvc, OwnPvc
from wasession_operator.plan.draft import Draft
from wasession_operator.plan.facts import Facts, Session
from wasession_operator.plan.manifests import amount, is_terminating, not_ours

TROUBLES = (Reason.VOLUME_LOST, Reason.VOLUME_REFUSED, Reason.NAME_CONFLICT)
RESIZE_CONDITIONS = ("FileSystemResizePending", "ControllerResizeError", "NodeResizeError")
ACCEPT = "To go on with an empty volume: kubectl annotate wasession {name} {annotation}={uid}"


def plan_storage(session: Session, facts: Facts, draft: Draft) -> None:
    draft.given_up = _given_up(session, facts)
    if facts.pvc is None:
        _no_claim(session, facts, draft)
    elif is_terminating(facts.pvc):
        _terminating(session, facts, draft)
    elif problem := not_ours(session, facts.pvc):
        draft.storage = (False, *problem)
    else:
        _claim(session, facts, facts.pvc, draft)
    well, reason, message = draft.storage
    if not well and reason in TROUBLES:
        draft.trouble(reason, message)


def holds_up(draft: Draft) -> bool:
    """Whether no pod can be started with the storage as it is; says so in the draft."""
    well, reason, message = draft.storage
    if well or reason == Reason.VOLUME_PENDING:
        return False
    if reason in (Reason.VOLUME_LOST, Reason.NAME_CONFLICT):
        draft.phase = Phase.FAILED
    draft.say(reason, message)
    return True


def keeps_login(session: Session, draft: Draft) -> bool:
    """Whether there is a login that the end of its pod would take away, because its claim goes with the pod."""
    return bool(session.status.session_valid) and draft.storage[1] == Reason.VOLUME_TERMINATING


def _given_up(session: Session, facts: Facts) -> bool:
    """Whether a person has accepted the loss of the volume that the session had.

    The word is the UID of the lost claim, so that an annotation that was left there never accepts a
    later loss.
    """
    had = session.status.pvc_uid
    present = facts.pvc["metadata"].get("uid") if facts.pvc else None
    return (
        had is not None
        and present != had
        and session.annotations.get(names.ANNOTATION_ACCEPT_DATA_LOSS) == had
    )


def _no_claim(session: Session, facts: Facts, draft: Draft) -> None:
    valid, had = session.status.session_valid, session.status.pvc_uid
    if valid and had is not None and not draft.given_up:
        words = "The claim of a valid login is gone. No empty one takes its place by itself: restore it from a backup."
        draft.storage = (False, Reason.VOLUME_LOST, f"{words} {_accept(session, had)}")
    elif refusal := draft.attempt(CreatePvc(), facts):
        draft.storage = (False, refusal.reason, refusal.message)
    else:
        draft.storage = (False, Reason.VOLUME_PENDING, "The volume claim is being created.")


def _terminating(session: Session, facts: Facts, draft: Draft) -> None:
    words = "The volume claim is being deleted."
    if facts.pod is not None and session.status.session_valid:
        words = (
            "The volume claim is being deleted: it goes, and the login with it, as soon as the pod ends. "
            "The operator does not end the pod meanwhile. Copy the volume, then delete the session."
        )
        draft.trouble(Reason.VOLUME_TERMINATING, words)
    draft.storage = (False, Reason.VOLUME_TERMINATING, words)


def _claim(session: Session, facts: Facts, pvc: Manifest, draft: Draft) -> None:
    match pvc.get("status", {}).get("phase", "Pending"):
        case "Lost":
            _lost(session, facts, pvc, draft)
            return
        case "Bound":
            draft.storage = _bound(pvc)
        case _:
            draft.storage = (False, Reason.VOLUME_PENDING, _waiting(facts, pvc))
    desired = objects.make_pvc(session.namespace, session.name, session.uid, session.spec)
    wanted, present = (
        desired["metadata"].get("ownerReferences"),
        pvc["metadata"].get("ownerReferences"),
    )
    if bool(wanted) != bool(present):
        draft.attempt(OwnPvc(wanted), facts)
    if amount(session.spec.storage.size) > amount(pvc["spec"]["resources"]["requests"]["storage"]):
        refusal = draft.attempt(GrowPvc(session.spec.storage.size), facts)
        if refusal is not None:
            draft.trouble(refusal.reason, refusal.message)


def _lost(session: Session, facts: Facts, pvc: Manifest, draft: Draft) -> None:
    uid = pvc["metadata"]["uid"]
    draft.storage = (
        False,
        Reason.VOLUME_LOST,
        f"The volume claim has lost its volume. {_accept(session, uid)}",
    )
    if session.annotations.get(names.ANNOTATION_ACCEPT_DATA_LOSS) == uid:
        draft.leave_volume = True
        if facts.pod is None:
            draft.actions.append(DeletePvc(uid))


def _bound(pvc: Manifest) -> tuple[bool, Reason, str]:
    wanted, present = (
        pvc["spec"]["resources"]["requests"]["storage"],
        pvc["status"].get("capacity", {}).get("storage"),
    )
    if present is None or amount(present) >= amount(wanted):
        return True, Reason.VOLUME_BOUND, ""
    words = [f"The volume grows from {present} to {wanted}."]
    words += [said for kind in RESIZE_CONDITIONS if (said := condition(pvc, kind).get("message"))]
    return True, Reason.VOLUME_RESIZING, " ".join(words)


def _waiting(facts: Facts, pvc: Manifest) -> str:
    storage_class = pvc["spec"].get("storageClassName")
    words = f"The volume claim waits for a volume of {f'StorageClass {storage_class}' if storage_class else 'no class'}."
    scheduling = condition(facts.pod, "PodScheduled")
    if scheduling.get("status") == "False":
        words = f"{words} {scheduling.get('message', '')}".strip()
    return words


def _accept(session: Session, uid: str) -> str:
    return ACCEPT.format(name=session.name, annotation=names.ANNOTATION_ACCEPT_DATA_LOSS, uid=uid)
