"""The start of a pod is traced, and what its page does for a request."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
from integration.pod.conftest import TOKEN, Linked, Pod
from support.collector import Behaviour, Collector, Span, collecting
from support.standin import Phone

Start = Callable[..., Awaitable[Pod]]
ACCOUNT, FRIEND, TEXT = "15551234567", "15550001111", "meet me where nobody looks"
PNG = b"\x89PNG\r\n\x1a\n" + b"picture" * 8


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as collector:
        yield collector


@pytest.fixture
def traced(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the pods of the test traced, in containers with one /tmp."""
    with tempfile.TemporaryDirectory() as directory:
        for name, value in {**collector.environment, "TMPDIR": directory}.items():
            monkeypatch.setenv(name, value)
        yield


def loads_protobuf(pod: Pod) -> bool:
    """Return whether the process has the library that OpenTelemetry sends with."""
    assert pod.process is not None
    return "/google/_upb/" in Path(f"/proc/{pod.process.pid}/maps").read_text()


def names(spans: list[Span]) -> list[str]:
    return [span.name for span in spans]


async def send(pod: Pod, trace: str, **options: object) -> str:
    """Send a message as a part of a trace; return the message's path."""
    headers = {"traceparent": f"00-{trace}-{'b' * 16}-01"}
    answer = await pod.answer("POST", "/v1/messages", headers=headers, **options)
    assert answer.status == 201, answer.body
    return answer.headers["Location"]


@pytest.mark.usefixtures("traced")
async def test_a_session(start: Start, phone: Phone, collector: Collector) -> None:
    pod = await start(namespace="ns", session="sales")
    qr = await pod.qr()
    await phone.scan(qr, ACCOUNT)
    await pod.ready()
    assert loads_protobuf(pod)
    first = await collector.one("session pod start")
    assert (first.parent, first.links, first.failed) == ("", [], False)
    assert first.attributes == {"wasession.phase": "Ready", "wasession.reason": "Connected"}
    about = {
        "service.name": "wasession-session-pod",
        "k8s.namespace.name": "ns",
        "wasession.session.name": "sales",
    }
    assert about.items() <= first.resource.items()
    parts = names(collector.children(first))
    work = [name for name in parts if name in {"open volume", "launch browser", "open page"}]
    assert work == ["open volume", "launch browser", "open page"]
    assert parts.index("BrowserStarting") < parts.index("WaitingForScan")

    await send(pod, "1" * 32, json={"to": FRIEND, "text": TEXT})
    form = aiohttp.FormData({"to": FRIEND})
    form.add_field("file", PNG, content_type="image/png", filename="picture.png")
    message = await send(pod, "2" * 32, data=form)
    headers = {"traceparent": f"00-{'3' * 32}-{'b' * 16}-01"}
    async with pod.http.get(f"{pod.base}{message}/media", headers=headers) as answer:
        assert (answer.status, await answer.read()) == (200, PNG)
    text, file, media = [await request(collector, digit * 32) for digit in "123"]
    assert names([text, file, media]) == [
        "POST /v1/messages",
        "POST /v1/messages",
        "GET /v1/messages/{id}/media",
    ]
    assert {one.parent for one in (text, file, media)} == {"b" * 16}
    assert text.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/messages",
        "http.response.status_code": 201,
        "wasession.phase": "Ready",
    }
    assert names(collector.children(text)) == ["page prepare", "page sendText"]
    assert names(collector.children(file)) == ["page prepare", "page sendFile"]
    assert names(collector.children(media)) == ["page openMedia", "page closeMedia"]

    assert await pod.terminate() == 0
    routes = {one.attributes.get("http.route") for one in collector.spans}
    assert not routes & {"/v1/events", "/readyz", "/metrics"}
    private = [TOKEN, ACCOUNT, FRIEND, TEXT, "picture.png", *qr.split(",")]
    assert [one for one in private if one.encode() in collector.everything] == []


async def request(collector: Collector, trace: str) -> Span:
    """Return the request of a trace, as soon as it has ended."""

    def requests() -> list[Span]:
        return [one for one in collector.spans if (one.trace, one.kind) == (trace, "SERVER")]

    await collector.until(requests)
    [span] = requests()
    return span


@pytest.mark.usefixtures("traced")
async def test_the_start_of_a_pod_is_a_part_of_its_sessions(
    start: Start, phone: Phone, collector: Collector
) -> None:
    """That of a later container only refers to it, as it may be much later."""
    trace, parent = secrets.token_hex(16), secrets.token_hex(8)
    pod = await start(traceparent=f"00-{trace}-{parent}-01")
    await phone.scan(await pod.qr())
    await pod.ready()
    first = await collector.one("session pod start")
    assert (first.trace, first.parent, first.links) == (trace, parent, [])
    await pod.terminate()
    again = await start(traceparent=f"00-{trace}-{parent}-01")
    await again.ready()
    await collector.until(lambda: len(collector.named("session pod start")) == 2)
    second = collector.named("session pod start")[1]
    assert (second.parent, second.links) == ("", [trace])
    assert "LoginRestoring" in names(collector.children(second))


@pytest.mark.usefixtures("traced")
async def test_a_collector_that_hangs_hurts_no_session(
    start: Start, phone: Phone, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector.behaviour = Behaviour.HANG
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
    pod = await start()
    await phone.scan(await pod.qr())
    await pod.ready()
    await collector.until(lambda: collector.requests)
    await send(pod, "1" * 32, json={"to": FRIEND, "text": TEXT})
    assert await pod.terminate() == 0


async def test_off(linked: Linked) -> None:
    await send(linked.pod, "1" * 32, json={"to": FRIEND, "text": TEXT})
    assert not loads_protobuf(linked.pod)
