"""A client of the Chrome DevTools Protocol, over the pipe that Chromium inherits.

``--remote-debugging-pipe`` (devtools_pipe_handler.cc): JSON messages, each ended by a NUL, read
from file descriptor 3 and written to 4. A debug port would be open to everything in the pod's
network namespace, and to port-forwards. ``cdp-use`` has typed methods, but only speaks WebSocket,
and needs two HTTP libraries for that.

Sessions are flat: each message of a target carries the ``sessionId`` that attaching returned.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import re
import socket
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

log = logging.getLogger(__name__)
END = b"\0"
# Bytes of one message. A page of the longest lists takes 2 MiB, a screenshot as much.
MAXIMUM_MESSAGE = 32 * 2**20
# How Chromium begins the response to a call, and an event (crdtp/dispatch.cc).
RESPONSE_HEAD = re.compile(rb'\{"id":([0-9]{1,15}),')
EVENT_HEAD = re.compile(rb'\{"method":"([A-Za-z.]{1,100})"')
HEAD = 256  # bytes of a message that is too long that are kept, to tell what it is
ENDED = "the page or the browser has been closed"
TOO_LONG = f"more than {MAXIMUM_MESSAGE // 2**20} MiB"

Params = Mapping[str, Any]
Handler = Callable[[dict[str, Any]], None]


class ProtocolError(Exception):
    """A call failed; the message is Chromium's and may quote the page."""


class Disconnected(ProtocolError):
    """Chromium has exited, or has closed the session or the pipe."""


class Connection(asyncio.Protocol):
    """The pipe to one Chromium. Calls end with a response, an error or ``Disconnected``.

    What is not a message of the protocol is dropped: it is Chromium's, but the page decides much of
    what is in it.
    """

    def __init__(self) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.browser = Session(self, None)
        self._transport: asyncio.Transport | None = None
        self._ids = itertools.count(1)
        self._calls: dict[int, tuple[str | None, asyncio.Future[dict[str, Any]]]] = {}
        self._sessions: dict[str | None, Session] = {None: self.browser}
        self._taps: dict[str, Handler] = {}  # by session: who gets its messages as they are
        self._received = Messages()

    async def call(
        self, method: str, params: Params | None = None, session_id: str | None = None
    ) -> dict[str, Any]:
        """Return the result of a method; raise ``ProtocolError``."""
        number = self.post(method, params, session_id)
        answer = asyncio.get_running_loop().create_future()
        self._calls[number] = session_id, answer
        try:
            result: dict[str, Any] = await answer
            return result
        finally:
            self._calls.pop(number, None)

    def post(self, method: str, params: Params | None = None, session_id: str | None = None) -> int:
        """Send a method whose response nobody awaits; return its ID. Raises ``Disconnected``."""
        if self._transport is None or self._transport.is_closing():
            raise Disconnected(f"{method}: Chromium has exited")
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": params or {}}
        if session_id is not None:
            message["sessionId"] = session_id
        self._transport.write(json.dumps(message).encode() + END)
        return number

    def open_session(self, session_id: str) -> Session:
        """Return the session of a target to which Chromium has attached."""
        session = self._sessions[session_id] = Session(self, session_id)
        return session

    def tap(self, session_id: str, receive: Handler | None) -> None:
        """Let ``receive`` get the events of a session, and responses to what it posted there.

        None ends that.
        """
        if receive is None:
            self._taps.pop(session_id, None)
        else:
            self._taps[session_id] = receive

    def close(self) -> None:
        """Close the pipe, upon which Chromium writes its profile and exits."""
        if self._transport is not None:
            self._transport.close()

    # --- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        for session in list(self._sessions.values()):
            session.end()
        self._fail_calls(lambda _: True)
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        for message, complete in self._received.feed(data):
            if complete:
                self._receive(message)
            else:
                self._too_long(message)

    # --- messages ---------------------------------------------------------------------------------

    def _receive(self, raw: bytes) -> None:
        try:
            message = json.loads(raw)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            log.warning("dropped a message of Chromium's that is not valid JSON")
            return
        session_id = message.get("sessionId")
        if isinstance(session_id, str) and (tap := self._taps.get(session_id)) is not None:
            _guarded(tap, message, str(message.get("method")))
            return
        number, method = message.get("id"), message.get("method")
        if isinstance(number, int):
            self._respond(number, message)
        elif isinstance(method, str):
            self._dispatch(session_id, method, message.get("params"))

    def _respond(self, number: int, message: dict[str, Any]) -> None:
        _, answer = self._calls.get(number, (None, None))
        if answer is None or answer.done():
            return
        result, error = message.get("result"), message.get("error")
        if isinstance(result, dict):
            answer.set_result(result)
        else:
            text = error.get("message") if isinstance(error, dict) else None
            answer.set_exception(ProtocolError(str(text or "no result")))

    def _dispatch(self, session_id: object, method: str, params: object) -> None:
        if not isinstance(params, dict) or not (session_id is None or isinstance(session_id, str)):
            return
        if method == "Target.detachedFromTarget":
            ended = params.get("sessionId")
            if isinstance(ended, str) and ended in self._sessions:
                self._sessions[ended].end()
        if (session := self._sessions.get(session_id)) is not None:
            session.dispatch(method, params)

    def _too_long(self, head: bytes) -> None:
        """Fail the call whose response this is; log what the event is."""
        if match := RESPONSE_HEAD.match(head):
            _, answer = self._calls.get(int(match[1]), (None, None))
            if answer is not None and not answer.done():
                answer.set_exception(ProtocolError(f"the response is {TOO_LONG}"))
        elif match := EVENT_HEAD.match(head):
            log.warning(
                "dropped an event of Chromium's: it is too long",
                extra={"method": match[1].decode(), "limit": TOO_LONG},
            )

    def forget(self, session: Session) -> None:
        """Fail what waits for a session, which has ended."""
        if session is not self.browser:
            self._sessions.pop(session.session_id, None)
        self._fail_calls(lambda session_id: session_id == session.session_id)

    def _fail_calls(self, of: Callable[[str | None], bool]) -> None:
        for session_id, answer in list(self._calls.values()):
            if of(session_id) and not answer.done():
                answer.set_exception(Disconnected(ENDED))


