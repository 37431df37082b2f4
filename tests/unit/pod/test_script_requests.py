"""Which scripts have not come, by Chromium's events of requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from unit.pod.peer import Peer, connected, round_trip
from wasession_api.v1alpha1 import Reason
from wasession_pod.browser.cdp import Connection
from wasession_pod.browser.scripts import MAXIMUM_SCRIPTS, ScriptRequests

HOST = "static.x.test"


class Requests:
    """The requests of a page, as Chromium reports them."""

    def __init__(self, connection: Connection, peer: Peer) -> None:
        self.scripts = ScriptRequests(connection.open_session("S1"), "T1")
        self._connection, self._peer = connection, peer

    async def event(self, method: str, request_id: str, **params: Any) -> None:
        params = {"requestId": request_id, "frameId": "T1", "type": "Script"} | params
        message = {"method": f"Network.{method}", "params": params, "sessionId": "S1"}
        await self._peer.send(message)
        await round_trip(self._connection, self._peer)

    async def sent(self, request: str = "1", **params: Any) -> None:
        url = f"https://{HOST}/{request}.js"
        await self.event("requestWillBeSent", request, **{"request": {"url": url}} | params)

    async def responded(
        self,
        request: str = "1",
        status: int = 200,
        media_type: str = "text/javascript",
        **params: Any,
    ) -> None:
        response = {
            "url": f"https://{HOST}/{request}.js",
            "status": status,
            "mimeType": media_type,
        }
        await self.event("responseReceived", request, response=response, **params)

    async def failed(self, request: str = "1", error: str = "net::ERR_CONNECTION_RESET") -> None:
        await self.event("loadingFailed", request, errorText=error)

    @property
    def fault(self) -> str | None:
        fault = self.scripts.fault
        return fault and fault.message


@pytest.fixture
async def requests() -> AsyncIterator[Requests]:
    async with connected() as pair:
        yield Requests(*pair)


async def test_a_script_without_a_response_is_pending(requests: Requests) -> None:
    await requests.sent()
    fault = requests.scripts.fault
    assert fault is not None
    assert fault.pending
    assert fault.message == f"its scripts do not come from {HOST} (no answer)"
    await requests.responded()
    await requests.event("loadingFinished", "1")
    assert requests.fault is None


@pytest.mark.parametrize(
    ("response", "message"),
    [
        ({"status": 404}, "HTTP 404"),
        ({"media_type": "text/html"}, "HTML in place of a script"),
    ],
)
async def test_a_wrong_response(requests: Requests, response: dict[str, Any], message: str) -> None:
    await requests.sent()
    await requests.responded(**response)
    assert message in (requests.fault or "")
    await requests.responded()
    assert requests.fault is None, "another attempt has succeeded"


@pytest.mark.parametrize("begun", [False, True])
async def test_a_request_that_fails(requests: Requests, begun: bool) -> None:
    await requests.sent()
    if begun:
        await requests.responded()
    await requests.failed(error="net::ERR_TUNNEL_CONNECTION_FAILED")
    fault = requests.scripts.fault
    assert fault is not None
    assert (fault.reason, fault.pending) == (Reason.PROXY_FAILED, False)


async def test_what_is_no_fault_of_a_script(requests: Requests) -> None:
    await requests.sent("1", type="Image")
    await requests.sent("2", frameId="F2")
    await requests.sent("3")
    await requests.failed("3", "net::ERR_ABORTED")  # the page has navigated away
    await requests.failed("unknown")
    await requests.responded("4", 404, frameId="F2")
    await requests.responded("5", 404, type="Image")
    assert requests.fault is None
    assert requests.scripts.document_status is None


async def test_a_page_that_reloads_itself_unwatched_shows_its_responses(
    requests: Requests,
) -> None:
    """Its first requests were sent before Chromium has begun to report them."""
    await requests.responded("1", 503)
    assert "HTTP 503" in (requests.fault or "")


async def test_a_new_document_forgets_the_last_ones_scripts(requests: Requests) -> None:
    await requests.sent("1")
    await requests.failed("1")
    await requests.sent("document", type="Document")
    assert requests.fault is None
    await requests.responded("document", 502, type="Document")
    assert requests.scripts.document_status == 502
    await requests.responded("frame", 404, type="Document", frameId="F2")
    assert requests.scripts.document_status == 502


async def test_chromium_reports_requests_only_while_they_are_watched() -> None:
    async with connected() as (connection, peer):
        scripts = ScriptRequests(connection.open_session("S1"), "T1")
        scripts.unwatch()
        scripts.watch()
        scripts.watch()
        call = await peer.receive()
        assert call["method"] == "Network.enable"
        assert call["params"] == {"maxTotalBufferSize": 0, "maxResourceBufferSize": 0}
        scripts.unwatch()
        assert (await peer.receive())["method"] == "Network.disable"
        await round_trip(connection, peer)


async def test_a_page_with_any_number_of_scripts(requests: Requests) -> None:
    scripts = requests.scripts
    for number in range(MAXIMUM_SCRIPTS + 10):
        request = {"requestId": str(number), "frameId": "T1", "type": "Script"}
        url = f"https://{HOST}/{number}.js"
        scripts._on_request(request | {"request": {"url": url}})
        response = {"url": url, "status": 404, "mimeType": ""}
        if number % 2:
            scripts._on_response(request | {"response": response})
    kept = (scripts._pending, scripts._loading, scripts._faults)
    assert all(len(found) <= MAXIMUM_SCRIPTS for found in kept)
