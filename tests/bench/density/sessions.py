"""The contenders of ``bench.session_pod``, which also tell that they have received a message."""

from __future__ import annotations

import asyncio
import contextlib
from abc import abstractmethod

import aiohttp

from bench.session_pod.contenders import Contender, SessionPod, WhatsAppWebJs

POLL = 0.02  # seconds between questions for the number of received messages


class Session(Contender):
    """A contender that somebody uses as a bot."""

    @abstractmethod
    async def listen(self) -> None:
        """Begin to listen for messages; call it once, when it is Ready."""

    @abstractmethod
    async def received(self) -> None:
        """Return once it has reported one more received message."""

    async def reap(self) -> None:
        """Close the connection to processes that have been killed."""
        assert self._process is not None
        await self._process.wait()
        with contextlib.suppress(Exception):  # the last line may be incomplete
            await self._close()


class SessionPodBot(SessionPod, Session):
    async def listen(self) -> None:
        self._stream = await self._http.get(
            self._url + "/v1/events",
            params={"types": "message"},
            timeout=aiohttp.ClientTimeout(None),
        )

    async def received(self) -> None:
        async for line in self._stream.content:
            if line == b"event: message\n":
                return
        raise ConnectionResetError("the stream of events has ended")


class WhatsAppWebJsBot(WhatsAppWebJs, Session):
    async def listen(self) -> None:
        self._received = 0

    async def received(self) -> None:
        self._received += 1
        while True:
            if (await self.order("received"))["received"] >= self._received:
                return
            await asyncio.sleep(POLL)


SESSIONS: tuple[type[Session], ...] = (SessionPodBot, WhatsAppWebJsBot)
