"""Watches what a session pod reports about itself, over its event stream."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial

import aiohttp
from wasession_api.http import sse
from wasession_api.session_pod.client import (
    CONNECT_TIMEOUT,
    SessionPodClient,
    Unauthorized,
    UnexpectedStatus,
)
from wasession_api.session_pod.delivery import Configuration
from wasession_api.session_pod.report import Report

log = logging.getLogger(__name__)
ORDER_TIMEOUT = 10.0  # seconds, of what is done at once
RETRY_FIRST, RETRY_LAST = 0.2, 5.0  # seconds
# Bytes per second, some five reports, and bytes at once. A session pod skips the reports between
# two that are read, so a slower reader only sees fewer of them.
REPORT_RATE, REPORT_BURST = 8 * 2**10, 512 * 2**10
# What a network plugin answers where it does not just drop the packets.
BLOCKED = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES}
REQUEST_ERRORS = (aiohttp.ClientError, OSError, Unauthorized, UnexpectedStatus)


class OrderFailed(Exception):
    """The pod did not do what it was asked to; the message says why."""


OnResult = Callable[[OrderFailed | None], None]
Work = Callable[[], Awaitable[None]]


class ReportWatcher:
    """Follows the event stream of one pod until closed, and calls ``on_change`` for each report.

    ``report`` is the latest one; None while the stream is down, and ``error`` says why; the pod has
    accepted none of the session's tokens while ``unauthorized`` is true. Reports of
    a session other than ``session_uid`` are ignored: the pod's IP address may be another pod's by
    now.
    """

    def __init__(
        self,
        pod: SessionPodClient,
        session_uid: str,
        on_change: Callable[[], None],
        log_extra: Mapping[str, str],
    ) -> None:
        self.pod = pod
        self.session_uid = session_uid
        self.silent_since = datetime.now(UTC)
        self.error: str | None = None
        self.unauthorized = False
        self._payload: str | None = None  # JSON takes a fifth of a Report's memory
        self._on_change = on_change
        self._log_extra = log_extra
        # The events exist only while something awaits them: there are thousands of watchers.
        self._changed: asyncio.Event | None = None
        self._pause: asyncio.Event | None = None
        self._retry_now = False
        self._pod_is_ready = self._closed = False
        self._task = asyncio.create_task(self._run())
        self._order_under_way: asyncio.Task[None] | None = None

    @property
    def report(self) -> Report | None:
        return None if self._payload is None else Report.model_validate_json(self._payload)

    def close(self) -> None:
        """Stop watching, and stop waiting for what the pod was asked to do."""
        self._closed = True  # aiohttp may take the cancellation for its own timeout
        self._task.cancel()
        if self._order_under_way is not None:
            self._order_under_way.cancel()

    def pod_is_ready(self) -> None:
        """Skip the pause before the next attempt, the first one that should succeed."""
        if not self._pod_is_ready:
            self._pod_is_ready = self._retry_now = True
            if self._pause is not None:
                self._pause.set()

    def logout(self, request: str | None, timeout: float, on_result: OnResult) -> None:
        """Begin to log the pod out, unless that is under way already.

        Calls ``on_result`` with None once the pod reports that its login has ended, or with the
        error, after at most ``timeout`` seconds. The pod records the ``request`` on its volume.
        """
        self._begin(partial(self._end_login, request, timeout), timeout, on_result)

    def note_logout(self, request: str, on_result: OnResult) -> None:
        """Begin to let the pod record a logout as fulfilled; ``on_result`` as with ``logout``."""
        self._begin(partial(self._order, "PUT", request, ORDER_TIMEOUT), ORDER_TIMEOUT, on_result)

    def configure_delivery(self, configuration: Configuration, on_result: OnResult) -> None:
        """Begin to tell the pod its webhooks and sinks; ``on_result`` as with ``logout``."""
        report, revision = self.report, configuration.revision
        if report is not None and report.delivery_revision == revision:
            on_result(None)  # it was told since this was planned
            return
        self._begin(partial(self._put_delivery, configuration), ORDER_TIMEOUT, on_result)

    def _begin(self, work: Work, timeout: float, on_result: OnResult) -> None:
        self._order_under_way = self._order_under_way or asyncio.create_task(
            self._run_order(work, timeout, on_result)
        )

    async def _run_order(self, work: Work, timeout: float, on_result: OnResult) -> None:
        try:
            async with asyncio.timeout(timeout):
                await work()
        except REQUEST_ERRORS as error:
            on_result(OrderFailed(describe_error(error)))
        else:
            on_result(None)
        self._order_under_way = None
        self._on_change()

    async def _end_login(self, request: str | None, timeout: float) -> None:
        await self._order("POST", request, timeout)
        while (report := self.report) is not None and report.proven_validity is not False:
            self._changed = self._changed or asyncio.Event()
            await self._changed.wait()

    async def _order(self, method: str, request: str | None, timeout: float) -> None:
        """Send an order about the logout; a pod that knows no requests gets it without one."""
        request_timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT)
        parameters = {} if request is None else {"request": request}
        async with self.pod.request(
            method, "/v1/logout", params=parameters, timeout=request_timeout
        ) as response:
            if response.status != 422 or method != "POST" or request is None:
                response.raise_for_status()
                return
        await self._order(method, None, timeout)

    async def _put_delivery(self, configuration: Configuration) -> None:
        """Tell the pod its webhooks and sinks, and wait until its report says so."""
        timeout = aiohttp.ClientTimeout(total=ORDER_TIMEOUT, sock_connect=CONNECT_TIMEOUT)
        json, revision = configuration.dump(), configuration.revision
        async with self.pod.request(
            "PUT", "/v1/deliveries", json=json, timeout=timeout
        ) as response:
            response.raise_for_status()
        while (report := self.report) is not None and report.delivery_revision != revision:
            self._changed = self._changed or asyncio.Event()
            await self._changed.wait()

    async def _run(self) -> None:
        delay, pace = RETRY_FIRST, sse.Pace(REPORT_RATE, REPORT_BURST)
        while not self._closed:
            self._retry_now = False
            try:
                stream = await self.pod.follow("state", self._receive, pace)
                try:
                    if (error := await stream.ended) is not None:
                        raise error
                finally:
                    stream.close()
            except (*REQUEST_ERRORS, ValueError) as error:
                self.error = describe_error(error)
                self._note_unauthorized(isinstance(error, Unauthorized))
                log.debug(
                    "report stream of the session pod failed; retrying",
                    extra={**self._log_extra, "pod": self.pod.base, "error": self.error},
                )
            if self._disconnected():
                delay = RETRY_FIRST
            if not self._retry_now:
                await self._sleep(delay)
            delay = min(delay * 2, RETRY_LAST)

    async def _sleep(self, delay: float) -> None:
        """Pause between two attempts, until ``pod_is_ready`` at most."""
        self._pause = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._pause.wait()
        self._pause = None

    def _receive(self, event: sse.ServerSentEvent) -> None:
        self.error, self.unauthorized = None, False
        report, before = Report.model_validate_json(event.data), self.report
        if report.session_uid not in (None, self.session_uid):
            raise ValueError("the pod reports another session")
        if before is None or (report.seq, report.started_at) != (before.seq, before.started_at):
            # Without what the report does not have: the pod may send any amount of it.
            self._update(report.model_dump_json(by_alias=True, exclude_none=True))

    def _note_unauthorized(self, unauthorized: bool) -> None:
        before, self.unauthorized = self.unauthorized, unauthorized
        if unauthorized and not before:
            self._on_change()

    def _disconnected(self) -> bool:
        """Forget the report; return whether there was one."""
        if self._payload is None:
            return False
        self.silent_since = datetime.now(UTC)
        self._update(None)
        return True

    def _update(self, payload: str | None) -> None:
        self._payload = payload
        if self._changed is not None:
            self._changed.set()
            self._changed = None
        self._on_change()


def describe_error(error: Exception) -> str:
    """Return what went wrong, without any text that the pod has sent."""
    if isinstance(error, aiohttp.ClientResponseError | UnexpectedStatus):
        return f"the pod answered {error.status}"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "the operator has no free file descriptor for the connection"
    if isinstance(error, aiohttp.ServerTimeoutError):
        return "the pod did not answer in time; a NetworkPolicy may block the connection"
    if isinstance(error, TimeoutError):
        return "the pod did not answer in time"
    if isinstance(error, OSError) and error.errno in BLOCKED:
        reason = os.strerror(error.errno or 0).lower()
        return f"the pod cannot be reached ({reason}); a NetworkPolicy may block the connection"
    if isinstance(error, Unauthorized):
        return "the pod does not accept the session's token"
    if isinstance(error, sse.EventTooLarge):
        return f"the pod sent an event of more than {sse.MAXIMUM_EVENT // 2**10} KiB"
    if isinstance(error, ValueError):
        return "the pod sent an invalid report"
    return f"the pod cannot be reached ({type(error).__name__})"
