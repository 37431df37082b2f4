"""The session pod's HTTP API: authentication, responses, and invalid requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from integration.pod.conftest import TOKEN, Linked, Pod
from support.standin.server import Running
from wasession_api.v1alpha1 import Phase
from wasession_pod.api.handlers import HANDLERS
from wasession_pod.api.operations import OPERATIONS, api_document

Start = Callable[..., Awaitable[Pod]]


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer wrong", "Basic token-of-the-tests", "Bearer ü", "Bearer \udcff"]
)
async def test_a_token_is_needed(cut_off: Pod, given: str) -> None:
    headers = {"Authorization": given} if given else {}
    async with aiohttp.ClientSession(headers=headers) as http:
        for name in ("state", "pairing", "events", "screenshot", "screencast", "page", "nothing"):
            path = f"/v1/{name}"
            async with http.get(cut_off.base + path) as answer:
                assert answer.status == 401
                assert answer.headers["WWW-Authenticate"] == "Bearer"
                assert (await answer.json(content_type="application/problem+json"))[
                    "title"
                ] == "Unauthorized"
        for path in ("/livez", "/readyz", "/metrics", "/openapi.json"):
            async with http.get(cut_off.base + path) as answer:
                assert answer.status == 200


async def test_the_qr_as_text_and_picture(waiting: Pod) -> None:
    link_code = await waiting.call("GET", "/v1/pairing")
    assert (link_code["method"], link_code["attempt"]) == ("QRCode", 1)
    assert len(link_code["code"].split(",")) in (4, 5)
    async with aiohttp.ClientSession(
        headers={"Authorization": "Bearer token-of-the-tests"}
    ) as http:
        for accept, media_type, start_of_file in (
            ("image/png", "image/png", b"\x89PNG"),
            ("text/html, image/svg+xml;q=0.9, application/json;q=0.5", "image/svg+xml", b"<?xml"),
            ("text/plain", "text/plain", link_code["code"].encode()),
            ("*/*", "application/json", b"{"),
        ):
            async with http.get(waiting.base + "/v1/pairing", headers={"Accept": accept}) as answer:
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


async def test_a_malformed_request_is_refused_and_its_headers_stay_out_of_the_log(
    waiting: Pod,
) -> None:
    host, _, port = waiting.base.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"GET /v1/state HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token-of-the-tests\x00\r\n\r\n"
    )
    assert (await reader.readline()).startswith(b"HTTP/1.0 400 ")
    writer.close()
    assert "malformed request" not in waiting.log, "anybody could fill the log"
    assert "token-of-the-tests" not in waiting.log


async def test_sending_before_ready_names_the_phase(waiting: Pod) -> None:
    response = await waiting.answer("POST", "/v1/messages", json={"to": "15550001111", "text": "x"})
    assert (response.status, response.json["phase"]) == (503, Phase.AUTHENTICATING)
    assert int(response.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    ("body", "status", "detail"),
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
async def test_invalid_messages_are_rejected_with_a_reason(
    cut_off: Pod, body: bytes, status: int, detail: str
) -> None:
    headers = {"Content-Type": "application/json"}
    problem = await cut_off.call("POST", "/v1/messages", status, data=body, headers=headers)
    assert detail in problem["detail"]
    assert "nobody" not in problem["detail"], "the request is not echoed"


def form(*parts: str) -> bytes:
    return (
        "".join(f"--edge\r\nContent-Disposition: form-data; {part}\r\n" for part in parts).encode()
        + b"--edge--\r\n"
    )


TO = 'name="to"\r\n\r\n15550001111'
FILE = 'name="file"; filename="a.txt"\r\nContent-Type: text/plain\r\n\r\ncontent'


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"", 400, "form"),
        (b"nothing of the kind", 400, "form"),
        (form("form-data\r\n\r\nx"), 400, "name"),
        (form(TO, FILE)[:-40], 400, "form"),
        (
            form(TO, 'name="caption"\r\nContent-Transfer-Encoding: base64\r\n\r\neA==', FILE),
            400,
            "encoding",
        ),
        (form(FILE), 422, "to: "),
        (form(TO), 422, "file: "),
        (form(TO, TO, FILE), 422, "to: "),
        (form(TO, FILE, FILE), 422, "file: "),
        (form(TO, FILE, 'name="more"\r\n\r\nx'), 422, "more: "),
        (form(TO, FILE, 'name="type"\r\n\r\nsticker'), 422, "type: "),
        (form(TO, FILE, 'name="caption"\r\n\r\n' + "x" * 1025), 422, "caption: "),
        (form(TO, FILE, 'name="caption"\r\n\r\n' + "x" * 20_000), 413, "field"),
        (form(TO, *(f'name="n{number}"\r\n\r\nx' for number in range(20)), FILE), 422, "parts"),
        (form(TO, 'name="file"; filename="a.txt"\r\n\r\n'), 422, "file: "),
    ],
)
async def test_invalid_forms_are_rejected_with_a_reason(
    cut_off: Pod, body: bytes, status: int, detail: str
) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=edge", "Idempotency-Key": "key"}
    problem = await cut_off.call("POST", "/v1/messages", status, data=body, headers=headers)
    assert detail in problem["detail"]


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/mixed; boundary=edge", "x"],
)
async def test_a_message_of_another_type_is_refused(cut_off: Pod, kind: str) -> None:
    problem = await cut_off.call(
        "POST", "/v1/messages", 415, data=b"{}", headers={"Content-Type": kind}
    )
    assert problem["title"] == "Unsupported media type"


async def test_a_form_without_a_boundary(cut_off: Pod) -> None:
    headers = {"Content-Type": "multipart/form-data", "Idempotency-Key": "key"}
    await cut_off.call("POST", "/v1/messages", 400, data=form(TO, FILE), headers=headers)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("DELETE", "/v1/state", 405),
        ("GET", "/v1/messages", 405),
        ("PATCH", "/livez", 405),
        ("GET", "/v1/nothing", 404),
    ],
)
async def test_unknown_routes_and_methods(
    cut_off: Pod, method: str, path: str, status: int
) -> None:
    async with cut_off.http.request(method, cut_off.base + path) as answer:
        assert (answer.status, answer.content_type) == (status, "application/problem+json")
        assert ("Allow" in answer.headers) == (status == 405)
        assert (await answer.json())["phase"] == "Starting"


@pytest.mark.parametrize(
    "path", ["/v1/state?x=1", "/v1/chats?limit=ten", "/v1/messages/nonsense", "/v1/events?types=x"]
)
async def test_invalid_parameters_are_rejected(cut_off: Pod, path: str) -> None:
    await cut_off.call("GET", path, 422)


async def test_an_aborted_request_leaves_nothing_behind(cut_off: Pod) -> None:
    """An upload, an event stream, and a request's headers."""
    host, _, port = cut_off.base.removeprefix("http://").partition(":")
    head = f"Host: x\r\nAuthorization: Bearer {TOKEN}\r\nIdempotency-Key: gone\r\n"
    kind = "Content-Type: multipart/form-data; boundary=edge\r\n"
    for request in (
        f"POST /v1/messages HTTP/1.1\r\n{head}{kind}Content-Length: 100000\r\n\r\n"
        f"{form(TO, FILE)[:-10].decode()}",
        f"POST /v1/messages HTTP/1.1\r\n{head}{kind}Transfer-Encoding: chunked\r\n\r\n5\r\n--ed",
        f"GET /v1/events HTTP/1.1\r\n{head}\r\n",
        f"GET /v1/state HTTP/1.1\r\n{head}",
    ):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(request.encode())
        await writer.drain()
        await cut_off.call("GET", "/v1/state")  # by then the previous request has been read
        writer.transport.abort()
    async with asyncio.timeout(20):
        while cut_off.uploads:  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # polling
    assert "Traceback" not in cut_off.log
    assert "request handler failed" not in cut_off.log


async def test_a_ready_session_is_not_paired_again(linked: Linked) -> None:
    assert (await linked.pod.call("POST", "/v1/pairing/refresh", 409))["title"] == "Not pairing"
    await linked.pod.call("GET", "/v1/pairing", 404)


def test_every_route_is_in_the_document() -> None:
    """So is every handler: the routes come from the same table."""
    routes = {(operation.method, operation.path) for operation in OPERATIONS}
    documented = {
        (method.upper(), path)
        for path, methods in api_document()["paths"].items()
        for method in methods
    }
    assert documented == routes
    assert HANDLERS.keys() == {operation.name for operation in OPERATIONS}


async def test_the_document_is_served_as_it_is(cut_off: Pod) -> None:
    assert await cut_off.call("GET", "/openapi.json") == api_document()


async def test_an_unreachable_whatsapp_is_reported_and_waited_for(
    start: Start, world: Running
) -> None:
    from support.loopback import unused_port
    from support.standin import running

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
