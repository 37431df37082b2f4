"""``spec.webhooks``: whom a session's pod tells what happens, over HTTP."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, StrictBool, StringConstraints

from wasession_api.base import Duration, Model, Pattern
from wasession_api.v1alpha1.patterns import HOST, LABEL_NAME, PORT

SECRET_NAME = "wasession-webhooks"  # noqa: S105 - a name
MAXIMUM_WEBHOOKS = 8
WebhookName = Annotated[str, StringConstraints(max_length=63), LABEL_NAME]
WebhookUrl = Annotated[
    str,
    StringConstraints(max_length=2048),
    Pattern(
        rf"^https?://({HOST}|\[[0-9A-Fa-f:.]+\])(:{PORT})?(/[!$-;=?-Z_a-z~\[\]%]*)?$",
        "must be an http or https URL without user information and fragment, such as "
        "https://crm.example.com/whatsapp",
    ),
]
SecretKey = Annotated[
    str,
    StringConstraints(max_length=253),
    Pattern(r"^[-._a-zA-Z0-9]+$", "must be a key of a Secret: letters, digits, -, _ and ."),
]
HostPattern = Annotated[
    str,
    StringConstraints(max_length=253),
    Pattern(
        rf"^(\*\.)?{HOST}$",
        "must be a host such as crm.example.com, or *.example.com for all below it",
    ),
]


def _check_network(text: str) -> str:
    """Return a network in CIDR notation as it is; the CRD has a rule for it."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("must be a network in CIDR notation, such as 10.96.0.0/12") from None
    return text


Network = Annotated[str, StringConstraints(max_length=64), AfterValidator(_check_network)]


class WebhookEvent(StrEnum):
    """Events that a webhook can want; ``gap`` comes with all of them."""

    MESSAGE = "message"
    EDIT = "edit"
    DELETION = "deletion"
    REACTION = "reaction"
    VOTE = "vote"
    ACK = "ack"
    CALL = "call"
    GROUP = "group"


class ChatKind(StrEnum):
    """What kind of chat an event is about."""

    PERSON = "Person"
    GROUP = "Group"


class WebhookFilter(Model):
    """Which events of the wanted kinds to deliver."""

    chats: list[ChatKind] = Field(
        [],
        max_length=len(ChatKind),
        description="Kinds of chats: Person or Group; all if empty.",
    )
    from_me: StrictBool | None = Field(
        None,
        description="Only what the account itself did with other devices (true), or only what "
        "others did (false); both if unset.",
    )


class WebhookRetry(Model):
    """How long to try again. The delay between two attempts doubles, up to five minutes."""

    longest: Duration = Field(
        timedelta(hours=72),
        description="From an event's first failure until it becomes a dead letter.",
    )


class Webhook(Model):
    """An HTTP endpoint that is told what happens: at least once, and in order for each chat."""

    name: WebhookName = Field(description="Name of the webhook, unique in the session.")
    url: WebhookUrl = Field(
        description="Where to POST the events, as CloudEvents signed as Standard Webhooks say."
    )
    signing_key: SecretKey = Field(
        description=f"Key in the Secret {SECRET_NAME} whose value, whsec_…, signs the requests."
    )
    events: list[WebhookEvent] = Field(
        [], max_length=len(WebhookEvent), description="Kinds of events; all if empty."
    )
    filter: WebhookFilter = Field(
        default_factory=WebhookFilter, description="Which of these events to deliver."
    )
    timeout: Duration = Field(
        timedelta(seconds=10), description="For the endpoint to answer a request."
    )
    retry: WebhookRetry = Field(
        default_factory=WebhookRetry, description="How long to try again what fails."
    )


class WebhookPolicy(Model):
    """Where the webhooks of sessions may go. Only a class decides."""

    allowed_hosts: list[HostPattern] = Field(
        [],
        max_length=64,
        description="Hosts that webhooks may have, such as *.example.com; any if empty.",
    )
    allowed_networks: list[Network] = Field(
        [],
        max_length=64,
        description="Private networks that webhooks may reach, such as 10.96.0.0/12; public "
        "addresses alone if empty. The class's egress must allow them too.",
    )
