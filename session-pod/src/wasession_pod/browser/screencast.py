"""What a page shows, picture by picture, for a person who looks at it.

Chromium captures it without the page: also one that hangs, whose last picture it still has. The
page keeps its focus and its size. Each screencast has a session of its own, and whatever is set
ends with that.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints

from wasession_pod.browser.cdp import Session
from wasession_pod.browser.errors import BrowserError, NoAnswer, PageClosed, browser_errors
from wasession_pod.browser.tab import Tab

INTERVAL = 0.2  # seconds between two pictures, at least
# Seconds after which a picture is repeated: proxies end connections that idle, and only when
# something is sent does it show that a viewer has vanished.
HEARTBEAT = 5.0
DURATION = 300.0  # seconds until a screencast ends by itself
START_TIMEOUT = 10.0  # seconds for the first picture, which takes hundredths of one
MAXIMUM_PICTURE = 8 * 2**20  # characters in base64, as a PNG of noise has
# Chromium sends two pictures that are not acknowledged, and drops those that follow.
MAXIMUM_UNREAD = 4
SIZE = {"maxWidth": 1280, "maxHeight": 1024}
JPEG, PNG = {"format": "jpeg", "quality": 60, **SIZE}, {"format": "png", **SIZE}


class _Picture(BaseModel):
    number: int = Field(alias="sessionId")
    data: Annotated[str, StringConstraints(max_length=MAXIMUM_PICTURE)]

    def decode(self) -> bytes:
        try:
            return base64.b64decode(self.data, validate=True)
        except binascii.Error:
            raise BrowserError("Chromium has sent a picture that is not valid") from None


async def screenshot(tab: Tab) -> bytes:
    """Return a tab's page as PNG. Raises ``BrowserError``.

    ``Page.captureScreenshot`` would wait for the page: for one that hangs, and now and then for one
    that is being opened, in vain.
    """
    screencast = await _Screencast.start(tab, PNG)
    try:
        async with contextlib.aclosing(screencast.pictures()) as pictures:
            return await anext(pictures)
    finally:
        screencast.close()


class Screencasts:
    """Those of one page after another, one at a time: who looks last sees it.

    A viewer that has vanished may count as one for minutes, and must not keep others out.
    """

    def __init__(self) -> None:
        self._current: _Screencast | None = None

    async def show(self, tab: Tab) -> AsyncGenerator[bytes]:
        """Yield the page as JPEG: now, at each change, and every ``HEARTBEAT`` seconds.

        Chromium captures nothing further while the caller has not asked for the next one. Raises
        ``BrowserError``, also when another screencast begins or the page closes; ends after
        ``DURATION``.
        """
        screencast = await _Screencast.start(tab, JPEG)
        if self._current is not None:
            self._current.close()
        self._current = screencast
        try:
            async with contextlib.aclosing(screencast.pictures()) as pictures:
                async for picture in pictures:
                    yield picture
        finally:
            screencast.close()
            if self._current is screencast:
                self._current = None


class _Screencast:
    def __init__(
        self, tab: Tab, session: Session, parent: str, picture_format: Mapping[str, Any]
    ) -> None:
        self._tab, self._session, self._parent = tab, session, parent
        self._format = picture_format
        self._unread = deque[_Picture](maxlen=MAXIMUM_UNREAD)
        self._event = asyncio.Event()  # a picture has come, or none will come any more
        session.on("Page.screencastFrame", self._on_picture)
        for ended in (tab.session.ended, session.ended):
            ended.add_done_callback(self._wake)
        self._capture()

    @classmethod
    async def start(cls, tab: Tab, picture_format: Mapping[str, Any]) -> _Screencast:
        """Attach to a tab in a browser session of its own; raise ``BrowserError``.

        The browser's usual one would learn of a further session of the tab.
        """
        connection = tab.session.connection
        async with browser_errors(START_TIMEOUT):
            parent: str = (await connection.call("Target.attachToBrowserTarget"))["sessionId"]
            try:
                target = {"targetId": tab.target_id, "flatten": True}
                attached = await connection.call("Target.attachToTarget", target, parent)
            except BaseException:
                connection.browser.post("Target.detachFromTarget", sessionId=parent)
                raise
        return cls(tab, connection.open_session(attached["sessionId"]), parent, picture_format)

    def close(self) -> None:
        """Detach from the tab, which ends the capture."""
        connection = self._session.connection
        for ended in (self._tab.session.ended, self._session.ended):
            ended.remove_done_callback(self._wake)
        self._session.end()
        self._unread.clear()
        self._event.set()
        connection.browser.post("Target.detachFromTarget", sessionId=self._parent)

    async def pictures(self) -> AsyncGenerator[bytes]:
        loop = asyncio.get_running_loop()
        end, shown = loop.time() + DURATION, b""
        may_lack, is_renewed = False, False
        while (left := end - loop.time()) > 0:
            patience = INTERVAL if may_lack else HEARTBEAT if shown else START_TIMEOUT
            arrived = await self._arrived(min(patience, left))
            if arrived:
                taken = [*self._unread]
                self._unread.clear()
                picture = taken[-1].decode()
                # Of a page that changes fast Chromium drops pictures, and the last may be of them.
                may_lack, is_renewed = not is_renewed, False
            elif not shown:
                raise NoAnswer(f"no picture of the page within {START_TIMEOUT:g} s")
            elif may_lack:
                self._capture()
                may_lack, is_renewed = False, True
                continue
            else:
                taken, picture = [], shown
            if picture != shown or not arrived:
                shown = picture
                yield picture
            await asyncio.sleep(INTERVAL)
            for one in taken:
                self._session.post("Page.screencastFrameAck", sessionId=one.number)

    async def _arrived(self, timeout: float) -> bool:
        """Wait for a picture; raise ``PageClosed`` if none will come any more."""
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            return False
        if self._tab.session.ended.done() or self._session.ended.done():
            raise PageClosed("the page has been closed, or somebody else looks at it")
        self._event.clear()
        return True

    def _capture(self) -> None:
        """Let Chromium send what the page shows now, and from then on each change."""
        self._session.post("Page.stopScreencast")
        self._session.post("Page.startScreencast", **self._format)

    def _on_picture(self, event: dict[str, Any]) -> None:
        self._unread.append(_Picture.model_validate(event))
        self._event.set()

    def _wake(self, _: asyncio.Future[None]) -> None:
        self._event.set()
