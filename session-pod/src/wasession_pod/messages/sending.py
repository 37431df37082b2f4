"""Sending: every message once, and an honest word where nobody can know.

A message's id is chosen on the page and written down before it is sent. Whatever fails after that,
a retry with the same Idempotency-Key goes out under the same id, which WhatsApp delivers once; when
the page knows that WhatsApp has taken the id, nothing is sent at all. A send goes on when its
caller has gone or waited long enough, and its outcome is still written down.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from pydantic import ValidationError
from wasession_api.http.problem import HTTPProblem
from wasession_api.session_pod.messages import SendMedia, SendText, SentMessage
from wasession_api.v1alpha1 import Phase

from wasession_pod import metrics
from wasession_pod.browser.browser import BrowserError
from wasession_pod.messages.idempotency_store import Entry, Journal, JournalError
from wasession_pod.session import NotReady, Session
from wasession_pod.state.observation import Acks, PageEvent, PageModel, Prepared, Sent

T = TypeVar("T")
M = TypeVar("M", bound=PageModel)
log = logging.getLogger(__name__)
SOON = {"Retry-After": "2"}  # seconds
LATER = {"Retry-After": "10"}
LONGEST_SEND = (
    600.0  # seconds; the page is not changed for lack of memory while a message is under way
)


@dataclass(frozen=True)
class File:
    """A received file in a directory of its own, which goes when it is no longer needed."""

    path: Path
    sha256: str
    name: str | None
    mime_type: str | None

    def discard(self) -> None:
        shutil.rmtree(self.path.parent, ignore_errors=True)


@dataclass(frozen=True)
class Order:
    """What somebody wants sent."""

    body: SendText | SendMedia
    file: File | None = None

    @property
    def fingerprint(self) -> bytes:
        """The same for the same message, so that a key used for another one is noticed. Says nothing about the content."""
        file = [self.file.sha256, self.file.name, self.file.mime_type] if self.file else None
        return hashlib.sha256(
            json.dumps([self.body.dump(), file], sort_keys=True).encode()
        ).digest()

    def discard(self) -> None:
        if self.file is not None:
            self.file.discard()


class Messages:
    """Sends for one session."""

    def __init__(self, session: Session, journal: Journal, timeout: float) -> None:
        self._session = session
        self._journal = journal
        self._timeout = timeout
        self._turn = asyncio.Lock()  # at the journal
        self._keys: set[str] = set()  # of sends that are under way
        self._tasks: set[asyncio.Task[SentMessage]] = set()

    async def send(self, order: Order, key: str | None) -> tuple[SentMessage, bool]:
        """Sends, or gives the answer that was given before to this ``key`` (then True).

        Raises ``HTTPProblem``, ``NotReady``, or ``BrowserError`` when nothing was sent. Discards
        the order's file in the end.
        """
        if key is not None and key in self._keys:
            order.discard()
            raise HTTPProblem(
                409,
                "Under way",
                "a send with this Idempotency-Key is under way; ask again for its answer",
                SOON,
            )
        if key is not None:
            self._keys.add(key)
        task = None
        try:
            entry = await self._recorded(order, key) if key is not None else None
            if entry is not None and entry.answer is not None:
                return SentMessage.model_validate_json(entry.answer), True
            if entry is None:
                entry = await self._prepare(order, key)
            task = asyncio.create_task(self._send(order, entry, key))
        finally:
            if task is None:
                self._done(order, key)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.shield(task), False
        except TimeoutError:
            raise _unknown(
                entry, f"WhatsApp has not confirmed the message within {self._timeout:.0f} s"
            ) from None

    async def watch_acks(self) -> None:
        """Asks, each time the session is Ready again, how far messages are: no event told of it while the page was away."""
        connected = None
        async for report in self._session.reports(heartbeat=3600):
            if (
                report is None
                or report.phase is not Phase.READY
                or report.last_connected == connected
            ):
                continue
            connected = report.last_connected
            with contextlib.suppress(NotReady, BrowserError):
                for ack in understood(
                    Acks, await self._session.call("acks", [*self._session.events.awaited_acks])
                ).acks:
                    self._session.events.record(PageEvent(type="chat.ack", data=ack))

    async def _recorded(self, order: Order, key: str) -> Entry | None:
        """What the journal has of this key."""
        if not self._session.holds_volume:
            raise NotReady(self._session.report.phase)
        entry = await self._write(lambda: self._journal.find(key))
        if entry is not None and entry.fingerprint != order.fingerprint:
            raise HTTPProblem(
                422, "Key used before", "this Idempotency-Key was used with another message"
            )
        return entry

    async def _prepare(self, order: Order, key: str | None) -> Entry:
        """Finds the chat, chooses the message's id and writes it down."""
        body = order.body
        prepared = understood(Prepared, await self._session.call("prepare", body.to, body.reply_to))
        if prepared.unknown == "replyTo":
            raise HTTPProblem(404, "Unknown message", "`replyTo` names no message of this chat")
        if prepared.chat_id is None or prepared.id is None:
            raise HTTPProblem(
                404,
                "Unknown recipient",
                f"{body.to.partition('@')[0]} is not on WhatsApp, or no group of the account",
            )
        entry = Entry(key or "", order.fingerprint, prepared.chat_id, prepared.id)
        if key is not None:
            await self._write(lambda: self._journal.begin(entry))
        return entry

    async def _send(self, order: Order, entry: Entry, key: str | None) -> SentMessage:
        """Sends, waits for the outcome, and writes the answer down."""
        self._session.events.expect_acks(entry.message_id)
        try:
            with metrics.sending() as outcome:
                try:
                    async with asyncio.timeout(LONGEST_SEND):
                        said = understood(Sent, await self._on_page(order, entry))
                except (BrowserError, TimeoutError) as error:
                    outcome.result = "unknown"
                    raise _unknown(
                        entry, f"the page was lost while it sent the message: {error}"
                    ) from None
                outcome.result = "unknown" if said.unknown else "sent" if said.taken else "failed"
                sent = _judge(said, entry)
            if key is not None:
                try:
                    await self._write(
                        lambda: self._journal.finish(key, sent.model_dump_json(by_alias=True))
                    )
                except HTTPProblem as error:  # a retry finds the message on the page
                    log.warning("answer not written down", extra={"error": error.detail})
            return sent
        finally:
            self._done(order, key)

    async def _on_page(self, order: Order, entry: Entry) -> object:
        names = (entry.message_id, entry.chat_id, order.body.reply_to)
        if isinstance(order.body, SendText):
            return await self._session.call("sendText", *names, order.body.text, timeout=None)
        assert order.file is not None
        about = {
            "type": order.body.type or "auto-detect",
            "caption": order.body.caption,
            "fileName": order.file.name,
            "mimeType": order.file.mime_type,
        }
        return await self._session.call("sendFile", *names, about, file=order.file.path)

    async def _write(self, work: Callable[[], T]) -> T:
        """Does something with the journal, on a thread: a disk may take its time."""
        try:
            async with self._turn:
                return await asyncio.to_thread(work)
        except JournalError as error:
            words = f"nothing was sent: the journal of sends cannot be used ({error})"
            raise HTTPProblem(507, "Volume unusable", words, LATER) from None

    def _done(self, order: Order, key: str | None) -> None:
        order.discard()
        if key is not None:
            self._keys.discard(key)

    def _ended(self, task: asyncio.Task[SentMessage]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # was told to the caller if there still is one


def understood(model: type[M], answer: object) -> M:
    """The page's answer as a model; raises ``BrowserError``."""
    try:
        return model.model_validate(answer)
    except ValidationError:
        raise BrowserError("the page's answer could not be understood") from None


def _judge(said: Sent, entry: Entry) -> SentMessage:
    """What the page's word means for the caller; raises ``HTTPProblem``."""
    if said.taken:
        ack = max(said.ack or 0, 1)
        return SentMessage(
            id=entry.message_id,
            to=entry.chat_id,
            ack=ack,
            sent_at=said.sent_at or datetime.now(UTC),
        )
    if said.unknown:
        raise _unknown(entry, f"WhatsApp's answer got lost ({said.result or 'no answer'})")
    if said.result == "file_too_large":
        raise HTTPProblem(
            413, "File too large", "WhatsApp takes no file of this kind that is so large"
        )
    raise HTTPProblem(502, "Not sent", f"WhatsApp has not taken the message: {said.result}")


def _unknown(entry: Entry, why: str) -> HTTPProblem:
    hint = "it may yet arrive: retry with the same Idempotency-Key, or look at Location"
    headers = LATER | {"Location": f"/v1/messages/{quote(entry.message_id, safe='@')}"}
    return HTTPProblem(504, "Outcome unknown", f"{why}; {hint}", headers)
