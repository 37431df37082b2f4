"""The page's WebSocket: JSON where the real page speaks Noise and protobuf."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from collections import deque
from collections.abc import Coroutine
from typing import Annotated, Any, Literal, NamedTuple

from aiohttp import WSCloseCode, WSMsgType, web
from pydantic import BaseModel, Field, JsonValue, TypeAdapter, ValidationError
from support.standin.files import Broken, FileKeys, MediaKind
from support.standin.identity import Browsers, browser_of
from support.standin.offers import Offer, Offers, Refused
from support.standin.world import (
    ACK_DELIVERED,
    ACK_READ,
    FIRST_GROUP,
    LASTING,
    Device,
    Fault,
    LastingFault,
    Media,
    Message,
    World,
)

ChangeKind = Literal["edit", "deletion", "reaction", "vote"]
OddKind = Literal["message", "contact", "chat", "call", "group"] | ChangeKind
# What a message's stanza has of it.
CONTENT = {
    "id", "text", "media", "file", "location", "contacts", "poll", "mentions", "forwarded",
    "view_once", "at", "author",
}  # fmt: skip
# A change as it usually is, made odd by fields of its own.
USUAL: dict[ChangeKind, dict[str, JsonValue]] = {
    "edit": {"text": "edited"},
    "deletion": {"admin": False},
    "reaction": {"emoji": "\N{THUMBS UP SIGN}"},
    "vote": {"options": []},
}
CONFIRM_SECONDS = 10.0  # for the page to store its login after a scan
SYNC_STEPS = 10
LONGEST_LOG = 1000  # of what pages have said of themselves
BLOCKS: tuple[LastingFault, ...] = (
    "banned",
    "outdated",
    "proxy",
    "tos",
    "smb_tos",
)  # answers to a login
# What the real server calls these (WAWebHandleFailure's reasons; 515 and 401 as every client of the
# protocol knows them).
RESTART, UNLINKED, TEMPORARY_BAN, LOCKED = 515, 401, 402, 403


class Me(BaseModel):
    device: str


class Hello(BaseModel):
    """First of all: who the page is; ``me`` is None when it isn't linked."""

    t: Literal["hello"]
    noise: str
    me: Me | None = None


class WantRefs(BaseModel):
    t: Literal["want-refs"]


class PairConfirm(BaseModel):
    """The page has stored its login."""

    t: Literal["pair-confirm"]


class Got(BaseModel):
    """The page has processed a stanza."""

    t: Literal["got"]
    number: int


class Seen(BaseModel):
    """The user has read a chat."""

    t: Literal["seen"]
    chat: str


class Assertion(BaseModel):
    """The page's authenticator has answered the passkey challenge. The stand-in believes it."""

    t: Literal["passkey-assertion"]


class Presence(BaseModel):
    """Whether the account is to be shown as online."""

    t: Literal["presence"]
    available: bool


class PageFailure(BaseModel):
    """Something was thrown into the page's own work."""

    t: Literal["page-error"]
    detail: str


class Query(BaseModel):
    op: Literal["query-exists"]
    wid: str


class QueryGroup(BaseModel):
    op: Literal["query-group"]
    group: str


class LinkCode(BaseModel):
    op: Literal["link-code"]
    phone: str
    noise: str


class SentMedia(BaseModel):
    """A file that was uploaded before."""

    file: FileKeys
    kind: MediaKind
    mime_type: str
    file_name: str | None = None
    caption: str | None = None


class Send(BaseModel):
    op: Literal["send"]
    id: str
    to: str
    body: str = ""
    media: SentMedia | None = None
    quoted: str | None = None


class RemoveMe(BaseModel):
    op: Literal["remove-companion-device"]


class Call(BaseModel):
    """A question that the page awaits the answer of."""

    t: Literal["call"]
    id: int
    args: Annotated[Query | QueryGroup | LinkCode | Send | RemoveMe, Field(discriminator="op")]


Incoming = Hello | WantRefs | PairConfirm | Got | Seen | Assertion | Presence | PageFailure | Call
INCOMING: TypeAdapter[Incoming] = TypeAdapter(Annotated[Incoming, Field(discriminator="t")])


class Page:
    """One page's connection."""

    def __init__(self, ws: web.WebSocketResponse, browser: str) -> None:
        self.ws = ws
        self.browser = browser
        self.noise = ""
        self.device: Device | None = None
        self.synced = False
        self.available: bool | None = None  # it has not said
        self.confirmed = asyncio.Event()

    @property
    def phone(self) -> str | None:
        return self.device.phone if self.device else None

    async def send(self, kind: str, **fields: JsonValue) -> None:
        """Sends, or does nothing when the page is gone."""
        if not self.ws.closed:
            try:
                await self.ws.send_str(json.dumps({"t": kind, **fields}))
            except ConnectionError:
                return


