"""What REST offers under ``/whatsapp``: the table that routes and ``/openapi.json`` are made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints
from wasession_api.base import Model, Observed, Time
from wasession_api.http import openapi
from wasession_api.http.openapi import BINARY, Answer, Content, Operation
from wasession_api.session_pod.messages import (
    Chat,
    Contact,
    MessageId,
    MessageStatus,
    Page,
    SendMedia,
    SendText,
    SentMessage,
)
from wasession_api.v1alpha1 import PairingMethod

from wasession_gateway import events
from wasession_gateway.commands import NewSession, Owner
from wasession_gateway.views import AccountView, Health, SessionView

# The name of a session that kubectl has made may have dots as well.
SessionName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-zA-Z0-9_.-]{1,253}$"),
    Field(description="The session's clientId.", examples=["sales-eu"]),
]
Token = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_=-]{1,512}$")]


# --- parameters -----------------------------------------------------------------------------------


class Which(Model):
    client_id: SessionName


class WhichMessage(Which):
    message_id: MessageId


class Owned(Model):
    owner: Owner | None = Field(
        None, description="For admins: whose session, when several owners have one of that name."
    )


class Listing(Model):
    owner: Owner | None = Field(
        None, description="For admins: whose sessions; everybody's when left out."
    )
    limit: int = Field(100, ge=1, le=1000, description="How many at most.")
    continue_: Token | None = Field(
        None, alias="continue", description="What the answer before has under `continue`."
    )


class PodListing(Owned):
    limit: int = Field(100, ge=1, le=500, description="How many at most.")
    continue_: Annotated[str, StringConstraints(max_length=512)] | None = Field(
        None, alias="continue", description="What the answer before has under `continue`."
    )


class Restoring(Owned):
    timeout: int | None = Field(
        None,
        ge=1,
        le=300,
        description="Seconds to wait at most; the gateway has a limit of its own.",
    )


class Deleting(Owned):
    logout: bool = Field(False, description="Log the device out of WhatsApp first.")
    delete_volume: bool = Field(
        False, description="Delete the volume and with it the login; else it is kept."
    )


class IfMatch(Model):
    if_match: str | None = Field(
        None, alias="If-Match", description="The ETag that the session must have; else 412."
    )


class IfNoneMatch(Model):
    if_none_match: str | None = Field(
        None, alias="If-None-Match", description="An ETag that is known: then 304."
    )


class IdempotencyKey(Model):
    idempotency_key: Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,255}$")] | None = (
        Field(
            None,
            alias="Idempotency-Key",
            description="Any text, such as a UUID: what is sent again with it is sent once.",
        )
    )


# --- bodies ---------------------------------------------------------------------------------------


class SendMessage(SendText):
    """A text to send, and with which session."""

    client_id: SessionName
    owner: Owner | None = Field(None, description="For admins: whose session.")


class Code(Observed):
    """A code that a phone can use now."""

    code: str = Field(
        max_length=4096,
        repr=False,
        description="The QR's content, or the eight letters to type on the phone.",
    )
    method: PairingMethod
    attempt: int
    expires_at: Time | None = None


# --- operations -----------------------------------------------------------------------------------

ALWAYS = {
    401: "There is no valid token.",
    422: "Something in the request is not as described here.",
    429: "Too many requests; `Retry-After` says how many seconds to wait.",
}
OF_ONE = {
    404: "The caller has no such session.",
    409: "An admin has not said whose, and several owners have one of that name.",
}
WRITING = {
    412: "The session has changed since it had the version in `If-Match`.",
    503: "The cluster does not answer now.",
}
ASKING = {
    502: "The session's pod has not answered; it may have done what it was asked.",
    503: "The session has no pod now.",
}
READING = {
    400: "The body is not JSON.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
}
SENDING = {
    400: "The body is not JSON, or no form.",
    404: f"{OF_ONE[404]} Or the recipient is not on WhatsApp.",
    409: f"Something with the same Idempotency-Key is being sent. {OF_ONE[409]}",
    413: "The body or the file is too large.",
    415: "The body is neither JSON nor a form.",
    502: "WhatsApp has refused it, or it is not known whether it was sent: ask again with the same Idempotency-Key.",
    503: "The session is not Ready, or has no pod now. Nothing was sent.",
    504: "It is not known whether it was sent: ask again with the same Idempotency-Key.",
    507: "The session's volume is full. Nothing was sent.",
}
ETAG = {"ETag": "The session's version in quotation marks."}
A_SESSION = {200: Answer("The session.", (Content(SessionView),), ETAG)}
UNCHANGED = {304: Answer("It has not changed.")}
SESSION = "/whatsapp/sessions/{clientId}"
TEXT = {"type": "string"}


def listed(model: type[BaseModel], description: str) -> Mapping[int, Answer]:
    return {200: Answer(description, (Content(Page[model]),))}  # type: ignore[valid-type]


def _operations() -> Iterable[Operation]:
    def operation(
        method: str,
        path: str,
        name: str,
        summary: str,
        answers: Mapping[int, Answer],
        problems: Mapping[int, str],
        **more: Any,
    ) -> Operation:
        return Operation(
            method, path, name, summary, answers, problems={**ALWAYS, **problems}, tag=tag, **more
        )

    one: dict[str, Any] = {"path_parameters": Which, "query": Owned}
    tag = "sessions"
    found = "By the name of their WhatsAppSession."
    yield operation(
        "GET", "/whatsapp/sessions", "listSessions", "The caller's sessions", listed(SessionView, found), {}, query=Listing,
    )  # fmt: skip
    yield operation(
        "GET", "/whatsapp/restored-sessions", "listRestoredSessions",
        "The caller's sessions that came back from their stored login", listed(SessionView, found), {}, query=Listing,
    )  # fmt: skip
    yield operation(
        "GET", "/whatsapp/accounts", "listAccounts", "The caller's accounts with their session data",
        listed(AccountView, found), {}, query=Listing,
    )  # fmt: skip
    yield operation(
        "GET", "/whatsapp/health", "getHealth", "The gateway's health, and how the caller's sessions came back",
        {200: Answer("How it is.", (Content(Health),))}, {},
        description="Probes have /livez and /readyz on the management port.",
    )  # fmt: skip
    yield operation(
        "GET", "/whatsapp/session-status/{clientId}", "getSessionStatus", "How a session is",
        {**A_SESSION, **UNCHANGED}, OF_ONE, headers=IfNoneMatch, **one,
    )  # fmt: skip
    yield operation(
        "GET",
        SESSION,
        "getSession",
        "A session",
        {**A_SESSION, **UNCHANGED},
        OF_ONE,
        headers=IfNoneMatch,
        **one,
    )
    yield operation(
        "POST", "/whatsapp/sessions", "createSession", "Make a session",
        {201: Answer("It was made; a phone can be linked soon.", (Content(SessionView),), {**ETAG, "Location": "Its path."})},
        {**READING, 403: "The caller may not, or has too many.", 409: "There is one already.", 503: WRITING[503]},
        bodies=(Content(NewSession, example=NewSession(client_id="sales-eu")),),
    )  # fmt: skip
    yield operation(
        "DELETE", SESSION, "deleteSession", "Delete a session",
        {202: Answer("It is being stopped and will be gone.")}, {**OF_ONE, **WRITING},
        path_parameters=Which, query=Deleting, headers=IfMatch,
        description="The volume with the login is kept, for a later session of the same clientId, unless `deleteVolume`.",
    )  # fmt: skip
    for name, summary in (
        ("suspend", "Stop a session and keep its login"),
        ("resume", "Start a suspended session"),
        ("restart", "Replace a session's pod by a new one"),
    ):
        yield operation(
            "POST",
            f"{SESSION}/{name}",
            f"{name}Session",
            summary,
            A_SESSION,
            {**OF_ONE, **WRITING},
            headers=IfMatch,
            **one,
        )
    yield operation(
        "POST", f"{SESSION}/logout", "logoutSession", "End a session's login",
        {204: Answer("WhatsApp has confirmed it.")}, {**OF_ONE, **ASKING}, **one,
    )  # fmt: skip
    yield operation(
        "POST", "/whatsapp/restore-session/{clientId}", "restoreSession", "Have a session come back", A_SESSION,
        {**OF_ONE, 409: f"It cannot come back by itself; the detail says why. {OF_ONE[409]}", 503: WRITING[503],
         504: "It is not ready yet; the detail says why."},
        path_parameters=Which, query=Restoring,
        description="Resumes it when it is suspended, has its pod replaced when it has failed, and answers when it is ready, "
        "when it will not be without a person, or when the time is up.",
    )  # fmt: skip

    tag = "pairing"
    yield operation(
        "GET", f"{SESSION}/pairing", "getPairing", "The code that a phone can use now",
        {200: Answer("As JSON, or a QR as a picture or as text, as `Accept` says.", (
            Content(Code), Content(BINARY, "image/png"), Content(TEXT, "image/svg+xml"), Content(TEXT, "text/plain")))},
        {**OF_ONE, 404: f"{OF_ONE[404]} Or no phone can be linked now.", **ASKING}, **one,
    )  # fmt: skip
    yield operation(
        "POST", f"{SESSION}/pairing/refresh", "refreshPairing", "A new code, also after the last round",
        {202: Answer("It is on its way.")}, {**OF_ONE, **ASKING}, **one,
    )  # fmt: skip

    tag = "messages"
    sent = {
        201: Answer(
            "It was sent.",
            (Content(SentMessage),),
            {"Idempotent-Replayed": "`true`: it was sent before."},
        )
    }
    yield operation(
        "POST", "/whatsapp/messages", "sendText", "Send a text", sent, SENDING, headers=IdempotencyKey,
        bodies=(Content(SendMessage, example=SendMessage(client_id="sales-eu", to="15551234567", text="Hello")),),
    )  # fmt: skip
    yield operation(
        "POST", f"{SESSION}/messages", "sendMessage", "Send a text or a file", sent,
        {**SENDING, 411: "A file comes without its length."},
        headers=IdempotencyKey, bodies=(Content(SendText), Content(SendMedia, "multipart/form-data", files=("file",))), **one,
    )  # fmt: skip
    yield operation(
        "GET", f"{SESSION}/messages/{{messageId}}", "getMessage", "What is known of a message",
        {200: Answer("The message.", (Content(MessageStatus),))}, {**OF_ONE, **ASKING},
        path_parameters=WhichMessage, query=Owned,
    )  # fmt: skip
    of_pod: dict[str, Any] = {
        "problems": {**OF_ONE, **ASKING},
        "path_parameters": Which,
        "query": PodListing,
    }
    yield operation(
        "GET",
        f"{SESSION}/chats",
        "listChats",
        "The account's chats",
        listed(Chat, "Chats."),
        **of_pod,
    )
    yield operation(
        "GET",
        f"{SESSION}/contacts",
        "listContacts",
        "The account's contacts",
        listed(Contact, "Contacts."),
        **of_pod,
    )


OPERATIONS = tuple(_operations())
TOLD = (
    events.State, events.Authenticating, events.Qr, events.PairingCode, events.Ready, events.RestoredSessionReady,
    events.SessionRestorationFailed, events.LoggedOut, events.Disconnected, events.Message, events.MessageAck,
    events.MessagesMissed, events.SessionRemoved, events.Closing,
)  # fmt: skip


def document() -> openapi.Schema:
    """``/openapi.json``: the operations, and the contents of the Socket.IO events."""
    return openapi.document(
        title="wasession gateway",
        version="v1",
        description="WhatsApp Web sessions for applications. The contents of Socket.IO events are among the components.",
        operations=OPERATIONS,
        security="A JSON Web Token; its `sub` owns the sessions, and `role: admin` sees everybody's.",
        also=TOLD,
    )
