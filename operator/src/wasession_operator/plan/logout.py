"""Logouts that somebody asked for: each value of the annotation once."""

from __future__ import annotations

import hashlib

from wasession_api import names
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import DisconnectKind, LogoutStatus, Phase

from wasession_operator.plan.actions import Logout
from wasession_operator.plan.draft import Draft
from wasession_operator.plan.facts import Facts, Session

MAXIMUM = 128


def request(session: Session) -> str | None:
    """The logout that the annotation asks for, as the status notes it; None when it asks for none, or it is done."""
    asked = session.annotations.get(names.ANNOTATION_LOGOUT)
    if asked is None:
        return None
    if len(asked) > MAXIMUM:
        asked = f"sha256-{hashlib.sha256(asked.encode()).hexdigest()}"
    noted = session.status.logout
    return None if noted is not None and noted.request == asked and noted.done else asked


def plan_logout(session: Session, facts: Facts, draft: Draft) -> LogoutStatus | None:
    """Does one step of an asked-for logout; returns what the status should note of it.

    The request is noted before the pod is asked, so that a new operator neither forgets it nor logs
    out a login that was linked in between.
    """
    asked, noted, report = request(session), session.status.logout, facts.report
    if asked is None or report is None:
        return noted
    if noted is None or noted.request != asked:
        noted = LogoutStatus(request=asked, at=facts.now.replace(microsecond=0))
    if _is_over(noted, report):
        return noted.model_copy(update={"done": True})
    if report.phase is Phase.READY:
        refusal = draft.attempt(Logout(), facts)
        if refusal is not None:
            draft.trouble(refusal.reason, refusal.message)
    return noted


def _is_over(noted: LogoutStatus, report: Report) -> bool:
    """Whether the login that was there when the logout was asked for is over."""
    gone = report.last_disconnect
    ended_since = gone is not None and gone.kind is DisconnectKind.LOGOUT and gone.at >= noted.at
    return ended_since or not (report.session_valid or report.is_authenticated)
