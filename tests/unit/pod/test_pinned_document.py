"""What the page gets in place of the document that WhatsApp Web serves."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from support.documents import newest
from unit.pod.peer import connected, round_trip
from wasession_pod.browser.confinement import Confinement
from wasession_pod.browser.pinned_document import fulfillment, replaces, with_nonce
from wasession_pod.browser.verified_file import require_html

ORIGIN, OLD = "https://web.whatsapp.com", "6g2cH2W1"
DOCUMENT = (
    f'<!DOCTYPE html><html><script nonce="{OLD}">{{"nonce":"{OLD}"}}</script></html>'.encode()
)
POLICY = {"name": "Content-Security-Policy", "value": "script-src 'self' 'nonce-fresh123' blob:"}


def test_the_documents_nonce_becomes_that_of_the_policy() -> None:
    served = with_nonce(DOCUMENT, [{"name": "Date", "value": "'nonce-wrong'"}, POLICY])
    assert served == DOCUMENT.replace(OLD.encode(), b"fresh123")


@pytest.mark.parametrize(
    ("document", "headers"),
    [
        (DOCUMENT, []),
        (DOCUMENT, [{"name": "content-security-policy", "value": "script-src 'self'"}]),
        (b"<!DOCTYPE html><html></html>", [POLICY]),
    ],
)
def test_without_a_nonce_the_document_stays(document: bytes, headers: list[dict[str, str]]) -> None:
    assert with_nonce(document, headers) == document


def test_a_real_document_has_one_nonce() -> None:
    document = newest().read_bytes()
    require_html(document)
    served = with_nonce(document, [POLICY])
    assert served.count(b'nonce="fresh123"') == document.count(b"nonce=") > 20
    assert b'"nonce":"fresh123"' in served


def test_the_headers_are_the_servers_but_those_of_its_body() -> None:
    kept = [POLICY, {"name": "cross-origin-opener-policy", "value": "same-origin-allow-popups"}]
    body = ["Content-Encoding", "content-length", "link", "Set-Cookie", "ETag"]
    answer = fulfillment(DOCUMENT, [*kept, *({"name": name, "value": "x"} for name in body)])
    assert answer["responseHeaders"] == kept
    assert answer["responseCode"] == 200
    assert b"fresh123" in base64.b64decode(answer["body"])


@pytest.mark.parametrize(
    ("path", "replaced"),
    [
        ("/", True),
        ("", True),
        ("/?post_logout=1&logout_reason=0", True),
        ("/send?phone=1", False),
        ("/sw.js", False),
    ],
)
def test_only_whatsapp_webs_own_document_is_replaced(path: str, replaced: bool) -> None:
    assert replaces(f"{ORIGIN}{path}") is replaced


PAUSED = {"requestId": "1", "frameId": "T1", "request": {"url": f"{ORIGIN}/"}}
RESPONSE = {"responseStatusCode": 200, "responseHeaders": [POLICY]}


@pytest.mark.parametrize(
    ("document", "event", "method"),
    [
        (DOCUMENT, RESPONSE, "Fetch.fulfillRequest"),
        (None, RESPONSE, "Fetch.continueRequest"),
        (DOCUMENT, {}, "Fetch.continueRequest"),
        (DOCUMENT, RESPONSE | {"frameId": "T2"}, "Fetch.continueRequest"),
        (DOCUMENT, RESPONSE | {"responseStatusCode": 503}, "Fetch.continueRequest"),
        (DOCUMENT, RESPONSE | {"responseStatusCode": 302}, "Fetch.continueRequest"),
        (DOCUMENT, {"responseErrorReason": "ConnectionReset"}, "Fetch.continueRequest"),
        (
            DOCUMENT,
            RESPONSE | {"request": {"url": f"{ORIGIN}/frame"}},
            "Fetch.continueRequest",
        ),
        (
            DOCUMENT,
            RESPONSE | {"request": {"url": "https://other.test/"}},
            "Fetch.continueRequest",
        ),
    ],
)
async def test_which_responses_are_replaced(
    document: bytes | None, event: dict[str, Any], method: str
) -> None:
    async with connected() as (connection, peer):
        opened: list[None] = []
        Confinement(
            connection.open_session("S1"),
            "T1",
            ORIGIN,
            None,
            document,
            on_blocked=lambda _: None,
            on_document=lambda: opened.append(None),
        )
        await peer.send(
            {"method": "Fetch.requestPaused", "params": PAUSED | event, "sessionId": "S1"}
        )
        posted = await peer.receive()
        assert (posted["method"], posted["params"]["requestId"]) == (method, "1")
        await round_trip(connection, peer)
        assert len(opened) == (not event), "a response is not another document"
