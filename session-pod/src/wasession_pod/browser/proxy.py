"""The proxy to WhatsApp: from the files of its Secret, and whether it is to blame for a failure."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from wasession_pod.browser.errors import PROXY_SILENT, PROXY_UNREACHABLE

KEYS = ("server", "username", "password")
PROXY_TIMEOUT = 10.0  # seconds for the connection, and for the first byte of an answer
DEFAULT_PORTS = {"http": 80, "https": 443}
SOCKS_PORT = 1080
# One proxy and nothing else: of a list Chromium would also take "direct://", which bypasses it.
ADDRESS = re.compile(
    r"(?:(?:https?|socks[45])://)?(?:[a-z0-9_]([a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?",
    re.IGNORECASE,
)


class Credentials(NamedTuple):
    """Username and password of a proxy."""

    username: str
    password: str


@dataclass(frozen=True)
class Proxy:
    """A proxy. Its address has no credentials; its ``repr`` has neither."""

    address: str = field(repr=False)
    credentials: Credentials | None = field(default=None, repr=False)


class InvalidKey(ValueError):
    """A key of the proxy's Secret is not valid; the message is a predicate without the value."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(problem)
        self.key = key


def parse_proxy(content: Mapping[str, bytes]) -> Proxy:
    """Return the proxy from the Secret's content by key; raise ``InvalidKey``."""
    values = {key: _decode(key, value) for key, value in content.items()}
    if "server" not in values:
        raise InvalidKey("server", "is missing")
    if not values["server"]:
        raise InvalidKey("server", "is empty")
    scheme, separator, rest = values["server"].rpartition("://")
    userinfo, at, host = rest.rpartition("@")
    address = scheme.lower() + separator + host.removesuffix("/")
    match = ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match[2] or 1) < 65536:
        raise InvalidKey(
            "server", "is not an address such as http://proxy:3128 or socks5://proxy:1080"
        )
    credentials = None
    if "username" in values:
        credentials = Credentials(values["username"], values.get("password", ""))
    elif "password" in values:
        raise InvalidKey("username", "is missing, although there is a password")
    elif at:
        username, _, password = userinfo.partition(":")
        credentials = Credentials(unquote(username), unquote(password))
    if credentials is not None and address.startswith("socks"):
        raise InvalidKey(
            "server", "must be an HTTP proxy: Chromium does not support credentials for SOCKS"
        )
    return Proxy(address, credentials)


def _decode(key: str, value: bytes) -> str:
    """Return a value without the newline that a Secret easily ends with."""
    try:
        return value.decode().strip()
    except UnicodeDecodeError:
        raise InvalidKey(key, "is not valid UTF-8") from None


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
