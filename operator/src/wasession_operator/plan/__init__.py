"""What should be done for a session, and what its status should say: pure.

``plan`` looks at everything that is known (``facts``) and answers with actions, a status and Events
(``actions``). It does not remember: called again with the same facts it gives the same answer, and
after its actions have worked it gives none.
"""

from __future__ import annotations

from dataclasses import replace

from wasession_api import names
from wasession_api.v1alpha1 import Reason, Status

from wasession_operator.plan.actions import Action, AddFinalizer, Event, Plan
from wasession_operator.plan.deletion import plan_deletion
from wasession_operator.plan.draft import Draft
from wasession_operator.plan.facts import Backoff, Facts, Node, Refusal, Session
from wasession_operator.plan.logout import plan_logout
from wasession_operator.plan.pod import plan_pod
from wasession_operator.plan.secret import plan_secret
from wasession_operator.plan.status import is_updating, make_events, make_status, refused_spec
from wasession_operator.plan.storage import plan_storage
from wasession_operator.settings import Settings

__all__ = [
    "Action", "Backoff", "Event", "Facts", "Node", "Plan", "Refusal", "Session", "is_updating", "make_events", "plan",
    "refused_spec",
]  # fmt: skip


def plan(session: Session, facts: Facts, settings: Settings) -> Plan:
    """The next step for a session."""
    draft, status = _plan(session, facts, settings)
    if status.session_valid != session.status.session_valid:
        # What the pod has just said of its login counts at once, not only when it has been written.
        known = session.status.model_copy(update={"session_valid": status.session_valid})
        draft, status = _plan(replace(session, status=known), facts, settings)
    events = make_events(session.status, status)
    if draft.given_up and session.status.session_valid:
        words = "A new, empty volume takes the lost one's place, as the annotation says."
        events.append(Event("Warning", Reason.DATA_LOSS_ACCEPTED, words))
    return Plan(draft.actions, status, events, draft.requeue, draft.done)


def _plan(session: Session, facts: Facts, settings: Settings) -> tuple[Draft, Status]:
    draft = Draft()
    noted = session.status.logout
    if session.deleted_at is not None:
        plan_deletion(session, facts, settings, draft)
    else:
        if names.FINALIZER not in session.finalizers and (
            facts.pod is not None or session.status.session_valid
        ):
            draft.actions.append(AddFinalizer(session.finalizers))
        plan_storage(session, facts, draft)
        plan_secret(session, facts, draft)
        plan_pod(session, facts, settings, draft)
        if draft.pod[0]:
            noted = plan_logout(session, facts, draft)
        if facts.client_id_of is not None:
            words = f"WhatsAppSession {facts.client_id_of} has the same owner and clientId; each has a login of its own."
            draft.trouble(Reason.CLIENT_ID_SHARED, words)
    status = make_status(session, facts, draft)
    status.logout = noted
    return draft, status
