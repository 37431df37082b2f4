"""When a restoration has failed: one rule for the operator and the gateway."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import pytest
from wasession_api.restoration import Failure, failure, new_failure
from wasession_api.v1alpha1 import Condition, ConditionType, Phase, Reason, Status

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def status(
    phase: Phase, restored: Literal["True", "False", "Unknown"], reason: str, message: str = ""
) -> Status:
    conditions = [
        Condition(type=kind, status=value, reason=reason, message=message, last_transition_time=NOW)
        for kind, value in ((ConditionType.READY, "False"), (ConditionType.RESTORED, restored))
    ]
    return Status(phase=phase, conditions=conditions)


RESTORING = status(Phase.RESTORING, "Unknown", Reason.LOGIN_RESTORING)
STALLED = status(Phase.RESTORING, "False", Reason.NODE_LOST, "Node n1 does not answer.")


@pytest.mark.parametrize(
    ("present", "failed"),
    [
        (Status(), False),
        (RESTORING, False),
        (STALLED, True),
        (status(Phase.FAILED, "False", Reason.VOLUME_LOST), True),
        (status(Phase.AUTHENTICATING, "False", Reason.RESTORATION_FAILED), True),
        (status(Phase.FAILED, "False", Reason.LOGIN_MISSING), True),
        (status(Phase.READY, "True", Reason.RESTORED), False),
        (status(Phase.READY, "False", Reason.NEW_LOGIN), False),
        (status(Phase.RECONNECTING, "False", Reason.NEW_LOGIN), False),
        (status(Phase.AUTHENTICATING, "False", Reason.NO_LOGIN), False),
        (status(Phase.SUSPENDED, "False", Reason.VOLUME_TERMINATING), False),
        (status(Phase.TERMINATING, "False", Reason.LOGOUT_FAILED), False),
    ],
)
def test_a_failure_has_a_reason(present: Status, failed: bool) -> None:
    assert (failure(present) is not None) is failed


def test_a_failure_is_new_once_for_each_reason_and_message() -> None:
    assert new_failure(RESTORING, RESTORING) is None
    assert new_failure(RESTORING, STALLED) == Failure("NodeLost", "Node n1 does not answer.")
    assert new_failure(None, STALLED) == Failure("NodeLost", "Node n1 does not answer.")
    assert new_failure(STALLED, STALLED) is None
    other = status(Phase.RESTORING, "False", Reason.WHATSAPP_UNREACHABLE)
    assert new_failure(STALLED, other) == Failure("WhatsAppUnreachable", "")
    assert new_failure(other, RESTORING) is None


@pytest.mark.parametrize("phase", [Phase.LOGGED_OUT, Phase.CONFLICT, Phase.PASSKEY_REQUIRED])
def test_a_restoration_that_ends_without_its_login_has_failed(phase: Phase) -> None:
    ended = status(phase, "False", Reason.NO_LOGIN)
    ended.conditions[0].reason = Reason.LOGGED_OUT_BY_PHONE
    assert new_failure(RESTORING, ended) == Failure("LoggedOutByPhone", "")
    assert new_failure(ended, ended) is None
