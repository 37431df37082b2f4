"""Traces are sent only where they are asked for, and never at the cost of what is traced."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping

import pytest
from support.collector import Behaviour, Collector, collecting
from support.loopback import unused_port
from wasession_api import logs, start_trace, tracing
from wasession_api.start_trace import StartTrace
from wasession_api.v1alpha1 import Phase

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
SECRET = "hunter2hunter2"
QUEUE = 64  # spans
# Runs all of a program but its main function, with each way in which it can be traced.
PROGRAM = """
import importlib, pkgutil, sys
from wasession_api import logs, tracing
from wasession_api.start_trace import StartTrace
for found in pkgutil.walk_packages(__import__(sys.argv[1]).__path__, sys.argv[1] + "."):
    importlib.import_module(found.name)
logs.configure()
tracing.configure("test")
with tracing.serving("GET", "/", {"traceparent": "00-%s-%s-01" % ("a" * 32, "b" * 16)}) as span:
    with tracing.child("child") as child:
        child.respond(503)
    assert span.headers == {}
StartTrace(tracing.begin("start")).end()
tracing.close()
print([name for name in sys.modules if name.startswith(("opentelemetry", "google.protobuf"))])
"""


@pytest.fixture(autouse=True)
def off(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Switch traces off in the end, and give the loggers back what they had."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    tracing.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in tracing.EXPORTER_LOGGERS:
        logging.getLogger(name).filters.clear()


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as collector:
        yield collector


def switch_on(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    tracing.configure("test", {"k8s.pod.name": "pod-1"})


@pytest.mark.parametrize("package", ["wasession_operator", "wasession_gateway", "wasession_pod"])
def test_without_the_variables_nothing_is_imported(package: str) -> None:
    command = [sys.executable, "-c", PROGRAM, package]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={})
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x", "OTEL_TRACES_SAMPLER": "always_on"}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "zipkin"}, False),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "console, OTLP"}, True),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
        (
            {
                **ENDPOINT,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            True,
        ),
    ],
)
def test_what_the_variables_ask_for(variables: dict[str, str], wanted: bool) -> None:
    assert tracing.is_wanted(variables) is wanted


async def test_a_trace(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    switch_on(monkeypatch, collector.environment)
    caller = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "vendor=1"}
    with tracing.serving("GET", "/things/{id}", caller) as served:
        with tracing.child("part", kind="CLIENT") as part:
            assert part.headers["tracestate"] == "vendor=1"
            continued = part.headers["traceparent"]
        with pytest.raises(ValueError, match=SECRET), tracing.child("broken"):
            raise ValueError(SECRET)
        served.respond(500)
    [broken, part_sent, server] = [
        await collector.one(name) for name in ("broken", "part", "GET /things/{id}")
    ]
    assert (server.trace, server.parent, server.kind) == ("a" * 32, "b" * 16, "SERVER")
    assert server.attributes == {
        "http.request.method": "GET",
        "http.route": "/things/{id}",
        "http.response.status_code": 500,
        "error.type": "500",
    }
    assert server.failed
    assert continued.startswith(f"00-{part_sent.trace}-{part_sent.id}-")
    assert collector.children(server) == [part_sent, broken]
    assert (broken.failed, broken.attributes) == (True, {"error.type": "ValueError"})
    assert SECRET.encode() not in collector.everything
    described = {"service.name": "test", "k8s.pod.name": "pod-1"}
    assert described.items() <= server.resource.items()


async def test_the_standard_variables_hold(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {
        "OTEL_SERVICE_NAME": "mine",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test,k8s.pod.name=other",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",
    }
    switch_on(monkeypatch, {**collector.environment, **chosen})
    with tracing.serving("GET", "/unsampled", {}) as unsampled:
        header = unsampled.headers["traceparent"]
        with tracing.child("part") as part:
            assert not int(part.headers["traceparent"][-2:], 16) & 1, "nobody else samples it"
    with tracing.serving("GET", "/sampled", {"traceparent": header[:-2] + "01"}):
        pass
    sampled = await collector.one("GET /sampled")
    assert [span.name for span in collector.spans] == [sampled.name]
    described = {
        "service.name": "mine",
        "deployment.environment.name": "test",
        "k8s.pod.name": "other",
    }
    assert described.items() <= sampled.resource.items()


async def test_a_task_is_no_part_of_a_span_that_it_outlives(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch_on(monkeypatch, collector.environment)
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> dict[str, str]:
        with tracing.child("in time"):
            begun.set()
        await ended.wait()
        with tracing.child("late") as late:
            return late.headers

    with tracing.serving("GET", "/", {}):
        task = asyncio.create_task(work())
        await begun.wait()
    ended.set()
    assert await task == {}
    server = await collector.one("GET /")
    assert [child.name for child in collector.children(server)] == ["in time"]
    assert collector.named("late") == []


async def test_the_steps_of_a_start(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    switch_on(monkeypatch, collector.environment)
    start = StartTrace(tracing.begin("good"))
    for phase, reason in (
        (Phase.STARTING, "BrowserStarting"),
        (Phase.STARTING, "BrowserStarting"),
        (Phase.AUTHENTICATING, "WaitingForScan"),
        (Phase.READY, "Connected"),
        (Phase.STARTING, "BrowserStarting"),
    ):
        start.observe(phase, reason)
    with start.step("late"):
        pass
    good = await collector.one("good")
    assert good.attributes == {"wasession.phase": "Ready", "wasession.reason": "Connected"}
    assert not good.failed
    steps = collector.children(good)
    assert [span.name for span in steps] == ["BrowserStarting", "WaitingForScan"]
    assert steps[0].end <= steps[1].start
    bad = StartTrace(tracing.begin("bad"))
    bad.observe(Phase.FAILED, "BrowserFailed")
    failed = await collector.one("bad")
    assert (failed.failed, failed.attributes["error.type"]) == (True, "BrowserFailed")


async def test_a_start_that_takes_too_long(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch_on(monkeypatch, collector.environment)
    monkeypatch.setattr(start_trace, "LONGEST", 0.0)
    start = StartTrace(tracing.begin("long"))
    with start.step("late"):
        start.observe(Phase.PENDING, "PodUnschedulable")
    long = await collector.one("long")
    assert not collector.children(long)


async def test_a_log_line_names_its_trace(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure()
    switch_on(monkeypatch, collector.environment)
    with tracing.serving("GET", "/", {}):
        logging.getLogger("a").warning("inside")
    logging.getLogger("a").warning("outside")
    inside, outside = map(json.loads, capsys.readouterr().out.splitlines())
    server = await collector.one("GET /")
    assert (inside["trace_id"], inside["span_id"]) == (server.trace, server.id)
    assert not {"trace_id", "span_id"} & outside.keys()


@pytest.mark.timeout(25)
@pytest.mark.parametrize("behaviour", [*Behaviour, None])
async def test_a_collector_that_fails_costs_little(
    behaviour: Behaviour | None,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """None is one that is away. No span waits for it, nor the end of the program for long."""
    environment = {
        **collector.environment,
        "OTEL_BSP_MAX_QUEUE_SIZE": str(QUEUE),
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": str(QUEUE // 2),
        "OTEL_EXPORTER_OTLP_TIMEOUT": "3600",
    }
    if behaviour is None:
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{unused_port()}"
    else:
        collector.behaviour = behaviour
    switch_on(monkeypatch, environment)
    for _ in range(QUEUE // 2):
        tracing.begin("first").end()
    if behaviour is not None:
        await collector.until(lambda: collector.requests)
    for _ in range(20 * QUEUE):
        tracing.begin("more").end()
    assert tracing._provider is not None
    [processor] = tracing._provider._active_span_processor._span_processors
    assert len(processor._batch_processor._queue) <= QUEUE  # type: ignore[attr-defined]
    await asyncio.to_thread(tracing.close)  # which a hanging collector would hold for 30 s
    assert not tracing.is_on()
    assert tracing.begin("after") is tracing.NOTHING
    noise = [record.name for record in caplog.records if record.name.startswith("opentelemetry")]
    assert len(noise) == len(set(noise)), "one line of each logger a minute"


@pytest.mark.parametrize(
    "wrong",
    [
        {"OTEL_EXPORTER_OTLP_HEADERS": f"authorization {SECRET}"},
        {"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"},
        {"OTEL_BSP_MAX_QUEUE_SIZE": "-1"},
        {"OTEL_TRACES_SAMPLER": "sometimes"},
        {"OTEL_EXPORTER_OTLP_CERTIFICATE": "/no/such/file"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": f"ftp://user:{SECRET}@"},
    ],
)
async def test_wrong_variables_end_no_program_and_are_not_quoted(
    wrong: dict[str, str],
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    switch_on(monkeypatch, {**collector.environment, **wrong})
    tracing.begin("span").end()
    await asyncio.to_thread(tracing.close)
    assert SECRET not in caplog.text
