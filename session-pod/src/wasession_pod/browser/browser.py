"""Chromium and Playwright's driver: from launch to exit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil
from playwright.async_api import BrowserContext, Playwright, async_playwright
from playwright.async_api import Error as PlaywrightError
from wasession_api.v1alpha1 import Reason, Sandbox

from wasession_pod.browser import launch, launch_files, processes
from wasession_pod.browser.errors import NotStartable, browser_errors
from wasession_pod.browser.launch_files import LaunchFiles
from wasession_pod.browser.page import DRIVER_GRACE, WhatsAppPage
from wasession_pod.browser.proxy import Proxy
from wasession_pod.settings import Settings
from wasession_pod.state.observation import PageEvent

VIEWPORT_WIDTH, VIEWPORT_HEIGHT = 800, 600


class Prepared(NamedTuple):
    """What a launch needs besides a profile."""

    driver: Playwright
    sandboxed: bool
    user_agent: str
    proxy: Proxy | None
    home: Path | None  # of Chromium, if not the process's own


class Browser:
    """One Chromium on one profile, with one page.

    ``on_event`` is called for each event of the page (see ``WhatsAppPage``), and with the type
    ``browser.close`` when the browser has exited without ``close()``.
    """

    def __init__(self, settings: Settings, on_event: Callable[[PageEvent], None]) -> None:
        launch.set_driver_environment()
        self.page = WhatsAppPage(settings, on_event)
        self.sandboxed: bool | None = None
        self.files = LaunchFiles()  # that the browser was, or could not be, started with
        self._settings = settings
        self._on_event = on_event
        self._playwright: Playwright | None = None
        self._context: BrowserContext | None = None
        self._processes: list[psutil.Process] = []  # they can outlive a driver that is killed

    async def prepare(self) -> Prepared:
        """Return what ``launch`` needs, which calls this method itself.

        Starting the driver takes a third of a second and does not touch the profile, so callers may
        do it early. Raises ``BrowserError``.
        """
        settings = self._settings
        self.files = await asyncio.to_thread(launch_files.read, settings)
        proxy, ca_bundle = launch_files.require(self.files)
        async with browser_errors(settings.initialization_timeout + DRIVER_GRACE):
            driver, sandboxed, user_agent = await asyncio.gather(
                self._driver(),
                asyncio.to_thread(launch.sandbox_available),
                asyncio.to_thread(
                    lambda: settings.user_agent or launch.user_agent(settings.chromium)
                ),
            )
        home = None
        if settings.ca_bundle is not None and ca_bundle is not None:
            home = await asyncio.to_thread(launch_files.make_home, settings.ca_bundle, ca_bundle)
        if settings.sandbox is Sandbox.REQUIRED and not sandboxed:
            self.sandboxed = False
            launch.sandbox_available.cache_clear()  # it is looked for again at the next attempt
            raise NotStartable(
                Reason.SANDBOX_UNAVAILABLE,
                "Chromium's sandbox is required and not available: it needs user namespaces, "
                "which the node and the pod's seccomp profile must allow",
            )
        return Prepared(driver, sandboxed, user_agent, proxy, home)

    async def launch(self, profile: Path) -> None:
        """Start Chromium on a profile, with an empty page; raise ``BrowserError``."""
        settings = self._settings
        timeout = settings.initialization_timeout
        prepared = await self.prepare()
        self.sandboxed, proxy = prepared.sandboxed, prepared.proxy
        async with browser_errors(timeout + DRIVER_GRACE):
            self._context = await prepared.driver.chromium.launch_persistent_context(
                str(profile),
                executable_path=str(settings.chromium),
                args=[
                    *launch.FLAGS,
                    *launch.identity_flags(prepared.user_agent, settings.locale),
                    *settings.extra_args,
                ],
                env=launch.browser_environment(settings.timezone, prepared.home),
                chromium_sandbox=self.sandboxed,
                headless=True,
                # Playwright's own handlers would kill Chromium before it has written its profile.
                handle_sigterm=False,
                handle_sigint=False,
                handle_sighup=False,
                viewport={"width": VIEWPORT_WIDTH, "height": VIEWPORT_HEIGHT},
                # ``confinement`` supplies the credentials.
                proxy={"server": proxy.address} if proxy is not None else None,
                accept_downloads=False,
                timeout=timeout * 1000,
            )
            self._context.on("close", self._on_closed)
            await self.page.attach(self._context, proxy)
        self._processes = await asyncio.to_thread(processes.family)

    @property
    def running(self) -> bool:
        return self._context is not None

    async def close(self, timeout: float) -> bool:
        """Close Chromium, which writes its profile; return whether that took at most ``timeout`` s.

        A browser that can't be closed is ended together with its driver, so that the next
        ``launch`` starts from scratch.
        """
        context, self._context = self._context, None
        self.page.detach()
        if context is None:
            return True
        try:
            async with asyncio.timeout(timeout):
                await context.close()
        except (PlaywrightError, TimeoutError):
            await self.quit()
            return False
        return True

    async def quit(self) -> None:
        """End Playwright's driver and all that remains of the browser; call ``close()`` first."""
        playwright, self._playwright = self._playwright, None
        if playwright is None:
            return
        remaining = list({*self._processes, *await asyncio.to_thread(processes.family)})
        with contextlib.suppress(PlaywrightError, TimeoutError):
            async with asyncio.timeout(DRIVER_GRACE):
                await playwright.stop()
        await asyncio.to_thread(processes.end, remaining)

    async def _driver(self) -> Playwright:
        if self._playwright is None:
            self._playwright = await async_playwright().start()
        return self._playwright

    def _on_closed(self, context: BrowserContext) -> None:
        if context is self._context:
            self._on_event(PageEvent(type="browser.close"))
