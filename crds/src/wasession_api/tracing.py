"""OpenTelemetry traces, switched on by the standard OTEL_* variables.

Without them nothing of OpenTelemetry is imported: a session pod's memory counts. Whatever is traced
calls the same functions then, which do nothing.

Spans have names of namespaces, sessions and routes, phases, reasons and statuses. An error is told
by its type, a request by its route: messages, paths and queries may have phone numbers or texts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as RecordedSpan

Attributes = Mapping[str, str | int | float | bool]
Kind = Literal["INTERNAL", "SERVER", "CLIENT"]
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
NAMESPACE, SESSION = "k8s.namespace.name", "wasession.session.name"
PHASE, REASON = "wasession.phase", "wasession.reason"
FLUSH_TIMEOUT = 2.0  # seconds that a collector can delay the end of a program
LOG_INTERVAL = 60.0  # seconds between two log lines about a collector that fails
# They log each failure, and again what is dropped meanwhile.
EXPORTER_LOGGERS = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
)
log = logging.getLogger(__name__)
_provider: TracerProvider | None = None  # None while traces are off
_current: ContextVar[Span | None] = ContextVar("span", default=None)


class Span:
    """One span, with its parent; or nothing, while traces are off."""

    __slots__ = ("_recorded", "is_open")

    def __init__(self, recorded: RecordedSpan | None = None) -> None:
        self._recorded = recorded
        self.is_open = recorded is not None

    def set(self, attributes: Attributes) -> None:
        if self._recorded is not None:
            self._recorded.set_attributes(attributes)

    def fail(self, error: str) -> None:
        """Mark what the span stands for as failed, with the type of the error."""
        if self._recorded is not None:
            from opentelemetry.trace import StatusCode

            self._recorded.set_attribute("error.type", error)
            self._recorded.set_status(StatusCode.ERROR)

    def respond(self, status: int) -> None:
        """Note the status of an HTTP response."""
        self.set({"http.response.status_code": status})
        if status >= 500:
            self.fail(str(status))

    def end(self) -> None:
        """End the span, once."""
        if self.is_open and self._recorded is not None:
            self._recorded.end()
        self.is_open = False

    @contextlib.contextmanager
    def ended(self) -> Iterator[Self]:
        """End the span with the block; what the block raises has made it fail."""
        try:
            yield self
        except BaseException as error:
            self.fail(type(error).__name__)
            raise
        finally:
            self.end()

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the W3C's Trace Context for who continues the trace; none while off."""
        carrier: dict[str, str] = {}
        if self._recorded is not None:
            from opentelemetry.trace import set_span_in_context
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

            TraceContextTextMapPropagator().inject(carrier, set_span_in_context(self._recorded))
        return carrier

    @property
    def ids(self) -> dict[str, str]:
        """What a log line says of the span."""
        if self._recorded is None:
            return {}
        context = self._recorded.get_span_context()
        return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


NOTHING = Span()


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Return whether the variables ask for traces; log why not if they ask for what there isn't."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    chosen = environment.get("OTEL_TRACES_EXPORTER", "").lower().split(",")
    exporters = {name.strip() for name in chosen} - {""}
    if not exporters and not any(environment.get(name) for name in ENDPOINTS):
        return False
    if exporters and "otlp" not in exporters:
        if exporters != {"none"}:
            log.warning("no traces: OTEL_TRACES_EXPORTER can be otlp or none")
        return False
    protocol = next((environment[name] for name in PROTOCOLS if environment.get(name)), PROTOCOL)
    if protocol != PROTOCOL:
        log.warning("no traces: the protocol of OTLP can be %s alone", PROTOCOL)
        return False
    return True


def configure(service: str, attributes: Attributes | None = None) -> None:
    """Switch traces on if the environment asks for them; not before a fork.

    ``service`` and ``attributes`` describe the program, unless OTEL_SERVICE_NAME and
    OTEL_RESOURCE_ATTRIBUTES do.
    """
    if not is_wanted(os.environ):
        return
    try:
        _set_up({"service.name": service, **(attributes or {})})
    except ImportError:
        log.warning("no traces: OpenTelemetry is not installed, it is the extra 'tracing'")
    except Exception as error:
        # Not its message, which may quote a variable with credentials.
        log.warning(
            "no traces: the OTEL_* variables are not valid", extra={"error": type(error).__name__}
        )


