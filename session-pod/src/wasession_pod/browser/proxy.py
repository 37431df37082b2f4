"""Tells a proxy that does not work from a WhatsApp that does not answer behind it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from urllib.parse import urlsplit

from wasession_pod.browser.errors import PROXY_SILENT, PROXY_UNREACHABLE

PROXY_TIMEOUT = 10.0  # seconds for the connection, and for the first byte of an answer
DEFAULT_PORTS = {"http": 80, "https": 443}
SOCKS_PORT = 1080


async def find_proxy_fault(address: str, origin: str) -> str | None:
    """Return why the proxy is to blame for a page that could not be loaded; None if it is not.

    Chromium reports a timeout either way. Any answer to a request for WhatsApp Web, even a refusal,
    shows that the proxy works. Of a SOCKS proxy only the connection is tried.
    """
    target = urlsplit(origin)
    try:
        proxy = urlsplit(address if "://" in address else f"http://{address}")
        port = proxy.port or DEFAULT_PORTS.get(proxy.scheme, SOCKS_PORT)
        async with asyncio.timeout(PROXY_TIMEOUT):
            tls = _unverified() if proxy.scheme == "https" else None
            reader, writer = await asyncio.open_connection(proxy.hostname, port, ssl=tls)
    except (OSError, TimeoutError, ValueError):  # the last for an address that is none
        return PROXY_UNREACHABLE
    try:
        if proxy.scheme not in DEFAULT_PORTS:
            return None
        authority = f"{target.hostname}:{target.port or DEFAULT_PORTS.get(target.scheme, 443)}"
        writer.write(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        async with asyncio.timeout(PROXY_TIMEOUT):
            return None if await reader.read(1) else PROXY_SILENT
    except (OSError, TimeoutError):
        return PROXY_SILENT
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await writer.wait_closed()


def _unverified() -> ssl.SSLContext:
    """Return a context for any certificate: nothing is sent that would matter."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
