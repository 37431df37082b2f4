"""Logouts by annotation: one for each value."""

from __future__ import annotations

from dataclasses import replace

from wasession_api import names
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import DisconnectKind, LogoutStatus, Phase

from wasession_operator.plan.actions import Logout, NoteLogout
from wasession_operator.plan.facts import Facts, Session
from wasession_operator.plan.results import LogoutResult, attempt


def pending_request(session: Session, report: Report | None) -> str | None:
    """Return the logout that the annotation requests, as the status records it.

    None when it requests none, or when that logout is done. The annotation stays on the object, so
    the volume records what is done as well: the status is lost when a backup is restored.
    """
    request = session.annotations.get(names.ANNOTATION_LOGOUT)
    if request is None or (report is not None and report.fulfilled_logout == request):
        return None
    recorded = session.status.logout
    done = recorded is not None and recorded.request == request and recorded.done
    return None if done else request


def plan_logout(session: Session, facts: Facts) -> LogoutResult:
    """Plan the next step of a requested logout.

    The request is recorded in the status before the pod is asked, so that another replica neither
    forgets it nor logs out a login that was linked in between.
    """
    request, logout = session.annotations.get(names.ANNOTATION_LOGOUT), session.status.logout
    report = facts.report
    if request is None or report is None:
        return LogoutResult(logout)
    if logout is None or logout.request != request:
        logout = LogoutStatus(request=request, at=facts.now.replace(microsecond=0))
    if report.fulfilled_logout == request:
        return LogoutResult(logout.model_copy(update={"done": True}))
    if logout.done or _is_over(logout, report):
        logout = logout.model_copy(update={"done": True})
        # What the volume lacks is recorded when it can be: no failure of that is a problem.
        return LogoutResult(logout, replace(attempt(NoteLogout(request), facts), problems=()))
    if report.phase is Phase.READY:
        return LogoutResult(logout, attempt(Logout(request), facts))
    return LogoutResult(logout)


def _is_over(logout: LogoutStatus, report: Report) -> bool:
    """Return whether the login that existed at the time of the request has ended."""
    last = report.last_disconnect
    ended_since = last is not None and last.kind is DisconnectKind.LOGOUT and last.at >= logout.at
    return ended_since or (report.proven_validity is False and not report.is_authenticated)
