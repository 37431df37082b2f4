"""The HTTP API as a table, which ``app`` turns into routes and this module into OpenAPI.

``handlers`` has the handler of each operation by its name.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import Field, StringConstraints
from wasession_api.base import Model, Pattern
from wasession_api.http.openapi import BINARY, Answer, Content, Nothing, Operation, document
from wasession_api.session_pod.backup import BackupOrder
from wasession_api.session_pod.delivery import (
    Configuration,
    DeadLetter,
    DeliveryDetails,
    Replay,
    Replayed,
)
from wasession_api.session_pod.events import PAYLOADS, Cursor, EventKind, EventKinds, EventPage
from wasession_api.session_pod.link_code import LinkCode
from wasession_api.session_pod.messages import (
    Chat,
    Contact,
    ContactId,
    MessageId,
    MessageStatus,
    Page,
    Recipient,
    SendMedia,
    SendText,
    SentMessage,
)
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import PairingMethod, Phase
from wasession_api.v1alpha1.delivery import DestinationName

MAXIMUM_JSON = 2**20  # bytes
PNG, SVG, TEXT, SSE = "image/png", "image/svg+xml", "text/plain", "text/event-stream"
JPEG, SCREENCAST = "image/jpeg", "multipart/x-mixed-replace; boundary=picture"
MAXIMUM_EVENTS = 500  # of a page
MAXIMUM_WAIT = 60.0  # seconds
_MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_STRING: dict[str, Any] = {"type": "string"}
BINARY_TYPE = "application/octet-stream"
# What a browser can show without running anything. The sender chooses the type.
SAFE_TYPES = {
    "application/pdf", "audio/aac", "audio/amr", "audio/mp4", "audio/mpeg", "audio/ogg",
    "image/gif", "image/jpeg", "image/png", "image/webp", "text/plain", "video/3gpp", "video/mp4",
    "video/quicktime", "video/webm",
}  # fmt: skip


class EventsQuery(Model):
    types: EventKinds = Field(
        frozenset(EventKind),
        description="Types of events, such as `state,ack`. Default: all.",
        min_length=1,
    )
    after: Cursor | None = Field(
        None,
        description="ID of the last event received. Without it, a stream begins now, and a page "
        "with the oldest event that is kept.",
    )
    limit: int = Field(
        100, ge=1, le=MAXIMUM_EVENTS, description="Maximum number of events of a page."
    )
    wait: float = Field(
        0,
        ge=0,
        le=MAXIMUM_WAIT,
        description="Seconds to wait for an event if there is none yet; of a page.",
    )


class LogoutQuery(Model):
    request: Annotated[str, StringConstraints(max_length=256)] | None = Field(
        None,
        description="ID of the request. The volume records it, and the state says when it is "
        "fulfilled, so that it is not fulfilled again on another login.",
    )


class NoteLogoutQuery(Model):
    request: Annotated[str, StringConstraints(max_length=256)] = Field(
        description="ID of the request that is fulfilled."
    )


class EventsHeaders(Model):
    last_event_id: str | None = Field(
        None,
        alias="Last-Event-ID",
        description="ID of the last event received, as an EventSource sends it.",
    )


class SendHeaders(Model):
    idempotency_key: (
        Annotated[
            str,
            Pattern(
                r"^[\x21-\x7e]{1,255}$",
                "must be 1 to 255 printable ASCII characters without spaces, such as a UUID",
            ),
        ]
        | None
    ) = Field(
        None,
        alias="Idempotency-Key",
        description="A unique text for each message, such as a UUID. A retry with the same key "
        "and body gets the response of the first request and sends nothing again. Keys are "
        "remembered for at least a day.",
    )


class MessagePath(Model):
    id: MessageId


class ChatPath(Model):
    id: Recipient


class ContactPath(Model):
    id: ContactId


class PageQuery(Model):
    limit: int = Field(100, ge=1, le=500, description="Maximum number of items.")
    continue_: (
        Annotated[
            str,
            StringConstraints(max_length=512),
            Pattern(r"^[A-Za-z0-9_-]+$", "must be `continue` of the previous page, unchanged"),
        ]
        | None
    ) = Field(None, alias="continue", description="`continue` of the previous page.")


class DeliveryPath(Model):
    name: DestinationName


class Alive(Model):
    status: str = "ok"


_NOT_READY = {
    503: "The session is not Ready (see `phase`), or its page is loading. Nothing was done. "
    "Retry after `Retry-After` seconds."
}
_NO_DELIVERY = {404: "The session has no webhook or sink of this name."}
_PAGE_FAILED = {502: "The page of WhatsApp Web failed."}
_ALWAYS = {
    422: "A parameter, header or field is not valid; see `detail`.",
    503: "The pod cannot read its own token, which is being rotated, or its page is away.",
}
_NO_VIEW = {403: "Nobody may look at the page of this session."}
_VIEW = "It may have chats, and the code that links a phone."
_FILES = tuple(Content(BINARY, kind) for kind in (BINARY_TYPE, *sorted(SAFE_TYPES)))
_MEDIA_HEADERS = {"ETag": "Tag of the file, which never changes."}
_RETRY_AFTER = "Retry after `Retry-After` seconds."

OPERATIONS = (
    Operation(
        "GET",
        "/livez",
        "getLivez",
        "Whether the process is alive",
        {
            200: Answer(
                "It is, whatever the state of the browser and WhatsApp.",
                (Content(Alive, example=Alive()),),
            )
        },
        tag="Process",
        problems={
            503: "The session's loop has stopped ticking; only a restart of the process helps."
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
                "It does; the state tells whether it is logged in.",
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
        {200: Answer("In the text format of Prometheus.", (Content(_STRING, TEXT),))},
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
        "The state of the session",
        {
            200: Answer(
                "The whole state.",
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
        "Stream or page through the state and the events",
        {
            200: Answer(
                "Server-sent events until the client disconnects, with a comment every 10 s "
                "when there are no events; with `Accept: application/json` a page of events.",
                (Content(_STRING, SSE), Content(EventPage)),
            )
        },
        tag="Session",
        description="The data of a `state` event is a `Report`: on a stream one comes first and at "
        "each change. The other events are stored before anybody is told, for a week by default: "
        "`message` (`IncomingMessage`), `edit` (`MessageEdit`), `deletion` (`MessageDeletion`), "
        "`reaction` (`Reaction`), `vote` (`PollVote`), `ack` (`MessageAck`), `call` (`Call`), "
        "`group` (`GroupChange`). Their IDs never change and serve as `Last-Event-ID` and `after`: "
        "what follows is told, once and in order. A `gap` (`Gap`), which also comes without being "
        "asked for, tells that events before it may be missing.",
        query=EventsQuery,
        headers=EventsHeaders,
        problems=_ALWAYS,
    ),
    Operation(
        "GET",
        "/v1/pairing",
        "getPairing",
        "The code that links a phone now",
        {
            200: Answer(
                "The code; a QR also as a picture, depending on `Accept`.",
                (
                    Content(
                        LinkCode,
                        example=LinkCode(
                            method=PairingMethod.QR_CODE,
                            attempt=1,
                            code="2@x,y,z,w",
                        ),
                    ),
                    Content(BINARY, PNG),
                    Content(_STRING, SVG),
                    Content(_STRING, TEXT),
                ),
            )
        },
        tag="Pairing",
        problems={404: "There is no code now.", 406: "A pairing code has no picture.", **_ALWAYS},
    ),
    Operation(
        "POST",
        "/v1/pairing/refresh",
        "refreshPairing",
        "Request a new code, also after the last round",
        {202: Answer("Requested.", (Content(Nothing),))},
        tag="Pairing",
        problems={409: "The session is not waiting for a phone.", **_PAGE_FAILED, **_ALWAYS},
    ),
    Operation(
        "POST",
        "/v1/messages",
        "sendMessage",
        "Send a text or a file",
        {
            201: Answer(
                "WhatsApp has accepted the message.",
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
                    "Location": "URL of the message's status.",
                    "Idempotent-Replayed": "`true` if this is the response of an earlier request "
                    "with the same key.",
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
            400: "The body is neither valid JSON nor a valid form.",
            404: "The recipient is not on WhatsApp, or `replyTo` is not a message of the chat. "
            "Nothing was sent.",
            408: "The body stopped arriving for 30 s.",
            409: "A send with this `Idempotency-Key` is in progress; retry.",
            413: "The body or the file is too large.",
            415: "The body is neither JSON nor a form.",
            422: "A field is not valid, or the `Idempotency-Key` has been used for another "
            "message.",
            502: "WhatsApp did not accept the message, or the page failed before sending it.",
            503: "The session is not Ready (see `phase`), or its page is away. Nothing was sent. "
            + _RETRY_AFTER,
            504: "It is unknown whether the message was sent. A retry with the same "
            "`Idempotency-Key` does not send it twice.",
            507: "The volume has no space for the key or the file. Nothing was sent. "
            + _RETRY_AFTER,
        },
    ),
    Operation(
        "GET",
        "/v1/messages/{id}",
        "getMessage",
        "One message",
        {200: Answer("The message, as WhatsApp Web has it.", (Content(MessageStatus),))},
        tag="Messages",
        path_parameters=MessagePath,
        problems={
            404: "WhatsApp Web has no message with this ID.",
            **_ALWAYS,
            **_PAGE_FAILED,
            **_NOT_READY,
        },
    ),
    Operation(
        "GET",
        "/v1/messages/{id}/media",
        "getMedia",
        "The file of a message",
        {
            200: Answer("The file.", _FILES, _MEDIA_HEADERS),
            206: Answer(
                "The range of the file that `Range` asks for.",
                _FILES,
                _MEDIA_HEADERS | {"Content-Range": "Position of the range in the file."},
            ),
            304: Answer("The file is the one of `If-None-Match`.", (), _MEDIA_HEADERS),
        },
        tag="Messages",
        description="WhatsApp Web downloads and decrypts it. `Content-Type` is what the sender has "
        "declared if that is harmless. `Range` (one range), `If-Range` and `If-None-Match` work as "
        "for any file.",
        path_parameters=MessagePath,
        problems={
            404: "WhatsApp Web has no message with this ID, or it has no file.",
            410: "WhatsApp no longer has the file.",
            413: "The file is too large to be downloaded.",
            416: "The file has no byte in this range.",
            **_ALWAYS,
            **_PAGE_FAILED,
            **_NOT_READY,
        },
    ),
    Operation(
        "GET",
        "/v1/chats/{id}/messages",
        "listMessages",
        "List the messages of a chat, newest first",
        {200: Answer("A page of the list.", (Content(Page[MessageStatus]),))},
        tag="Chats",
        description="As far as WhatsApp Web has them.",
        path_parameters=ChatPath,
        query=PageQuery,
        problems={**_ALWAYS, **_PAGE_FAILED, **_NOT_READY},
    ),
    Operation(
        "GET",
        "/v1/chats",
        "listChats",
        "List chats, latest first",
        {200: Answer("A page of the list.", (Content(Page[Chat]),))},
        tag="Chats",
        query=PageQuery,
        problems={**_ALWAYS, **_PAGE_FAILED, **_NOT_READY},
    ),
    Operation(
        "GET",
        "/v1/contacts",
        "listContacts",
        "List contacts, by ID",
        {200: Answer("A page of the list.", (Content(Page[Contact]),))},
        tag="Chats",
        query=PageQuery,
        problems={**_ALWAYS, **_PAGE_FAILED, **_NOT_READY},
    ),
    Operation(
        "GET",
        "/v1/contacts/{id}",
        "getContact",
        "One person, by phone number or LID",
        {200: Answer("The person, with both ids if known.", (Content(Contact),))},
        tag="Messages",
        path_parameters=ContactPath,
        problems={
            404: "Nobody on WhatsApp has this phone number or LID.",
            **_ALWAYS,
            **_PAGE_FAILED,
            **_NOT_READY,
        },
    ),
    Operation(
        "POST",
        "/v1/logout",
        "logout",
        "End the login",
        {
            200: Answer(
                "WhatsApp has confirmed the logout. The profile is quarantined.",
                (Content(Nothing),),
            )
        },
        tag="Session",
        query=LogoutQuery,
        problems={
            504: "WhatsApp has not confirmed the logout in time; the login may still end.",
            **_ALWAYS,
            **_PAGE_FAILED,
            **_NOT_READY,
        },
    ),
    Operation(
        "PUT",
        "/v1/logout",
        "noteLogout",
        "Record a requested logout as fulfilled, without ending a login",
        {200: Answer("The volume has recorded it.", (Content(Nothing),))},
        tag="Session",
        query=NoteLogoutQuery,
        problems={**_ALWAYS, **_NOT_READY},
    ),
    Operation(
        "PUT",
        "/v1/backup",
        "backUp",
        "Copy the login to a store",
        {202: Answer("Begun, or done before; the state shows the progress.", (Content(Nothing),))},
        tag="Session",
        description="In Kubernetes the operator calls this for a WhatsAppSessionBackup. The pod "
        "encrypts a snapshot of the login and its messages, and uploads them with one PUT. `id` "
        "is done once; one that has failed is tried again.",
        bodies=(Content(BackupOrder),),
        problems={
            400: "The body is not valid JSON.",
            409: "There is no valid login, or another backup is under way.",
            **_ALWAYS,
            **_NOT_READY,
        },
    ),
    Operation(
        "POST",
        "/v1/restart",
        "restart",
        "Restart the browser",
        {202: Answer("Requested; the state shows the progress.", (Content(Nothing),))},
        tag="Session",
        problems=_ALWAYS,
    ),
    Operation(
        "GET",
        "/v1/screenshot",
        "getScreenshot",
        "A screenshot of the page",
        {200: Answer("PNG.", (Content(BINARY, PNG),))},
        tag="Session",
        description=_VIEW,
        problems={**_NO_VIEW, **_ALWAYS, **_PAGE_FAILED},
    ),
    Operation(
        "GET",
        "/v1/screencast",
        "getScreencast",
        "The page as a stream of pictures",
        {200: Answer("JPEG after JPEG, for up to 5 minutes.", (Content(BINARY, SCREENCAST),))},
        tag="Session",
        description=f"{_VIEW} A picture follows each change of the page, at most five in a second "
        "and as fast as they are read; every 5 s the last one comes again. It ends when the page "
        "closes, and when another screencast begins.",
        problems={**_NO_VIEW, **_ALWAYS, **_PAGE_FAILED},
    ),
    Operation(
        "GET",
        "/v1/page",
        "getPage",
        "What the page shows, as text",
        {
            200: Answer(
                "An accessibility snapshot in YAML, up to 64 KiB.",
                (Content(_STRING, TEXT),),
            )
        },
        tag="Session",
        description="For a session that does not link or become Ready: roles, names and texts of "
        "what the page shows, such as a new dialog. If there may be a login, it has dialogs alone, "
        "and so no chats; it never has a QR's content. It takes some seconds, and until some "
        "seconds later a further process runs in the pod.",
        problems={
            409: "The session is Ready, or the page may show a pairing code.",
            **_ALWAYS,
            **_PAGE_FAILED,
        },
    ),
    Operation(
        "PUT",
        "/v1/deliveries",
        "configureDeliveries",
        "Deliver to these webhooks and sinks from now on",
        {200: Answer("The volume has recorded it.", (Content(Nothing),))},
        tag="Delivery",
        description="In Kubernetes the operator calls this, with `spec.webhooks` and "
        "`spec.sinks`. One that is new starts with the next event; one of the same name goes on "
        "where it is.",
        bodies=(Content(Configuration),),
        problems={400: "The body is not valid JSON.", **_ALWAYS},
    ),
    Operation(
        "GET",
        "/v1/deliveries",
        "listDeliveries",
        "How the deliveries are doing",
        {200: Answer("Those of all webhooks and sinks.", (Content(Page[DeliveryDetails]),))},
        tag="Delivery",
        problems=_ALWAYS,
    ),
    Operation(
        "GET",
        "/v1/deliveries/{name}/dead-letters",
        "listDeadLetters",
        "Events that were given up, latest first",
        {200: Answer("Up to 10,000.", (Content(Page[DeadLetter]),))},
        tag="Delivery",
        path_parameters=DeliveryPath,
        problems={**_NO_DELIVERY, **_ALWAYS},
    ),
    Operation(
        "POST",
        "/v1/deliveries/{name}/dead-letters/replay",
        "replayDeadLetters",
        "Deliver the dead letters again",
        {202: Answer("Those that the outbox still has are delivered.", (Content(Replayed),))},
        tag="Delivery",
        path_parameters=DeliveryPath,
        problems={**_NO_DELIVERY, **_ALWAYS},
    ),
    Operation(
        "POST",
        "/v1/deliveries/{name}/replay",
        "replayDelivery",
        "Deliver everything after an event again",
        {202: Answer("It is delivered again, under the same IDs.")},
        tag="Delivery",
        path_parameters=DeliveryPath,
        bodies=(Content(Replay),),
        problems={
            400: "The body is not valid JSON.",
            **_NO_DELIVERY,
            409: "The outbox does not go back to `after`, or was replaced since.",
            **_ALWAYS,
        },
    ),
    Operation(
        "POST",
        "/v1/deliveries/{name}/pause",
        "pauseDelivery",
        "Let the events wait",
        {204: Answer("Paused, also across restarts.")},
        tag="Delivery",
        path_parameters=DeliveryPath,
        problems={**_NO_DELIVERY, **_ALWAYS},
    ),
    Operation(
        "POST",
        "/v1/deliveries/{name}/resume",
        "resumeDelivery",
        "Deliver again, also to an endpoint that wanted no more",
        {204: Answer("Resumed.")},
        tag="Delivery",
        path_parameters=DeliveryPath,
        problems={**_NO_DELIVERY, **_ALWAYS},
    ),
)


@functools.cache
def api_document() -> dict[str, Any]:
    """Return the OpenAPI document. It takes 2 MiB, and most pods are never asked for it."""
    return document(
        "wasession session pod",
        "v1",
        "One WhatsApp Web login over HTTP. Errors are `application/problem+json` (RFC 9457) with "
        "the session's `phase`.",
        OPERATIONS,
        "The session's token.",
        also=tuple(PAYLOADS.values()),
    )
