"""The client of the DevTools protocol against a peer that sends what it likes."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from unit.pod.peer import Peer, connected, round_trip
from wasession_pod.browser import cdp
from wasession_pod.browser.cdp import Connection, Disconnected, Messages, ProtocolError, Session

LIMIT = 1000


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Connection, Peer]]:
    async with connected() as pair:
        yield pair


def calling(session: Session, method: str = "Page.enable") -> asyncio.Task[dict[str, Any]]:
    return asyncio.create_task(session.call(method))


# --- calls ----------------------------------------------------------------------------------------


async def test_responses_may_come_in_any_order(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    tasks = [calling(connection.browser, f"Page.method{number}") for number in range(5)]
    calls = [await peer.receive() for _ in tasks]
    assert [call["method"] for call in calls] == [f"Page.method{number}" for number in range(5)]
    assert len({call["id"] for call in calls}) == 5
    await peer.send(*({"id": c["id"], "result": {"m": c["method"]}} for c in reversed(calls)))
    assert [await task for task in tasks] == [{"m": call["method"]} for call in calls]


async def test_a_call_of_a_session_names_it_and_its_parameters(
    pair: tuple[Connection, Peer],
) -> None:
    connection, peer = pair
    session = connection.open_session("S1")
    task = asyncio.create_task(session.call("Page.navigate", url="https://x.test/\ud800"))
    call = await peer.answer()
    assert await task == {}
    assert (call["sessionId"], call["params"]) == ("S1", {"url": "https://x.test/\ud800"})


@pytest.mark.parametrize(
    ("response", "message"),
    [
        ({"error": {"code": -32000, "message": "No such frame"}}, "No such frame"),
        ({"error": "no object"}, "no result"),
        ({"error": {}}, "no result"),
        ({"result": ["not an object"]}, "no result"),
        ({"result": None}, "no result"),
        ({}, "no result"),
    ],
)
async def test_a_response_without_a_result_is_an_error(
    pair: tuple[Connection, Peer], response: dict[str, Any], message: str
) -> None:
    connection, peer = pair
    task = calling(connection.browser)
    await peer.send({"id": (await peer.receive())["id"], **response})
    with pytest.raises(ProtocolError, match=message):
        await task


async def test_a_response_to_nobody_or_twice_is_ignored(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    cancelled, task = calling(connection.browser), calling(connection.browser)
    first, second = await peer.receive(), await peer.receive()
    cancelled.cancel()
    await asyncio.wait({cancelled})
    connection.browser.post("Page.stopLoading")
    posted = await peer.receive()
    for number in (first["id"], posted["id"], 999):
        await peer.send({"id": number, "result": {}}, {"id": number, "error": {"message": "no"}})
    await peer.send(*2 * [{"id": second["id"], "result": {"of": "the second"}}])
    assert await task == {"of": "the second"}
    await round_trip(connection, peer)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"not JSON",
        b'{"id": 1',
        b"\xff\xfe",
        b"[" * 100_000,
        b"7",
        b"[]",
        b"null",
        b'{"id": "1", "result": {}}',
        b'{"id": ' + b"9" * 5000 + b"}",
        b'{"method": 5}',
        b'{"method": "Page.loadEventFired"}',
        b'{"method": "Page.loadEventFired", "params": []}',
        b'{"method": "Page.loadEventFired", "params": {}, "sessionId": {}}',
        b'{"method": "Page.loadEventFired", "params": {}, "sessionId": "unknown"}',
        b'{"method": "Target.detachedFromTarget", "params": {"sessionId": []}}',
        b'{"method": "Target.detachedFromTarget", "params": {"sessionId": "unknown"}}',
    ],
)
async def test_what_is_no_message_is_dropped(pair: tuple[Connection, Peer], message: bytes) -> None:
    connection, peer = pair
    heard: list[dict[str, Any]] = []
    connection.browser.on("Page.loadEventFired", heard.append)
    await peer.send(message)
    await round_trip(connection, peer)
    assert heard == []


# --- events ---------------------------------------------------------------------------------------


async def test_events_reach_their_session_in_order_and_before_the_response_after_them(
    pair: tuple[Connection, Peer],
) -> None:
    connection, peer = pair
    heard: list[int] = []
    for other in (connection.browser, connection.open_session("S1")):
        other.on("Page.frameNavigated", lambda _: heard.append(0))
    session = connection.open_session("S2")
    session.on("Page.frameNavigated", lambda event: heard.append(event["n"]))
    session.on("Page.frameNavigated", lambda event: heard.append(-event["n"]))
    task = calling(session)
    number = (await peer.receive())["id"]
    event = {"method": "Page.frameNavigated", "sessionId": "S2"}
    await peer.send({**event, "params": {"n": 1}}, {**event, "params": {"n": 2}})
    await peer.send({"id": number, "result": {}, "sessionId": "S2"})
    await task
    assert heard == [1, -1, 2, -2]


async def test_a_handler_that_fails_harms_nothing_else(
    pair: tuple[Connection, Peer], caplog: pytest.LogCaptureFixture
) -> None:
    connection, peer = pair
    heard: list[dict[str, Any]] = []
    connection.browser.on("Fetch.requestPaused", lambda event: event["secret of the page"])
    connection.browser.on("Fetch.requestPaused", heard.append)
    await peer.send({"method": "Fetch.requestPaused", "params": {"requestId": "1"}})
    await round_trip(connection, peer)
    assert heard == [{"requestId": "1"}]
    [record] = caplog.records
    assert record.__dict__["method"] == "Fetch.requestPaused"
    assert "secret" not in str(record.__dict__)


# --- messages that are too long -------------------------------------------------------------------


@pytest.mark.parametrize("size", range(1, 40))
def test_messages_are_the_same_in_whatever_pieces_they_come(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(cdp, "MAXIMUM_MESSAGE", 10)
    monkeypatch.setattr(cdp, "HEAD", 4)
    whole = [b"", b"a", b"0123456789", b"0123456789x", b"b" * 35, b"", b"", b"c" * 11, b"end"]
    stream = b"".join(message + b"\0" for message in whole) + b"unfinished"
    messages = Messages()
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    found = [message for piece in pieces for message in messages.feed(piece)]
    assert [complete for _, complete in found] == [len(message) <= 10 for message in whole]
    for (message, complete), sent in zip(found, whole, strict=True):
        assert message == sent if complete else sent.startswith(message)
        assert len(message) <= 10 if complete else len(message) >= 4


def test_a_message_without_end_takes_no_more_memory_than_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cdp, "MAXIMUM_MESSAGE", LIMIT)
    messages = Messages()
    for _ in range(100):
        assert list(messages.feed(b"x" * LIMIT)) == []
        assert len(messages._buffer) <= 2 * LIMIT
    [(head, complete)] = messages.feed(b"\0")
    assert not complete
    assert len(head) < LIMIT + cdp.HEAD


async def test_a_response_that_is_too_long_is_an_error_of_its_call(
    pair: tuple[Connection, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cdp, "MAXIMUM_MESSAGE", LIMIT)
    connection, peer = pair
    long, short = calling(connection.browser), calling(connection.browser)
    first, second = await peer.receive(), await peer.receive()
    result = json.dumps({"id": first["id"], "result": {"data": "x" * LIMIT}}, separators=(",", ":"))
    await peer.send(result.encode(), {"id": second["id"], "result": {"data": "fits"}})
    with pytest.raises(ProtocolError, match="the response is more than"):
        await long
    assert await short == {"data": "fits"}


@pytest.mark.parametrize("known", [True, False])
async def test_an_event_that_is_too_long_is_dropped_and_logged_without_its_content(
    pair: tuple[Connection, Peer],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    known: bool,
) -> None:
    monkeypatch.setattr(cdp, "MAXIMUM_MESSAGE", LIMIT)
    connection, peer = pair
    heard: list[dict[str, Any]] = []
    connection.browser.on("Network.dataReceived", heard.append)
    head = b'{"method":"Network.dataReceived",' if known else b'{"secret":'
    await peer.send(head + b'"params":{"data":"' + b"secret" * LIMIT + b'"}}')
    await round_trip(connection, peer)
    assert heard == []
    logged = [record.__dict__ for record in caplog.records]
    assert [record["method"] for record in logged] == (["Network.dataReceived"] if known else [])
    assert "secret" not in str(logged)


# --- the end of a session and of the pipe ---------------------------------------------------------


async def test_a_session_that_has_ended_fails_its_calls_and_no_others(
    pair: tuple[Connection, Peer],
) -> None:
    connection, peer = pair
    session, other = connection.open_session("S1"), connection.open_session("S2")
    waiting, others = calling(session), calling(other)
    await peer.receive()
    number = (await peer.receive())["id"]
    await peer.send({"method": "Target.detachedFromTarget", "params": {"sessionId": "S1"}})
    with pytest.raises(Disconnected):
        await waiting
    assert session.ended.done()
    with pytest.raises(Disconnected):
        await session.call("Page.enable")
    session.post("Page.stopLoading")  # is not sent
    heard: list[dict[str, Any]] = []
    session.on("Page.loadEventFired", heard.append)
    await peer.send({"method": "Page.loadEventFired", "params": {}, "sessionId": "S1"})
    await peer.send({"id": number, "result": {}})
    assert await others == {}
    await round_trip(connection, peer)
    assert heard == []


async def test_a_session_may_be_ended_from_here(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    session = connection.open_session("S1")
    waiting = calling(session)
    await peer.receive()
    session.end()
    session.end()
    with pytest.raises(Disconnected):
        await waiting
    await round_trip(connection, peer)


async def test_the_browsers_session_ends_with_the_pipe_alone(
    pair: tuple[Connection, Peer],
) -> None:
    connection, peer = pair
    await peer.send({"method": "Target.detachedFromTarget", "params": {"sessionId": None}})
    await round_trip(connection, peer)
    assert not connection.browser.ended.done()


@pytest.mark.parametrize("by", ["peer", "us"])
async def test_a_closed_pipe_ends_all_calls_and_sessions(
    pair: tuple[Connection, Peer], by: str
) -> None:
    connection, peer = pair
    session = connection.open_session("S1")
    unknown = asyncio.create_task(connection.call("Page.enable", session_id="S2"))
    tasks = [unknown, calling(connection.browser), calling(session)]
    for _ in tasks:
        await peer.receive()
    if by == "peer":
        await peer.send(b'{"id": 1, "result": {')
        peer.close()
    else:
        connection.close()
    await connection.closed
    for task in tasks:
        with pytest.raises(Disconnected):
            await task
    for ended in (connection.browser, session):
        assert ended.ended.done()
        with pytest.raises(Disconnected):
            await ended.call("Page.enable")
        ended.post("Page.enable")
    with pytest.raises(Disconnected):
        await connection.call("Page.enable")
    with pytest.raises(Disconnected):
        connection.post("Page.enable")


# --- taps -----------------------------------------------------------------------------------------


async def test_a_tap_gets_the_messages_of_its_session_as_they_are(
    pair: tuple[Connection, Peer],
) -> None:
    connection, peer = pair
    heard: list[dict[str, Any]] = []

    def tap(message: dict[str, Any]) -> None:
        heard.append(message)
        raise KeyError("a tap that fails")

    connection.tap("S1", tap)
    posted = connection.post("Page.enable", {}, "S1")
    assert (await peer.receive())["id"] == posted
    messages: list[dict[str, Any]] = [
        {"id": posted, "result": {}, "sessionId": "S1"},
        {"method": "Page.loadEventFired", "params": {}, "sessionId": "S1"},
    ]
    await peer.send(*messages)
    await round_trip(connection, peer)
    assert heard == messages
    connection.tap("S1", None)
    await peer.send(*messages)
    await round_trip(connection, peer)
    assert heard == messages


async def test_random_bytes_end_nothing(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)  # noqa: S311
    for _ in range(50):
        await peer.send(chance.randbytes(chance.randrange(2000)))
    await round_trip(connection, peer)
