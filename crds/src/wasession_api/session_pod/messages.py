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
LONGEST_THUMBNAIL = 32768  # characters of base64; WhatsApp's are a few KiB
LONGEST_VCARD = 16384
LONGEST_LIST = 256  # of contacts or mentions in one message
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
MessageType = Annotated[
    str,
    clip(64),
    Field(
        max_length=64,
        description="WhatsApp's type: `chat` (text), `image`, `video`, `audio`, `ptt` (voice "
        "note), `document`, `sticker`, `location`, `vcard`, `multi_vcard`, `poll_creation`, …",
    ),
]
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
    """The file of a message; `GET …/messages/{id}/media` has its content."""

    mime_type: ShortText | None = None
    size: int | None = Field(None, ge=0, description="Size in bytes.")
    file_name: ShortText | None = None
    duration: float | None = Field(None, ge=0, description="Duration of audio or video in seconds.")
    thumbnail: Annotated[str, StringConstraints(max_length=LONGEST_THUMBNAIL)] | None = Field(
        None, description="Small JPEG that the sender has sent along, in base64."
    )


class Location(Observed):
    """A place that a message has."""

    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)
    name: ShortText | None = None
    address: ShortText | None = None
    live: bool = Field(False, description="Whether the sender shares where they are for a while.")


class ContactCard(Observed):
    """A contact that a message has."""

    name: ShortText | None = None
    vcard: Annotated[str, clip(LONGEST_VCARD)] = Field(
        max_length=LONGEST_VCARD, description="The contact as a vCard (RFC 6350)."
    )


class Poll(Observed):
    """A poll; votes arrive as events of their own."""

    question: ShortText
    options: list[ShortText] = Field(max_length=20)
    multiple: bool = Field(False, description="Whether more than one option may be chosen.")


class Quoted(Observed):
    """The message that another one replies to, as far as WhatsApp Web has it."""

    from_: str | None = Field(None, alias="from", max_length=64)
    type: MessageType | None = None
    text: ShortText | None = Field(None, description="Beginning of its text or caption.")


class IncomingMessage(Observed):
    """A message from somebody else, or from another device of the account (``fromMe``)."""

    id: str = Field(max_length=192)
    chat_id: str = Field(max_length=64, description="Chat of the message.")
    from_: str = Field(alias="from", max_length=64, description="Sender; in a group the member.")
    phone_number: KnownNumber = None
    from_me: bool = Field(description="Whether the session's account sent it, from another device.")
    sender_name: ShortText | None = Field(None, description="Name that the sender chose.")
    type: MessageType
    text: Annotated[str, clip(LONGEST_TEXT)] | None = Field(
        None, max_length=LONGEST_TEXT, description="Text, or caption of a file."
    )
    media: Media | None = None
    location: Location | None = None
    contacts: list[ContactCard] | None = Field(None, max_length=LONGEST_LIST)
    poll: Poll | None = None
    mentions: list[str] | None = Field(
        None, max_length=LONGEST_LIST, description="People whom the text mentions, by ID."
    )
    forwarded: bool = Field(False, description="Whether it was forwarded from another chat.")
    view_once: bool = Field(
        False, description="Whether it can be opened once; WhatsApp Web may not have its file."
    )
    reply_to: str | None = Field(
        None, max_length=192, description="ID of the message that this one replies to."
    )
    quoted: Quoted | None = Field(None, description="The message that this one replies to.")
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


class MessageChange(Observed):
    """Somebody did something to an earlier message: the base of edits, deletions and the like."""

    id: str = Field(max_length=192, description="ID of the earlier message.")
    chat_id: str = Field(max_length=64)
    from_: str | None = Field(None, alias="from", max_length=64, description="Who did it.")
    phone_number: KnownNumber = None
    from_me: bool = Field(False, description="Whether the session's account did it.")
    at: Time


class MessageEdit(MessageChange):
    """The sender changed the text of a message."""

    text: Annotated[str, clip(LONGEST_TEXT)] | None = Field(
        None, max_length=LONGEST_TEXT, description="The text, or caption of a file, as it is now."
    )


class MessageDeletion(MessageChange):
    """A message was deleted for everyone, by its sender or an admin of the group."""


class Reaction(MessageChange):
    """Somebody reacted to a message."""

    emoji: Annotated[str, clip(64)] | None = Field(
        None, max_length=64, description="Absent if an earlier reaction was taken back."
    )


class PollVote(MessageChange):
    """Somebody voted in a poll; the vote replaces their earlier one."""

    options: list[ShortText] = Field(max_length=20, description="The options chosen now.")


class Call(Observed):
    """Somebody calls the account. Session pods do not answer calls."""

    id: str = Field(max_length=192, description="ID of the call.")
    from_: str = Field(alias="from", max_length=64)
    phone_number: KnownNumber = None
    video: bool = False
    group: bool = False
    at: Time


class GroupChange(Observed):
    """Members of a group have changed."""

    chat_id: str = Field(max_length=64)
    action: Literal["add", "join", "remove", "leave", "promote", "demote"]
    by: str | None = Field(None, max_length=64, description="Who changed them.")
    participants: list[str] = Field(max_length=1024, description="The members, by ID.")
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
