"""Sends one request to a webhook and says what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import functools
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp
from wasession_api.v1alpha1 import Webhook, WebhookPolicy
from wasession_api.v1alpha1.webhooks import SECRET_NAME

from wasession_pod.webhooks.cloud_events import InvalidKey, Request, parse_keys, signed_headers
from wasession_pod.webhooks.destination import (
    Destinations,
    Forbidden,
    GuardedResolver,
    parse_networks,
)
from wasession_pod.webhooks.plan import Outcome

AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
READ_ANSWER, READ_PATIENCE = 64 * 2**10, 1.0  # bytes and seconds, of the body of an answer
KEY_LIFETIME = 10.0  # seconds until a key is read again
REJECTED = frozenset({400, 413, 415, 422})
GONE, TOO_MANY, UNAVAILABLE = 410, 429, 503


class Attempt(NamedTuple):
    """``wish``: seconds that the receiver wants to be left alone. ``error`` quotes no answer."""

    outcome: Outcome
    error: str = ""
    wish: float = 0.0


class KeyUnavailable(Exception):
    """The Secret has no usable key of this name; the message says why."""


class Keys:
    """The signing keys in a mounted Secret, which may change at any time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, tuple[float, list[bytes]]] = {}

    async def read(self, name: str) -> list[bytes]:
        """Return the keys of one name; raise ``KeyUnavailable``."""
        read_at, keys = self._known.get(name, (-KEY_LIFETIME, []))
        if time.monotonic() - read_at < KEY_LIFETIME:
            return keys
        try:
            keys = parse_keys(await asyncio.to_thread((self._directory / name).read_text))
        except OSError:
            raise KeyUnavailable(f"the Secret {SECRET_NAME} has no key {name}") from None
        except (InvalidKey, UnicodeDecodeError) as error:
            raise KeyUnavailable(
                f"the key {name} of the Secret {SECRET_NAME} cannot be used: {error}"
            ) from None
        self._known[name] = (time.monotonic(), keys)
        return keys


class Sender:
    """Sends requests to where the class lets webhooks go. Redirects are not followed."""

    def __init__(self, http: aiohttp.ClientSession, destinations: Destinations, keys: Keys) -> None:
        self._http, self._destinations, self._keys = http, destinations, keys

    async def attempt(self, webhook: Webhook, made: Request) -> Attempt:
        """Send an event once. Never raises what the receiver or the network is to blame for."""
        timeout = webhook.timeout.total_seconds()
        try:
            self._destinations.check_host(urlsplit(webhook.url).hostname or "")
            headers = signed_headers(
                made, await self._keys.read(webhook.signing_key), int(time.time())
            )
            async with contextlib.AsyncExitStack() as stack:
                async with asyncio.timeout(timeout):
                    response = await stack.enter_async_context(
                        self._http.post(
                            webhook.url, data=made.body, headers=headers, allow_redirects=False
                        )
                    )
                await _read_rest(response)
                return judge(response.status, response.headers.get("Retry-After"))
        except (Forbidden, KeyUnavailable) as error:
            return Attempt(Outcome.FAILED, str(error))
        except TimeoutError:
            return Attempt(Outcome.FAILED, f"no answer within {timeout:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Attempt(Outcome.FAILED, describe(error))


async def _read_rest(response: aiohttp.ClientResponse) -> None:
    """Read the answer's body, so that its connection can be used again; else it is closed."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(READ_PATIENCE):
            with contextlib.suppress(asyncio.IncompleteReadError):
                await response.content.readexactly(READ_ANSWER + 1)


def judge(status: int, retry_after: str | None = None, now: float | None = None) -> Attempt:
    """Return what an answer means. See ``Outcome``."""
    if 200 <= status < 300:
        return Attempt(Outcome.DELIVERED)
    error = f"HTTP {status}"
    if status == GONE:
        return Attempt(Outcome.GONE, error)
    wish = parse_retry_after(retry_after, time.time() if now is None else now)
    if status == TOO_MANY or (status == UNAVAILABLE and wish > 0):
        return Attempt(Outcome.THROTTLED, error, wish)
    return Attempt(Outcome.REJECTED if status in REJECTED else Outcome.FAILED, error)


def parse_retry_after(text: str | None, now: float) -> float:
    """Return the seconds of a Retry-After (RFC 9110, 10.2.3); 0 without a valid one."""
    if text is None:
        return 0.0
    if text.strip().isdecimal():
        return float(text)
    with contextlib.suppress(ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    return 0.0


def describe(error: Exception) -> str:
    """Return what has failed, in words that have no content of the answer."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return f"the certificate is not accepted: {error.certificate_error}"
        case aiohttp.ClientConnectorError() if isinstance(error.os_error, Forbidden):
            return str(error.os_error)
        case aiohttp.ClientConnectorError():
            return f"cannot connect: {error.os_error.strerror or error.os_error}"
        case aiohttp.ServerDisconnectedError() | ConnectionError():
            return "the connection was closed before the answer"
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            return "the answer is not HTTP"
    return type(error).__name__


def destinations(policy: WebhookPolicy) -> Destinations:
    """Return where a class lets webhooks go."""
    return Destinations(tuple(policy.allowed_hosts), parse_networks(policy.allowed_networks))


@functools.cache
def tls(ca_bundle: Path | None) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities, and those of a file."""
    context = ssl.create_default_context(cafile=str(AUTHORITIES) if AUTHORITIES.exists() else None)
    if ca_bundle is not None:
        with contextlib.suppress(OSError):  # which Chromium reports
            context.load_verify_locations(ca_bundle)
    return context


@contextlib.asynccontextmanager
async def client(
    destinations: Destinations, ca_bundle: Path | None
) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a client for webhooks; it heeds neither proxies nor cookies."""
    connector = aiohttp.TCPConnector(
        limit=0,  # each webhook has its own, so that none waits for another one's
        ssl=await asyncio.to_thread(tls, ca_bundle),
        resolver=GuardedResolver(destinations),
        use_dns_cache=False,  # each connection is checked
    )
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    ) as http:
        yield http
