"""Read pods and claims as the API server has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta

from wasession_api import names
from wasession_api.kube.manifests import Manifest, condition, controller
from wasession_api.v1alpha1 import KIND, Reason

from wasession_operator import objects
from wasession_operator.plan.actions import RepairPod, RepairPvc
from wasession_operator.plan.facts import Facts, Session
from wasession_operator.plan.results import Finding, Step, attempt, report_problem

NOTE_AFTER = timedelta(seconds=1)  # until the status has the login
PREVIOUS_OWNERS = 8  # that a claim notes
Repair = RepairPod | RepairPvc
REPAIRS: Mapping[str, type[Repair]] = {
    "Pod": RepairPod,
    "PersistentVolumeClaim": RepairPvc,
}


def annotations_of(obj: Manifest) -> dict[str, str]:
    return obj["metadata"].get("annotations") or {}


def labels_of(obj: Manifest) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def is_managed(obj: Manifest) -> bool:
    """Return whether an object has the label by which the operator's informers select."""
    return labels_of(obj).get(names.LABEL_MANAGED_BY) == names.MANAGED_BY


def class_label(obj: Manifest) -> str | None:
    return labels_of(obj).get(names.LABEL_CLASS)


def is_terminating(obj: Manifest) -> bool:
    return "deletionTimestamp" in obj["metadata"]


def class_of(pod: Manifest) -> str | None:
    """Return the name of the class that a pod was created for; None before its first repair.

    The annotation counts: without the label, no NetworkPolicy selects the pod.
    """
    noted = annotations_of(pod).get(names.ANNOTATION_CLASS)
    if noted and names.label_value(noted) == noted:
        return noted
    return class_label(pod)


def is_of_template(session: Session, pod: Manifest, template: str) -> bool:
    """Return whether a pod is of a template hash and of the session's class.

    The class is not part of the hash: a pod that has none is given one, and goes on. What another
    version of the operator builds otherwise is another revision, which has a rollout of its own.
    """
    if class_of(pod) not in (None, session.spec.class_name):
        return False
    noted = annotations_of(pod)
    if noted.get(names.ANNOTATION_TEMPLATE_HASH) == template:
        return True
    of_revision = session.revision is not None and revision_of(pod) == session.revision
    return of_revision and noted.get(names.ANNOTATION_OWN_SPEC) == session.own_spec


def revision_of(pod: Manifest) -> str | None:
    """Return the revision of its class that a pod was created with."""
    return annotations_of(pod).get(names.ANNOTATION_REVISION)


def ownership_conflict(session: Session, obj: Manifest) -> Finding | None:
    """Return why an object with the session's name must not be touched; None when it may.

    The session's own are known by UID: by that of their controller, or by their own as the status
    has it. Anybody may edit labels. What an earlier session has left behind without a controller,
    such as a retained claim, belongs to a session with the same name, owner and clientId.
    """
    metadata, owner = obj["metadata"], controller(obj)
    which = f"{obj.get('kind', 'object')} {metadata['name']}"
    if owner is not None and owner["uid"] == session.uid:
        return None
    if owner is not None:
        if (owner["kind"], owner["name"]) == (KIND, session.name):
            message = f"{which} belongs to a deleted session of the same name and is being removed."
            return Finding(False, Reason.PREDECESSOR_TERMINATING, message)
        conflict = f"belongs to {owner['kind']} {owner['name']}"
    elif metadata["uid"] in (session.status.pvc_uid, session.status.pod_uid):
        return None
    elif foreign := _foreign_identity(session, obj):
        conflict = foreign
    else:
        return None
    return Finding(False, Reason.NAME_CONFLICT, f"{which} {conflict}; it will not be modified.")


def _foreign_identity(session: Session, obj: Manifest) -> str | None:
    """Return whose login an object without a controller holds, unless it is the session's."""
    noted, own = annotations_of(obj), objects.identity(session.name, session.spec)
    client_id = noted.get(names.ANNOTATION_CLIENT_ID)
    if client_id is None:
        return "was not created by this operator"
    if client_id != own[names.ANNOTATION_CLIENT_ID]:
        return f"holds the login of clientId {client_id}"
    owner = noted.get(names.ANNOTATION_OWNER)
    if owner is None:
        expected = f"{names.ANNOTATION_OWNER}={own[names.ANNOTATION_OWNER]}"
        return f"has no owner annotation; if it belongs to this session, add {expected!r}"
    if owner != own[names.ANNOTATION_OWNER]:
        return "holds the login of another owner"
    return None


