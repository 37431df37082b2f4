"""Confine a page to the origin of WhatsApp Web, and authenticate with the proxy.

Requests for documents are intercepted, and nothing else: to intercept every request would disable
the HTTP cache, so that all scripts of WhatsApp Web would be loaded again at each start (measured).
Chromium itself blocks navigations to ``file:``, ``data:``, ``chrome:`` and the URL schemes of other
programs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from wasession_pod.browser import pinned_document
from wasession_pod.browser.cdp import Session
from wasession_pod.browser.proxy import Credentials

DOCUMENTS = {"urlPattern": "*", "resourceType": "Document", "requestStage": "Request"}
RESPONSES = DOCUMENTS | {"requestStage": "Response"}


def origin_of(url: str) -> str:
    """Return the origin as ``location.origin`` has it; for schemes other than HTTP the scheme."""
    parts = urlsplit(url)
    return (
        f"{parts.scheme}://{parts.netloc}"
        if parts.scheme in ("http", "https")
        else f"{parts.scheme}:"
    )


class Confinement:
    """Confines a page's top frame to documents of ``origin``.

    A blocked navigation leaves the page as it is; ``on_blocked`` gets the target's origin.
    ``on_document`` is called before a document is requested for the top frame. With ``document``,
    the body of WhatsApp Web's own document is replaced by this one.
    ``wrong_credentials`` becomes true if the proxy rejects ours.
    """

    def __init__(
        self,
        session: Session,
        top_frame: str,
        origin: str,
        credentials: Credentials | None,
        document: bytes | None,
        on_blocked: Callable[[str], None],
        on_document: Callable[[], None],
    ) -> None:
        self._session, self._top_frame, self._origin = session, top_frame, origin
        self._credentials, self._document = credentials, document
        self._on_blocked, self._on_document = on_blocked, on_document
        self._challenged: set[str] = set()  # requests that have had the credentials
        self.wrong_credentials = False
        session.on("Fetch.requestPaused", self._on_request)
        session.on("Fetch.authRequired", self._on_challenge)

    async def enable(self) -> None:
        """Start to intercept; raise ``ProtocolError``."""
        await self._session.call(
            "Fetch.enable",
            patterns=[DOCUMENTS] if self._document is None else [DOCUMENTS, RESPONSES],
            handleAuthRequests=self._credentials is not None,
        )

    def _on_request(self, event: dict[str, Any]) -> None:
        if "responseStatusCode" in event or "responseErrorReason" in event:
            self._on_response(event)
            return
        request, origin = event["requestId"], origin_of(event["request"]["url"])
        top = event["frameId"] == self._top_frame
        if top and origin != self._origin:
            # With any other reason Chromium would replace WhatsApp with an error page.
            self._session.post("Fetch.failRequest", requestId=request, errorReason="Aborted")
            self._on_blocked(origin)
            return
        if top:
            self._on_document()
        self._session.post("Fetch.continueRequest", requestId=request)

    def _on_response(self, event: dict[str, Any]) -> None:
        """Replace the body of the document; redirects and errors stay what they are."""
        request, url = event["requestId"], event["request"]["url"]
        own = event["frameId"] == self._top_frame and origin_of(url) == self._origin
        succeeded = event.get("responseStatusCode") == 200
        if self._document is None or not own or not succeeded or not pinned_document.replaces(url):
            self._session.post("Fetch.continueRequest", requestId=request)
            return
        headers = event.get("responseHeaders", [])
        answer = pinned_document.fulfillment(self._document, headers)
        self._session.post("Fetch.fulfillRequest", requestId=request, **answer)

    def _on_challenge(self, event: dict[str, Any]) -> None:
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
        self._session.post(
            "Fetch.continueWithAuth", requestId=request, authChallengeResponse=response
        )
