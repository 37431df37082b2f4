"""The WebSocket between the page and the stand-in's server: JSON where the real page speaks Noise and protobuf."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from typing import Any

from aiohttp import WSMsgType, web

from standin.world import Device, Message, World

ALPHABET = "ABCDEFGHJKLMNPQRSTVWXYZ123456789"  # of pairing codes: nothing that looks like something else


class Connection:
    """One page."""

    def __init__(self, ws: web.WebSocketResponse) -> None:
        self.ws = ws
        self.noise = ""
        self.device: Device | None = None
        self.refs: list[str] = []
        self.confirmed = asyncio.Event()

    async def send(self, kind: str, **fields: object) -> None:
        if not self.ws.closed:
            await self.ws.send_str(json.dumps({"t": kind, **fields}))


class Switchboard:
    """All pages that are connected, and what they can be paired by."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.refs: dict[str, Connection] = {}
        self.codes: dict[tuple[str, str], tuple[Connection, str]] = {}
        self.online: dict[str, Connection] = {}
        self.waiting_for_passkey: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        if self.world.refusing:
            raise web.HTTPServiceUnavailable
        ws = web.WebSocketResponse(heartbeat=30)
        await ws.prepare(request)
        connection = Connection(ws)
        try:
            async for message in ws:
                if message.type == WSMsgType.TEXT:
                    self._background(self._receive(connection, json.loads(message.data)))
        finally:
            self._forget_refs(connection)
            if connection.device and self.online.get(connection.device.id) is connection:
                del self.online[connection.device.id]
        return ws

    def connections(self, phone: str | None) -> list[Connection]:
        """The logged-in pages, of one account or of all."""
        return [c for c in self.online.values() if phone is None or (c.device and c.device.phone == phone)]

    async def pair(self, connection: Connection, noise: str, phone: str) -> Device:
        """Links the page's device to the account, as the phone does after a scan; the page then logs in anew."""
        if phone in self.world.behaviour.passkey_accounts:
            event = self.waiting_for_passkey.setdefault(phone, asyncio.Event())
            await connection.send("passkey")
            await event.wait()
            del self.waiting_for_passkey[phone]
        device = self.world.link(phone, noise)
        connection.noise = noise
        await connection.send("pair-success", pn=f"{phone}@c.us", lid=f"9{phone}@lid", device=device.id, platform="android")
        await asyncio.wait_for(connection.confirmed.wait(), 10)
        await connection.send("stream-error", code=515)  # restart required
        await connection.ws.close()
        return device

    async def unlink(self, device: Device) -> None:
        self.world.unlink(device.id)
        if device.id in self.online:
            await self.online[device.id].send("stream-error", code=401)

    def _background(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _receive(self, connection: Connection, message: dict[str, Any]) -> None:
        match message["t"]:
            case "hello":
                connection.noise = message["noise"]
                if message.get("me"):
                    await self._login(connection, message["me"])
                else:
                    await self._give_refs(connection)
            case "want-refs":
                await self._give_refs(connection)
            case "pair-confirm":
                connection.confirmed.set()
            case "rpc":
                try:
                    result = await self._call(connection, message["op"], message["args"])
                    await connection.send("rpc-ok", id=message["id"], r=result)
                except ValueError as error:
                    await connection.send("rpc-err", id=message["id"], e=str(error))

    async def _login(self, connection: Connection, me: dict[str, str]) -> None:
        device = self.world.state.devices.get(me["device"])
        if device is None or device.noise != connection.noise:
            await connection.send("stream-error", code=401)
            return
        before = self.online.get(device.id)
        if before and before is not connection:
            await before.send("stream-error", code="replaced")
            await before.ws.close()
        connection.device = device
        self.online[device.id] = connection
        await connection.send("success", pn=f"{device.phone}@c.us", pushname=f"Phone {device.phone}", platform="android")
        await asyncio.sleep(self.world.behaviour.sync_seconds)
        now = int(time.time())
        chats = [
            {"id": "15550001111@c.us", "name": "Ada", "t": now, "unread": 0},
            {"id": "120363000000000001@g.us", "name": "Group", "t": now, "unread": 2},
        ]
        await connection.send("offline-done", chats=chats)

    async def _give_refs(self, connection: Connection) -> None:
        self._forget_refs(connection)
        for _ in range(self.world.behaviour.refs):
            ref = "2@" + base64.b64encode(secrets.token_bytes(48)).decode()
            connection.refs.append(ref)
            self.refs[ref] = connection
        await connection.send("refs", refs=connection.refs)

    def _forget_refs(self, connection: Connection) -> None:
        for ref in connection.refs:
            self.refs.pop(ref, None)
        connection.refs = []

    async def _call(self, connection: Connection, operation: str, arguments: dict[str, str]) -> dict[str, object]:
        match operation:
            case "send":
                return await self._send(connection, arguments)
            case "query-exists":
                number = arguments["wid"].partition("@")[0]
                return {"exists": number not in self.world.behaviour.unknown_numbers}
            case "remove-companion-device":
                if connection.device:
                    self.world.unlink(connection.device.id)
                return {}
            case "link-code":
                code = "".join(secrets.choice(ALPHABET) for _ in range(8))
                self.codes[arguments["phone"], code] = (connection, arguments["noise"])
                return {"code": code}
        raise ValueError(f"unknown operation {operation}")

    async def _send(self, connection: Connection, arguments: dict[str, str]) -> dict[str, object]:
        if connection.device is None:
            raise ValueError("not logged in")
        await asyncio.sleep(self.world.behaviour.ack_seconds)
        now = int(time.time())
        sender = f"{connection.device.phone}@c.us"
        message = Message(id=arguments["id"], sender=sender, to=arguments["to"], text=arguments["body"], at=now)
        self.world.deliver(message)
        if message.to.endswith("@c.us"):
            receipt = connection.send("receipt", id=message.id, ack=2, **{"from": message.to})
            self._background(receipt)
        return {"t": now}
