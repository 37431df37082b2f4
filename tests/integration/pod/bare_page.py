"""A page of a Chromium over the pipe, without WhatsApp Web and without a session."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import SecretStr
from wasession_pod.browser import chromium as chromium_process
from wasession_pod.browser import launch
from wasession_pod.browser.cdp import Connection, Session
from wasession_pod.browser.chromium import Chromium
from wasession_pod.settings import Settings

DOCUMENT = "data:text/html,<title>Notice</title><h1>A new dialog</h1><button>Continue</button>"
SURROUNDINGS = (
    "[document.hasFocus(), document.visibilityState, innerWidth, innerHeight, devicePixelRatio]"
    ".join()"
)
PATIENCE = 60.0  # seconds for what takes tenths of one, on a machine that is busy


class Opened(NamedTuple):
    """A page with its session."""

    target_id: str
    session: Session

    @property
    def connection(self) -> Connection:
        return self.session.connection

    async def evaluate(self, expression: str) -> Any:
        async with asyncio.timeout(PATIENCE):
            answer = await self.session.call(
                "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
            )
        return answer["result"].get("value")


@contextlib.asynccontextmanager
async def bare_browser(directory: Path, chromium: Path) -> AsyncIterator[Chromium]:
    settings = Settings(client_id="sales", token=SecretStr("token"), data_dir=directory)
    process = await chromium_process.start(
        chromium,
        launch.arguments(settings, directory / "profile", "Tests", None, sandboxed=False),
        launch.browser_environment(None),
    )
    await process.connection.browser.call(
        "Browser.setDownloadBehavior", behavior="deny", eventsEnabled=True
    )
    yield process
    await process.close(PATIENCE)


async def open_page(connection: Connection, url: str = DOCUMENT) -> Opened:
    created = await connection.browser.call("Target.createTarget", url="about:blank")
    target = {"targetId": created["targetId"], "flatten": True}
    attached = await connection.call("Target.attachToTarget", target)
    session = connection.open_session(attached["sessionId"])
    loaded = asyncio.Event()
    session.on("Page.loadEventFired", lambda _: loaded.set())
    await session.call("Page.enable")
    await session.call("Page.navigate", url=url)
    async with asyncio.timeout(PATIENCE):
        await loaded.wait()
    return Opened(created["targetId"], session)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # polling
