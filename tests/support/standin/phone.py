"""The control API: what people do with their phones, and faults. See README.md."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal, Self

from aiohttp import web
from pydantic import (
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from support.standin.chat import OddKind, Switchboard
from support.standin.files import FileKeys
from support.standin.offers import Refused
from support.standin.world import (
    ACK_DELIVERED,
    ACK_READ,
    PHONE_ABSENCE_DAYS,
    Behaviour,
    Card,
    Device,
    Fault,
    Lid,
    Location,
    Media,
    Message,
    Number,
    Poll,
)

SWITCHBOARD = web.AppKey("switchboard", Switchboard)
LONGEST_WAIT = 60.0  # seconds
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
routes = web.RouteTableDef()


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Scan(Body):
    """What a phone does with the QR's text."""

    qr: str
    phone: Number = "15551234567"


class Code(Body):
    """What a person types on the phone."""

    phone: Number
    code: str


class Account(Body):
    phone: Number


class Logout(Body):
    """Linked devices → Log out, for one device or all."""

    phone: Number
    device: str | None = None


class Absence(Body):
    """The phone has not been used for some days."""

    phone: Number
    days: Annotated[float, Field(ge=0)]


class Send(Body):
    """A message from somebody to an account, in a group when one is named.

    ``content`` are the bytes of its file, in Base64; without them there is nothing to download.
    """

    sender: Number | Lid = Field(alias="from")
    to: Number
    as_lid: bool = False
    text: str | None = None
    media: Media | None = None
    content: Base64Bytes | None = None
    location: Location | None = None
    contacts: list[Card] = []
    poll: Poll | None = None
    mentions: list[str] = []
    forwarded: bool = False
    view_once: bool = False
    quoted: str | None = None
    group: str | None = None
    at: int | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        kinds = (self.text is not None, self.media, self.location, self.contacts, self.poll)
        if sum(map(bool, kinds)) != 1:
            raise ValueError("one of text, media, location, contacts and poll is needed")
        if self.content is not None and self.media is None:
            raise ValueError("content needs media")
        return self


class Change(Body):
    """Somebody does something to a message, by default its sender."""

    id: str
    by: str | None = None


class Edit(Change):
    text: str


class Deletion(Change):
    admin: bool = False


class Reaction(Change):
    emoji: str


class Vote(Change):
    options: list[str]


class Call(Body):
    caller: Number | Lid = Field(alias="from")
    to: Number
    video: bool = False
    group: bool = False


class Members(Body):
    """A change of a group's members."""

    group: str
    action: Literal["add", "join", "remove", "leave", "promote", "demote", "subject"]
    by: str
    participants: list[str]


class Receipt(Body):
    """A recipient's phone has got (2) or shown (3) a message that a linked device sent."""

    id: str
    ack: Annotated[int, Field(ge=ACK_DELIVERED, le=ACK_READ)]


class Group(Body):
    name: str
    loaded: bool = True


class Odd(Body):
    """A message, contact or chat with odd fields; see README.md for what JSON can't say."""

    kind: OddKind
    to: Number
    sender: Number | Lid = Field("15550001111", alias="from")
    fields: dict[str, JsonValue]


class Person(Body):
    """Somebody with a LID; ``listed`` names the servers of the ids that they are listed by."""

    phone: Number | None = None
    name: str | None = None
    listed: list[Literal["c.us", "lid"]] = ["c.us", "lid"]


class NewContact(Body):
    phone: Number
    name: str


class FaultOrder(Body):
    """A fault, for the pages of one account or for all."""

    kind: Fault
    phone: Number | None = None
    seconds: Annotated[float, Field(gt=0)] = 5


class Since(Body):
    """Messages after the first ``after``, waiting up to ``wait`` seconds for one."""

    after: Annotated[int, Field(ge=0)] = 0
    wait: Annotated[float, Field(ge=0, le=LONGEST_WAIT)] = 0


def problem(status: int, detail: str) -> web.Response:
    said = {
        "type": "about:blank",
        "title": "The phone can't do that",
        "status": status,
        "detail": detail,
    }
    return web.json_response(said, status=status, content_type="application/problem+json")


@web.middleware
async def explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refusals and unusable requests as problems with a sentence."""
    try:
        return await handler(request)
    except Refused as error:
        return problem(error.status, str(error))
    except (ValidationError, json.JSONDecodeError) as error:
        return problem(400, str(error))


def linked(device: Device | None) -> web.Response:
    """Answer 202 when the account's passkey is wanted on the other device."""
    if device is None:
        return web.json_response({"device": None, "passkey": True}, status=202)
    return web.json_response({"device": device.id})


