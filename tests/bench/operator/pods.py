"""All fake session pods of the benchmark: each reports Ready with a stored login.

kwok gives each pod a loopback address; a few servers listen on all of them, because one process has
too few file descriptors for tens of thousands of streams. ``python -m bench.operator.pods FILE
TIME`` is such a server; it keeps the number of its streams in the file. All report to have started
at the same time, as the kernel divides connections among them.
"""

from __future__ import annotations

import asyncio
import mmap
import resource
import sys
from datetime import datetime
from pathlib import Path

from support.fakes.session_pods import HEARTBEAT
from wasession_api.session_pod import PORT
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import AuthState, Phase, Reason

SERVERS = 4
LENGTH = 8  # bytes of an integer
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


class StreamCount:
    """The number of a server's streams, in a file that other processes read."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(LENGTH))
        with path.open("r+b") as file:
            self._number = memoryview(mmap.mmap(file.fileno(), LENGTH)).cast("q")

    def get(self) -> int:
        return int(self._number[0])

    def set(self, number: int) -> None:
        self._number[0] = number


class Pods:
    """One server."""

    def __init__(self, count: StreamCount, started_at: datetime) -> None:
        self._count = count
        self._streams: set[asyncio.Transport] = set()
        report = Report(
            client_id="bench",
            started_at=started_at,
            seq=1,
            phase=Phase.READY,
            reason=Reason.CONNECTED,
            session_valid=True,
            is_authenticated=True,
            restored=True,
            last_connected=started_at,
            auth_state=AuthState.CONNECTED,
        )
        self._greeting = (
            HEAD
            + f"id: 1\nevent: state\ndata: {report.model_dump_json(by_alias=True)}\n\n".encode()
        )

    async def serve(self) -> None:
        """Serve until the process ends."""
        loop = asyncio.get_running_loop()
        await loop.create_server(
            lambda: _Stream(self), "0.0.0.0", PORT, reuse_port=True, backlog=1024
        )
        while True:  # heartbeats at different times, like those of real pods
            streams, began = list(self._streams), loop.time()
            for number, stream in enumerate(streams):
                # Several at a time if there are more than a sleep is exact.
                if (early := began + HEARTBEAT * number / len(streams) - loop.time()) > 0:
                    await asyncio.sleep(early)
                if stream in self._streams:
                    stream.write(b": alive\n\n")
            await asyncio.sleep(max(0.1, began + HEARTBEAT - loop.time()))

    def greet(self, stream: asyncio.Transport) -> None:
        """Respond to a request; the stream stays open."""
        if stream not in self._streams:
            self._streams.add(stream)
            self._count.set(len(self._streams))
            stream.write(self._greeting)

    def forget(self, stream: asyncio.Transport) -> None:
        self._streams.discard(stream)
        self._count.set(len(self._streams))


class _Stream(asyncio.Protocol):
    """Responds to any request with the one report, and leaves the stream open."""

    def __init__(self, pods: Pods) -> None:
        self._pods = pods

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._pods.greet(self._transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._pods.forget(self._transport)


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _, file, time = sys.argv
    asyncio.run(Pods(StreamCount(Path(file)), datetime.fromisoformat(time)).serve())


if __name__ == "__main__":
    main()
