"""Sending without a browser: what each answer of the page and fault of the volume results in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from unit.pod.fake_page import FakePage
from wasession_api.http.problem import HTTPProblem
from wasession_api.session_pod.messages import SendMedia, SendText
from wasession_api.v1alpha1 import Phase
from wasession_pod.browser.bridge import Bridge
from wasession_pod.browser.errors import BrowserError
from wasession_pod.messages.database import Database, DatabaseError
from wasession_pod.messages.idempotency_store import IdempotencyStore
from wasession_pod.messages.outgoing import Attachment, OutgoingMessage
from wasession_pod.messages.sending import MessageSender
from wasession_pod.session import NotReady, Session

PREPARED = {"chatId": "15550001111@c.us", "messageId": "true_15550001111@c.us_3EB0"}
ACCEPTED = {"ack": 1, "sentAt": "2026-01-01T00:00:00Z", "result": "OK"}
HELLO = OutgoingMessage(SendText(to="15550001111", text="hello"))


class FakeSession:
    """A session with a fake page."""

    def __init__(self, sent: Any = ACCEPTED, prepared: Any = PREPARED) -> None:
        self.page = FakePage(prepare=prepared, sendText=sent, sendFile=sent)
        self.holds_volume = True
        self.ready = True
        self.outbox = self
        self.report = SimpleNamespace(phase=Phase.RESTORING)

    async def expect(self, message_id: str) -> None:
        self.page.calls.append(("expect", [message_id]))

    @contextlib.contextmanager
    def ready_page(self) -> Iterator[Bridge]:
        if not self.ready:
            raise NotReady(Phase.RESTORING)
        yield self.page.bridge


def sender_of(session: FakeSession, tmp_path: Path, timeout: float = 10) -> MessageSender:
    store = IdempotencyStore(Database(tmp_path / "messages.sqlite"))
    return MessageSender(cast(Session, session), store, timeout)


async def status(sending: Any) -> int:
    """Return 201, or the status of the problem."""
    try:
        await sending
    except HTTPProblem as error:
        return error.status
    return 201


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (ACCEPTED, 201),
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
async def test_each_answer_of_the_page_has_a_status(
    tmp_path: Path, sent: Any, expected: int
) -> None:
    session = FakeSession(sent)
    sender = sender_of(session, tmp_path)
    assert await status(sender.send(HELLO, "key")) == expected
    session.page.answers["sendText"] = ACCEPTED
    again, replayed = await sender.send(HELLO, "key")
    assert (again.id, replayed) == (PREPARED["messageId"], expected == 201)
    assert session.page.functions.count("prepare") == 1, "a retry goes out under the same id"
    assert session.page.functions.count("sendText") == (1 if expected == 201 else 2)


@pytest.mark.parametrize(
    ("prepared", "expected"),
    [
        ({"unknown": "to"}, 404),
        ({"unknown": "replyTo"}, 404),
        ({}, 404),
        (PREPARED | {"messageId": "x" * 193}, None),
        (7, None),
    ],
)
async def test_what_cannot_be_prepared_is_not_sent(
    tmp_path: Path, prepared: Any, expected: int | None
) -> None:
    session = FakeSession(prepared=prepared)
    sending = sender_of(session, tmp_path).send(HELLO, "key")
    if expected is None:
        with pytest.raises(BrowserError):
            await sending
    else:
        assert await status(sending) == expected
    assert session.page.functions == ["prepare"]


async def test_an_answer_is_repeated_also_when_the_session_is_not_ready(tmp_path: Path) -> None:
    session = FakeSession()
    sender = sender_of(session, tmp_path)
    first, _ = await sender.send(HELLO, "key")
    session.ready = False
    assert await sender.send(HELLO, "key") == (first, True)
    with pytest.raises(NotReady):
        await sender.send(HELLO, "another key")
    with pytest.raises(NotReady):
        await sender.send(HELLO, None)


async def test_the_store_is_not_opened_before_the_volume_is_held(tmp_path: Path) -> None:
    session = FakeSession()
    session.holds_volume = False
    with pytest.raises(NotReady):
        await sender_of(session, tmp_path).send(HELLO, "key")
    assert not list(tmp_path.iterdir())  # noqa: ASYNC240


async def test_nothing_is_sent_that_cannot_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = FakeSession()
    monkeypatch.setattr(IdempotencyStore, "begin", failing)
    assert await status(sender_of(session, tmp_path).send(HELLO, "key")) == 507
    assert session.page.functions == ["prepare"]


async def test_a_response_that_cannot_be_stored_is_looked_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = FakeSession()
    sender = sender_of(session, tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(IdempotencyStore, "finish", failing)
        sent, _ = await sender.send(HELLO, "key")
    again, replayed = await sender.send(HELLO, "key")
    assert (again, replayed) == (sent, False), "the page is asked"
    assert await sender.send(HELLO, "key") == (sent, True)


def failing(*_: object) -> None:
    raise DatabaseError("database or disk is full")


async def test_a_caller_that_has_timed_out_gets_the_response_later(tmp_path: Path) -> None:
    answered = asyncio.Event()

    async def slowly() -> Any:
        await answered.wait()
        return ACCEPTED

    session = FakeSession(slowly)
    sender = sender_of(session, tmp_path, timeout=0.01)
    assert await status(sender.send(HELLO, "key")) == 504
    assert await status(sender.send(HELLO, "key")) == 409
    answered.set()
    async with asyncio.timeout(10):
        while await status(sender.send(HELLO, "key")) == 409:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert session.page.functions == ["prepare", "expect", "sendText"]


async def test_a_page_that_never_answers_counts_as_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wasession_pod.messages.sending.PAGE_TIMEOUT", 0.01)
    session = FakeSession(asyncio.Event().wait)
    sender = sender_of(session, tmp_path)
    assert await status(sender.send(HELLO, "key")) == 504
    session.page.answers["sendText"] = ACCEPTED
    assert await status(sender.send(HELLO, "key")) == 201


@pytest.mark.parametrize(
    "sent", [ACCEPTED, {"ack": -1, "result": "ERROR_UPLOAD"}, BrowserError("gone")]
)
@pytest.mark.parametrize("prepared", [PREPARED, {"unknown": "to"}, BrowserError("gone")])
async def test_an_attachment_is_deleted_when_it_is_no_longer_needed(
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

    message = OutgoingMessage(
        SendMedia(to="15550001111"), Attachment(directory / "file", "hash", None, None)
    )
    with_file: Callable[[], Any] = look
    await asyncio.gather(
        sender_of(FakeSession(with_file, prepared), tmp_path).send(message, "key"),
        return_exceptions=True,
    )
    assert all(seen)
    assert not directory.exists()


def test_a_fingerprint_is_of_all_that_matters() -> None:
    text = SendText(to="15550001111", text="hello")
    file = Attachment(Path("a"), "hash", "a.png", "image/png")
    messages = [
        OutgoingMessage(text),
        OutgoingMessage(text.model_copy(update={"text": "hello!"})),
        OutgoingMessage(text.model_copy(update={"to": "15550001112@c.us"})),
        OutgoingMessage(text.model_copy(update={"reply_to": "true_15550001111@c.us_3EB0"})),
        OutgoingMessage(SendMedia(to="15550001111"), file),
        OutgoingMessage(SendMedia(to="15550001111", caption="hello"), file),
        OutgoingMessage(SendMedia(to="15550001111", type="document"), file),
        OutgoingMessage(
            SendMedia(to="15550001111"), Attachment(Path("a"), "another hash", "a.png", "image/png")
        ),
        OutgoingMessage(
            SendMedia(to="15550001111"), Attachment(Path("a"), "hash", "b.png", "image/png")
        ),
    ]
    assert len({message.fingerprint for message in messages}) == len(messages)
    assert (
        OutgoingMessage(SendText(to="+15550001111", text="hello")).fingerprint
        == messages[0].fingerprint
    )
    assert (
        OutgoingMessage(
            SendMedia(to="15550001111"), Attachment(Path("b"), "hash", "a.png", "image/png")
        ).fingerprint
        == messages[4].fingerprint
    )