def repair_metadata(session: Session, obj: Manifest, facts: Facts) -> Step:
    """Give an object of the session back the labels and annotations that it should have.

    The operator watches the objects with these labels: others change without an event.
    """
    note, step = _login_note(session, facts, obj)
    repair = metadata_repair(session, obj, note)
    return step if repair is None else step + attempt(repair, facts)


def _login_note(
    session: Session, facts: Facts, obj: Manifest
) -> tuple[dict[str, str | None], Step]:
    """Return what a claim is to note of the login on its volume; nothing while that is unknown.

    A session that takes the claim over knows from it whose login it has before its pod starts. The
    status has it first: nobody waits for a note.
    """
    report, known = facts.report, session.status.login_id
    if obj["kind"] != "PersistentVolumeClaim":
        return {}, Step()
    if report is not None and report.login_id is None and report.proven_validity is False:
        return {names.ANNOTATION_LOGIN_ID: None}, Step()
    if report is not None and report.login_id not in (None, known):
        return {}, Step(requeue_after=NOTE_AFTER)
    valid = session.status.session_valid and known is not None
    return {names.ANNOTATION_LOGIN_ID: known} if valid else {}, Step()


def metadata_repair(
    session: Session, obj: Manifest, note: Mapping[str, str | None] | None = None
) -> Repair | None:
    """Return what gives an object its labels and annotations back; None if it has them.

    A pod stays one of the class that it was created for. ``note`` are further annotations.
    """
    metadata, present = obj["metadata"], annotations_of(obj)
    desired_labels = dict.fromkeys(names.LABELS) | objects.labels(session.name, session.spec)
    desired = {**objects.identity(session.name, session.spec), **(note or {})}
    if obj["kind"] == "Pod" and (class_name := class_of(obj) or session.spec.class_name):
        desired_labels[names.LABEL_CLASS] = class_name
        desired[names.ANNOTATION_CLASS] = class_name
    labels = _differences(desired_labels, labels_of(obj))
    annotations = _differences(desired, present)
    if not labels and not annotations:
        return None
    owner = present.get(names.ANNOTATION_OWNER)
    changes_owner = owner is not None and names.ANNOTATION_OWNER in annotations
    if changes_owner and obj["kind"] == "PersistentVolumeClaim":
        # The volume itself records a new owner only when the next pod starts.
        owners = [*(other for other in previous_owners(obj) if other != owner), owner]
        annotations[names.ANNOTATION_PREVIOUS_OWNERS] = json.dumps(owners[-PREVIOUS_OWNERS:])
    return REPAIRS[obj["kind"]](metadata["uid"], labels, annotations)


def previous_owners(pvc: Manifest | None) -> tuple[str, ...]:
    """Return the owners that the claim's session had before the present one, the latest last."""
    noted = annotations_of(pvc).get(names.ANNOTATION_PREVIOUS_OWNERS, "[]") if pvc else "[]"
    try:
        owners = json.loads(noted)
    except ValueError:  # edited by a person
        return ()
    return tuple(map(str, owners)) if isinstance(owners, list) else ()


def _differences(
    desired: Mapping[str, str | None], present: Mapping[str, str]
) -> dict[str, str | None]:
    return {key: value for key, value in desired.items() if present.get(key) != value}


def report_conflict(conflict: Finding) -> Step:
    """Report a name conflict; what an earlier session has left goes away by itself."""
    if conflict.reason == Reason.PREDECESSOR_TERMINATING:
        return Step()
    return report_problem(conflict.reason, conflict.message)


def container(pod: Manifest, name: str = objects.CONTAINER) -> Manifest:
    """Return the status of one of the pod's containers; empty before there is one."""
    status = pod.get("status", {})
    for statuses in ("containerStatuses", "initContainerStatuses"):
        for candidate in status.get(statuses) or []:
            if candidate["name"] == name:
                result: Manifest = candidate
                return result
    return {}


def state(
    pod: Manifest, kind: str, which: str = "state", *, of: str = objects.CONTAINER
) -> Manifest:
    """Return a container's ``waiting``, ``running`` or ``terminated`` state.

    Empty when the container is in another state. ``which`` may also be ``lastState``.
    """
    result: Manifest = (container(pod, of).get(which) or {}).get(kind) or {}
    return result


def since(pod: Manifest, kind: str) -> datetime:
    """Return since when a condition of the pod has had its status: at first, from its creation."""
    at = condition(pod, kind).get("lastTransitionTime") or pod["metadata"].get("creationTimestamp")
    return datetime.fromisoformat(at)
