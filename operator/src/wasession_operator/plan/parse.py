"""Parse WhatsAppSession objects as the API server has them: pure."""

from __future__ import annotations

from datetime import datetime

from pydantic import ValidationError
from wasession_api.http.problem import describe_error
from wasession_api.kube.manifests import Manifest
from wasession_api.v1alpha1 import Status

from wasession_operator import objects
from wasession_operator.effective_spec import EffectiveSpec, make_effective
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
    obj: Manifest, written: Status | None = None, session_class: SessionClass | None = None
) -> tuple[Session, str | None]:
    """Return the session with its effective spec, and what is wrong with its own, if anything is.

    An invalid spec counts as empty, except for ``logoutOnDelete``. ``written`` is the status that
    the operator has written since the object was read.
    """
    metadata, stored = obj["metadata"], obj.get("spec") or {}
    spec, error = _parse_spec(stored, session_class)
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
        own_spec=objects.digest({name: stored.get(name) for name in OF_POD}),
    )
    return session, error


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


def _parse_status(stored: Manifest) -> Status:
    """Return as much of a status as is valid: another version, or a person, may have written it."""
    try:
        return Status.model_validate(stored)
    except ValidationError as error:
        invalid = {str(problem["loc"][0]) for problem in error.errors()}
        valid = {field: value for field, value in stored.items() if field not in invalid}
        return Status.model_validate(valid)
