"""Follows what each session pod says of itself, over its event stream."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from wasession_api.report import Report

from wasession_operator.objects import PORT

log = logging.getLogger(__name__)
CONNECT_TIMEOUT = 5.0  # seconds
SILENCE = 25.0  # seconds; a session pod says something every ten
RETRY_FIRST, RETRY_LAST = 0.2, 5.0  # seconds


class Follower:
    """One pod's event stream. ``report`` is what the pod said last, and None while it can't be heard."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        address: str,
        token: Callable[[], Awaitable[str | None]],
        on_change: Callable[[], None],
    ) -> None:
        self.address = address
        self.report: Report | None = None
        self._http = http
        self._token = token
        self._on_change = on_change
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def logout(self, timeout: float) -> None:
        """Asks the pod to end its login; what became of it is in the reports. Takes at most ``timeout`` seconds more."""
        try:
            async with asyncio.timeout(timeout):
                headers = await self._headers()
                async with self._http.post(f"{self._base}/v1/logout", headers=headers, raise_for_status=True):
                    pass
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("logout failed", extra={"address": self.address, "error": type(error).__name__})

    async def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {await self._token()}"}

    @property
    def _base(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{PORT}"

    async def _follow(self) -> None:
        delay = RETRY_FIRST
        while True:
            try:
                async for report in self._stream():
                    delay = RETRY_FIRST
                    if self.report is None or report.seq != self.report.seq or report.started_at != self.report.started_at:
                        self.report = report
                        self._on_change()
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                log.debug("pod not heard", extra={"address": self.address, "error": type(error).__name__})
            if self.report is not None:
                self.report = None
                self._on_change()
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_LAST)

    async def _stream(self) -> Any:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=SILENCE)
        url, headers = f"{self._base}/v1/events?types=state", await self._headers()
        async with self._http.get(url, headers=headers, timeout=timeout, raise_for_status=True) as stream:
            event = ""
            async for line in stream.content:
                if line.startswith(b"event: "):
                    event = line[7:].strip().decode()
                elif line.startswith(b"data: ") and event == "state":
                    yield Report.model_validate_json(line[6:])
