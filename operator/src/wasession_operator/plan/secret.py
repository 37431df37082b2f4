"""The Secret with the session's token."""

from __future__ import annotations

from wasession_api import names
from wasession_api.session_pod.tokens import tokens
from wasession_api.v1alpha1 import Reason

from wasession_operator.plan.actions import CreateSecret, RotateToken
from wasession_operator.plan.facts import Facts, Session
from wasession_operator.plan.manifests import (
    annotations_of,
    is_terminating,
    ownership_conflict,
    repair_metadata,
    report_conflict,
)
from wasession_operator.plan.results import Finding, SecretResult, Step, attempt

USABLE = Finding(True, Reason.AS_EXPECTED)


def plan_secret(session: Session, facts: Facts) -> SecretResult:
    """Create the Secret, repair it, and rotate its token once for each request."""
    request = session.annotations.get(names.ANNOTATION_ROTATE_TOKEN)
    secret = facts.secret
    if secret is None:
        step = attempt(CreateSecret(request), facts)
        failure = next((Finding(False, *problem) for problem in step.problems), None)
        return SecretResult(failure or USABLE, step)
    if conflict := ownership_conflict(session, secret):
        return SecretResult(conflict, report_conflict(conflict))
    repair = repair_metadata(session, secret, facts)
    if repair != Step():  # without its labels the Secret is not in the cache, which all else needs
        return SecretResult(USABLE, repair)
    fulfilled = annotations_of(secret).get(names.ANNOTATION_ROTATE_TOKEN)
    requested = request is not None and request != fulfilled
    owned = bool(secret["metadata"].get("ownerReferences"))
    step = Step()
    if requested or not owned or not tokens(secret):
        step = attempt(RotateToken(request if request is not None else fulfilled), facts)
    if is_terminating(secret):
        message = "The session's Secret is being deleted; it is created again when it is gone."
        return SecretResult(Finding(False, Reason.POD_PENDING, message), step)
    return SecretResult(USABLE, step)
