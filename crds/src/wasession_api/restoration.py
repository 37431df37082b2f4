"""Whether a stored login came back, as a session's status shows it: pure."""

from __future__ import annotations

from typing import NamedTuple

from wasession_api.v1alpha1 import ConditionType, Phase, Reason, Status

# Why the condition Restored is False although no restoration has failed.
NOT_ATTEMPTED = {
    Reason.NEW_LOGIN,
    Reason.NO_LOGIN,
    Reason.BACKUP_SOURCE_RUNNING,
    Reason.LOGIN_MOVED,
    Reason.CLIENT_ID_SHARED,
    Reason.ACCOUNT_SHARED,
}
# Phases in which no restoration is under way.
NOT_RESTORING = {Phase.READY, Phase.SUSPENDED, Phase.HIBERNATED, Phase.TERMINATING}
# Phases in which a restoration ends without its login.
DEAD_ENDS = {
    Phase.LOGGED_OUT,
    Phase.FAILED,
    Phase.CONFLICT,
    Phase.AUTHENTICATING,
    Phase.PASSKEY_REQUIRED,
}


class Failure(NamedTuple):
    """Why a stored login has not come back."""

    reason: str
    message: str


def failure(status: Status) -> Failure | None:
    """Return why the stored login has not come back; None when it has, or when it still may."""
    restored = status.condition(ConditionType.RESTORED)
    if restored is None or restored.status != "False" or restored.reason in NOT_ATTEMPTED:
        return None
    if status.phase in NOT_RESTORING:
        return None
    return Failure(restored.reason, restored.message)


def new_failure(before: Status | None, after: Status) -> Failure | None:
    """Return why a restoration has failed since ``before``, once for each reason and message."""
    if before is not None and before.phase is Phase.RESTORING and after.phase in DEAD_ENDS:
        ready = after.condition(ConditionType.READY)
        if ready is not None and ready.reason in NOT_ATTEMPTED:
            return None
        return Failure(ready.reason, ready.message) if ready else Failure(str(after.phase), "")
    now = failure(after)
    return None if before is not None and failure(before) == now else now
