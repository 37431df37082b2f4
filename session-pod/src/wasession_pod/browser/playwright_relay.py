"""A WebSocket over which Playwright drives one page of a Chromium that listens on a pipe alone.

Playwright attaches to a running Chromium by WebSocket. The relay gives it a browser session of its
own, in which it sees one page and no other target, and may use what reading a page takes: not what
would change the browser, the page's surroundings or its traffic. Whatever Playwright sets ends with
that session. Nothing ever waits for Playwright: a driver that hangs does not hold up the page.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import secrets
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, NamedTuple

from wasession_pod.browser.cdp import Connection, Disconnected

if TYPE_CHECKING:
    from aiohttp import web

HOST = "127.0.0.1"
# Bytes of a message of Playwright's, which has scripts of 0.3 MiB, and of all that it has not read.
MAXIMUM_MESSAGE = MAXIMUM_UNREAD = 16 * 2**20
SHUTDOWN_TIMEOUT = 1.0  # seconds for the handler of a connection that is aborted
# What Playwright 1.65 calls to attach to a page, to read it, and to take pictures of it.
FORWARDED = frozenset(
    {
        "Browser.getVersion",
        "Inspector.enable",
        "Page.addScriptToEvaluateOnNewDocument",
        "Page.captureScreenshot",
        "Page.createIsolatedWorld",
        "Page.enable",
        "Page.getFrameTree",
        "Page.getLayoutMetrics",
        "Page.setLifecycleEventsEnabled",
        "Runtime.callFunctionOn",
        "Runtime.enable",
        "Runtime.evaluate",
        "Runtime.getProperties",
        "Runtime.releaseObject",
        "Runtime.runIfWaitingForDebugger",
        "Target.getTargetInfo",
    }
)
# What it calls as well and cannot do without, and what no reader of a page needs.
ANSWERED = frozenset({"Log.enable", "Network.enable"})
# Codes of errors (crdtp/dispatch.h).
NOT_ALLOWED, NO_SESSION = -32000, -32001


class Call(NamedTuple):
    method: str
    params: dict[str, Any]


def permitted(call: Call, target_id: str, *, of_browser: bool) -> Call | None:
    """Return what to call in place of a call of Playwright's; None refuses it.

    ``of_browser`` tells whether it is a call of the browser's session. There Playwright attaches to
    all targets; it gets ``target_id`` instead. In the page's it attaches to workers and frames, and
    has them wait until it is ready for them; it gets frames alone, which do not wait.
    """
    if call.method == "Target.setAutoAttach":
        if of_browser:
            return Call("Target.attachToTarget", {"targetId": target_id, "flatten": True})
        return Call(
            "Target.setAutoAttach",
            {
                "autoAttach": True,
                "waitForDebuggerOnStart": False,
                "flatten": True,
                "filter": [{"type": "iframe"}],
            },
        )
    return call if call.method in FORWARDED else None


@contextlib.asynccontextmanager
async def relaying(connection: Connection, target_id: str) -> AsyncIterator[Relay]:
    """Relay between one client and one page while the block runs. Raises ``ProtocolError``."""
    from aiohttp import web  # takes long, and nobody may ever need it here

    answer = await connection.call("Target.attachToBrowserTarget")
    relay = Relay(connection, answer["sessionId"], target_id)
    server = web.ServerRunner(
        web.Server(relay.serve, access_log=None), shutdown_timeout=SHUTDOWN_TIMEOUT
    )
    try:
        await server.setup()
        await web.TCPSite(server, HOST, 0).start()
        relay.port = server.addresses[0][1]
        yield relay
    finally:
        relay.close()
        await server.cleanup()


class Relay:
    """``ended`` is set once the client or the page is gone, or the client reads too slowly."""

    def __init__(self, connection: Connection, session_id: str, target_id: str) -> None:
        self.ended = asyncio.Event()
        self.port = 0
        self._secret = secrets.token_urlsafe(32)
        self._connection = connection
        self._session_id = session_id
        self._target_id = target_id
        self._sessions: set[str] = set()  # of the page and its frames
        self._calls: dict[int, int] = {}  # the connection's number of a call -> the client's
        self._client: web.BaseRequest | None = None
        self._outbox: asyncio.Queue[str] = asyncio.Queue()
        self._unread = 0  # characters in the outbox
        self._tap(session_id)
        connection.closed.add_done_callback(self._on_disconnected)

    @property
    def url(self) -> str:
        """The address that the client connects to. Whoever knows it drives the page."""
        return f"ws://{HOST}:{self.port}/{self._secret}"

    def close(self) -> None:
        """Detach from the page, which undoes what the client has set, and disconnect the client."""
        self.ended.set()
        self._connection.closed.remove_done_callback(self._on_disconnected)
        for session_id in (self._session_id, *self._sessions):
            self._connection.tap(session_id, None)
        self._connection.browser.post("Target.detachFromTarget", sessionId=self._session_id)
        if self._client is not None and self._client.transport is not None:
            self._client.transport.abort()

    def _on_disconnected(self, _: asyncio.Future[None]) -> None:
        self.ended.set()

    # --- the client -------------------------------------------------------------------------------

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve the first client that knows the path, and nobody else."""
        from aiohttp import WSMsgType, web

        path = request.path.encode(errors="surrogateescape")
        if not hmac.compare_digest(path, f"/{self._secret}".encode()):
            return web.Response(status=404)
        if self._client is not None:
            return web.Response(status=409)
        self._client = request
        socket = web.WebSocketResponse(max_msg_size=MAXIMUM_MESSAGE, compress=False)
        sending = None
        try:
            await socket.prepare(request)
            sending = asyncio.create_task(self._send_to(socket))
            async for message in socket:
                if message.type is not WSMsgType.TEXT or not self._on_message(message.data):
                    break
        finally:
            if sending is not None:
                sending.cancel()
            self.ended.set()
        return socket

    async def _send_to(self, socket: web.WebSocketResponse) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                text = await self._outbox.get()
                await socket.send_str(text)
                self._unread -= len(text)

    def _on_message(self, text: str) -> bool:
        """Pass a call on or answer it; return whether it was one."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return False
        absent: dict[str, Any] = {"params": {}, "sessionId": None}
        match absent | message if isinstance(message, dict) else None:
            case {
                "id": int(number),
                "method": str(method),
                "params": dict(params),
                "sessionId": (str() | None) as session_id,
            }:
                self._on_call(number, Call(method, params), session_id)
                return True
        return False

    def _on_call(self, number: int, call: Call, session_id: str | None) -> None:
        address = {"id": number} if session_id is None else {"id": number, "sessionId": session_id}
        if session_id is not None and session_id not in self._sessions:
            self._send({**address, "error": {"code": NO_SESSION, "message": "no such session"}})
        elif call.method in ANSWERED:
            self._send({**address, "result": {}})
        elif allowed := permitted(call, self._target_id, of_browser=session_id is None):
            with contextlib.suppress(Disconnected):
                posted = self._connection.post(*allowed, session_id or self._session_id)
                self._calls[posted] = number
        else:
            refusal = f"{call.method} is not allowed here"
            self._send({**address, "error": {"code": NOT_ALLOWED, "message": refusal}})

    def _send(self, message: dict[str, Any]) -> None:
        text = json.dumps(message)
        self._unread += len(text)
        if self._unread > MAXIMUM_UNREAD:
            self.ended.set()
        else:
            self._outbox.put_nowait(text)

    # --- Chromium ---------------------------------------------------------------------------------

    def _tap(self, session_id: str) -> None:
        self._connection.tap(session_id, self._on_chromium)

    def _on_chromium(self, message: dict[str, Any]) -> None:
        """Pass on a response, or an event of a session that the client has attached."""
        of_browser = message["sessionId"] == self._session_id
        if of_browser:
            del message["sessionId"]
        if "id" in message:
            number = self._calls.pop(message["id"], None)
            if number is None:
                return
            message["id"] = number
        elif message.get("method") == "Target.attachedToTarget":
            session_id = message["params"]["sessionId"]
            self._sessions.add(session_id)
            self._tap(session_id)
        elif message.get("method") == "Target.detachedFromTarget":
            session_id = message["params"]["sessionId"]
            self._sessions.discard(session_id)
            self._connection.tap(session_id, None)
            if of_browser:  # the page has closed
                self.ended.set()
        self._send(message)
