"""Which scripts of the page have not come, and which host is to blame."""

from __future__ import annotations

import contextlib
from urllib.parse import urlsplit

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Page, Request, Response

from wasession_pod.browser.errors import Unreachable, describe_certificate_error
from wasession_pod.state.observation import ScriptFault

ABORTED = "net::ERR_ABORTED"  # by the page itself, which has navigated away
MAXIMUM_SCRIPTS = 1000  # that are remembered; the page decides how many it requests


class ScriptRequests:
    """The page's requests for scripts, since the document was opened, that were not answered well.

    WhatsApp Web consists of a document and of scripts from another host. If a firewall, DNS or that
    host's CDN withholds these, the document alone shows nothing.
    """

    def __init__(self) -> None:
        self._faults: dict[str, str] = {}  # by URL
        self._pending: set[str] = set()

    def follow(self, page: Page) -> None:
        """Listen to the page's requests."""
        page.on("request", self._on_request)
        page.on("response", self._on_response)
        page.on("requestfailed", self._on_failed)

    @property
    def fault(self) -> ScriptFault | None:
        """What is wrong with the scripts that have failed, else with those still awaited."""
        for url, fault in self._faults.items():
            return _describe(url, fault, pending=False)
        for url in self._pending:
            return _describe(url, "no answer", pending=True)
        return None

    def _on_request(self, request: Request) -> None:
        if request.is_navigation_request() and _of_top_frame(request):
            self._faults.clear()
            self._pending.clear()
        elif _is_script(request) and len(self._pending) < MAXIMUM_SCRIPTS:
            self._pending.add(request.url)

    def _on_response(self, response: Response) -> None:
        if not _is_script(response.request):
            return
        self._pending.discard(response.url)
        media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if response.status >= 400:
            self._fail(response.url, f"HTTP {response.status}")
        elif response.ok and media_type == "text/html":
            self._fail(response.url, "HTML in place of a script")
        else:
            self._faults.pop(response.url, None)

    def _on_failed(self, request: Request) -> None:
        if not _is_script(request):
            return
        self._pending.discard(request.url)
        if request.failure != ABORTED:
            self._fail(request.url, request.failure or "the request failed")

    def _fail(self, url: str, fault: str) -> None:
        if len(self._faults) < MAXIMUM_SCRIPTS:
            self._faults[url] = fault


def _is_script(request: Request) -> bool:
    """Whether a document of the top frame has requested a script."""
    return request.resource_type == "script" and _of_top_frame(request)


def _of_top_frame(request: Request) -> bool:
    with contextlib.suppress(PlaywrightError):  # requests of service workers have no frame
        return request.frame.parent_frame is None
    return False


def _describe(url: str, fault: str, *, pending: bool) -> ScriptFault:
    host = urlsplit(url).netloc[:100]
    message = f"its scripts do not come from {host} ({describe_certificate_error(fault[:100])})"
    return ScriptFault(Unreachable(fault).reason, message, pending)
