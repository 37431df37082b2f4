"""The phone: a typed client of the stand-in's control API."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
from pydantic import BaseModel, TypeAdapter
from support.standin.chat import Logins, OddKind
from support.standin.identity import SIGHTINGS, Sighting
from support.standin.receiver import Delivered, Hook
from support.standin.world import (
    ACK_DELIVERED,
    ACK_READ,
    Behaviour,
    Card,
    Fault,
    Location,
    Media,
    Message,
    Poll,
)

MESSAGES = TypeAdapter(list[Message])


class PhoneError(RuntimeError):
    """The stand-in refused, and says why; ``status`` is the answer's HTTP status."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class PasskeyRequired(PhoneError):
    """The phone says "continue on your other device": linking waits for the account's passkey."""


class LinkedDevice(BaseModel):
    """A linked device as the server sees it."""

    id: str
    phone: str
    online: bool
    available: bool | None  # whether the account is shown as online; None before it has said


DEVICES = TypeAdapter(list[LinkedDevice])


class Phone:
    """All phones at once; each account is named by its phone number, digits only.

    Everything raises ``PhoneError``. ``tls`` verifies a stand-in that is served over TLS.
    """

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        self._url = url.rstrip("/")
        self._tls = tls

    # --- linking ----------------------------------------------------------------------------------

    async def scan(self, qr: str, phone: str = "15551234567") -> str:
        """Scan a QR; return the linked device's id.

        Raises ``PasskeyRequired`` if the account needs its passkey first.
        """
        return self._linked(await self._call("POST", "/phone/scan", {"qr": qr, "phone": phone}))

    async def type_code(self, code: str, phone: str = "15551234567") -> str:
        """Types a pairing code on the phone; like ``scan``."""
        return self._linked(await self._call("POST", "/phone/code", {"code": code, "phone": phone}))

    async def confirm_passkey(self, phone: str) -> str:
        """The account's passkey was confirmed; returns the linked device's id."""
        return self._linked(await self._call("POST", "/phone/passkey", {"phone": phone}))

    async def logout(self, phone: str, device: str | None = None) -> int:
        """Logs one linked device of the account out, or all; returns how many there were."""
        return int(
            (await self._call("POST", "/phone/logout", {"phone": phone, "device": device}))[
                "removed"
            ]
        )

    async def absent(self, phone: str, days: float) -> int:
        """Leave the phone unused for ``days``; return how many devices that logged out."""
        return int(
            (await self._call("POST", "/phone/absent", {"phone": phone, "days": days}))["removed"]
        )

    async def devices(self, phone: str | None = None) -> list[LinkedDevice]:
        """The linked devices, of one account or of all."""
        found = DEVICES.validate_python(await self._call("GET", "/phone/devices"))
        return [device for device in found if phone in (None, device.phone)]

    # --- messages ---------------------------------------------------------------------------------

    async def send(
        self,
        sender: str,
        to: str,
        text: str | None = None,
        *,
        media: Media | None = None,
        content: bytes | None = None,
        location: Location | None = None,
        contacts: Sequence[Card] = (),
        poll: Poll | None = None,
        mentions: Sequence[str] = (),
        forwarded: bool = False,
        view_once: bool = False,
        quoted: str | None = None,
        group: str | None = None,
        as_lid: bool = False,
        at: int | None = None,
    ) -> str:
        """Send a message to an account's devices, or in a group; return its id.

        ``content`` is the file of ``media``; without it, there is nothing to download.
        """
        order = {
            "from": sender,
            "to": to,
            "text": text,
            "media": media and media.model_dump(),
            "content": None if content is None else base64.b64encode(content).decode(),
            "location": location and location.model_dump(),
            "contacts": [card.model_dump() for card in contacts],
            "poll": poll and poll.model_dump(),
            "mentions": [*mentions],
            "forwarded": forwarded,
            "view_once": view_once,
            "quoted": quoted,
            "group": group,
            "as_lid": as_lid,
            "at": at,
        }
        return str((await self._call("POST", "/phone/send", order))["id"])

    async def expire_file(self, message_id: str) -> None:
        """Delete a message's file, as WhatsApp does after some weeks."""
        await self._call("DELETE", f"/phone/messages/{message_id}/file")

    async def edit(self, message_id: str, text: str, by: str | None = None) -> None:
        """Change the text of a message; ``by`` anybody but its sender is a forgery."""
        await self._call("POST", "/phone/edit", {"id": message_id, "by": by, "text": text})

    async def delete(self, message_id: str, by: str | None = None, admin: bool = False) -> None:
        """Delete a message for everyone; ``by`` anybody but its sender or an admin, a forgery."""
        await self._call("POST", "/phone/delete", {"id": message_id, "by": by, "admin": admin})

    async def react(self, message_id: str, by: str, emoji: str) -> None:
        """React to a message; without an emoji, take the reaction back. ``by`` is an id."""
        await self._call("POST", "/phone/react", {"id": message_id, "by": by, "emoji": emoji})

    async def vote(self, message_id: str, by: str, options: Sequence[str]) -> None:
        """Vote in a poll, in place of an earlier vote. ``by`` is an id."""
        await self._call("POST", "/phone/vote", {"id": message_id, "by": by, "options": [*options]})

    async def call(self, caller: str, to: str, video: bool = False, group: bool = False) -> str:
        """Call an account; return the call's id."""
        order = {"from": caller, "to": to, "video": video, "group": group}
        return str((await self._call("POST", "/phone/call", order))["id"])

    async def change_members(
        self, group: str, action: str, by: str, participants: Sequence[str]
    ) -> None:
        """Add, remove, promote or demote members of a group, or have them join or leave."""
        order = {"group": group, "action": action, "by": by, "participants": [*participants]}
        await self._call("POST", "/phone/members", order)

    async def messages(self) -> list[Message]:
        """What linked devices have sent, oldest first."""
        return MESSAGES.validate_python(await self._call("GET", "/phone/messages"))

    async def wait_messages(self, count: int, timeout: float = 30) -> list[Message]:
        """Wait until linked devices have sent ``count`` messages in all.

        Raises ``TimeoutError``, after 60 s at the latest.
        """
        answer = await self._call(
            "GET", f"/phone/messages?after={count - 1}&wait={min(timeout, 60)}"
        )
        if not answer:
            raise TimeoutError(f"not {count} messages within {timeout} s")
        return await self.messages()

    async def message(self, message_id: str) -> Message:
        """One message, sent by a linked device or by a phone, with its ack."""
        return Message.model_validate(await self._call("GET", f"/phone/messages/{message_id}"))

    async def deliver(self, message_id: str) -> bool:
        """Confirm that the recipient's phone got a message (ack 2); False if that was known."""
        return await self._receipt(message_id, ACK_DELIVERED)

    async def read(self, message_id: str) -> bool:
        """The recipient has read a linked device's message (ack 3); False when that was known."""
        return await self._receipt(message_id, ACK_READ)

    async def add_contact(self, phone: str, name: str) -> None:
        """Put somebody into everybody's address book and chats, as of a device's next login."""
        await self._call("POST", "/phone/contact", {"phone": phone, "name": name})

    async def add_person(
        self, phone: str | None, name: str | None = None, listed: Sequence[str] = ("c.us", "lid")
    ) -> str:
        """Gives somebody a LID, which is returned; without ``phone``, nobody knows their number.

        Devices see them at their next login in each form that is ``listed``.
        """
        order = {"phone": phone, "name": name, "listed": [*listed]}
        return str((await self._call("POST", "/phone/person", order))["lid"])

    async def create_group(self, name: str, loaded: bool = True) -> str:
        """A group that everybody is in; returns its id. Devices see it at their next login.

        One that is not ``loaded`` has no chat on the page, until a message comes in it.
        """
        order = {"name": name, "loaded": loaded}
        return str((await self._call("POST", "/phone/group", order))["id"])

    async def send_odd(
        self, kind: OddKind, to: str, fields: Mapping[str, object], sender: str = "15550001111"
    ) -> str:
        """Gives an account's devices something with odd fields; see README.md.

        Returns the message's id.
        """
        order = {"kind": kind, "to": to, "from": sender, "fields": fields}
        return str((await self._call("POST", "/phone/odd", order))["id"])

    # --- the server -------------------------------------------------------------------------------

    async def fault(self, kind: Fault, phone: str | None = None, seconds: float = 5) -> int:
        """Start a fault for one account or for all; return the number of pages that it met.

        ``seconds`` counts for lasting ones.
        """
        order = {"kind": kind, "phone": phone, "seconds": seconds}
        return int((await self._call("POST", "/server/fault", order))["pages"])

    async def sightings(self) -> list[Sighting]:
        """What browsers have shown of themselves since the server's start, each thing once."""
        return SIGHTINGS.validate_python(await self._call("GET", "/server/browsers"))

    async def logins(self) -> Logins:
        """How devices have come to their logins since the server's start."""
        return Logins.model_validate(await self._call("GET", "/server/logins"))

    async def presences(self, phone: str) -> list[bool]:
        """What the account's devices have said: whether it is to be shown as online, in order."""
        shown = await self._call("GET", "/phone/presence")
        return [one["available"] for one in shown if one["phone"] == phone]

    async def page_errors(self) -> list[str]:
        """What was thrown into pages' own work, by their listeners too."""
        return [str(error) for error in await self._call("GET", "/server/errors")]

    async def heal(self) -> None:
        """End all lasting faults.

        Pages that were made to stop (outdated, proxy, tos) stay stopped, as the real ones do.
        """
        await self._call("DELETE", "/server/fault")

    async def behave(self, **changes: object) -> Behaviour:
        """Changes how the server behaves; the names are those of ``standin.world.Behaviour``."""
        return Behaviour.model_validate(await self._call("PATCH", "/server/behaviour", changes))

    async def _receipt(self, message_id: str, ack: int) -> bool:
        return bool(
            (await self._call("POST", "/phone/receipt", {"id": message_id, "ack": ack}))["changed"]
        )

    def _linked(self, answer: dict[str, Any]) -> str:
        if answer["device"] is None:
            raise PasskeyRequired(202, "the account's passkey is wanted on the other device")
        return str(answer["device"])

    # --- an application ---------------------------------------------------------------------------

    async def delivered(self, hook: str) -> list[Delivered]:
        """Return what the endpoint ``/hooks/HOOK`` was told."""
        return Hook.model_validate(await self._call("GET", f"/hooks/{hook}")).delivered

    async def answer(self, hook: str, status: int) -> None:
        """Have the endpoint answer so from now on; it forgets what it was told."""
        await self._call("PUT", f"/hooks/{hook}", {"status": status})

    async def _call(self, method: str, path: str, body: object = None) -> Any:
        trust: ssl.SSLContext | bool = self._tls or True
        async with (
            aiohttp.ClientSession() as http,
            http.request(method, self._url + path, json=body, ssl=trust) as answer,
        ):
            if "json" not in answer.content_type:
                raise PhoneError(answer.status, f"{method} {path}: {answer.status} {answer.reason}")
            said = await answer.json()
            if answer.status >= 400:
                raise PhoneError(answer.status, said["detail"])
            return said
