"""Whether a session sleeps, and whether it is worth waiting until it is awake: pure."""

from __future__ import annotations

from datetime import datetime

from wasession_api.http.problem import HTTPProblem
from wasession_api.v1alpha1 import ConditionType, Phase

from wasession_gateway.problems import RETRY_LATER
from wasession_gateway.scopes import WAKE
from wasession_gateway.session import Session

# On their way from sleep to Ready, sessions pass through these without anybody's help.
ON_THE_WAY = {
    Phase.HIBERNATED,
    Phase.PENDING,
    Phase.STARTING,
    Phase.RESTORING,
    Phase.SYNCING,
    Phase.RECONNECTING,
}


def is_asleep(session: Session) -> bool:
    """Whether it sleeps, or is just falling asleep."""
    sleeps = session.phase is Phase.HIBERNATED or session.status.hibernation is not None
    return sleeps and not session.suspended


def is_requested(session: Session) -> bool:
    """Whether somebody has requested a wake-up that is not done."""
    asked, wake = session.wake_request, session.status.wake
    if asked is not None and (wake is None or wake.request != asked):
        return True  # the operator has not noticed yet
    return wake is not None and not wake.done


def becomes_ready(session: Session) -> bool:
    """Whether the session is Ready soon once somebody has requested a wake-up."""
    if session.suspended or session.phase not in ON_THE_WAY:
        return False
    return is_asleep(session) or is_requested(session)


def asleep() -> HTTPProblem:
    """Return the answer to a caller who may not wake the session."""
    detail = f"the session is asleep, and waking it takes the scope {' or '.join(WAKE)}"
    return HTTPProblem(503, "Asleep", detail)


def still_waking(session: Session, asked_at: datetime, now: datetime) -> HTTPProblem:
    """Return the answer when the time is up; ``asked_at`` is when the caller asked."""
    wake, ready = session.status.wake, session.status.condition(ConditionType.READY)
    since = min(asked_at, wake.at) if wake is not None and not wake.done else asked_at
    seconds = round((now - since).total_seconds())
    why = f" ({ready.reason})" if ready is not None else ""
    detail = f"the session has been waking up for {seconds} s{why}: nothing was done, try again"
    return HTTPProblem(503, "Waking", detail, RETRY_LATER)
