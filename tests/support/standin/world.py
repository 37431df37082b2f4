"""What the stand-in's server knows, and what it owes to devices that are away."""

from __future__ import annotations

import base64
import os
import secrets
import time
import urllib.parse
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints
from support.standin.files import FileKeys, MediaKind, decrypt, digest, encrypt

Number = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{6,14}$")]
Lid = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,20}@lid$")]
MomentFault = Literal["drop", "replaced", "locked", "storage"]
LastingFault = Literal[
    "refuse", "silent", "send_fails", "banned", "outdated", "proxy", "tos", "smb_tos"
]
Missing = Literal["messages", "receipts", "version", "send"]
MissingMe = Literal["phone", "lid", "device", "conn"]
Fault = MomentFault | LastingFault
LASTING: frozenset[str] = frozenset(get_args(LastingFault))
ACK_SENT, ACK_DELIVERED, ACK_READ = 1, 2, 3
FIRST_GROUP = "120363000000000001@g.us"
PHONE_ABSENCE_DAYS = (
    14  # WhatsApp's help: linked devices are logged out when the phone wasn't used for over 14 days
)


class Device(BaseModel):
    """A linked device: its id and the noise key that it must prove."""

    id: str
    phone: Number
    noise: str


class Media(BaseModel):
    """A message's file: its size and hash (hex), without the bytes; ``duration`` in seconds.

    ``thumbnail`` is a JPEG in Base64.
    """

    model_config = ConfigDict(extra="forbid")

    kind: MediaKind
    mime_type: str
    size: int = Field(0, ge=0)
    sha256: str | None = None
    file_name: str | None = None
    caption: str | None = None
    duration: float | None = None
    thumbnail: str | None = None


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Location(Part):
    latitude: float
    longitude: float
    name: str | None = None
    address: str | None = None
    live: bool = False


class Card(Part):
    """Somebody's contact."""

    name: str
    vcard: str


class Poll(Part):
    question: str
    options: list[str]
    multiple: bool = False


class Message(BaseModel):
    """A message, sent by a linked device (``device`` is set) or by somebody's phone.

    ``author`` is who wrote it in a ``group``, ``quoted`` the id of the message that it answers,
    ``ack`` 1 (server has it), 2 (delivered) or 3 (read), ``at`` in seconds since 1970, ``file``
    where its file is.
    """

    model_config = ConfigDict(populate_by_name=True)

    id: str
    sender: str = Field(alias="from")
    to: str
    text: str
    at: int
    media: Media | None = None
    file: FileKeys | None = None
    location: Location | None = None
    contacts: list[Card] = []
    poll: Poll | None = None
    mentions: list[str] = []
    forwarded: bool = False
    view_once: bool = False
    group: str | None = None
    author: str | None = None
    quoted: str | None = None
    device: str | None = None
    ack: int = ACK_SENT


class Stanza(BaseModel):
    """Something owed to a device until it has confirmed ``number``."""

    number: int
    body: dict[str, JsonValue]


class Behaviour(BaseModel):
    """How the server behaves; may be changed at any time."""

    model_config = ConfigDict(extra="forbid")

    first_ref_ms: int = Field(60_000, description="How long the first QR lives.", ge=100)
    next_ref_ms: int = Field(20_000, description="How long each later QR lives.", ge=100)
    refs: int = Field(
        6, description="How many QRs there are before the page goes idle.", ge=1, le=20
    )
    code_seconds: float = Field(195, description="How long a pairing code lives.", gt=0)
    sync_seconds: float = Field(0.15, description="From login to the end of the first sync.", ge=0)
    ack_seconds: float = Field(0, description="Before a sent message is answered.", ge=0)
    auto_delivery: bool = Field(
        True, description="Recipients' phones confirm delivery (ack 2) at once."
    )
    phone_online: bool = Field(
        True, description="The account's own phone gets what its devices send, and confirms it."
    )
    max_devices: int = Field(
        4, description="Linked devices per account; the phone refuses a further one.", ge=1
    )
    late_bundle_ms: int = Field(400, description="From the first bundle to the second.", ge=0)
    legacy_cmd: bool = Field(
        False, description="The older generation of the page's Cmd and BackendEventBus."
    )
    legacy_msg_key: bool = Field(
        False, description="Message keys as before 2.3000.1042401057, with `_serialized`."
    )
    debug_global: bool = Field(
        True, description="Whether the page sets window.Debug.VERSION itself."
    )
    passkey_accounts: list[Number] = Field(
        [], description="Phone numbers whose linking needs a passkey."
    )
    reload_ms: int | None = Field(
        None, description="How long after its start the page reloads itself.", ge=1
    )
    missing: list[Missing] = Field(
        [], description="Modules that the page does not have under the names that clients know."
    )
    missing_me: list[MissingMe] = Field(
        [], description="Ways of asking the page for its own id that have no answer."
    )
    scripts: Literal["served", "missing", "hanging", "html", "reset"] = Field(
        "served",
        description="What the host of the page's scripts does, where it is one of its own.",
    )
    confirm: Literal["stored", "received", "never"] = Field(
        "stored", description="When the page confirms what it has received."
    )
    store_seconds: float = Field(
        0, description="Before the page stores what it has received.", ge=0
    )
    lid_keys: bool = Field(
        False, description="The page names a sent message by its recipient's LID once it is sent."
    )
    service_worker: bool = Field(True, description="Whether the page has a service worker.")
    modules: int = Field(
        0, description="Further modules of the page, of the weight of the real ones.", ge=0
    )
    refuse_automation: bool = Field(
        True, description="Browsers that say Headless or webdriver anywhere are not let in."
    )
    unknown_numbers: list[Number] = Field(
        ["19999999999"], description="Numbers that are not on WhatsApp."
    )


