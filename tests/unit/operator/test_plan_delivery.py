"""Webhooks: the pod is told once, and what it reports of them is in the status."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from unit.operator.situations import (
    NOW,
    SETTINGS,
    VALID,
    condition,
    event_reasons,
    facts,
    message,
    of,
    plan,
    report,
    session,
)
from wasession_api.v1alpha1 import ConditionType, DeliveryState, DeliveryStatus, Phase, Reason
from wasession_operator.plan import Backoff, Plan, Refusal
from wasession_operator.plan.actions import ConfigureDelivery
from wasession_operator.plan.delivery import configuration_of

WEBHOOK = {"name": "crm", "url": "https://crm.example.com/", "signingKey": "crm"}
SPEC: dict[str, Any] = {"webhooks": [WEBHOOK]}
REVISION = configuration_of(session(VALID, **SPEC).spec).revision
NONE = ""  # of a pod that was told nothing


def delivery(state: DeliveryState, name: str = "crm", error: str | None = None) -> DeliveryStatus:
    return DeliveryStatus(name=name, state=state, since=NOW, error=error)


def planned(*deliveries: DeliveryStatus, revision: str | None = REVISION, **spec: Any) -> Plan:
    told = report(session_valid=True, delivery_revision=revision, deliveries=list(deliveries))
    return plan(session(VALID, **(spec or SPEC)), facts(report=told), SETTINGS)


def test_a_pod_that_has_other_webhooks_is_told() -> None:
    [action] = of(ConfigureDelivery, planned(revision=NONE))
    assert [webhook.name for webhook in action.configuration.webhooks] == ["crm"]
    assert action.configuration.revision == REVISION != NONE
    assert of(ConfigureDelivery, planned()) == []
    assert of(ConfigureDelivery, planned(suspend=False)) != [], "the last one was removed"


def test_a_session_without_webhooks_costs_no_request() -> None:
    assert configuration_of(session(VALID).spec).revision == NONE
    assert of(ConfigureDelivery, planned(revision=NONE, suspend=False)) == []


def test_a_change_of_webhooks_restarts_no_pod() -> None:
    changed = {"webhooks": [{**WEBHOOK, "url": "https://other.example.com/"}]}
    for spec in ({"suspend": False}, SPEC, changed):
        actions = planned(updateStrategy="RollingUpdate", **spec).actions
        assert {type(action) for action in actions} <= {ConfigureDelivery}


def test_a_pod_that_does_not_answer_or_has_not_read_its_volume_is_told_later() -> None:
    assert of(ConfigureDelivery, plan(session(VALID, **SPEC), facts(), SETTINGS)) == []
    starting = facts(report=report(Phase.STARTING, session_valid=None, delivery_revision=None))
    result = plan(session(VALID, **SPEC), starting, SETTINGS)
    assert of(ConfigureDelivery, result) == []
    assert condition(result, ConditionType.DEGRADED)[0] == "False"


def test_a_session_image_that_knows_no_webhooks_is_reported() -> None:
    result = planned(revision=None)
    assert condition(result, ConditionType.DEGRADED) == ("True", Reason.DELIVERY_NOT_ACCEPTED)
    assert planned(revision=None, suspend=False).status.delivery == []


def test_webhooks_that_the_pod_does_not_accept_are_tried_again() -> None:
    refusal = Refusal(
        Reason.DELIVERY_NOT_ACCEPTED, "the pod answered 422", Backoff(1, NOW + timedelta(seconds=2))
    )
    told = facts(report=report(session_valid=True, delivery_revision=NONE))
    refused = replace(told, refusals={ConfigureDelivery: refusal})
    result = plan(session(VALID, **SPEC), refused, SETTINGS)
    assert result.actions == []
    assert condition(result, ConditionType.DEGRADED) == ("True", Reason.DELIVERY_NOT_ACCEPTED)


@pytest.mark.parametrize(
    ("state", "reason", "degraded"),
    [
        (DeliveryState.FAILING, Reason.DELIVERY_FAILING, True),
        (DeliveryState.GONE, Reason.DELIVERY_GONE, True),
        (DeliveryState.PAUSED, Reason.DELIVERY_PAUSED, False),
    ],
)
def test_a_webhook_that_is_not_delivered_to_shows_in_the_status(
    state: DeliveryState, reason: Reason, degraded: bool
) -> None:
    well = delivery(DeliveryState.DELIVERING, "other")
    result = planned(well, delivery(state, error="HTTP 500"))
    assert condition(result, ConditionType.DELIVERING) == ("False", reason)
    assert "crm (HTTP 500)" in message(result, ConditionType.DELIVERING)
    assert "other" not in message(result, ConditionType.DELIVERING)
    assert (condition(result, ConditionType.DEGRADED)[0] == "True") is degraded
    assert (reason in event_reasons(result)) is degraded
    assert [one.name for one in result.status.delivery] == ["other", "crm"]
    assert result.status.phase is Phase.READY, "the session works"


def test_all_is_well() -> None:
    result = planned(delivery(DeliveryState.DELIVERING))
    assert condition(result, ConditionType.DELIVERING) == ("True", Reason.AS_EXPECTED)
    assert condition(result, ConditionType.DEGRADED)[0] == "False"


def test_without_webhooks_there_is_no_condition() -> None:
    kinds = {one.type for one in planned(revision=NONE, suspend=False).status.conditions}
    assert ConditionType.DELIVERING not in kinds
