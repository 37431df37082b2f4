"""Parse WhatsAppSession objects as the API server has them: pure."""

from __future__ import annotations

from datetime import datetime

from pydantic import ValidationError
from wasession_api import names
from wasession_api.http.problem import describe_error
from wasession_api.kube.manifests import Manifest
from wasession_api.v1alpha1 import Status

from wasession_operator.effective_spec import EffectiveSpec
from wasession_operator.plan.facts import Session
from wasession_operator.plan.manifests import is_terminating


def parse_session(obj: Manifest, written: Status | None = None) -> tuple[Session, str | None]:
    """Return the session, and what is wrong with its spec, if anything is.

    An invalid spec counts as empty. ``written`` is the status that the operator has written since
    the object was read.
    """
    metadata = obj["metadata"]
    spec, error = _parse_spec(obj.get("spec") or {})
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
        annotations={
            key: names.request_id(value)
            for key, value in (metadata.get("annotations") or {}).items()
        },
        finalizers=tuple(metadata.get("finalizers") or ()),
    )
    return session, error


def _parse_spec(stored: Manifest) -> tuple[EffectiveSpec, str | None]:
    try:
        return EffectiveSpec.read(stored), None
    except ValidationError as error:
        return EffectiveSpec(), describe_error(error)


def _parse_status(stored: Manifest) -> Status:
    """Return as much of a status as is valid: another version, or a person, may have written it."""
    try:
        return Status.model_validate(stored)
    except ValidationError as error:
        invalid = {str(problem["loc"][0]) for problem in error.errors()}
        valid = {field: value for field, value in stored.items() if field not in invalid}
        return Status.model_validate(valid)
