"""``python -m bench.gateway.load``: requests of one path over a number of connections.

It reads an ``Order`` from stdin and writes a ``Load`` to stdout. It does not use aiohttp's client,
which would take longer for a request than the servers for the response.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time

from pydantic import BaseModel

from bench.gateway.results import Load, Quantiles

LENGTH = re.compile(rb"(?i)\r\ncontent-length: *([0-9]+)")


class Order(BaseModel):
    port: int
    path: str
    token: str
    connections: int
    seconds: float


class Caller(asyncio.Protocol):
    """One connection: it sends the next request when it has read the response to the last one."""

    def __init__(self, order: Order, until: float, done: asyncio.Future[None]) -> None:
        headers = (f"Host: 127.0.0.1:{order.port}", f"Authorization: Bearer {order.token}")
        self._request = "\r\n".join([f"GET {order.path} HTTP/1.1", *headers, "", ""]).encode()
        self._until, self._done = until, done
        self.milliseconds: list[float] = []
        self.bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._head, self._left = b"", -1
        self._began = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._head += data
            head, found, body = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            length = LENGTH.search(head)
            if not head.startswith(b"HTTP/1.1 200 ") or length is None:
                self._end(RuntimeError(head.decode(errors="replace")))
                return
            self.bytes = int(length[1])
            self._left = self.bytes - len(body)
        else:
            self._left -= len(data)
        if self._left == 0:
            now = time.perf_counter()
            self.milliseconds.append((now - self._began) * 1000)
            if now < self._until:
                self._ask()
            else:
                self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error or ConnectionError("hung up"))

    def _end(self, error: Exception | None) -> None:
        if self._done.done():
            return
        if error is not None:
            self._done.set_exception(error)
        else:
            self._done.set_result(None)
        self._transport.close()


async def run(order: Order) -> Load:
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    callers, ends = list[Caller](), list[asyncio.Future[None]]()
    for _ in range(order.connections):
        ends.append(loop.create_future())
        caller = Caller(order, began + order.seconds, ends[-1])
        callers.append(caller)
        await loop.create_connection(lambda caller=caller: caller, "127.0.0.1", order.port)  # type: ignore[misc]
    await asyncio.gather(*ends)
    took = time.perf_counter() - began
    milliseconds = [value for caller in callers for value in caller.milliseconds]
    return Load(
        connections=order.connections,
        bytes=callers[0].bytes,
        per_second=len(milliseconds) / took,
        milliseconds=Quantiles.of(milliseconds),
    )


if __name__ == "__main__":
    print(asyncio.run(run(Order.model_validate_json(sys.stdin.read()))).model_dump_json())
