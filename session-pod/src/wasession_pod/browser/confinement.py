"""Keeps a page on the origin of WhatsApp Web, and gives a proxy its credentials.

A DevTools session of the page's own holds up requests for documents, and nothing else. Playwright's
ways to the same end (``route``, a proxy's ``password``) hold up every request and switch the HTTP
cache off, so that all of WhatsApp Web's scripts are loaded again at each start (measured). Chromium
itself refuses pages to leave for ``file:``, ``data:``, ``chrome:`` and schemes of other programs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import CDPSession, Page
from playwright.async_api import Error as PlaywrightError

from wasession_pod.settings import Credentials

DOCUMENTS = {"urlPattern": "*", "resourceType": "Document", "requestStage": "Request"}


async def confine(
    page: Page, origin: str, credentials: Credentials | None, refused: Callable[[str], None]
) -> Confinement:
    """From now on the page's top frame loads documents of ``origin`` only; ``refused`` is told the origin of any other.

    What it refuses leaves the page as it is. Raises Playwright's errors.
    """
    session = await page.context.new_cdp_session(page)
    tree = await session.send("Page.getFrameTree")
    confinement = Confinement(
        session, tree["frameTree"]["frame"]["id"], origin, credentials, refused
    )
    await session.send(
        "Fetch.enable", {"patterns": [DOCUMENTS], "handleAuthRequests": credentials is not None}
    )
    return confinement


def origin_of(url: str) -> str:
    """Scheme, host and port, as ``location.origin`` has them; of other schemes only the scheme."""
    parts = urlsplit(url)
    return (
        f"{parts.scheme}://{parts.netloc}"
        if parts.scheme in ("http", "https")
        else f"{parts.scheme}:"
    )


class Confinement:
    """Answers what the session asks; ``wrong_credentials`` when the proxy has not taken the ones that it was given."""

    def __init__(
        self,
        session: CDPSession,
        top_frame: str,
        origin: str,
        credentials: Credentials | None,
        refused: Callable[[str], None],
    ) -> None:
        self._session, self._top_frame, self._origin = session, top_frame, origin
        self._credentials, self._refused = credentials, refused
        self._challenged: set[str] = set()  # requests that had the credentials already
        self._answers: set[asyncio.Task[None]] = set()
        self.wrong_credentials = False
        session.on("Fetch.requestPaused", lambda event: self._answer(self._on_request(event)))
        session.on("Fetch.authRequired", lambda event: self._answer(self._on_challenge(event)))

    def _answer(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _on_request(self, event: dict[str, Any]) -> None:
        request, where = event["requestId"], origin_of(event["request"]["url"])
        with contextlib.suppress(PlaywrightError):  # the page has gone meanwhile
            if event["frameId"] == self._top_frame and where != self._origin:
                self._refused(where)
                # An aborted navigation is none: with any other reason Chromium would show an error
                # in WhatsApp's place.
                await self._session.send(
                    "Fetch.failRequest", {"requestId": request, "errorReason": "Aborted"}
                )
            else:
                await self._session.send("Fetch.continueRequest", {"requestId": request})

    async def _on_challenge(self, event: dict[str, Any]) -> None:
        request = event["requestId"]
        answer: dict[str, str] = {"response": "CancelAuth"}
        if event["authChallenge"].get("source") != "Proxy" or self._credentials is None:
            pass
        elif request in self._challenged:
            self.wrong_credentials = True
        else:
            self._challenged.add(request)
            answer = {
                "response": "ProvideCredentials",
                "username": self._credentials.username,
                "password": self._credentials.password,
            }
        with contextlib.suppress(PlaywrightError):
            await self._session.send(
                "Fetch.continueWithAuth", {"requestId": request, "authChallengeResponse": answer}
            )
