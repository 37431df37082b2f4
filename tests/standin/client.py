"""The phone: a typed client of the stand-in's control API."""

from __future__ import annotations

from typing import Any

import aiohttp

from standin.world import Fault, Message


class PhoneError(RuntimeError):
    """The stand-in refused, and says why."""


class Phone:
    """All phones at once; each account is named by its phone number, digits only."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def scan(self, qr: str, phone: str = "15551234567") -> str:
        """Scans a QR; returns the linked device's id. ``PhoneError`` when it has expired."""
        return str((await self._call("POST", "/phone/scan", {"qr": qr, "phone": phone}))["device"])

    async def type_code(self, code: str, phone: str) -> str:
        """Types a pairing code on the phone; returns the linked device's id."""
        return str((await self._call("POST", "/phone/code", {"code": code, "phone": phone}))["device"])

    async def confirm_passkey(self, phone: str) -> None:
        await self._call("POST", "/phone/passkey", {"phone": phone})

    async def logout(self, phone: str) -> int:
        """Logs all linked devices of the account out; returns how many there were."""
        return int((await self._call("POST", "/phone/logout", {"phone": phone}))["removed"])

    async def send(self, sender: str, to: str, text: str) -> str:
        """Sends a text to an account's devices; returns its id."""
        return str((await self._call("POST", "/phone/send", {"from": sender, "to": to, "text": text}))["id"])

    async def messages(self) -> list[Message]:
        """What linked devices have sent, oldest first."""
        return [Message.model_validate(message) for message in await self._call("GET", "/phone/messages")]

    async def devices(self) -> list[dict[str, Any]]:
        """The linked devices: ``id``, ``phone``, ``online``."""
        found: list[dict[str, Any]] = await self._call("GET", "/phone/devices")
        return found

    async def fault(self, kind: Fault, phone: str | None = None, seconds: float = 5) -> None:
        order = {"kind": kind, "phone": phone, "seconds": seconds}
        await self._call("POST", "/server/fault", {key: value for key, value in order.items() if value is not None})

    async def behave(self, **changes: object) -> None:
        """Changes how the server behaves; the names are those of ``standin.world.Behaviour``."""
        await self._call("PATCH", "/server/behaviour", changes)

    async def _call(self, method: str, path: str, body: object = None) -> Any:
        async with aiohttp.ClientSession() as http, http.request(method, self._url + path, json=body) as answer:
            said = await answer.json()
            if answer.status >= 400:
                raise PhoneError(said["detail"])
            return said
