"""The HTTP API as a table. The routes and ``/openapi.json`` are both made from it; ``app`` has the handlers by name."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints
from wasession_api.base import Model
from wasession_api.http.openapi import Answer, Content, Nothing, Operation, document
from wasession_api.session_pod.link_code import LinkCode
from wasession_api.session_pod.messages import (
    Chat,
    Contact,
    IncomingMessage,
    MessageAck,
    MessageId,
    MessageStatus,
    Page,
    SendMedia,
    SendText,
    SentMessage,
)
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import PairingMethod, Phase

MAXIMUM_JSON = 2**20  # bytes
PNG, SVG, TEXT, SSE = "image/png", "image/svg+xml", "text/plain", "text/event-stream"
_MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_STRING: dict[str, Any] = {"type": "string"}


class EventKind(StrEnum):
    """What an event stream tells."""

    STATE = "state"
    MESSAGE = "message"
    ACK = "ack"


def _split(value: object) -> object:
    return value.split(",") if isinstance(value, str) else value


class EventsQuery(Model):
    types: Annotated[frozenset[EventKind], BeforeValidator(_split)] = Field(
        frozenset(EventKind),
        description="What is told, such as `state,ack`; everything when left out.",
        min_length=1,
    )


class EventsHeaders(Model):
    last_event_id: str | None = Field(
        None,
        alias="Last-Event-ID",
        description="The id of the last event that was read, as an EventSource sends it.",
    )


class SendHeaders(Model):
    idempotency_key: Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,255}$")] | None = (
        Field(
            None,
            alias="Idempotency-Key",
            description="Any text of the caller's that is new for each message, such as a UUID. A retry with the same one and "
            "the same body sends nothing again and gets the first answer; it is known for a day at least.",
        )
    )


class MessagePath(Model):
    id: MessageId


class PageQuery(Model):
    limit: int = Field(100, ge=1, le=500, description="How many at most.")
    continue_: (
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$", max_length=512)] | None
    ) = Field(None, alias="continue", description="`continue` of the part before.")


class Alive(Model):
    status: str = "ok"


_NOT_READY = {
    503: "The session is not Ready; `phase` says where it is, `Retry-After` when to ask again."
}
_PAGE_FAILED = {502: "The page did not do as asked."}
_ALWAYS = {
    422: "A parameter, header or field is not as it should be; `detail` says which.",
    503: "The pod cannot read its own token, which is being changed.",
}
_RETRY_AFTER = "`Retry-After` is in seconds."

OPERATIONS = (
    Operation(
        "GET",
        "/livez",
        "getLivez",
        "Whether the process is alive",
        {
            200: Answer(
                "It is, whatever is wrong with the browser or WhatsApp.",
                (Content(Alive, example=Alive()),),
            )
        },
        tag="Process",
        problems={
            503: "The session is not looked after any more: only a new process can mend that."
        },
        secured=False,
    ),
    Operation(
        "GET",
        "/readyz",
        "getReadyz",
        "Whether the process serves requests",
        {
            200: Answer(
                "It does; whether it is logged in is in the state.",
                (Content(Alive, example=Alive()),),
            )
        },
        tag="Process",
        secured=False,
    ),
    Operation(
        "GET",
        "/metrics",
        "getMetrics",
        "Metrics for Prometheus",
        {200: Answer("In Prometheus's text format.", (Content(_STRING, TEXT),))},
        tag="Process",
        secured=False,
    ),
    Operation(
        "GET",
        "/openapi.json",
        "getOpenapi",
        "This document",
        {200: Answer("OpenAPI 3.1.", (Content({"type": "object"}),))},
        tag="Process",
        secured=False,
    ),
    Operation(
        "GET",
        "/v1/state",
        "getState",
        "What the session is",
        {
            200: Answer(
                "Its whole state.",
                (
                    Content(
                        Report,
                        example=Report(
                            client_id="sales-eu",
                            started_at=_MOMENT,
                            seq=7,
                            phase=Phase.READY,
                            reason="Connected",
                            session_valid=True,
                            is_authenticated=True,
                            last_connected=_MOMENT,
                        ),
                    ),
                ),
            )
        },
        tag="Session",
        problems=_ALWAYS,
    ),
    Operation(
        "GET",
        "/v1/events",
        "getEvents",
        "The state, messages and acks as they come",
        {
            200: Answer(
                "Server-sent events, until the caller goes. A comment comes every 10 s when there is nothing else.",
                (Content(_STRING, SSE),),
            )
        },
        tag="Session",
        description="Event `state` has a `Report` as data and comes first, and at each change. `message` has an "
        "`IncomingMessage`, `ack` a `MessageAck`. With `Last-Event-ID` the messages and acks after it follow from a buffer; "
        "when something between may be missing, an event `gap` comes before everything that is in the buffer.",
        query=EventsQuery,
        headers=EventsHeaders,
        problems=_ALWAYS,
    ),
    Operation(
        "GET",
        "/v1/pairing",
        "getPairing",
        "The code that a phone can use now",
        {
            200: Answer(
                "The code; a QR also as a picture, by `Accept`.",
                (
                    Content(
                        LinkCode,
                        example=LinkCode(
                            method=PairingMethod.QR_CODE,
                            attempt=1,
                            code="2@x,y,z,w",
                        ),
                    ),
                    Content({"type": "string", "format": "binary"}, PNG),
                    Content(_STRING, SVG),
                    Content(_STRING, TEXT),
                ),
            )
        },
        tag="Pairing",
        problems={404: "There is no code now.", 406: "A pairing code is no picture.", **_ALWAYS},
    ),
    Operation(
        "POST",
        "/v1/pairing/refresh",
        "refreshPairing",
        "A new code, also after the last round",
        {202: Answer("It is on its way.", (Content(Nothing),))},
        tag="Pairing",
        problems={409: "The session does not wait for a phone.", **_PAGE_FAILED, **_ALWAYS},
    ),
    Operation(
        "POST",
        "/v1/messages",
        "sendMessage",
        "Sends a text or a file",
        {
            201: Answer(
                "WhatsApp has taken the message.",
                (
                    Content(
                        SentMessage,
                        example=SentMessage(
                            id="true_15551234567@c.us_3EB0F1A2B3C4D5E6F708",
                            to="15551234567@c.us",
                            ack=1,
                            sent_at=_MOMENT,
                        ),
                    ),
                ),
                {
                    "Location": "Where its status is.",
                    "Idempotent-Replayed": "`true` when this is the answer to an earlier request with the same key.",
                },
            )
        },
        tag="Messages",
        headers=SendHeaders,
        bodies=(
            Content(SendText, example=SendText(to="15551234567", text="Hello")),
            Content(SendMedia, "multipart/form-data", files=("file",)),
        ),
        problems={
            400: "The body is not JSON, or no form.",
            404: "The recipient is not on WhatsApp, or `replyTo` names no message of the chat. Nothing was sent.",
            408: "Nothing came for 30 s in the middle of the body.",
            409: "A send with this `Idempotency-Key` is under way; ask again.",
            413: "The body or the file is too large.",
            415: "The body is neither JSON nor a form.",
            422: "A field is not as it should be, or the `Idempotency-Key` was used with another message.",
            502: "WhatsApp has not taken the message, or the page failed before it was sent.",
            503: f"The session is not Ready (`phase` says where it is), or busy. Nothing was sent. {_RETRY_AFTER}",
            504: "Nobody knows whether the message was sent. A retry with the same `Idempotency-Key` does not send it twice.",
            507: f"There is no space to note or store what is to be sent. Nothing was sent. {_RETRY_AFTER}",
        },
    ),
    Operation(
        "GET",
        "/v1/messages/{id}",
        "getMessage",
        "What is known of one message",
        {200: Answer("As WhatsApp Web has it.", (Content(MessageStatus),))},
        tag="Messages",
        path_parameters=MessagePath,
        problems={
            404: "WhatsApp Web has no such message.",
            **_ALWAYS,
            **_PAGE_FAILED,
            **_NOT_READY,
        },
    ),
    Operation(
        "GET",
        "/v1/chats",
        "listChats",
        "Chats, the latest first",
        {200: Answer("A part of them.", (Content(Page[Chat]),))},
        tag="Chats",
        query=PageQuery,
        problems={**_ALWAYS, **_PAGE_FAILED, **_NOT_READY},
    ),
    Operation(
        "GET",
        "/v1/contacts",
        "listContacts",
        "Contacts, by id",
        {200: Answer("A part of them.", (Content(Page[Contact]),))},
        tag="Chats",
        query=PageQuery,
        problems={**_ALWAYS, **_PAGE_FAILED, **_NOT_READY},
    ),
    Operation(
        "POST",
        "/v1/logout",
        "logout",
        "Ends the login",
        {
            200: Answer(
                "WhatsApp has confirmed it. The profile was moved aside.", (Content(Nothing),)
            )
        },
        tag="Session",
        problems={
            504: "WhatsApp has not confirmed it in time; the login was kept.",
            **_ALWAYS,
            **_PAGE_FAILED,
            **_NOT_READY,
        },
    ),
    Operation(
        "POST",
        "/v1/restart",
        "restart",
        "Restarts the browser",
        {202: Answer("It is being restarted; the state says how far it is.", (Content(Nothing),))},
        tag="Session",
        problems=_ALWAYS,
    ),
    Operation(
        "GET",
        "/v1/screenshot",
        "getScreenshot",
        "The page as a picture",
        {200: Answer("PNG.", (Content({"type": "string", "format": "binary"}, PNG),))},
        tag="Session",
        problems={**_ALWAYS, **_PAGE_FAILED},
    ),
)

DOCUMENT = document(
    "wasession session pod",
    "v1",
    "One WhatsApp Web login over HTTP. Errors are `application/problem+json` (RFC 9457) with the session's `phase`.",
    OPERATIONS,
    "The session's token.",
    also=(IncomingMessage, MessageAck),
)
