"""A request to the gateway is one trace, from its caller to the session pod."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from integration.gateway.fakes import NAMESPACE, ApiServer, Pod
from integration.gateway.process import Process
from integration.gateway.replica import token, until
from support.collector import Behaviour, Collector, collecting
from support.loopback import unused_port

TRACE, CALLER = "a" * 32, "b" * 16
FRIEND, TEXT = "15550001111", "meet me where nobody looks"
ORDER = {"clientId": "sales", "to": FRIEND, "text": TEXT}
HEADERS = {"Authorization": f"Bearer {token('alice')}"}
Begin = Callable[[dict[str, str]], Awaitable[Process]]


@pytest.fixture
async def begin(api: ApiServer, tmp_path: Path) -> AsyncIterator[Begin]:
    """Start a gateway as a process, with these variables."""
    started: list[Process] = []

    async def start(variables: dict[str, str]) -> Process:
        process = Process(api, tmp_path, variables, drain_delay="0s")
        started.append(process)
        await process.start()
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.process.kill()
        await process.process.wait()


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as collector:
        yield collector


async def test_a_send(collector: Collector, begin: Begin, pod: Pod) -> None:
    process = await begin(collector.environment)
    headers = {**HEADERS, "traceparent": f"00-{TRACE}-{CALLER}-01"}
    async with aiohttp.ClientSession(process.url, headers=HEADERS) as http:
        async with http.post("/whatsapp/messages", json=ORDER, headers=headers) as answer:
            assert answer.status == 201
        contact = f"/whatsapp/sessions/sales/contacts/{FRIEND}"
        async with http.get(contact) as answer:
            assert answer.status == 200
        async with http.get("/whatsapp/sessions/other/chats") as answer:
            assert answer.status == 404
        async with http.get("/", headers=headers) as answer:
            assert answer.status == 200
    served = await collector.one("POST /whatsapp/messages")
    assert (served.trace, served.parent, served.kind) == (TRACE, CALLER, "SERVER")
    assert served.attributes == {
        "http.request.method": "POST",
        "http.route": "/whatsapp/messages",
        "http.response.status_code": 201,
        "k8s.namespace.name": NAMESPACE,
        "wasession.session.name": "sales",
    }
    assert served.resource["service.name"] == "wasession-gateway"
    look_up, asked = collector.children(served)
    assert (look_up.name, look_up.kind) == ("get pods", "CLIENT")
    assert (asked.name, asked.kind) == ("POST session pod", "CLIENT")
    assert served.start <= asked.start <= asked.end <= served.end
    assert pod.traceparents[0] is not None
    assert pod.traceparents[0].startswith(f"00-{TRACE}-{asked.id}-")
    route = "GET /whatsapp/sessions/{clientId}/contacts/{contactId}"
    await collector.until(lambda: [one for one in collector.spans if "contacts" in one.name])
    [read] = [one for one in collector.spans if "contacts" in one.name]
    assert (read.name, read.parent) == (route, ""), "its caller told no trace"
    missing = await collector.one("GET /whatsapp/sessions/{clientId}/chats")
    assert missing.attributes["http.response.status_code"] == 404
    assert not missing.failed
    assert not collector.named("GET /"), "the console is no operation"
    [line] = [one for one in process.log if one.get("route") == "/whatsapp/messages"]
    assert (line["trace_id"], line["span_id"]) == (served.trace, served.id)
    secrets = [FRIEND, TEXT, HEADERS["Authorization"].removeprefix("Bearer "), pod.token]
    assert [one for one in secrets if one.encode() in collector.everything] == []


async def test_off(begin: Begin, pod: Pod) -> None:
    process = await begin({})
    headers = {**HEADERS, "traceparent": f"00-{TRACE}-{CALLER}-01"}
    async with (
        aiohttp.ClientSession(process.url) as http,
        http.post("/whatsapp/messages", json=ORDER, headers=headers) as answer,
    ):
        assert answer.status == 201
    assert set(pod.traceparents) == {None}
    assert not any("trace_id" in line for line in process.log)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("behaviour", [Behaviour.FAIL, Behaviour.HANG, None])
async def test_a_collector_that_fails_hurts_nobody(
    behaviour: Behaviour | None, collector: Collector, begin: Begin, pod: Pod
) -> None:
    """None is one that is away."""
    environment = {**collector.environment, "OTEL_EXPORTER_OTLP_TIMEOUT": "3600"}
    if behaviour is None:
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{unused_port()}"
    else:
        collector.behaviour = behaviour
    process = await begin(environment)
    async with aiohttp.ClientSession(process.url, headers=HEADERS) as http:
        for number in range(20):
            async with http.post("/whatsapp/messages", json=ORDER) as answer:
                assert answer.status == 201
            if number == 0 and behaviour is not None:
                await until(lambda: collector.requests > 0)
    assert len(pod.sent) == 20
    process.process.send_signal(signal.SIGTERM)
    assert await process.process.wait() == 0
