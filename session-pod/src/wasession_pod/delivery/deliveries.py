"""All webhooks and sinks of the session: their configuration, and one delivery for each."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from wasession_api.session_pod.delivery import Configuration
from wasession_api.session_pod.events import EventId
from wasession_api.v1alpha1 import DeliveryState, DeliveryStatus
from wasession_api.v1alpha1.delivery import DeliveryPolicy, Destination

from wasession_pod.delivery.delivery import RETRY_STORE, Delivery
from wasession_pod.delivery.plan import Progress
from wasession_pod.delivery.store import DeliveryStore, Kept, StoredDeadLetter
from wasession_pod.messages.database import Database, DatabaseError
from wasession_pod.messages.outbox import Outbox
from wasession_pod.settings import Settings

STOPPED = (DeliveryState.PAUSED, DeliveryState.GONE)  # until a person does something
log = logging.getLogger(__name__)


class UnknownDestination(LookupError):
    """The session has no webhook or sink of this name; the message says which."""


class NotHere(ValueError):
    """The outbox has no such event any more, or never had; the message says which."""


class Deliveries:
    """Delivers to all webhooks and sinks from ``start`` until ``close``.

    Methods raise ``DatabaseError``. ``on_change`` is called when ``revision`` or ``statuses`` have
    changed.
    """

    def __init__(
        self,
        database: Database,
        outbox: Outbox,
        settings: Settings,
        on_change: Callable[[], None],
    ) -> None:
        self._store = DeliveryStore(database)
        self._outbox, self._settings, self._on_change = outbox, settings, on_change
        self._configuration: Configuration | None = None  # None until it is loaded
        self._deliveries: dict[str, Delivery] = {}
        self._running: asyncio.Task[None] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    @property
    def revision(self) -> str | None:
        """The revision of the configuration; None until the volume is open."""
        return None if self._configuration is None else self._configuration.revision

    @property
    def statuses(self) -> list[DeliveryStatus]:
        return [delivery.status for delivery in self._deliveries.values()]

    @property
    def is_pending(self) -> bool:
        """Whether an event waits for a webhook or sink that wants it now, or that is not known.

        A failing one counts: it is tried again. One that is paused or gone does not.
        """
        if self._configuration is None:
            return True
        return any(one.pending for one in self if one.status.state not in STOPPED)

    def start(self) -> None:
        """Take up what an earlier process has left; the volume must be open."""
        self._loading = asyncio.create_task(self._load())

    async def _load(self) -> None:
        while True:
            try:
                async with self._lock:
                    configuration = await asyncio.to_thread(self._store.configuration)
                    kept = await asyncio.to_thread(self._store.kept, configuration.destinations)
                    await self._begin(configuration, list(kept.values()))
            except DatabaseError as error:
                log.warning(
                    "cannot read the webhooks and sinks; trying again", extra={"error": str(error)}
                )
                await asyncio.sleep(RETRY_STORE)
            else:
                return

    async def close(self) -> None:
        """Stop, and keep how far each delivery has come."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        async with self._lock:
            await self._stop()
            self._configuration = None

    async def configure(self, configuration: Configuration) -> None:
        """Deliver to these from now on. One that is new starts with the next event.

        One of the same name goes on where it is, even if its URL has changed.
        """
        async with self._lock:
            before, latest = self._configuration, self._outbox.latest
            if before is None or latest is None:
                raise DatabaseError("the volume is not open yet")
            if configuration == before:
                return
            earlier = await self._stop()
            try:
                # More of them than ran only if the earlier configuration could not be read.
                stored = await asyncio.to_thread(self._store.kept, configuration.destinations)
                kept = [
                    _changed(earlier[one.name], one)
                    if one.name in earlier
                    else stored.get(one.name, Kept(one, latest.outbox, Progress(latest.number)))
                    for one in configuration.destinations
                ]
                await asyncio.to_thread(self._store.save, configuration, kept)
            except DatabaseError:
                await self._begin(before, list(earlier.values()))
                raise
            await self._begin(configuration, kept)

    async def _begin(self, configuration: Configuration, kept: Sequence[Kept]) -> None:
        if kept:  # most sessions have none, and need no client
            await self._deliver(configuration.policy, kept)
        self._configuration = configuration
        self._on_change()

    async def _deliver(self, policy: DeliveryPolicy, kept: Sequence[Kept]) -> None:
        from wasession_pod.delivery import senders  # here, as what it imports takes a while

        stack, source = contextlib.AsyncExitStack(), _source(self._settings)
        opened = await stack.enter_async_context(
            senders.opened([one.destination for one in kept], policy, self._settings)
        )
        self._deliveries = {
            name: Delivery(one, self._outbox, opened[name], self._store, source, self._on_change)
            for one in kept
            if (name := one.destination.name)
        }
        self._running = asyncio.create_task(self._run(stack))

    async def _run(self, stack: contextlib.AsyncExitStack) -> None:
        async with stack, asyncio.TaskGroup() as tasks:
            for delivery in self:
                tasks.create_task(_run(delivery))

    async def _stop(self) -> dict[str, Kept]:
        """Stop, and return how far each delivery has come, by name."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None
        earlier = {name: delivery.kept for name, delivery in self._deliveries.items()}
        self._deliveries = {}
        return earlier

    def __iter__(self) -> Iterator[Delivery]:
        return iter([*self._deliveries.values()])

    def get(self, name: str) -> Delivery:
        """Return the delivery to a webhook or sink; raises ``UnknownDestination``."""
        if name not in self._deliveries:
            raise UnknownDestination(f"the session has no webhook or sink {name}")
        return self._deliveries[name]

    def replay(self, name: str, after: str) -> None:
        """Deliver everything after a cursor again. Raises ``UnknownDestination``, ``NotHere``."""
        delivery, position = self.get(name), EventId.parse(after)
        oldest, latest = self._outbox.oldest, self._outbox.latest
        if position is None or oldest is None or latest is None:
            raise NotHere(f"{after} is not of the present outbox")
        if position.outbox != oldest.outbox or position.number > latest.number:
            raise NotHere(f"{after} is not of the present outbox")
        if position.number < oldest.number:
            raise NotHere(f"the outbox does not go back to {after}: it begins after {oldest}")
        delivery.rewind(position.number)

    async def replay_dead(self, name: str) -> int:
        """Deliver the dead letters again that the outbox still has; return how many."""
        letters, oldest = await self.dead_letters(name), self._outbox.oldest
        if oldest is None:
            raise DatabaseError("the outbox is not open yet")
        numbers = list[int]()
        for letter in letters:
            position = EventId.parse(letter.event_id)
            if position and position.outbox == oldest.outbox and position.number > oldest.number:
                numbers.append(position.number)
        self.get(name).reopen(numbers)
        return len(numbers)

    async def count_dead(self, name: str) -> int:
        return await asyncio.to_thread(self._store.count_dead, name)

    async def dead_letters(self, name: str) -> list[StoredDeadLetter]:
        """Return the dead letters of a webhook or sink, latest first."""
        self.get(name)
        return await asyncio.to_thread(self._store.dead_letters, name)


async def _run(delivery: Delivery) -> None:
    """Run a delivery until cancelled, whatever happens in it; others must not suffer from it."""
    while True:
        try:
            await delivery.run()
        except Exception:
            name = delivery.kept.destination.name
            log.exception("a delivery has failed; starting it again", extra={"delivery": name})
            await asyncio.sleep(RETRY_STORE)


def _source(settings: Settings) -> str:
    """Return the session as a URI reference."""
    if settings.namespace is None or settings.session is None:
        return f"/sessions/{settings.client_id}"
    return f"/namespaces/{settings.namespace}/whatsappsessions/{settings.session}"


def _changed(kept: Kept, destination: Destination) -> Kept:
    """Return how far a delivery has come; a changed one is tried even if it wanted no more."""
    if destination == kept.destination:
        return kept
    return replace(kept, destination=destination, progress=replace(kept.progress, gone=False))
