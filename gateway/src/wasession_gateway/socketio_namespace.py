"""Socket.IO: the namespace ``/whatsapp``. Clients join sessions and are told what happens to them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import segno
import socketio
import socketio.exceptions
from pydantic import Field, ValidationError
from wasession_api.base import Model, Observed
from wasession_api.http.problem import HTTPProblem, Problem, to_problem
from wasession_api.http.sse import ServerSentEvent
from wasession_api.session_pod import messages
from wasession_api.session_pod.messages import IncomingMessage
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import PairingMethod

from wasession_gateway import metrics
from wasession_gateway import socketio_connections as connections
from wasession_gateway.auth import (
    LEEWAY,
    Authenticator,
    Identity,
    KeysUnavailable,
    Unauthorized,
    bearer,
)
from wasession_gateway.commands import Commands, NewSession, Owner, PairingChoice
from wasession_gateway.events import (
    Closing,
    Message,
    MessageAck,
    MessagesMissed,
    PairingCode,
    Qr,
    Told,
    events,
    told,
    which,
)
from wasession_gateway.limits import Limiter
from wasession_gateway.operations import Code
from wasession_gateway.pods import Follower, Pods
from wasession_gateway.session_cache import Session, Sessions
from wasession_gateway.socketio_connections import ADDRESS, NAMESPACE, Connections

log = logging.getLogger(__name__)
SWEEP = 1.0  # seconds between two looks at all clients
PAIRING_TIMEOUT = 5.0  # seconds
ADMINS = "admins"  # the room of admins that have joined all sessions


class Init(Observed):
    """What a client says with `init`."""

    token: str | None = Field(
        None,
        description="A token, when none came with the handshake, or a fresh one before it expires.",
    )
    client_id: str | None = Field(
        None, max_length=253, description="The session to join; all of the caller's when left out."
    )
    owner: Owner | None = Field(None, description="For admins: whose session.")
    create: bool = Field(False, description="Whether to make the session when there is none.")
    pairing: PairingChoice | None = Field(
        None, description="For a session that is made: how a phone is to be linked."
    )


@dataclass
class Client:
    """One connection to the namespace."""

    address: str
    connected_at: float
    identity: Identity | None = None
    rooms: set[str] = field(default_factory=set)
    full_since: float | None = None


@dataclass
class Offer:
    """The code that a session's phone can use now, as clients were told it."""

    attempt: int
    expires_at: datetime | None
    told: Told

    @property
    def expired(self) -> bool:
        return self.expires_at is not None and self.expires_at < datetime.now(UTC)


