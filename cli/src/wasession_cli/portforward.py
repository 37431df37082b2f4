"""HTTP connections to a pod's port through the API server's port-forward.

The pod proxy subresource would be simpler, but cannot carry the pod's bearer token: the API server
removes the ``Authorization`` header before it forwards the request.

The wire format is kubelet's for WebSockets (``v4.channel.k8s.io``, k8s.io/kubelet
pkg/cri/streaming/portforward/websocket.go): each message begins with a channel number, 0 for data
and 1 for errors; the first message of each channel has the port.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace

PROTOCOL = "v4.channel.k8s.io"
DATA, ERROR = 0, 1
CHUNK = 64 * 1024  # bytes


class PortForwardConnector(aiohttp.BaseConnector):
    """Connect to one port of one pod, whatever the host of a request is.

    ``open_websocket`` opens the ``portforward`` subresource for that port, once per connection.
    """

    def __init__(
        self, open_websocket: Callable[[], Awaitable[aiohttp.ClientWebSocketResponse]]
    ) -> None:
        super().__init__()
        self._open_websocket = open_websocket
        self._relays: set[asyncio.Task[None]] = set()
        self.last_error = ""  # kubelet's message about the last failed connection

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        websocket = await self._open_websocket()
        ours, theirs = socket.socketpair()
        relay = asyncio.create_task(self._relay(websocket, theirs))
        self._relays.add(relay)
        relay.add_done_callback(self._relays.discard)
        _, protocol = await self._loop.create_connection(self._factory, sock=ours)
        return protocol

    async def _relay(self, websocket: aiohttp.ClientWebSocketResponse, sock: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        tasks = [
            asyncio.create_task(self._send(reader, websocket)),
            asyncio.create_task(self._receive(websocket, writer)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            writer.close()
            await websocket.close()

    async def _send(
        self, reader: asyncio.StreamReader, websocket: aiohttp.ClientWebSocketResponse
    ) -> None:
        while data := await reader.read(CHUNK):
            await websocket.send_bytes(bytes([DATA]) + data)

    async def _receive(
        self, websocket: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter
    ) -> None:
        opened: set[int] = set()
        async for message in websocket:
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel, data = message.data[0], message.data[1:]
            if channel not in opened:
                opened.add(channel)  # the message has the port
            elif channel == DATA:
                writer.write(data)
                await writer.drain()
            elif channel == ERROR:
                self.last_error = data.decode(errors="replace").strip()
                return

    async def aclose(self) -> None:
        """End the open connections, so that the connector can be closed."""
        for relay in self._relays:
            relay.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._relays, return_exceptions=True)
