"""The REST operations under ``/whatsapp``: one table makes the routes and ``/openapi.json``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints
from wasession_api.base import Model, Pattern
from wasession_api.http import openapi
from wasession_api.http.openapi import BINARY, Answer, Content, Operation
from wasession_api.session_pod.delivery import DeadLetter, DeliveryDetails, Replay, Replayed
from wasession_api.session_pod.events import Cursor as EventCursor
from wasession_api.session_pod.events import EventKinds, EventPage
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
from wasession_api.v1alpha1.delivery import DestinationName

from wasession_gateway import events
from wasession_gateway.commands import NewSession, Owner
from wasession_gateway.scopes import VIEW, WAKE, Scope
from wasession_gateway.session import AccountView, Health, SessionView

# A session created with kubectl may have dots in its name as well.
SessionName = Annotated[
    str,
    StringConstraints(max_length=253),
    Pattern(r"^[a-zA-Z0-9_.-]{1,253}$", "must be 1 to 253 letters, digits, _, - and ."),
    Field(description="The session's clientId.", examples=["sales-eu"]),
]
Cursor = Annotated[
    str,
    StringConstraints(max_length=512),
    Pattern(r"^[A-Za-z0-9_=-]{1,512}$", "must be the value that a previous page returned"),
]
CONTINUE = "`continue` of the previous page."
LONGEST_WAIT = 60  # seconds, for events


# --- parameters -----------------------------------------------------------------------------------


class SessionPath(Model):
    client_id: SessionName


class MessagePath(SessionPath):
    message_id: MessageId


class ContactPath(SessionPath):
    contact_id: ContactId


class ChatPath(SessionPath):
    chat_id: Recipient


class DeliveryPath(SessionPath):
    delivery: DestinationName = Field(description="Name of the webhook or sink.")


class OwnerQuery(Model):
    owner: Owner | None = Field(
        None, description="For admins: the owner, when several have a session of this name."
    )


class ListQuery(Model):
    owner: Owner | None = Field(
        None, description="For admins: whose sessions to list; everybody's when omitted."
    )
    limit: int = Field(100, ge=1, le=1000, description="Maximum number of items.")
    continue_: Cursor | None = Field(None, alias="continue", description=CONTINUE)


class PodListQuery(OwnerQuery):
    limit: int = Field(100, ge=1, le=500, description="Maximum number of items.")
    continue_: Annotated[str, StringConstraints(max_length=512)] | None = Field(
        None, alias="continue", description=CONTINUE
    )


class EventsQuery(OwnerQuery):
    after: EventCursor | None = Field(
        None,
        description="ID of the last event that the caller has had, or `next` of the previous page; "
        "when omitted, the oldest event that is kept comes first.",
    )
    limit: int = Field(100, ge=1, le=500, description="Maximum number of items.")
    types: EventKinds | None = Field(
        None,
        min_length=1,
        description="Kinds of events, such as `message,edit`; all when omitted. `gap` always is "
        "one of them, `state` never.",
    )
    wait: int = Field(
        0,
        ge=0,
        le=LONGEST_WAIT,
        description="Seconds to wait for an event if there is none yet. Proxies in front of the "
        "gateway may wait for less.",
    )


class RestoreQuery(OwnerQuery):
    timeout: int | None = Field(
        None,
        ge=1,
        le=300,
        description="Seconds to wait at most; the gateway has a limit of its own.",
    )


class DeleteQuery(OwnerQuery):
    logout: bool = Field(False, description="Log the device out of WhatsApp first.")
    delete_volume: bool = Field(
        False, description="Delete the volume, and the login with it; otherwise it is retained."
    )


class IfMatch(Model):
    if_match: str | None = Field(
        None, alias="If-Match", description="The ETag that the session must have; else 412."
    )


class IfNoneMatch(Model):
    if_none_match: str | None = Field(
        None, alias="If-None-Match", description="A known ETag: 304 while it is still current."
    )


class MediaHeaders(Model):
    range: str | None = Field(
        None, alias="Range", max_length=256, description="Which bytes, such as `bytes=0-1023`."
    )
    if_range: str | None = Field(
        None,
        alias="If-Range",
        max_length=256,
        description="The ETag for which `Range` counts; else the whole file is sent.",
    )
    if_none_match: str | None = Field(
        None, alias="If-None-Match", max_length=256, description="A known ETag: 304 if it is it."
    )


class IdempotencyKey(Model):
    idempotency_key: (
        Annotated[
            str,
            StringConstraints(max_length=255),
            Pattern(r"^[\x21-\x7e]{1,255}$", "must be 1 to 255 ASCII characters without spaces"),
        ]
        | None
    ) = Field(
        None,
        alias="Idempotency-Key",
        description="Any text, such as a UUID: requests with the same key send one message.",
    )


# --- bodies ---------------------------------------------------------------------------------------


class SendMessage(SendText):
    """A text to send, and the session to send it with."""

    client_id: SessionName
    owner: Owner | None = Field(None, description="For admins: the session's owner.")


# --- answers --------------------------------------------------------------------------------------

ALWAYS = {
    401: "The token is missing or not accepted.",
    403: "The token lacks the scope; `WWW-Authenticate` names it.",
    422: "Part of the request does not match this document.",
    429: "Too many requests; `Retry-After` says how many seconds to wait.",
}
OF_ONE = {
    404: "The caller has no such session.",
    409: "Several owners have a session of that name, and the admin did not specify one.",
}
NO_DELIVERY = {**OF_ONE, 404: f"{OF_ONE[404]} Or the session has no such webhook or sink."}
WRITING = {
    412: "The session has changed since the version in `If-Match`.",
    503: "The Kubernetes API does not answer.",
}
ASKING = {
    502: "The session's pod did not answer; the request may have taken effect.",
    503: "The session has no pod at the moment.",
}
ASLEEP = "Or it is asleep, and was not awake in time."
USING = {**ASKING, 503: f"{ASKING[503]} {ASLEEP}"}
READING = {
    400: "The body is not JSON.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body's Content-Type is not JSON.",
}
SENDING = {
    400: "The body is neither JSON nor a form.",
    404: f"{OF_ONE[404]} Or the recipient is not on WhatsApp.",
    408: "The body did not arrive in time.",
    409: f"A request with the same Idempotency-Key is under way. {OF_ONE[409]}",
    413: "The body or the file is too large.",
    415: "The body's Content-Type is neither JSON nor a form.",
    502: "WhatsApp rejected the message, or it is not known whether it was sent: repeat the "
    "request with the same Idempotency-Key.",
    503: f"The session is not Ready, or has no pod at the moment. {ASLEEP} Nothing was sent.",
    504: "WhatsApp has not confirmed the message in time: repeat the request with the same "
    "Idempotency-Key, or read its state at `Location`.",
    507: "The session's volume is full. Nothing was sent.",
}
ETAG = {"ETag": "The session's version in quotation marks."}
A_SESSION = {200: Answer("The session.", (Content(SessionView),), ETAG)}
UNCHANGED = {304: Answer("The session has not changed.")}
TEXT = {"type": "string"}
SCREENSHOT, SCREENCAST = "image/png", "multipart/x-mixed-replace"
SESSION = "/whatsapp/sessions/{clientId}"
DELIVERY = f"{SESSION}/deliveries/{{delivery}}"
OF_SESSION: dict[str, Any] = {"path_parameters": SessionPath, "query": OwnerQuery}
OF_DELIVERY: dict[str, Any] = {"path_parameters": DeliveryPath, "query": OwnerQuery}


def listed(model: type[BaseModel], description: str) -> Mapping[int, Answer]:
    return {200: Answer(description, (Content(Page[model]),))}  # type: ignore[valid-type]


def operation(
    tag: str,
    scopes: tuple[str, ...],
    route: str,
    name: str,
    summary: str,
    answers: Mapping[int, Answer],
    problems: Mapping[int, str],
    **options: Any,
) -> Operation:
    """Return an operation; each of ``scopes`` permits it, ``route`` is its method and path."""
    method, path = route.split()
    problems = {**ALWAYS, **problems}
    return Operation(
        method,
        path,
        name,
        summary,
        answers,
        problems=problems,
        tag=tag,
        scopes=tuple(map(str, scopes)),
        **options,
    )


# --- operations -----------------------------------------------------------------------------------

reads = partial(operation, "sessions", (Scope.SESSIONS_READ,))
writes = partial(operation, "sessions", (Scope.SESSIONS_WRITE,))
wakes = partial(operation, "sessions", WAKE)
pairs = partial(operation, "pairing", (Scope.PAIR,))
sends = partial(operation, "messages", (Scope.MESSAGES_SEND,))
reads_messages = partial(operation, "messages", (Scope.MESSAGES_READ,))
reads_deliveries = partial(operation, "deliveries", (Scope.SESSIONS_READ,))
writes_deliveries = partial(operation, "deliveries", (Scope.SESSIONS_WRITE,))
views = partial(operation, "live view", (VIEW,))
BY_NAME = "Sorted by the name of the WhatsAppSession."
CREATED = {**ETAG, "Location": "The session's path."}
SENT_HEADERS = {
    "Location": "Path of the message's state.",
    "Idempotent-Replayed": "`true`: an earlier request sent the message.",
}
SENT = {201: Answer("The message was sent.", (Content(SentMessage),), SENT_HEADERS)}
POD_LIST: dict[str, Any] = {
    "problems": {**OF_ONE, **USING},
    "path_parameters": SessionPath,
    "query": PodListQuery,
}
MEDIA_HEADERS = {
    "Accept-Ranges": "`bytes`",
    "Content-Disposition": "`attachment`, with the file's name if the sender gave one.",
    "ETag": "Of the file, which never changes.",
}
MEDIA = {
    200: Answer("The file.", (Content(BINARY, "*/*"),), MEDIA_HEADERS),
    206: Answer(
        "The part of the file that `Range` selects.",
        (Content(BINARY, "*/*"),),
        {**MEDIA_HEADERS, "Content-Range": "Which bytes these are, and the file's size."},
    ),
    304: Answer("The caller has the file already."),
}
LINK_CODE = Answer(
    "JSON, or the QR as an image or as text, according to `Accept`.",
    (
        Content(LinkCode),
        Content(BINARY, "image/png"),
        Content(TEXT, "image/svg+xml"),
        Content(TEXT, "text/plain"),
    ),
)

READS = (
    reads(
        "GET /whatsapp/sessions",
        "listSessions",
        "List the caller's sessions",
        listed(SessionView, BY_NAME),
        {},
        query=ListQuery,
    ),
    reads(
        "GET /whatsapp/restored-sessions",
        "listRestoredSessions",
        "List the caller's sessions that were restored from their stored login",
        listed(SessionView, BY_NAME),
        {},
        query=ListQuery,
    ),
    reads(
        "GET /whatsapp/accounts",
        "listAccounts",
        "List the caller's accounts with the state of their logins",
        listed(AccountView, BY_NAME),
        {},
        query=ListQuery,
    ),
    reads(
        "GET /whatsapp/health",
        "getHealth",
        "Get the state of the gateway and a summary of the caller's sessions",
        {200: Answer("The state.", (Content(Health),))},
        {},
        description="For probes, the management port has /livez and /readyz.",
    ),
    reads(
        "GET /whatsapp/session-status/{clientId}",
        "getSessionStatus",
        "Get a session's state",
        {**A_SESSION, **UNCHANGED},
        OF_ONE,
        headers=IfNoneMatch,
        **OF_SESSION,
    ),
    reads(
        f"GET {SESSION}",
        "getSession",
        "Get a session",
        {**A_SESSION, **UNCHANGED},
        OF_ONE,
        headers=IfNoneMatch,
        **OF_SESSION,
    ),
)
WRITES = (
    writes(
        "POST /whatsapp/sessions",
        "createSession",
        "Create a session",
        {201: Answer("Created; a phone can be linked soon.", (Content(SessionView),), CREATED)},
        {
            **READING,
            403: f"{ALWAYS[403]} Or the caller may not create sessions, or has too many.",
            409: "The session already exists.",
            503: WRITING[503],
        },
        bodies=(Content(NewSession, example=NewSession(client_id="sales-eu")),),
    ),
    writes(
        f"DELETE {SESSION}",
        "deleteSession",
        "Delete a session",
        {202: Answer("The session is being stopped and deleted.")},
        {**OF_ONE, **WRITING},
        path_parameters=SessionPath,
        query=DeleteQuery,
        headers=IfMatch,
        description="Retains the volume with the login for a later session of the same clientId, "
        "unless `deleteVolume` is set.",
    ),
    *(
        writes(
            f"POST {SESSION}/{name}",
            f"{name}Session",
            summary,
            A_SESSION,
            {**OF_ONE, **WRITING},
            headers=IfMatch,
            **OF_SESSION,
        )
        for name, summary in (
            ("suspend", "Stop a session and retain its login"),
            ("resume", "Start a suspended session"),
            ("restart", "Replace a session's pod"),
        )
    ),
    writes(
        f"POST {SESSION}/logout",
        "logoutSession",
        "Log a session out of WhatsApp",
        {204: Answer("WhatsApp has confirmed the logout.")},
        {
            **OF_ONE,
            **USING,
            504: "WhatsApp has not confirmed the logout in time; it may still take effect.",
        },
        **OF_SESSION,
    ),
    writes(
        "POST /whatsapp/restore-session/{clientId}",
        "restoreSession",
        "Restore a session",
        A_SESSION,
        {
            **OF_ONE,
            409: f"The session cannot be restored; the detail says why. {OF_ONE[409]}",
            503: WRITING[503],
            504: "The session is not ready yet; the detail says why.",
        },
        path_parameters=SessionPath,
        query=RestoreQuery,
        description="Resumes a suspended session, wakes one that sleeps and replaces a failed "
        "pod. Answers when the session is ready, when only a person can make it ready, or when the "
        "time is up.",
    ),
    wakes(
        f"POST {SESSION}/wake",
        "wakeSession",
        "Wake a session that sleeps",
        {202: Answer("It is ready soon, or is awake already.", (Content(SessionView),), ETAG)},
        {**OF_ONE, 409: f"The session is suspended. {OF_ONE[409]}", 503: WRITING[503]},
        description="Sending a message wakes it too, and waits until it is awake.",
        **OF_SESSION,
    ),
)
PAIRING = (
    pairs(
        f"GET {SESSION}/pairing",
        "getPairing",
        "Get the code that links a phone now",
        {200: LINK_CODE},
        {**OF_ONE, 404: f"{OF_ONE[404]} Or no phone can be linked at the moment.", **ASKING},
        **OF_SESSION,
    ),
    pairs(
        f"POST {SESSION}/pairing/refresh",
        "refreshPairing",
        "Request a new code, also after the last round",
        {202: Answer("A new code will be available soon.")},
        {**OF_ONE, **ASKING},
        **OF_SESSION,
    ),
)
MESSAGES = (
    sends(
        "POST /whatsapp/messages",
        "sendText",
        "Send a text",
        SENT,
        SENDING,
        headers=IdempotencyKey,
        bodies=(
            Content(
                SendMessage,
                example=SendMessage(client_id="sales-eu", to="15551234567", text="Hello"),
            ),
        ),
    ),
    sends(
        f"POST {SESSION}/messages",
        "sendMessage",
        "Send a text or a file",
        SENT,
        {**SENDING, 411: "The file has no Content-Length."},
        headers=IdempotencyKey,
        bodies=(
            Content(SendText),
            Content(SendMedia, "multipart/form-data", files=("file",)),
        ),
        **OF_SESSION,
    ),
    reads_messages(
        f"GET {SESSION}/messages/{{messageId}}",
        "getMessage",
        "Get a message's state",
        {200: Answer("The message.", (Content(MessageStatus),))},
        {**OF_ONE, **USING},
        path_parameters=MessagePath,
        query=OwnerQuery,
    ),
    reads_messages(
        f"GET {SESSION}/messages/{{messageId}}/media",
        "getMedia",
        "Download a message's file",
        MEDIA,
        {
            **OF_ONE,
            404: f"{OF_ONE[404]} Or WhatsApp Web has no such message, or it has no file.",
            410: "WhatsApp no longer has the file.",
            413: "The session pod does not download files of this size.",
            416: "The file has no such bytes; `Content-Range` has its size.",
            **USING,
            503: f"{USING[503]} Or it is sending too many files.",
        },
        path_parameters=MessagePath,
        query=OwnerQuery,
        headers=MediaHeaders,
        description="Always a file to save, never to show: senders choose its content.",
    ),
    reads_messages(
        f"GET {SESSION}/events",
        "listEvents",
        "List what has happened to messages, or wait for it",
        {200: Answer("The events, oldest first.", (Content(EventPage),))},
        {**OF_ONE, **ASKING},
        path_parameters=SessionPath,
        query=EventsQuery,
        description="The session pod keeps its events for some days. `data` is the payload of the "
        "Socket.IO event, without `clientId`, `owner`, `name` and `eventId`. If events that "
        "followed `after` are not kept any more, a `gap` says so.",
    ),
    reads_messages(
        f"GET {SESSION}/chats/{{chatId}}/messages",
        "listMessages",
        "List the messages of a chat, latest first",
        listed(MessageStatus, "The messages that WhatsApp Web has."),
        **{**POD_LIST, "path_parameters": ChatPath},
    ),
    reads_messages(
        f"GET {SESSION}/chats",
        "listChats",
        "List the account's chats",
        listed(Chat, "The chats."),
        **POD_LIST,
    ),
    reads_messages(
        f"GET {SESSION}/contacts",
        "listContacts",
        "List the account's contacts",
        listed(Contact, "The contacts."),
        **POD_LIST,
    ),
    reads_messages(
        f"GET {SESSION}/contacts/{{contactId}}",
        "getContact",
        "Get one person, by phone number or LID",
        {200: Answer("The person, with both ids if known.", (Content(Contact),))},
        {
            **OF_ONE,
            404: f"{OF_ONE[404]} Or nobody on WhatsApp has this phone number or LID.",
            **USING,
        },
        path_parameters=ContactPath,
        query=OwnerQuery,
    ),
)
DELIVERIES = (
    reads_deliveries(
        f"GET {SESSION}/deliveries",
        "listDeliveries",
        "List how the deliveries to the session's webhooks and sinks are doing",
        listed(DeliveryDetails, "All of them."),
        {**OF_ONE, **ASKING},
        **OF_SESSION,
    ),
    reads_deliveries(
        f"GET {DELIVERY}/dead-letters",
        "listDeadLetters",
        "List the events that were given up, latest first",
        listed(DeadLetter, "Up to 10,000."),
        {**NO_DELIVERY, **ASKING},
        **OF_DELIVERY,
    ),
    writes_deliveries(
        f"POST {DELIVERY}/dead-letters/replay",
        "replayDeadLetters",
        "Deliver the dead letters again",
        {202: Answer("Those that the session pod still has are delivered.", (Content(Replayed),))},
        {**NO_DELIVERY, **ASKING},
        **OF_DELIVERY,
    ),
    writes_deliveries(
        f"POST {DELIVERY}/replay",
        "replayDelivery",
        "Deliver everything after an event again, under the same IDs",
        {202: Answer("It is delivered again.")},
        {
            **READING,
            **NO_DELIVERY,
            409: f"The session pod does not go back to `after`. {OF_ONE[409]}",
            **ASKING,
        },
        bodies=(Content(Replay),),
        **OF_DELIVERY,
    ),
    *(
        writes_deliveries(
            f"POST {DELIVERY}/{name}",
            f"{name}Delivery",
            summary,
            {204: Answer("Done.")},
            {**NO_DELIVERY, **ASKING},
            **OF_DELIVERY,
        )
        for name, summary in (
            ("pause", "Let the events wait"),
            ("resume", "Deliver again, also to an endpoint that wanted no more"),
        )
    ),
)
NO_VIEW = f"{ALWAYS[403]} Or nobody may look at the page of this session."
SHOWS = (
    "The page of WhatsApp Web may have chats, and the code that links a phone. The class of the "
    "session, and the session if its class lets it, say in `browser.liveView` whether admins can "
    "look at it."
)
LIVE_VIEW = (
    views(
        f"GET {SESSION}/screenshot",
        "getScreenshot",
        "Take a screenshot of a session's page",
        {200: Answer("PNG.", (Content(BINARY, SCREENSHOT),))},
        {**OF_ONE, 403: NO_VIEW, **ASKING},
        description=SHOWS,
        **OF_SESSION,
    ),
    views(
        f"GET {SESSION}/screencast",
        "getScreencast",
        "Look at a session's page",
        {200: Answer("JPEG after JPEG, for up to 5 minutes.", (Content(BINARY, SCREENCAST),))},
        {**OF_ONE, 403: NO_VIEW, **ASKING},
        description=f"{SHOWS} A picture follows each change of the page, at most five in a second "
        "and as fast as the caller reads. The stream ends when the page closes, and when somebody "
        "else begins to look.",
        **OF_SESSION,
    ),
)
OPERATIONS: tuple[Operation, ...] = (
    *READS, *WRITES, *PAIRING, *MESSAGES, *DELIVERIES, *LIVE_VIEW,
)  # fmt: skip
# These use the account, so they wake a session that sleeps, and wait until it is awake.
WAKING = frozenset(operation.name for operation in MESSAGES if operation.name != "listEvents") | {
    "logoutSession"
}
# The audit log has every write, and every look at a link code or a page.
AUDITED = frozenset(operation.name for operation in OPERATIONS if operation.method != "GET") | {
    "getPairing",
    "getScreenshot",
    "getScreencast",
}

# Documented along with the operations: the payloads of the Socket.IO events.
EVENTS = (
    events.State,
    events.Authenticating,
    events.Qr,
    events.PairingCode,
    events.Ready,
    events.RestoredSessionReady,
    events.SessionRestorationFailed,
    events.LoggedOut,
    events.Disconnected,
    events.Hibernated,
    events.Message,
    events.MessageEdit,
    events.MessageDeletion,
    events.MessageReaction,
    events.PollVote,
    events.MessageAck,
    events.Call,
    events.GroupChange,
    events.MessagesMissed,
    events.CaughtUp,
    events.SessionRemoved,
    events.Closing,
)


def document() -> openapi.Schema:
    """Return ``/openapi.json``."""
    return openapi.document(
        title="wasession gateway",
        version="v1",
        description="WhatsApp Web sessions for applications. The payloads of Socket.IO events are "
        "among the components.",
        operations=OPERATIONS,
        security="A JSON Web Token. Its `sub` is the owner of the sessions; `role: admin` or the "
        "scope `admin` extends it to everybody's. With a claim `scope` or `scp` it permits only "
        "operations of the scopes listed there; without one, or with `admin` alone, all of them.",
        also=EVENTS,
    )
