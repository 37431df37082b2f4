"""``Reconciling`` and ``Stalled``, by which GitOps tools judge a session, in every phase."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from support.testbed import ROOT
from unit.operator.situations import (
    LOST,
    NOW,
    SETTINGS,
    VALID,
    facts,
    plan,
    pod,
    report,
    session,
    terminating,
    unschedulable,
    waiting,
)
from wasession_api.v1alpha1 import ConditionType, HibernationStatus, Phase, Reason, Status
from wasession_operator.plan import Facts, Session, invalid_spec_status
from wasession_operator.plan.status import STALLING_REASONS

ASLEEP = VALID.model_copy(
    update={
        "pod_uid": None,
        "phase": Phase.HIBERNATED,
        "hibernation": HibernationStatus(since=NOW, wake_at=NOW + timedelta(hours=71)),
    }
)
RECONCILING, STALLED = ConditionType.RECONCILING, ConditionType.STALLED


def reported(phase: Phase, reason: Reason, **fields: Any) -> Facts:
    return facts(report=report(phase, reason=reason, **fields))


def judged(status: Status) -> ConditionType | None:
    """Return which of the two conditions is there; the other one is not, and neither is False."""
    found = [c for c in status.conditions if c.type in (RECONCILING, STALLED)]
    assert all(condition.status == "True" for condition in found)
    assert len(found) <= 1
    ready = status.condition(ConditionType.READY)
    assert ready is not None
    assert [c.reason for c in found] in ([], [ready.reason])
    return ConditionType(found[0].type) if found else None


def starting(**status: Any) -> Facts:
    return facts(pod=pod(ready=False, phase="Pending", **status))


# One row for each phase at least. A session that waits for a person with a phone is neither: what
# was applied is done. Those that have stopped for good are stalled.
ROWS: list[tuple[Phase, Session, Facts, ConditionType | None]] = [
    (Phase.PENDING, session(), facts(pod=None), RECONCILING),
    (Phase.PENDING, session(suspend=True), facts(pod=terminating()), RECONCILING),
    (
        Phase.PENDING,  # a cluster that is full may get another node
        session(),
        starting(conditions=[unschedulable(timedelta(minutes=5))]),
        RECONCILING,
    ),
    (
        Phase.PENDING,
        session(),
        starting(containerStatuses=waiting("ImagePullBackOff")),
        STALLED,
    ),
    (Phase.STARTING, session(), reported(Phase.STARTING, Reason.PAGE_LOADING), RECONCILING),
    (
        Phase.STARTING,  # the session tries again, and is there when the network is
        session(),
        reported(Phase.STARTING, Reason.WHATSAPP_UNREACHABLE),
        RECONCILING,
    ),
    (
        Phase.STARTING,
        session(),
        reported(Phase.STARTING, Reason.CERTIFICATE_UNTRUSTED),
        STALLED,
    ),
    (
        Phase.AUTHENTICATING,
        session(),
        reported(Phase.AUTHENTICATING, Reason.WAITING_FOR_SCAN),
        None,
    ),
    (
        Phase.AUTHENTICATING,
        session(),
        reported(Phase.AUTHENTICATING, Reason.RESTORATION_FAILED),
        None,
    ),
    (Phase.SYNCING, session(), reported(Phase.SYNCING, Reason.MESSAGES_SYNCING), RECONCILING),
    (Phase.READY, session(VALID), reported(Phase.READY, Reason.CONNECTED), None),
    (
        Phase.READY,  # it is Degraded, and works
        session(VALID),
        reported(Phase.READY, Reason.CONNECTED, warnings=[{"reason": Reason.VOLUME_LOW}]),
        None,
    ),
    (
        Phase.RECONNECTING,
        session(VALID),
        reported(Phase.RECONNECTING, Reason.CONNECTION_LOST),
        RECONCILING,
    ),
    (Phase.RESTORING, session(VALID), facts(pod=None), RECONCILING),
    (Phase.RESTORING, session(VALID), reported(Phase.RESTORING, Reason.PAGE_HUNG), RECONCILING),
    (Phase.SUSPENDED, session(VALID, suspend=True), facts(pod=None), None),
    (
        Phase.HIBERNATED,
        session(ASLEEP, hibernation={"afterIdle": "1h"}),
        facts(pod=None),
        None,
    ),
    (
        Phase.LOGGED_OUT,
        session(VALID),
        reported(Phase.LOGGED_OUT, Reason.LOGGED_OUT_BY_PHONE),
        STALLED,
    ),
    (
        Phase.LOGGED_OUT,
        session(VALID),
        reported(Phase.LOGGED_OUT, Reason.LOGGED_OUT_ON_REQUEST),
        None,
    ),
    (
        Phase.PASSKEY_REQUIRED,
        session(),
        reported(Phase.PASSKEY_REQUIRED, Reason.PASSKEY_REQUIRED),
        None,
    ),
    (Phase.CONFLICT, session(VALID), reported(Phase.CONFLICT, Reason.OPENED_ELSEWHERE), None),
    (
        Phase.CONFLICT,
        session(VALID),
        reported(Phase.CONFLICT, Reason.LOGIN_IN_USE_ELSEWHERE),
        STALLED,
    ),
    (Phase.FAILED, session(), reported(Phase.FAILED, Reason.PAIRING_EXPIRED), STALLED),
    (Phase.FAILED, session(LOST), facts(pod=None, pvc=None), STALLED),
    (Phase.TERMINATING, session(VALID, deleting=True), facts(pod=terminating()), RECONCILING),
]


@pytest.mark.parametrize(("phase", "subject", "seen", "expected"), ROWS)
def test_a_phase(
    phase: Phase, subject: Session, seen: Facts, expected: ConditionType | None
) -> None:
    result = plan(subject, seen, SETTINGS)
    assert result.status.phase is phase
    assert judged(result.status) is expected


def test_every_phase_has_a_row() -> None:
    assert {row[0] for row in ROWS} == set(Phase)


def test_a_spec_that_cannot_be_parsed_is_stalled_whatever_was_under_way() -> None:
    before = plan(session(), facts(pod=None), SETTINGS).status
    assert judged(before) is RECONCILING
    status = invalid_spec_status(replace(session(), status=before), NOW, "What is wrong.")
    assert judged(status) is STALLED


def test_what_recovers_without_a_person_is_not_stalled() -> None:
    """The table of reasons tells a person what to do: for none of these it says *nothing*."""
    rows = re.findall(
        r"^\| `(\w+)` \*? ?\|.*\| ([^|]+) \|$", (ROOT / "docs/status.md").read_text(), re.MULTILINE
    )
    advice = dict(rows)
    assert set(advice) >= STALLING_REASONS
    assert [it for it in STALLING_REASONS if advice[it].startswith("nothing")] == []
