"""``bridge.py`` and ``bridge.js`` have the same functions, and no invalid answer passes."""

from __future__ import annotations

import asyncio
import inspect
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic.alias_generators import to_camel
from unit.pod.fake_page import FakePage
from wasession_pod.browser.bridge import (
    Bridge,
    ChatPosition,
    ContactPosition,
    MediaBusy,
    MediaError,
    MediaGone,
    MediaTooLarge,
    MessagePosition,
    OpenMedia,
    Position,
)
from wasession_pod.browser.cdp import Disconnected, ProtocolError
from wasession_pod.browser.errors import BrowserError, NoAnswer, PageAway, PageClosed
from wasession_pod.browser.launch import BRIDGE

METHODS = {
    to_camel(name): method
    for name, method in inspect.getmembers(Bridge, inspect.isfunction)
    if not name.startswith("_")
}
# Runs bridge.js in an empty page and prints the source of each exported function.
LIST_FUNCTIONS = """
const window = {}, WPP = {on() {}};
new Function('window', 'WPP', require('fs').readFileSync(process.argv[1], 'utf8'))(window, WPP);
const sources = Object.entries(window.__wasession).map(([name, value]) => [name, String(value)]);
console.log(JSON.stringify(Object.fromEntries(sources)));
"""
ACK = {"id": "true_1@c.us_A", "chatId": "1@c.us", "ack": 2, "at": "2026-01-01T00:00:00Z"}


@pytest.fixture(scope="module")
def functions() -> dict[str, list[str]]:
    """The parameters of each function that bridge.js exports."""
    node = shutil.which("node")
    assert node is not None
    output = subprocess.run(
        [node, "-e", LIST_FUNCTIONS, str(BRIDGE)], capture_output=True, text=True, check=True
    ).stdout
    heads = {name: source.partition("(")[2] for name, source in json.loads(output).items()}
    return {
        name: [part.strip() for part in head.partition(")")[0].split(",") if part.strip()]
        for name, head in heads.items()
    }


def test_each_function_has_one_method_with_the_same_parameters(
    functions: dict[str, list[str]],
) -> None:
    assert {name: parameters(method) for name, method in METHODS.items()} == functions


def parameters(method: Callable[..., Any]) -> list[str]:
    return [to_camel(name) for name in inspect.signature(method).parameters if name != "self"]


@pytest.mark.parametrize("name", METHODS)
async def test_a_method_calls_its_function_with_its_arguments_in_order(name: str) -> None:
    page = FakePage()
    page.answers[name] = ProtocolError("stop here")
    arguments = {
        parameter: argument_for(parameter)
        for parameter in inspect.signature(METHODS[name]).parameters
        if parameter != "self"
    }
    with pytest.raises(BrowserError, match="stop here"):
        await METHODS[name](page.bridge, **arguments)
    [(called, values)] = page.calls
    assert called == name
    assert values == [plain(argument) for argument in arguments.values()]


def argument_for(parameter: str) -> Any:
    arguments = {
        "after": ChatPosition(id="1@c.us", t=1),
        "before": MessagePosition(id="true_1@c.us_A", t=1),
        "message_ids": ["1", "2"],
        "since": 5,
    }
    return arguments.get(parameter, parameter)


