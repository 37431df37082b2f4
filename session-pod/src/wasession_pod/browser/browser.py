"""One browser: from launch to exit."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from wasession_api.v1alpha1 import Reason, Sandbox, WaJS

from wasession_pod.browser import chromium, launch, launch_files, verified_file
from wasession_pod.browser.chromium import Chromium
from wasession_pod.browser.errors import BrowserError, NotStartable, browser_errors
from wasession_pod.browser.launch_files import LaunchFiles, UsableFiles
from wasession_pod.browser.page import WhatsAppPage
from wasession_pod.settings import Settings
from wasession_pod.state.observation import PageEvent


class Prepared(NamedTuple):
    """What a launch needs besides a profile."""

    sandboxed: bool
    user_agent: str
    files: UsableFiles
    home: Path | None  # of Chromium, if not the process's own


class Browser:
    """One Chromium on one profile, with one page.

    ``on_event`` is called for each event of the page (see ``WhatsAppPage``), and with the type
    ``browser.close`` when the browser has exited without ``close()``.
    """

    def __init__(self, settings: Settings, on_event: Callable[[PageEvent], None]) -> None:
        self.page = WhatsAppPage(settings, on_event)
        self.sandboxed: bool | None = None
        self.files = LaunchFiles()  # that the browser was, or could not be, started with
        self.wa_js: WaJS | None = None  # that the page gets
        self._settings = settings
        self._on_event = on_event
        self._chromium: Chromium | None = None

    async def prepare(self) -> Prepared:
        """Return what ``launch`` needs, which calls this method itself.

        It does not touch the profile, so callers may do it early. Raises ``BrowserError``.
        """
        settings = self._settings
        self.files = await asyncio.to_thread(launch_files.read, settings)
        files = launch_files.require(self.files)
        self.wa_js = await asyncio.to_thread(_describe_wa_js, settings.wa_js, files.wa_js)
        sandboxed, user_agent = await asyncio.gather(
            asyncio.to_thread(launch.sandbox_available),
            asyncio.to_thread(lambda: settings.user_agent or launch.user_agent(settings.chromium)),
        )
        home = None
        if settings.ca_bundle is not None and files.ca_bundle is not None:
            home = await asyncio.to_thread(
                launch_files.make_home, settings.ca_bundle, files.ca_bundle
            )
        if settings.sandbox is Sandbox.REQUIRED and not sandboxed:
            self.sandboxed = False
            launch.sandbox_available.cache_clear()  # it is looked for again at the next attempt
            raise NotStartable(
                Reason.SANDBOX_UNAVAILABLE,
                "Chromium's sandbox is required and not available: it needs user namespaces, "
                "which the node and the pod's seccomp profile must allow",
            )
        return Prepared(sandboxed, user_agent, files, home)

    async def launch(self, profile: Path) -> None:
        """Start Chromium on a profile, with an empty page; raise ``BrowserError``."""
        settings = self._settings
        prepared = await self.prepare()
        self.sandboxed = prepared.sandboxed
        started = self._chromium = await chromium.start(
            settings.chromium,
            launch.arguments(
                settings,
                profile,
                prepared.user_agent,
                prepared.files.proxy,
                sandboxed=self.sandboxed,
            ),
            launch.browser_environment(settings.timezone, prepared.home),
        )
        try:
            async with browser_errors(settings.initialization_timeout):
                await self.page.attach(started.connection, prepared.files)
        except NotStartable:  # Chromium itself is well, and may write its profile
            await self.close(settings.shutdown_timeout)
            raise
        except BrowserError as error:
            failure = await started.failure()
            await self.close(0)
            raise BrowserError(failure or str(error)) from None
        started.exited.add_done_callback(self._on_exited)

    @property
    def running(self) -> bool:
        return self._chromium is not None

    async def close(self, timeout: float) -> bool:
        """Close Chromium, which writes its profile; return whether that took at most ``timeout`` s.

        Chromium is killed if it takes longer, so that the next ``launch`` starts from scratch.
        """
        self.page.detach()
        if self._chromium is None:
            return True
        self._chromium.exited.remove_done_callback(self._on_exited)
        graceful = await self._chromium.close(timeout)
        self._chromium = None
        return graceful

    def _on_exited(self, _: asyncio.Future[int]) -> None:
        self._on_event(PageEvent(type="browser.close"))


def _describe_wa_js(path: Path, content: bytes | None) -> WaJS:
    """Describe wa-js; the image's own at ``path`` if there is no other ``content``."""
    script = path.read_bytes() if content is None else content
    return WaJS(
        version=verified_file.wa_js_version(script), sha256=hashlib.sha256(script).hexdigest()
    )
