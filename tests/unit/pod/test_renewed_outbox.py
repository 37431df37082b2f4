"""The outbox of a restored copy: nothing is told again, and what it does not have is told."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from pydantic import SecretStr
from unit.pod import archives
from unit.pod.page_events import message
from wasession_api.session_pod.delivery import Configuration
from wasession_api.session_pod.events import EventId, GapReason
from wasession_pod.delivery.deliveries import Deliveries
from wasession_pod.delivery.plan import Progress
from wasession_pod.delivery.store import DeliveryStore, Kept, StoredDeadLetter
from wasession_pod.messages.database import Database
from wasession_pod.messages.event_store import EventStore, renew
from wasession_pod.messages.idempotency_store import IdempotencyStore, SendRecord
from wasession_pod.messages.intake import Login, OwnMessage
from wasession_pod.messages.outbox import Outbox
from wasession_pod.messages.reconciliation import MARGIN, lost, since
from wasession_pod.settings import Settings

NOW = time.time()
CONFIGURATION = Configuration.model_validate(
    {"webhooks": [{"name": "crm", "url": "https://crm.example.com/", "signingKey": "crm"}]}
)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """A copy of a session's messages."""
    database = Database(tmp_path / "messages.sqlite")
    store = EventStore(database, archives.LIMITS)
    store.commit([Login(NOW - 1000), OwnMessage("true_15550001111@c.us_3E00")], NOW - 900)
    archives.heard(database, "1", "2")
    [webhook] = CONFIGURATION.webhooks
    deliveries = DeliveryStore(database)
    kept = Kept(webhook, store.load(NOW).id, Progress(1))
    deliveries.save(CONFIGURATION, [kept])
    deliveries.advance(kept, [StoredDeadLetter("x-1", "message", NOW, 3, "HTTP 500")], [])
    return database


async def until(outbox: Outbox, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while True:
            changed = outbox.changed
            if condition():
                return
            await changed.wait()


@contextlib.asynccontextmanager
async def running(database: Database) -> AsyncIterator[Outbox]:
    outbox = Outbox(database, retention=1e9, maximum_bytes=2**30)
    outbox.start(NOW - 1000)
    await until(outbox, lambda: outbox.latest is not None)
    yield outbox
    await outbox.stop(time.time())


def test_it_is_another_outbox_without_events(database: Database) -> None:
    store = EventStore(database, archives.LIMITS)
    before = store.load(NOW)
    renew(database)
    after, events = store.read(0, 100, 2**20, NOW)
    assert after.id != before.id
    assert (after.last, after.expired, after.bytes, events) == (2, 2, 0, [])
    assert after.complete_until == before.complete_until
    assert (after.floor, after.login) == (before.floor, before.login)
    assert store.awaited_acks() == ["true_15550001111@c.us_3E00"]
    renew(database)
    assert store.load(NOW).id not in (before.id, after.id), "each copy has its own"


def test_the_operator_tells_of_webhooks_again(database: Database) -> None:
    renew(database)
    deliveries = DeliveryStore(database)
    assert deliveries.configuration() == Configuration()
    assert deliveries.kept(CONFIGURATION.destinations) == {}
    assert deliveries.dead_letters("crm") == []


def test_what_the_copy_has_told_is_not_told_again_and_the_rest_is(database: Database) -> None:
    """The page is asked for what it has from before the copy, and gives what is there."""
    renew(database)
    store = EventStore(database, archives.LIMITS)
    row = store.load(NOW)
    until = row.complete_until
    assert not lost(row, until)
    assert since(row, until + 60) == max(until - MARGIN, math.ceil(row.floor))
    commit = archives.heard(database, "1", "2", "3")
    assert [event.number for event in commit.events] == [3]


async def test_earlier_cursors_are_not_taken_for_valid(database: Database) -> None:
    before = EventStore(database, archives.LIMITS).load(NOW)
    renew(database)
    async with running(database) as outbox:
        outbox.release()
        outbox.receive(message())
        await until(outbox, lambda: outbox.settled)
        batch = await outbox.read(EventId(before.id, 1))
        assert batch.missing is GapReason.OUTBOX_REPLACED
        assert [event.number for event in batch.events] == [3]


async def test_a_webhook_begins_with_the_next_event(database: Database, tmp_path: Path) -> None:
    renew(database)
    settings = Settings(client_id="support", token=SecretStr("t"), data_dir=tmp_path)
    async with running(database) as outbox:
        deliveries = Deliveries(database, outbox, settings, lambda: None)
        deliveries.start()
        assert deliveries._loading is not None
        await deliveries._loading
        await deliveries.configure(CONFIGURATION)
        assert deliveries.get("crm").kept.progress.reached == 2
        assert deliveries.get("crm").pending == 0
        await deliveries.close()


def test_the_space_of_the_events_is_given_back(tmp_path: Path) -> None:
    database = Database(tmp_path / "messages.sqlite")
    archives.heard(database, *map(str, range(200)), size=10_000)
    before = (tmp_path / "messages.sqlite").stat().st_size
    renew(database)
    database.close()
    assert (tmp_path / "messages.sqlite").stat().st_size < before / 4


def test_keys_of_sends_are_kept(database: Database) -> None:
    """A retry of a send that was begun before the copy is not sent twice."""
    store = IdempotencyStore(database)
    record = SendRecord("key", b"fingerprint", "15550001111@c.us", "3E01")
    store.begin(record)
    renew(database)
    assert store.find("key") == record
