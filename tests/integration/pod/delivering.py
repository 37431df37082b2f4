"""An outbox whose events are delivered, without a browser."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from wasession_api.session_pod.delivery import Configuration
from wasession_pod.delivery.deliveries import Deliveries
from wasession_pod.delivery.delivery import Delivery
from wasession_pod.messages.database import Database
from wasession_pod.messages.outbox import Outbox
from wasession_pod.settings import Settings
from wasession_pod.state.observation import PageEvent

PATIENCE = 20.0  # seconds
A, B, GROUP = "15550001111@c.us", "15550002222@c.us", "120363000000000001@g.us"


@dataclass
class Pod:
    """The part of a session pod that has to do with webhooks and sinks, with a real outbox."""

    directory: Path
    sent: int = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Pod]:
        self.database = Database(self.directory / "messages.sqlite")
        self.outbox = Outbox(self.database, retention=86400, maximum_bytes=2**20)
        self.outbox.start(0)
        self.outbox.release()
        await until(lambda: self.outbox.latest is not None)
        settings = Settings(
            client_id="sales", namespace="crm", session="sales", token=SecretStr("t"),
            delivery_secret=self.directory / "keys", ca_bundle=self.directory / "ca.pem",
        )  # fmt: skip
        self.deliveries = Deliveries(self.database, self.outbox, settings, lambda: None)
        await self.load()
        try:
            yield self
        finally:
            await self.deliveries.close()
            await self.outbox.stop(time.time())
            self.database.close()

    async def load(self) -> None:
        self.deliveries.start()
        await until(lambda: self.deliveries.revision is not None)

    async def restart(self) -> None:
        await self.deliveries.close()
        await self.load()

    async def configure(self, url: str, **fields: Any) -> None:
        webhook = {"name": "crm", "url": url, "signingKey": "crm", **fields}
        await self.deliver(webhooks=[webhook])

    async def deliver(self, **configuration: Any) -> None:
        """Deliver to these webhooks and sinks; by default they may be on loopback addresses."""
        policy = {"allowedNetworks": ["127.0.0.0/8"]}
        await self.deliveries.configure(
            Configuration.model_validate({"policy": policy, **configuration})
        )

    async def hear(self, *chats: str, from_me: bool = False) -> list[str]:
        """Have messages come in; return their texts, which are their numbers."""
        texts = [str(self.sent + number) for number in range(1, len(chats) + 1)]
        self.sent += len(chats)
        before = self.outbox.latest
        for chat, text in zip(chats, texts, strict=True):
            data = {
                "id": f"false_{chat}_3EB0{text}", "chatId": chat, "from": chat, "fromMe": from_me,
                "type": "chat", "text": text, "sentAt": "2026-01-02T03:04:05Z",
            }  # fmt: skip
            assert self.outbox.receive(PageEvent(type="chat.message", data=data))
        await until(lambda: self.outbox.latest != before and self.outbox.settled)
        return texts

    @property
    def number(self) -> int:
        """Of the latest event."""
        assert self.outbox.latest is not None
        return self.outbox.latest.number

    @property
    def delivery(self) -> Delivery:
        return self.deliveries.get("crm")


async def until_idle(pod: Pod) -> None:
    await until(lambda: pod.delivery.kept.progress.settled_to >= pod.number)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)
