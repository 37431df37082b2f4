"""Whether a stored login came back, as a session's status shows it: pure."""

from __future__ import annotations

from wasession_api.v1alpha1 import Condition, ConditionType, Phase, Reason, Status

# Why the condition Restored is False although no restoration has failed.
NOT_ATTEMPTED = {Reason.NEW_LOGIN, Reason.NO_LOGIN}
# Phases in which no restoration is under way.
NOT_RESTORING = {Phase.READY, Phase.SUSPENDED, Phase.TERMINATING}
# Phases in which a restoration ends without its login.
DEAD_ENDS = {
    Phase.LOGGED_OUT,
    Phase.FAILED,
    Phase.CONFLICT,
    Phase.AUTHENTICATING,
    Phase.PASSKEY_REQUIRED,
}


def failure(status: Status) -> Condition | None:
    """Return why the stored login has not come back; None when it has, or when it still may."""
    restored = status.condition(ConditionType.RESTORED)
    if restored is None or restored.status != "False" or restored.reason in NOT_ATTEMPTED:
        return None
    return None if status.phase in NOT_RESTORING else restored


def new_failure(before: Status | None, after: Status) -> Condition | None:
    """Return why a restoration has failed since ``before``, once for each reason and message."""
    if before is not None and before.phase is Phase.RESTORING and after.phase in DEAD_ENDS:
        return after.condition(ConditionType.READY)
    now, previous = failure(after), failure(before) if before is not None else None
    if now is None or previous is None:
        return now
    return now if (now.reason, now.message) != (previous.reason, previous.message) else None
