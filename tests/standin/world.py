"""What the stand-in's server knows: accounts' linked devices and messages, and the faults that it was told to show."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Fault = Literal["drop", "refuse", "replaced", "outdated", "proxy", "tos", "banned"]


class Device(BaseModel):
    """A linked device: its id and the noise key that it must prove."""

    id: str
    phone: str
    noise: str


class Message(BaseModel):
    """A message that a linked device sent, or a phone sent to it."""

    id: str
    sender: str = Field(alias="from")
    to: str
    text: str
    at: int

    model_config = ConfigDict(populate_by_name=True)


class Behaviour(BaseModel):
    """How the server behaves; may be changed at any time."""

    model_config = ConfigDict(extra="forbid")

    first_ref_ms: int = Field(60_000, description="How long the first QR lives.", ge=100)
    next_ref_ms: int = Field(20_000, description="How long each later QR lives.", ge=100)
    refs: int = Field(6, description="How many QRs there are before the page goes idle.", ge=1, le=20)
    sync_seconds: float = Field(0.15, description="From login to the end of the first sync.", ge=0)
    ack_seconds: float = Field(0, description="Before a sent message is answered.", ge=0)
    legacy_cmd: bool = Field(False, description="The older generation of the page's Cmd module.")
    passkey_accounts: list[str] = Field([], description="Phone numbers whose linking needs a passkey first.")
    unknown_numbers: list[str] = Field(["19999999999"], description="Numbers that are not on WhatsApp.")


class State(BaseModel):
    """What is kept on disk."""

    devices: dict[str, Device] = {}
    messages: list[Message] = []
    next_device: int = 1


class World:
    """The state, with its file when it has one."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self.behaviour = Behaviour()
        self.refuse_until = 0.0
        self.state = State()
        if file is not None and file.exists():
            self.state = State.model_validate_json(file.read_text())

    def link(self, phone: str, noise: str) -> Device:
        device = Device(id=f"{phone}:{self.state.next_device}@c.us", phone=phone, noise=noise)
        self.state.next_device += 1
        self.state.devices[device.id] = device
        self._save()
        return device

    def unlink(self, device_id: str) -> None:
        if self.state.devices.pop(device_id, None):
            self._save()

    def devices_of(self, phone: str) -> list[Device]:
        return [device for device in self.state.devices.values() if device.phone == phone]

    def deliver(self, message: Message) -> bool:
        """False when a message of this id was delivered before: a repeated send reaches nobody twice."""
        if any(message.id == known.id for known in self.state.messages):
            return False
        self.state.messages.append(message)
        self._save()
        return True

    def refuse(self, seconds: float) -> None:
        self.refuse_until = time.monotonic() + seconds

    @property
    def refusing(self) -> bool:
        return time.monotonic() < self.refuse_until

    def _save(self) -> None:
        if self._file is not None:
            partial = self._file.with_suffix(".partial")
            partial.write_text(self.state.model_dump_json(by_alias=True))
            os.replace(partial, self._file)  # noqa: PTH105
