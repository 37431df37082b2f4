"""Only what the bridge of the top frame's document emits reaches the pod."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import pytest
from unit.pod.peer import Peer, connected, round_trip
from wasession_pod.browser.cdp import Connection
from wasession_pod.browser.channel import Channel
from wasession_pod.browser.launch import BRIDGE

TOP, FRAME = 3, 4  # IDs of JavaScript contexts
# Emits one event before the page is connected and one after it, twice.
CONNECT = """
const window = {}, handlers = {}, WPP = {on: (name, listener) => (handlers[name] = listener)};
new Function('window', 'WPP', require('fs').readFileSync(process.argv[1], 'utf8'))(window, WPP);
const sent = [], binding = (text) => sent.push(text);
handlers['conn.qrcode_idle']();
window.__wasessionConnect(binding, 'secret');
handlers['conn.online']();
window.__wasessionConnect(binding, 'secret');
console.log(JSON.stringify(sent));
"""


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Connection, Peer]]:
    async with connected() as pair:
        yield pair


def event(method: str, **params: Any) -> dict[str, Any]:
    return {"method": method, "params": params, "sessionId": "S1"}


def document(frame: str = "T1") -> dict[str, Any]:
    return event("Page.frameNavigated", frame={"id": frame, "url": "https://x.test/"})


def emitted(payload: object, context: object, name: str = "__wasessionEmit") -> dict[str, Any]:
    params = {"name": name, "payload": payload, "executionContextId": context}
    return event("Runtime.bindingCalled", **params)


async def secret_of(peer: Peer) -> str:
    """Return the secret that a new document gets."""
    for method in ("Runtime.removeBinding", "Runtime.addBinding"):
        assert (await peer.receive())["method"] == method, "an old binding would hide the new one"
    expression = (await peer.receive())["params"]["expression"]
    match = re.search(
        r"window\.__wasessionConnect\?\.\(window\.__wasessionEmit, '(\w+)'\)", expression
    )
    assert match is not None
    return match[1]


async def test_only_the_top_frames_document_is_heard(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    heard: list[str] = []
    Channel(connection.open_session("S1"), "T1", heard.append)
    await peer.send(emitted("before any document", TOP))
    await peer.send(document())
    secret = await secret_of(peer)
    await peer.send(emitted("before it is connected", TOP), emitted("guess", FRAME))
    await peer.send(emitted(secret, TOP), emitted("one", TOP), emitted("of a frame", FRAME))
    await peer.send(emitted("another name", TOP, name="other"), emitted({"no": "text"}, TOP))
    await peer.send(emitted(None, None), emitted("no context", None), emitted("two", TOP))
    await round_trip(connection, peer)
    assert heard == ["one", "two"]


async def test_each_document_is_connected_anew(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    heard: list[str] = []
    Channel(connection.open_session("S1"), "T1", heard.append)
    await peer.send(document())
    await peer.send(emitted(await secret_of(peer), TOP), document(frame="F2"))
    await peer.send(emitted("a frame's document changes nothing", TOP), document())
    secret = await secret_of(peer)
    await peer.send(emitted("the same number in another process", TOP))
    await peer.send(emitted(secret, TOP + 1), emitted("next", TOP + 1))
    await round_trip(connection, peer)
    assert heard == ["a frame's document changes nothing", "next"]


def test_the_bridge_keeps_its_events_until_it_is_connected() -> None:
    node = shutil.which("node")
    assert node is not None
    output = subprocess.run(
        [node, "-e", CONNECT, str(BRIDGE)], capture_output=True, text=True, check=True
    ).stdout
    first, *events, last = json.loads(output)
    assert first == last == "secret"
    assert [json.loads(text)["type"] for text in events] == ["conn.qrcode_idle", "conn.online"]
