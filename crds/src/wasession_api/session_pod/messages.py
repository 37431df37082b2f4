"""Messages, chats and contacts over HTTP: what a session pod takes and tells, and the gateway passes on.

Ids are WhatsApp's. A chat is ``15551234567@c.us`` (a person by phone number), ``…@lid`` (a person
whose number is hidden) or ``…@g.us`` (a group). A message is ``true_CHAT_ID`` when the session's
account sent it and ``false_CHAT_ID`` when somebody else did, in a group with ``_AUTHOR`` at its
end.
"""

from __future__ import annotations

import re
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import AfterValidator, Field, StringConstraints

from wasession_api.base import Model, Observed, Time, clip

PHONE_NUMBER = r"\+?[1-9][0-9]{6,14}"
CHAT_ID = r"[0-9]{5,20}@(?:c\.us|lid)|[0-9]{5,25}(?:-[0-9]{5,15})?@g\.us"
_MESSAGE_ID = rf"^(?:true|false)_(?:{CHAT_ID})_[A-Za-z0-9.-]{{4,64}}(?:_[0-9]{{5,20}}(?::[0-9]{{1,5}})?@(?:c\.us|lid))?$"
LONGEST_TEXT = 65536  # characters; WhatsApp's own limit
LONGEST_CAPTION = 1024
T = TypeVar("T")


def chat_id(recipient: str) -> str:
    """The chat that a phone number or chat id means."""
    return (
        f"{recipient.removeprefix('+')}@c.us"
        if re.fullmatch(PHONE_NUMBER, recipient)
        else recipient
    )


Recipient = Annotated[
    str,
    StringConstraints(pattern=rf"^(?:{PHONE_NUMBER}|{CHAT_ID})$", max_length=64),
    AfterValidator(chat_id),
    Field(
        description="A phone number with its country code, or the id of a chat.",
        examples=["15551234567", "15551234567@c.us", "120363000000000001@g.us"],
    ),
]
MessageId = Annotated[
    str,
    StringConstraints(pattern=_MESSAGE_ID, max_length=192),
    Field(
        description="WhatsApp's id of a message.",
        examples=["true_15551234567@c.us_3EB0F1A2B3C4D5E6F708"],
    ),
]
# What the page says is cut to size where a refusal would lose the message.
ShortText = Annotated[str, clip(512), Field(max_length=512)]
Ack = Annotated[
    int,
    Field(
        ge=-7,
        le=5,
        description="How far a sent message is: 0 not sent yet, 1 sent, 2 delivered, 3 read, 4 played; less than 0: failed.",
    ),
]


class SendText(Model):
    """A text to send."""

    to: Recipient
    text: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_TEXT)] = Field(
        description="The text."
    )
    reply_to: MessageId | None = Field(
        None, description="The message that this one answers; it must be of the same chat."
    )


class SendMedia(Model):
    """What goes with a file that is sent: the form's fields beside ``file``."""

    to: Recipient
    caption: Annotated[str, StringConstraints(max_length=LONGEST_CAPTION)] | None = Field(
        None, description="A text under the picture, video or document."
    )
    type: Literal["image", "video", "audio", "document"] | None = Field(
        None,
        description="What the file is sent as; found out from the file's own type when left out.",
    )
    reply_to: MessageId | None = Field(
        None, description="The message that this one answers; it must be of the same chat."
    )


class SentMessage(Observed):
    """A message that WhatsApp has taken."""

    id: str = Field(max_length=192, description="WhatsApp's id of the message; acks carry it.")
    to: str = Field(max_length=64, description="The chat that it was sent to.")
    ack: Ack
    sent_at: Time


class Media(Observed):
    """What a message's file is; the file itself stays with WhatsApp."""

    mime_type: ShortText | None = None
    size: int | None = Field(None, ge=0, description="In bytes.")
    file_name: ShortText | None = None
    duration: float | None = Field(None, ge=0, description="Of a sound or video, in seconds.")


class IncomingMessage(Observed):
    """A message that came to the session: from somebody else, or sent with another of the account's devices (``fromMe``)."""

    id: str = Field(max_length=192)
    chat_id: str = Field(max_length=64, description="The chat that it is in.")
    from_: str = Field(
        alias="from", max_length=64, description="Who sent it; in a group the member."
    )
    from_me: bool = Field(
        description="Whether the session's own account sent it, with another device."
    )
    sender_name: ShortText | None = Field(None, description="The name that the sender has chosen.")
    type: Annotated[str, clip(64)] = Field(
        max_length=64,
        description="WhatsApp Web's word: `chat` for a text, `image`, `video`, `audio`, `ptt`, `document`, …",
    )
    text: Annotated[str, clip(LONGEST_TEXT)] | None = Field(
        None, max_length=LONGEST_TEXT, description="The text, or the caption of a file."
    )
    media: Media | None = None
    reply_to: str | None = Field(
        None, max_length=192, description="The id of the message that this one answers."
    )
    sent_at: Time


class MessageStatus(IncomingMessage):
    """What is known of one message, sent or received."""

    from_me: bool = Field(description="Whether the session's own account sent it.")
    ack: Ack


class MessageAck(Observed):
    """A sent message has got further."""

    id: str = Field(max_length=192)
    chat_id: str = Field(max_length=64)
    ack: Ack
    participant: str | None = Field(
        None, max_length=64, description="In a group: the member whose phone it reached."
    )
    at: Time


class Chat(Observed):
    """A chat of the account."""

    id: str = Field(max_length=64)
    name: ShortText | None = None
    group: bool = Field(False, description="Whether it is a group.")
    unread_count: int = Field(
        0, ge=0, description="Messages that no device of the account has shown."
    )
    archived: bool = False
    last_message_at: Time | None = None


class Contact(Observed):
    """Somebody that the account knows."""

    id: str = Field(max_length=64)
    name: ShortText | None = Field(None, description="The name in the account's address book.")
    push_name: ShortText | None = Field(None, description="The name that the contact has chosen.")
    business: bool = False
    my_contact: bool = Field(False, description="Whether it is in the account's address book.")


class Page(Model, Generic[T]):
    """A part of a list."""

    items: list[T]
    continue_: str | None = Field(
        None,
        alias="continue",
        max_length=512,
        description="Ask again with this to get what follows; left out at the end.",
    )
