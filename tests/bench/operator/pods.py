"""All fake session pods of the benchmark in one server: each reports Ready with a stored login.

kwok gives each pod a loopback address; one socket listens on all of them.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from support.fakes.network import Network
from support.fakes.session_pods import HEARTBEAT
from wasession_api.session_pod import PORT
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import AuthState, Phase, Reason

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


class Pods:
    def __init__(self) -> None:
        self.streams: set[asyncio.Transport] = set()
        now = datetime.now(UTC).replace(microsecond=0)
        report = Report(
            client_id="bench",
            started_at=now,
            seq=1,
            phase=Phase.READY,
            reason=Reason.CONNECTED,
            session_valid=True,
            is_authenticated=True,
            restored=True,
            last_connected=now,
            auth_state=AuthState.CONNECTED,
        )
        self.greeting = (
            HEAD
            + f"id: 1\nevent: state\ndata: {report.model_dump_json(by_alias=True)}\n\n".encode()
        )

    async def serve(self, network: Network) -> None:
        """Serve until cancelled."""
        listening = network.listen("0.0.0.0", PORT)
        await asyncio.get_running_loop().create_server(lambda: _Stream(self), sock=listening)
        while True:  # heartbeats at different times, like those of real pods
            streams = list(self.streams)
            for stream in streams:
                if stream in self.streams:
                    stream.write(b": alive\n\n")
                await asyncio.sleep(HEARTBEAT / len(streams))
            if not streams:
                await asyncio.sleep(HEARTBEAT)


class _Stream(asyncio.Protocol):
    """Responds to any request with the one report, and leaves the stream open."""

    def __init__(self, pods: Pods) -> None:
        self._pods = pods

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._transport not in self._pods.streams:
            self._pods.streams.add(self._transport)
            self._transport.write(self._pods.greeting)

    def connection_lost(self, error: Exception | None) -> None:
        self._pods.streams.discard(self._transport)
