"""What the operator tells a session pod about webhooks and sinks, and what the pod reports."""

from __future__ import annotations

import hashlib
from typing import Annotated, Self

from pydantic import Field, model_validator

from wasession_api.base import Model, Observed, Time, clip, fallback
from wasession_api.session_pod.events import Cursor
from wasession_api.v1alpha1 import DeliveryState
from wasession_api.v1alpha1.delivery import (
    MAXIMUM_SINKS,
    MAXIMUM_WEBHOOKS,
    DeliveryPolicy,
    Destination,
    Sink,
    Webhook,
    check_names,
)


class Configuration(Model):
    """What a session's pod delivers, and where it may.

    The pod reports the ``revision`` that it has, by which the operator sees whether to tell it.
    """

    webhooks: list[Webhook] = Field([], max_length=MAXIMUM_WEBHOOKS)
    sinks: list[Sink] = Field([], max_length=MAXIMUM_SINKS)
    policy: DeliveryPolicy = Field(default_factory=DeliveryPolicy)
    revision: str = Field("", max_length=64)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        check_names(self.destinations)
        return self

    @property
    def destinations(self) -> list[Destination]:
        return [*self.webhooks, *self.sinks]

    @classmethod
    def of(
        cls, webhooks: list[Webhook], sinks: list[Sink], policy: DeliveryPolicy
    ) -> Configuration:
        """Return a configuration whose revision is a hash of its content.

        Without webhooks and sinks it is empty: that is what a pod has that was told nothing.
        """
        if not webhooks and not sinks:
            return cls()
        content = cls(webhooks=webhooks, sinks=sinks, policy=policy)
        revision = hashlib.sha256(content.encoded()).hexdigest()[:16]
        return content.model_copy(update={"revision": revision})


class DeliveryDetails(Observed):
    """How the delivery to a webhook or sink is doing."""

    name: str = Field(max_length=63)
    place: str = Field("", max_length=2048, description="Origin of a URL; server and stream.")
    state: Annotated[DeliveryState, fallback(DeliveryState.FAILING)]
    since: Time = Field(description="Since when the state is that.")
    pending: int = Field(ge=0, description="Events that wait; may count some it does not want.")
    oldest: Time | None = Field(None, description="Time of the oldest event that waits.")
    last_delivered: Time | None = Field(
        None, description="When an event was delivered last, since the pod's start."
    )
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


class Replay(Model):
    """From where to deliver again."""

    after: Cursor


class Replayed(Observed):
    """Dead letters that are delivered again."""

    count: int = Field(ge=0, description="How many of them the outbox still has.")
