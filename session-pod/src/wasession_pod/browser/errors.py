"""What can go wrong with the browser and its page, translated from Playwright's errors."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

from playwright.async_api import Error as PlaywrightError
from wasession_api.v1alpha1 import Reason

# In the messages of errors while a document is replaced, and in those of ``bridge.js``.
AWAY = (
    "Execution context was destroyed",
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
    """The page, the browser or Playwright's driver has exited."""


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
    """Turn Playwright's errors and a timeout (in seconds) into ``BrowserError``.

    Only the first line of an error is passed on: the others may quote the page. The timeout also
    covers a driver that hangs, which does not enforce Playwright's own timeouts.
    """
    try:
        async with asyncio.timeout(timeout):
            yield
    except PlaywrightError as error:
        raise _error_type(error.message)(first_line(error.message)) from None
    except TimeoutError:
        raise NoAnswer(f"no answer within {timeout or 0:g} s") from None


def _error_type(message: str) -> type[BrowserError]:
    if "has been closed" in message or "Connection closed" in message:
        return PageClosed
    return PageAway if any(marker in message for marker in AWAY) else BrowserError


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
    """Return an error's first line, without the name of the call, at most 200 characters."""
    lines = message.strip().splitlines() or [""]
    return re.sub(r"^[A-Za-z]+\.[A-Za-z_]+: ", "", lines[0])[:200]