def _set_up(defaults: Attributes) -> None:
    global _provider
    # Quotes headers that it cannot parse, and they may have credentials.
    logging.getLogger("opentelemetry.util.re").disabled = True
    for name in EXPORTER_LOGGERS:
        logging.getLogger(name).addFilter(_Seldom())
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    described = {**defaults, **OTELResourceDetector().detect().attributes}
    provider = TracerProvider(resource=Resource.create(described), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _provider = provider


class _Seldom(logging.Filter):
    """Let one line pass in ``LOG_INTERVAL``: a collector may be away for days.

    URLs lose their credentials.
    """

    def __init__(self) -> None:
        super().__init__()
        self._passed: float | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if self._passed is not None and now - self._passed < LOG_INTERVAL:
            return False
        self._passed = now
        record.msg, record.args = re.sub(r"//[^/\s]*@", "//", record.getMessage()), ()
        return True


def close() -> None:
    """Switch traces off, and send what is left, within ``FLUSH_TIMEOUT``."""
    global _provider
    provider, _provider = _provider, None
    if provider is not None:
        flushing = threading.Thread(target=provider.shutdown, daemon=True)
        flushing.start()
        flushing.join(FLUSH_TIMEOUT)


def is_on() -> bool:
    return _provider is not None


def remote(headers: Mapping[str, str]) -> Span:
    """Return the caller's span, by the headers of the W3C's Trace Context."""
    if _provider is None:
        return NOTHING
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    span = get_current_span(TraceContextTextMapPropagator().extract(headers))
    return Span(span) if span.get_span_context().is_valid else NOTHING


def begin(
    name: str,
    parent: Span = NOTHING,
    *,
    kind: Kind = "INTERNAL",
    attributes: Attributes | None = None,
    link: Span = NOTHING,
    since: float | None = None,
) -> Span:
    """Return a new span, the first one of a trace if there is no parent; the caller ends it.

    ``since`` is when it began, in seconds since the epoch, if not now.
    """
    if _provider is None:
        return NOTHING
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind, set_span_in_context

    context = Context()  # not what OpenTelemetry's own instrumentation may have left
    if parent._recorded is not None:
        context = set_span_in_context(parent._recorded, context)
    links = [] if link._recorded is None else [Link(link._recorded.get_span_context())]
    recorded = _provider.get_tracer("wasession").start_span(
        name,
        context,
        SpanKind[kind],
        attributes,
        links,
        None if since is None else int(since * 1e9),
    )
    return Span(recorded)


def current() -> Span:
    """Return the span that the present task works for.

    A task outlives the span in which it was started: what it does later is no part of that.
    """
    span = _current.get()
    return span if span is not None and span.is_open else NOTHING


@contextlib.contextmanager
def working_for(span: Span) -> Iterator[None]:
    """Make a span the current one in the block."""
    token = _current.set(span)
    try:
        yield
    finally:
        _current.reset(token)


@contextlib.contextmanager
def child(
    name: str, *, kind: Kind = "INTERNAL", attributes: Attributes | None = None
) -> Iterator[Span]:
    """Trace a block as a part of the current span, if there is one."""
    parent = current()
    if parent.is_open:
        with begin(name, parent, kind=kind, attributes=attributes).ended() as span:
            yield span
    else:
        yield NOTHING


@contextlib.contextmanager
def serving(method: str, route: str, headers: Mapping[str, str]) -> Iterator[Span]:
    """Trace a request in the block, as a part of its caller's trace, if it says so."""
    attributes = {"http.request.method": method, "http.route": route}
    span = begin(f"{method} {route}", remote(headers), kind="SERVER", attributes=attributes)
    with span.ended(), working_for(span):
        yield span
