"""How ``restore-session`` proceeds and when it has its answer: pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from wasession_api.v1alpha1 import ConditionType, Phase

from wasession_gateway.hibernation import is_asleep
from wasession_gateway.session import Session

# Leaving these phases takes a person with the phone.
NEEDS_PHONE = {Phase.LOGGED_OUT, Phase.AUTHENTICATING, Phase.PASSKEY_REQUIRED}


class Step(Enum):
    """The first step of a restoration."""

    WAIT = "wait"
    RESUME = "resume"
    RESTART = "restart"
    WAKE = "wake"


@dataclass(frozen=True)
class Outcome:
    """How a restoration ended.

    ``reason`` says why the session is not ready; ``final`` that waiting longer would not help.
    """

    ready: bool
    reason: str = ""
    message: str = ""
    final: bool = True


DELETED = Outcome(ready=False, reason="Deleted", message="The session has been deleted.")


def first_step(session: Session) -> Step:
    """Resume a suspended session, restart a stopped one, wake one that sleeps; else only wait."""
    if session.suspended:
        return Step.RESUME
    if is_asleep(session):
        return Step.WAKE
    if session.phase in (Phase.FAILED, Phase.CONFLICT):
        return Step.RESTART
    return Step.WAIT


def outcome(session: Session | None, step: Step, pod_before: str | None) -> Outcome | None:
    """Return how the restoration ended, None while it is under way.

    ``pod_before`` is the UID of the pod that a restart replaces.
    """
    if session is None or session.deleting:
        return DELETED
    if session.ready:
        return Outcome(ready=True)
    if session.phase in NEEDS_PHONE:
        return _not_ready(session)
    if session.phase in (Phase.FAILED, Phase.CONFLICT):
        replaced = session.status.pod_uid is not None and session.status.pod_uid != pod_before
        return _not_ready(session) if replaced or step is not Step.RESTART else None
    return None


def timed_out(session: Session | None) -> Outcome:
    """Return the outcome when the time is up."""
    return _not_ready(session, final=False) if session is not None else DELETED


def _not_ready(session: Session, *, final: bool = True) -> Outcome:
    ready = session.status.condition(ConditionType.READY)
    return Outcome(
        ready=False,
        reason=ready.reason if ready else session.phase,
        message=ready.message if ready else "",
        final=final,
    )
