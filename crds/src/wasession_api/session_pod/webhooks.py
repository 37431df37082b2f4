"""What the operator tells a session pod about webhooks, and what the pod reports."""

from __future__ import annotations

import hashlib
from typing import Annotated

from pydantic import Field, field_validator

from wasession_api.base import Model, Observed, Time, clip, fallback
from wasession_api.v1alpha1 import DeliveryState
from wasession_api.v1alpha1.webhooks import MAXIMUM_WEBHOOKS, Webhook, WebhookPolicy


class Configuration(Model):
    """What a session's pod delivers, and where it may.

    The pod reports the ``revision`` that it has, by which the operator sees whether to tell it.
    """

    webhooks: list[Webhook] = Field([], max_length=MAXIMUM_WEBHOOKS)
    policy: WebhookPolicy = Field(default_factory=WebhookPolicy)
    revision: str = Field("", max_length=64)

    @field_validator("webhooks")
    @classmethod
    def _check_names(cls, webhooks: list[Webhook]) -> list[Webhook]:
        if len({webhook.name for webhook in webhooks}) < len(webhooks):
            raise ValueError("must have different names")
        return webhooks

    @classmethod
    def of(cls, webhooks: list[Webhook], policy: WebhookPolicy) -> Configuration:
        """Return a configuration whose revision is a hash of its content; empty without webhooks.

        That is what a pod has that was told nothing.
        """
        if not webhooks:
            return cls()
        content = cls(webhooks=webhooks, policy=policy)
        revision = hashlib.sha256(content.encoded()).hexdigest()[:16]
        return content.model_copy(update={"revision": revision})


class WebhookState(Observed):
    """How the delivery to a webhook is doing."""

    name: str = Field(max_length=63)
    state: Annotated[DeliveryState, fallback(DeliveryState.FAILING)]
    since: Time = Field(description="Since when the state is that.")
    pending: int = Field(ge=0, description="Events that wait; may count some it does not want.")
    oldest: Time | None = Field(None, description="Time of the oldest event that waits.")
    error: Annotated[str, clip(256)] | None = Field(
        None, max_length=256, description="What was wrong with the last attempt, if it failed."
    )
    dead_letters: int = Field(0, ge=0, description="Events that were given up.")


class DeadLetter(Observed):
    """An event that was given up."""

    event_id: str = Field(max_length=64)
    kind: str = Field(max_length=32)
    at: Time = Field(description="When it was given up.")
    attempts: int = Field(ge=1)
    error: Annotated[str, clip(256)] = Field(max_length=256)


class Replayed(Observed):
    """Dead letters that are delivered again."""

    count: int = Field(ge=0, description="How many of them the outbox still has.")
