"""What ``restore-session`` does and when it can answer: pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from wasession_api.v1alpha1 import ConditionType, Phase

from wasession_gateway.session_cache import Session
from wasession_gateway.views import condition

# Nothing comes back from here without a person and a phone.
NO_LOGIN = {Phase.LOGGED_OUT, Phase.AUTHENTICATING, Phase.PASSKEY_REQUIRED}


class Step(Enum):
    """What to do first."""

    WAIT = "wait"
    RESUME = "resume"
    RESTART = "restart"


@dataclass(frozen=True)
class Outcome:
    """How it stands; ``reason`` says why the session is not ready, and ``final`` that waiting longer would not help."""

    ready: bool
    reason: str = ""
    message: str = ""
    final: bool = True


DELETED = Outcome(ready=False, reason="Deleted", message="The session has been deleted.")


def first_step(session: Session) -> Step:
    """A session that waits for somebody is given a push; one that is on its way is left alone."""
    if session.suspended:
        return Step.RESUME
    if session.phase in (Phase.FAILED, Phase.CONFLICT):
        return Step.RESTART
    return Step.WAIT


def outcome(session: Session | None, step: Step, pod_before: str | None) -> Outcome | None:
    """How it has ended; None while it goes on. ``pod_before`` is the UID of the pod that a restart replaces."""
    if session is None or session.deleting:
        return DELETED
    if session.ready:
        return Outcome(ready=True)
    if session.phase in NO_LOGIN:
        return _not_ready(session)
    if session.phase in (Phase.FAILED, Phase.CONFLICT):
        replaced = session.status.pod_uid is not None and session.status.pod_uid != pod_before
        return _not_ready(session) if replaced or step is not Step.RESTART else None
    return None


def _not_ready(session: Session, *, final: bool = True) -> Outcome:
    why = condition(session.status, ConditionType.READY)
    return Outcome(
        ready=False,
        reason=why.reason if why else session.phase,
        message=why.message if why else "",
        final=final,
    )


def still_under_way(session: Session | None) -> Outcome:
    """The answer when the time is up."""
    return _not_ready(session, final=False) if session is not None else DELETED
