"""Which scripts of the page have not come, and which host is to blame."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from wasession_pod.browser.cdp import Session
from wasession_pod.browser.errors import Unreachable, describe_certificate_error
from wasession_pod.state.observation import ScriptFault

ABORTED = "net::ERR_ABORTED"  # by the page itself, which has navigated away
MAXIMUM_SCRIPTS = 1000  # that are remembered; the page decides how many it requests
# Chromium keeps no bodies of responses for a client that might ask for them.
NO_BODIES = {"maxTotalBufferSize": 0, "maxResourceBufferSize": 0}


class ScriptRequests:
    """The page's requests for scripts, since the document was opened, that were not answered well.

    WhatsApp Web consists of a document and of scripts from another host. If a firewall, DNS or that
    host's CDN withholds these, the document alone shows nothing. Chromium reports requests, and the
    page's WebSocket frames with them, only from ``watch`` to ``unwatch``. When a page reloads
    itself later, it reports the responses, and not those requests that never have one: what is sent
    to a renderer meanwhile waits until the document is there.

    With ``bypass_service_worker`` the network answers all requests, and the watch never ends, since
    Chromium forgets it with that: a worker could answer the request for the document, which would
    then be neither intercepted nor replaced (seen with Chromium 156).
    """

    def __init__(
        self, session: Session, top_frame: str, *, bypass_service_worker: bool = False
    ) -> None:
        self.document_status: int | None = None  # of the response to the request for the document
        self._session, self._top_frame = session, top_frame
        self._bypass_service_worker = bypass_service_worker
        self._watching = False
        self._faults: dict[str, str] = {}  # by URL
        self._pending: dict[str, str] = {}  # URLs by request, without a response
        self._loading: dict[str, str] = {}  # with a response, but not all of it
        session.on("Network.requestWillBeSent", self._on_request)
        session.on("Network.responseReceived", self._on_response)
        session.on("Network.loadingFinished", self._on_finished)
        session.on("Network.loadingFailed", self._on_failed)

    def watch(self) -> None:
        """Watch the requests for a new document and its scripts."""
        self._forget()
        if not self._watching:
            self._watching = True
            self._session.post("Network.enable", **NO_BODIES)
            if self._bypass_service_worker:
                self._session.post("Network.setBypassServiceWorker", bypass=True)

    def unwatch(self) -> None:
        """Watch no more requests, because the page has its scripts."""
        if self._watching and not self._bypass_service_worker:
            self._watching = False
            self._session.post("Network.disable")
            self._forget()

    @property
    def fault(self) -> ScriptFault | None:
        """What is wrong with the scripts that have failed, else with those still awaited."""
        for url, fault in self._faults.items():
            return _describe(url, fault, pending=False)
        for url in self._pending.values():
            return _describe(url, "no answer", pending=True)
        return None

    def _forget(self) -> None:
        self.document_status = None
        for urls in (self._faults, self._pending, self._loading):
            urls.clear()

    def _on_request(self, event: dict[str, Any]) -> None:
        if event.get("frameId") != self._top_frame:
            return
        if event.get("type") == "Document":
            self._forget()
        elif event.get("type") == "Script" and len(self._pending) < MAXIMUM_SCRIPTS:
            self._pending[event["requestId"]] = event["request"]["url"]

    def _on_response(self, event: dict[str, Any]) -> None:
        if event.get("frameId") != self._top_frame:
            return
        request, response = event["requestId"], event["response"]
        if event["type"] == "Document":
            self.document_status = response["status"]
        if event["type"] != "Script":
            return
        url = response["url"]
        self._pending.pop(request, None)
        if len(self._loading) < MAXIMUM_SCRIPTS:
            self._loading[request] = url
        if response["status"] >= 400:
            self._fail(url, f"HTTP {response['status']}")
        elif response["mimeType"] == "text/html":
            self._fail(url, "HTML in place of a script")
        else:
            self._faults.pop(url, None)

    def _on_finished(self, event: dict[str, Any]) -> None:
        self._loading.pop(event["requestId"], None)

    def _on_failed(self, event: dict[str, Any]) -> None:
        request, error = event["requestId"], event.get("errorText")
        url = self._pending.pop(request, None) or self._loading.pop(request, None)
        if url is not None and error != ABORTED:
            self._fail(url, error or "the request failed")

    def _fail(self, url: str, fault: str) -> None:
        if len(self._faults) < MAXIMUM_SCRIPTS:
            self._faults[url] = fault


def _describe(url: str, fault: str, *, pending: bool) -> ScriptFault:
    host = urlsplit(url).netloc[:100]
    message = f"its scripts do not come from {host} ({describe_certificate_error(fault[:100])})"
    return ScriptFault(Unreachable(fault).reason, message, pending)
