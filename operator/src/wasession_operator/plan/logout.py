"""Logouts by annotation: one for each value."""

from __future__ import annotations

from wasession_api import names
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import DisconnectKind, LogoutStatus, Phase

from wasession_operator.plan.actions import Logout
from wasession_operator.plan.facts import Facts, Session
from wasession_operator.plan.results import LogoutResult, attempt


def pending_request(session: Session) -> str | None:
    """Return the logout that the annotation requests, as the status records it.

    None when it requests none, or when that logout is done.
    """
    request = session.annotations.get(names.ANNOTATION_LOGOUT)
    if request is None:
        return None
    recorded = session.status.logout
    done = recorded is not None and recorded.request == request and recorded.done
    return None if done else request


def plan_logout(session: Session, facts: Facts) -> LogoutResult:
    """Plan the next step of a requested logout.

    The request is recorded in the status before the pod is asked, so that a new operator neither
    forgets it nor logs out a login that was linked in between.
    """
    request, logout, report = pending_request(session), session.status.logout, facts.report
    if request is None or report is None:
        return LogoutResult(logout)
    if logout is None or logout.request != request:
        logout = LogoutStatus(request=request, at=facts.now.replace(microsecond=0))
    if _is_over(logout, report):
        return LogoutResult(logout.model_copy(update={"done": True}))
    if report.phase is Phase.READY:
        return LogoutResult(logout, attempt(Logout(), facts))
    return LogoutResult(logout)


def _is_over(logout: LogoutStatus, report: Report) -> bool:
    """Return whether the login that existed at the time of the request has ended."""
    last = report.last_disconnect
    ended_since = last is not None and last.kind is DisconnectKind.LOGOUT and last.at >= logout.at
    return ended_since or (report.proven_validity is False and not report.is_authenticated)
