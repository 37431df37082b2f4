"""Parse WhatsAppSession objects as the API server has them: pure."""

from __future__ import annotations

from datetime import datetime

from pydantic import ValidationError
from wasession_api.http.problem import describe_error
from wasession_api.kube.manifests import Manifest
from wasession_api.v1alpha1 import Revision, Status

from wasession_operator import objects
from wasession_operator.effective_spec import EffectiveSpec, make_effective, revision_spec
from wasession_operator.plan.facts import Session
from wasession_operator.plan.manifests import is_terminating
from wasession_operator.plan.session_class import SessionClass

# Of a session's own fields, those that its pod depends on.
OF_POD = (
    "className",
    "clientId",
    "owner",
    "pairing",
    "browser",
    "whatsapp",
    "timeouts",
    "reconnect",
)


def parse_session(
    obj: Manifest,
    written: Status | None = None,
    session_class: SessionClass | None = None,
    revision: Revision | None = None,
) -> tuple[Session, str | None]:
    """Return the session with its effective spec, and what is wrong with its own, if anything is.

    An invalid spec counts as empty, except for ``logoutOnDelete``. ``written`` is the status that
    the operator has written since the object was read. ``revision`` is the one of the class that
    the session's pod should be of, with a template if it is not the present one.
    """
    metadata, stored = obj["metadata"], obj.get("spec") or {}
    spec, error = _parse_spec(stored, session_class)
    pod_spec = None
    if error is None and session_class is not None and revision is not None:
        pod_spec = _parse_pod_spec(stored, session_class, revision, spec)
    deleted_at = (
        datetime.fromisoformat(metadata["deletionTimestamp"]) if is_terminating(obj) else None
    )
    session = Session(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        spec=spec,
        status=written or _parse_status(obj.get("status") or {}),
        deleted_at=deleted_at,
        annotations=metadata.get("annotations") or {},
        finalizers=tuple(metadata.get("finalizers") or ()),
        own_spec=own_spec(stored),
        revision=None if revision is None else revision.name,
        pod_spec=pod_spec,
    )
    return session, error


def own_spec(stored: Manifest) -> str:
    """Return a hash of what a session itself sets of its pod."""
    return objects.digest({name: stored.get(name) for name in OF_POD})


def _parse_spec(
    stored: Manifest, session_class: SessionClass | None
) -> tuple[EffectiveSpec, str | None]:
    try:
        if session_class is None:
            return make_effective(stored), None
        return make_effective(stored, session_class.name, session_class.stored), None
    except ValidationError as error:
        own = EffectiveSpec(logout_on_delete=stored.get("logoutOnDelete") is True)
        return own, describe_error(error)


def _parse_pod_spec(
    stored: Manifest, session_class: SessionClass, revision: Revision, spec: EffectiveSpec
) -> EffectiveSpec | None:
    """Return the spec that a pod of an earlier revision is made of.

    Its labels and annotations are the present ones: they are changed in running pods, too. None if
    the session cannot be of that revision, as its own spec does not fit any more.
    """
    if revision.template is None:
        return None
    try:
        decided = revision_spec(session_class.stored, revision.template)
        pod_spec = make_effective(stored, session_class.name, decided)
    except ValueError:
        return None
    pod_spec.pod_template.metadata = spec.pod_template.metadata
    return pod_spec


def _parse_status(stored: Manifest) -> Status:
    """Return as much of a status as is valid: another version, or a person, may have written it."""
    try:
        return Status.model_validate(stored)
    except ValidationError as error:
        invalid = {str(problem["loc"][0]) for problem in error.errors()}
        valid = {field: value for field, value in stored.items() if field not in invalid}
        return Status.model_validate(valid)