def plain(argument: Any) -> Any:
    return argument.model_dump() if isinstance(argument, Position) else argument


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (lambda bridge: bridge.observe(), 7),
        (lambda bridge: bridge.observe(), {"registered": "perhaps"}),
        (lambda bridge: bridge.qr(), {"code": "x" * 1025, "ttlMs": 1000}),
        (lambda bridge: bridge.qr(), {"code": "x", "ttlMs": -1}),
        (lambda bridge: bridge.pairing_code("15550001111"), None),
        (lambda bridge: bridge.logout(), "no"),
        (lambda bridge: bridge.prepare("1@c.us", None), {"messageId": "x" * 193}),
        (lambda bridge: bridge.send_text("1", "2", None, "hello"), {"ack": "many"}),
        (lambda bridge: bridge.send_file(Path("f"), "1", "2", None, "x", None, None, None), None),
        (lambda bridge: bridge.message("1"), {"id": "1"}),
        (lambda bridge: bridge.acks(["1"]), [ACK | {"ack": 6}]),
        (lambda bridge: bridge.chats(1, None), {"items": []}),
        (lambda bridge: bridge.chats(1, None), {"items": [{}], "next": None}),
        (lambda bridge: bridge.contacts(1, None), {"items": [], "next": {"id": 1}}),
        (lambda bridge: bridge.recent(1, 1, None), {"items": [{"type": "page.ban"}], "next": None}),
        (lambda bridge: bridge.history("1", 1, None), {"items": [], "next": {"id": "1"}}),
        (lambda bridge: bridge.open_media("1"), {"problem": "Asleep"}),
        (lambda bridge: bridge.open_media("1"), {"handle": "1", "size": -1}),
        (lambda bridge: bridge.read_media("1", 0, 1), "not base64"),
        (lambda bridge: bridge.read_media("1", 0, 1), None),
    ],
)
async def test_an_invalid_answer_is_an_error_that_does_not_quote_it(
    call: Callable[[Bridge], Any], answer: Any
) -> None:
    page = FakePage(**dict.fromkeys(METHODS, answer))
    with pytest.raises(BrowserError) as error:
        await call(page.bridge)
    assert str(error.value) == f"the page's answer to {page.functions[0]} is not valid"
    assert error.value.__cause__ is None


async def test_answers_are_typed() -> None:
    listing = {"items": [{"id": "1@c.us", "t": 5}], "next": {"id": "1@c.us", "t": 5}}
    page = FakePage(qr=None, message=None, acks=[ACK], chats=listing, contacts=listing)
    assert await page.bridge.qr() is None
    assert await page.bridge.message("1") is None
    [ack] = await page.bridge.acks(["1"])
    assert (ack.id, ack.ack) == ("true_1@c.us_A", 2)
    chats = await page.bridge.chats(1, None)
    assert (chats.items[0].id, chats.next) == ("1@c.us", ChatPosition(id="1@c.us", t=5))
    page.answers["contacts"] = {"items": [], "next": {"id": "1@c.us"}}
    contacts = await page.bridge.contacts(1, ContactPosition(id="0@c.us"))
    assert contacts.next == ContactPosition(id="1@c.us")


async def test_an_open_file_is_read_in_parts() -> None:
    page = FakePage(openMedia={"handle": "h", "size": 3, "mimeType": "a/b"}, readMedia="AQID")
    assert await page.bridge.open_media("1") == OpenMedia(handle="h", size=3, mime_type="a/b")
    assert await page.bridge.read_media("h", 0, 3) == b"\x01\x02\x03"
    assert await page.bridge.read_media("h", 0, 2) == b"\x01\x02", "no more than was asked for"
    page.answers["openMedia"] = None
    assert await page.bridge.open_media("1") is None


@pytest.mark.parametrize(
    ("problem", "error"),
    [("Gone", MediaGone), ("TooLarge", MediaTooLarge), ("Busy", MediaBusy)],
)
async def test_why_a_file_cannot_be_downloaded(problem: str, error: type[MediaError]) -> None:
    with pytest.raises(error):
        await FakePage(openMedia={"problem": problem}).bridge.open_media("1")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Disconnected("the page or the browser has been closed\nsecret"), PageClosed),
        (ProtocolError("Inspected target navigated or closed"), PageAway),
        (ProtocolError("Error: WhatsApp Web is loading\n  at a secret"), PageAway),
        (ProtocolError("TypeError: x is not a function\n  at a secret"), BrowserError),
        (TimeoutError(), NoAnswer),
    ],
)
async def test_an_error_of_the_page_is_one_line(
    error: Exception, expected: type[BrowserError]
) -> None:
    with pytest.raises(BrowserError) as raised:
        await FakePage(observe=error).bridge.observe()
    assert type(raised.value) is expected
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)


async def test_a_page_that_does_not_answer_in_time() -> None:
    page = FakePage(observation_timeout=0.01, observe=asyncio.Event().wait)
    with pytest.raises(NoAnswer, match=r"no answer within 0\.01 s"):
        await page.bridge.observe()
