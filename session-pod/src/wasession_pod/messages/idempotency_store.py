"""Sends by their Idempotency-Key, on the volume: a retry after a crash must not send twice."""

from __future__ import annotations

import time
from dataclasses import dataclass

from wasession_pod.messages.database import Database

RETENTION = 48 * 3600  # seconds; the API promises one day, and clients or clocks may be late
FIND = """
SELECT key, fingerprint, chat_id, message_id, response FROM sends WHERE key = ? AND started_at > ?
"""
BEGIN = """
INSERT INTO sends (key, fingerprint, chat_id, message_id, started_at) VALUES (?, ?, ?, ?, ?)
"""


@dataclass(frozen=True)
class SendRecord:
    """One send. ``message_id`` is chosen beforehand; ``response`` is None until the outcome."""

    key: str
    fingerprint: bytes
    chat_id: str
    message_id: str
    response: str | None = None


class IdempotencyStore:
    """The sends of the last two days. Methods raise ``DatabaseError``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, key: str) -> SendRecord | None:
        with self._database.transaction() as database:
            row = database.execute(FIND, (key, time.time() - RETENTION)).fetchone()
        return SendRecord(*row) if row else None

    def begin(self, record: SendRecord) -> None:
        """Record a message that is about to be sent, and delete expired records."""
        now = time.time()
        values = (record.key, record.fingerprint, record.chat_id, record.message_id, now)
        with self._database.transaction() as database:
            database.execute("DELETE FROM sends WHERE started_at <= ?", (now - RETENTION,))
            database.execute(BEGIN, values)

    def finish(self, key: str, response: str) -> None:
        """Record the response to a send."""
        with self._database.transaction() as database:
            database.execute("UPDATE sends SET response = ? WHERE key = ?", (response, key))
