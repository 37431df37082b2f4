"""``spec.webhooks`` and ``spec.sinks``: whom a session's pod tells what happens."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import timedelta
from enum import StrEnum
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StrictBool, StringConstraints

from wasession_api.base import Duration, Model, Pattern
from wasession_api.v1alpha1.patterns import HOST, LABEL_NAME, PORT

SECRET_NAME = "wasession-delivery"  # noqa: S105 - a name
MAXIMUM_WEBHOOKS, MAXIMUM_SINKS, MAXIMUM_SERVERS = 8, 4, 8
DestinationName = Annotated[str, StringConstraints(max_length=63), LABEL_NAME]
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
NatsUrl = Annotated[
    str,
    StringConstraints(max_length=512),
    Pattern(
        rf"^(nats|tls)://({HOST}|\[[0-9A-Fa-f:.]+\])(:{PORT})?$",
        "must be a server such as nats://nats.messaging.svc:4222, or tls://… if it must use TLS",
    ),
]
StreamName = Annotated[
    str,
    StringConstraints(max_length=255),
    Pattern(r"^[-_a-zA-Z0-9]+$", "must be the name of a stream: letters, digits, - and _"),
]
_PART = r"([-_a-zA-Z0-9]|\{namespace\}|\{session\}|\{kind\})+"
NatsSubject = Annotated[
    str,
    StringConstraints(max_length=255),
    Pattern(
        rf"^{_PART}(\.{_PART})*$",
        "must be a subject without wildcards, of letters, digits, -, _, {namespace}, {session} "
        "and {kind}, in parts separated by dots",
    ),
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


class DeliveryEvent(StrEnum):
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


class DeliveryFilter(Model):
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


class DeliveryRetry(Model):
    """How long to try again. The delay between two attempts doubles, up to five minutes."""

    longest: Duration = Field(
        timedelta(hours=72),
        description="From an event's first failure until it becomes a dead letter.",
    )


class Destination(Model):
    """What webhooks and sinks have in common: at least once, and in order for each chat."""

    name: DestinationName = Field(
        description="Name of the webhook or sink, unique among both of the session."
    )
    events: list[DeliveryEvent] = Field(
        [], max_length=len(DeliveryEvent), description="Kinds of events; all if empty."
    )
    filter: DeliveryFilter = Field(
        default_factory=DeliveryFilter, description="Which of these events to deliver."
    )
    timeout: Duration = Field(
        timedelta(seconds=10), description="For an answer to an attempt to deliver an event."
    )
    retry: DeliveryRetry = Field(
        default_factory=DeliveryRetry, description="How long to try again what fails."
    )

    @property
    def place(self) -> str:
        """Where it is, without what may be secret in a URL."""
        raise NotImplementedError


class Webhook(Destination):
    """An HTTP endpoint that is told what happens."""

    url: WebhookUrl = Field(
        description="Where to POST the events, as CloudEvents signed as Standard Webhooks say."
    )
    signing_key: SecretKey = Field(
        description=f"Key in the Secret {SECRET_NAME} whose value, whsec_…, signs the requests."
    )

    @property
    def place(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


class Nats(Model):
    """A stream of NATS JetStream."""

    servers: list[NatsUrl] = Field(
        min_length=1,
        max_length=MAXIMUM_SERVERS,
        description="Servers of one cluster, such as tls://nats.example.com:4222; the first that "
        "answers is used, and no others that it names.",
    )
    stream: StreamName = Field(description="Stream that must store the events; it is not created.")
    subject: NatsSubject = Field(
        "whatsapp.{namespace}.{session}.{kind}",
        description="Subject of an event. {namespace}, {session} and {kind} stand for those of the "
        "event, with _ in place of dots.",
    )
    credentials: SecretKey | None = Field(
        None,
        description=f"Key in the Secret {SECRET_NAME} whose value is a NATS credentials file or "
        "user:password.",
    )


class Sink(Destination):
    """A message broker that stores what happens."""

    nats: Nats = Field(description="The stream of NATS JetStream that stores the events.")

    @property
    def place(self) -> str:
        return f"{self.nats.servers[0]} {self.nats.stream}"


def check_names(destinations: Iterable[Destination]) -> None:
    """Raise ``ValueError`` if two webhooks or sinks have the same name."""
    names = [destination.name for destination in destinations]
    if len(set(names)) < len(names):
        raise ValueError("webhooks and sinks must have different names")


class DeliveryPolicy(Model):
    """Where webhooks and sinks of sessions may go. Only a class decides."""

    allowed_hosts: list[HostPattern] = Field(
        [],
        max_length=64,
        description="Hosts that webhooks and sinks may have, such as *.example.com; any if empty.",
    )
    allowed_networks: list[Network] = Field(
        [],
        max_length=64,
        description="Private networks that webhooks and sinks may reach, such as 10.96.0.0/12; "
        "public addresses alone if empty. The class's egress must allow them too.",
    )