class Socket(socketio.AsyncNamespace):  # type: ignore[misc]
    """The namespace. What happens to a session comes from the cache, its messages and codes from its pod."""

    def __init__(
        self,
        connections: Connections,
        authenticator: Authenticator,
        sessions: Sessions,
        commands: Commands,
        pods: Pods,
        limiter: Limiter,
    ) -> None:
        super().__init__(NAMESPACE)
        self._connections = connections
        self._authenticator, self._sessions, self._commands, self._pods = (
            authenticator,
            sessions,
            commands,
            pods,
        )
        self._limiter = limiter
        self._clients: dict[str, Client] = {}
        self._rooms: dict[str, set[str]] = {}  # who hears of what
        self._shown: dict[str, Session] = {}  # the state of each session that clients know
        self._changed: dict[str, None] = {}  # names, in the order of their changes
        self._news = asyncio.Event()
        self._followers: dict[str, Follower] = {}
        self._offers: dict[str, Offer] = {}
        connections.server.register_namespace(self)

    # --- what clients do --------------------------------------------------------------------------

    async def on_connect(self, sid: str, environ: dict[str, Any], auth: object = None) -> None:
        """The handshake. Without a token the client has some seconds to say ``init`` with one."""
        client = Client(environ["aiohttp.request"][ADDRESS], time.monotonic())
        token = auth.get("token") if isinstance(auth, dict) else None
        token = token or bearer(environ.get("HTTP_AUTHORIZATION"))
        if token is not None:
            try:
                client.identity = await self._authenticator.identify(token)
            except Unauthorized as error:
                raise _refusal(HTTPProblem(401, "Unauthorized", str(error))) from None
            except KeysUnavailable as error:
                raise _refusal(HTTPProblem(503, "Keys unavailable", str(error))) from None
        self._clients[sid] = client
        metrics.CLIENTS.set(len(self._clients))

    async def on_disconnect(self, sid: str, reason: str) -> None:
        client = self._clients.pop(sid, None)
        metrics.CLIENTS.set(len(self._clients))
        self._connections.has_left(sid)
        for room in client.rooms if client is not None else ():
            self._leave(sid, room)
            if room not in self._rooms:
                for name in self._names_in(room):
                    self._follow(name)

    async def on_init(self, sid: str, payload: object = None, *_: object) -> dict[str, Any]:
        """Joins sessions; the answer has them as they are."""
        try:
            init = Init.model_validate({} if payload is None else payload)
            return {
                "ok": True,
                "sessions": [session.view.dump() for session in await self._init(sid, init)],
            }
        except ValidationError as error:
            refused = to_problem(error)
        except Unauthorized as error:
            refused = HTTPProblem(401, "Unauthorized", str(error))
        except KeysUnavailable as error:
            refused = HTTPProblem(503, "Keys unavailable", str(error))
        except HTTPProblem as error:
            refused = error
        except Exception:
            log.exception("init failed")
            refused = HTTPProblem(
                503, "Not available", "the cluster does not answer now; try again"
            )
        problem = refused.problem().dump()
        await self._emit(("exception", problem), [sid])
        return {"ok": False, "problem": problem}

    async def _init(self, sid: str, init: Init) -> list[Session]:
        client = self._clients[sid]
        caller = (
            f"subject:{client.identity.subject}" if client.identity else f"address:{client.address}"
        )
        wait = self._limiter.take(caller, time.monotonic())
        if wait:
            raise HTTPProblem(429, "Too many requests", f"try again in {wait:.0f} s")
        if init.token is not None or client.identity is None:
            identity = await self._authenticator.identify(init.token)
            if client.identity is not None and client.identity.role != identity.role:
                raise HTTPProblem(
                    403, "Not allowed", "this connection is somebody else's: open another"
                )
            client.identity = identity
        if init.client_id is not None:
            return [await self._join_one(sid, client.identity, init)]
        return await self._join_all(sid, client.identity, init.owner)

    async def _join_one(self, sid: str, who: Identity, init: Init) -> Session:
        assert init.client_id is not None
        try:
            session = self._commands.find(who, init.client_id, init.owner)
        except HTTPProblem as error:
            if error.status != 404 or not init.create:
                raise
            wanted = NewSession(client_id=init.client_id, owner=init.owner, pairing=init.pairing)
            session = await self._commands.create(who, wanted)
        await self._join(sid, _room(session.name), [session.name])
        return session

    async def _join_all(self, sid: str, who: Identity, owner: str | None) -> list[Session]:
        """All sessions of an owner, also those to come; for an admin who names no owner the state of everybody's."""
        if who.admin and owner is None:
            room, found = ADMINS, list(self._sessions.of(None))
        else:
            if owner not in (None, who.subject) and not who.admin:
                raise HTTPProblem(403, "Not allowed", "only admins join others' sessions")
            room, found = (
                _owner_room(owner or who.subject),
                list(self._sessions.of(owner or who.subject)),
            )
        await self._join(sid, room, [session.name for session in found])
        return found

    async def _join(self, sid: str, room: str, names: list[str]) -> None:
        """Enters a room; the client is told at once how each session in it is."""
        if (client := self._clients.get(sid)) is None:
            return  # has gone meanwhile
        client.rooms.add(room)
        self._rooms.setdefault(room, set()).add(sid)
        for name in names:
            if (shown := self._shown.get(name)) is not None:  # else it comes with the news
                for event in events(None, shown):
                    await self._emit(told(event), [sid])
            if room != ADMINS:
                if (offer := self._offers.get(name)) is not None and not offer.expired:
                    await self._emit(offer.told, [sid])
                self._follow(name)
            await asyncio.sleep(0)  # others have their turn

    def _leave(self, sid: str, room: str) -> None:
        self._rooms[room].discard(sid)
        if not self._rooms[room]:
            del self._rooms[room]

    # --- what clients are told --------------------------------------------------------------------

    def session_changed(self, name: str) -> None:
        self._changed[name] = None
        self._news.set()

    async def run(self) -> None:
        """Tells clients of changes, in their order, and looks after the connections, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tell())
            tasks.create_task(self._look_after_clients())

    async def _tell(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._changed:
                name = next(iter(self._changed))
                del self._changed[name]
                try:
                    await self._tell_of(name)
                except Exception:  # one session's trouble is nobody else's
                    log.exception("clients not told", extra={"session": name})
                await asyncio.sleep(0)  # others have their turn

    async def _tell_of(self, name: str) -> None:
        before, now = self._shown.get(name), self._sessions.get(name)
        if now is not None:
            self._shown[name] = now
        else:
            self._shown.pop(name, None)
        if before is not None and (
            now is None or before.uid != now.uid or before.owner != now.owner
        ):
            await self._emit_all(before, None)
            self._turn_out(name, now if now is not None and now.uid == before.uid else None)
            before = None
        await self._emit_all(before, now)
        self._follow(name)

    async def _emit_all(self, before: Session | None, now: Session | None) -> None:
        sids = self._sids([*_audience(now or before), ADMINS])
        for event in events(before, now) if sids else ():
            await self._emit(told(event), sids)

    async def _emit_of(self, session: Session, event: Model) -> None:
        """To those that hear all of a session."""
        await self._emit(told(event), self._sids(_audience(session)))

    async def _emit(self, what: Told, sids: Iterable[str]) -> None:
        """Nothing else runs meanwhile, so that what is told one after the other is heard without anything in between."""
        name, content = what
        metrics.EVENTS.labels(name).inc()
        await self._connections.tell(sids, name, content)

    def _turn_out(self, name: str, now: Session | None) -> None:
        """A session's clients leave its room when it is gone, and when it is not theirs any more."""
        room = _room(name)
        for sid in self._sids([room]):
            client = self._clients[sid]
            if now is None or client.identity is None or not client.identity.may_see(now.owner):
                client.rooms.discard(room)
                self._leave(sid, room)
        self._offers.pop(name, None)

    def _sids(self, rooms: list[str]) -> set[str]:
        return set[str]().union(*(self._rooms.get(room, ()) for room in rooms))

    def _names_in(self, room: str) -> list[str]:
        """The sessions that a room's members hear all of."""
        kind, _, name = room.partition(":")
        if kind == "session":
            return [name]
        return [session.name for session in self._sessions.of(name)] if kind == "owner" else []

    # --- what pods say ----------------------------------------------------------------------------

    def _follow(self, name: str) -> None:
        """Follows the session's pod while it has one and somebody listens."""
        session, follower = self._shown.get(name), self._followers.get(name)
        heard = any(room in self._rooms for room in _audience(session))
        wanted = heard and session is not None and session.status.pod_name is not None
        if follower is not None and (
            session is None or not wanted or follower.session.uid != session.uid
        ):
            self._followers.pop(name).close()
            self._offers.pop(name, None)
            follower = None
        if session is not None and wanted:
            if follower is None:
                self._followers[name] = Follower(self._pods, session, self._heard)
            else:
                follower.update(session)

    async def _heard(self, session: Session, event: ServerSentEvent) -> None:
        match event.type:
            case "state":
                await self._pairing(session, Report.model_validate_json(event.data))
            case "message":
                message = IncomingMessage.model_validate_json(event.data)
                await self._emit_of(
                    session, Message.model_construct(**which(session), **dict(message))
                )
            case "ack":
                ack = messages.MessageAck.model_validate_json(event.data)
                await self._emit_of(
                    session, MessageAck.model_construct(**which(session), **dict(ack))
                )
            case "gap":
                await self._emit_of(session, MessagesMissed(**which(session)))

    async def _pairing(self, session: Session, report: Report) -> None:
        """Tells a new code once; the pod's report says only that there is one."""
        pairing = report.pairing
        if (
            report.session_uid not in (None, session.uid)
            or pairing is None
            or not pairing.available
        ):
            self._offers.pop(session.name, None)
            return
        known = self._offers.get(session.name)
        if known is not None and (known.attempt, known.expires_at) == (
            pairing.attempt,
            pairing.expires_at,
        ):
            return
        async with self._pods.ask(session, "GET", "/v1/pairing", PAIRING_TIMEOUT) as answer:
            if answer.status != 200:
                return  # it was used in the meantime
            code = Code.model_validate_json(await answer.read()).code
        what: Qr | PairingCode
        if pairing.method is PairingMethod.QR_CODE:
            image = segno.make(code).png_data_uri(scale=6, border=4)
            what = Qr(
                **which(session),
                qr=code,
                image=image,
                attempt=pairing.attempt,
                expires_at=pairing.expires_at,
            )
        else:
            what = PairingCode(
                **which(session), code=code, attempt=pairing.attempt, expires_at=pairing.expires_at
            )
        self._offers[session.name] = Offer(pairing.attempt, pairing.expires_at, told(what))
        await self._emit_of(session, what)

    # --- the end of connections -------------------------------------------------------------------

    async def _look_after_clients(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            for sid, client in list(self._clients.items()):
                if (closing := self._overdue(sid, client)) is not None:
                    await self._close(sid, closing)
            await self._connections.sweep(set(self._clients))

    def _overdue(self, sid: str, client: Client) -> Closing | None:
        """Why a client's connection has to end now."""
        now = time.monotonic()
        if client.identity is None:
            if now - client.connected_at < connections.INTRODUCTION:
                return None
            return Closing(
                reason="NotAuthenticated",
                message="no token came with the handshake or init",
                reconnect=False,
            )
        if time.time() >= client.identity.expires_at + LEEWAY:
            return Closing(
                reason="TokenExpired",
                message="the token has expired: connect with a new one",
                reconnect=False,
            )
        if self._connections.unread(sid) < connections.FULL_QUEUE:
            client.full_since = None
        elif client.full_since is None:
            client.full_since = now
        elif now - client.full_since > connections.FULL_FOR:
            return Closing(
                reason="TooSlow", message="too many events were left unread", reconnect=True
            )
        return None

    async def close(self) -> None:
        """Tells all clients that the gateway goes, and ends their connections; socket.io-client then finds another one."""
        closing = Closing(
            reason="ShuttingDown", message="this gateway is shutting down", reconnect=True
        )
        await asyncio.gather(*(self._close(sid, closing) for sid in list(self._clients)))
        await self._connections.close()
        for follower in self._followers.values():
            follower.close()

    async def _close(self, sid: str, closing: Closing) -> None:
        metrics.CLIENTS_CLOSED.labels(closing.reason).inc()
        await self._emit(told(closing), [sid])
        if closing.reconnect:
            await self._connections.hang_up(sid)
        else:
            await self.disconnect(sid)  # after which socket.io-client stays away


def _room(session: str) -> str:
    return f"session:{session}"


def _owner_room(owner: str) -> str:
    return f"owner:{owner}"


def _audience(session: Session | None) -> list[str]:
    """The rooms of those that hear all of a session."""
    if session is None:
        return []
    return [
        _room(session.name),
        *([_owner_room(session.owner)] if session.owner is not None else []),
    ]


def _refusal(refused: HTTPProblem) -> socketio.exceptions.ConnectionRefusedError:
    """What socket.io-client gives to ``connect_error`` as ``error.message`` and ``error.data``."""
    problem: Problem = refused.problem()
    return socketio.exceptions.ConnectionRefusedError(problem.detail, problem.dump())
