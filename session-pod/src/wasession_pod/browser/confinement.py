"""Confine a page to the origin of WhatsApp Web, and authenticate with the proxy.

A DevTools session intercepts requests for documents and nothing else. Playwright's own features
(``route``, a proxy's ``password``) intercept every request and disable the HTTP cache, so that all
scripts of WhatsApp Web would be loaded again at each start (measured). Chromium itself blocks
navigations to ``file:``, ``data:``, ``chrome:`` and the URL schemes of other programs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import CDPSession, Page
from playwright.async_api import Error as PlaywrightError

from wasession_pod.browser.proxy import Credentials

DOCUMENTS = {"urlPattern": "*", "resourceType": "Document", "requestStage": "Request"}


async def confine(
    page: Page, origin: str, credentials: Credentials | None, on_blocked: Callable[[str], None]
) -> Confinement:
    """Confine the page's top frame to documents of ``origin``.

    A blocked navigation leaves the page as it is; ``on_blocked`` gets the target's origin. Raises
    Playwright's errors.
    """
    session = await page.context.new_cdp_session(page)
    tree = await session.send("Page.getFrameTree")
    confinement = Confinement(
        session, tree["frameTree"]["frame"]["id"], origin, credentials, on_blocked
    )
    await session.send(
        "Fetch.enable", {"patterns": [DOCUMENTS], "handleAuthRequests": credentials is not None}
    )
    return confinement


def origin_of(url: str) -> str:
    """Return the origin as ``location.origin`` has it; for schemes other than HTTP the scheme."""
    parts = urlsplit(url)
    return (
        f"{parts.scheme}://{parts.netloc}"
        if parts.scheme in ("http", "https")
        else f"{parts.scheme}:"
    )


class Confinement:
    """Handles intercepted requests; ``wrong_credentials`` if the proxy has rejected ours."""

    def __init__(
        self,
        session: CDPSession,
        top_frame: str,
        origin: str,
        credentials: Credentials | None,
        on_blocked: Callable[[str], None],
    ) -> None:
        self._session, self._top_frame, self._origin = session, top_frame, origin
        self._credentials, self._on_blocked = credentials, on_blocked
        self._challenged: set[str] = set()  # requests that have had the credentials
        self._tasks: set[asyncio.Task[None]] = set()
        self.wrong_credentials = False
        session.on("Fetch.requestPaused", lambda event: self._start(self._on_request(event)))
        session.on("Fetch.authRequired", lambda event: self._start(self._on_challenge(event)))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _on_request(self, event: dict[str, Any]) -> None:
        request, origin = event["requestId"], origin_of(event["request"]["url"])
        with contextlib.suppress(PlaywrightError):  # the page has closed meanwhile
            if event["frameId"] == self._top_frame and origin != self._origin:
                self._on_blocked(origin)
                # With any other reason Chromium would replace WhatsApp with an error page.
                await self._session.send(
                    "Fetch.failRequest", {"requestId": request, "errorReason": "Aborted"}
                )
            else:
                await self._session.send("Fetch.continueRequest", {"requestId": request})

    async def _on_challenge(self, event: dict[str, Any]) -> None:
        request = event["requestId"]
        response: dict[str, str] = {"response": "CancelAuth"}
        if event["authChallenge"].get("source") != "Proxy" or self._credentials is None:
            pass
        elif request in self._challenged:
            self.wrong_credentials = True
        else:
            self._challenged.add(request)
            response = {
                "response": "ProvideCredentials",
                "username": self._credentials.username,
                "password": self._credentials.password,
            }
        with contextlib.suppress(PlaywrightError):
            await self._session.send(
                "Fetch.continueWithAuth", {"requestId": request, "authChallengeResponse": response}
            )