@routes.post("/phone/scan")
async def scan(request: web.Request) -> web.Response:
    order = Scan.model_validate_json(await request.read())
    return linked(await request.app[SWITCHBOARD].scan(order.qr, order.phone))


@routes.post("/phone/code")
async def code(request: web.Request) -> web.Response:
    order = Code.model_validate_json(await request.read())
    return linked(await request.app[SWITCHBOARD].type_code(order.code, order.phone))


@routes.post("/phone/passkey")
async def passkey(request: web.Request) -> web.Response:
    order = Account.model_validate_json(await request.read())
    return linked(await request.app[SWITCHBOARD].confirm_passkey(order.phone))


@routes.post("/phone/logout")
async def logout(request: web.Request) -> web.Response:
    order = Logout.model_validate_json(await request.read())
    return await unlink(request, order.phone, order.device)


@routes.post("/phone/absent")
async def absent(request: web.Request) -> web.Response:
    order = Absence.model_validate_json(await request.read())
    if order.days <= PHONE_ABSENCE_DAYS:
        return web.json_response({"removed": 0})
    return await unlink(request, order.phone, None)


async def unlink(request: web.Request, phone: str, device_id: str | None) -> web.Response:
    board = request.app[SWITCHBOARD]
    devices = [device for device in board.world.devices_of(phone) if device_id in (None, device.id)]
    for device in devices:
        await board.unlink(device)
    return web.json_response({"removed": len(devices)})


@routes.post("/phone/send")
async def send(request: web.Request) -> web.Response:
    board, order = request.app[SWITCHBOARD], Send.model_validate_json(await request.read())
    if order.group is not None and not board.world.exists(order.group):
        raise Refused(404, "there is no such group")
    sender = wid_of(order.sender)
    if order.as_lid:
        sender = board.world.lid_of(sender) or sender
    message = Message(
        id="3A" + secrets.token_hex(9).upper(),
        sender=sender,
        to=f"{order.to}@c.us",
        text=order.text or "",
        media=order.media,
        file=store_content(board, order),
        location=order.location,
        contacts=order.contacts,
        poll=order.poll,
        mentions=order.mentions,
        forwarded=order.forwarded,
        view_once=order.view_once,
        at=int(time.time()) if order.at is None else order.at,
        group=order.group,
        author=sender if order.group else None,
        quoted=order.quoted,
    )
    online = await board.send_to(order.to, message, chat=order.group or sender)
    return web.json_response({"id": message.id, "delivered": online})


def store_content(board: Switchboard, order: Send) -> FileKeys | None:
    """Encrypt and store a file, and note its size and hash in ``order.media``."""
    if order.content is None or order.media is None:
        return None
    order.media.size = len(order.content)
    order.media.sha256 = hashlib.sha256(order.content).hexdigest()
    return board.world.encrypt(order.content, order.media.kind)


@routes.delete("/phone/messages/{id}/file")
async def expire_file(request: web.Request) -> web.Response:
    world = request.app[SWITCHBOARD].world
    message = world.state.messages.get(request.match_info["id"])
    if message is None or message.file is None:
        raise Refused(404, "there is no such file")
    world.expire(message.file)
    return web.json_response({})


@routes.post("/phone/edit")
async def edit(request: web.Request) -> web.Response:
    order = Edit.model_validate_json(await request.read())
    await request.app[SWITCHBOARD].change(order.id, "edit", order.by, {"text": order.text})
    return web.json_response({})


@routes.post("/phone/delete")
async def delete(request: web.Request) -> web.Response:
    order = Deletion.model_validate_json(await request.read())
    await request.app[SWITCHBOARD].change(order.id, "deletion", order.by, {"admin": order.admin})
    return web.json_response({})


@routes.post("/phone/react")
async def react(request: web.Request) -> web.Response:
    order = Reaction.model_validate_json(await request.read())
    await request.app[SWITCHBOARD].change(order.id, "reaction", order.by, {"emoji": order.emoji})
    return web.json_response({})


@routes.post("/phone/vote")
async def vote(request: web.Request) -> web.Response:
    order = Vote.model_validate_json(await request.read())
    board = request.app[SWITCHBOARD]
    await board.change(order.id, "vote", order.by, {"options": [*order.options]})
    return web.json_response({})


@routes.post("/phone/call")
async def call(request: web.Request) -> web.Response:
    order = Call.model_validate_json(await request.read())
    caller = wid_of(order.caller)
    call_id = await request.app[SWITCHBOARD].call(order.to, caller, order.video, order.group)
    return web.json_response({"id": call_id})


