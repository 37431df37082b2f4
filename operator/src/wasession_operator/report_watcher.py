"""Follows what each session pod says of itself, over its event stream."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from datetime import UTC, datetime

import aiohttp
from wasession_api.session_pod.report import Report

from wasession_operator.objects import PORT

log = logging.getLogger(__name__)
CONNECT_TIMEOUT = 5.0  # seconds
SILENCE = 25.0  # seconds; a session pod says something every ten
RETRY_FIRST, RETRY_LAST = 0.2, 5.0  # seconds


class Unauthorized(Exception):
    """The pod accepts none of the session's tokens."""


class NotDone(Exception):
    """The pod did not do what it was asked for, and why."""


class Follower:
    """One pod's event stream. ``report`` is what the pod said last, and None while it can't be heard.

    ``tokens`` gives the bearer tokens to try, as they are now. A report of another session is not
    believed.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        address: str,
        session_uid: str,
        tokens: Callable[[], list[str]],
        on_change: Callable[[], None],
    ) -> None:
        self.address = address
        self.session_uid = session_uid
        self._said: bytes | None = (
            None  # the report as JSON, a fifth of the size: there are thousands
        )
        self.silent_since = datetime.now(UTC)
        self._http = http
        self._tokens = tokens
        self._on_change = on_change
        self._pause: asyncio.Event | None = None  # between two tries; it ends when it is set
        self._news: asyncio.Event | None = None  # the next report, where somebody waits for it
        self._at_once = False  # whether there is to be no pause before the next try
        self._pod_is_ready = False
        self._task = asyncio.create_task(self._follow())
        self._logout: asyncio.Task[None] | None = None  # while the pod is being asked for one

    @property
    def report(self) -> Report | None:
        return None if self._said is None else Report.model_validate_json(self._said)

    def close(self) -> None:
        """From now on nothing is heard."""
        self._task.cancel()
        if self._logout is not None:
            self._logout.cancel()

    def pod_is_ready(self) -> None:
        """No need to wait before the next try, which is the first one that can be expected to succeed."""
        if not self._pod_is_ready:
            self._pod_is_ready = True
            self._at_once = True
            if self._pause is not None:
                self._pause.set()

    def logout(self, timeout: float, ended: Callable[[NotDone | None], None]) -> None:
        """Asks the pod to end its login, unless it is being asked already.

        ``ended`` is called when its report tells of that, or with why it does not, after
        ``timeout`` seconds at the latest.
        """

        async def ask() -> None:
            try:
                async with asyncio.timeout(timeout):
                    async with self._request("POST", "/v1/logout"):
                        pass
                    while (report := self.report) is not None and report.session_valid:
                        self._news = self._news or asyncio.Event()
                        await self._news.wait()
            except (aiohttp.ClientError, TimeoutError, OSError, Unauthorized) as error:
                ended(NotDone(_words(error)))
            else:
                ended(None)
            self._logout = None
            self._on_change()

        self._logout = self._logout or asyncio.create_task(ask())

    @contextlib.asynccontextmanager
    async def _request(self, method: str, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """A successful answer to the first token that the pod knows: it may not have read the newest yet."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=SILENCE)
        for token in self._tokens():
            headers = {"Authorization": f"Bearer {token}"}
            response = await self._http.request(
                method,
                f"http://{host}:{PORT}{path}",
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            )
            async with response:
                if response.status != 401:
                    response.raise_for_status()
                    yield response
                    return
        raise Unauthorized

    async def _follow(self) -> None:
        delay = RETRY_FIRST
        while True:
            self._at_once = False
            try:
                async with contextlib.aclosing(self._stream()) as stream:
                    async for said in stream:
                        delay = RETRY_FIRST
                        self._heard(said)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError, Unauthorized) as error:
                log.debug("pod not heard", extra={"address": self.address, "error": _words(error)})
            self._lost()
            if not self._at_once:
                self._pause = asyncio.Event()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._pause.wait()
                self._pause = None
            delay = min(delay * 2, RETRY_LAST)

    def _heard(self, said: bytes) -> None:
        report, before = Report.model_validate_json(said), self.report
        if report.session_uid not in (None, self.session_uid):
            raise ValueError("the pod speaks of another session")
        if before is None or (report.seq, report.started_at) != (before.seq, before.started_at):
            self._tell(said)

    def _lost(self) -> None:
        if self._said is not None:
            self.silent_since = datetime.now(UTC)
            self._tell(None)

    def _tell(self, said: bytes | None) -> None:
        self._said = said
        if self._news is not None:
            self._news.set()
            self._news = None
        self._on_change()

    async def _stream(self) -> AsyncGenerator[bytes]:
        async with self._request("GET", "/v1/events?types=state") as stream:
            event = ""
            async for line in stream.content:
                if line.startswith(b"event: "):
                    event = line[7:].strip().decode()
                elif line.startswith(b"data: ") and event == "state":
                    yield line[6:]


def _words(error: Exception) -> str:
    """What went wrong, without anything that another program has written."""
    if isinstance(error, aiohttp.ClientResponseError):
        return f"the pod answered {error.status}"
    if isinstance(error, TimeoutError):
        return "the pod did not answer in time"
    if isinstance(error, Unauthorized):
        return "the pod does not know the session's token"
    return f"the pod cannot be reached ({type(error).__name__})"
