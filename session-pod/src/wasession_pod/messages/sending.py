"""Send each message at most once, and report honestly when the outcome is unknown.

The page chooses a message's ID, and the ID is stored before the message is sent. Whatever fails
afterwards, a retry with the same Idempotency-Key uses the same ID, which WhatsApp delivers once; if
the page knows that WhatsApp has accepted it, nothing is sent. A send continues after its caller has
disconnected or timed out, and its outcome is still stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import quote

from wasession_api.http.problem import HTTPProblem
from wasession_api.session_pod.messages import SendText, SentMessage

from wasession_pod import metrics
from wasession_pod.browser.bridge import SendOutcome
from wasession_pod.browser.errors import BrowserError
from wasession_pod.messages.database import DatabaseError
from wasession_pod.messages.idempotency_store import IdempotencyStore, SendRecord
from wasession_pod.messages.outgoing import OutgoingMessage
from wasession_pod.session import NotReady, Session

T = TypeVar("T")
log = logging.getLogger(__name__)
RETRY_SOON = {"Retry-After": "2"}  # seconds
RETRY_LATER = {"Retry-After": "10"}
# Seconds. Until then the page is not replaced for lack of memory.
PAGE_TIMEOUT = 600.0


class MessageSender:
    """Sends messages of one session."""

    def __init__(self, session: Session, store: IdempotencyStore, timeout: float) -> None:
        self._session = session
        self._store = store
        self._timeout = timeout
        self._store_lock = asyncio.Lock()
        self._keys_in_progress: set[str] = set()
        self._tasks: set[asyncio.Task[SentMessage]] = set()

    async def send(self, message: OutgoingMessage, key: str | None) -> tuple[SentMessage, bool]:
        """Send a message, or return the stored response to its ``key`` and True.

        Deletes the attachment in the end. Raises ``HTTPProblem``; ``NotReady`` and ``BrowserError``
        if nothing was sent.
        """
        if key is not None and key in self._keys_in_progress:
            message.delete_attachment()
            detail = "a send with this Idempotency-Key is in progress; retry to get its response"
            raise HTTPProblem(409, "Send in progress", detail, RETRY_SOON)
        if key is not None:
            self._keys_in_progress.add(key)
        task = None
        try:
            record = await self._find_record(message, key) if key is not None else None
            if record is not None and record.response is not None:
                return SentMessage.model_validate_json(record.response), True
            if record is None:
                record = await self._prepare(message, key)
            task = asyncio.create_task(self._send(message, record, key))
        finally:
            if task is None:
                self._finished(message, key)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.shield(task), False
        except TimeoutError:
            cause = f"WhatsApp has not confirmed the message within {self._timeout:.0f} s"
            raise _outcome_unknown(record, cause) from None

    async def _find_record(self, message: OutgoingMessage, key: str) -> SendRecord | None:
        if not self._session.holds_volume:
            raise NotReady(self._session.report.phase)
        record = await self._access_store(lambda: self._store.find(key))
        if record is not None and record.fingerprint != message.fingerprint:
            detail = "this Idempotency-Key has been used for another message"
            raise HTTPProblem(422, "Idempotency-Key reused", detail)
        return record

    async def _prepare(self, message: OutgoingMessage, key: str | None) -> SendRecord:
        """Find the chat, choose the message's ID and store it."""
        body = message.body
        with self._session.ready_page() as page:
            prepared = await page.prepare(body.to, body.reply_to)
        if prepared.unknown == "replyTo":
            raise HTTPProblem(404, "Message not found", "`replyTo` is not a message of this chat")
        if prepared.chat_id is None or prepared.message_id is None:
            recipient = body.to.partition("@")[0]
            detail = f"{recipient} is neither on WhatsApp nor a group of the account"
            raise HTTPProblem(404, "Recipient not found", detail)
        record = SendRecord(key or "", message.fingerprint, prepared.chat_id, prepared.message_id)
        if key is not None:
            await self._access_store(lambda: self._store.begin(record))
        return record

    async def _send(
        self, message: OutgoingMessage, record: SendRecord, key: str | None
    ) -> SentMessage:
        """Send a prepared message, wait for the outcome and store the response."""
        try:
            await self._session.outbox.expect(record.message_id)
            with metrics.sending() as metric:
                try:
                    async with asyncio.timeout(PAGE_TIMEOUT):
                        outcome = await self._send_on_page(message, record)
                except (BrowserError, TimeoutError) as error:
                    metric.result = "unknown"
                    cause = f"the page failed while sending the message: {error}"
                    raise _outcome_unknown(record, cause) from None
                metric.result = (
                    "unknown" if outcome.unknown else "sent" if outcome.accepted else "failed"
                )
                sent = _to_response(outcome, record)
            if key is not None:
                await self._store_response(key, sent)
            return sent
        finally:
            self._finished(message, key)

    async def _send_on_page(self, message: OutgoingMessage, record: SendRecord) -> SendOutcome:
        body, file = message.body, message.attachment
        with self._session.ready_page() as page:
            if isinstance(body, SendText):
                return await page.send_text(
                    record.message_id, record.chat_id, body.reply_to, body.text
                )
            assert file is not None
            return await page.send_file(
                file.path,
                record.message_id,
                record.chat_id,
                body.reply_to,
                kind=body.type or "auto-detect",
                caption=body.caption,
                file_name=file.name,
                mime_type=file.mime_type,
            )

    async def _store_response(self, key: str, sent: SentMessage) -> None:
        response = sent.model_dump_json(by_alias=True)
        try:
            await self._access_store(lambda: self._store.finish(key, response))
        except HTTPProblem as error:
            log.warning(
                "could not store the response to a send; a retry will look the message up",
                extra={"error": error.detail},
            )

    async def _access_store(self, access: Callable[[], T]) -> T:
        """Call the store on a thread, one call at a time, because disks can be slow."""
        try:
            async with self._store_lock:
                return await asyncio.to_thread(access)
        except DatabaseError as error:
            detail = f"nothing was sent: the store of idempotency keys is not usable ({error})"
            raise HTTPProblem(507, "Volume unusable", detail, RETRY_LATER) from None

    def _finished(self, message: OutgoingMessage, key: str | None) -> None:
        message.delete_attachment()
        if key is not None:
            self._keys_in_progress.discard(key)

    def _on_task_done(self, task: asyncio.Task[SentMessage]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved: a caller that still waits has it


def _to_response(outcome: SendOutcome, record: SendRecord) -> SentMessage:
    """Return the response for an accepted message; raise ``HTTPProblem`` for any other."""
    if outcome.accepted:
        return SentMessage(
            id=record.message_id,
            to=record.chat_id,
            ack=max(outcome.ack or 0, 1),
            sent_at=outcome.sent_at or datetime.now(UTC),
        )
    if outcome.unknown:
        cause = f"WhatsApp's response was lost ({outcome.result or 'no answer'})"
        raise _outcome_unknown(record, cause)
    if outcome.result == "file_too_large":
        detail = "WhatsApp does not accept a file of this type and size"
        raise HTTPProblem(413, "File too large", detail)
    detail = f"WhatsApp did not accept the message: {outcome.result}"
    raise HTTPProblem(502, "Not sent", detail)


def _outcome_unknown(record: SendRecord, cause: str) -> HTTPProblem:
    hint = "it may still arrive: retry with the same Idempotency-Key, or check Location"
    location = f"/v1/messages/{quote(record.message_id, safe='@')}"
    headers = RETRY_LATER | {"Location": location}
    return HTTPProblem(504, "Outcome unknown", f"{cause}; {hint}", headers)