@routes.post("/phone/members")
async def members(request: web.Request) -> web.Response:
    board, order = request.app[SWITCHBOARD], Members.model_validate_json(await request.read())
    change = board.group_change(order.group, order.action, order.by, order.participants)
    await board.change_group(change)
    return web.json_response({})


def wid_of(person: str) -> str:
    return person if person.endswith("@lid") else f"{person}@c.us"


@routes.post("/phone/odd")
async def odd(request: web.Request) -> web.Response:
    board, order = request.app[SWITCHBOARD], Odd.model_validate_json(await request.read())
    message = Message(
        id="3A" + secrets.token_hex(9).upper(),
        sender=wid_of(order.sender),
        to=f"{order.to}@c.us",
        text=order.kind,
        at=int(time.time()),
    )
    await board.send_odd(order.to, message, order.kind, order.fields)
    return web.json_response({"id": message.id})


@routes.post("/phone/receipt")
async def receipt(request: web.Request) -> web.Response:
    order = Receipt.model_validate_json(await request.read())
    return web.json_response(
        {"changed": await request.app[SWITCHBOARD].acknowledge(order.id, order.ack)}
    )


@routes.post("/phone/group")
async def group(request: web.Request) -> web.Response:
    order = Group.model_validate_json(await request.read())
    group = request.app[SWITCHBOARD].world.add_group(order.name, order.loaded)
    return web.json_response({"id": group})


@routes.post("/phone/person")
async def person(request: web.Request) -> web.Response:
    order = Person.model_validate_json(await request.read())
    lid = request.app[SWITCHBOARD].world.add_person(order.phone, order.name, order.listed)
    return web.json_response({"lid": lid})


@routes.post("/phone/contact")
async def contact(request: web.Request) -> web.Response:
    order = NewContact.model_validate_json(await request.read())
    request.app[SWITCHBOARD].world.add_contact(order.phone, order.name)
    return web.json_response({})


@routes.get("/phone/messages")
async def messages(request: web.Request) -> web.Response:
    board, since = request.app[SWITCHBOARD], Since.model_validate(dict(request.query))
    found: list[Message] = []

    def arrived() -> bool:
        found[:] = board.world.sent_by_devices()[since.after :]
        return bool(found)

    if not arrived() and since.wait:
        async with board.arrival:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(board.arrival.wait_for(arrived), since.wait)
    return web.json_response([message.model_dump(by_alias=True) for message in found])


@routes.get("/phone/messages/{id}")
async def message_by_id(request: web.Request) -> web.Response:
    message = request.app[SWITCHBOARD].world.state.messages.get(request.match_info["id"])
    if message is None:
        raise Refused(404, "there is no such message")
    return web.json_response(message.model_dump(by_alias=True))


@routes.get("/phone/devices")
async def devices(request: web.Request) -> web.Response:
    board = request.app[SWITCHBOARD]
    return web.json_response(
        [
            {
                "id": device.id,
                "phone": device.phone,
                "online": device.id in board.online,
                "available": page.available if (page := board.online.get(device.id)) else None,
            }
            for device in board.world.state.devices.values()
        ]
    )


@routes.get("/phone/presence")
async def presence(request: web.Request) -> web.Response:
    shown = request.app[SWITCHBOARD].presences
    return web.json_response([one._asdict() for one in shown])


@routes.get("/server/browsers")
async def browsers(request: web.Request) -> web.Response:
    shown = [one.model_dump() for one in request.app[SWITCHBOARD].browsers]
    return web.json_response(shown)


@routes.get("/server/logins")
async def logins(request: web.Request) -> web.Response:
    return web.json_response(request.app[SWITCHBOARD].logins.model_dump())


@routes.get("/server/errors")
async def errors(request: web.Request) -> web.Response:
    return web.json_response([*request.app[SWITCHBOARD].failures])


@routes.post("/server/fault")
async def fault(request: web.Request) -> web.Response:
    order = FaultOrder.model_validate_json(await request.read())
    met = await request.app[SWITCHBOARD].fault(order.kind, order.phone, order.seconds)
    return web.json_response({"pages": met})


@routes.delete("/server/fault")
async def heal(request: web.Request) -> web.Response:
    request.app[SWITCHBOARD].world.faults.clear()
    return web.json_response({})


@routes.get("/server/behaviour")
async def behaviour(request: web.Request) -> web.Response:
    return web.json_response(request.app[SWITCHBOARD].world.behaviour.model_dump())


@routes.patch("/server/behaviour")
async def behave(request: web.Request) -> web.Response:
    world = request.app[SWITCHBOARD].world
    changes = TypeAdapter(dict[str, object]).validate_json(await request.read())
    world.behaviour = Behaviour.model_validate(world.behaviour.model_dump() | changes)
    return web.json_response(world.behaviour.model_dump())
