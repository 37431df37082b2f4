"""All webhooks of the session: their configuration, and one delivery for each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wasession_api.session_pod.webhooks import Configuration
from wasession_api.v1alpha1 import Webhook

from wasession_pod.messages.database import Database, DatabaseError
from wasession_pod.messages.outbox import Outbox, parse_cursor
from wasession_pod.webhooks import sender
from wasession_pod.webhooks.delivery import Delivery, State
from wasession_pod.webhooks.destination import Destinations, parse_networks
from wasession_pod.webhooks.plan import Progress
from wasession_pod.webhooks.sender import Keys, Sender
from wasession_pod.webhooks.store import DeadLetter, Kept, WebhookStore


class UnknownWebhook(KeyError):
    """The session has no webhook of this name."""


class NotHere(ValueError):
    """The outbox has no such event any more, or never had; the message says which."""


class Deliveries:
    """Delivers to all webhooks from ``load`` until ``close``. Methods raise ``DatabaseError``.

    ``source`` is the session, as in CloudEvents.
    """

    def __init__(
        self,
        database: Database,
        outbox: Outbox,
        source: str,
        keys_directory: Path,
        ca_bundle: Path | None,
    ) -> None:
        self._store = WebhookStore(database)
        self._outbox, self._source = outbox, source
        self._keys, self._ca_bundle = Keys(keys_directory), ca_bundle
        self._configuration: Configuration | None = None  # None until it is loaded
        self._deliveries: dict[str, Delivery] = {}
        self._running: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    @property
    def revision(self) -> str | None:
        """The revision of the configuration; None until the volume is open."""
        return None if self._configuration is None else self._configuration.revision

    @property
    def states(self) -> list[State]:
        return [delivery.state for delivery in self._deliveries.values()]

    async def load(self) -> None:
        """Take up what an earlier process has left; the volume must be open."""
        async with self._lock:
            configuration, kept = await asyncio.to_thread(self._store.load)
            await self._start(configuration, kept)

    async def close(self) -> None:
        """Stop, and keep how far each webhook has come."""
        async with self._lock:
            await self._stop()

    async def configure(self, configuration: Configuration) -> None:
        """Deliver to these webhooks from now on. One that is new starts with the next event.

        A webhook of the same name goes on where it is, even if its URL has changed.
        """
        async with self._lock:
            before, latest = self._configuration, self._outbox.latest
            if before is None or latest is None:
                raise DatabaseError("the volume is not open yet")
            earlier = await self._stop()
            try:
                kept = [
                    _changed(earlier[webhook.name], webhook)
                    if webhook.name in earlier
                    else Kept(webhook, latest.outbox, Progress(latest.number))
                    for webhook in configuration.webhooks
                ]
                await asyncio.to_thread(self._store.save, configuration, kept)
            except DatabaseError:
                await self._start(before, list(earlier.values()))
                raise
            await self._start(configuration, kept)

    async def _start(self, configuration: Configuration, kept: Sequence[Kept]) -> None:
        self._configuration = configuration
        if not kept:
            return  # as in most sessions, which need no client
        policy = configuration.policy
        destinations = Destinations(
            tuple(policy.allowed_hosts), parse_networks(policy.allowed_networks)
        )
        stack = contextlib.AsyncExitStack()
        http = await stack.enter_async_context(sender.client(destinations, self._ca_bundle))
        requests = Sender(http, destinations, self._keys)
        self._deliveries = {
            one.webhook.name: Delivery(one, self._outbox, requests, self._store, self._source)
            for one in kept
        }
        self._running = asyncio.create_task(self._run(stack))

    async def _run(self, stack: contextlib.AsyncExitStack) -> None:
        async with stack, asyncio.TaskGroup() as tasks:
            for delivery in self._deliveries.values():
                tasks.create_task(delivery.run())

    async def _stop(self) -> dict[str, Kept]:
        """Stop, and return how far each webhook has come, by name."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None
        earlier = {name: delivery.kept for name, delivery in self._deliveries.items()}
        self._deliveries = {}
        return earlier

    def get(self, name: str) -> Delivery:
        """Return the delivery to a webhook; raises ``UnknownWebhook``."""
        if name not in self._deliveries:
            raise UnknownWebhook(name)
        return self._deliveries[name]

    def replay(self, name: str, after: str) -> None:
        """Deliver everything after a cursor again. Raises ``UnknownWebhook``, ``NotHere``."""
        delivery, position, oldest = self.get(name), parse_cursor(after), self._outbox.oldest
        if position is None or oldest is None or position.outbox != oldest.outbox:
            raise NotHere(f"{after} is not of the present outbox")
        if position.number < oldest.number:
            raise NotHere(
                f"the outbox does not go back to {after}: it begins after {oldest.cursor}"
            )
        delivery.rewind(position.number)

    async def replay_dead(self, name: str) -> int:
        """Deliver the dead letters again that the outbox still has; return how many."""
        delivery, oldest = self.get(name), self._outbox.oldest
        if oldest is None:
            raise DatabaseError("the outbox is not open yet")
        numbers = list[int]()
        for letter in await self.dead_letters(name):
            position = parse_cursor(letter.event_id)
            if position and position.outbox == oldest.outbox and position.number > oldest.number:
                numbers.append(position.number)
        delivery.reopen(numbers)
        return len(numbers)

    async def dead_letters(self, name: str, limit: int = 10_000) -> list[DeadLetter]:
        """Return the latest dead letters of a webhook. Raises ``UnknownWebhook``."""
        self.get(name)
        return await asyncio.to_thread(self._store.dead_letters, name, limit)


def _changed(kept: Kept, webhook: Webhook) -> Kept:
    """Return how far a webhook has come; a changed one is tried even if it wanted no more."""
    progress = replace(kept.progress, in_flight={})
    if kept.webhook != webhook:
        progress = replace(progress, gone=False)
    return replace(kept, webhook=webhook, progress=progress)
