"""A tab: its navigations, its JavaScript, its dialogs and its end, without Chromium."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from unit.pod.peer import Peer, connected, round_trip
from wasession_pod.browser.cdp import Connection, Disconnected, ProtocolError
from wasession_pod.browser.tab import Tab

URL = "https://x.test/"
CLOSED = {"method": "Target.detachedFromTarget", "params": {"sessionId": "S1"}}


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Connection, Peer]]:
    async with connected() as pair:
        yield pair


def tab_of(connection: Connection) -> Tab:
    return Tab(connection.open_session("S1"), "T1")


def event(method: str, **params: Any) -> dict[str, Any]:
    return {"method": method, "params": params, "sessionId": "S1"}


def document(url: str, frame: str = "T1") -> dict[str, Any]:
    return event("Page.frameNavigated", frame={"id": frame, "url": url})


PARSED = event("Page.domContentEventFired", timestamp=1)


async def test_a_navigation_ends_when_its_own_document_is_parsed(
    pair: tuple[Connection, Peer],
) -> None:
    connection, peer = pair
    tab = tab_of(connection)
    task = asyncio.create_task(tab.navigate(URL))
    assert (await peer.answer(frameId="T1", loaderId="L1"))["params"] == {"url": URL}
    await peer.send(PARSED, document("https://ads.test/", frame="F2"), PARSED)
    await round_trip(connection, peer)
    assert not task.done(), "these were the last document and another frame"
    assert tab.url == "about:blank"
    await peer.send(document(URL))
    await round_trip(connection, peer)
    assert not task.done()
    await peer.send(PARSED)
    await task
    assert tab.url == URL
    await peer.send(event("Page.navigatedWithinDocument", frameId="F2", url="https://ads.test/#1"))
    await peer.send(event("Page.navigatedWithinDocument", frameId="T1", url=URL + "#1"))
    await round_trip(connection, peer)
    assert tab.url == URL + "#1"


async def test_a_document_may_be_parsed_before_the_response(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    task = asyncio.create_task(tab_of(connection).navigate(URL))
    number = (await peer.receive())["id"]
    await peer.send(document(URL), PARSED, {"id": number, "result": {"frameId": "T1"}})
    await task


async def test_a_document_that_cannot_be_loaded(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    task = asyncio.create_task(tab_of(connection).navigate(URL))
    await peer.answer(frameId="T1", errorText="net::ERR_NAME_NOT_RESOLVED")
    with pytest.raises(ProtocolError, match=f"net::ERR_NAME_NOT_RESOLVED at {URL}"):
        await task


@pytest.mark.parametrize("end", [CLOSED, event("Inspector.targetCrashed")])
async def test_a_tab_that_ends_during_a_navigation(
    pair: tuple[Connection, Peer], end: dict[str, Any]
) -> None:
    connection, peer = pair
    tab = tab_of(connection)
    task = asyncio.create_task(tab.navigate(URL))
    await peer.answer(frameId="T1")
    await peer.send(end)
    with pytest.raises(Disconnected):
        await task
    assert tab.crashed is (end is not CLOSED)
    with pytest.raises(Disconnected):
        await tab.evaluate("() => 1")


@pytest.mark.parametrize(
    ("result", "value"),
    [
        ({"type": "object", "value": {"a": [1, None]}}, {"a": [1, None]}),
        ({"type": "undefined"}, None),
        ({"type": "number", "unserializableValue": "NaN"}, None),
        ("no object", None),
    ],
)
async def test_the_value_of_a_function(
    pair: tuple[Connection, Peer], result: Any, value: object
) -> None:
    connection, peer = pair
    task = asyncio.create_task(tab_of(connection).evaluate("(a, b) => a", "\u2028'\"", ["\ud800"]))
    call = await peer.answer(result=result)
    assert await task == value
    expression = call["params"]["expression"]
    assert expression == '((a, b) => a)(...["\\u2028\'\\"", ["\\ud800"]])'
    assert call["params"]["awaitPromise"]
    assert call["params"]["returnByValue"]


@pytest.mark.parametrize(
    ("details", "message"),
    [
        ({"text": "Uncaught", "exception": {"description": "Error: no\n  at x"}}, "Error: no\n"),
        ({"text": "Uncaught", "exception": {"value": "a string"}}, "a string"),
        ({"text": "Uncaught", "exception": {"value": None}}, "Uncaught"),
        ({"text": "Uncaught"}, "Uncaught"),
        ("no object", "None"),
    ],
)
async def test_what_a_function_throws(
    pair: tuple[Connection, Peer], details: Any, message: str
) -> None:
    connection, peer = pair
    task = asyncio.create_task(tab_of(connection).evaluate("() => 1"))
    await peer.answer(result={}, exceptionDetails=details)
    with pytest.raises(ProtocolError) as error:
        await task
    assert str(error.value).startswith(message)


async def test_a_function_with_a_file_lets_go_of_it(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    tab = tab_of(connection)
    task = asyncio.create_task(tab.evaluate_with_file("(f, a) => a", Path("/tmp/x"), 1))
    await peer.answer(result={"type": "object", "objectId": "O1"})
    call = await peer.answer()
    assert call["method"] == "DOM.setFileInputFiles"
    assert call["params"] == {"files": ["/tmp/x"], "objectId": "O1"}
    call = await peer.answer(result={"type": "number", "value": 1})
    assert "((f, a) => a)(this.files[0], ...[1])" in call["params"]["functionDeclaration"]
    assert (await peer.receive())["method"] == "Runtime.releaseObject"
    assert await task == 1


@pytest.mark.parametrize("result", [{"type": "undefined"}, None, "no object"])
async def test_a_page_without_a_file_input(pair: tuple[Connection, Peer], result: Any) -> None:
    connection, peer = pair
    task = asyncio.create_task(tab_of(connection).evaluate_with_file("f", Path("/tmp/x")))
    await peer.answer(result=result)
    with pytest.raises(ProtocolError):
        await task


@pytest.mark.parametrize(
    ("kind", "accepted"), [("alert", False), ("prompt", False), ("beforeunload", True)]
)
async def test_no_dialog_holds_up_a_page(
    pair: tuple[Connection, Peer], kind: str, accepted: bool
) -> None:
    connection, peer = pair
    tab = tab_of(connection)
    await peer.send(event("Page.javascriptDialogOpening", type=kind, message="secret"))
    call = await peer.receive()
    assert call["method"] == "Page.handleJavaScriptDialog"
    assert call["params"] == {"accept": accepted}
    assert call["sessionId"] == tab.session.session_id


async def test_a_tab_is_closed_when_it_is_gone(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    task = asyncio.create_task(tab_of(connection).close())
    call = await peer.answer(success=True)
    assert (call["method"], call["params"]) == ("Target.closeTarget", {"targetId": "T1"})
    assert "sessionId" not in call, "the page itself may hang"
    await round_trip(connection, peer)
    assert not task.done()
    await peer.send(CLOSED)
    await task