class Shown(NamedTuple):
    """A device has made its account be shown as online, or no longer so."""

    device: str
    phone: str
    available: bool


class Logins(BaseModel):
    """How devices have come to their logins since the server's start."""

    offers: int = 0  # to pages without a login: their QRs, or a pairing code
    links: int = 0  # of a phone with such a page
    overlaps: int = 0  # pages that were alive when another one logged in with the same device


class Switchboard:
    """All pages that are connected."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.offers: Offers[Page] = Offers()
        self.browsers = Browsers()
        self.presences: deque[Shown] = deque(maxlen=LONGEST_LOG)
        self.failures: deque[str] = deque(maxlen=LONGEST_LOG)
        self.logins = Logins()
        self.online: dict[str, Page] = {}
        self.arrival = asyncio.Condition()
        self._pages: set[Page] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- the page's side --------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        self.browsers.note(request, "websocket")
        if self.world.faults.left("refuse", None):
            raise web.HTTPServiceUnavailable
        ws = web.WebSocketResponse(heartbeat=30)
        await ws.prepare(request)
        page = Page(ws, browser_of(request))
        self._pages.add(page)
        try:
            async for message in ws:
                if message.type == WSMsgType.TEXT:
                    self._background(self._receive(page, message.data))
        finally:
            self._pages.discard(page)
            self.offers.forget(page)
            if page.device and self.online.get(page.device.id) is page:
                del self.online[page.device.id]
        return ws

    async def close(self) -> None:
        """Hangs up on everybody, so that the server can end at once."""
        for page in list(self._pages):
            await page.ws.close(code=WSCloseCode.GOING_AWAY)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _receive(self, page: Page, data: str) -> None:
        try:
            message = INCOMING.validate_json(data)
        except ValidationError:
            await page.ws.close(code=WSCloseCode.POLICY_VIOLATION, message=b"not understood")
            return
        if self.world.faults.left("silent", page.phone):
            return
        match message:
            case Hello(noise=noise, me=me):
                page.noise = noise
                await (self._login(page, me) if me else self._give_refs(page))
            case WantRefs():
                await self._give_refs(page)
            case PairConfirm():
                page.confirmed.set()
            case Got(number=number) if page.device:
                await self._got(page.device, number)
            case Seen(chat=chat) if page.device:
                await self._seen(page.device, chat)
            case Presence(available=available) if page.device:
                page.available = available
                self.presences.append(Shown(page.device.id, page.device.phone, available))
            case PageFailure(detail=detail):
                self.failures.append(detail)
            case Assertion():
                if phone := self.offers.passkey_phone(page):
                    await self.confirm_passkey(phone)
            case Call():
                await self._answer(page, message)

    async def _login(self, page: Page, me: Me) -> None:
        device = self.world.state.devices.get(me.device)
        if device is None or device.noise != page.noise:
            await page.send("failure", reason=UNLINKED)
            return
        if self.world.faults.left("refuse", device.phone):
            await page.ws.close()
            return
        if self._automation(page):
            return  # the real server leaves such a page waiting
        page.device = device
        for kind in BLOCKS:
            if self.world.faults.left(kind, device.phone):
                await self._show(page, kind)
                return
        before = self.online.get(device.id)
        if before and before is not page:
            await before.send("replaced")
            self._background(self._hang_up(before))
        self.online[device.id] = page
        phone = device.phone
        await page.send(
            "success", pn=f"{phone}@c.us", pushname=f"Phone {phone}", platform="android"
        )
        await self._sync(page, device)

    async def _hang_up(self, page: Page) -> None:
        """Close the connection of a page that another one has replaced.

        It counts, unless it is just being left. One on a machine that has lost power counts until
        the heartbeat has noticed that: wait until its device is offline.
        """
        await page.ws.close(code=WSCloseCode.OK)
        if page.ws.close_code == WSCloseCode.OK:
            self.logins.overlaps += 1

    def _automation(self, page: Page) -> str | None:
        """Why a page is not let in; None when it is."""
        refuses = self.world.behaviour.refuse_automation
        return self.browsers.automation(page.browser) if refuses else None

    async def _sync(self, page: Page, device: Device) -> None:
        """The first sync with its progress, then everything that the device has missed."""
        for step in range(SYNC_STEPS):
            await page.send("sync-progress", percent=100 * step // SYNC_STEPS)
            await asyncio.sleep(self.world.behaviour.sync_seconds / SYNC_STEPS)
        now = int(time.time())
        state = self.world.state
        contacts: list[JsonValue] = [
            {"id": wid, "name": name} for wid, name in state.contacts.items()
        ]
        chats: list[JsonValue] = [
            {"id": wid, "name": name, "t": now}
            for wid, name in (state.contacts | state.groups).items()
            if wid not in state.unloaded
        ]
        lids: list[JsonValue] = [[lid, phone] for lid, phone in state.lids.items() if phone]
        await page.send("synced", chats=chats, contacts=contacts, lids=lids)
        page.synced = True
        for stanza in self.world.owed(device.id):
            await page.send("stanza", number=stanza.number, body=stanza.body)
        await page.send("offline-end")

    async def _give_refs(self, page: Page) -> None:
        behaviour = self.world.behaviour
        self.logins.offers += 1
        refs: list[JsonValue] = [*self.offers.new_refs(page, page.noise, behaviour)]
        await page.send(
            "refs", refs=refs, first_ms=behaviour.first_ref_ms, next_ms=behaviour.next_ref_ms
        )

    async def _answer(self, page: Page, call: Call) -> None:
        try:
            result = await self._call(page, call.args)
        except Refused as error:
            await page.send("error", id=call.id, detail=str(error))
        else:
            await page.send("result", id=call.id, value=result)

    async def _call(
        self, page: Page, args: Query | QueryGroup | LinkCode | Send | RemoveMe
    ) -> dict[str, JsonValue]:
        match args:
            case Query(wid=wid):
                return {"exists": self.world.exists(wid), "lid": self.world.lid_of(wid)}
            case QueryGroup(group=group):
                if group not in self.world.state.groups:
                    raise Refused(404, "item-not-found")
                return {"subject": self.world.state.groups[group]}
            case LinkCode(phone=phone, noise=noise):
                self.logins.offers += 1
                return {"code": self.offers.new_code(page, noise, phone, self.world.behaviour)}
            case Send():
                return await self._send(page, args)
            case RemoveMe():
                if page.device:
                    self.world.unlink(page.device.id)
                return {}

    async def _send(self, page: Page, send: Send) -> dict[str, JsonValue]:
        device = page.device
        if device is None or device.id not in self.world.state.devices:
            raise Refused(403, "not logged in")
        await asyncio.sleep(self.world.behaviour.ack_seconds)
        if self.world.faults.left("send_fails", device.phone):
            raise Refused(500, "refused by the server")
        account = f"{device.phone}@c.us"
        message = Message(
            id=send.id,
            sender=account,
            to=send.to,
            text=send.body,
            media=self._media(send.media) if send.media else None,
            file=send.media.file if send.media else None,
            at=int(time.time()),
            quoted=send.quoted,
            device=device.id,
        )
        if self.world.deliver(message):
            for other in self.world.devices_of(device.phone):
                if other.id != device.id:
                    await self._push(other, message, chat=message.to, from_me=True)
            if self.world.behaviour.phone_online:
                told: dict[str, JsonValue] = {
                    "t": "receipt",
                    "type": "sender",
                    "id": message.id,
                    "ack": ACK_DELIVERED,
                }
                await self._owe(
                    device,
                    told
                    | {
                        "from": account,
                        "recipient": self.world.key_of(message.to),
                        "at": int(time.time()),
                    },
                )
            if not message.to.endswith("@g.us"):
                await self._hand_over(message)
            async with self.arrival:
                self.arrival.notify_all()
        key = self.world.key_of(message.to)
        return {"at": self.world.state.messages[message.id].at, "key": key}

    def _media(self, sent: SentMedia) -> Media:
        """Return what a recipient finds: the file downloaded and decrypted."""
        try:
            content = self.world.decrypt(sent.file, sent.kind)
        except Broken as error:
            raise Refused(400, str(error)) from None
        if content is None:
            raise Refused(404, "the file was not uploaded")
        described = sent.model_dump(exclude={"file"})
        return Media(**described, size=len(content), sha256=hashlib.sha256(content).hexdigest())

    async def _hand_over(self, message: Message) -> None:
        """Give a message between two people to the recipient's linked devices, and to a phone."""
        for device in self.world.devices_of(self.world.phone_of(message.to)):
            await self._push(device, message, chat=message.sender)
        if self.world.behaviour.auto_delivery:
            await self.acknowledge(message.id, ACK_DELIVERED)

    # --- the phone's side -------------------------------------------------------------------------

    async def scan(self, qr: str, phone: str) -> Device | None:
        """Link the page that shows the QR; None if the passkey is wanted first.

        Raises ``Refused``.
        """
        return await self._offer_taken(self.offers.by_qr(qr), phone)

    async def type_code(self, code: str, phone: str) -> Device | None:
        """Like ``scan``, with a pairing code."""
        offer = self.offers.by_code(phone, code)
        await offer.page.send("primary-hello")
        return await self._offer_taken(offer, phone)

    async def confirm_passkey(self, phone: str) -> Device:
        """Links the page that waits for the account's passkey; raises ``Refused``."""
        return await self._link(self.offers.by_passkey(phone), phone)

    async def _offer_taken(self, offer: Offer[Page], phone: str) -> Device | None:
        if automation := self._automation(offer.page):
            raise Refused(403, f"the browser is automated: its {automation}")
        if len(self.world.devices_of(phone)) >= self.world.behaviour.max_devices:
            raise Refused(409, "the account has as many linked devices as it may have")
        if phone in self.world.behaviour.passkey_accounts:
            self.offers.await_passkey(phone, offer)
            await offer.page.send("passkey", challenge=secrets.token_urlsafe(32))
            return None
        return await self._link(offer, phone)

    async def _link(self, offer: Offer[Page], phone: str) -> Device:
        """Lets the page store its login, links it, and has it log in anew."""
        page, device = offer.page, self.world.new_device(phone, offer.noise)
        page.confirmed.clear()
        await page.send(
            "pair-success",
            pn=f"{phone}@c.us",
            lid=f"9{phone}@lid",
            device=device.id,
            platform="android",
        )
        try:
            await asyncio.wait_for(page.confirmed.wait(), CONFIRM_SECONDS)
        except TimeoutError:
            raise Refused(504, "the page did not confirm") from None
        self.world.link(device)
        self.logins.links += 1
        await page.send("stream-error", code=RESTART)
        await page.ws.close()
        return device

    async def unlink(self, device: Device) -> None:
        self.world.unlink(device.id)
        if page := self.online.get(device.id):
            await page.send("failure", reason=UNLINKED)

    async def send_to(self, phone: str, message: Message, chat: str) -> int:
        """A message from somebody's phone to an account's devices; returns how many are online.

        The sender's own devices get a copy.
        """
        self.world.deliver(message)
        devices = self.world.devices_of(phone)
        for device in devices:
            await self._push(device, message, chat=chat)
        to = chat if chat.endswith("@g.us") else message.to
        for device in self.world.devices_of(self.world.phone_of(message.sender)):
            await self._push(device, message, chat=to, from_me=True)
        return sum(device.id in self.online for device in devices)

    async def send_odd(
        self, phone: str, message: Message, kind: OddKind, fields: dict[str, JsonValue]
    ) -> None:
        """Gives an account's devices a message, contact or chat whose ``fields`` are odd."""
        if kind not in ("contact", "chat"):
            self.world.deliver(message)
        for device in self.world.devices_of(phone):
            match kind:
                case "message":
                    await self._push(device, message, chat=message.sender, odd=fields)
                case "contact" | "chat":
                    await self._owe(
                        device, {"t": "odd", "kind": kind, "id": message.sender, "fields": fields}
                    )
                case "call":
                    call = self.new_call(message.sender, video=False, group=False)
                    await self._owe(device, call | {"odd": fields})
                case "group":
                    change = self.group_change(FIRST_GROUP, "add", message.sender, [message.sender])
                    await self._owe(device, change | {"odd": fields})
                case _:  # a change of a usual message
                    await self._push(device, message, chat=message.sender)
                    body = self._change(device, message, kind, message.sender)
                    await self._owe(device, body | USUAL[kind] | {"odd": fields})

    async def change(
        self, message_id: str, kind: ChangeKind, by: str | None, fields: dict[str, JsonValue]
    ) -> None:
        """Tell the devices of both sides what somebody has done to a message.

        Whether that was theirs to do, the devices decide. Raises ``Refused``.
        """
        message = self.world.state.messages.get(message_id)
        if message is None:
            raise Refused(404, "there is no such message")
        sides = {self.world.phone_of(message.sender), self.world.phone_of(message.to)}
        for device in [device for phone in sides for device in self.world.devices_of(phone)]:
            body = self._change(device, message, kind, by or message.author or message.sender)
            await self._owe(device, body | fields)

    def _change(
        self, device: Device, message: Message, kind: ChangeKind, by: str
    ) -> dict[str, JsonValue]:
        from_me = self.world.phone_of(message.sender) == device.phone
        chat = message.group or (message.to if from_me else message.sender)
        return {
            "t": kind,
            "id": message.id,
            "chat": chat,
            "from_me": from_me,
            "author": message.author,
            "by": by,
            "at_ms": int(time.time() * 1000),
        }

    async def call(self, phone: str, caller: str, video: bool, group: bool) -> str:
        """Call an account; return the call's id."""
        body = self.new_call(caller, video, group)
        for device in self.world.devices_of(phone):
            await self._owe(device, body)
        return str(body["id"])

    def new_call(self, caller: str, video: bool, group: bool) -> dict[str, JsonValue]:
        call_id = secrets.token_hex(16).upper()
        return {
            "t": "call",
            "id": call_id,
            "from": caller,
            "video": video,
            "group": group,
            "at": int(time.time()),
        }

    async def change_group(self, body: dict[str, JsonValue]) -> None:
        """Tell everybody's devices of a change of a group's members: everybody is in it."""
        for device in self.world.state.devices.values():
            await self._owe(device, body)

    def group_change(
        self, group: str, action: str, by: str, participants: list[str]
    ) -> dict[str, JsonValue]:
        return {
            "t": "group",
            "group": group,
            "action": action,
            "by": by,
            "participants": [*participants],
            "at": int(time.time()),
        }

    async def acknowledge(self, message_id: str, ack: int) -> bool:
        """A receipt for a message that a linked device sent; False when that changes nothing."""
        message = self.world.acknowledge(message_id, ack)
        if message is None:
            return False
        if message.device in self.world.state.devices:
            device = self.world.state.devices[message.device]
            await self._owe(
                device,
                {
                    "t": "receipt",
                    "id": message.id,
                    "ack": ack,
                    "from": self.world.key_of(message.to),
                    "at": int(time.time()),
                },
            )
        return True

    async def _push(
        self,
        device: Device,
        message: Message,
        chat: str,
        from_me: bool = False,
        odd: dict[str, JsonValue] | None = None,
    ) -> None:
        body: dict[str, JsonValue] = {"t": "message", "chat": chat, "from_me": from_me, "odd": odd}
        body |= message.model_dump(include=CONTENT)
        author = message.author or message.sender
        body["notify"] = f"Phone {author.partition('@')[0]}"
        if phone := self.world.state.lids.get(author):
            body["lid"] = [author, phone]
        if message.quoted:
            quoted = self.world.state.messages.get(message.quoted)
            body["quoted"] = {
                "id": message.quoted,
                "participant": quoted.sender if quoted else message.to,
                "type": (quoted.media.kind if quoted.media else "chat") if quoted else None,
                "text": quoted.text if quoted else None,
            }
        await self._owe(device, body)

    async def _owe(self, device: Device, body: dict[str, JsonValue]) -> None:
        stanza = self.world.owe(device.id, body)
        page = self.online.get(device.id)
        if page and page.synced and not self.world.faults.left("silent", device.phone):
            await page.send("stanza", number=stanza.number, body=stanza.body)

    async def _got(self, device: Device, number: int) -> None:
        """A device has what it was owed; a message to it is then delivered."""
        stanza = next(
            (stanza for stanza in self.world.owed(device.id) if stanza.number == number), None
        )
        if stanza is None:
            return
        self.world.settle(device.id, number)
        if stanza.body["t"] == "message" and not stanza.body["from_me"]:
            await self.acknowledge(str(stanza.body["id"]), ACK_DELIVERED)

    async def _seen(self, device: Device, chat: str) -> None:
        unread = [
            message.id
            for message in self.world.state.messages.values()
            if message.to == f"{device.phone}@c.us"
            and message.sender == chat
            and message.ack < ACK_READ
        ]
        for message_id in unread:
            await self.acknowledge(message_id, ACK_READ)

    # --- faults -----------------------------------------------------------------------------------

    async def fault(self, kind: Fault, phone: str | None, seconds: float) -> int:
        """Start a fault for one account's pages or for all; return how many open pages it met."""
        pages = [page for page in self._pages if phone is None or page.phone == phone]
        if kind in LASTING:
            self.world.faults.start(kind, phone, seconds)  # type: ignore[arg-type]  # mypy can't narrow by a set
        for page in pages:
            await self._show(page, kind)
        return len(pages)

    async def _show(self, page: Page, kind: Fault) -> None:
        match kind:
            case "drop" | "refuse":
                await page.ws.close()
            case "replaced" | "storage" | "outdated" | "proxy" | "tos" | "smb_tos":
                await page.send(kind)
            case "locked":
                await page.send("failure", reason=LOCKED)
            case "banned":
                left = self.world.faults.left("banned", page.phone)
                await page.send("failure", reason=TEMPORARY_BAN, code=101, expire=int(left))
                await page.ws.close()
            case "silent" | "send_fails":
                return
