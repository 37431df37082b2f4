"""Chromium and Playwright's driver: from launch to exit."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import psutil
from playwright.async_api import BrowserContext, Playwright, async_playwright
from playwright.async_api import Error as PlaywrightError
from wasession_api.v1alpha1 import Sandbox

from wasession_pod.browser import launch, processes
from wasession_pod.browser.errors import SandboxUnavailable, browser_errors
from wasession_pod.browser.page import DRIVER_GRACE, WhatsAppPage
from wasession_pod.settings import Settings
from wasession_pod.state.observation import PageEvent

VIEWPORT_WIDTH, VIEWPORT_HEIGHT = 800, 600


class Browser:
    """One Chromium on one profile, with one page.

    ``on_event`` is called for each event of the page (see ``WhatsAppPage``), and with the type
    ``browser.close`` when the browser has exited without ``close()``.
    """

    def __init__(self, settings: Settings, on_event: Callable[[PageEvent], None]) -> None:
        for name, value in launch.DRIVER_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self.page = WhatsAppPage(settings, on_event)
        self.sandboxed: bool | None = None
        self._settings = settings
        self._on_event = on_event
        self._playwright: Playwright | None = None
        self._context: BrowserContext | None = None
        self._processes: list[psutil.Process] = []  # they can outlive a driver that is killed

    async def prepare(self) -> tuple[Playwright, bool, str]:
        """Return the driver, whether the sandbox is available, and the user agent.

        ``launch`` needs these and calls this method itself. Starting the driver takes a third of a
        second and does not touch the profile, so callers may do it early. Raises ``BrowserError``.
        """
        settings = self._settings
        async with browser_errors(settings.initialization_timeout + DRIVER_GRACE):
            driver, sandboxed, user_agent = await asyncio.gather(
                self._driver(),
                asyncio.to_thread(launch.sandbox_available),
                asyncio.to_thread(
                    lambda: settings.user_agent or launch.user_agent(settings.chromium)
                ),
            )
        if settings.sandbox is Sandbox.REQUIRED and not sandboxed:
            self.sandboxed = False
            launch.sandbox_available.cache_clear()  # it is looked for again at the next attempt
            raise SandboxUnavailable(
                "Chromium's sandbox is required and not available: it needs user namespaces, "
                "which the node and the pod's seccomp profile must allow"
            )
        return driver, sandboxed, user_agent

    async def launch(self, profile: Path) -> None:
        """Start Chromium on a profile, with an empty page; raise ``BrowserError``."""
        settings = self._settings
        timeout = settings.initialization_timeout
        playwright, self.sandboxed, user_agent = await self.prepare()
        async with browser_errors(timeout + DRIVER_GRACE):
            self._context = await playwright.chromium.launch_persistent_context(
                str(profile),
                executable_path=str(settings.chromium),
                args=[
                    *launch.FLAGS,
                    *launch.identity_flags(user_agent, settings.locale),
                    *settings.extra_args,
                ],
                env=launch.browser_environment(settings.timezone),
                chromium_sandbox=self.sandboxed,
                headless=True,
                # Playwright's own handlers would kill Chromium before it has written its profile.
                handle_sigterm=False,
                handle_sigint=False,
                handle_sighup=False,
                viewport={"width": VIEWPORT_WIDTH, "height": VIEWPORT_HEIGHT},
                # ``confinement`` supplies the credentials.
                proxy={"server": settings.proxy_address} if settings.proxy_address else None,
                accept_downloads=False,
                timeout=timeout * 1000,
            )
            self._context.on("close", self._on_closed)
            await self.page.attach(self._context)
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
