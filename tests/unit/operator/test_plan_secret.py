"""The session's Secret: created, repaired, and its token rotated once for each request."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from unit.operator.situations import (
    NOW,
    SETTINGS,
    VALID,
    condition,
    facts,
    of,
    owned_by,
    pod,
    report,
    secret,
    session,
    terminating,
)
from wasession_api.session_pod.tokens import tokens
from wasession_api.v1alpha1 import ConditionType, Phase, Reason
from wasession_operator import objects
from wasession_operator.plan import Backoff, Refusal, plan
from wasession_operator.plan.actions import CreatePod, CreateSecret, RefreshToken, RotateToken


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_a_missing_secret_is_recreated_while_the_pod_runs() -> None:
    result = plan(session(VALID), facts(secret=None, report=report()), SETTINGS)
    assert result.actions == [CreateSecret()]
    assert result.status.phase is Phase.READY


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"token": ""},
        {"token": "not base64!"},
        {"token": encoded("short")},
        {"other": encoded("x" * 40)},
        None,
    ],
)
def test_a_damaged_secret_gets_a_new_token(data: dict[str, str] | None) -> None:
    damaged = {**secret(), "data": data}
    assert plan(session(VALID), facts(secret=damaged, report=report()), SETTINGS).actions == [
        RotateToken()
    ]


def test_each_request_rotates_once() -> None:
    asked = session(VALID, annotations={"rotate-token": "1"})
    assert plan(asked, facts(report=report()), SETTINGS).actions == [RotateToken("1")]
    done = secret()
    done["metadata"]["annotations"] |= {"wasession.dev/rotate-token": "1"}
    assert plan(asked, facts(secret=done, report=report()), SETTINGS).actions == []
    again = session(VALID, annotations={"rotate-token": "2"})
    assert plan(again, facts(secret=done, report=report()), SETTINGS).actions == [RotateToken("2")]


def test_a_new_session_fulfils_the_request_with_its_first_token() -> None:
    asked = session(annotations={"rotate-token": "1"})
    assert of(CreateSecret, plan(asked, facts(pod=None, secret=None), SETTINGS)) == [
        CreateSecret("1")
    ]


def test_a_repair_retains_the_fulfilled_request() -> None:
    damaged: dict[str, Any] = {**secret(), "data": {}}
    damaged["metadata"]["annotations"] |= {"wasession.dev/rotate-token": "1"}
    assert plan(session(VALID), facts(secret=damaged), SETTINGS).actions[0] == RotateToken("1")


def test_the_pod_is_annotated_with_a_new_token() -> None:
    changed = secret()
    changed["metadata"]["annotations"] |= {"wasession.dev/token-id": "t2"}
    assert plan(session(VALID), facts(secret=changed, report=report()), SETTINGS).actions == [
        RefreshToken("t2")
    ]
    refreshed = pod()
    refreshed["metadata"]["annotations"] |= {"wasession.dev/token-id": "t2"}
    assert (
        plan(
            session(VALID), facts(secret=changed, pod=refreshed, report=report()), SETTINGS
        ).actions
        == []
    )


def test_the_previous_token_stays_readable_until_the_pod_has_the_new_one() -> None:
    patch = objects.secret_patch(secret(), "sales", "uid-1", objects.Token("n" * 40, "t2"), "1")
    rotated = {**secret(), "data": {**secret()["data"], **patch["data"]}}
    assert tokens(rotated) == ["n" * 40, "secret-token-of-at-least-32-characters"]


def test_no_pod_starts_with_the_token_of_another_session() -> None:
    for foreign, reason, phase in (
        (
            owned_by(secret(), "WhatsAppSession", "sales", "uid-0"),
            Reason.PREDECESSOR_TERMINATING,
            Phase.PENDING,
        ),
        (owned_by(secret(), "Deployment", "web"), Reason.NAME_CONFLICT, Phase.FAILED),
    ):
        result = plan(session(), facts(pod=None, secret=foreign), SETTINGS)
        assert result.actions == []
        assert result.status.phase is phase
        assert condition(result, ConditionType.READY) == ("False", reason)
    assert (
        of(CreatePod, plan(session(), facts(pod=None, secret=terminating(secret())), SETTINGS))
        == []
    )


def test_a_secret_without_owner_is_adopted_with_a_new_token() -> None:
    orphan = secret()
    del orphan["metadata"]["ownerReferences"]
    assert plan(session(), facts(secret=orphan), SETTINGS).actions[0] == RotateToken()


def test_a_rejected_secret_is_a_problem() -> None:
    refusal = Refusal(Reason.SECRET_CREATE_FAILED, "exceeded quota", Backoff(1, NOW))
    result = plan(
        session(), facts(pod=None, secret=None, refusals={CreateSecret: refusal}), SETTINGS
    )
    assert result.actions == [CreateSecret()]
    assert condition(result, ConditionType.DEGRADED) == ("True", Reason.SECRET_CREATE_FAILED)
