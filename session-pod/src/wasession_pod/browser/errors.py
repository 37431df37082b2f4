"""What can go wrong with the browser and its page, translated from the protocol's errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from wasession_api.v1alpha1 import Reason

from wasession_pod.browser.cdp import Disconnected, ProtocolError

# In the messages of errors while a document is replaced, and in those of ``bridge.js``.
AWAY = (
    "Inspected target navigated or closed",
    "Execution context was destroyed",
    "Cannot find default execution context",
    "Cannot find context",
    "WhatsApp Web is loading",
    "WhatsApp is not connected",
)
WRONG_CREDENTIALS = "the proxy does not accept the username and password"
PROXY_UNREACHABLE = "the proxy does not accept connections"
PROXY_SILENT = "the proxy does not answer"
PROXY_ERRORS = (
    "ERR_PROXY",
    "ERR_TUNNEL",
    "ERR_SOCKS",
    "ERR_NO_SUPPORTED_PROXIES",
    "ERR_INVALID_AUTH",
    "HTTP 407",
    WRONG_CREDENTIALS,
    PROXY_UNREACHABLE,
    PROXY_SILENT,
)
CERTIFICATE_ERROR = "ERR_CERT_"
UNKNOWN_AUTHORITY = "ERR_CERT_AUTHORITY_INVALID"


class BrowserError(Exception):
    """The browser or the page failed; the message is one line without page content."""


class PageClosed(BrowserError):
    """The page or the browser has exited."""


class PageAway(BrowserError):
    """The page is loading, or not connected to WhatsApp; it returns by itself."""


class NoAnswer(BrowserError):
    """The browser or the page did not answer in time."""


class NotStartable(BrowserError):
    """No browser may start at present; the cause is outside the pod."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Unreachable(BrowserError):
    """WhatsApp Web could not be loaded because of the network, the proxy or WhatsApp itself."""

    @property
    def reason(self) -> Reason:
        if any(marker in str(self) for marker in PROXY_ERRORS):
            return Reason.PROXY_FAILED
        untrusted = CERTIFICATE_ERROR in str(self)
        return Reason.CERTIFICATE_UNTRUSTED if untrusted else Reason.WHATSAPP_UNREACHABLE


@contextlib.asynccontextmanager
async def browser_errors(timeout: float | None) -> AsyncIterator[None]:
    """Turn errors of the protocol and a timeout (in seconds) into ``BrowserError``.

    Only the first line of an error is passed on: the others may quote the page.
    """
    try:
        async with asyncio.timeout(timeout):
            yield
    except ProtocolError as error:
        raise _error_type(error)(first_line(str(error))) from None
    except TimeoutError:
        raise NoAnswer(f"no answer within {timeout or 0:g} s") from None


def _error_type(error: ProtocolError) -> type[BrowserError]:
    if isinstance(error, Disconnected):
        return PageClosed
    return PageAway if any(marker in str(error) for marker in AWAY) else BrowserError


def describe_certificate_error(error: str) -> str:
    """Return an error, with what to do if Chromium does not trust a certificate."""
    if CERTIFICATE_ERROR not in error:
        return error
    cause = "it is expired, revoked or for another host"
    if UNKNOWN_AUTHORITY in error:
        cause = (
            "an unknown authority has signed it; if a company's proxy or firewall intercepts TLS, "
            "add that authority's certificate to the session's CA bundle"
        )
    return f"Chromium does not trust the server's certificate: {cause} ({error})"


def first_line(message: str) -> str:
    """Return an error's first line, at most 200 characters."""
    return next(iter(message.strip().splitlines()), "")[:200]
