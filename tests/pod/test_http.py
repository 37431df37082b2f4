"""The session pod's HTTP API: who may ask, what is answered, and what bad questions get."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pod.conftest import Pod
from standin import Phone
from standin.server import Running
from wasession_api.v1alpha1 import Phase

Start = Callable[..., Awaitable[Pod]]


@pytest.fixture
async def waiting(start: Start) -> Pod:
    """A pod that waits for a phone."""
    pod = await start()
    await pod.qr()
    return pod


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}])
async def test_a_token_is_needed(waiting: Pod, headers: dict[str, str]) -> None:
    async with aiohttp.ClientSession(headers=headers) as http:
        for path in ("/v1/state", "/v1/pairing", "/v1/events", "/v1/screenshot", "/v1/nothing"):
            async with http.get(waiting.base + path) as answer:
                assert answer.status == 401
                assert (await answer.json(content_type="application/problem+json"))["title"] == "Unauthorized"
        for path in ("/livez", "/readyz", "/metrics"):
            async with http.get(waiting.base + path) as answer:
                assert answer.status == 200


async def test_the_qr_as_text_and_picture(waiting: Pod) -> None:
    said = await waiting.call("GET", "/v1/pairing")
    assert (said["available"], said["method"], said["attempt"]) == (True, "QRCode", 1)
    assert len(said["code"].split(",")) in (4, 5)
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer token-of-the-tests"}) as http:
        for media_type, start_of_file in (("image/png", b"\x89PNG"), ("image/svg+xml", b"<?xml")):
            async with http.get(waiting.base + "/v1/pairing", headers={"Accept": media_type}) as answer:
                assert answer.content_type == media_type
                assert answer.headers["Cache-Control"] == "no-store"
                assert (await answer.read()).startswith(start_of_file)
        async with http.get(waiting.base + "/v1/screenshot") as answer:
            assert (await answer.read()).startswith(b"\x89PNG")


async def test_the_code_is_in_no_log_and_no_state(waiting: Pod) -> None:
    code = (await waiting.call("GET", "/v1/pairing"))["code"]
    log = (waiting.directory.parent / "data.log").read_text()
    state = json.dumps(await waiting.call("GET", "/v1/state"))
    for secret in (*code.split(","), "token-of-the-tests"):
        assert secret not in log
        assert secret not in state


async def test_sending_before_ready_says_where_it_is(waiting: Pod) -> None:
    said = await waiting.call("POST", "/v1/messages", 503, json={"to": "15550001111", "text": "x"})
    assert said["phase"] == Phase.AUTHENTICATING


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "JSON"),
        (b"", 400, "JSON"),
        (b"\xff", 400, "JSON"),
        (b'{"to": "15550001111", "text": "\\ud800"}', 400, "JSON"),
        (b"[]", 422, ""),
        (b"{}", 422, "to"),
        (b'{"to": "15550001111"}', 422, "text"),
        (b'{"to": "15550001111", "text": ""}', 422, "text"),
        (b'{"to": "15550001111", "text": "x", "more": 1}', 422, "more"),
        (b'{"to": "nobody", "text": "x"}', 422, "to"),
        (b'{"to": "1; drop", "text": "x"}', 422, "to"),
        (b'{"to": "15550001111", "text": "' + b"x" * 66_000 + b'"}', 422, "text"),
        (b'{"to": "15550001111", "text": "' + b"x" * 2**20 + b'"}', 413, ""),
    ],
)
async def test_bad_messages_are_refused_in_words(pod_for_bad_input: Pod, body: bytes, status: int, words: str) -> None:
    headers = {"Content-Type": "application/json"}
    said = await pod_for_bad_input.call("POST", "/v1/messages", status, data=body, headers=headers)
    assert words in said["detail"]


@pytest.fixture(scope="module")
async def pod_for_bad_input(tmp_path_factory: pytest.TempPathFactory, chromium: Path) -> Any:
    pod = Pod("http://127.0.0.1:9", tmp_path_factory.mktemp("bad") / "data")
    pod.directory.mkdir()
    await pod.start()
    await pod.until(lambda report: True)
    yield pod
    await pod.kill()


async def test_a_number_that_is_not_on_whatsapp(start: Start, phone: Phone) -> None:
    await phone.behave(unknown_numbers=["19999999999"])
    pod = await start()
    await phone.scan(await pod.qr())
    await pod.ready()
    said = await pod.call("POST", "/v1/messages", 404, json={"to": "+19999999999", "text": "x"})
    assert "not on WhatsApp" in said["detail"]
    await pod.call("GET", "/v1/pairing", 404)


async def test_whatsapp_that_cannot_be_reached_is_told_and_waited_for(start: Start, world: Running) -> None:
    from aiohttp.test_utils import unused_port
    from standin import running

    port = unused_port()
    pod = await start(url=f"http://localhost:{port}", reconnect_max_delay="1")
    report = await pod.until(lambda report: report.reason == "WhatsAppUnreachable")
    assert report.phase is Phase.STARTING
    assert "ERR_CONNECTION_REFUSED" in report.message
    await pod.call("GET", "/readyz")
    async with running(port=port):
        await pod.qr()


async def test_a_second_process_on_the_volume_waits(start: Start) -> None:
    first = await start()
    await first.qr()
    second = await start()
    report = await second.until(lambda report: report.phase is Phase.FAILED)
    assert report.reason == "VolumeInUse"
    await first.kill()
    await second.qr()