class State(BaseModel):
    """What is kept on disk."""

    devices: dict[str, Device] = {}
    messages: dict[str, Message] = {}
    groups: dict[str, str] = {FIRST_GROUP: "Group"}
    unloaded: list[str] = []  # groups without a chat on the page
    contacts: dict[str, str] = {"15550001111@c.us": "Ada"}
    lids: dict[str, str | None] = {}  # the phone number's id, where it is known
    owed: dict[str, list[Stanza]] = {}
    next_device: int = 1
    next_stanza: int = 1


class Faults:
    """Faults that last for a while, for one account or (``phone`` is None) for all."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[tuple[str, str | None], float] = {}

    def start(self, kind: LastingFault, phone: str | None, seconds: float) -> None:
        self._until[kind, phone] = self._clock() + seconds

    def left(self, kind: LastingFault, phone: str | None) -> float:
        """Seconds until the fault ends for this account; 0 when it isn't there."""
        ends = (self._until.get((kind, None), 0.0), self._until.get((kind, phone), 0.0))
        return max(0.0, max(ends) - self._clock())

    def clear(self) -> None:
        self._until.clear()


class World:
    """The state, with its file when it has one."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._files: dict[str, bytes] = {}  # encrypted; without a state file they are here
        self.behaviour = Behaviour()
        self.faults = Faults()
        self.state = State()
        if file is not None and file.exists():
            self.state = State.model_validate_json(file.read_text())

    # --- linked devices ---------------------------------------------------------------------------

    def new_device(self, phone: str, noise: str) -> Device:
        """Return a device that is not linked yet: ``link`` does that once its login is stored."""
        device = Device(id=f"{phone}:{self.state.next_device}@c.us", phone=phone, noise=noise)
        self.state.next_device += 1
        return device

    def link(self, device: Device) -> None:
        self.state.devices[device.id] = device
        self.state.lids.setdefault(f"9{device.phone}@lid", f"{device.phone}@c.us")
        self._save()

    def unlink(self, device_id: str) -> None:
        self.state.owed.pop(device_id, None)
        if self.state.devices.pop(device_id, None):
            self._save()

    def devices_of(self, phone: str) -> list[Device]:
        return [device for device in self.state.devices.values() if device.phone == phone]

    # --- messages ---------------------------------------------------------------------------------

    def deliver(self, message: Message) -> bool:
        """False when a message of this id is known: a repeated send reaches nobody twice."""
        if message.id in self.state.messages:
            return False
        self.state.messages[message.id] = message
        self._save()
        return True

    def sent_by_devices(self) -> list[Message]:
        """What linked devices have sent, oldest first."""
        return [message for message in self.state.messages.values() if message.device is not None]

    def acknowledge(self, message_id: str, ack: int) -> Message | None:
        """Raises a message's ack, never lowers it; None when nothing changes."""
        message = self.state.messages.get(message_id)
        if message is None or message.ack >= ack:
            return None
        message.ack = ack
        self._save()
        return message

    # --- files ------------------------------------------------------------------------------------

    def upload(self, data: bytes) -> str:
        """Store an encrypted file; return its path."""
        name = secrets.token_hex(16)
        if self._file is None:
            self._files[name] = data
        else:
            self._path(name).parent.mkdir(exist_ok=True)
            self._path(name).write_bytes(data)
        return f"/mms/{name}?{urllib.parse.urlencode({'ccb': '11-4', 'oh': name[:8]})}"

    def download(self, name: str) -> bytes | None:
        """Return an encrypted file by its name; None if there is none."""
        if self._file is None:
            return self._files.get(name)
        path = self._path(name)
        return path.read_bytes() if path.exists() else None

    def expire(self, file: FileKeys) -> None:
        """Delete a file, as WhatsApp does some weeks after its message."""
        name = _name_of(file)
        self._files.pop(name, None)
        if self._file is not None:
            self._path(name).unlink(missing_ok=True)

    def encrypt(self, content: bytes, kind: MediaKind) -> FileKeys:
        """Store a phone's file."""
        key, data = encrypt(content, kind)
        return FileKeys(
            direct_path=self.upload(data),
            media_key=base64.b64encode(key).decode(),
            filehash=digest(content),
            enc_filehash=digest(data),
        )

    def decrypt(self, file: FileKeys, kind: MediaKind) -> bytes | None:
        """Return a file as the recipient has it; None if there is none, raise ``Broken``."""
        data = self.download(_name_of(file))
        return None if data is None else decrypt(data, kind, file)

    def _path(self, name: str) -> Path:
        assert self._file is not None
        return self._file.with_name(self._file.name + ".files") / name

    # --- people -----------------------------------------------------------------------------------

    def add_contact(self, phone: str, name: str) -> None:
        self.state.contacts[f"{phone}@c.us"] = name
        self._save()

    def add_person(self, phone: str | None, name: str | None, listed: Collection[str]) -> str:
        """Give somebody a LID, and list them by the ids of the servers ``listed``; return the LID.

        Without a ``phone`` their number is known to nobody.
        """
        lid = f"{f'9{phone}' if phone else 10**14 + secrets.randbelow(10**14)}@lid"
        self.state.lids[lid] = f"{phone}@c.us" if phone else None
        for wid in (lid, self.state.lids[lid]):
            if wid is not None and wid.partition("@")[2] in listed:
                self.state.contacts[wid] = name or ""
        self._save()
        return lid

    def phone_of(self, wid: str) -> str:
        """The phone number that an id stands for; empty when nobody knows it."""
        known = self.state.lids.get(wid) if wid.endswith("@lid") else wid
        return (known or "").partition("@")[0]

    def lid_of(self, wid: str) -> str | None:
        return next((lid for lid, known in self.state.lids.items() if known == wid), None)

    def key_of(self, wid: str) -> str:
        """The id by which the page names a chat in the keys of the messages that it has sent."""
        return (self.lid_of(wid) if self.behaviour.lid_keys else None) or wid

    def add_group(self, name: str, loaded: bool = True) -> str:
        group = f"120363{secrets.randbelow(10**12):012}@g.us"
        self.state.groups[group] = name
        if not loaded:
            self.state.unloaded.append(group)
        self._save()
        return group

    def exists(self, wid: str) -> bool:
        """Whether a user or group of this id is on WhatsApp."""
        if wid.endswith("@g.us"):
            return wid in self.state.groups
        if wid.endswith("@lid"):
            return wid in self.state.lids
        return wid.partition("@")[0] not in self.behaviour.unknown_numbers

    # --- what devices must still get --------------------------------------------------------------

    def owe(self, device_id: str, body: dict[str, JsonValue]) -> Stanza:
        stanza = Stanza(number=self.state.next_stanza, body=body)
        self.state.next_stanza += 1
        self.state.owed.setdefault(device_id, []).append(stanza)
        self._save()
        return stanza

    def owed(self, device_id: str) -> list[Stanza]:
        return list(self.state.owed.get(device_id, []))

    def settle(self, device_id: str, number: int) -> None:
        left = [stanza for stanza in self.owed(device_id) if stanza.number != number]
        if left:
            self.state.owed[device_id] = left
        else:
            self.state.owed.pop(device_id, None)
        self._save()

    def _save(self) -> None:
        """Write the whole state so that a crash leaves the old or the new one."""
        if self._file is None:
            return
        partial = self._file.with_name(self._file.name + ".partial")
        with partial.open("w") as stream:
            stream.write(self.state.model_dump_json(by_alias=True))
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(self._file)


def _name_of(file: FileKeys) -> str:
    return file.direct_path.partition("?")[0].rpartition("/")[2]
