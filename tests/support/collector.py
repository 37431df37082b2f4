"""An OpenTelemetry collector in memory: OTLP over HTTP, in protobuf."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

DELAY = "200"  # milliseconds until a batch is sent


class Behaviour(Enum):
    """What the collector does with a request."""

    TAKE = auto()
    FAIL = auto()  # 503
    REFUSE = auto()  # 400
    HANG = auto()  # no answer
    BREAK = auto()  # the connection ends


@dataclass(frozen=True)
class Span:
    """A span as it was received."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    failed: bool
    links: list[str]  # traces
    start: int  # nanoseconds since the epoch
    end: int


@dataclass
class Collector:
    """``everything`` is all that it has received, as it was on the wire."""

    port: int
    behaviour: Behaviour = Behaviour.TAKE
    spans: list[Span] = field(default_factory=list)
    everything: bytes = b""
    requests: int = 0  # also those that it does not take
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a program that is to be traced."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "OTEL_BSP_SCHEDULE_DELAY": DELAY,
        }

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def children(self, parent: Span) -> list[Span]:
        """Return the children of a span by the time when they began."""
        family = (parent.trace, parent.id)
        children = (one for one in self.spans if (one.trace, one.parent) == family)
        return sorted(children, key=lambda span: span.start)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition on what has come, until the test's timeout."""
        async with self._news:
            await self._news.wait_for(lambda: bool(condition()))

    async def one(self, name: str) -> Span:
        """Return the only span of a name, as soon as it has come."""
        await self.until(lambda: self.named(name))
        [span] = self.named(name)
        return span

    async def take(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        body = await request.read()
        self.requests += 1
        if self.behaviour is Behaviour.TAKE:
            self.everything += body
            self.spans += _spans(ExportTraceServiceRequest.FromString(body))
        async with self._news:
            self._news.notify_all()
        match self.behaviour:
            case Behaviour.FAIL:
                return web.Response(status=503)
            case Behaviour.REFUSE:
                return web.Response(status=400)
            case Behaviour.HANG:
                await asyncio.Event().wait()
            case Behaviour.BREAK:
                assert request.transport is not None
                request.transport.abort()
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")


def _spans(request: ExportTraceServiceRequest) -> list[Span]:
    return [
        _span(span, _attributes(of_resource.resource.attributes))
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def _span(span: trace_pb2.Span, resource: dict[str, Any]) -> Span:
    return Span(
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        attributes=_attributes(span.attributes),
        resource=resource,
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        links=[link.trace_id.hex() for link in span.links],
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
    )


def _attributes(pairs: Sequence[KeyValue]) -> dict[str, Any]:
    return {
        pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value")
        for pair in pairs
    }


@contextlib.asynccontextmanager
async def collecting(listener: socket.socket | None = None) -> AsyncIterator[Collector]:
    """Yield a collector, on a socket that listens or on a free port of loopback."""
    listener = listener or socket.create_server(("127.0.0.1", 0))
    collector = Collector(listener.getsockname()[1])
    app = web.Application()
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    try:
        yield collector
    finally:
        await runner.cleanup()
