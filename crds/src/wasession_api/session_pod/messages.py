"""Messages, chats and contacts, as session pods accept and report them and the gateway relays them.

IDs are WhatsApp's. A chat is ``15551234567@c.us`` (a person by phone number), ``…@lid`` (a person
whose number is hidden) or ``…@g.us`` (a group). A message is ``true_CHAT_ID`` if the session's
account sent it, else ``false_CHAT_ID``; in a group ``_AUTHOR`` follows.
"""

from __future__ import annotations

import re
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import AfterValidator, Field, StringConstraints

from wasession_api.base import Model, Observed, Pattern, Time, clip

PHONE_NUMBER = r"\+?[1-9][0-9]{6,14}"
CHAT_ID = r"[0-9]{5,20}@(?:c\.us|lid)|[0-9]{5,25}(?:-[0-9]{5,15})?@g\.us"
_AUTHOR = r"[0-9]{5,20}(?::[0-9]{1,5})?@(?:c\.us|lid)"
_MESSAGE_ID = rf"^(?:true|false)_(?:{CHAT_ID})_[A-Za-z0-9.-]{{4,64}}(?:_{_AUTHOR})?$"
LONGEST_TEXT = 65536  # characters; WhatsApp's own limit
LONGEST_CAPTION = 1024
T = TypeVar("T")


def chat_id(recipient: str) -> str:
    """Return the chat ID for a phone number or chat ID."""
    return (
        f"{recipient.removeprefix('+')}@c.us"
        if re.fullmatch(PHONE_NUMBER, recipient)
        else recipient
    )


Recipient = Annotated[
    str,
    StringConstraints(max_length=64),
    Pattern(
        rf"^(?:{PHONE_NUMBER}|{CHAT_ID})$",
        "must be a phone number with country code, such as 15551234567, or a chat ID",
    ),
    AfterValidator(chat_id),
    Field(
        description="A phone number with country code, or a chat ID.",
        examples=["15551234567", "15551234567@c.us", "120363000000000001@g.us"],
    ),
]
ContactId = Annotated[
    str,
    StringConstraints(max_length=64),
    Pattern(
        rf"^(?:{PHONE_NUMBER}|[0-9]{{5,20}}@(?:c\.us|lid))$",
        "must be a phone number with country code, such as 15551234567, or the ID of a person",
    ),
    AfterValidator(chat_id),
    Field(
        description="A phone number with country code, or a person's chat ID or LID.",
        examples=["15551234567", "15551234567@c.us", "123456789012345@lid"],
    ),
]
MessageId = Annotated[
    str,
    StringConstraints(max_length=192),
    Pattern(
        _MESSAGE_ID, "must be a message ID, such as true_15551234567@c.us_3EB0F1A2B3C4D5E6F708"
    ),
    Field(
        description="WhatsApp's ID of a message.",
        examples=["true_15551234567@c.us_3EB0F1A2B3C4D5E6F708"],
    ),
]
# Text from the page is truncated: rejecting it would lose the message.
ShortText = Annotated[str, clip(512), Field(max_length=512)]
Ack = Annotated[
    int,
    Field(
        ge=-7,
        le=5,
        description="State: 0 pending, 1 sent, 2 delivered, 3 read, 4 played; negative: failed.",
    ),
]


class SendText(Model):
    """A text message to send."""

    to: Recipient
    text: Annotated[
        str,
        StringConstraints(max_length=LONGEST_TEXT),
        Pattern(r"^[\s\S]*\S[\s\S]*$", "must have more than white space"),
    ] = Field(description="Text of the message.")
    reply_to: MessageId | None = Field(None, description="Message to reply to; of the same chat.")


class SendMedia(Model):
    """A file to send: the form fields beside ``file``."""

    to: Recipient
    caption: Annotated[str, StringConstraints(max_length=LONGEST_CAPTION)] | None = Field(
        None, description="Caption of the image, video or document."
    )
    type: Literal["image", "video", "audio", "document"] | None = Field(
        None,
        description="How to send the file; by default according to its media type.",
    )
    reply_to: MessageId | None = Field(None, description="Message to reply to; of the same chat.")


KnownNumber = Annotated[
    str | None,
    Field(
        pattern=r"^[1-9][0-9]{6,14}$",
        description="Phone number of the person, if WhatsApp Web knows it; digits only.",
        examples=["15551234567"],
    ),
]


class SentMessage(Observed):
    """A message that WhatsApp has accepted."""

    id: str = Field(max_length=192, description="WhatsApp's ID of the message; acks refer to it.")
    to: str = Field(max_length=64, description="Chat that the message was sent to.")
    ack: Ack
    sent_at: Time


class Media(Observed):
    """The file of a message; its content stays with WhatsApp."""

    mime_type: ShortText | None = None
    size: int | None = Field(None, ge=0, description="Size in bytes.")
    file_name: ShortText | None = None
    duration: float | None = Field(None, ge=0, description="Duration of audio or video in seconds.")


class IncomingMessage(Observed):
    """A message from somebody else, or from another device of the account (``fromMe``)."""

    id: str = Field(max_length=192)
    chat_id: str = Field(max_length=64, description="Chat of the message.")
    from_: str = Field(alias="from", max_length=64, description="Sender; in a group the member.")
    phone_number: KnownNumber = None
    from_me: bool = Field(description="Whether the session's account sent it, from another device.")
    sender_name: ShortText | None = Field(None, description="Name that the sender chose.")
    type: Annotated[str, clip(64)] = Field(
        max_length=64,
        description="Type: `chat` (text), `image`, `video`, `audio`, `ptt`, `document`, …",
    )
    text: Annotated[str, clip(LONGEST_TEXT)] | None = Field(
        None, max_length=LONGEST_TEXT, description="Text, or caption of a file."
    )
    media: Media | None = None
    reply_to: str | None = Field(
        None, max_length=192, description="ID of the message that this one replies to."
    )
    sent_at: Time = Field(
        description="When it was sent; when it arrived, if WhatsApp gives no time."
    )


class MessageStatus(IncomingMessage):
    """A message, sent or received, and its delivery state."""

    from_me: bool = Field(description="Whether the session's account sent it.")
    ack: Ack


class MessageAck(Observed):
    """The delivery state of a sent message changed."""

    id: str = Field(max_length=192)
    chat_id: str = Field(max_length=64)
    ack: Ack
    participant: str | None = Field(
        None, max_length=64, description="In a group: member whose device acknowledged it."
    )
    at: Time


class Chat(Observed):
    """A chat of the account. A person's chats by phone number and by LID are one."""

    id: str = Field(max_length=64)
    phone_number: KnownNumber = None
    name: ShortText | None = None
    group: bool = Field(False, description="Whether the chat is a group.")
    unread_count: int = Field(0, ge=0, description="Number of unread messages.")
    archived: bool = False
    last_message_at: Time | None = None


class Contact(Observed):
    """A contact of the account; one person is one contact."""

    id: str = Field(max_length=64)
    phone_number: KnownNumber = None
    lid: str | None = Field(
        None, max_length=64, description="ID that hides the phone number, if WhatsApp Web knows it."
    )
    name: ShortText | None = Field(None, description="Name in the account's address book.")
    push_name: ShortText | None = Field(None, description="Name that the contact chose.")
    business: bool = False
    my_contact: bool = Field(
        False, description="Whether the contact is in the account's address book."
    )


class Page(Model, Generic[T]):
    """One page of a list."""

    items: list[T]
    continue_: str | None = Field(
        None,
        alias="continue",
        max_length=512,
        description="Token for the next page; absent on the last one.",
    )
