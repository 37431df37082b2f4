"""The Secret with the session's token."""

from __future__ import annotations

from wasession_api import names
from wasession_api.session_pod.tokens import tokens
from wasession_api.v1alpha1 import Reason

from wasession_operator.plan.actions import CreateSecret, RotateToken
from wasession_operator.plan.draft import Draft
from wasession_operator.plan.facts import Facts, Session
from wasession_operator.plan.manifests import annotations_of, is_terminating, not_ours


def plan_secret(session: Session, facts: Facts, draft: Draft) -> None:
    request = session.annotations.get(names.ANNOTATION_ROTATE_TOKEN)
    if facts.secret is None:
        if refusal := draft.attempt(CreateSecret(request), facts):
            draft.blocked(refusal.reason, refusal.message)
        else:
            draft.secret = True
        return
    problem = not_ours(session, facts.secret)
    if problem:
        draft.say(*problem)
        if problem[0] is Reason.NAME_CONFLICT:
            draft.trouble(*problem)
        return
    draft.secret = not is_terminating(facts.secret)
    fulfilled = annotations_of(facts.secret).get(names.ANNOTATION_ROTATE_TOKEN)
    damaged = not tokens(facts.secret)
    owned = bool(facts.secret["metadata"].get("ownerReferences"))
    asked = request is not None and request != fulfilled
    if damaged or asked or not owned:
        refusal = draft.attempt(RotateToken(request if request is not None else fulfilled), facts)
        if refusal is not None:
            draft.trouble(refusal.reason, refusal.message)
