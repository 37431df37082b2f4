"""The Socket.IO namespace ``/whatsapp``: clients join sessions and receive their events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

import segno
import socketio
import socketio.exceptions
from aiohttp import hdrs
from pydantic import Discriminator, Field, Tag
from wasession_api.base import Model, Observed
from wasession_api.http.problem import HTTPProblem
from wasession_api.session_pod.client import read_body
from wasession_api.session_pod.events import Cursor
from wasession_api.session_pod.link_code import LinkCode
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import PairingMethod

from wasession_gateway import events, metrics
from wasession_gateway import socketio_connections as connections
from wasession_gateway.audit import SOURCE, AuditLog, Source
from wasession_gateway.auth import (
    Authenticator,
    Identity,
    bare,
    bearer,
)
from wasession_gateway.commands import Commands, NewSession, Owner, PairingChoice
from wasession_gateway.events import Closing, NamedPayload, PairingCode, Qr
from wasession_gateway.hibernation import is_asleep, is_requested
from wasession_gateway.limits import Limiter
from wasession_gateway.pods import Pods
from wasession_gateway.problems import log_unexpected, problem_of
from wasession_gateway.scopes import WAKE, Scope
from wasession_gateway.session import Session
from wasession_gateway.session_cache import SessionCache
from wasession_gateway.session_feed import SessionFeed
from wasession_gateway.socketio_connections import NAMESPACE, Connections

SWEEP = 1.0  # seconds between two checks of all clients
PAIRING_TIMEOUT = 5.0  # seconds
ADMINS = "admins"  # the room of admins that have joined all sessions
# The scopes of what clients send, as events.SCOPES has those of what they receive. A client joins
# with any of these, and receives only what each permits.
JOIN = (Scope.SESSIONS_READ, Scope.PAIR, Scope.MESSAGES_READ)
CREATE = (Scope.SESSIONS_WRITE,)
FROM_POD = (Scope.PAIR, Scope.MESSAGES_READ)  # what the events of a session's pod take
# Actions in the audit log, besides those of REST.
CREATE_SESSION, JOIN_SESSIONS, RECEIVE_CODE = "createSession", "joinSessions", "receiveLinkCode"
WAKE_SESSION = "wakeSession"


Since = Annotated[
    Annotated[Cursor, Tag("id")] | Annotated[dict[str, Cursor], Tag("ids")],
    Discriminator(lambda since: "ids" if isinstance(since, dict) else "id"),
]


class Init(Observed):
    """Payload of `init`."""

    token: str | None = Field(
        None, description="A token: the first when the handshake had none, or a renewed one."
    )
    client_id: str | None = Field(
        None, max_length=253, description="The session to join; all of the caller's when omitted."
    )
    owner: Owner | None = Field(None, description="For admins: the session's owner.")
    create: bool = Field(False, description="Whether to create the session if it does not exist.")
    pairing: PairingChoice | None = Field(
        None, description="For a session that is created: how to link the phone."
    )
    wake: bool = Field(
        True, description="Whether to wake the session named by `clientId` if it sleeps."
    )
    since: Since | None = Field(
        None,
        description="ID of the last event of the session that the client has had; or for several "
        "sessions, by the names of the WhatsAppSessions. What followed is sent first.",
    )

    def cursors(self, sessions: Iterable[Session]) -> dict[str, str]:
        """Return where to begin with these sessions, by their names."""
        if not isinstance(self.since, str):
            return self.since or {}
        if self.client_id is None:
            raise HTTPProblem(
                422, "Bad request", "since: must have one ID for each name of a WhatsAppSession"
            )
        return {session.name: self.since for session in sessions}


@dataclass
class Client:
    """One connection to the namespace."""

    source: Source
    connected_at: float
    identity: Identity | None = None
    rooms: set[str] = field(default_factory=set)
    full_since: float | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # to be sent a page of what it missed

    def may(self, *scopes: str) -> bool:
        return self.identity is not None and self.identity.may(*scopes)


class Namespace(socketio.AsyncNamespace):  # type: ignore[misc]
    """The namespace: states come from the session cache, messages and codes from the pods."""

    def __init__(
        self,
        connections: Connections,
        authenticator: Authenticator,
        sessions: SessionCache,
        commands: Commands,
        pods: Pods,
        audit_log: AuditLog,
        subjects: Limiter,
        addresses: Limiter,
    ) -> None:
        """``subjects`` limits each user's ``init``, ``addresses`` those of unknown users."""
        super().__init__(NAMESPACE)
        self._connections, self._authenticator = connections, authenticator
        self._sessions, self._commands, self._pods = sessions, commands, pods
        self._audit_log, self._subjects, self._addresses = audit_log, subjects, addresses
        self._clients: dict[str, Client] = {}
        self._rooms: dict[str, set[str]] = {}  # client IDs by room
        self._published: dict[str, Session] = {}  # the state of each session that clients know
        self._changed: dict[str, None] = {}  # names of sessions, in the order of their changes
        self._has_changes = asyncio.Event()
        self._feeds: dict[str, SessionFeed] = {}  # of the sessions that have listeners
        self._link_codes: dict[str, Qr | PairingCode] = {}
        connections.server.register_namespace(self)
        connections.server.register_namespace(OtherNamespaces("*"))

    # --- what clients do --------------------------------------------------------------------------

    async def on_connect(self, sid: str, environ: dict[str, Any], auth: object = None) -> None:
        """The handshake. A client without a token has some seconds to send one with ``init``."""
        client = Client(environ["aiohttp.request"][SOURCE], time.monotonic())
        token = auth.get("token") if isinstance(auth, dict) else None
        token = bare(token) or bearer(environ.get("HTTP_AUTHORIZATION"))
        if token is not None:
            try:
                client.identity = await self._authenticator.identify(token)
            except Exception as error:
                raise _refusal(problem_of(error)) from None
        self._clients[sid] = client
        metrics.CLIENTS.set(len(self._clients))

    async def on_disconnect(self, sid: str, reason: str) -> None:
        client = self._clients.pop(sid, None)
        metrics.CLIENTS.set(len(self._clients))
        self._connections.left(sid)
        for room in client.rooms if client is not None else ():
            self._leave(sid, room)
            self._update_feeds(room, sid)

    async def on_init(self, sid: str, payload: object = None, *_: object) -> dict[str, Any]:
        """Join sessions; the acknowledgement has their present states."""
        try:
            init = Init.model_validate({} if payload is None else payload)
            return {"ok": True, "sessions": await self._init(sid, init)}
        except Exception as error:
            content = _with_retry(problem_of(error))
        await self._emit(("exception", content), [sid])
        return {"ok": False, "problem": content}

    async def _init(self, sid: str, init: Init) -> list[dict[str, Any]]:
        client = self._clients[sid]
        if client.identity is None:
            self._addresses.check(client.source.address)
            caller = await self._identify(sid, client, init.token)
            self._subjects.check(caller.subject)
        else:
            self._subjects.check(client.identity.subject)
            caller = await self._identify(sid, client, init.token)
        try:
            caller.require(*JOIN)
            if init.client_id is not None:
                sessions = [await self._join_one(sid, client, caller, init.client_id, init)]
            else:
                sessions = await self._join_all(sid, caller, init)
        except Exception as error:
            self._audit_failed_init(client, init, error)
            raise
        can_read = caller.may(Scope.SESSIONS_READ)
        return [session.view.dump() for session in sessions] if can_read else []

    def _audit_failed_init(self, client: Client, init: Init, error: Exception) -> None:
        """Write a line if a session was not created, or the caller may not join it."""
        status = error.status if isinstance(error, HTTPProblem) else None
        creates = init.client_id is not None and init.create
        if creates or status in (403, 404):
            name = self._sessions.find_name(init.client_id) if init.client_id else None
            action = CREATE_SESSION if creates else JOIN_SESSIONS
            self._audit_log.write(
                action, client.source, client.identity, name, status, hidden=status == 404
            )

    async def _identify(self, sid: str, client: Client, token: str | None) -> Identity:
        """Return the caller; a renewed token takes effect at once, also on what was joined."""
        if client.identity is not None and token is None:
            return client.identity
        identity = await self._authenticator.identify(bare(token))
        if client.identity is not None and client.identity.subject != identity.subject:
            raise HTTPProblem(
                403, "Not allowed", "this connection is another user's: open a new one"
            )
        client.identity = identity
        for room in list(client.rooms):
            if not self._may_be_in(identity, room):
                client.rooms.discard(room)
                self._leave(sid, room)
            self._update_feeds(room, sid)
        return identity

    async def _join_one(
        self, sid: str, client: Client, caller: Identity, client_id: str, init: Init
    ) -> Session:
        try:
            session = self._commands.find(caller, client_id, init.owner)
        except HTTPProblem as error:
            if error.status != 404 or not init.create:
                raise
            caller.require(*CREATE)
            wanted = NewSession(client_id=client_id, owner=init.owner, pairing=init.pairing)
            session = await self._commands.create(caller, wanted)
            self._audit_log.write(CREATE_SESSION, client.source, caller, session.name, 201)
        await self._join(sid, _session_room(session.name), [session], init)
        return await self._wake(client, caller, session) if init.wake else session

    async def _wake(self, client: Client, caller: Identity, session: Session) -> Session:
        """Wake a session that sleeps, if the caller may; the client has joined it in any case."""
        if not is_asleep(session) or is_requested(session) or not caller.may(*WAKE):
            return session
        status = 202
        try:
            session = await self._commands.wake(session)
        except Exception as error:
            status = problem_of(error).status
        self._audit_log.write(WAKE_SESSION, client.source, caller, session.name, status)
        return session

    async def _join_all(self, sid: str, caller: Identity, init: Init) -> list[Session]:
        """Join all sessions of an owner, including future ones.

        An admin who names no owner joins everybody's, for their states only.
        """
        owner = init.owner
        if caller.admin and owner is None:
            room, sessions = ADMINS, list(self._sessions.of(None))
        else:
            if owner not in (None, caller.subject) and not caller.admin:
                raise HTTPProblem(403, "Not allowed", "only admins may join the sessions of others")
            owner = owner or caller.subject
            room, sessions = _owner_room(owner), list(self._sessions.of(owner))
        await self._join(sid, room, sessions, init)
        return sessions

    async def _join(self, sid: str, room: str, sessions: list[Session], init: Init) -> None:
        """Enter a room; the client gets the present state of each session in it at once."""
        cursors = init.cursors(sessions)
        if (client := self._clients.get(sid)) is None:
            return  # disconnected in the meantime
        client.rooms.add(room)
        self._rooms.setdefault(room, set()).add(sid)
        names = [session.name for session in sessions]
        if room != ADMINS and client.may(Scope.MESSAGES_READ):
            # Before anything else is sent: what is newer than these must not come first.
            for name in filter(cursors.__contains__, names):
                if (feed := self._update_feed(name)) is not None:
                    feed.catch_up(sid, cursors[name], client.turn)
        for name in names:
            # A session that is not published yet is about to be, to the whole room.
            if (session := self._published.get(name)) is not None:
                for event in events.changes(None, session):
                    await self.deliver(event, [sid])
                if room != ADMINS:
                    link_code = self._link_codes.get(name)
                    if link_code is not None and not _has_expired(link_code):
                        await self._deliver_code(session, link_code, [sid])
            if room != ADMINS and (feed := self._update_feed(name)) is not None:
                await feed.greet(sid)
            await asyncio.sleep(0)  # let others run

    def _leave(self, sid: str, room: str) -> None:
        self._rooms[room].discard(sid)
        if not self._rooms[room]:
            del self._rooms[room]

    # --- states, from the cache -------------------------------------------------------------------

    def session_changed(self, name: str) -> None:
        self._changed[name] = None
        self._has_changes.set()

    async def run(self) -> None:
        """Publish changes in their order, and check the connections, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._publish_changes())
            tasks.create_task(self._check_clients())

    async def _publish_changes(self) -> None:
        while True:
            await self._has_changes.wait()
            self._has_changes.clear()
            while self._changed:
                name = next(iter(self._changed))
                del self._changed[name]
                try:
                    await self._publish(name)
                except Exception as error:  # must not affect other sessions
                    log_unexpected(
                        error,
                        "cannot publish a change of a session; its clients get the next one",
                        session=name,
                    )
                await asyncio.sleep(0)  # let others run

    async def _publish(self, name: str) -> None:
        before, now = self._published.get(name), self._sessions.get(name)
        if now is not None:
            self._published[name] = now
        else:
            self._published.pop(name, None)
        if before is not None and (
            now is None or before.uid != now.uid or before.owner != now.owner
        ):
            await self._emit_changes(before, None)
            self._pods.forget(before.uid)
            self._expel(name, now if now is not None and now.uid == before.uid else None)
            before = None
        await self._emit_changes(before, now)
        self._update_feed(name)

    async def _emit_changes(self, before: Session | None, now: Session | None) -> None:
        sids = self._members([*_audience(now or before), ADMINS])
        for event in events.changes(before, now) if sids else ():
            await self.deliver(event, sids)

    async def deliver(self, event: Model, sids: Iterable[str]) -> list[str]:
        """Send an event to those of the clients whose tokens permit it, and return these."""
        scope = events.SCOPES[type(event)]
        permitted = [sid for sid in sids if self._may(sid, scope)]
        if permitted:
            await self._emit(events.encode(event), permitted)
        return permitted

    async def _deliver_code(
        self, session: Session, code: Qr | PairingCode, sids: Iterable[str]
    ) -> None:
        """Send a link code; the audit log has who receives it."""
        for sid in await self.deliver(code, sids):
            if (client := self._clients.get(sid)) is not None:
                self._audit_log.write(
                    RECEIVE_CODE, client.source, client.identity, session.name, 200
                )

    def _may(self, sid: str, *scopes: str) -> bool:
        return (client := self._clients.get(sid)) is not None and client.may(*scopes)

    def _may_be_in(self, identity: Identity, room: str) -> bool:
        kind, _, name = room.partition(":")
        if kind == "session":
            session = self._sessions.get(name)
            return session is not None and identity.may_see(session.owner)
        return identity.may_see(name) if kind == "owner" else identity.admin

    async def _emit(self, event: NamedPayload, sids: Iterable[str]) -> None:
        """Send without yielding to other tasks, so that related events stay together."""
        name, payload = event
        metrics.EVENTS.labels(name).inc()
        await self._connections.send(sids, name, payload)

    def _expel(self, name: str, now: Session | None) -> None:
        """Remove clients from a session's room when it is gone, or is no longer theirs."""
        room = _session_room(name)
        for sid in self._members([room]):
            client = self._clients[sid]
            if now is None or client.identity is None or not client.identity.may_see(now.owner):
                client.rooms.discard(room)
                self._leave(sid, room)
        self._link_codes.pop(name, None)

    def _members(self, rooms: list[str]) -> set[str]:
        return set[str]().union(*(self._rooms.get(room, ()) for room in rooms))

    def _names_in(self, room: str) -> list[str]:
        """Return the sessions of which a room's members receive everything."""
        kind, _, name = room.partition(":")
        if kind == "session":
            return [name]
        return [session.name for session in self._sessions.of(name)] if kind == "owner" else []

    # --- messages and codes, from the pods --------------------------------------------------------

    def listeners(self, name: str) -> set[str]:
        """Return the clients that receive what a session's pod sends."""
        return self._members(_audience(self._session(name)))

    def listens(self, sid: str, name: str) -> bool:
        """Whether the client is one of these, and its token permits it to read messages."""
        rooms = _audience(self._session(name))
        return self._may(sid, Scope.MESSAGES_READ) and any(
            sid in self._rooms.get(room, ()) for room in rooms
        )

    def packets_at_once(self, sid: str) -> int:
        return self._connections.packets_at_once(sid)

    async def read_all(self, sid: str) -> None:
        await self._connections.read_all(sid)

    def _session(self, name: str) -> Session | None:
        """Return the session as clients know it; one that is not published yet, as it is."""
        return self._published.get(name) or self._sessions.get(name)

    def _update_feeds(self, room: str, sid: str) -> None:
        """Update the feeds of a room's sessions, to some of which a client may not listen now."""
        for name in self._names_in(room):
            feed = self._update_feed(name)
            if feed is not None and not self.listens(sid, name):
                feed.drop(sid)

    def _update_feed(self, name: str) -> SessionFeed | None:
        """Return the feed of a session's pod, which there is while a client listens."""
        session, feed = self._session(name), self._feeds.get(name)
        has_listeners = any(
            self._may(sid, *FROM_POD)
            for room in _audience(session)
            for sid in self._rooms.get(room, ())
        )
        if feed is not None and (
            session is None or not has_listeners or feed.session.uid != session.uid
        ):
            self._feeds.pop(name).close()
            feed = None
        if feed is None or session is None or session.status.pod_name is None:
            self._link_codes.pop(name, None)
        if session is None or not has_listeners:
            return None
        if feed is None:
            feed = self._feeds[name] = SessionFeed(self._pods, session, self)
        else:
            feed.update(session)
        return feed

    async def take_report(self, session: Session, report: Report) -> None:
        """Send each new link code once; the report says only that there is one."""
        pairing = report.pairing
        if (
            report.session_uid not in (None, session.uid)
            or pairing is None
            or not pairing.available
        ):
            self._link_codes.pop(session.name, None)
            return
        known = self._link_codes.get(session.name)
        if known is not None and (known.attempt, known.expires_at) == (
            pairing.attempt,
            pairing.expires_at,
        ):
            return
        async with self._pods.request(session, "GET", "/v1/pairing", PAIRING_TIMEOUT) as response:
            if response.status != 200:
                return  # it was used in the meantime
            code = LinkCode.model_validate_json(await read_body(response))
        event = _link_code_event(session, code)
        self._link_codes[session.name] = event
        await self._deliver_code(session, event, self._members(_audience(session)))

    # --- the end of connections -------------------------------------------------------------------

    async def _check_clients(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            for sid, client in list(self._clients.items()):
                if (closing := self._closing(sid, client)) is not None:
                    await self._close(sid, closing)
            await self._connections.sweep(set(self._clients))

    def _closing(self, sid: str, client: Client) -> Closing | None:
        """Return why a client's connection must end now, if it must."""
        now = time.monotonic()
        if client.identity is None:
            if now - client.connected_at < connections.INTRODUCTION:
                return None
            return Closing(
                reason="NotAuthenticated",
                message="neither the handshake nor init had a token",
                reconnect=False,
            )
        if time.time() >= client.identity.accepted_until:
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
            return Closing(reason="TooSlow", message="too many events are unread", reconnect=True)
        return None

    async def close(self) -> None:
        """Announce the shutdown and disconnect all clients, which then find another gateway."""
        closing = Closing(
            reason="ShuttingDown", message="this gateway is shutting down", reconnect=True
        )
        await asyncio.gather(*(self._close(sid, closing) for sid in list(self._clients)))
        await self._connections.close()
        for feed in self._feeds.values():
            feed.close()

    async def _close(self, sid: str, closing: Closing) -> None:
        metrics.CLIENTS_CLOSED.labels(closing.reason).inc()
        await self._emit(events.encode(closing), [sid])
        if closing.reconnect:
            await self._connections.hang_up(sid)
        else:
            await self.disconnect(sid)  # after which socket.io-client does not reconnect


class OtherNamespaces(socketio.AsyncNamespace):  # type: ignore[misc]
    """Names the right namespace to clients that connect to another one."""

    async def on_connect(self, *_: object) -> None:
        detail = f"connect to the namespace {NAMESPACE}"
        raise _refusal(HTTPProblem(404, "No such namespace", detail))


def _session_room(name: str) -> str:
    return f"session:{name}"


def _owner_room(owner: str) -> str:
    return f"owner:{owner}"


def _audience(session: Session | None) -> list[str]:
    """Return the rooms whose members receive everything about a session."""
    if session is None:
        return []
    rooms = [_session_room(session.name)]
    return rooms if session.owner is None else [*rooms, _owner_room(session.owner)]


def _link_code_event(session: Session, code: LinkCode) -> Qr | PairingCode:
    content = {**events.subject(session), "attempt": code.attempt, "expires_at": code.expires_at}
    if code.method is PairingMethod.PAIRING_CODE:
        return PairingCode(**content, code=code.code)
    image = segno.make(code.code).png_data_uri(scale=6, border=4)
    return Qr(**content, qr=code.code, image=image)


def _has_expired(code: Qr | PairingCode) -> bool:
    return code.expires_at is not None and code.expires_at < datetime.now(UTC)


def _refusal(problem: HTTPProblem) -> socketio.exceptions.ConnectionRefusedError:
    """Reject a handshake: socket.io-client passes ``error.message`` and ``error.data`` on."""
    return socketio.exceptions.ConnectionRefusedError(problem.detail, _with_retry(problem))


def _with_retry(problem: HTTPProblem) -> dict[str, Any]:
    """Return the problem with what is a header over HTTP, as an extension (RFC 9457, 3.2)."""
    content = problem.problem().dump()
    if (seconds := problem.headers.get(hdrs.RETRY_AFTER)) is not None:
        content["retryAfter"] = int(seconds)
    return content
