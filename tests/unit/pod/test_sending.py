"""Sending without a browser: what each answer of the page, and each fault of the volume, means for the caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from wasession_api.http.problem import HTTPProblem
from wasession_api.session_pod.messages import SendMedia, SendText
from wasession_api.v1alpha1 import Phase
from wasession_pod.browser.browser import BrowserError
from wasession_pod.events import EventBuffer
from wasession_pod.messages.idempotency_store import Journal, JournalError
from wasession_pod.messages.sending import File, Messages, Order
from wasession_pod.session import NotReady, Session

PREPARED = {"chatId": "15550001111@c.us", "id": "true_15550001111@c.us_3EB0"}
TAKEN = {"ack": 1, "sentAt": "2026-01-01T00:00:00Z", "result": "OK"}
HELLO = Order(SendText(to="15550001111", text="hello"))


class Page:
    """A session whose page answers as told; ``calls`` are what it was asked."""

    def __init__(self, sent: Any = TAKEN, prepared: Any = PREPARED) -> None:
        self.answers = {"prepare": prepared, "sendText": sent, "sendFile": sent}
        self.calls: list[str] = []
        self.holds_volume = True
        self.ready = True
        self.events = EventBuffer(datetime(2026, 1, 1, tzinfo=UTC))
        self.report = SimpleNamespace(phase=Phase.RESTORING)

    async def call(self, function: str, *_: object, **__: object) -> Any:
        if not self.ready:
            raise NotReady(Phase.RESTORING)
        self.calls.append(function)
        answer = self.answers[function]
        if isinstance(answer, Exception):
            raise answer
        return await answer() if callable(answer) else answer


def messages(page: Page, tmp_path: Path, timeout: float = 10) -> Messages:
    return Messages(cast(Session, page), Journal(tmp_path / "messages.sqlite"), timeout)


async def status(sending: Any) -> int:
    """201, or what the caller gets instead."""
    try:
        await sending
    except HTTPProblem as error:
        return error.status
    return 201


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (TAKEN, 201),
        ({"ack": 0, "result": "OK"}, 201),
        ({"ack": 3, "result": None}, 201),
        ({"ack": -1, "result": "ERROR_UNKNOWN"}, 502),
        ({"ack": -1, "result": "ERROR_UPLOAD"}, 502),
        ({"ack": -1, "result": "ERROR_NETWORK"}, 504),
        ({"ack": 0, "result": None}, 504),
        ({"ack": None, "result": "file_too_large"}, 413),
        ({"ack": None, "result": "TypeError: x is not a function"}, 502),
        ({"ack": "many"}, 504),
        (None, 504),
        (BrowserError("the page is gone"), 504),
    ],
)
async def test_what_the_page_answers_and_what_the_caller_gets(
    tmp_path: Path, sent: Any, expected: int
) -> None:
    page = Page(sent)
    sender = messages(page, tmp_path)
    assert await status(sender.send(HELLO, "key")) == expected
    page.answers["sendText"] = TAKEN
    again, replayed = await sender.send(HELLO, "key")
    assert (again.id, replayed) == (PREPARED["id"], expected == 201)
    assert page.calls.count("prepare") == 1, "a retry goes out under the same id"
    assert page.calls.count("sendText") == (1 if expected == 201 else 2)


@pytest.mark.parametrize(
    ("prepared", "expected"),
    [
        ({"unknown": "to"}, 404),
        ({"unknown": "replyTo"}, 404),
        ({}, 404),
        (PREPARED | {"id": "x" * 193}, None),
        (7, None),
    ],
)
async def test_what_cannot_be_prepared_is_not_sent(
    tmp_path: Path, prepared: Any, expected: int | None
) -> None:
    page = Page(prepared=prepared)
    sending = messages(page, tmp_path).send(HELLO, "key")
    if expected is None:
        with pytest.raises(BrowserError):
            await sending
    else:
        assert await status(sending) == expected
    assert page.calls == ["prepare"]


async def test_an_answer_is_repeated_also_when_the_session_is_not_ready(tmp_path: Path) -> None:
    page = Page()
    sender = messages(page, tmp_path)
    first, _ = await sender.send(HELLO, "key")
    page.ready = False
    assert await sender.send(HELLO, "key") == (first, True)
    with pytest.raises(NotReady):
        await sender.send(HELLO, "another key")
    with pytest.raises(NotReady):
        await sender.send(HELLO, None)


async def test_the_journal_is_left_alone_before_the_volume_is_held(tmp_path: Path) -> None:
    page = Page()
    page.holds_volume = False
    with pytest.raises(NotReady):
        await messages(page, tmp_path).send(HELLO, "key")
    assert not list(tmp_path.iterdir())  # noqa: ASYNC240


async def test_nothing_is_sent_that_cannot_be_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Page()
    monkeypatch.setattr(Journal, "begin", failing)
    assert await status(messages(page, tmp_path).send(HELLO, "key")) == 507
    assert page.calls == ["prepare"]


async def test_an_answer_that_cannot_be_written_down_is_given_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Page()
    sender = messages(page, tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(Journal, "finish", failing)
        sent, _ = await sender.send(HELLO, "key")
    again, replayed = await sender.send(HELLO, "key")
    assert (again, replayed) == (sent, False), "the page is asked"
    assert await sender.send(HELLO, "key") == (sent, True)


def failing(*_: object) -> None:
    raise JournalError("database or disk is full")


async def test_a_caller_that_waits_no_longer_finds_the_answer_later(tmp_path: Path) -> None:
    answered = asyncio.Event()

    async def slowly() -> Any:
        await answered.wait()
        return TAKEN

    page = Page(slowly)
    sender = messages(page, tmp_path, timeout=0.01)
    assert await status(sender.send(HELLO, "key")) == 504
    assert await status(sender.send(HELLO, "key")) == 409
    answered.set()
    async with asyncio.timeout(10):
        while await status(sender.send(HELLO, "key")) == 409:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert page.calls == ["prepare", "sendText"]


async def test_a_page_that_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wasession_pod.messages.sending.LONGEST_SEND", 0.01)
    page = Page(asyncio.Event().wait)
    sender = messages(page, tmp_path)
    assert await status(sender.send(HELLO, "key")) == 504
    page.answers["sendText"] = TAKEN
    assert await status(sender.send(HELLO, "key")) == 201


@pytest.mark.parametrize(
    "sent", [TAKEN, {"ack": -1, "result": "ERROR_UPLOAD"}, BrowserError("gone")]
)
@pytest.mark.parametrize("prepared", [PREPARED, {"unknown": "to"}, BrowserError("gone")])
async def test_a_file_goes_when_it_is_no_longer_needed(
    tmp_path: Path, sent: Any, prepared: Any
) -> None:
    directory = tmp_path / "file"
    directory.mkdir()
    (directory / "file").write_text("content")
    seen = []

    async def look() -> Any:
        seen.append((directory / "file").exists())
        if isinstance(sent, Exception):
            raise sent
        return sent

    order = Order(SendMedia(to="15550001111"), File(directory / "file", "hash", None, None))
    with_file: Callable[[], Any] = look
    await asyncio.gather(
        messages(Page(with_file, prepared), tmp_path).send(order, "key"), return_exceptions=True
    )
    assert all(seen)
    assert not directory.exists()


def test_a_fingerprint_is_of_all_that_matters() -> None:
    text = SendText(to="15550001111", text="hello")
    file = File(Path("a"), "hash", "a.png", "image/png")
    orders = [
        Order(text),
        Order(text.model_copy(update={"text": "hello!"})),
        Order(text.model_copy(update={"to": "15550001112@c.us"})),
        Order(text.model_copy(update={"reply_to": "true_15550001111@c.us_3EB0"})),
        Order(SendMedia(to="15550001111"), file),
        Order(SendMedia(to="15550001111", caption="hello"), file),
        Order(SendMedia(to="15550001111", type="document"), file),
        Order(SendMedia(to="15550001111"), File(Path("a"), "another hash", "a.png", "image/png")),
        Order(SendMedia(to="15550001111"), File(Path("a"), "hash", "b.png", "image/png")),
    ]
    assert len({order.fingerprint for order in orders}) == len(orders)
    assert Order(SendText(to="+15550001111", text="hello")).fingerprint == orders[0].fingerprint
    assert (
        Order(
            SendMedia(to="15550001111"), File(Path("b"), "hash", "a.png", "image/png")
        ).fingerprint
        == orders[4].fingerprint
    )
