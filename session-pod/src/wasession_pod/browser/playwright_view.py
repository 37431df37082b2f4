"""Playwright on the page, on demand.

Its driver is a Node process of 42 MiB that a session does without. It starts for the first user of
a page, serves all others, and leaves once nobody has used it for some seconds. Chromium then undoes
all that it has set. Two things stay (measured): Playwright's modules in this process, 27 MiB, and
until the page loads again an isolated world in each of its frames, up to 0.3 MiB each time. So it
is for people who look at a page, not for monitoring.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import psutil

from wasession_pod.browser import launch, processes
from wasession_pod.browser.cdp import Connection, Disconnected
from wasession_pod.browser.errors import BrowserError, NoAnswer, PageClosed, first_line
from wasession_pod.browser.playwright_relay import Relay, relaying

if TYPE_CHECKING:
    from playwright.async_api import Page, Playwright

log = logging.getLogger(__name__)
USE_TIMEOUT = 30.0  # seconds of one use, including the driver's start, which takes about two
IDLE_TIME = 10.0  # seconds that the driver stays without a use
STOP_TIMEOUT = 5.0  # seconds for the driver to exit, which takes a tenth of one
# In the messages of errors once the page, Chromium or the driver is gone.
GONE = ("has been closed", "Connection closed", "No target with given id")


class PlaywrightView:
    """Playwright on one page at a time: one driver, or none."""

    def __init__(self) -> None:
        self._attachment: _Attachment | None = None

    @contextlib.asynccontextmanager
    async def attached(self, connection: Connection, target_id: str) -> AsyncIterator[Page]:
        """Yield Playwright's page of a target, for up to ``USE_TIMEOUT``.

        Concurrent users share it. Raises ``BrowserError``, also for Playwright's errors within.
        """
        attachment = self._attachment
        if attachment is None or not attachment.serves(target_id):
            self._attachment = attachment = _Attachment(connection, target_id, attachment)
        async with attachment.use() as page:
            yield page

    async def close(self) -> None:
        """Detach Playwright and end its driver."""
        if self._attachment is not None:
            await self._attachment.close()


class _Attachment:
    """Playwright on one target, from the start of the driver to its end."""

    def __init__(
        self, connection: Connection, target_id: str, previous: _Attachment | None
    ) -> None:
        self._target_id = target_id
        self._over = False
        self._users = 0
        self._leaving: asyncio.TimerHandle | None = None
        self._page: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
        self._running = asyncio.create_task(self._run(connection, previous))
        self._running.add_done_callback(self._on_ended)

    def serves(self, target_id: str) -> bool:
        """Whether new users of a target may share it."""
        return not self._over and self._target_id == target_id

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[Page]:
        self._users += 1
        if self._leaving is not None:
            self._leaving.cancel()
        try:
            async with asyncio.timeout(USE_TIMEOUT):
                page = await asyncio.shield(self._page)
                from playwright.async_api import Error  # imported by now

                try:
                    yield page
                except Error as error:
                    raise _describe(error) from None
        except TimeoutError:
            self._end()  # the page or the driver hangs
            raise NoAnswer(f"no answer within {USE_TIMEOUT:g} s") from None
        finally:
            self._users -= 1
            if not self._users:
                self._leaving = asyncio.get_running_loop().call_later(IDLE_TIME, self._end)

    async def close(self) -> None:
        self._end()
        await asyncio.wait({self._running})

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._running.cancel()

    async def _run(self, connection: Connection, previous: _Attachment | None) -> None:
        """Start and attach the driver; detach and stop it when it or the page is gone."""
        if previous is not None:
            await previous.close()
        async with _driver() as playwright, relaying(connection, self._target_id) as relay:
            self._page.set_result(await _attach(playwright, relay))
            await relay.ended.wait()
            self._over = True

    def _on_ended(self, running: asyncio.Task[None]) -> None:
        self._over = True
        if self._leaving is not None:
            self._leaving.cancel()
        error = None if running.cancelled() else running.exception()
        if not self._page.done():
            self._page.set_exception(
                PageClosed("the page is no longer viewed") if error is None else _describe(error)
            )
            self._page.exception()  # nobody may be waiting for it
        elif error is not None:
            log.warning("Playwright did not leave in order", extra={"error": str(_describe(error))})


async def _attach(playwright: Playwright, relay: Relay) -> Page:
    browser = await playwright.chromium.connect_over_cdp(
        relay.url,
        no_defaults=True,  # keeps focus, fonts, media and the handling of downloads
        artifacts_dir=tempfile.gettempdir(),  # else a new directory, which a killed driver leaves
        timeout=0,  # of a use, which includes this
    )
    for page in browser.contexts[0].pages:
        return page
    raise PageClosed("the page has crashed or has been closed")


@contextlib.asynccontextmanager
async def _driver() -> AsyncIterator[Playwright]:
    """Run Playwright's driver while the block runs. Raises whatever goes wrong with its start."""
    await asyncio.to_thread(importlib.import_module, "playwright.async_api")  # takes half a second
    from playwright.async_api import async_playwright

    try:
        with _environment():
            playwright = await async_playwright().start()
    except BaseException:
        _kill_driver()
        raise
    try:
        yield playwright
    finally:
        stopping = asyncio.ensure_future(playwright.stop())
        try:
            await asyncio.wait({stopping}, timeout=STOP_TIMEOUT)
        finally:
            _kill_driver()  # if it hangs
        await stopping


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Set the driver's environment while it starts: Playwright gives it this process's own."""
    own = launch.driver_environment()
    before = {name: os.environ.get(name) for name in own}
    os.environ |= own
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _kill_driver() -> None:
    for child in psutil.Process().children():
        if processes.kind(child) == processes.DRIVER:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def _describe(error: BaseException) -> BrowserError:
    """Return an error of the driver, of Playwright or of Chromium as one of the browser's."""
    message = re.sub(r"^[A-Za-z]+\.[a-z_]+: ", "", first_line(str(error)))
    message = re.sub(r"ws://\S+", "the relay", message) or type(error).__name__
    if isinstance(error, Disconnected) or any(text in message for text in GONE):
        return PageClosed(message)
    return BrowserError(f"Playwright failed: {message}")