class Messages:
    """Splits what is received into messages, in whatever pieces it comes."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._length = 0  # of the message so far, of which the buffer has no more than the head

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bool]]:
        """Yield each message that ends in ``data``; its head, and False, if it is too long."""
        *ends, rest = data.split(END)
        for part in ends:
            self._add(part)
            yield bytes(self._buffer), self._length <= MAXIMUM_MESSAGE
            self._buffer.clear()
            self._length = 0
        self._add(rest)

    def _add(self, part: bytes) -> None:
        self._buffer += part
        self._length += len(part)
        if self._length > MAXIMUM_MESSAGE:
            del self._buffer[HEAD:]


class Session:
    """A session of one target; ``session_id`` is None for that of the browser itself."""

    def __init__(self, connection: Connection, session_id: str | None) -> None:
        self.connection = connection
        self.session_id = session_id
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._handlers: defaultdict[str, list[Handler]] = defaultdict(list)

    def on(self, method: str, handler: Handler) -> None:
        """Call a handler with the parameters of each event.

        Events come in Chromium's order, and before the responses that follow them.
        """
        self._handlers[method].append(handler)

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the result of a method; raise ``ProtocolError``."""
        if self.ended.done():
            raise Disconnected(ENDED)
        return await self.connection.call(method, params, self.session_id)

    def post(self, method: str, **params: Any) -> None:
        """Send a method whose response nobody awaits; do nothing if the session has ended."""
        if not self.ended.done():
            with contextlib.suppress(Disconnected):
                self.connection.post(method, params, self.session_id)

    def end(self) -> None:
        """Let calls of this session, also those in progress, raise ``Disconnected``."""
        if not self.ended.done():
            self.ended.set_result(None)
            self.connection.forget(self)

    def dispatch(self, method: str, params: dict[str, Any]) -> None:
        """Call the handlers of an event."""
        for handler in self._handlers.get(method, ()):
            _guarded(handler, params, method)


def _guarded(handler: Handler, params: dict[str, Any], method: str) -> None:
    """Call a handler. A fault in it is logged, and ends nothing else."""
    try:
        handler(params)
    except Exception as error:  # the parameters are the page's in part
        log.warning(
            "could not handle an event of Chromium's",
            extra={"method": method, "error": type(error).__name__},
        )


async def connect(end: socket.socket) -> Connection:
    """Return a connection over one end of the pipe, which it then owns."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, sock=end)
    return connection
